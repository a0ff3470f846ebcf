"What makes kernels fast is counted, not timed: tiles, traces, sizes of programs"
import jax, numpy as np, pytest
from conftest import some
from jax import numpy as jnp
import neural_tangents_nb as nt
from neural_tangents_nb import core, plans, stax
from neural_tangents_nb.activations import Kinked, pushed
from neural_tangents_nb.core import struct, test_close as close
from neural_tangents_nb.cost import work_of
from neural_tangents_nb.layer import Asked, Inputs, infinite
from neural_tangents_nb.machine import corners, tile_of
from neural_tangents_nb.empirical import NtkImplementation
from neural_tangents_nb.predict import moments
from neural_tangents_nb.solvers import Eigh
from neural_tangents_nb.structured import empirical_ntk_fn, patches
from neural_tangents_nb.tiles import batch

rng = np.random.RandomState(0)
images = [jnp.asarray(rng.randn(n, 8, 8, 3)) for n in (5, 4)]

def conv(n=1, **kwargs): return stax.Conv(n, (3, 3), padding='SAME', W_std=1.3, b_std=.1, **kwargs)
def pool(): return stax.AvgPool((2, 2), strides=(2, 2))
def branches(*layers): return stax.serial(stax.FanOut(len(layers)), stax.parallel(*layers), stax.FanInSum())

NETS = dict(
    dense=(stax.serial(stax.Dense(1, 1.2, .1), stax.Relu(), stax.Dense(1)), [jnp.asarray(rng.randn(n, 6)) for n in (7, 6)]),
    pooled_in_between=(stax.serial(conv(), stax.Relu(), pool(), stax.serial(conv(), stax.LayerNorm(), stax.Relu(), pool()), conv(), stax.Erf(),
                                   stax.GlobalAvgPool(), stax.Dense(1)), images),
    groups_pooled=(stax.serial(conv(), stax.FanOut(2), stax.parallel(stax.serial(stax.Relu(), conv(5)), stax.Conv(3, (1, 1), padding='SAME', W_std=2.)),
                               stax.FanInConcat(-1), pool(), stax.Erf(), conv()), images))

def in_tiles(monkeypatch): monkeypatch.setattr(plans, 'tile_of', lambda n1, n2, p, square=False: (2, 2) if square else (2, 3))

@pytest.mark.parametrize('name, one', [('dense', False), ('dense', True), ('pooled_in_between', False), ('pooled_in_between', True), ('groups_pooled', False)])
def test_tiles_are_parts_of_the_whole(name, one, monkeypatch):
    net, (x1, x2) = NETS[name]
    get = ('nngp', 'ntk')
    f = lambda: jax.jit(lambda: infinite(net, x1, None if one else x2, x1.min() if name == 'dense' else None, {}, Asked(get)))() # one entry is missing
    plan = lambda: repr(nt.plan(net, x1.shape, None if one else x2.shape, get))
    whole = f()
    assert not plan().startswith('tiles(')
    in_tiles(monkeypatch)
    assert plan().startswith(f'tiles({(2, 2) if one else (2, 3)}, ')
    close(f(), whole, rtol=1e-12) # the same sums, but for the blocks of matrix products

def test_what_cannot_be_cut():
    "Examples told apart, mixed, or pooled within a branch, where no variances can be handed on"
    cut = lambda net: isinstance(nt.plan(net, (2000, 8, 8, 3)), plans.Tiles)
    plain = stax.serial(conv(), stax.Relu(), pool(), conv(), stax.Relu(), stax.GlobalAvgPool())
    assert cut(plain)
    dropout, norm = (stax.serial(conv(), l, stax.Relu(), conv()) for l in (stax.Dropout(.5), stax.BatchNorm()))
    branch = stax.serial(conv(), branches(stax.serial(stax.Relu(), pool(), conv()), stax.serial(pool(), conv())), stax.Relu(), stax.GlobalAvgPool())
    attention = stax.serial(conv(), stax.Relu(), stax.GlobalSelfAttention(1, 1, 1, 1), stax.Relu(), stax.GlobalAvgPool())
    for net in (dropout, norm, branch, attention): assert not cut(net)

