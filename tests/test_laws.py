"Every layer keeps every law: `check` on those that no notebook checks. What is skipped has its reason beside it."
import numpy as np
import pytest

from conftest import some
from neural_tangents_nb import stax
from neural_tangents_nb.laws import Bench, check, slopes

PER_POSITION = ('shortened',)           # the layer has weights, or a meaning, for each position: no shorter input compares
SENTENCE, IMAGE, VECTOR = (2, 4, 3), (2, 2, 3, 2), (2, 5)
few = dict(width=8, samples=100)


def attention(*args, width=64, heads=64, **kwargs):
    "Wide in what the limit is taken over: heads, keys and the layer before"
    return stax.GlobalSelfAttention(4, width, 4, heads, *args, W_key_std=.9, W_query_std=1.1, **kwargs)


AFFINE = {
    'transpose': (stax.ConvTranspose(8, (3,), (2,), 'SAME', 1.2, .1), SENTENCE, PER_POSITION),
    'transpose valid': (stax.ConvTranspose(8, (2,), None, 'VALID', 1.2, .1), SENTENCE, PER_POSITION),
    'local': (stax.ConvLocal(8, (2,), None, 'VALID', 1.2, .1), SENTENCE, PER_POSITION),
    'two dimensions': (stax.Conv(8, (2, 3), (2, 1), 'CIRCULAR', 1.2, .1), IMAGE, PER_POSITION),
    'three dimensions': (stax.Conv(8, (2, 1, 2), (1, 1, 2), 'SAME', 1.2, .1), (2, 2, 2, 2, 2), PER_POSITION),
    'standard': (stax.Conv(8, (2,), None, 'SAME', 1.2, .1, parameterization='standard'), SENTENCE, PER_POSITION),
    'grouped': (stax.Conv(8, (3,), padding='SAME', b_std=.2, feature_group_count=2, rhs_dilation=(2,)), SENTENCE, ()),
    'frozen': (stax.Dense(8, 1.2, .3, trainable=False), SENTENCE, ()),
}
POSITIONS = {
    'average': (stax.AvgPool((2,), (1,), 'VALID'), SENTENCE, PER_POSITION),
    'average same': (stax.AvgPool((3,), (2,), 'SAME', normalize_edges=True), SENTENCE, PER_POSITION),
    'sum': (stax.SumPool((2, 2), (1, 1), 'SAME'), IMAGE, PER_POSITION),
    'sum circular': (stax.SumPool((2,), (1,), 'CIRCULAR'), SENTENCE, PER_POSITION),
    'global sum': (stax.GlobalSumPool(), SENTENCE, ()),
    'flatten': (stax.Flatten(), SENTENCE, PER_POSITION),
    'slice': (stax.Index(stax.Slice[:, 1:3]), SENTENCE, PER_POSITION),
    # It moves the channels, and the network for Monte Carlo would put a Dense behind: see test_spatial for finite networks with it.
    'dot': (stax.DotGeneral(rhs=np.linspace(-1, 1, 8).reshape(4, 2), dimension_numbers=(((1,), (0,)), ((), ()))), SENTENCE,
            PER_POSITION + ('monte_carlo',)),
    'resize': (stax.ImageResize((-1, 6, -1), 'linear'), SENTENCE, PER_POSITION),
}
# The duals of all nonlinearities are put to the test one by one in the notebook on activations; here, one of each way to define them.
NONLINEAR = {
    n: (act, VECTOR, ('other_layout', 'shortened')) for n, act in dict(
        kink=stax.LeakyRelu(.3), jump=stax.Sign(), smooth=stax.Gelu(), polynomial=stax.Polynomial([.1, 1., .3])).items()}
ATTENTION = {
    'softmax': (attention(b_std=.1), ()),
    'identity': (attention(attention_mechanism='IDENTITY', b_std=.1), ()),
    'relu': (attention(attention_mechanism='RELU'), ()),
    'root scaling': (attention(False, attention_mechanism='IDENTITY', width=16), ()),
    # Embeddings that are added to channels or put beside them know the number of positions.
    'concat': (attention(pos_emb_type='CONCAT', W_pos_emb_std=.7), PER_POSITION),
    'values see positions': (attention(pos_emb_type='SUM', W_pos_emb_std=.7, val_pos_emb=True), PER_POSITION),
}


@pytest.mark.parametrize('name', some(AFFINE, 'transpose', 'local', 'standard', 'grouped', 'frozen'))
def test_affine(name): check(*AFFINE[name], **few)


@pytest.mark.parametrize('name', some(POSITIONS, 'average same', 'sum circular', 'global sum', 'slice', 'dot', 'resize'))
def test_positions(name): check(*POSITIONS[name], **few)


@pytest.mark.parametrize('name', some(NONLINEAR, 'kink', 'jump'))
def test_nonlinear(name): check(*NONLINEAR[name], **few)


@pytest.mark.parametrize('name', some(ATTENTION, 'root scaling'))
def test_attention(name):
    layer, skip = ATTENTION[name]
    check(layer, (2, 2 if skip else 3, 3), skip, width=64, samples=40, chunk=20)


def test_slopes_of_a_dual_that_holds_for_unit_variances(): slopes(Bench(stax.Hermite(3), VECTOR))
