"LayerNorm, Dropout, BatchNorm, attention and graph aggregation: recorded numbers, former bugs, errors"
import importlib, sys
from pathlib import Path
from types import SimpleNamespace
import jax, numpy as np, pytest
from jax import numpy as jnp, random
from neural_tangents_nb.core import test_close as close
from neural_tangents_nb.activations import Relu
from neural_tangents_nb.attention import AttentionMechanism, GlobalSelfAttention, PositionalEmbedding
from neural_tangents_nb.combinators import FanInConcat, FanOut, parallel
from neural_tangents_nb.graph import Aggregate
from neural_tangents_nb.layer import Dense, MaskedArray, serial
from neural_tangents_nb.tiles import batch
from neural_tangents_nb.norm import BatchNorm, Dropout, LayerNorm, effective_rank

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE/'reference'))
import cases

MODULES = 'layer combinators activations spatial conv norm attention graph'.split()
STAX = SimpleNamespace(**{k: v for m in MODULES for k, v in vars(importlib.import_module('neural_tangents_nb.' + m)).items()})
x1, x2 = random.normal(random.key(1), (3, 4, 6)), random.normal(random.key(2), (2, 4, 6))


# One case per branch here; the others run with all recorded kernels.
@pytest.mark.parametrize('name', ['mask_layernorm', 'attention_posemb_concat_val', 'attention_sqrt_identity', 'aggregate_graph'])
def test_recorded(name):
    assert cases.check(STAX, [name])[name] < 1e-9


def test_dropout_first():
    "The reference raised IndexError for the tangent kernel of Dropout on inputs"
    v = x1[:, 0]
    k = serial(Dropout(.5), Dense(8), Dense(1)).kernel_fn(v, None, ('nngp', 'ntk'))
    base = v@v.T/6*(1 + jnp.eye(3))
    close(k.nngp, base); close(k.ntk, 2*base)
    close(Dropout(.5).kernel_fn(v, None, 'ntk'), jnp.zeros((3, 3)))


def test_dropout_finite():
    x = jnp.ones((50, 40))
    y = Dropout(.8).apply_fn((), x, rng=random.key(0))
    assert set(np.unique(y)) == {0., 1.25} and abs(y.mean() - 1) < .05
    close(y, jnp.where(random.bernoulli(random.key(0), .8, x.shape), x/.8, 0))
    close(Dropout(.8, mode='test').apply_fn((), x), x)
    with pytest.raises(ValueError, match='rng'): Dropout(.8).apply_fn((), x)
    for rate in (0, -1., 1.5):
        with pytest.raises(ValueError, match='probability to keep'): Dropout(rate)


def test_dropout_full_batch():
    k = serial(Dense(4), Dropout(.5)).kernel_fn(x1, diagonal_batch=False)
    close(k.cov1, k.nngp)


def test_layernorm_masked_finite():
    net = LayerNorm(axis=(1, 2))
    x = x1.at[:, 3].set(100.)
    y = net.apply_fn((), x, mask_constant=100.)
    assert isinstance(y, MaskedArray)
    close(y.masked_value[:, :3], net.apply_fn((), x1[:, :3]))


def test_layernorm_zero_input():
    k = serial(Dense(4), LayerNorm()).kernel_fn(jnp.zeros((2, 3)), None, ('nngp', 'ntk'))
    close(k.nngp, jnp.zeros((2, 2))); assert jnp.isfinite(k.ntk).all()


def test_layernorm_of_groups():
    "After a concatenation of channels all groups are divided by their common deviation"
    net = serial(FanOut(2), parallel(Dense(6, .5), Dense(2, 2.)), FanInConcat(), LayerNorm(), Relu())
    k = net.kernel_fn(x1[:, 0])
    v = (.75*.25 + .25*4)*(x1[:, 0]**2).mean(1)
    close(k.cov1, .5*v/v, rtol=1e-10)  # eps


def test_layernorm_errors():
    with pytest.raises(NotImplementedError, match='not Gaussian'): serial(Dense(4), Relu(), LayerNorm()).kernel_fn(x1)
    with pytest.raises(ValueError, match='channel axis'): serial(Dense(4), LayerNorm(1)).kernel_fn(x1)
    with pytest.raises(ValueError, match='distinct'): serial(Dense(4), LayerNorm((2, 5))).kernel_fn(x1)


def test_batchnorm():
    x = random.normal(random.key(3), (40, 30))
    z = x - x.mean(0)
    k = serial(Dense(8, 1.5, 3.), BatchNorm()).kernel_fn(x, None, ('nngp', 'ntk'))
    close(k.nngp, z@z.T/(z**2).mean(0).sum(), rtol=1e-5)  # eps; the bias cancels
    close(k.ntk, k.nngp, rtol=1e-12)
    r = effective_rank(Dense(1).kernel_fn(x, diagonal_batch=False))
    s = jnp.linalg.svd(z, compute_uv=False)**2
    close(r, s.sum()**2/(s**2).sum())
    with pytest.raises(ValueError, match='larger batches'): serial(Dense(4), BatchNorm()).kernel_fn(x[:5])


def test_batchnorm_masked():
    x = random.normal(random.key(4), (12, 5, 3))
    net = serial(Dense(8), BatchNorm(min_entries=2))
    k = net.kernel_fn(x.at[:, 4].set(9.), None, 'ntk', mask_constant=9.)
    close(k[:, :, :4, :4], net.kernel_fn(x[:, :4], None, 'ntk'))


