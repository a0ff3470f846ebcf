"Monte Carlo kernels: the documented draws, blocks, errors, stopping"
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from neural_tangents_nb.core import test_close as close, test_mc as close_mc
from neural_tangents_nb.empirical import empirical_nngp_fn
from neural_tangents_nb.montecarlo import Estimate, monte_carlo_kernel_fn, sample_counts
from neural_tangents_nb.structured import empirical_ntk_fn

pytestmark = pytest.mark.usefixtures('strict')

KEY = jax.random.key(0)


def init(key, shape):
    k1, k2 = jax.random.split(key)
    return (*shape[:-1], 2), (jax.random.normal(k1, (shape[-1], 4)), jax.random.normal(k2, (4, 2)))


def apply(p, x): return jnp.tanh(x @ p[0]) @ p[1]


X1, X2 = jax.random.normal(KEY, (5, 3)), jax.random.normal(jax.random.key(1), (4, 3))


def mc(n, f=apply, **kw): return monte_carlo_kernel_fn(init, f, KEY, n, **kw)


def samples(fn, n, f=None):
    key = KEY
    for _ in range(n):
        key, split = jax.random.split(key)
        init_key, dropout_key = jax.random.split(split)
        yield fn(init(init_key, X1.shape)[1], dropout_key)


def test_documented_draws():
    one = jax.jit(lambda p, _: (empirical_nngp_fn(apply)(X1, X2, p), empirical_ntk_fn(apply)(X1, X2, p)))
    nngp, ntk = (jnp.stack(k) for k in zip(*samples(one, 5)))
    est = mc(5, return_std=True)(X1, X2)
    assert isinstance(est, Estimate) and type(est.mean).__name__ == 'MonteCarloKernel' and est.mean._fields == ('nngp', 'ntk')
    close(tuple(est.mean), (nngp.mean(0), ntk.mean(0)))
    close(tuple(est.std), (nngp.std(0, ddof=1)/5**.5, ntk.std(0, ddof=1)/5**.5))


def test_dropout_key_and_same_inputs():
    def dropout(p, x, rng=None): return apply(p, x)*jax.random.bernoulli(rng, .5, (x.shape[0], 1))
    one = jax.jit(lambda p, rng: empirical_nngp_fn(dropout)(X1, None, p, rng=rng))
    want = jnp.stack([*samples(one, 4)]).mean(0)
    k = mc(4, dropout)
    for x2 in (None, X1, X1 + 0): close(k(X1, x2, 'nngp'), want)


def test_generator_is_a_prefix():
    k = mc([7, 2, 7])(X1, X2, 'nngp')
    two, seven = k
    close(two, mc(2)(X1, X2, 'nngp'))
    close(seven, mc(7)(X1, X2, 'nngp'))


def test_blocks():
    k = mc(3)
    close(mc(3, batch_size=4, store_on_device=False)(X1, X2, 'nngp'), k(X1, X2, 'nngp'))
    close(mc(3, batch_size=3, trace_axes=())(X1, None, 'nngp'), mc(3, trace_axes=())(X1, None, 'nngp'))
    scaled = mc(2, lambda p, x, scale: apply(p, x)*scale[:, None], batch_size=4)
    want = mc(2)(X1, X2, 'nngp')*X1[:, :1]*X2[:, 0][None]
    close(scaled(X1, X2, 'nngp', scale=(X1[:, 0], X2[:, 0])), want)


def test_stopping():
    est = mc(10**6, rel_error=.2, return_std=True)(X1, X2, 'nngp')
    assert 0 < jnp.linalg.norm(est.std) <= .2*jnp.linalg.norm(est.mean)
    with pytest.warns(UserWarning, match='rel_error'): mc(9, rel_error=1e-9)(X1, X2, 'nngp')
    assert np.isinf(mc(1, return_std=True)(X1, X2, 'nngp').std).all()


def test_trees_and_jit_and_grad():
    pair = lambda p, x: [apply(p, x), {'twice': 2*apply(p, x)}]
    k = mc(2, pair)(X1, X2, 'nngp')
    close(k[1]['twice'], 4*k[0])
    f = mc(2)
    close(jax.jit(lambda x: f(x, X2, 'nngp'))(X1), f(X1, X2, 'nngp'))
    g = jax.grad(lambda s: f(s*X1, X2, 'nngp').sum())(1.)
    e = 1e-5
    slope = (f((1 + e)*X1, X2, 'nngp').sum() - f((1 - e)*X1, X2, 'nngp').sum())/(2*e)
    # The entries cancel in the sum, so rounding is that of their sizes; it is divided by the step.
    assert abs(g - slope) < 10*np.finfo(float).eps*abs(f(X1, X2, 'nngp')).sum()/e < 1e-6*abs(g)


def test_static_keywords():
    f = lambda p, x, mode='a': apply(p, x)*(2. if mode == 'b' else 1.)
    k = mc(2, f)
    close(k(X1, X2, 'nngp', mode='b'), 4*k(X1, X2, 'nngp'))
    with pytest.raises(TypeError, match='hashable'): k(X1, X2, 'nngp', mode={'b'})


