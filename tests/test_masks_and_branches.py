"What went wrong in the predecessor where layers meet: masks at fan-ins, constants under masks, repeated convolutions, signs off the diagonal"
import jax
import numpy as np
import pytest
from jax import numpy as jnp, random

from neural_tangents_nb import stax
from neural_tangents_nb.core import test_close as close, test_mc as mc

HIDDEN = -77.


@pytest.fixture
def sentences():
    "Two batches of sentences of 5 words, and the same without the last 2, which are hidden in the first"
    x1, x2 = random.normal(random.key(0), (2, 5, 3)), random.normal(random.key(1), (3, 5, 3))
    return [x.at[:, 3:].set(HIDDEN) for x in (x1, x2)], [x[:, :3] for x in (x1, x2)]


def branch(std): return stax.serial(stax.Conv(8, (3,), padding='SAME', W_std=std, b_std=.2), stax.Gelu(), stax.Dense(8))


def both(net, long, short):
    get = 'nngp', 'ntk'
    for second in (True, False):
        args = lambda xs: (xs[0], xs[1] if second else None, get)
        close(tuple(net.kernel_fn(*args(long), mask_constant=HIDDEN)), tuple(net.kernel_fn(*args(short))))


@pytest.mark.parametrize('join', ['FanInSum', 'FanInProd', 'FanInConcat'])
def test_masks_at_fan_ins(join, sentences):
    "Hiding the end of every sentence is the same as shorter sentences, also behind two branches"
    merged = {'FanInConcat': lambda: stax.FanInConcat(-1)}.get(join, getattr(stax, join))()
    both(stax.serial(stax.Dense(8, 1.1), stax.FanOut(2), stax.parallel(branch(1.2), branch(.8)), merged, stax.Dense(8), stax.GlobalAvgPool(), stax.Dense(1)),
         *sentences)


def test_fan_in_of_a_masked_and_a_whole_input(sentences):
    "A branch whose input is not masked stays whole: its words add to the hidden ones of the other"
    (m1, m2), _ = sentences
    w1, w2 = random.normal(random.key(2), (2, 5, 3)), random.normal(random.key(3), (3, 5, 3))
    net = stax.serial(stax.parallel(stax.Dense(64), stax.Dense(64)), stax.FanInSum(), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1))

    def outputs(key):
        params = net.init_fn(key, [(2, 5, 3)]*2)[1]
        f = lambda xs: stax.unmask_fn(net.apply_fn)(params, xs, mask_constant=HIDDEN)[:, 0]
        return jnp.outer(f([m1, w1]), f([m2, w2]))

    got = jax.jit(jax.vmap(outputs))(random.split(random.key(4, impl='rbg'), 400))
    mc(got, net.kernel_fn([m1, w1], [m2, w2], 'nngp', mask_constant=HIDDEN))


@pytest.mark.parametrize('act', [stax.Monomial(0), stax.RectifiedMonomial(0), stax.Polynomial([1., .5]), stax.Cos()], ids=repr)
def test_constants_stay_hidden(act, sentences):
    "A function that is not 0 at 0 would bring hidden words back to life"
    both(stax.serial(stax.Dense(8, 1.1, .1), act, stax.Dense(8), stax.GlobalSumPool(), stax.Dense(1)), *sentences)


@pytest.mark.parametrize('times', [2, 3])
def test_repeated_convolutions(times):
    x1, x2 = random.normal(random.key(5), (2, 4, 5, 2)), random.normal(random.key(6), (3, 4, 5, 2))
    block = stax.serial(stax.Conv(8, (2, 3), padding='CIRCULAR', W_std=1.2, b_std=.1), stax.Relu())
    one_by_one = stax.serial(*[block]*times, stax.GlobalAvgPool())
    close(stax.serial(stax.repeat(block, times), stax.GlobalAvgPool()).kernel_fn(x1, x2, ('nngp', 'ntk')), one_by_one.kernel_fn(x1, x2, ('nngp', 'ntk')))


def test_a_long_stack_is_one_layer_after_the_other():
    "The loop over repeated layers, with hyperparameters of their own, masks and a change of resolution in between"
    x = random.normal(random.key(7), (2, 8, 3)).at[0, 5:].set(HIDDEN)
    block = lambda i: (stax.Conv(8, (3,), padding='SAME', W_std=1 + i/10, b_std=.1), stax.LeakyRelu(i/10))
    layers = [l for i in range(5) for l in block(i)] + [stax.AvgPool((2,), (2,), 'SAME')] + [l for i in range(4) for l in block(i)]
    k = stax.serial(*layers).kernel_fn(x, mask_constant=HIDDEN)
    first, *rest = (stax.serial(*layers[i:i+1]) for i in range(len(layers)))
    by_hand = first.kernel_fn(x, mask_constant=HIDDEN)
    for layer in rest: by_hand = layer.kernel_fn(by_hand)
    close((k.nngp, k.ntk, k.cov1), (by_hand.nngp, by_hand.ntk, by_hand.cov1))
    assert (k.shape1, k.diagonal_spatial, k.is_gaussian) == (by_hand.shape1, by_hand.diagonal_spatial, by_hand.is_gaussian)
    close(k.mask1, by_hand.mask1)


