"Finite networks: expansions, axes, batches, keyword arguments, operators and foreign models"
import importlib.util, os, subprocess, sys, warnings
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from conftest import some
from neural_tangents_nb import empirical
from neural_tangents_nb.core import test_close as close
from neural_tangents_nb.empirical import (NtkImplementation, empirical_nngp_fn, empirical_ntk_eigenpairs,
    empirical_ntk_trace_fn, empirical_ntk_vp_fn, flatten_kernel, from_equinox, from_flax, gradient_flow_params,
    leading_eigenpairs, linearize, methods_of, ntk_fn_from, ntk_trace_estimate_fn, sides, taylor_expand,
    unflatten_kernel)
from neural_tangents_nb.programs import inside
from neural_tangents_nb.structured import empirical_kernel_fn, empirical_ntk_fn

REFERENCE = Path(__file__).parent/'reference'/'predict_cases.py'


def draws(seed, *shapes, dtype=None):
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes)]


def mlp(params, x, **kwargs):
    (w1, b1), (w2, b2) = params
    return jnp.tanh(x @ w1 + b1) @ w2 + b2


w1, b1, w2, b2, X, XT = draws(0, (6, 7), (7,), (7, 3), (3,), (5, 6), (4, 6))
PARAMS = [(w1, b1), (w2, b2)]


def ntk(f, implementation, *axes): return jax.jit(ntk_fn_from(methods_of(implementation), f, *axes))


def exact(f, params, x1, x2):
    "`(*shape1, *shape2)` from dense Jacobians"
    jac = lambda x: jax.tree.leaves(jax.jacobian(lambda p: f(p, x))(params))
    n1, n2 = f(params, x1).ndim, f(params, x2).ndim
    return sum(jnp.tensordot(a, b, [[*range(n1, a.ndim)], [*range(n2, b.ndim)]]) for a, b in zip(jac(x1), jac(x2)))


@pytest.mark.skipif(not REFERENCE.exists(), reason='no recorded predictions')
@pytest.mark.parametrize('case', some(['linearized', 'taylor', 'empirical', 'empirical_implementations', 'ntk_vector_product'],
                                      'linearized', 'taylor', 'empirical', 'ntk_vector_product'))
def test_recorded(case):
    spec = importlib.util.spec_from_file_location('predict_cases', REFERENCE)
    cases = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cases)
    nt = SimpleNamespace(linearize=linearize, taylor_expand=taylor_expand, empirical_kernel_fn=empirical_kernel_fn,
                         empirical_ntk_fn=empirical_ntk_fn, empirical_ntk_vp_fn=empirical_ntk_vp_fn)
    assert cases.check(nt, [case])[case] < 1e-9


@pytest.mark.parametrize('trace, diagonal', [((-1,), ()), ((), (-1,)), ((0,), (1,)), ((), (0,)), ((1, 0), ())])
def test_axes(trace, diagonal):
    x1, x2 = X[:4], XT
    full = exact(mlp, PARAMS, x1, x2)
    out, letters = '', 'abij'
    spec = [letters[:2], letters[2:]]
    for a in range(2):
        if a in [t % 2 for t in trace]: spec[a] = spec[a][0]*2
        elif a in [d % 2 for d in diagonal]: spec[a] = spec[a][0]*2; out += spec[a][0]
        else: out += spec[a]
    want = jnp.einsum(f'{spec[0][0]}{spec[1][0]}{spec[0][1]}{spec[1][1]}->{out}', full)/np.prod([full.shape[t % 2] for t in trace])
    for i, v in [(1, None), (2, None), (1, 0), (2, 0)]: close(ntk(mlp, i, trace, diagonal, v)(x1, x2, PARAMS), want)


