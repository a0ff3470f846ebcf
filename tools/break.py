"""Break the package in one place after another, and see that `make test` would have noticed.

    python tools/break.py [--jobs N] [NUMBER ...]

Each fault replaces some text in one module, in a copy of the package, and a small part of the tests runs there: it must fail. Notebooks
run their own cells and not their module, so the tests here are of pytest, or a later notebook. A fault whose text is no longer in the module is an error.
"""
import argparse, os, shutil, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from run_notebooks import quickly

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = 'neural_tangents_nb'
COPIED = LIBRARY, 'tests', 'tools', 'settings.ini', 'pyproject.toml', 'CONTRIBUTING.md'

FAULTS = [ # Module, what stands there, what comes in its place, and the tests that must fail
    ('numerics', 'return 2*(t + _arctan_rest(t))', 'return 2*(t - _arctan_rest(t))', 'test_reference.py -k fcn_erf'),
    ('numerics', 'return (k11 - k12)/2 + (k22 - k12)/2', 'return (k11 - k12)/2 + (k22 + k12)/2', 'test_reference.py -k fcn_rbf'),
    ('activations', '1 - 2/math.pi*angle', '1 - 1/math.pi*angle', 'test_reference.py -k fcn_sign'),
    ('activations', 'self.b**2*half_gap(k11, -k12, k22)', 'self.b**2*half_gap(k11, k12, k22)', 'test_reference.py -k fcn_exp'),
    ('kernel', 'within=ALL if want.within else NONE', 'within=want.within', 'test_reference.py -k avgpool'),
    ('layer', 'return self.W_std/math.sqrt(self.fan_in(s))', 'return self.W_std/self.fan_in(s)', 'test_laws.py -k grouped'),
    ('layer', 'own = self.fan_in(k.shape1)/self.s[0]*k.nngp', 'own = self.fan_in(k.shape1)*self.s[0]*k.nngp', 'test_reference.py -k dense_standard'),
    ('combinators', 'ft.partial(self.apply, ()), is_gaussian', 'sum, is_gaussian', 'test_reference.py -k fan_in_prod'),
    ('windows', 'total//2, total - total//2', 'total - total//2, total//2', 'test_reference.py -k conv2d_same'),
    ('spatial', '1/math.prod(s[a] for a in self.spots(len(s)))', '1/math.prod(s)', 'test_reference.py -k conv2d_same_21_gap'),
    ('conv', '//self.feature_group_count*math.prod(', '*math.prod(', 'test_laws.py -k grouped'),
    ('norm', '1/jnp.sqrt(self.eps + visible_mean(', '1/(self.eps + visible_mean(', 'test_reference.py -k layernorm'),
    ('attention', 'jnp.maximum(g, 0)', 'jnp.maximum(g, .1)', 'test_reference.py -k attention_relu'),
    ('graph', 'jnp.where(used[:, None], y[s], 0)', 'y[s]', 'test_norm_attention_graph.py -k sparse'),
    ('inputs', '(x == mask_constant) | (', '(x == mask_constant) & (', 'test_reference.py -k mask_fcn'),
    ('structured', "-1 if name == 'neg'", "1 if name == 'neg'", 'test_structured.py -k scaled'),
    ('solvers', '-jnp.expm1(-l1*t)/l1', '-jnp.expm1(-l1*t)', 'test_predict.py -k equivariance or recorded'),
    ('predict', 'y.size*jnp.log(2*jnp.pi)', 'y.size*jnp.log(jnp.pi)', 'test_hyperparameters.py -k objectives or test_predict'),
    ('hyperparameters', 'jnp.asarray(noise, k.dtype))/y.size', 'jnp.asarray(noise, k.dtype))/len(y)**2', 'test_hyperparameters.py -k objectives'),
    ('montecarlo', 'jnp.maximum(n*(n - 1), 1)', 'jnp.maximum(n*n, 1)', 'test_montecarlo.py'),
    ('sketch', 'floor = 10*len(l)', 'floor = 1e12*len(l)', 'test_sketch.py -k landmarks'),
    ('store', "h.update(f'{x.dtype}{x.shape}'.encode())\n            h.update(x.view(np.uint8) if x.ndim else x.tobytes())", "h.update(f'{x.dtype}{x.shape}'.encode())",
     'test_store.py -k another_kernel'),
    ('store', 'partial.unlink(missing_ok=True)', 'pass', 'test_faults.py -k whole_or_not'),
    ('sklearn', 'self.scale_ = self.scale_*self.y_std_**2', 'self.scale_ = self.scale_*self.y_std_', 'test_estimators.py'),
    ('viz', 'l.sum()**2/(l**2).sum()', 'l.sum()/(l**2).sum()', 'test_viz.py'),
    ('apps/table', 'by_value.get(value(c))', 'by_value.get(c)', 'test_table.py -k by_value'),
]

def broken(text, old, new, module):
    "`text` with `new` in the place of `old`"
    if old not in text: raise LookupError(f'{module} has no {old!r} any more: choose another fault (tools/break.py)')
    return text.replace(old, new, 1)

def noticed(fault, folder):
    "Do the tests fail, in `folder`, with the fault? pytest says 1 where tests failed, 5 where there are none"
    module, old, new, tests = fault
    for name in COPIED:
        copy = shutil.copytree if (ROOT/name).is_dir() else shutil.copy
        copy(ROOT/name, folder/name)
    path = folder/LIBRARY/f'{module}.py'
    path.write_text(broken(path.read_text(encoding='utf-8'), old, new, module), encoding='utf-8')
    file, *chosen = tests.split(' ', 2)
    command = [sys.executable, '-m', 'pytest', '-qx', '-p', 'no:cacheprovider', f'tests/{file}', *chosen]
    env = quickly(os.environ) | dict(PYTHONPATH=str(folder), FULL='')
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=900)
    if done.returncode not in (0, 1): raise RuntimeError(done.stdout + done.stderr)
    return done.returncode == 1

def tried(number):
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        try: found, why = noticed(FAULTS[number], Path(folder)), ''
        except (LookupError, RuntimeError) as e: found, why = False, f'\n{e}'
    module, old, new, tests = FAULTS[number]
    print(f"{'ok  ' if found else 'FAIL'} {number:2} {time.time()-start:5.1f} s  {module}: {old!r} -> {new!r}, by {tests}{why}", flush=True)
    return found

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('numbers', nargs='*', type=int, help='of the faults to try; default: all')
    parser.add_argument('--jobs', type=int, default=2, help='how many at a time (default: 2)')
    args = parser.parse_args()
    numbers = args.numbers or range(len(FAULTS))
    with ThreadPoolExecutor(args.jobs) as pool: missed = [n for n, found in zip(numbers, pool.map(tried, numbers)) if not found]
    if missed: sys.exit(f"The tests did not notice: {', '.join(map(str, missed))}")
    print(f'{len(numbers)} faults, each noticed')

if __name__ == '__main__': main()
