"""How near to the machine's limits: `python -m benchmarks.limits`.

For fully connected kernels and a pooled convolutional one, what they must do at least, and the seconds in which this machine could
do that: matrix products at the speed of one large product, and each layer's covariances read and written once at the speed of copying a
large array. Both speeds are measured in the same process. Then the product of the inputs of fully connected kernels alone. Results are
printed and saved to `limits.json` in `--out`.
"""
import argparse, json
from pathlib import Path

import jax
from jax import numpy as jnp

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


def products():
    "Of each fully connected case the seconds, at best, of the product of its inputs; of one batch with itself in blocks of rows"
    dot = lambda a, b: jnp.matmul(a, b.T, precision='highest')
    def whole(n): return median_seconds(jax.jit(dot), cases.normal(n, 784), cases.normal(n, 784, seed=1), of=min)
    def half(n, rows=200): # with the columns from the diagonal on
        return median_seconds(jax.jit(lambda a: [dot(a[i:i+rows], a[i:]) for i in range(0, n, rows)]), cases.normal(n, 784), of=min)
    one = whole(1000)
    return dict(fcn3_1000_ntk=one, fcn3_1000_nngp_ntk=one, fcn3_1000_sym_ntk=half(1000), fcn3_4000_ntk=whole(4000), fcn_erf5_1000_ntk=one)


def main():
    parser = argparse.ArgumentParser(prog='python -m benchmarks.limits', description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=HERE/'out', help='where limits.json goes')
    args = parser.parse_args()
    out = list(rows())
    for r in out: print(f"{r['name']}: {r['seconds']:.3g} s, predicted {r['predicted']:.3g} s; bound {r['bound']:.3g} s ({r['of_bound']:.0%}); "
                        f"{r['bytes_per_s']/1e9:.3g} GB/s ({r['of_copy']:.0%} of copying), {r['flops_per_s']/1e9:.3g} GFLOP/s ({r['of_product']:.0%} of a product)")
    alone = products()
    print({name: f'{t:.3g} s' for name, t in alone.items()})
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out/'limits.json').write_text(json.dumps(dict(machine=machine(), rows=out, products=alone), indent=1))


if __name__ == '__main__': main()