def conv_net(params, x):
    w, v = params
    y = jnp.tanh(jax.lax.conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')))
    return y.mean((1, 2)) @ v


PARTS = [(net, vmap, held) for net in ('dense', 'conv') for vmap in (None, 0) for held in (1, 200, 10**9)]

@pytest.mark.parametrize('net, vmap, held', some(PARTS, ('dense', None, 1), ('dense', 0, 200), ('conv', 0, 1)))
def test_parts(monkeypatch, net, vmap, held):
    "Outputs are taken one by one, a few or all at a time: the kernel is the same, for numbers that do not divide, too"
    monkeypatch.setattr(empirical, 'held', lambda: held)
    f, params, x1, x2 = mlp, PARAMS, X, XT
    if net == 'conv': f, (*params, x1, x2) = conv_net, draws(1, (3, 3, 2, 5), (5, 11), (5, 4, 4, 2), (4, 4, 4, 2))
    full = exact(f, params, x1, x2)
    for i in (1, 2):
        of = lambda *axes: ntk(f, i, *axes, vmap)
        close(of((1,), ())(x1, x2, params), jnp.einsum('aibi->ab', full)/full.shape[1], 1e-12)
        close(of((1,), (0,))(x1[:4], x2, params), jnp.einsum('aiai->a', full[:4])/full.shape[1], 1e-12)
        close(of((), ())(x1, x2, params), jnp.einsum('aibj->abij', full), 1e-12)
        close(of((1,), ())(x1, None, params), of((1,), ())(x1, x1, params), 1e-12)


def test_memory_of_parts():
    "With many outputs traced, neither method holds a Jacobian"
    params = draws(2, (50, 200), (200, 40))
    f = lambda p, x: jnp.tanh(x @ p[0]) @ p[1]
    whole = 40*30*(50*200 + 200*40)*8
    for i in (1, 2):
        k = jax.jit(ntk_fn_from(methods_of(i), f, (1,), (), 0))
        used = k.lower(*draws(3, (30, 50), (30, 50)), params).compile().memory_analysis()
        assert used is None or used.temp_size_in_bytes < whole/4


def test_trees_of_inputs_and_outputs():
    def f(p, x): return {'sum': (x['a'] @ p['w'])[..., None], 'both': [jnp.sin(x['a'] @ p['w']), x['b'].T*p['s']]}
    p = dict(w=w1[:, 0], s=jnp.asarray(2.))
    x1, x2 = (dict(a=z, b=z[:, 0]) for z in (X, XT))
    f2 = lambda p, x: jax.tree.map(lambda a: a[..., None] if a.ndim == 1 else a, f(p, x))
    k = ntk(f2, 1)(x1, x2, p)
    close(k['both'][1], jnp.outer(x1['b'], x2['b']))
    for other in (ntk(f2, 2)(x1, x2, p), ntk(f2, 1, (-1,), (), 0)(x1, x2, p), jax.jit(empirical_ntk_fn(f2))(x1, x2, p)): close(other, k)
    both = jax.jit(empirical_kernel_fn(f2), static_argnums=2)(x1, x2, None, p)
    close(both['both'][1].ntk, k['both'][1])
    close(both['both'][1].nngp, 4*k['both'][1])
    alone = ntk(f2, 1)(x1, jax.tree.map(lambda _: None, x1), p)
    close(alone, ntk(f2, 1)(x1, x1, p))


def test_vmap_axes_in_the_middle_and_keyword_arrays():
    def f(p, x, scale): return jnp.swapaxes(jnp.tanh(jnp.swapaxes(x, 0, 1) @ p)*scale[:, None], 0, 1)  # batch is axis 1
    s1, s2 = X[:, 1], XT[:, 1]
    full = ntk(f, 1, (0,))(X.T, XT.T, w1, scale=(s1, s2))
    close(ntk(f, 1, (0,), (), (1, -1, dict(scale=0)))(X.T, XT.T, w1, scale=(s1, s2)), full)
    close(ntk(f, 2, (0,), (), (-1, 1, dict(scale=0)))(X.T, XT.T, w1, scale=(s1, s2)), full)
    assert full.shape == (5, 4)
    with pytest.raises(ValueError, match='not given'): ntk(f, 1, (0,), (), (1, 1, dict(scales=0)))(X.T, XT.T, w1, scale=(s1, s2))
    with pytest.raises(ValueError, match='vmap_axes'): ntk(f, 1, (), (), (1, 0, dict(scale=0)))(X.T, XT.T, w1, scale=(s1, s2))


@pytest.mark.parametrize('legacy', [False, True])
def test_rng(legacy):
    key = jax.random.PRNGKey(3) if legacy else jax.random.key(3)
    same = lambda k1, k2: bool(jnp.all(k1 == k2))
    keys = lambda x1, x2, rng: [s[1]['rng'] for s in sides(x1, x2, dict(rng=rng))]
    assert same(*keys(X, None, key)) and same(*keys(X, X + 0, key)) and not same(*keys(X, XT, key))
    assert same(keys(X, XT, key)[1], jax.random.fold_in(key, 1))
    k1, k2 = jax.random.split(key)
    with pytest.warns(UserWarning, match='rng'): assert same(*keys(X, None, (k1, k2)))
    with pytest.warns(UserWarning, match='rng'): assert not same(*keys(X, XT, (k1, k1)))
    assert same(keys(X, XT, (k1, k2))[1], k2)
    with pytest.raises(TypeError, match='rng'): sides(X, XT, dict(rng='seed'))
    def dropout(p, x, rng): return x @ p*jax.random.bernoulli(rng, .5, (x.shape[0], 7))
    k = jax.jit(lambda a, b: ntk(dropout, 1)(a, b, w1, rng=key))
    close(k(X, X), ntk(dropout, 1)(X, None, w1, rng=key))


def test_zero_sizes_and_no_parameters():
    for i in (1, 2):
        for v in (None, 0):
            assert ntk(mlp, i, (-1,), (), v)(X[:0], XT, PARAMS).shape == (0, 4)
    assert ntk(lambda p, x: x, 1)(X, XT, ()).shape == (5, 4)
    assert not ntk(lambda p, x: x, 1)(X, XT, ()).any()
    assert float(empirical_ntk_trace_fn(mlp)(X[:0], PARAMS)) == 0


def test_functions_with_one_mode_of_differentiation():
    @jax.custom_vjp
    def square(x): return x**2
    square.defvjp(lambda x: (x**2, x), lambda x, g: (2*x*g,))
    f, g = lambda p, x: square(x @ p), lambda p, x: (x @ p)**2
    for i in (1, 2): close(ntk(f, i)(X, XT, w1), ntk(g, i)(X, XT, w1))
    def loop(p, x): return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1]*p), (0, x))[1]
    close(ntk(loop, 1)(X, XT, jnp.asarray(.5)), ntk(lambda p, x: x*p**3, 1)(X, XT, jnp.asarray(.5)))


