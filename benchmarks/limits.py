"""How near to the machine's limits: `python -m benchmarks.limits`.

For fully connected kernels and a pooled convolutional one, what they must do at least, and the seconds in which this machine could
do that: matrix products at the speed of one large product, and each layer's covariances read and written once at the speed of copying a
large array. Both speeds are measured in the same process. Then the two parts of a fully connected kernel, each alone: the product of its
inputs, and the arithmetic of its layers where the cache holds the covariances. Results are printed and saved to `limits.json` in `--out`.
"""
import argparse, json
from pathlib import Path

import jax
from jax import lax, numpy as jnp

import neural_tangents_nb as nt
from neural_tangents_nb.cost import median_seconds
from . import cases
from .__main__ import HERE, machine


def speeds():
    "Bytes copied and operations in a matrix product, per second"
    x, a = jnp.ones(2**25, jnp.float32), jnp.ones((3000, 3000), jnp.float32)
    copy = 2*x.nbytes/median_seconds(jax.jit(lambda x: x + 1), x)
    product = 2*a.shape[0]**3/median_seconds(jax.jit(lambda a: jnp.matmul(a, a, precision='highest')), a)
    return copy, product


def least(n, layers, inputs, pairs):
    "Operations and bytes of a kernel: covariances from inputs, then `layers` that read and write NNGP and NTK"
    numbers = n*n*pairs
    return 2*numbers*inputs, layers*4*numbers*4


def rows():
    copy, product = speeds()
    fcn, cnn = cases.fcn(nt, 3), cases.cnn21(nt.stax, nt.stax.GlobalAvgPool())
    todo = [('fcn3_1000_ntk', fcn, (1000, 784), 3, 784, 1), ('fcn3_4000_ntk', fcn, (4000, 784), 3, 784, 1),
            ('cnn21_gap_4', cnn, (4, 32, 32, 3), 21, 3, 32**4)]
    for name, net, shape, layers, inputs, pairs in todo:
        a, b = cases.normal(*shape), cases.normal(*shape, seed=1)
        took = median_seconds(jax.jit(lambda a, b: net.kernel_fn(a, b, 'ntk')), a, b)
        flops, bytes = least(shape[0], layers, inputs, pairs)
        bound = flops/product + bytes/copy
        yield dict(name=name, seconds=took, predicted=net.cost(shape, shape[0], shape[0]).seconds, bound=bound, of_bound=bound/took,
                   bytes_per_s=bytes/took, of_copy=bytes/took/copy, flops_per_s=flops/took, of_product=flops/took/product,
                   copy=copy, product=product)


def products(n, half=False, rows=200):
    "Seconds of the product of `n` inputs with as many, or of blocks of rows with the columns from the diagonal on"
    a, b = cases.normal(n, 784), cases.normal(n, 784, seed=1)
    dot = lambda a, b: jnp.matmul(a, b.T, precision='highest')
    if half: return median_seconds(jax.jit(lambda a: [dot(a[i:i+rows], a[i:]) for i in range(0, n, rows)]), a)
    return median_seconds(jax.jit(dot), a, b)


def layers(net, get, n, side=500):
    "Seconds for the layers of `net`, the inputs one number each, in blocks that the cache holds, as many as have `n*n` covariances"
    blocks = (n//side)**2
    a, b = (cases.normal(blocks*side, 1, seed=i).reshape(blocks, side, 1) for i in (0, 1))
    return median_seconds(jax.jit(lambda a, b: lax.map(lambda ab: net.kernel_fn(*ab, get), (a, b))), a, b)


def parts():
    "Of each fully connected case the seconds that its product and its layers take, each alone"
    relu, erf = cases.fcn(nt, 3), cases.fcn(nt, 5, 'Erf')
    for name, net, get, n, half in [
            ('fcn3_1000_ntk', relu, 'ntk', 1000, False), ('fcn3_1000_nngp_ntk', relu, ('nngp', 'ntk'), 1000, False),
            ('fcn3_1000_sym_ntk', relu, 'ntk', 1000, True), ('fcn3_4000_ntk', relu, 'ntk', 4000, False), ('fcn_erf5_1000_ntk', erf, 'ntk', 1000, False)]:
        yield dict(name=name, product=products(n, half), layers=layers(net, get, n)*(.5 if half else 1))


def main():
    parser = argparse.ArgumentParser(prog='python -m benchmarks.limits', description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=HERE/'out', help='where limits.json goes')
    args = parser.parse_args()
    out = list(rows())
    for r in out: print(f"{r['name']}: {r['seconds']:.3g} s, predicted {r['predicted']:.3g} s; bound {r['bound']:.3g} s ({r['of_bound']:.0%}); "
                        f"{r['bytes_per_s']/1e9:.3g} GB/s ({r['of_copy']:.0%} of copying), {r['flops_per_s']/1e9:.3g} GFLOP/s ({r['of_product']:.0%} of a product)")
    both = list(parts())
    for r in both: print(f"{r['name']}: product {r['product']:.3g} s, layers {r['layers']:.3g} s")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out/'limits.json').write_text(json.dumps(dict(machine=machine(), rows=out, parts=both), indent=1))


if __name__ == '__main__': main()
