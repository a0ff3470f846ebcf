"""One case in one library, in a process of its own: `python worker.py MODULE CASE FOLDER`.

Prepares, calls once (that compiles), saves what came out, then times a call (of short ones a few) for every line it reads, or says what memory XLA plans where the
line asks for the plan. All answers are lines of JSON.
"""
import importlib, json, os, re, resource, statistics, sys, time, warnings

warnings.filterwarnings('ignore')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
import jax
import numpy as np


def memory():
    "Peak memory so far, MiB"
    # Not `ru_maxrss` where it can be helped: on Linux that of a new process starts at what its parent held.
    try: status = open('/proc/self/status').read()
    except OSError: return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
    return int(re.search(r'VmHWM:\s*(\d+)', status)[1])/1024


def arrays(tree): return [a for a in jax.tree_util.tree_leaves(tree) if np.issubdtype(getattr(a, 'dtype', int), np.floating)]


def timed(f):
    wall, cpu = time.perf_counter(), time.process_time()
    out = jax.block_until_ready(arrays(f()))
    return out, time.perf_counter() - wall, time.process_time() - cpu


WARM = .05  # Seconds of calls before one that counts: in the pause threads fell asleep, and other processes filled the caches


def warm(f, last):
    "Call `f`, which took `last` seconds, until the state is steady again"
    end = time.perf_counter() + WARM
    while last < 40*WARM and time.perf_counter() < end: last = timed(f)[1]
    return last


def main(module, name, path):
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import cases
    nt = importlib.import_module(module)
    nt.stax, nt.predict = (importlib.import_module(f'{module}.{m}') for m in ('stax', 'predict'))
    imported = memory()
    f = cases.CASES[name][0](nt)
    out, first, _ = timed(f)
    once = memory() # in later calls the runtime may still hold the result of the one before
    say = lambda **what: print(json.dumps(what), flush=True)
    os.mkdir(path)
    for i, a in enumerate(out): np.save(f'{path}/{i}.npy', np.asarray(a)) # as it lies in memory: an archive would copy it
    del out, a
    say(first=first, imported=imported, once=once, jax=jax.__version__, library=getattr(nt, '__version__', '0.6.5'))
    last = first if first < 10*WARM else timed(f)[1]
    for line in sys.stdin:
        if line.strip() == 'plan':
            say(planned=f.planned() if hasattr(f, 'planned') else None)
            continue
        last = warm(f, last)
        # Now and then the system puts both threads on one core: of short calls the median of a few is one turn.
        calls = [timed(f)[1:] for _ in range(min(5, int(4*WARM/last)) | 1)] # what one returned is gone before the next
        last, cpu = map(statistics.median, zip(*calls))
        say(wall=last, cpu=cpu, peak=memory())


if __name__ == '__main__': main(*sys.argv[1:])
