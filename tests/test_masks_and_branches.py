"What went wrong in the predecessor where layers meet: masks at fan-ins, constants under masks, repeated convolutions, signs off the diagonal"
import dataclasses as dc
import jax
import numpy as np
import pytest
from jax import numpy as jnp, random

import neural_tangents_nb as nt
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


class Compiles:
    "Counts programs that JAX compiles"
    def __enter__(self):
        self.n = 0
        jax.monitoring.register_event_duration_secs_listener(self.heard)
        return self
    def heard(self, name, *args, **kwargs): self.n += name == '/jax/core/compile/backend_compile_duration'
    def __exit__(self, *args): jax.monitoring.unregister_event_duration_listener(self.heard)


OWN = (lambda key, s: (s, ()), lambda p, x, **kw: 2*x, lambda k, **kw: k*2)


def test_networks_with_own_layers_compile_once():
    "... also through batch; and so do transformations of the kernel functions of equal networks, written anew"
    x = random.normal(random.key(3), (4, 7, 3))
    net = stax.serial(stax.Conv(4, (3,)), stax.Relu(), OWN, stax.Conv(4, (3,)), stax.FanOut(2), stax.parallel(stax.Identity(), stax.serial(stax.Relu(), OWN, stax.Conv(4, (3,), padding='SAME'))),
                      stax.FanInSum(), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1))
    plain = lambda: stax.serial(stax.Dense(4, 1.3), stax.Relu(), stax.Dense(1))
    for f in (lambda: net.kernel_fn(x, None, 'ntk'), lambda: nt.batch(net.kernel_fn, 2)(x, None, 'ntk'), lambda: jax.jit(plain().kernel_fn, static_argnums=2)(x[:, 0], None, 'ntk'),
              lambda: jax.jit(plain()[2], static_argnums=2)(x[:, 0], None, 'ntk')):
        f()
        with Compiles() as again: f()
        assert again.n == 0
    close(net.kernel_fn(x, None, 'ntk'), net.kernel_fn(x, None, 'ntk', plan=False))
    a, b = plain(), plain()
    assert a.kernel_fn == b.kernel_fn and hash(a.kernel_fn) == hash(b[2]) and a.init_fn != a.apply_fn
    assert [f.__name__ for f in stax.Dense(3)] == ['Dense']*3 and a.init_fn.__name__ == 'serial'


def no_finite_network(*args): raise RuntimeError('the kernel needs no finite network')


def added(ks, **kwargs):
    total = lambda name: None if getattr(ks[0], name) is None else sum(getattr(k, name) for k in ks)
    return ks[0].replace(**{n: total(n) for n in ('nngp', 'ntk', 'cov1', 'cov2')})


def test_own_layers_with_several_inputs_or_outputs():
    fan, fsum = (no_finite_network,)*2 + (lambda k, **kw: [k, k],), (no_finite_network,)*2 + (added,)
    x1, x2 = random.normal(random.key(1), (2, 5)), random.normal(random.key(2), (3, 5))
    def make(fan, fsum):
        branches = stax.parallel(stax.serial(stax.Dense(4, 1.2), stax.Relu(), stax.Dense(4)), stax.Dense(4))
        return stax.serial(stax.Dense(4), stax.Relu(), fan, branches, fsum, stax.Relu(), stax.Dense(1))
    want = make(stax.FanOut(2), stax.FanInSum()).kernel_fn(x1, x2)
    for net in make(fan, fsum), make(fan, stax.FanInSum()), make(stax.FanOut(2), fsum):
        k = net.kernel_fn(x1, x2)
        close((k.nngp, k.ntk, k.cov1, k.cov2), (want.nngp, want.ntk, want.cov1, want.cov2))
        assert (k.shape1, k.shape2, k.shared) == (want.shape1, want.shape2, want.shared)
    close(stax.serial(fsum, stax.Dense(1)).kernel_fn([x1, x1], [x2, x2], 'nngp'), 2*x1@x2.T/5)
    with pytest.raises(NotImplementedError, match=r'net\[2\]: .*independent'): stax.serial(stax.Dense(3), fan, stax.FanInSum()).kernel_fn(x1)
    finite = stax.serial((lambda key, s: ([s, s], ()), lambda p, x, **kw: [x, x], fan[2]), (lambda key, ss: (ss[0], ()), lambda p, xs, **kw: xs[0] + xs[1], added))
    shape, params = finite.init_fn(0, (2, 5))
    assert shape == (2, 5)
    close(finite.apply_fn(params, x1), 2*x1)


SIZES = [stax.serial(stax.Conv(4, (3,), padding='SAME', b_std=.1), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1)),
         stax.serial(stax.Conv(4, (3,), (2,), padding='SAME'), stax.Relu(), stax.AvgPool((2,), padding='SAME'), stax.GlobalSumPool(), stax.Dense(1)),
         stax.serial(stax.Conv(4, (3,)), stax.LayerNorm(), stax.Erf(), stax.Conv(4, (2,), padding='CIRCULAR'), stax.GlobalAvgPool())]


