"""How near to the machine's limits: `python -m benchmarks.limits`.

For fully connected kernels and a pooled convolutional one, what they must do at least, and the seconds in which this machine could
do that: matrix products at the speed of one large product, and each layer's covariances read and written once at the speed of copying a
large array. Both speeds are measured in the same process. Then the two parts of fully connected kernels, each alone: the product of the
inputs, and the layers behind it on a tile. Results are printed and saved to `limits.json` in `--out`.
"""
import argparse, json
from pathlib import Path

import jax
import numpy as np
from jax import numpy as jnp

import neural_tangents_nb as nt
from neural_tangents_nb.cost import median_seconds
from . import cases
from .__main__ import HERE, machine
from .ratios import turns


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


def parts(net, n, get, one=False):
    "Seconds of a fully connected kernel, and of what it is made of, each alone: product of inputs, and layers on the faster of two tiles"
    a, b = cases.normal(n, 784), None if one else cases.normal(n, 784, seed=1)
    x, y = np.asarray(a), np.asarray(a if one else b) # NumPy's BLAS sees where both are one
    dot = lambda a, b: jnp.matmul(a, b.T, precision='highest')
    strips = lambda a, b, k=200: [dot(a[i:i+k], a[i:]) for i in range(0, n, k)] # from the diagonal on
    first, *behind = net.layers
    kernel, product, layers = (jax.jit(f) for f in (lambda a, b: net.kernel_fn(a, b, get), strips if one else dot,
                                                    lambda k: nt.stax.serial(*behind).kernel_fn(k, None, get)))
    tiles = {rows: first.kernel_fn(cases.normal(rows, 784), cases.normal(1000, 784, seed=1), None) for rows in (160, 1000)}
    calls = {rows: lambda k=k: layers(k) for rows, k in tiles.items()}
    t = turns(dict(kernel=lambda: kernel(a, b), xla=lambda: product(a, b), blas=lambda: x@y.T) | calls, 15)
    entry = min(t.pop(rows)/k.nngp.size for rows, k in tiles.items())
    return t | dict(layers=entry*(n*(n + 1)/2 if one else n*n))


def dense():
    three = cases.fcn(nt, 3)
    return dict(fcn3_1000_ntk=parts(three, 1000, 'ntk'), fcn3_1000_nngp_ntk=parts(three, 1000, ('nngp', 'ntk')),
                fcn3_1000_sym_ntk=parts(three, 1000, 'ntk', True), fcn3_4000_ntk=parts(three, 4000, 'ntk'),
                fcn_erf5_1000_ntk=parts(cases.fcn(nt, 5, 'Erf'), 1000, 'ntk'))


def main():
    parser = argparse.ArgumentParser(prog='python -m benchmarks.limits', description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=HERE/'out', help='where limits.json goes')
    args = parser.parse_args()
    out = list(rows())
    for r in out: print(f"{r['name']}: {r['seconds']:.3g} s, predicted {r['predicted']:.3g} s; bound {r['bound']:.3g} s ({r['of_bound']:.0%}); "
                        f"{r['bytes_per_s']/1e9:.3g} GB/s ({r['of_copy']:.0%} of copying), {r['flops_per_s']/1e9:.3g} GFLOP/s ({r['of_product']:.0%} of a product)")
    alone = dense()
    for name, ts in alone.items(): print(name, *(f'{part} {t:.3g} s' for part, t in ts.items()))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out/'limits.json').write_text(json.dumps(dict(machine=machine(), rows=out, parts=alone), indent=1))


if __name__ == '__main__': main()