def test_float32():
    p, x1, x2 = jax.tree.map(lambda a: a.astype(jnp.float32), (PARAMS, X, XT))
    want = exact(mlp, PARAMS, X, XT).trace(axis1=1, axis2=3)/3
    for i in (0, 1, 2, 3):
        k = jax.jit(empirical_ntk_fn(mlp, implementation=i))(x1, x2, p)
        assert k.dtype == jnp.float32
        close(k, want, rtol=1e-5, dtype=False)  # float32 has 7 digits
    assert linearize(mlp, p)(p, x1).dtype == jnp.float32


def test_errors():
    kernel_fn = empirical_kernel_fn(mlp)
    with pytest.raises(TypeError, match=r'kernel_fn\(x1, x2, get, params\)'): kernel_fn(X, XT, PARAMS, 'ntk')
    with pytest.raises(ValueError, match='get'): kernel_fn(X, XT, 'cov1', PARAMS)
    with pytest.raises(ValueError, match='overlap'): ntk(mlp, 1, (-1,), (1,))(X, XT, PARAMS)
    with pytest.raises(ValueError, match='differ in axes'): ntk(mlp, 1, (), (0,))(X, XT, PARAMS)
    with pytest.raises(ValueError, match='does not have'): empirical_nngp_fn(mlp, (2,))(X, XT, PARAMS)
    with pytest.raises(ValueError, match='implementation'): empirical_ntk_fn(mlp, implementation=7)
    with pytest.raises(TypeError, match='complex'): ntk(mlp, 1)(X, XT, jax.tree.map(lambda a: a*1j, PARAMS))
    with pytest.raises(TypeError, match=r"params\['n'\]"): ntk(lambda p, x: x, 1)(X, XT, dict(n=3))
    with pytest.raises(TypeError, match='dtype int'): ntk(lambda p, x: jnp.argmax(x @ p, -1), 1)(X, XT, w1)
    with pytest.raises(ValueError, match='degree'): taylor_expand(mlp, PARAMS, 1.5)
    with pytest.raises(ValueError, match='structure'): linearize(mlp, PARAMS)(PARAMS[0], X)
    with pytest.raises(ValueError, match='different structures'):
        ntk(lambda p, x: (x @ p,) if len(x) == 5 else x @ p, 1)(X, XT, w1)
    assert methods_of('ntk_vector_products') == methods_of(NtkImplementation.NTK_VECTOR_PRODUCTS)