def test_dense_layers_go_with_the_nonlinearity_before_them():
    "One computation for a nonlinearity and what mixes nothing behind it; what mixes positions stays alone"
    def sizes(*layers): # 0 for a layer that is no part of a group
        steps = plans.flat(stax.serial(*layers).lower(Asked('ntk').want([])).steps)
        return [len(s.steps) if isinstance(s, plans.Outlined) else 0 for s in plans.grouped(steps)]
    dense = stax.Dense(1)
    assert sizes(dense, stax.Relu(), dense, dense, stax.Erf()) == [0, 3, 1]
    assert sizes(dense, stax.Relu(), dense, stax.Erf(), dense) == [0, 2, 2]
    assert sizes(dense, dense, stax.Relu(), stax.Erf()) == [0, 0, 1, 1]
    assert sizes(conv(), stax.Relu(), pool(), dense, stax.Relu()) == [0, 1, 0, 0, 1]
    assert sizes(conv(), stax.Relu(), dense, stax.Relu(), conv(), dense) == [0, 2, 1, 0, 0]

def test_blocks_begin_with_the_nonlinearity():
    "So that in loops too a dense layer goes with the nonlinearity before it, though of the last one less is wanted"
    def plan(*acts): return repr(nt.plan(stax.serial(*[l for act in acts for l in (stax.Dense(1), act())], stax.Dense(1)), (3, 5)))
    group = lambda act: f'outlined({act}(), Dense(1))'
    assert plan(*[stax.Relu]*3) == f"serial(Dense(1), loop(2, {group('Relu')}), {group('Relu')})"
    assert plan(stax.Relu, stax.Erf, stax.Rbf) == f"serial(Dense(1), {', '.join(map(group, ('Relu', 'Erf', 'Rbf')))})" # nothing repeats
    assert plan(stax.Erf, *[stax.Relu]*4, stax.Rbf) == f"serial(Dense(1), {group('Erf')}, loop(4, {group('Relu')}), {group('Rbf')})"
    cnn = nt.plan(stax.serial(*[conv(), stax.Relu()]*5, pool()), (2, 8, 8, 3)) # convolutions are computed alone anyway
    assert len(cnn.steps[0].blocks) == 4 and all(type(b[0].layer) is type(conv()) for b in cnn.steps[0].blocks)

def test_equal_layers_are_one_program():
    "Of two equal blocks in a row one is written; the last, of which less is read, is another"
    def kept(*widths):
        net = stax.serial(*[l for n in widths for l in (stax.Dense(n, 1.3, .1), stax.Relu())], stax.Dense(1))
        return jax.jit(lambda a, b: net.kernel_fn(a, b, 'ntk')).lower(jnp.ones((3, 5)), jnp.ones((4, 5))).as_text().count('inlineable = "false"')
    assert kept(8, 8, 8) == 2 # a loop of two, the last block
    assert kept(8, 7, 8) == 3

def test_tiles_do_not_ask_again_what_was_asked(monkeypatch):
    "Inputs of `batch` are checked as a whole; those of a call are checked by it"
    net, (x1, x2) = NETS['dense']
    seen = []
    monkeypatch.setattr(core, 'check_finite', lambda *args, **kwargs: seen.append(core._unchecked.get()))
    batch(net.kernel_fn, 3, 0)(x1, x2, 'ntk')
    assert len(seen) > 4 and not any(seen[:2]) and all(seen[2:]) # both wholes, then their parts
    net.kernel_fn(x1, x2, 'ntk')
    assert seen[-2:] == [False, False]
    monkeypatch.undo()
    with pytest.raises(ValueError, match='`x1` has NaN'): batch(net.kernel_fn, 3, 0)(x1.at[0, 0].set(np.nan), x2, 'ntk')

def test_gradients_pass_through_tiles(monkeypatch):
    net, (x1, _) = NETS['dense']
    w = jnp.asarray(rng.randn(7, 7))
    slope = lambda: jax.jit(jax.grad(lambda x: (w*infinite(net, x, None, None, {}, Asked('ntk'))).sum()))(x1)
    whole = slope()
    in_tiles(monkeypatch)
    close(slope(), whole, rtol=1e-10) # a slope at a cusp has a root of a difference in it, and loses some digits

def scans(jaxpr):
    "Lengths of the outermost loops"
    inner = lambda e: [getattr(v, 'jaxpr', v) for v in e.params.values() if hasattr(getattr(v, 'jaxpr', v), 'eqns')]
    return [l for e in jaxpr.eqns for l in ([e.params['length']] if e.primitive.name == 'scan' else [l for j in inner(e) for l in scans(j)])]