@pytest.mark.parametrize('net', SIZES, ids=['same', 'strided', 'circular'])
def test_batches_of_different_sizes(net):
    "The kernel is the mean over channels of the products of finite networks' outputs; a network that is wide enough is near it"
    x1, x2 = random.normal(random.key(1), (2, 5, 3)), random.normal(random.key(2), (3, 7, 3))
    k, other = net.kernel_fn(x1, x2, ('nngp', 'ntk')), net.kernel_fn(x2, x1, ('nngp', 'ntk'))
    close(tuple(k), (other.nngp.T, other.ntk.T))
    wide = jax.tree.map(lambda l: dc.replace(l, out_chan=32) if isinstance(l, stax.Conv) else l, net, is_leaf=lambda l: isinstance(l, stax.Conv))
    def outputs(key):
        params = wide.init_fn(key, (1, 5, 3))[1]
        y1, y2 = (wide.apply_fn(params, x) for x in (x1, x2))
        return y1@y2.T/y1.shape[1]
    mc(jax.lax.map(outputs, random.split(random.key(4, impl='rbg'), 100)), k.nngp, 5) # a bias of order 1/32 besides


def test_graphs_of_different_sizes_are_those_with_hidden_vertices():
    x1, x2 = random.normal(random.key(1), (2, 5, 3)), random.normal(random.key(2), (3, 7, 3))
    p1, p2 = (random.uniform(random.key(n), (len(x), x.shape[1], x.shape[1])) for n, x in enumerate((x1, x2)))
    net = stax.serial(stax.Dense(4), stax.Aggregate(), stax.Relu(), stax.Dense(4), stax.Aggregate(), stax.GlobalAvgPool(), stax.Dense(1))
    y1, q1 = jnp.pad(x1, ((0, 0), (0, 2), (0, 0)), constant_values=HIDDEN), jnp.pad(p1, ((0, 0), (0, 2), (0, 2)))
    close(net.kernel_fn(x1, x2, 'ntk', pattern=(p1, p2)), net.kernel_fn(y1, x2, 'ntk', pattern=(q1, p2), mask_constant=HIDDEN))


def test_flattened_sizes_must_agree():
    with pytest.raises(ValueError, match='does not fit'): stax.serial(stax.Conv(4, (3,)), stax.Flatten()).kernel_fn(jnp.ones((2, 5, 3)), jnp.ones((2, 7, 3)))


def test_equal_positions_are_pooled_as_uncorrelated_ones():
    "As they are behind ConvLocal; a network that mixes positions after a shared convolution needs all pairs"
    x = random.normal(random.key(3), (2, 4, 5, 3))
    local = stax.serial(stax.Conv(4, (3, 3)), stax.Relu(), stax.ConvLocal(4, (1, 2)))
    equal, every = (local.kernel_fn(x, diagonal_spatial=d) for d in (True, False))
    close(stax.GlobalAvgPool().kernel_fn(equal, None, 'ntk'), stax.GlobalAvgPool().kernel_fn(every, None, 'ntk'))
    close(stax.AvgPool((2, 1)).kernel_fn(equal, None, 'ntk'), (equal.ntk[:, :, :1] + equal.ntk[:, :, 1:])/4)
    with pytest.raises(ValueError, match='impossible'): stax.serial(stax.Conv(4, (3, 3)), stax.GlobalAvgPool()).kernel_fn(x, diagonal_spatial=True)


def test_errors_say_where_a_layer_stands():
    inner = stax.serial(stax.Dense(3), stax.Relu(), stax.Relu())
    net = stax.serial(stax.Dense(4), stax.FanOut(2), stax.parallel(stax.Dense(3), inner), stax.FanInSum())
    with pytest.raises(ValueError, match=r'^net\[2\]\[1\]\[2\]: Relu'): net.kernel_fn(jnp.ones((2, 3)))
    wrong = stax.serial(stax.Dense(4), stax.serial(stax.Identity(), stax.Conv(3, (2, 2))))
    for f in (lambda: wrong.init_fn(0, (2, 3)), lambda: wrong.kernel_fn(jnp.ones((2, 3)))):
        with pytest.raises(ValueError, match=r'^net\[1\]\[1\]: Conv'): f()


def test_former_ways_to_call():
    x = jnp.ones((2, 3))
    two = stax.serial(stax.parallel(stax.Dense(4), stax.Dense(4)), stax.FanInSum())
    want = two.kernel_fn([x, x], None, 'ntk')
    close(two.kernel_fn([x, x], (None, None), 'ntk'), want)
    close(two.kernel_fn(x1_or_kernel=[x, x], get='ntk'), want)
    close(nt.batch(two.kernel_fn, 1)([x, x], [None, None], 'ntk'), want)
    nngp, ntk = stax.Dense(4).kernel_fn(x, x)
    close((nngp, ntk), (x@x.T/3,)*2)
    for call, now in ((lambda: nt.predict.gradient_descent_mse(ntk_train_train=ntk, y_train=x), 'k_train_train'), (lambda: nt.predict.max_learning_rate(ntk, num_outputs=1), 'y_train_size')):
        with pytest.raises(TypeError, match=now): call()
    assert all(hasattr(stax, n) for n in ('InternalLayer', 'InitFn', 'KernelFn', 'NTTree'))