def test_linearize_trees_and_arguments():
    f = lambda p, x, power=1: dict(y=(x @ p['w'])**power, z=p['s'])
    p0, p1 = dict(w=w1, s=jnp.asarray(1.)), dict(w=2*w1, s=jnp.asarray(3.))
    lin = linearize(f, p0)(p1, X, power=2)
    close(lin, dict(y=3*(X @ w1)**2, z=jnp.asarray(3.)))
    close(taylor_expand(f, p0, 2)(p1, X, power=2), f(p1, X, power=2))
    close(taylor_expand(f, p0, 0)(p1, X), f(p0, X))
    holomorphic = lambda p, x: p**2*x
    close(linearize(holomorphic, 1j*w1[:, 0])(2j*w1[:, 0], X), -3*w1[:, 0]**2*X + 0j)


def test_trace_and_eigenpairs():
    full = flatten_kernel(ntk(mlp, 1, ())(X, None, PARAMS))
    for v in (None, 0): close(jax.jit(empirical_ntk_trace_fn(mlp, v))(X, PARAMS), jnp.trace(full))
    mean, sem = jax.jit(ntk_trace_estimate_fn(mlp, 200))(X, PARAMS, jax.random.key(0))
    assert abs(mean - jnp.trace(full)) < 4*sem
    pairs = empirical_ntk_eigenpairs(mlp, X, PARAMS, 4, jax.random.key(0))
    close(pairs.values, jnp.linalg.eigvalsh(full)[::-1][:4], rtol=1e-8)
    v = pairs.vectors.reshape(15, 4)
    close(v.T @ v, jnp.eye(4), rtol=1e-12)
    with pytest.raises(ValueError, match='`k`'): empirical_ntk_eigenpairs(mlp, X, PARAMS, 16, jax.random.key(0))
    with pytest.warns(UserWarning, match='max_blocks'): empirical_ntk_eigenpairs(mlp, X, PARAMS, 1, jax.random.key(0), max_blocks=1)


def test_multiple_eigenvalues():
    lam = jnp.asarray([5., 5., 5., 2.] + [1.]*26 + [0.]*10)
    q = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (40, 40)))[0]
    a = q*lam @ q.T
    values, vectors, norms = leading_eigenpairs(lambda u: a @ u, jax.random.normal(jax.random.key(1), (40, 4)), 1e-8, 50)
    close(values, lam[:4], rtol=1e-8)
    close(a @ vectors, vectors*values, rtol=1e-7)


def test_flatten():
    k = jnp.arange(2*3*4*5*6*7.).reshape(2, 3, 4, 5, 6, 7)
    m = flatten_kernel(k)
    assert m.shape == (48, 105) and m[1*24 + 2*6 + 3, 2*35 + 4*7 + 5] == k[1, 2, 2, 4, 3, 5]
    close(unflatten_kernel(m, (2, 4, 6), (3, 5, 7)), k)
    close(flatten_kernel(jnp.ones((3, 4))), jnp.ones((3, 4)))


def test_weight_space_meets_function_space():
    y, = draws(4, (5, 3))
    theta, f0 = gradient_flow_params(mlp, PARAMS, X, y, learning_rate=2.), mlp(PARAMS, X)
    lam, v = jnp.linalg.eigh(flatten_kernel(ntk(mlp, 1, ())(X, None, PARAMS)))
    ts = jnp.asarray([[0., 1.], [10., 1e3]])
    f = jax.jit(jax.vmap(jax.vmap(lambda p: linearize(mlp, PARAMS)(p, X).ravel())))(jax.jit(theta)(ts))
    want = y.ravel() + (jnp.exp(-2*lam*ts[..., None]/15)*(v.T @ (f0 - y).ravel())) @ v.T
    close(f, want, rtol=1e-9)
    close(f[0, 0], f0.ravel(), rtol=1e-12)
    close(linearize(mlp, PARAMS)(theta(), X), y, rtol=1e-8)
    # Twice the same input with two targets: a singular kernel, and the mean of both in the end.
    twice, targets = jnp.concatenate([X[:1], X[:1]]), jnp.stack([jnp.zeros(3), jnp.ones(3)])
    end = gradient_flow_params(mlp, PARAMS, twice, targets)()
    close(linearize(mlp, PARAMS)(end, X[:1]), jnp.full((1, 3), .5), rtol=1e-8)


