"Features: of linear networks they are exact, those of others random by independent keys; landmarks; what has none says so"
import jax, numpy as np, pytest
from jax import numpy as jnp, random

from neural_tangents_nb import stax
from neural_tangents_nb.layer import Layer
from neural_tangents_nb.sketch import nystrom_features, random_features

pytestmark = pytest.mark.usefixtures('strict')

BOTH, KEY = ('nngp', 'ntk'), random.key(0)
X, IMAGES = random.normal(random.key(1), (5, 4)), random.normal(random.key(2), (3, 5, 6, 2))
dense = lambda **options: stax.Dense(1, 1.5, .3, **options)
conv = lambda **options: stax.Conv(1, (3, 2), W_std=1.4, b_std=.2, **options)

LINEAR = dict(
    two=(X, stax.serial(dense(), stax.Dense(1, .7))),
    fixed_first=(X, stax.serial(dense(trainable=False), dense())),
    fixed_last=(X, stax.serial(dense(), dense(trainable=False))),
    normed=(X, stax.serial(dense(), stax.LayerNorm(eps=.5), dense())),
    branches=(X, stax.serial(dense(), stax.FanOut(3), stax.parallel(dense(), stax.serial(dense(), dense()), stax.serial()), stax.FanInSum(), dense())),
    fixed_branch=(X, stax.serial(stax.FanOut(2), stax.parallel(dense(trainable=False), dense()), stax.FanInSum())),
    strides=(IMAGES, stax.serial(conv(strides=(2, 1)), stax.Flatten(), dense())),
    circular=(IMAGES, stax.serial(conv(padding='CIRCULAR'), conv(padding='SAME'), stax.AvgPool((2, 3), (1, 2)), stax.Flatten(), dense())),
    average=(IMAGES, stax.serial(conv(padding='SAME'), stax.SumPool((2, 2)), stax.GlobalAvgPool(), dense())),
    total=(IMAGES, stax.serial(stax.Conv(1, (2, 2)), stax.LayerNorm(), stax.GlobalSumPool(), dense())),
)


@pytest.mark.parametrize('name', LINEAR)
def test_linear_networks_are_exact(name):
    "Without nonlinearities nothing is random: the products are the kernels up to rounding"
    x, net = LINEAR[name]
    f, exact = random_features(net, KEY, 3)(x, BOTH), net.kernel_fn(x, None, BOTH)
    for g in BOTH: np.testing.assert_allclose(getattr(f, g)@getattr(f, g).T, getattr(exact, g), rtol=1e-11, atol=1e-12, err_msg=g)


def test_a_nonlinearity_over_fixed_weights():
    "Where nothing below is trained, there are features of the NNGP kernel alone"
    net = stax.serial(dense(trainable=False), stax.Relu(), stax.Dense(1))
    f, exact = random_features(net, KEY, 20_000)(X, BOTH), net.kernel_fn(X, None, BOTH)
    # Relative errors are a few over sqrt(20000) = .007.
    for g in BOTH: np.testing.assert_allclose(getattr(f, g)@getattr(f, g).T, getattr(exact, g), atol=.05*exact.nngp.max(), err_msg=g)


def test_one_branch_may_end_in_a_nonlinearity():
    net = stax.serial(dense(), stax.FanOut(2), stax.parallel(stax.Relu(), dense()), stax.FanInSum(), dense())
    f, exact = random_features(net, KEY, 20_000)(X, BOTH), net.kernel_fn(X, None, BOTH)
    for g in BOTH: np.testing.assert_allclose(getattr(f, g)@getattr(f, g).T, getattr(exact, g), atol=.05*getattr(exact, g).max(), err_msg=g)


class Spy(Layer):
    "A layer of a user, no pytree, that notes its key"
    seen: list = []
    def features(self, key, f, dim):
        Spy.seen.append(tuple(np.asarray(random.key_data(key)).tolist()))
        return f


