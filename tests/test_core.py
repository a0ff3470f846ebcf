"The entrance of the library: what it accepts, what it refuses and how it says so, and that it compiles once"
import jax
import numpy as np
import pytest
from jax import numpy as jnp, random

import neural_tangents_nb as nt
from neural_tangents_nb import stax
from neural_tangents_nb.core import test_close as assert_close
from neural_tangents_nb.layer import _compiled

X1, X2 = np.random.RandomState(0).randn(3, 5), np.random.RandomState(1).randn(4, 5)
IMAGES = np.random.RandomState(2).randn(2, 4, 4, 3)


def fcn(): return stax.serial(stax.Dense(16, 1.5, .1), stax.Relu(), stax.Dense(16, 1.2), stax.Erf(), stax.Dense(1))


@pytest.mark.parametrize('bad, error, words', [
    (np.ones(5), ValueError, 'batch and a channel axis'),
    (np.ones((0, 5)), ValueError, 'empty'),
    ([[1., 2.], [3., 4.]], ValueError, 'make one of numbers an array'),
    (np.ones((3, 5), complex), TypeError, 'complex'),
    (np.array([['a', 'b']]), TypeError, 'numbers'),
    ('text', TypeError, 'array'),
    (None, TypeError, 'array'),
    (dict(x=1), TypeError, 'array'),
    (np.array([[1., np.nan]]), ValueError, 'NaN'),
    (np.array([[1., np.inf]]), ValueError, 'infinite'),
])
def test_bad_inputs(bad, error, words):
    with pytest.raises(error, match=words): fcn().kernel_fn(bad)


@pytest.mark.parametrize('bad', [np.ones((4, 6)), np.ones((4, 5, 2))])
def test_other_shape(bad):
    with pytest.raises(ValueError, match='x2'): fcn().kernel_fn(X1, bad)


def test_inputs_of_too_few_axes():
    with pytest.raises(ValueError, match='`x1` has 3 axes, too few'): stax.Conv(1, (3, 3)).kernel_fn(IMAGES[0])


@pytest.mark.parametrize('layer, error, words', [
    (lambda: stax.Dense('a'), ValueError, '`out_dim`'), (lambda: stax.Dense(0), ValueError, '`out_dim`'), (lambda: stax.Dense(1.5), ValueError, '`out_dim`'),
    (lambda: stax.Conv(0, (3, 3)), ValueError, '`out_chan`'), (lambda: stax.Dense(3, 'x'), TypeError, '`W_std`'), (lambda: stax.Dense(3, None), TypeError, '`W_std`'),
    (lambda: stax.Conv(3, (3, 3), b_std='x'), TypeError, '`b_std`')])
def test_bad_widths_and_scales(layer, error, words):
    with pytest.raises(error, match=words): layer()


def test_numbers_show_as_numbers():
    "Whatever holds a number, a network shows it as one"
    for v in 1.5, np.float64(1.5), np.array(1.5), jnp.array(1.5): assert repr(stax.Dense(3, v)) == 'Dense(3, W_std=1.5)'
    assert ', True, layout=' in repr(fcn().kernel_fn(X1, None))
    assert repr(stax.Dense(3, jnp.ones(2))) == f'Dense(3, W_std=<{jnp.ones(2).dtype}[2]>)'


def test_integers_and_half_precision_count_as_floats():
    x = np.arange(6).reshape(2, 3)
    assert_close(fcn().kernel_fn(x, None, 'ntk'), fcn().kernel_fn(x.astype(float), None, 'ntk'))
    assert fcn().kernel_fn(jnp.asarray(x, jnp.bfloat16), None, 'ntk').dtype == jnp.float64


@pytest.mark.parametrize('get, error', [
    ('ntkgp', KeyError), ((), ValueError), ('', ValueError), (('ntk', 'NTK'), ValueError), (3, TypeError)])
def test_bad_get(get, error):
    with pytest.raises(error): fcn().kernel_fn(X1, None, get)


def test_forms_of_2019():
    init_fn, apply_fn, kernel_fn = fcn()
    _, params = init_fn(random.key(0), X1.shape)
    k = kernel_fn(X1, None, ('nngp', 'ntk'))
    with pytest.raises(TypeError, match=r"kernel_fn\(x1, x2, 'ntk'\)"): kernel_fn(X1, X2, params, 'ntk')
    y = np.ones((3, 1))
    with pytest.raises(TypeError, match='gp_inference'): nt.predict.gp_inference(kernel_fn, X1, y, X2, get='ntk')
    with pytest.raises(TypeError, match='gradient_descent_mse'): nt.predict.gradient_descent_mse(k.ntk, y, k.ntk)


def test_get():
    k = fcn().kernel_fn(X1, X2)
    assert isinstance(k, nt.Kernel) and k.shape1 == (3, 1) and k.ntk.shape == (3, 4)
    some = fcn().kernel_fn(X1, X2, ('NTK', 'cov1', 'shape1'))
    assert some._fields == ('ntk', 'cov1', 'shape1') and some.shape1 == (3, 1)
    assert_close(some.ntk, k.ntk)
    assert fcn().kernel_fn(X1, X2, 'nngp').shape == (3, 4)
    assert fcn().kernel_fn(X1, X2, 'nngp').dtype == jnp.float64
    assert fcn().kernel_fn(X1, None, 'cov2') is None