def same_ntk(f, params, x):
    full, each = (ntk(f, 1, (-1,), (), v)(x, None, params) for v in (None, 0))
    close(each, full, rtol=1e-4)  # float32 through several layers
    close(jax.jit(empirical_ntk_fn(f))(x, None, params), full, rtol=1e-4)


def test_flax_linen():
    linen = pytest.importorskip('flax.linen')
    class Res(linen.Module):
        @linen.compact
        def __call__(self, x, train=False):
            for _ in range(2):
                h = linen.relu(linen.BatchNorm(use_running_average=not train)(linen.Conv(3, (3, 3))(x)))
                x = x + linen.Dropout(.5, deterministic=not train)(h)
            return linen.Dense(2)(x.mean((1, 2)))
    x = jax.random.normal(jax.random.key(0), (3, 4, 4, 3), jnp.float32)
    variables = jax.jit(Res().init)(jax.random.key(1), x)
    f, params = from_flax(Res(), variables)
    close(f(params, x), Res().apply(variables, x))
    close(from_flax(Res().bind(variables))[0](params, x), f(params, x))
    same_ntk(f, params, x)
    assert jnp.any(f(params, x, train=True, rng=jax.random.key(0)) != f(params, x, train=True, rng=jax.random.key(1)))
    with pytest.raises(ValueError, match='module.init'): from_flax(Res())


def test_flax_nnx():
    nnx = pytest.importorskip('flax.nnx')
    class Res(nnx.Module):
        def __init__(self, rngs):
            self.convs = nnx.List([nnx.Conv(3, 3, (3, 3), rngs=rngs) for _ in range(2)])
            self.norms = nnx.List([nnx.BatchNorm(3, rngs=rngs) for _ in range(2)])
            self.drop, self.out = nnx.Dropout(.5, rngs=rngs), nnx.Linear(3, 2, rngs=rngs)
        def __call__(self, x):
            for conv, norm in zip(self.convs, self.norms): x = x + self.drop(nnx.relu(norm(conv(x))))
            return self.out(x.mean((1, 2)))
    x, model = jax.random.normal(jax.random.key(0), (3, 4, 4, 3), jnp.float32), Res(nnx.Rngs(0))
    train, params = from_flax(model)
    assert jnp.any(train(params, x, rng=jax.random.key(0)) != train(params, x, rng=jax.random.key(1)))
    close(train(params, x), train(params, x))
    model.eval()
    f, params = from_flax(model)
    close(f(params, x), model(x))
    same_ntk(f, params, x)


def test_equinox():
    eqx = pytest.importorskip('equinox')
    class Res(eqx.Module):
        convs: list
        norms: list
        out: eqx.nn.Linear
        def __init__(self, key):
            keys = jax.random.split(key, 3)
            self.convs = [eqx.nn.Conv2d(3, 3, 3, padding=1, key=k) for k in keys[:2]]
            self.norms = [eqx.nn.BatchNorm(3, 'batch', mode='batch') for _ in range(2)]
            self.out = eqx.nn.Linear(3, 2, key=keys[2])
        def __call__(self, x, state):
            for conv, norm in zip(self.convs, self.norms):
                h, state = norm(conv(x), state)
                x = x + jax.nn.relu(h)
            return self.out(x.mean((1, 2))), state
    model, state = eqx.nn.make_with_state(Res)(jax.random.key(0))
    x = jax.random.normal(jax.random.key(0), (3, 3, 4, 4))
    f, params = from_equinox(eqx.nn.inference_mode(model), state)
    same_ntk(f, params, x)
    linear = eqx.nn.Linear(4, 2, key=jax.random.key(0))
    g, p = from_equinox(linear)
    close(g(p, x[:, 0, 0]), jax.vmap(linear)(x[:, 0, 0]))