def test_every_layer_has_a_key_of_its_own(monkeypatch):
    "One key in two layers would make their errors add up"
    monkeypatch.setattr(Spy, 'seen', [])
    net = stax.serial(Spy(), Spy(), stax.FanOut(3), stax.parallel(stax.serial(Spy(), Spy()), Spy(), Spy()))
    net.features(KEY, random_features(dense(), KEY, 3)(X, 'nngp'), 3)
    assert len(Spy.seen) == len(set(Spy.seen)) == 6
    assert random_features(stax.serial(dense(), Spy()), KEY, 3)(X).shape == (5, 5)     # it is not compiled


def test_the_key_and_the_kernel():
    "The same features for the same key, others for another; by default those of the NTK"
    net = stax.serial(dense(), stax.Erf(), dense())
    of = lambda key, dim=8: random_features(net, key, dim)(X)
    np.testing.assert_array_equal(of(KEY), of(KEY, np.int64(8)))
    assert abs(of(KEY) - of(random.key(1))).max() > .1
    np.testing.assert_array_equal(of(KEY), random_features(net, KEY, 8)(X, 'ntk'))


@pytest.mark.parametrize('get', BOTH)
def test_landmarks(get):
    "All points as landmarks, two of them twice, give the kernel that was asked for"
    net = stax.serial(dense(), stax.Relu(), dense())
    f = nystrom_features(net.kernel_fn, jnp.concatenate([X, X[:2]]), get)
    np.testing.assert_allclose(f(X)@f(X).T, net.kernel_fn(X, None, get), rtol=1e-9)


def test_many_landmarks_lose_no_accuracy():
    "A smooth kernel of small eigenvalues, and one of rank 5 in single precision, beyond which there are rounding errors only"
    line, smooth = jnp.linspace(-1, 1, 30)[:, None], stax.serial(dense(), stax.Erf(), dense())
    exact = smooth.kernel_fn(line, None, 'ntk')
    f = nystrom_features(smooth.kernel_fn, line)(line)
    assert abs(f@f.T - exact).max() < 1e-10*abs(exact).max()
    x, low = random.normal(random.key(3), (200, 4), jnp.float32), stax.serial(dense(), dense())
    f, exact = nystrom_features(low.kernel_fn, x[:150], 'nngp')(x), low.kernel_fn(x, None, 'nngp')
    assert abs(f@f.T - exact).max() < 1e-5*abs(exact).max()


second = dict(batch_axis=1, channel_axis=2)
REFUSED = dict(
    twice=(X, (dense(), stax.Relu(), stax.Relu()), ValueError, 'layer with weights'),
    flat=(IMAGES, (conv(), stax.Flatten(), stax.Relu()), ValueError, 'layer with weights'),
    mixed=(X, (dense(), stax.FanOut(2), stax.parallel(stax.Relu(), dense()), stax.FanInSum(), stax.Relu()), ValueError, 'layer with weights'),
    two_nonlinear=(X, (dense(), stax.FanOut(2), stax.parallel(stax.Relu(), stax.Erf()), stax.FanInSum()), NotImplementedError, 'all branches but one'),
    no_branches=(X, (dense(), stax.FanInSum()), ValueError, 'list of branches'),
    batch_second=(IMAGES[:, 0], (stax.Dense(1, **second),), NotImplementedError, 'the batch first'),
    flat_second=(IMAGES, (stax.Flatten(batch_axis=1),), NotImplementedError, 'the batch first'),
    flat_to_second=(IMAGES, (stax.Flatten(batch_axis_out=1),), NotImplementedError, 'the batch first'),
    normed_positions=(IMAGES, (conv(), stax.LayerNorm(axis=(1, 2, 3))), NotImplementedError, 'axis=-1'),
    groups=(IMAGES, (stax.Conv(2, (2, 2), feature_group_count=2),), NotImplementedError, 'feature_group_count'),
)


@pytest.mark.parametrize('name', REFUSED)
def test_what_has_no_features_says_so(name):
    x, layers, error, said = REFUSED[name]
    with pytest.raises(error, match=said): random_features(stax.serial(*layers), KEY, 4)(x)


def test_a_kernel_that_is_not_there():
    with pytest.raises(ValueError, match='no weights, and so no NTK'): random_features(stax.serial(stax.Identity()), KEY, 4)(X)
    with pytest.raises(ValueError, match="`get` must be 'nngp', 'ntk' or both"): random_features(dense(), KEY, 4)(X, 'cov1')