def test_half_the_tiles_when_both_batches_are_one():
    net, _ = NETS['dense']
    x = jax.ShapeDtypeStruct((2000, 10), jnp.float32)
    two, one = (scans(jax.make_jaxpr(lambda a, b: net.kernel_fn(a, b, 'ntk'))(x, y).jaxpr) for y in (x, None))
    n = len(corners(2000, tile_of(2000, 2000, 1, True)[0]))
    assert one == [n*(n + 1)//2]
    work = [work_of(lambda a, b: net.kernel_fn(a, b, 'ntk'), x, y) for y in (x, None)]
    # four tiles a side: 10 of 16, and here a little more for the examples themselves
    assert work[1].flops < .7*work[0].flops and work[1].cheap < .7*work[0].cheap

def test_nobody_computes_covariances_that_nobody_reads():
    "With a global pooling at the end, all pairs of positions within a batch are not formed"
    net = stax.serial(*[conv(), stax.Relu()]*3, stax.GlobalAvgPool())
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    kernel, state = (work_of(lambda a, b: net.kernel_fn(a, b, get), x, x).cheap for get in ('nngp', ('nngp', 'cov1', 'cov2')))
    assert kernel < .45*state # one block instead of three

def test_no_retrace(monkeypatch):
    duals, traces = Kinked.duals, []
    monkeypatch.setattr(Kinked, 'duals', lambda self, *k: traces.append(1) or duals(self, *k))
    x = jnp.asarray(rng.randn(37, 4)) # a shape of no other test: duals of equal shapes are traced once in a process
    run = lambda W_std: stax.serial(stax.Dense(1, W_std), stax.LeakyRelu(W_std/10), stax.Dense(1)).kernel_fn(x, None, 'ntk')
    run(1.)
    first = len(traces)
    for W_std in (1.5, 2., 3.): run(W_std)
    assert first and len(traces) == first

def test_a_layer_and_its_kernel_share_the_angle():
    "NNGP and NTK of a nonlinearity come from one triangle: a polynomial, a root and a quotient for each pair"
    count = lambda f, *names: sum(l.count(f'stablehlo.{n} ') for l in f.splitlines() for n in names)
    k = jnp.ones((3, 1)), jnp.full((3, 4), .5), jnp.ones((1, 4))
    for act in (stax.Relu(), stax.Erf(), stax.Gelu()):
        lines = lambda f: jax.jit(f).lower(*k).as_text()
        dual, both = lines(act.dual), lines(lambda *k: jax.jvp(lambda c: pushed(act, k[0], c, k[2]), k[1:2], (k[1],)))
        assert count(both, 'sqrt') == count(dual, 'sqrt') > 0, act
        assert count(both, 'multiply') < 1.5*count(dual, 'multiply'), act

def test_a_stated_dual_is_not_that_of_the_class_above():
    "Who states `dual` or `ddual` below a class with `duals` would be passed over: it is refused; who states `duals` is heard"
    for name in 'dual', 'ddual':
        with pytest.raises(TypeError, match='states `dual` or `ddual`'): type('Half', (stax.Erf,), {name: lambda self, *k: 0.})
    @struct
    class Twice(stax.Relu):
        def duals(self, *k): return tuple(2*v for v in super().duals(*k))
    k = jnp.float32([1., .3, 2.])
    close(Twice().dual(*k), 2*stax.Relu().dual(*k))
    x = jnp.ones((2, 3))
    twice, relu = (stax.serial(stax.Dense(1), act).kernel_fn(x, x + 1, ('nngp', 'ntk')) for act in (Twice(), stax.Relu()))
    close(twice, jax.tree.map(lambda a: 2*a, relu))

def test_transformations_keep_apart_what_was():
    "Under vmap and in derivatives the functions inside a layer do not become computations of their own"
    net = stax.serial(*[stax.Dense(1, 1.3, .1), stax.Relu()]*2, stax.Dense(1))
    x = jnp.ones((2, 5, 4))
    kept = lambda f, *args: jax.jit(f).lower(*args).as_text().count('inlineable = "false"')
    kernel = lambda x: net.kernel_fn(x, x + 1, 'ntk')
    calls = kept(kernel, x[0])
    assert calls and kept(jax.vmap(kernel), x) == calls
    assert kept(lambda x: jax.jvp(kernel, (x,), (x,)), x[0]) <= 2*calls # and what follows from values alone

def test_gradients_hold_little(monkeypatch):
    "Backwards a nonlinearity is computed again: what it has in between is not kept"
    net = stax.serial(*[stax.Dense(1, 1.3, .1), stax.Relu()]*3, stax.Dense(1))
    x = jnp.ones((200, 4))
    def held():
        total = lambda net, x: net.kernel_fn(x, x + 1, 'ntk').sum()
        jax.clear_caches()
        return jax.jit(jax.grad(total)).lower(net, x).compile().memory_analysis().temp_size_in_bytes
    little = held()
    monkeypatch.setattr(jax, 'checkpoint', lambda f: f)
    assert little < .6*held() # measured: 0.43 with a thousand examples

@pytest.mark.parametrize('repeats', [False, True])
def test_programs_grow_linearly(repeats):
    "Not at all where layers repeat, linearly where they alternate"
    acts = (stax.Relu, stax.Relu) if repeats else (stax.Relu, stax.Erf, stax.Gelu, stax.Rbf)
    def size(depth):
        net = stax.serial(*[l for i in range(depth) for l in (stax.Dense(1, 1. if repeats else 1. + i), acts[i*i*7 % len(acts)]())])
        return len(jax.jit(lambda x: net.kernel_fn(x, None, 'ntk')).lower(jnp.ones((3, 4))).as_text().splitlines())
    a, b, c = map(size, (8, 16, 24))
    # of each of eight more pairs of layers the hyperparameters, a line or two each; else some layers are longer than others
    assert c - b <= (8*8 if repeats else 1.2*(b - a))

WIDE = dict(
    plain=[conv()], even=[stax.Conv(1, (2, 4), padding='SAME', b_std=.2)], gaps=[stax.Conv(1, (3, 3), padding='SAME', rhs_dilation=(1, 2))],
    weights=[stax.Conv(4, (3, 3), padding='SAME', parameterization='standard', trainable=False), stax.Relu(), stax.Conv(4, (3, 3), padding='SAME', feature_group_count=2)],
    layout=[stax.Conv(1, (3, 2), padding='SAME', dimension_numbers=('NHWC', 'WHIO', 'NWHC')), stax.Relu(),
            stax.Conv(1, (3, 3), padding='SAME', dimension_numbers=('NWHC', 'HWIO', 'NHWC'))],
    nested=[stax.serial(conv(), stax.Relu()), stax.serial(conv(), stax.Erf()), stax.serial(conv())])

def written(monkeypatch, yes):
    "Let the nonlinearity write the zeros around images however small they are, or never"
    split = plans.split
    monkeypatch.setattr(plans, 'split', lambda step, s, pairs: split(step, s, 2**20) if yes else None)

def names(program):
    "Names of the layers in the steps in which they are computed: a group is in parentheses, a loop in brackets"
    def name(s):
        if isinstance(s, plans.Outlined): return f"({' '.join(map(name, s.steps))})"
        if isinstance(s, plans.Loop): return f"{len(s.blocks)}*[{' '.join(map(name, s.blocks[0]))}]"
        return type(s.layer).__name__
    return ' '.join(map(name, program.steps))

def steps(net, x=images): return names(nt.plan(net, x[0].shape, x[1].shape)) # 20 pairs of 64 positions each

@pytest.mark.parametrize('name', some(WIDE, 'nested', 'weights'))
@pytest.mark.parametrize('last', [stax.Flatten, stax.GlobalAvgPool])
def test_padding_written_by_the_nonlinearity_is_padding(name, last, monkeypatch):
    net = stax.serial(conv(), stax.Relu(), *WIDE[name], stax.Relu(), conv(), stax.Relu(), last(), stax.Dense(1))
    x1, x2 = (x[:, :6, :7] for x in images)
    get = ('nngp', 'ntk', 'cov1')
    f = lambda w: jax.jit(lambda w: infinite(net, w*x1, x2, None, {}, Asked(get)))(w)
    with monkeypatch.context() as m:
        written(m, False)
        want, slope = f(1.), jax.grad(lambda w: f(w)[1].sum())(1.)
    written(monkeypatch, True)
    frames = sum(str(s.layer).count('Frame(') for s in nt.plan(net, x1.shape, x2.shape, get).steps)
    assert frames == str(net).count('Conv(') - 1 # the first one comes behind no nonlinearity
    close(f(1.), want, rtol=1e-12); close(jax.grad(lambda w: f(w)[1].sum())(1.), slope, rtol=1e-9) # the same sums

def test_what_is_padded_by_a_pass_of_its_own(monkeypatch):
    "Behind no nonlinearity; strides, no padding, opposite edges, one axis, windows wider than the image; small blocks; masks"
    behind = lambda l: stax.serial(conv(), stax.Relu(), l)
    assert steps(behind(conv())) == 'Conv (Relu) Conv'
    assert 'Frame' in names(nt.plan(behind(conv()), (40, 8, 8, 3), (5, 8, 8, 3)))
    written(monkeypatch, True)
    assert steps(behind(conv())) == 'Conv (Relu Frame) Conv'
    one = [x[:, 0] for x in images]
    plain = [conv(strides=(2, 1)), stax.Conv(1, (3, 3)), stax.Conv(1, (3, 3), padding='CIRCULAR'), stax.Conv(1, (3, 17), padding='SAME')]
    for l in plain: assert steps(behind(l)) == 'Conv (Relu) Conv', l
    line = stax.Conv(1, (3,), padding='SAME')
    assert steps(stax.serial(line, stax.Relu(), line), one) == 'Conv (Relu) Conv'
    assert steps(stax.serial(conv(), pool(), conv())) == 'Conv AvgPool Conv'
    net, asked = behind(conv()), Asked('ntk')
    program = lambda masked: names(net.planned(net.lower(asked.want([])), Inputs(images[0], None, net.axes(), masked), {}, asked))
    assert 'Frame' in program(None) and 'Frame' not in program(7.)

def test_zeros_go_with_the_nonlinearity_in_every_turn_of_a_loop(monkeypatch):
    written(monkeypatch, True)
    net = stax.serial(*[conv(), stax.Relu()]*6, stax.Flatten())
    assert steps(net) == 'Conv 5*[(Relu Frame) Conv] (Relu) Flatten'
    other = stax.serial(conv(), stax.Erf(), *[conv(), stax.Relu()]*6, stax.Flatten())
    assert steps(other) == 'Conv (Erf Frame) 5*[Conv (Relu Frame)] Conv (Relu) Flatten'

@pytest.mark.parametrize('vmap', [None, 0])
@pytest.mark.parametrize('method', NtkImplementation)
def test_python_reads_a_network_twice_a_side(method, vmap):
    "Once for the shapes of its outputs and once for its program; `AUTO` reads a second program where it chooses another method"
    init_fn, apply_fn, _ = stax.serial(conv(4), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(3))
    params, read = init_fn(jax.random.key(0), images[0].shape)[1], []
    def f(params, x): read.append(x.shape); return apply_fn(params, x)
    k = jax.jit(empirical_ntk_fn(f, vmap_axes=vmap, implementation=method))
    k.trace(*images, params)
    assert len(read) <= (6 if method is NtkImplementation.AUTO else 4)

@pytest.mark.parametrize('window', [(3, 3), (5, 7)])
def test_windows_are_one_gather_an_axis(window):
    p = dict(padding=[(w//2, w//2) for w in window], lhs_dilation=(1, 1), rhs_dilation=(1, 1), window_strides=(1, 1))
    program = str(jax.make_jaxpr(lambda x: patches(x, window, (8, 8), p))(jnp.ones((2, 3, 8, 8))))
    assert program.count(' gather[') == 2 and not program.count(' slice[')

def test_a_mean_does_not_depend_on_the_covariance():
    "At many times too"
    k, r, th, k_td = (jnp.asarray(rng.randn(*s)) for s in ((9, 9), (9, 2), (4, 9), (4, 9)))
    solver, s = Eigh.of(k@k.T), jnp.asarray([.1, 3., jnp.inf])
    args = solver, s, r, th, k_td, k@k.T, jnp.eye(4)
    close(moments(*args)[0], moments(solver, s, r, th)[0], rtol=1e-12) # other sums of the same numbers
