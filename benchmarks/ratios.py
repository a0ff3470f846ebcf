"""This library beside itself: `python -m benchmarks.ratios`.

What one choice costs over another: AUTO over the fastest way to compute an empirical kernel, ten outputs over one, a hundred times over
one. Both sides of a ratio take turns in one process, and medians count. The peak memory of the kernel of a network with 2.5 million
parameters is taken in a process of its own. Results are printed and saved to `ratios.json` in `--out`.
"""
import argparse, json, statistics, subprocess, sys, time
from pathlib import Path

import jax
from jax import numpy as jnp

import neural_tangents_nb as nt
from neural_tangents_nb import NtkImplementation, stax
from . import cases
from .__main__ import HERE, PAUSE, machine
from .worker import memory, timed, warm


def turns(calls, rounds=7):
    "Median seconds of each of `calls`, in turns, in the steady state that tables compare"
    seconds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, f in calls.items():
            time.sleep(PAUSE)
            warm(f, 0.)
            seconds[name].append(timed(f)[1])
    return {name: statistics.median(s) for name, s in seconds.items()}


# --- empirical kernels: name -> (network, examples, shape of one) ------------------------------------------

def dense(width, outputs): return stax.serial(stax.Dense(width), stax.Relu(), stax.Dense(width), stax.Relu(), stax.Dense(outputs))

def conv(top, outputs): return stax.serial(*[stax.Conv(32, (3, 3), padding='SAME'), stax.Relu()]*3, top, stax.Dense(outputs))

NETWORKS = {'dense 512, 10 outputs': (cases.finite_fcn(stax), 64, (784,)), 'dense 1024, 1 output': (dense(1024, 1), 64, (128,)),
            'dense 128, 100 outputs': (dense(128, 100), 16, (128,)), 'conv 64, pooled': (cases.finite_cnn(stax), 16, (8, 8, 3)),
            'conv 32, flattened': (conv(stax.Flatten(), 10), 8, (8, 8, 3))}

def empirical(name, vmap):
    "Seconds of AUTO and of the three methods"
    net, n, shape = NETWORKS[name]
    params = net.init_fn(jax.random.key(0), (1, *shape))[1]
    a, b = cases.normal(n, *shape), cases.normal(n, *shape, seed=1)
    def call(method):
        f = jax.jit(nt.empirical_ntk_fn(net.apply_fn, vmap_axes=vmap, implementation=method))
        return lambda: f(a, b, params)
    return turns({m.name: call(m) for m in NtkImplementation})

def methods():
    for name in NETWORKS:
        for vmap in (None, 0):
            s = empirical(name, vmap)
            fastest = min((m for m in s if m != 'AUTO'), key=s.get)
            yield dict(name=f"{name}{'' if vmap is None else ', vmap'}", seconds=s, fastest=fastest, ratio=s['AUTO']/s[fastest])


# --- prediction --------------------------------------------------------------------------------------------

def prediction():
    "Ten outputs over one, and a hundred times over one"
    k, (x, y, x_test) = cases.jitted(cases.fcn(nt, 3)), cases.data()
    get = 'nngp', 'ntk'
    k_dd, k_td, k_tt = k(x, None, get=get), k(x_test, x, get=get), k(x_test, None, get='nngp')
    ensemble = lambda y: nt.predict.gradient_descent_mse_ensemble(k, x, y, diag_reg=1e-4)
    one, ten, times = ensemble(y[:, :1]), ensemble(y), jnp.geomspace(.1, 1e3, 100)
    sides = {
        'ten outputs, Bayesian inference': [lambda y=y: nt.predict.gp_inference(k_dd, y, diag_reg=1e-4)(get=get, k_test_train=k_td, k_test_test=k_tt)
                                            for y in (y, y[:, :1])],
        'ten outputs, ensemble at a time': [lambda p=p: p(t=10., x_test=x_test, get='ntk', compute_cov=True) for p in (ten, one)],
        'ten outputs, from the data': [lambda y=y: ensemble(y)(t=10., x_test=x_test, get='ntk', compute_cov=True) for y in (y, y[:, :1])],
        'hundred times, mean': [lambda t=t: ten(t=t, x_test=x_test, get='ntk') for t in (times, times[:1])],
        'hundred times, mean from the data': [lambda t=t: ensemble(y)(t=t, x_test=x_test, get='ntk') for t in (times, times[:1])],
        'hundred times, variances from the data': [lambda t=t: ensemble(y)(t=t, x_test=x_test, get='ntk', compute_cov='diag') for t in (times, times[:1])],
        'hundred times, covariances from the data': [lambda t=t: ensemble(y)(t=t, x_test=x_test, get='ntk', compute_cov=True) for t in (times, times[:1])]}
    for name, (many, single) in sides.items():
        s = turns(dict(many=many, single=single))
        yield dict(name=name, seconds=s, ratio=s['many']/s['single'])


# --- memory ------------------------------------------------------------------------------------------------

def large():
    "Peak MiB beyond the imports of the tangent kernel of a convolutional network with 2.5 million parameters at 64 images of 64 x 64 x 3"
    widths = [64, 128, 256, 256, 512]
    net = stax.serial(*[l for w in widths for l in (stax.Conv(w, (3, 3), (2, 2), 'SAME'), stax.Relu())], stax.GlobalAvgPool(), stax.Dense(700), stax.Relu(), stax.Dense(10))
    before = memory()
    params = net.init_fn(jax.random.key(0), (1, 64, 64, 3))[1]
    x = cases.normal(64, 64, 64, 3)
    start = time.perf_counter()
    k = nt.batch(nt.empirical_ntk_fn(net.apply_fn, vmap_axes=0), batch_size=8)(x, None, params)
    jax.block_until_ready(k)
    return dict(parameters=sum(p.size for p in jax.tree.leaves(params)), peak=memory() - before, seconds=time.perf_counter() - start, shape=k.shape)


def main():
    parser = argparse.ArgumentParser(prog='python -m benchmarks.ratios', description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=HERE/'out', help='where ratios.json goes')
    parser.add_argument('--large', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.large: return print(json.dumps(large()))
    found = dict(machine=machine(), methods=[], prediction=[])
    for part, rows in ('methods', methods()), ('prediction', prediction()):
        for r in rows:
            found[part].append(r)
            print(f"{r['name']}: {r['ratio']:.2f}  " + ', '.join(f'{n} {s:.4g} s' for n, s in r['seconds'].items()), flush=True)
    found['large'] = json.loads(subprocess.run([sys.executable, '-m', 'benchmarks.ratios', '--large'], capture_output=True, text=True, check=True).stdout)
    print(found['large'])
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out/'ratios.json').write_text(json.dumps(found, indent=1))


if __name__ == '__main__': main()