def test_composition():
    net = fcn()
    lower, upper = stax.serial(*net.layers[:3]), stax.serial(*net.layers[3:])
    assert_close(upper.kernel_fn(lower.kernel_fn(X1, X2), get='ntk'), net.kernel_fn(X1, X2, 'ntk'))
    with pytest.raises(ValueError, match='both batches already'): upper.kernel_fn(lower.kernel_fn(X1, X2), X2)


def test_hyperparameters_do_not_compile_again():
    make = lambda w, b: stax.serial(stax.Dense(16, w, b), stax.Erf(a=w), stax.Dense(1))
    make(1., .1).kernel_fn(X1, X2, 'ntk')
    before = _compiled._cache_size()
    make(1.3, .2).kernel_fn(X1, X2, 'ntk')
    assert _compiled._cache_size() == before


def test_gradients_with_respect_to_a_network():
    f = lambda net: net.kernel_fn(X1, X2, 'ntk').sum()
    net = fcn()
    g = jax.grad(f)(net)
    bump = lambda h: f(jax.tree.map(lambda p, i: p + h*i, net, jax.tree.map(lambda l: 1., net)))
    numeric = (bump(1e-5) - bump(-1e-5))/2e-5
    assert abs(sum(jax.tree.leaves(g)) - numeric) < 1e-6*abs(numeric)  # central differences: h^2 and eps/h


def test_under_jit_vmap_and_a_batch_axis():
    kernel_fn = fcn().kernel_fn
    assert_close(jax.jit(kernel_fn, static_argnames='get')(X1, X2, get='ntk'), kernel_fn(X1, X2, 'ntk'))
    many = jax.vmap(lambda x: kernel_fn(x, None, 'ntk'))(jnp.stack([X1, 2*X1]))
    assert_close(many[1], kernel_fn(2*X1, None, 'ntk'))


def test_user_wants_pairs_or_not():
    conv = stax.serial(stax.Conv(8, (3, 3), padding='SAME'), stax.Relu(), stax.Flatten())
    for d in (None, True, False): assert_close(
        conv.kernel_fn(IMAGES, None, 'ntk', diagonal_spatial=d), conv.kernel_fn(IMAGES, None, 'ntk'))
    pooled = stax.serial(stax.Conv(8, (3, 3)), stax.GlobalAvgPool())
    with pytest.raises(ValueError, match='diagonal_spatial'): pooled.kernel_fn(IMAGES, diagonal_spatial=True)
    assert fcn().kernel_fn(X1, X2, diagonal_batch=False).cov1.shape == (3, 3)


@pytest.mark.parametrize('size', [1e-15, 1., 1e14])
def test_scales_in_float32(size):
    "ReLU kernels are homogeneous of degree two; variances from 1e-30 to 1e28 keep their digits"
    net = stax.serial(stax.Dense(8), stax.Relu(), stax.Dense(8), stax.Relu(), stax.Dense(1))
    with jax.enable_x64(False):
        x = np.float32(X1)
        k, one = net.kernel_fn(np.float32(size)*x, None, 'ntk'), net.kernel_fn(x, None, 'ntk')
        np.testing.assert_allclose(k/np.float32(size)/np.float32(size), one, rtol=1e-5)


def test_zero_and_equal_and_opposite_inputs():
    x = np.stack([np.zeros(5), X1[0], X1[0], -X1[0], 2*X1[0]])
    net = fcn()
    for xx in (x, np.float32(x)):
        k = net.kernel_fn(xx, None, ('nngp', 'ntk'))
        assert np.isfinite(k.nngp).all() and np.isfinite(k.ntk).all()
        g = jax.grad(lambda x: net.kernel_fn(x, x + 0, 'ntk').sum())(jnp.asarray(xx))
        assert np.isfinite(g).all()


def test_public_names():
    names = '''batch empirical_kernel_fn empirical_nngp_fn empirical_ntk_fn empirical_ntk_vp_fn linearize taylor_expand
               NtkImplementation monte_carlo_kernel_fn Kernel predict stax'''.split()
    assert [n for n in names if not hasattr(nt, n)] == []
    layers = '''serial parallel repeat FanOut FanInSum FanInProd FanInConcat ABRelu Abs Cos Elementwise
        ElementwiseNumerical Erf Exp ExpNormalized Gabor Gaussian Gelu Hermite LeakyRelu Monomial Polynomial Rbf
        RectifiedMonomial Relu Sigmoid_like Sign Sin Aggregate AvgPool Conv ConvLocal ConvTranspose Dense Identity Index
        DotGeneral Dropout Flatten GlobalAvgPool GlobalSelfAttention GlobalSumPool ImageResize LayerNorm SumPool Slice
        AggregateImplementation AttentionMechanism Padding PositionalEmbedding Bool Diagonal MaskedArray layer requires
        supports_masking unmask_fn Tanh Sigmoid Softplus Silu Elu Selu Mish'''.split()
    assert [n for n in layers if not hasattr(stax, n)] == []
    predictors = '''gradient_descent gradient_descent_mse gradient_descent_mse_ensemble gp_inference max_learning_rate
                    ODEState Gaussian'''.split()
    assert [n for n in predictors if not hasattr(nt.predict, n)] == []
