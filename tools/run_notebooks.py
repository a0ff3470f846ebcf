"""Execute notebooks, each in a process of its own, honouring nbdev's flags.

    python tools/run_notebooks.py [--save] [--times FILE] [--jobs N] [--flags 'slow ...'] [NOTEBOOK ...]

A process of its own because JAX's configuration and compiled programs would leak from one notebook to the next. `--save` stores
the outputs in the notebooks and cleans them, `--times` the seconds that each took in a JSON file; without them nothing is written.
"""
import argparse, json, os, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 600     # seconds for one notebook: more is a hang, as they are written to take less than a minute
# Tests compile much and compute little: without these optimizations most notebooks take two thirds of the time. Not so those
# that compute for long, or measure how fast programs are.
# XLA ends the process at a flag that it does not know, and later versions have the second one no more.
QUICK = '--xla_backend_optimization_level=0'
if tuple(map(int, version('jax').split('.')[:2])) < (0, 11): QUICK += ' --xla_cpu_use_fusion_emitters=false'
OPTIMIZED = {'00b_machine', '06_conv', '07_wide_resnet', '13a_cost', '14_tiles', '15_solvers', '17_sketch'}

def quickly(env):
    "The environment `env`, with flags by which XLA compiles quickly"
    return env | dict(XLA_FLAGS=f"{env.get('XLA_FLAGS', '')} {QUICK}".strip())

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
    if not save: os.environ['IN_TEST'] = '1'        # as nbdev_test does
    skip = set(get_config().tst_flags.split()) - set(flags.split())
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

def run(path, args):
    "Execute the notebook in a new process and say how it went, as soon as it has ended; the seconds that it took, or `None` if it failed"
    command = [sys.executable, __file__, '--here', '--flags', args.flags, *['--save']*args.save, str(path)]
    quick = not args.save and path.stem not in OPTIMIZED
    env = quickly(os.environ) if quick else None
    start = time.time()
    try:
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT)
        ok, said = done.returncode == 0, done.stdout + done.stderr
        if not ok and not said.strip(): said = f'The process ended with exit status {done.returncode}, saying nothing'
    except subprocess.TimeoutExpired: ok, said = False, f'Stopped after {LIMIT} seconds'
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
    parser.add_argument('--here', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    paths = [p.resolve() for p in args.notebooks] or sorted(
        p for p in (ROOT/'nbs').rglob('*.ipynb') if not any(s[0] in '._' for s in p.relative_to(ROOT).parts))
    if missing := [str(p) for p in paths if not p.is_file()]: sys.exit(f"No such notebook: {', '.join(missing)}")
    if args.here: sys.exit(not all(execute(p, args.save, args.flags) for p in paths))
    start = time.time()
    with ThreadPoolExecutor(args.jobs) as pool: seconds = list(pool.map(lambda p: run(p, args), paths))
    failed = [p.name for p, s in zip(paths, seconds) if s is None]
    print(f'{len(paths)-len(failed)} of {len(paths)} notebooks ran, in {time.time()-start:.0f} s')
    if args.times: keep_times(args.times, paths, seconds)
    if failed: sys.exit(f"Failed: {', '.join(failed)}")

if __name__ == '__main__': main()