def test_attention_layouts():
    a = dict(b_std=.2, pos_emb_type='SUM', pos_emb_decay_fn=lambda d: jnp.exp(-d))
    layer, swapped = GlobalSelfAttention(4, 5, 6, 2, **a), GlobalSelfAttention(4, 5, 6, 2, batch_axis=2, channel_axis=0, **a)
    p, q = layer.init_fn(random.key(0), x1.shape)[1], swapped.init_fn(random.key(0), x1.T.shape)[1]
    q = (*p[:4], p[4].T, p[5].T)
    close(swapped.apply_fn(q, x1.T).T, layer.apply_fn(p, x1))
    close(swapped.kernel_fn(x1.T, x2.T, 'ntk'), layer.kernel_fn(x1, x2, 'ntk'))


def test_attention_masked_finite():
    layer = GlobalSelfAttention(4, 5, 6, 2, linear_scaling=False)
    p = layer.init_fn(random.key(0), x1.shape)[1]
    y = layer.apply_fn(p, x1.at[:, 2:].set(100.), mask_constant=100.)
    close(y.masked_value[:, :2], layer.apply_fn(p, x1[:, :2]))


def test_attention_errors():
    with pytest.raises(ValueError, match='attention_mechanism'): GlobalSelfAttention(4, 4, 4, 1, attention_mechanism='relu')
    with pytest.raises(ValueError, match='pos_emb_type'): GlobalSelfAttention(4, 4, 4, 1, pos_emb_type=1)
    with pytest.raises(NotImplementedError, match='linear_scaling=True'):
        GlobalSelfAttention(4, 4, 4, 1, False, attention_mechanism='ABS').kernel_fn(x1)
    assert GlobalSelfAttention(4, 4, 4, 1, attention_mechanism=AttentionMechanism.ABS) == GlobalSelfAttention(4, 4, 4, 1, attention_mechanism='ABS')
    close(AttentionMechanism['ABS'].fn()(jnp.array([-1., 2.])), jnp.array([1., 2.]))
    assert [e.name for e in PositionalEmbedding] == ['NONE', 'SUM', 'CONCAT']


def test_frozen_attention():
    net = serial(Dense(8, trainable=False), GlobalSelfAttention(4, 4, 4, 1, b_std=.1, pos_emb_type='SUM', val_pos_emb=True, trainable=False))
    close(net.kernel_fn(x1, None, 'ntk'), jnp.zeros((3, 3, 4, 4)))
    p = net.init_fn(random.key(0), x1.shape)[1]
    assert not any(g.any() for g in jax.tree.leaves(jax.grad(lambda p: net.apply_fn(p, x1).sum())(p)))


def test_sparse_padding():
    "The reference delivered the last vertex along an edge with a negative sender"
    layer = Aggregate(implementation='SPARSE')
    edges = jnp.array([[[-1, 0], [2, 1], [0, -5]]]*3)
    y = layer.apply_fn((), x1, pattern=edges)
    close(y, jnp.zeros_like(x1).at[:, 1].set(x1[:, 2]))
    k = layer.kernel_fn(x1, None, 'nngp', pattern=edges)
    close(k, jnp.zeros((3, 3, 4, 4)).at[:, :, 1, 1].set(x1[:, 2]@x1[:, 2].T/6))


def test_aggregate_in_tiles():
    "A pattern given for both sides of one batch stays one on the diagonal"
    p = jnp.ones((3, 4, 4)).at[:, 0, 1].set(0)
    net = serial(Dense(4), Aggregate(), Relu(), Dense(1))
    close(batch(net.kernel_fn, 2)(x1, None, 'ntk', pattern=(p, p)), net.kernel_fn(x1, None, 'ntk', pattern=p))


def test_aggregate_without_pattern():
    "The reference raised TypeError"
    close(Aggregate().kernel_fn(x1, x2, 'nngp'), Dense(1).kernel_fn(x1, x2, 'nngp'))
    close(Aggregate().kernel_fn(x1, x2, 'nngp', pattern=(None, None)), Dense(1).kernel_fn(x1, x2, 'nngp'))


def test_aggregate_one_batch():
    p = random.uniform(random.key(5), (3, 4, 4))
    net = serial(Dense(8), Aggregate(), Relu(), Dense(1))
    one, two = net.kernel_fn(x1, None, 'ntk', pattern=p), net.kernel_fn(x1, None, 'ntk', pattern=(p, p))
    close(one, two)
    close(net.kernel_fn(x1, x1 + 0, 'ntk', pattern=(p, p)), one, rtol=1e-7)  # a copy's correlation of 1 is rounded: a cusp of ReLU
    with pytest.raises(ValueError, match='graph included'): net.kernel_fn(x1, None, pattern=(p, 2*p))
    twice = Aggregate().kernel_fn(x1, x1, 'nngp', pattern=(p, 2*p))  # one object twice, but two graphs
    close(twice, 2*Aggregate().kernel_fn(x1, None, 'nngp', pattern=p))


def test_no_tangent_code():
    "Layers never compute an NTK: the word is in no exported line but in docstrings"
    for m in ('norm', 'attention', 'graph'):
        code = (HERE.parent/'neural_tangents_nb'/f'{m}.py').read_text()
        assert 'ntk' not in code, m
