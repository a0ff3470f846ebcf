"""Execute notebooks, each in a process of its own, honouring nbdev's flags.

    python tools/run_notebooks.py [--save] [--times FILE] [--jobs N] [--flags 'slow ...'] [NOTEBOOK ...]

A process of its own because JAX's configuration and compiled programs would leak from one notebook to the next; what all of them
import is there already, as each is forked from a process that has nothing but these imports. `--save` stores
the outputs in the notebooks and cleans them, `--times` the seconds that each took in a JSON file; without them nothing is written.
Tests run the small sizes (`IN_TEST`) and leave out cells flagged `#| full`; with `FULL=1` in the environment they leave out neither.
"""
import argparse, json, multiprocessing, os, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 600     # seconds for one notebook: more is a hang, as they are written to take less than a minute
FULL = bool(os.environ.get('FULL'))     # what `make test-all` sets: the long tests too
# Tests compile much and compute little: without XLA's optimizations, and in one piece, a program compiles in a third of the time.
# Not so where programs are timed or their costs are counted.
# XLA ends the process at a flag that it does not know, and later versions have the last one no more.
QUICK = '--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1'
if tuple(map(int, version('jax').split('.')[:2])) < (0, 11): QUICK += ' --xla_cpu_use_fusion_emitters=false'
# Programs that one process has compiled are there for the others, and for the next run.
CACHE = dict(JAX_COMPILATION_CACHE_DIR=str(ROOT/'.cache'/'jax'), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
             JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES='-1')
# The threads of OpenBLAS and those of XLA would take the cores from each other.
THREADS = dict(OPENBLAS_NUM_THREADS='1')
OPTIMIZED = {'00b_machine', '07_wide_resnet', '13a_cost', '14_tiles'}

# What most notebooks import, and what executes them
IMPORTED = ['jax', 'jax.numpy', 'scipy.linalg', 'matplotlib.pyplot', 'execnb.shell', 'execnb.nbio', 'nbdev.process', 'nbdev.clean', 'nbdev.frontmatter']

# The longest begin first, so that no core is idle at the end.
FIRST = '03_activations', '07_norm', '10c_plans', '16_predict', '06_conv', '00b_machine', '13a_cost', '14a_montecarlo', '08_attention', '14_tiles'

def cached(env):
    "The environment `env`, with a folder for compiled programs unless it names one"
    return CACHE | THREADS | dict(env)

def quickly(env):
    "The environment `env`, with that folder and with flags by which XLA compiles quickly"
    return cached(env) | dict(XLA_FLAGS=f"{env.get('XLA_FLAGS', '')} {QUICK}".strip())

def skipped(cell, flags):
    "Is `cell` one that nbdev would not execute?"
    from nbdev.process import extract_directives
    if cell.cell_type != 'code': return True
    found = extract_directives(cell, remove=False) or {}
    return found.get('eval:', [''])[0].lower() == 'false' or bool(flags & found.keys()) or 'nbdev_export(' in cell.source

def never_run(path):
    "Does the front matter of the notebook say `skip_exec: true`?"
    from nbdev.process import NBProcessor
    from nbdev.frontmatter import FrontmatterProc
    nb = NBProcessor(path, procs=FrontmatterProc, process=True).nb
    return str(getattr(nb, 'frontmatter_', {}).get('skip_exec', False)).lower() == 'true'

def execute(path, save, flags):
    "Execute the notebook at `path` in this process; `False`, and the traceback on stderr, if a cell fails"
    from execnb.nbio import read_nb, write_nb
    from execnb.shell import CaptureShell
    from nbdev.clean import nbdev_clean
    from nbdev.config import get_config
    if never_run(path): return True
    os.chdir(path.parent)
    if not (save or FULL): os.environ['IN_TEST'] = '1'      # as nbdev_test does
    skip = set(get_config().tst_flags.split()) - set(flags.split())
    if save or FULL: skip.discard('full')
    nb, shell = read_nb(path), CaptureShell(path)
    shell.set_path(ROOT)
    for cell in nb.cells: # the shell leaves the outputs of a cell that has none now as they were
        if not skipped(cell, skip): cell.outputs = []
    try: shell.run_all(nb, exc_stop=True, preproc=lambda cell: skipped(cell, skip))
    except BaseException:
        print(shell.prettytb(fname=path.name), file=sys.stderr)
        return False
    if save:
        write_nb(nb, path)
        nbdev_clean.__wrapped__(str(path))
    return True

