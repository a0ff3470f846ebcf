"Duals of the activations: derivatives to second order, extreme scales, and the layers around them"
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import some
from neural_tangents_nb import activations as A
from neural_tangents_nb.layer import Dense, serial

ACTS = dict(relu=A.Relu(), erf=A.Erf(.7, 1.3, .4), sin=A.Sin(1.1, .8, .3), gelu=A.Gelu(), sign=A.Sign(), gabor=A.Gabor(),
            gaussian=A.Gaussian(.8, -.6), rectified=A.RectifiedMonomial(2), elu=A.Selu(), tanh=A.Tanh())
V = np.float32([0, 1e-30, .9, 1, 4.0000005, 1e30])
RHO = np.float32([-1, -1+1e-6, -.5, 0, .7, 1-1e-7, 1])
K11, R, K22 = (a.ravel() for a in np.meshgrid(V, RHO, V, indexing='ij'))
K12 = np.sqrt(K11)*R*np.sqrt(K22)


@pytest.mark.parametrize('name', [n for n in ACTS if n not in ('rectified', 'tanh')])
def test_finite_from_1e_30_to_1e30_in_float32(name):
    act = ACTS[name]
    out = jax.jit(lambda *k: (act.dual(*k), act.ddual(*k)))(K11, K12, K22)
    for o in out: assert o.dtype == jnp.float32 and jnp.isfinite(o).all()
    if name == 'relu': np.testing.assert_allclose(out[0][R == 1], np.sqrt(K11*1.)[R == 1]*np.sqrt(K22)[R == 1]/2, rtol=1e-6)


@pytest.mark.parametrize('name', some(['relu', 'erf', 'gelu', 'sin', 'rectified'], 'relu', 'rectified'))
def test_second_derivatives_are_finite_and_right(name):
    act = ACTS[name]
    f = lambda k: A.pushed(act, *k)
    second = jax.jit(jax.vmap(jax.hessian(f)))
    edge = np.array([(1., 1., 1.), (1., -1., 1.), (0., 0., 1.), (0., 0., 0.), (.3, .3, .3)])
    assert jnp.isfinite(second(edge)).all()
    k, e = np.array([[.7, .3, 1.2]]), 1e-5*np.eye(3)
    slope = jax.jit(jax.vmap(jax.grad(f)))
    np.testing.assert_allclose(second(k)[0], (slope(k + e) - slope(k - e))/2e-5, rtol=1e-6, atol=1e-9)


def test_price_makes_the_series_differentiable_to_any_order():
    f = lambda c: A.moment(0, 0, A.Tanh(), jnp.asarray(1.), c, jnp.asarray(1.))
    d3 = jax.jit(jax.grad(jax.grad(f)))(1.)
    z = np.linspace(-12, 12, 4001); w = np.exp(-z*z/2); w /= w.sum()
    second = -2*np.tanh(z)*(1 - np.tanh(z)**2)
    np.testing.assert_allclose(d3, w @ second**2, rtol=1e-12)


def test_hyperparameters_differentiate():
    one = jnp.asarray(1.)
    loss = lambda b: A.pushed(A.Erf(1., b, 0.), one, one/3, one)
    np.testing.assert_allclose(jax.grad(loss)(.8), (loss(.8+1e-6) - loss(.8-1e-6))/2e-6, rtol=1e-8)


@pytest.mark.parametrize('n', [1, 2, 3])
def test_rectified_monomials_against_quadrature(n):
    x, w = np.polynomial.legendre.leggauss(300)
    r, w = 6*(x + 1), 6*w
    rho, u, v = .4, r[:, None], r
    p = np.exp(-(u*u - 2*rho*u*v + v*v)/(2*(1 - rho**2)))/(2*np.pi*np.sqrt(1 - rho**2))
    got = A.RectifiedMonomial(n).dual(*map(jnp.asarray, (1., rho, 1.)))
    np.testing.assert_allclose(got, w @ (p*(u*v)**n) @ w, rtol=1e-9)


def test_polynomials_without_variance():
    zero = jnp.zeros(3)
    for act in (A.Polynomial([.3, 1., 2.]), A.RectifiedMonomial(1), A.Tanh()):
        out, pull = jax.vjp(lambda *k: A.pushed(act, *k), zero, zero, jnp.ones(3))
        assert all(jnp.isfinite(o).all() for o in (out, *pull(out)))


def test_errors():
    with pytest.raises(ValueError, match='neither'): A.Elementwise()
    with pytest.raises(ValueError, match='degree'): A.Hermite(-1)
    with pytest.raises(NotImplementedError, match='without a finite'): A.ExpNormalized().apply((), jnp.ones(2))
    with pytest.raises(ValueError, match='Dense or Conv'): A.Erf().kernel_fn(np.ones((2, 3)))


def test_hermite_warns():
    net = serial(Dense(4), A.Hermite(2))
    with pytest.warns(UserWarning, match='unit variance'): net.kernel_fn(np.ones((2, 3)), None, 'nngp')


@pytest.mark.parametrize('a, b', [(0., 1.), (.1, 1.), (-1., 1.), (2., -3.)])
def test_two_slopes(a, b):
    "The finite function has the bits of its definition, also where it is steep, and the mean slope where it bends"
    f = A.ABRelu(a, b).fn
    x = jnp.float32([-1e30, -3.7, -1e-30, 0, 1e-30, .1, 1e30, jnp.nan])
    np.testing.assert_array_equal(f(x), np.float32(a)*jnp.minimum(x, 0) + np.float32(b)*jnp.maximum(x, 0))
    np.testing.assert_array_equal([jax.grad(f)(v) for v in (-2., 0., 2.)], [a, (a + b)/2, b])
    assert f(jnp.arange(-1, 2)).dtype == jnp.result_type(float) and f(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    slopes = jax.grad(lambda act, v: act.fn(v))(A.ABRelu(a, b), -2.)
    assert (slopes.a, slopes.b) == (-2, 0)


def test_a_derivative_that_does_not_exist_is_refused():
    "The mixed second derivative of the NTK of a ReLU network at equal inputs, by all ways to ask for it; but not what exists"
    relu, erf = (serial(Dense(1), act, Dense(1)) for act in (A.Relu(), A.Erf()))
    x = jnp.array([[1., 2., -.5]])
    f = lambda net, get: lambda a, b: net.kernel_fn(a, b, get).sum()
    for mixed in (lambda f: jax.jacfwd(jax.grad(f, 0), 1), lambda f: jax.jacrev(jax.jacfwd(f, 1), 0), lambda f: jax.hessian(f, (0, 1))):
        with pytest.raises(ValueError, match='0 times'): mixed(f(relu, 'ntk'))(x, x + 0)
    assert jnp.isfinite(jax.jacfwd(jax.grad(f(relu, 'ntk'), 0), 1)(x, x + 1)).all()
    exact = 2/3*np.eye(3) # the NTK with itself is the squared length over 3
    np.testing.assert_allclose(jax.hessian(lambda x: relu.kernel_fn(x, None, 'ntk').sum())(x).reshape(3, 3), exact, atol=1e-12)
    assert jnp.isfinite(jax.jacfwd(jax.grad(f(erf, 'ntk'), 0), 1)(x, x + 0)).all()