def largest(jaxpr):
    "The number of entries of the largest array in a program"
    return max([v.aval.size for e in jaxpr.eqns for v in e.outvars] + [largest(j) for e in jaxpr.eqns for j in inside(e)])


def test_no_product_of_all_parameters_with_all():
    "Not by forward mode, and an error of another origin does not lead to it"
    w, = draws(2, (40, 50))
    loop = lambda p, x: jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.tanh(c[1])), (0, x @ p))[1].sum(1, keepdims=True)
    x, = draws(3, (2, 40))
    close(ntk(loop, 1)(x, x, w), ntk(lambda p, x: jnp.tanh(jnp.tanh(jnp.tanh(x @ p))).sum(1, keepdims=True), 1)(x, x, w))
    assert largest(jax.make_jaxpr(ntk(loop, 1))(x, x, w).jaxpr) <= 4*w.size  # the Jacobians, not 2000 by 2000
    @jax.custom_vjp
    def broken(x): return x
    def backward(_, g): raise TypeError('no product')
    broken.defvjp(lambda x: (x, None), backward)
    with pytest.raises(TypeError, match='no product'): ntk(lambda p, x: broken(x @ p), 1)(x, x, w)


def two_devices():
    "Inputs and parameters shared along rows, positions and channels: the numbers of one device, and results like any array"
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    params, x = draws(1, (3, 3, 4, 6), (6, 2)), draws(2, (4, 4, 4, 4))[0]
    def f(p, x): return conv_net(p, x)
    moved = lambda p: jax.tree.map(lambda a: 1.1*a, p)
    lam = lambda x, p: empirical_ntk_eigenpairs(f, x, p, 2, jax.random.key(0))
    k, lin, pairs = empirical_ntk_fn(f, vmap_axes=0)(x, None, params), linearize(f, params)(moved(params), x), lam(x, params)
    auto = dict(axis_types=(AxisType.Auto,)*2)
    meshes = jax.make_mesh((2,), ('rows',)), jax.make_mesh((1, 2), ('a', 'rows')), jax.make_mesh((2, 1), ('rows', 'b'), **auto)
    for mesh, spec in zip(meshes, (P('rows'), P(None, 'rows'), P('rows'))):
        put = lambda a, *spec: jax.device_put(a, NamedSharding(mesh, P(*spec)))
        shared, p = put(x, *spec), [put(params[0], None, None, None, 'rows'), put(params[1], 'rows')]
        for i in range(4):
            got = empirical_ntk_fn(f, vmap_axes=0, implementation=i)(shared, None, p)
            close(got, k, 1e-12)
        got[0], got @ got.T, jnp.linalg.cholesky(got + jnp.eye(4))
        close(jax.jit(empirical_ntk_fn(f))(shared, None, params), k, 1e-12)
        close(empirical_kernel_fn(f)(x, shared, 'nngp', p), empirical_nngp_fn(f)(x, x, params), 1e-12)
        close(linearize(f, p)(moved(p), shared), lin, 1e-12)
        taylor_expand(f, params, 2)(moved(p), shared)[0]
        close(lam(shared, p).values, pairs.values, 1e-8)
        gradient_flow_params(f, p, shared, lin)(1.)