def child(path, save, flags, env, log):
    "What the new process does"
    os.environ.clear(); os.environ.update(env)
    with open(log, 'ab') as f, open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
        for fd in (1, 2): os.dup2(f.fileno(), fd)
    ok = execute(path, save, flags)
    for f in (sys.stdout, sys.stderr): f.flush()
    sys.exit(not ok)

def run(path, args, processes):
    "Execute the notebook in a new process and say how it went, as soon as it has ended; the seconds that it took, or `None` if it failed"
    if args.save: env = dict(os.environ)
    else: env = (cached if path.stem in OPTIMIZED else quickly)(os.environ)
    start = time.time()
    with tempfile.NamedTemporaryFile() as log:
        p = processes.Process(target=child, args=(path, args.save, args.flags, env, log.name))
        p.start()
        p.join(LIMIT)
        late = p.is_alive()
        if late: p.kill(); p.join()
        ok, said = p.exitcode == 0, Path(log.name).read_text(encoding='utf-8', errors='replace')
    if late: said += f'Stopped after {LIMIT} seconds'
    elif not ok and not said.strip(): said = f'The process ended with exit status {p.exitcode}, saying nothing'
    seconds = time.time() - start
    line = f"{'ok  ' if ok else 'FAIL'} {seconds:6.1f} s  {path.name}"
    print(line if ok else f'{line}\n{said}', flush=True)
    return seconds if ok else None

def keep_times(file, paths, seconds):
    "Write the seconds that notebooks took to `file`, beside those that it has of notebooks that did not run now"
    sys.path.insert(0, str(ROOT))
    from benchmarks.__main__ import machine
    kept = json.loads(file.read_text())['seconds'] if file.exists() else {}
    kept |= {os.path.relpath(p, ROOT): round(s, 1) for p, s in zip(paths, seconds) if s is not None}
    there = {name: s for name, s in sorted(kept.items()) if (ROOT/name).is_file()}
    file.write_text(json.dumps(dict(machine=machine(), seconds=there), indent=1) + '\n')

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('notebooks', nargs='*', type=Path, help='default: all of nbs/')
    parser.add_argument('--save', action='store_true', help='store the outputs in the notebooks')
    parser.add_argument('--times', type=Path, metavar='FILE', help='store the seconds that each notebook took')
    parser.add_argument('--jobs', type=int, default=2, help='how many at a time (default: 2)')
    parser.add_argument('--flags', default='', help='flags of cells to run that are skipped by default')
    args = parser.parse_args()
    paths = [p.resolve() for p in args.notebooks] or sorted(
        p for p in (ROOT/'nbs').rglob('*.ipynb') if not any(s[0] in '._' for s in p.relative_to(ROOT).parts))
    if missing := [str(p) for p in paths if not p.is_file()]: sys.exit(f"No such notebook: {', '.join(missing)}")
    start = time.time()
    if not args.save: os.environ.update(cached(os.environ)) # JAX reads some of it where it is imported
    processes = multiprocessing.get_context('forkserver')
    processes.set_forkserver_preload(IMPORTED)
    paths.sort(key=lambda p: p.stem not in FIRST)
    with ThreadPoolExecutor(args.jobs) as pool: seconds = list(pool.map(lambda p: run(p, args, processes), paths))
    failed = [p.name for p, s in zip(paths, seconds) if s is None]
    print(f'{len(paths)-len(failed)} of {len(paths)} notebooks ran, in {time.time()-start:.0f} s')
    if args.times: keep_times(args.times, paths, seconds)
    if failed: sys.exit(f"Failed: {', '.join(failed)}")

if __name__ == '__main__': main()
