"""Time both libraries on the same inputs, in turns, and print, save and compare.

    python -m benchmarks [--only REGEX] [--rounds 5] [--reference PYTHON] [--out DIR] [--list]

Every case runs in one process for this library and one for each CPU runtime that XLA offered in the versions of JAX on which the other
library works; the processes take turns, one call each a round (a few, where they are short), and the better runtime counts. `--reference` is the interpreter of an
environment with `benchmarks/reference-requirements.txt` (`make bench` makes one); without it only this library runs.
"""
import argparse, datetime, json, os, platform, re, select, statistics, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
LIMIT = 900     # seconds for one answer: more is a hang
SHORT = 3       # seconds of a first call up to which it is timed
AGAIN = 2       # in so many further processes: one sample is of one moment
PAUSE = .3      # seconds between turns: threads of BLAS and XLA look for work some while before they sleep, and would take a core from the next one


class Runner:
    "One case in one library, waiting for its turns"
    def __init__(self, name, python, module, folder, x64=False, flags='', label=''):
        self.label, self.how = label, dict(name=name, python=python, module=module, x64=x64, flags=flags)
        self.path, self.calls, self.first, self.failed = Path(folder)/str(abs(hash((python, x64, flags)))), [], None, None
        env = os.environ | dict(JAX_PLATFORMS=os.environ.get('JAX_PLATFORMS', 'cpu'), JAX_ENABLE_X64=str(int(x64)), XLA_FLAGS=flags)
        self.process = subprocess.Popen([python, str(HERE/'worker.py'), module, name, str(self.path)], env=env, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.first = self.answer()
        self.firsts = [self.first['first']] if self.first else []

    def answer(self):
        "The next line of the process, or None (and why in `failed`) if there is none"
        if not select.select([self.process.stdout], [], [], LIMIT)[0]:
            self.failed = f'no answer in {LIMIT} s'
            return None
        line = self.process.stdout.readline()
        if line: return json.loads(line)
        self.failed = (self.process.stderr.read().strip().splitlines() or ['it said nothing'])[-1][:160]
        return None

    def ask(self, what):
        self.process.stdin.write(what + '\n')
        self.process.stdin.flush()
        return self.answer()

    def turn(self):
        if self.failed: return
        time.sleep(PAUSE)
        got = self.ask('time')
        if got: self.calls.append(got)

    def close(self):
        self.process.kill()
        self.process.communicate()

    def median(self, what='wall'): return statistics.median(c[what] for c in self.calls) if self.calls else float('inf')
    def again(self, folder):
        "Time the first call in one more process"
        os.mkdir(folder)
        other = Runner(**self.how, folder=folder)
        self.firsts += other.firsts
        other.close()

    def compile(self): return max(statistics.median(self.firsts) - self.median(), 0.)
    def peak(self): return self.calls[-1]['peak']
    def memory(self): return self.peak() - self.first['imported']
    def once(self): return self.first['once']
    def planned(self): return (self.ask('plan') or {}).get('planned')
    def outputs(self):
        return [np.load(self.path/f'{i}.npy').astype(np.float64) for i in range(len(os.listdir(self.path)))]


def distance(a, b):
    "Largest difference relative to the largest entry, over corresponding outputs"
    if [x.shape for x in a] != [y.shape for y in b]: return float('inf')
    return max(float(np.abs(x - y).max()/np.abs(y).max()) for x, y in zip(a, b))


def measure(name, entries, rtol, args):
    "A row of the table"
    theirs = [('', 'default'), ('--xla_cpu_use_thunk_runtime=false', 'older')] if args.reference else []
    with tempfile.TemporaryDirectory() as folder:
        ours = Runner(name, sys.executable, 'neural_tangents_nb', folder)
        exact = Runner(name, sys.executable, 'neural_tangents_nb', folder, x64=True) if args.accuracy else None
        others = [Runner(name, args.reference, 'neural_tangents', folder, flags=f, label=label) for f, label in theirs]
        started = [r for r in (ours, exact, *others) if r]
        try:
            if ours.failed: return dict(name=name, error=ours.failed)
            if exact: exact.close()
            for i in range(args.rounds):
                for r in (ours, *others): r.turn()
                # The better runtime counts: after a first look the turns of one that takes twice as long are saved.
                if i == 0: others = [r for r in others if r.median() <= 2*min(o.median() for o in others)] or others
            if ours.failed: return dict(name=name, error=ours.failed)
            ran = [r for r in others if r.calls]
            best = min(ran, key=Runner.median) if ran else None
            for i in range(AGAIN):
                for r in (ours, best):
                    if r and r.first['first'] < SHORT: r.again(f'{folder}/{i}{r.label}')
            row = dict(name=name, seconds=ours.median(), cpu=ours.median('cpu'), compile=ours.compile(), memory=ours.memory(), process=ours.peak(), once=ours.once(),
                       planned=ours.planned(), per_entry=ours.median()/entries, rounds=len(ours.calls))
            if exact and not exact.failed: row['float32'] = distance(ours.outputs(), exact.outputs())
            if not best: return row | (dict(reference_error=others[0].failed) if others else {})
            row |= dict(reference=best.median(), reference_cpu=best.median('cpu'), runtime=best.label, ratio=best.median()/ours.median(),
                        reference_compile=best.compile(), reference_memory=best.memory(), reference_process=best.peak(), reference_once=best.once(),
                        reference_planned=best.planned(), difference=distance(ours.outputs(), best.outputs()))
            if exact and not exact.failed: row['reference_float32'] = distance(best.outputs(), exact.outputs())
            if rtol is None: row['difference'] = row['float32'] = row['reference_float32'] = None
            # Where the two differ because the other one is that far from float64 itself, that is reported and not an error of ours.
            elif not row['difference'] < max(rtol, 2*row.get('reference_float32', 0)):
                row['error'] = f"results differ by {row['difference']:.1e}, allowed are {rtol:.0e}"
            elif row.get('float32', 0) >= rtol: row['error'] = f"float32 error {row['float32']:.1e}, allowed are {rtol:.0e}"
            return row
        finally:
            for r in started: r.close()


COLUMNS = dict(seconds='s', reference='reference s', ratio='ratio', compile='compile s', reference_compile='reference', memory='MiB', reference_memory='reference',
               process='with imports', reference_process='reference', once='one call', reference_once='reference', planned='planned MiB', reference_planned='reference', difference='difference', float32='float32 error', reference_float32='reference', date='date')


def shown(row, column):
    v = row.get(column)
    if v is None: return ''
    if column in ('difference', 'float32', 'reference_float32'): return f'{v:.0e}'
    if column == 'date': return v
    if any(word in column for word in ('memory', 'process', 'once', 'planned')): return f'{v:.0f}'
    return f'{v:.1f}' if column == 'ratio' else f'{v:.3g}'


def table(rows):
    "The rows as Markdown"
    lines = [['case', *COLUMNS.values()], ['---', *['---:']*len(COLUMNS)]]
    lines += [[f"`{r['name']}`", *(shown(r, c) for c in COLUMNS)] for r in rows]
    said = [f"- `{r['name']}`: {r.get('error') or 'reference: ' + r['reference_error']}" for r in rows if r.get('error') or r.get('reference_error')]
    return '\n'.join('| ' + ' | '.join(l) + ' |' for l in lines) + ('\n\n' + '\n'.join(said) if said else '')


def machine():
    import jax
    model = re.search(r'model name\s*:\s*(.*)', Path('/proc/cpuinfo').read_text()) if Path('/proc/cpuinfo').exists() else None
    return dict(date=datetime.date.today().isoformat(), cpu=model[1] if model else platform.processor(), cores=len(os.sched_getaffinity(0)),
                python=platform.python_version(), jax=jax.__version__, load=round(os.getloadavg()[0], 2))


def main():
    parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__.splitlines()[0])
    parser.add_argument('--only', default='', metavar='REGEX', help='cases whose name matches (default: all)')
    parser.add_argument('--rounds', type=int, default=5, help='timed calls of each, in turns (default: 5)')
    parser.add_argument('--reference', metavar='PYTHON', help="interpreter of the other library's environment")
    parser.add_argument('--accuracy', action='store_true', help='also compute in float64 and report float32 errors')
    parser.add_argument('--out', type=Path, default=HERE/'out', help='where results.json and table.md go (default: benchmarks/out)')
    parser.add_argument('--list', action='store_true', help='name the cases and stop')
    args = parser.parse_args()
    from .cases import CASES
    chosen = [n for n in CASES if re.search(args.only, n)]
    if not chosen: sys.exit(f'No case matches {args.only!r}; --list names them')
    if args.list: return print('\n'.join(chosen))
    args.out.mkdir(parents=True, exist_ok=True)
    facts, rows, path = machine(), [], args.out/'results.json'
    # Cases measured before on the same processor with the same versions stay, each with its date.
    old = json.loads(path.read_text()) if path.exists() else dict(machine={}, rows=[])
    same = all(old['machine'].get(n) == facts[n] for n in ('cpu', 'cores', 'python', 'jax'))
    kept = {r['name']: dict(date=old['machine']['date']) | r for r in old['rows']} if same else {}
    for name in chosen:
        rows.append(dict(date=facts['date']) | measure(name, *CASES[name][1:], args))
        print(table(rows[-1:]).splitlines()[2], rows[-1].get('error', ''), flush=True)
        kept[name] = rows[-1]
        path.write_text(json.dumps(dict(machine=facts, rows=[kept[n] for n in CASES if n in kept]), indent=1))
    text = f"{facts['date']}, {facts['cpu']}, {facts['cores']} cores, JAX {facts['jax']}, medians of {args.rounds}\n\n{table(rows)}\n"
    (args.out/'table.md').write_text(text)
    print('\n' + text)
    if wrong := [r['name'] for r in rows if 'error' in r]: sys.exit(f"Wrong or failed: {', '.join(wrong)}")


if __name__ == '__main__': main()