def test_two_devices():
    code = """import sys; sys.path.insert(0, 'tests')
import jax; jax.config.update('jax_enable_x64', True)
from test_empirical import two_devices; two_devices()"""
    env = {**os.environ, 'XLA_FLAGS': '--xla_force_host_platform_device_count=2', 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_strict_flags():
    "No axis is added, no dtype promoted and no NaN formed on the way"
    flags = dict(jax_numpy_rank_promotion='raise', jax_numpy_dtype_promotion='strict', jax_debug_nans=True)
    def f(p, x): return jnp.tanh(x @ p[0] + p[1][None]) @ p[2]
    params = [w1, b1, w2]
    def run():
        ks = [empirical_ntk_fn(f, vmap_axes=v, implementation=i)(X, XT, params) for v in (None, 0) for i in (1, 2, 3)]
        lin = [taylor_expand(f, params, 2)(jax.tree.map(lambda a: 2*a, params), X)]
        vp = [empirical_ntk_vp_fn(f, X, None, params)(f(params, X)), empirical_kernel_fn(f)(X, None, 'nngp', params)]
        flow = gradient_flow_params(f, params, X, jnp.zeros((5, 3)))
        pairs = empirical_ntk_eigenpairs(f, X, params, 2, jax.random.key(0))
        return [*ks, *lin, *vp, flow(), flow(jnp.ones(2)), *pairs, empirical_ntk_trace_fn(f, 0)(X, params)]
    want, before = run(), {k: getattr(jax.config, k) for k in flags}
    for k, v in flags.items(): jax.config.update(k, v)
    try: close(run(), want, 1e-12)
    finally:
        for k, v in before.items(): jax.config.update(k, v)


def test_one_program():
    "Called as they are, the functions compile one program each, and none again: not for new numbers, nor for the same function"
    compiled = []
    def listen(event, *_, **__): compiled.append(event) if event == '/jax/core/compile/backend_compile_duration' else None
    def f(p, x, power=1): return jnp.tanh(x @ p[0])**power @ p[1]
    params, x1, x2 = [w1, w2], X, XT
    more = jax.tree.map(lambda a: 2*a, (params, x1, x2))
    calls = [lambda p, a, b: empirical_ntk_fn(f)(a, b, p, power=2), lambda p, a, b: empirical_ntk_fn(f, vmap_axes=0, implementation=2)(a, b, p),
             lambda p, a, b: empirical_nngp_fn(f)(a, b, p), lambda p, a, b: empirical_kernel_fn(f)(a, b, None, p),
             lambda p, a, b: linearize(f, params)(p, a), lambda p, a, b: taylor_expand(f, params, 2)(p, b, power=3),
             lambda p, a, b: empirical_ntk_vp_fn(f, a, b, p)(b[:, :3])]
    u = x2[:, :3] # what the last one slices is no program of the library
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for call in calls:
            compiled.clear()
            first = call(params, x1, x2)
            assert len(compiled) <= 1, call
            compiled.clear()
            call(params, x1, x2), call(*more)
            assert not compiled
    finally: jax.monitoring.unregister_event_duration_listener(listen)
    close(first, jax.jit(lambda p, a, b: empirical_ntk_vp_fn(f, a, b, p)(u))(params, x1, x2))


def test_a_function_that_looks_at_numbers():
    def looking(p, x): return x @ p if x.sum() > 0 else x @ p*2
    x = -abs(np.asarray(X))
    with pytest.warns(UserWarning, match='looking.*operation by operation'): k = empirical_ntk_fn(looking, implementation=1)(x, None, w1)
    close(k, 4*abs(X) @ abs(X).T)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with pytest.raises(jax.errors.ConcretizationTypeError): empirical_ntk_fn(lambda p, x: x @ p if p.sum() > 0 else x)(X, None, w1)


def test_batch_axes_of_different_size():
    "Two inputs with batches of their own, each for one output; what has one row is for all examples"
    def f(p, x): return dict(a=jnp.tanh(x[0] @ p[0]) @ p[1], b=x[1] @ p[0])
    p = [w1, w2]
    for i in (1, 2, 3):
        full, each = (ntk(f, i, (-1,), (), v)((X, XT), (XT, X[:3]), p) for v in (None, 0))
        close(each, full, 1e-12)
    one = lambda p, x: jnp.tanh(x[0]*x[1] @ p[0])
    close(ntk(one, 1, (-1,), (), 0)((X, X[:1]), None, p), ntk(one, 1)((X, X[:1]), None, p))
    with pytest.raises(ValueError, match='as many examples'): ntk(lambda p, x: jnp.repeat(x, 2, 0) @ p[0], 1, (-1,), (), 0)(X, None, p)
    scaled = lambda p, x, s: x @ p[0]*s[:, None]
    with pytest.raises((ValueError, TypeError)): ntk(scaled, 1, (-1,), (), (0, 0, dict(s=0)))(X, XT, p, s=X[:, 0])


def test_empty_pieces():
    for f in (lambda W, x: x @ jnp.roll(W, 0, 0), lambda W, x: x @ jnp.concatenate([W[:0], W])):
        for v in (None, 0): close(empirical_ntk_fn(f, vmap_axes=v)(X, None, w1), X @ X.T)
