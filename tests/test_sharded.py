"Arrays that a user has shared out to several devices: every function gives the numbers of one device, in arrays that all of JAX takes"
import os, subprocess, sys, tempfile

import jax, numpy as np, pytest
from jax import numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import neural_tangents_nb as nt
from neural_tangents_nb import stax
from neural_tangents_nb.matrix import Whole
from neural_tangents_nb.sketch import nystrom_features, random_features

R = np.random.RandomState(0)
X, Z, IMAGES, SIGNALS, GRAPH = R.randn(8, 4), R.randn(8, 4), R.randn(4, 4, 4, 2), R.randn(4, 4, 2), R.rand(4, 4, 4)
KEY, BOTH = jax.random.key(0), ('nngp', 'ntk')


def shares(x):
    "`x`, shared along rows, channels, positions, over one axis of devices or two, explicit as JAX makes them by default, or not"
    n = jax.device_count()
    one, two = jax.make_mesh((n,), ('rows',)), jax.make_mesh((2, n//2), ('a', 'b'))
    auto, last = jax.make_mesh((2, n//2), ('a', 'b'), axis_types=(AxisType.Auto,)*2), (None,)*(x.ndim - 1)
    spread = dict(rows=(one, P('rows')), channels=(two, P(*last, 'a')), both=(two, P('b', *last[1:], 'a')), auto=(auto, P(('a', 'b'))),
                  positions=(auto if n == 4 else two, P(None, 'a')), copies=(two, P()),
                  alone=(jax.make_mesh((1,), ('rows',)), P('rows')))
    return {name: jax.device_put(x, NamedSharding(*at)) for name, at in spread.items()}


def usable(k):
    "What one does with a kernel"
    if not isinstance(k, jax.Array) or k.ndim != 2: return
    k[0], k @ k.T, jnp.linalg.cholesky(k @ k.T + jnp.eye(len(k))), k[jnp.triu_indices(len(k), m=k.shape[1])]


def same(f, x, ways):
    "Is `f(x)` what it is on one device, if `x` is shared in one of these ways?"
    want = jax.tree.leaves(f(x))
    for name, shared in shares(x).items():
        if name not in ways: continue
        got = jax.tree.leaves(f(shared))
        for k, w in zip(got, want, strict=True):
            usable(k)
            # atol: sums in another order
            np.testing.assert_allclose(np.asarray(k), np.asarray(w), rtol=1e-11, atol=1e-13, err_msg=name)


dense = lambda: stax.Dense(2, 1.2, .1)
LAYERS = {
    'Dense': (X, [dense(), stax.Relu(), dense()]), 'FanInSum': (X, [stax.FanOut(2), stax.parallel(dense(), stax.serial(dense(), stax.Erf())), stax.FanInSum()]),
    'FanInProd': (X, [stax.FanOut(2), stax.parallel(dense(), dense()), stax.FanInProd()]),
    'FanInConcat': (X, [stax.FanOut(2), stax.parallel(dense(), dense()), stax.FanInConcat()]),
    'repeat': (X, [stax.repeat(stax.serial(dense(), stax.Relu()), 3)]), 'Dropout': (X, [dense(), stax.Dropout(.9), dense()]),
    'Elementwise': (X, [dense(), stax.Elementwise(jnp.tanh), dense()]), 'LayerNorm': (X, [dense(), stax.LayerNorm(), dense()]),
    'Conv': (IMAGES, [stax.Conv(2, (3, 3), padding='SAME'), stax.Relu(), stax.Flatten(), dense()]),
    'ConvLocal': (IMAGES, [stax.ConvLocal(2, (3, 3)), stax.Flatten(), dense()]), 'ConvTranspose': (IMAGES, [stax.ConvTranspose(2, (2, 2)), stax.GlobalAvgPool()]),
    'AvgPool': (IMAGES, [stax.Conv(2, (2, 2)), stax.AvgPool((2, 2)), stax.Gelu(), stax.GlobalSumPool()]), 'SumPool': (IMAGES, [stax.SumPool((2, 2)), dense(), stax.Flatten()]),
    'ImageResize': (IMAGES, [stax.ImageResize((-1, 3, 3, -1), 'linear'), stax.Flatten()]), 'Index': (IMAGES, [dense(), stax.Index(stax.Slice[:, :2]), stax.Flatten()]),
    'DotGeneral': (IMAGES, [stax.DotGeneral(lhs=-.2), dense(), stax.Flatten()]),
    'GlobalSelfAttention': (SIGNALS, [stax.GlobalSelfAttention(2, 2, 2, 2, linear_scaling=True), stax.Flatten()]),
    'Aggregate': (SIGNALS, [dense(), stax.Aggregate(aggregate_axis=1, batch_axis=0, channel_axis=-1), stax.GlobalAvgPool()]),
}


def weighted(x1, x2, get, weights): return (x1 @ (x1 if x2 is None else x2).T)*weights[0].sum(1)[:, None]*weights[1].sum(1)


def stored(kernel_fn, *xs):
    with tempfile.TemporaryDirectory() as d: return np.asarray(nt.store(f'{d}/k', kernel_fn, *xs, tile=3))


def doors():
    "Functions of one array in which every function that takes inputs is called"
    net = stax.serial(stax.Dense(8, 1.5, .1), stax.Relu(), stax.Dense(1))
    k, params = net.kernel_fn, net.init_fn(KEY, X.shape)[1]
    ntk = lambda x: k(x, None, 'ntk')
    mc = nt.monte_carlo_kernel_fn(net.init_fn, net.apply_fn, KEY, 2)
    return dict(
        kernel=lambda x: (k(x, None, BOTH), k(x, Z, 'ntk'), k(Z, x, 'ntk'), k(x).ntk, k(x, None, 'ntk', mask_constant=3.)),
        jitted=lambda x: [np.asarray(jax.jit(f)(x)) for f in (ntk, jax.grad(lambda x: ntk(x).sum()), lambda x: nt.batch(k, 3, 0)(x, Z, 'ntk'))],
        batch=lambda x: [nt.batch(k, *how)(*xs, 'ntk') for how in ((3,), (3, 0), (0, -1, False)) for xs in ((x, None), (x, Z[:5]), (Z, x))],
        states=lambda x: nt.batch(k, 3)(x).ntk, auto=lambda x: nt.batch(k, 'auto')(x, None, 'ntk'),
        each_example=lambda x: nt.batch(weighted, 3, 0)(X, None, 'ntk', weights=(x, x)),
        tiled=lambda x: [nt.Tiled(k, *xs, batch_size=3, device_count=d) @ x for xs in ((x,), (Z, x)) for d in (0, -1)],
        rows=lambda x: (nt.Tiled(k, x)[jnp.array([1, 3])], nt.Tiled(k, x).diagonal()),
        whole=lambda x: (Whole(x)[1:3], Whole(x) @ X[:4], Whole(X @ X.T) @ x),
        monte_carlo=lambda x: (mc(x, None, 'ntk'), mc(x, Z, 'nngp'), mc(Z, x, 'ntk')), store=lambda x: (stored(k, x), stored(k, Z, x)),
        features=lambda x: (random_features(net, KEY, 8)(x, BOTH), nystrom_features(k, Z[:3])(x), nystrom_features(k, x)(Z)),
        empirical=lambda x: nt.batch(nt.empirical_kernel_fn(net.apply_fn), 3)(x, None, 'ntk', params))


def jobs(devices):
    "What is tried: every function on two devices, every layer on four, and on these some functions again"
    each, some = doors(), ('kernel', 'batch', 'tiled', 'monte_carlo')
    def layer(name):
        (x, layers), extra = LAYERS[name], dict(pattern=(GRAPH, GRAPH)) if name == 'Aggregate' else {}
        return lambda: same(lambda x: stax.serial(*layers).kernel_fn(x, None, 'nngp', **extra), x, ('both', 'auto'))
    out = {n: lambda f=f: same(f, X, shares(X)) for n, f in each.items() if devices == 2 or n in some}
    return out if devices == 2 else out | {n: layer(n) for n in LAYERS}


if __name__ == '__main__':
    assert jax.device_count() == int(sys.argv[1])
    for name, job in jobs(jax.device_count()).items():
        job()
        print(name, flush=True)


@pytest.mark.parametrize('devices', [2, 4])
def test_shared_inputs(devices):
    env = os.environ | dict(XLA_FLAGS=f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}',
                            JAX_PLATFORMS='cpu', JAX_ENABLE_X64='1', PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run([sys.executable, __file__, str(devices)], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.split() == [*jobs(devices)]
