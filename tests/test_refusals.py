"Every illegal combination of layers is an error that names what was got and what to do; never a number"
import jax
import numpy as np
import pytest

from neural_tangents_nb import stax

X, SENTENCE, IMAGE = np.linspace(-1, 1, 12).reshape(3, 4), np.linspace(-1, 1, 24).reshape(2, 4, 3), np.linspace(-1, 1, 64).reshape(2, 4, 4, 2)
dense, conv = stax.Dense(4), stax.Conv(4, (3,), padding='SAME')


def kernel(*layers, x=SENTENCE, **kwargs): return stax.serial(*layers).kernel_fn(x, None, ('nngp', 'ntk'), **kwargs)


def initialized(*layers, shape): return stax.serial(*layers).init_fn(jax.random.key(0), shape)


REFUSED = {     # name: (what is tried, the error, a word of its message)
    'diagonal where pooling needs pairs': (lambda: kernel(conv, stax.GlobalAvgPool(), diagonal_spatial=True), ValueError, 'diagonal_spatial'),
    'diagonal kernel into attention': (lambda: stax.GlobalSelfAttention(4, 4, 4, 1).kernel_fn(conv.kernel_fn(SENTENCE, diagonal_spatial=True)), ValueError, 'diagonal_spatial'),
    'channel axis': (lambda: kernel(stax.Dense(4, channel_axis=1), stax.Relu(), stax.Dense(4, channel_axis=2)), ValueError, 'channel_axis'),
    'raw inputs into a nonlinearity': (lambda: kernel(stax.Relu()), ValueError, 'Gaussian'),
    'inputs of two widths': (lambda: dense.kernel_fn(X[:, :2], X[:, 1:]), ValueError, 'same sizes'),
    'two nonlinearities': (lambda: kernel(dense, stax.Relu(), stax.Erf()), ValueError, 'Gaussian'),
    'negative degree': (lambda: stax.Monomial(-1), ValueError, 'degree'),
    'negative rectified degree': (lambda: stax.RectifiedMonomial(-1), ValueError, 'degree'),
    'negative Hermite degree': (lambda: stax.Hermite(-1), ValueError, 'degree'),
    'no function and no kernel': (lambda: stax.Elementwise(), (ValueError, TypeError), 'fn'),
    'kernel only': (lambda: stax.serial(dense, stax.ExpNormalized()).apply_fn(stax.serial(dense, stax.ExpNormalized()).init_fn(jax.random.key(0), X.shape)[1], X), NotImplementedError, 'finite'),
    'two constants': (lambda: stax.DotGeneral(lhs=np.eye(2), rhs=np.eye(2)), ValueError, 'lhs'),
    'one-sided pattern': (lambda: kernel(dense, stax.Aggregate(1), pattern=(np.zeros((2, 4, 4)), None)), (ValueError, NotImplementedError), 'pattern'),
    'pattern of another shape': (lambda: kernel(dense, stax.Aggregate(1), pattern=np.zeros((2, 3, 3))), ValueError, 'pattern'),
    'aggregation': (lambda: stax.Aggregate(1, implementation='FAST'), ValueError, 'FAST'),
    'parameterization': (lambda: stax.Dense(4, parameterization='mup'), ValueError, 'mup'),
    'a scale that is no number': (lambda: stax.Dense(4, W_std=float('nan')), ValueError, 'W_std'),
    'an infinite bias': (lambda: stax.Conv(4, (3,), b_std=float('inf')), ValueError, 'b_std'),
    'padding': (lambda: stax.Conv(4, (3,), padding='FULL'), ValueError, 'FULL'),
    'attention': (lambda: stax.GlobalSelfAttention(4, 4, 4, 2, attention_mechanism='MAX'), ValueError, 'MAX'),
    'embedding': (lambda: stax.GlobalSelfAttention(4, 4, 4, 2, pos_emb_type='ROTARY'), ValueError, 'ROTARY'),
    'softmax of a wide logit': (lambda: kernel(conv, stax.GlobalSelfAttention(4, 4, 4, 2, linear_scaling=False)), (ValueError, NotImplementedError), 'linear_scaling'),
    'batch axis out': (lambda: stax.Flatten(batch_axis_out=2), ValueError, 'batch_axis_out'),
    'normalized nonlinearity': (lambda: kernel(dense, stax.Dropout(.5), stax.LayerNorm(axis=(1,))), (ValueError, NotImplementedError), 'Gaussian'),
    'channels not normalized': (lambda: kernel(dense, stax.LayerNorm(axis=(1,))), ValueError, 'channel'),
    'rate': (lambda: stax.Dropout(0.), ValueError, 'rate'),
    'mode': (lambda: stax.Dropout(.5, mode='eval'), ValueError, 'mode'),
    'resize method': (lambda: kernel(dense, stax.ImageResize((-1, 8, -1), 'spline')), ValueError, 'spline'),
    'channels resized': (lambda: kernel(dense, stax.ImageResize((-1, 8, 7), 'linear')), ValueError, 'channel'),
    'layouts that differ': (lambda: kernel(stax.FanOut(2), stax.parallel(stax.Dense(4), stax.Dense(4, channel_axis=1)), stax.FanInSum()), (ValueError, NotImplementedError), 'channel_axis'),
    'finite shapes that differ': (lambda: initialized(stax.FanOut(2), stax.parallel(stax.Dense(4), stax.Dense(5)), stax.FanInSum(), shape=(3, 4)), ValueError, 'widths'),
    'sum of nonlinearities': (lambda: kernel(stax.FanOut(2), stax.parallel(*[stax.serial(dense, stax.Relu())]*2), stax.FanInSum()), NotImplementedError, 'Gaussian'),
    'concatenation of other sizes': (lambda: initialized(stax.FanOut(2), stax.parallel(stax.Identity(), stax.AvgPool((2,))), stax.FanInConcat(-1), shape=(2, 4, 3)), ValueError, 'agree'),
    'repeat that changes shape': (lambda: initialized(stax.repeat(stax.Dense(5), 2), shape=(3, 4)), ValueError, 'repeat'),
    'window of another rank': (lambda: kernel(conv, stax.AvgPool((2, 2))), ValueError, 'window_shape'),
    'filter of another rank': (lambda: kernel(stax.Conv(4, (3,)), x=IMAGE), ValueError, 'filter_shape'),
    'window larger than the image': (lambda: kernel(conv, stax.AvgPool((9,))), ValueError, 'smaller'),
    'trees of other lengths': (lambda: stax.parallel(dense, dense).kernel_fn([X, X], [X, X, X], 'ntk'), (ValueError, TypeError), 'expected a list of 2'),
    'one input into two branches': (lambda: kernel(stax.parallel(dense, dense)), (ValueError, TypeError), 'FanOut(2)'),
    'dropout without a key': (lambda: stax.Dropout(.5).apply_fn((), X), ValueError, 'rng'),
    'not a layer': (lambda: stax.serial(dense, stax.Relu), TypeError, 'Relu'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_refused(name):
    attempt, error, word = REFUSED[name]
    with pytest.raises(error) as e: attempt()
    assert word in str(e.value)