def test_signs_off_the_diagonal():
    x = random.normal(random.key(8), (3, 4, 2))
    k = stax.serial(stax.Dense(1), stax.Sign()).kernel_fn(x, diagonal_batch=False, diagonal_spatial=False)
    close(k.cov1, k.nngp)
    assert np.abs(np.asarray(k.cov1)[0, 1]).max() < 1


def test_normalization_over_examples():
    "LayerNorm over the batch as well: with all examples in it, a state of unit mean variance"
    x = random.normal(random.key(9), (4, 3))
    net = stax.serial(stax.Dense(1, 1.3, .2), stax.LayerNorm(axis=(0, 1)))
    k, before = net.kernel_fn(x, None, 'nngp'), stax.Dense(1, 1.3, .2).kernel_fn(x, None, 'nngp')
    close(k, before/jnp.diagonal(before).mean(), rtol=1e-10) # LayerNorm adds its eps to the variance


def test_transposing_the_state_of_inputs():
    x = random.normal(random.key(12), (2, 3, 4, 2))
    k, t = (stax.Identity().kernel_fn(y) for y in (x, x.swapaxes(1, 2)))
    close(k.transpose((1, 0)).nngp, t.nngp)
    assert k.transpose((1, 0)).shape1 == t.shape1


def largest(jaxpr):
    "Entries of the largest array that a program makes, calls and loops included"
    inner = lambda p: [getattr(j, 'jaxpr', j) for j in jax.tree.leaves(p, is_leaf=lambda j: hasattr(j, 'eqns') or hasattr(j, 'jaxpr')) if hasattr(j, 'jaxpr') or hasattr(j, 'eqns')]
    return max([v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars] + [largest(j) for eqn in jaxpr.eqns for j in inner(list(eqn.params.values()))], default=0)


@pytest.mark.parametrize('top, pairs', [(stax.Flatten(), False), (stax.GlobalAvgPool(), True)], ids=['flatten', 'pool'])
def test_flattened_networks_keep_no_position_pairs(top, pairs):
    "... also inside parallel branches: nothing in the program is as large as the pairs of positions are, which pooling needs"
    x1, x2 = random.normal(random.key(10), (2, 16, 3)), random.normal(random.key(11), (3, 16, 3))
    net = stax.serial(stax.FanOut(2), stax.parallel(branch(1.2), branch(.8)), stax.FanInSum(), stax.Conv(8, (3,)), stax.Relu(), top, stax.Dense(1))
    program = jax.make_jaxpr(lambda a, b: tuple(net.kernel_fn(a, b, ('nngp', 'ntk'))))(x1, x2)
    assert (largest(program.jaxpr) >= 2*3*14*14) == pairs and largest(program.jaxpr) >= 2*3*14


def test_a_summary_of_branches_fits_a_page():
    "Also where names are long; equal branches are counted, others listed"
    conv = stax.Conv(512, (3, 3), (2, 2), 'SAME', 1.4142135623730951, .1)
    net = stax.serial(stax.FanOut(2), stax.parallel(conv, stax.Conv(256, (3, 3), (2, 2), 'SAME')), stax.FanInConcat(-1))
    lines = net.summary((64, 32, 32, 3)).split('\n')
    assert max(map(len, lines)) <= 100 and '2 x (64, 32, 32, 3)' in lines[2]
    assert '((64, 16, 16, 512), (64, 16, 16, 256))' in lines[3] and '...' in lines[4]


def test_own_layers_get_pairs_as_they_are():
    "A pair for both batches stays one, also if both are one object or equal numbers, and with one batch"
    got = []
    own = (lambda key, s: (s, ()), lambda p, x, **kw: x, lambda k, c=None, **kw: got.append(c) or k)
    c, x = jnp.ones(3), jnp.ones((2, 3))
    net = stax.serial(stax.Dense(4), own)
    for pair in (c, c), (2., 2.), (c, 2*c):
        net.kernel_fn(x, None, 'ntk', c=pair)
        net.kernel_fn(x, x, 'ntk', c=pair)
    assert len(got) == 6 and all(type(g) is tuple and len(g) == 2 for g in got) and got[2] == (2., 2.)
    assert all(np.array_equal(g[1], 2*c) for g in got[4:])


def test_a_pattern_for_each_batch_must_be_one_for_one_batch():
    "Compared by value; where a transformation hides values, the same object or an error"
    net = stax.serial(stax.Aggregate(), stax.Dense(1))
    x, p = jnp.ones((2, 3, 4)), jnp.ones((2, 3, 3))
    k = net.kernel_fn(x, None, 'ntk', pattern=p)
    np.testing.assert_array_equal(net.kernel_fn(x, None, 'ntk', pattern=(p, p + 0)), k)
    np.testing.assert_allclose(jax.jit(lambda p: net.kernel_fn(x, None, 'ntk', pattern=(p, p)))(p), k, rtol=1e-12)
    with pytest.raises(ValueError, match='two patterns were given'): net.kernel_fn(x, None, 'ntk', pattern=(p, 2*p))
    with pytest.raises(ValueError, match='hides whether'): jax.jit(lambda p: net.kernel_fn(x, None, 'ntk', pattern=(p, 2*p)))(p)