def test_unbiased():
    "For a linear network both kernels are known: k = x1 x2 of width-normalized layers"
    def lin_init(key, s): return s, jax.random.normal(key, (s[-1], 3))
    lin = lambda p, x: x @ p
    est = monte_carlo_kernel_fn(lin_init, lin, KEY, 400, return_std=True)(X1, X2)
    close(est.mean.ntk, X1 @ X2.T)
    z = (est.mean.nngp - X1 @ X2.T)/est.std.nngp
    assert abs(z).max() < 5  # the largest of twenty standard Gaussians


def test_float32():
    k = monte_carlo_kernel_fn(lambda k, s: (s, jax.random.normal(k, (3, 2), jnp.float32)), lambda p, x: x @ p, KEY, 3, return_std=True)
    est = k(X1.astype(jnp.float32), X2.astype(jnp.float32), 'nngp')
    assert est.mean.dtype == est.std.dtype == jnp.float32


@pytest.mark.parametrize('bad, error', [(0, ValueError), ([1, -1], ValueError), ([1.5], ValueError), ([], ValueError), (True, ValueError), (1.5, TypeError)])
def test_bad_counts(bad, error):
    with pytest.raises(error, match='n_samples'): sample_counts(bad)


def test_errors():
    with pytest.raises(ValueError, match='batch_size'): mc(2, batch_size=-1)
    with pytest.raises(ValueError, match='batch_size'): mc(2, batch_size=2, diagonal_axes=(0,))
    with pytest.raises(ValueError, match='device_count'): mc(2, device_count=99)
    with pytest.raises(ValueError, match='get'): mc(2)(X1, X2, 'cov1')
    with pytest.raises(ValueError, match='implementation'): mc(2, implementation='best')


def masked_on_two_devices():
    "Masked inputs, flattened and through three branches: the kernel of one device, by methods that need and need no Jacobian"
    from neural_tangents_nb import stax
    branch = lambda: stax.serial(stax.Dense(5), stax.Abs(), stax.DotGeneral(lhs=-.2), stax.Dense(4))
    init_fn, apply_fn, _ = stax.serial(stax.Flatten(), stax.FanOut(3), stax.parallel(branch(), branch(), branch()), stax.FanInSum(), stax.Dense(3))
    x = jax.random.normal(KEY, (4, 2, 3)).at[0, 1].set(10.)
    for i in (1, 3):
        kernels = [monte_carlo_kernel_fn(init_fn, stax.unmask_fn(apply_fn), KEY, 2, device_count=d, implementation=i, vmap_axes=0) for d in (-1, 0)]
        ks = [k(x, None, 'ntk', mask_constant=10.) for k in kernels]
        close(*ks)
        close(ks[0] @ ks[0].T, ks[1] @ ks[1].T)


def filters_on_two_devices():
    "Gradients of filters for each example alone, whose rows a constraint on the sharding would let XLA on CPU divide in a wrong way"
    from neural_tangents_nb import stax
    init_fn, apply_fn, _ = stax.serial(stax.Conv(4, (3,)), stax.Relu(), stax.Conv(4, (3,)), stax.Flatten(), stax.Dense(2))
    x = jax.random.normal(KEY, (4, 6, 3))
    for options in (dict(vmap_axes=0), dict(vmap_axes=0, batch_size=2), dict(vmap_axes=(0, 0, {}))):
        both, one = (monte_carlo_kernel_fn(init_fn, apply_fn, KEY, 2, implementation=1, device_count=d, **options)(x, None, 'ntk') for d in (-1, 0))
        close(both, one)


TWO_DEVICES = """
import sys; sys.path.insert(0, 'tests')
import jax; jax.config.update('jax_enable_x64', True)
from test_montecarlo import *

k, one = mc(2)(X2, X1, 'nngp'), mc(2, device_count=0)                               # all devices by default
assert len(k.sharding.device_set) == 2
close(k, one(X2, X1, 'nngp'))
close(mc(2)(X1, X2, 'nngp'), one(X1, X2, 'nngp'))                                   # five rows, which two devices cannot share
same = mc(2)(X2, None, 'ntk')
close(same, one(X2, None, 'ntk'))
same[0], same @ same.T, same[jnp.triu_indices(4)], jnp.linalg.cholesky(same + jnp.eye(4))
close(mc(2, batch_size=2)(X2, None, 'ntk'), same)
close(mc(2, implementation=3, vmap_axes=0)(X2, None, 'ntk'), same)

masked_on_two_devices()
filters_on_two_devices()
"""


def test_two_devices():
    env = os.environ | dict(XLA_FLAGS=os.environ['XLA_FLAGS'] + ' --xla_force_host_platform_device_count=2', JAX_PLATFORMS='cpu')
    done = subprocess.run([sys.executable, '-c', TWO_DEVICES], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
