"The size of a tile: what the cost model holds for fast, as far as memory goes"
import dataclasses as dc, math, warnings

import jax, numpy as np, pytest
from jax import numpy as jnp

from neural_tangents_nb import matrix, stax, tiles
from neural_tangents_nb.matrix import Tiled
from neural_tangents_nb.machine import places
from neural_tangents_nb.tiles import batch

pytestmark = pytest.mark.usefixtures('strict')

NET = stax.serial(stax.Dense(1, 1.5, .1), stax.Relu(), stax.Dense(1))


def tiling(n1, n2=None):
    x = lambda n: None if n is None else np.zeros((n, 3), 'f4')
    return tiles.tiling(NET.kernel_fn, x(n1), x(n2), ('ntk',), {}, 0)


@pytest.mark.parametrize('devices', [1, 3])
@pytest.mark.parametrize('pace', [(1e-3, 1e-8, 1e-8), (1e-3, 1e-3, 1e-4), (1e-6, 1e-7, 1e-9), (1., 0., 0.)])
def test_the_fastest_tile(monkeypatch, pace, devices):
    "By the model, no tile that fits is much faster than the chosen one, and none that is as fast is much smaller"
    monkeypatch.setattr(tiles, 'pace', lambda t: pace)
    c0, c1, c2 = pace
    for n1, n2, largest in ((500, None, 400), (37, None, 30), (501, 200, 64), (1, 1, 9)):
        t = dc.replace(tiling(n1, n2), devices=(None,)*devices)
        def seconds(r): # of tiles that end with the examples, on as many devices
            return len(places(t.shape, (r, r), t.symmetric))/devices*(c0 + c1*r + c2*r*r)
        size = tiles.fast_size(t, largest)
        best = min(map(seconds, range(1, min(largest, -(-n1//devices), *t.shape) + 1)))
        assert 1 <= size <= largest
        # The model allows a twentieth and knows nothing of edges; sizes grow by up to a fifth, of which an entry's work may feel the square.
        assert size*devices >= n1 or seconds(min(size, *t.shape)) <= 1.05*1.2**2*best


def test_memory_bounds_the_tile(monkeypatch):
    "However fast more rows would be"
    monkeypatch.setattr(tiles, 'pace', lambda t: (1., 0., 0.))
    monkeypatch.setattr(tiles, 'bytes_per_entry', lambda t: 100.)
    for rows in (1, 10, 31, 100):
        monkeypatch.setattr(tiles, 'free_memory', lambda device: 100.*tiles.SHARE*rows**2)
        assert rows/1.2 <= tiles.auto_size(tiling(5000, 5000)) <= rows


def test_auto_is_right():
    x = np.random.RandomState(0).randn(40, 3)
    np.testing.assert_allclose(batch(NET.kernel_fn, 'auto')(x, None, 'ntk'), NET.kernel_fn(x, None, 'ntk'), rtol=1e-12)
    with pytest.raises(ValueError, match="needs inputs, not a Kernel"): batch(NET.kernel_fn, 'auto')(NET.kernel_fn(x, None))


@pytest.mark.filterwarnings('error')
def test_single_precision_is_no_warning():
    "Inputs are checked in the precision that they have"
    with jax.enable_x64(False):
        x = jnp.linspace(-1, 1, 20, dtype=jnp.float32).reshape(5, 4)
        batch(stax.serial(stax.Dense(1), stax.Relu()).kernel_fn, 2)(x, None, 'ntk')

@pytest.mark.parametrize('wrong, said', [
    (lambda: batch(None), 'got NoneType'), (lambda: batch(NET, 2), 'as its attribute `kernel_fn`'), (lambda: Tiled(NET.kernel_fn, 'x'), '`x1` must be an array'),
    (lambda: batch(NET.kernel_fn, 2)(np.ones((3, 2)), 'x'), '`x2` must be an array')])
def test_what_is_no_kernel_function_and_no_array_is_named(wrong, said):
    with pytest.raises(TypeError, match=said): wrong()


X = np.random.RandomState(1).randn(10, 3)


def linear(x1, x2, get=None): return x1@(x1 if x2 is None else x2).T


def test_memory_is_shared_by_devices_of_one_processor(monkeypatch):
    "Four of them compute four tiles at once, in the memory of one host"
    class Device: platform, process_index = 'cpu', 0
    monkeypatch.setattr(tiles, 'pace', lambda t: (1., 0., 0.))
    monkeypatch.setattr(tiles, 'bytes_per_entry', lambda t: 100.)
    monkeypatch.setattr(tiles, 'free_memory', lambda device: 100.*tiles.SHARE*100**2)
    assert 50/1.2 <= tiles.auto_size(dc.replace(tiling(5000, 5000), devices=(Device(),)*4)) <= 50


def test_halving_has_an_end():
    "Memory that does not suffice for one row, of the host too; what is no lack of memory is not tried again"
    tried = []
    def fail(error):
        def run(t):
            tried.append(t.size)
            raise error if len(tried) < 9 else AssertionError('there is no end')
        return run
    for error, sizes in ((MemoryError(), [5, 3, 2, 1]), (RuntimeError('RESOURCE_EXHAUSTED'), [5, 3, 2, 1]), (RuntimeError('other'), [5])):
        tried.clear()
        with pytest.raises(type(error)), warnings.catch_warnings(): warnings.simplefilter('ignore'); tiles.until_it_fits(fail(error), dc.replace(tiling(9), size=5))
        assert tried == sizes


def test_a_product_remembers_the_tiles_that_fit(monkeypatch):
    product, sizes = matrix.product, []
    def small(t, v):
        sizes.append(t.size)
        if t.size > 3: raise RuntimeError('RESOURCE_EXHAUSTED')
        return product(t, v)
    monkeypatch.setattr(matrix, 'product', small)
    k = Tiled(linear, X, batch_size=10)
    with pytest.warns(UserWarning) as w: np.testing.assert_allclose(k@X, X@X.T@X, rtol=1e-12)
    assert [str(a.message).split('halved to ')[1][:6] for a in w] == ['5 rows', '3 rows']
    k@X
    assert sizes == [10, 5, 3, 3]


def test_padding_is_no_zero():
    "A kernel that is not defined at zero, with tiles that stand out over the edge"
    def cosine(x1, x2, get=None):
        n = lambda x: x/jnp.sqrt((x**2).sum(-1, keepdims=True))
        return n(x1)@n(x1 if x2 is None else x2).T
    for x2 in (None, X[:7]): np.testing.assert_allclose(Tiled(cosine, X, x2, batch_size=4)@np.ones(len(X if x2 is None else x2)), cosine(X, x2).sum(1), rtol=1e-12)


def test_a_kernel_never_formed_where_inputs_meet_themselves():
    "Its rows, its diagonal, which is longer than what is computed at once, and products with one vector"
    x = np.random.RandomState(2).randn(130, 3)
    def noisy(x1, x2, get=None): return linear(x1, x2) + (jnp.eye(len(x1)) if x2 is None else 0.)
    k, exact = Tiled(noisy, x, batch_size=50), noisy(x, None)
    np.testing.assert_allclose(k[np.array([3, 100])], exact[np.array([3, 100])], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(k[4], exact[4], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(k.diagonal(), jnp.diagonal(exact), rtol=1e-12)
    assert k.diagonal().shape == (130,) and (k@x[:, 0]).shape == (130,)
    np.testing.assert_allclose(k@x[:, 0], exact@x[:, 0], rtol=1e-11, atol=1e-11)
    with pytest.raises(ValueError, match='no diagonal'): Tiled(noisy, x, x[:9], batch_size=50).diagonal()
    weighted = lambda x1, x2, get, weights: linear(x1, x2)*weights[0][:, None]*weights[1][None]
    with pytest.raises(NotImplementedError, match='arguments for each example'): Tiled(weighted, X, batch_size=4, weights=(X[:, 0], X[:, 0])).rows(np.arange(3))


def test_numbers_that_are_arguments():
    "Whole ones stay what they are, others don't compile anew"
    traced = []
    def power(x1, x2, scale, times):
        traced.append(scale)
        return scale*sum(linear(x1, x2)**i for i in range(times))
    batched = batch(power, 0, 0)
    for scale in (1., 2.): np.testing.assert_allclose(batched(X, None, scale, 3), scale*(1 + linear(X, None) + linear(X, None)**2), rtol=1e-12)
    assert len(traced) == 1


def test_a_mixture_of_channels_is_not_put_together():
    "Two sets of channels of different variances: tiles keep their mean only, and a nonlinearity after them is refused"
    dense = lambda w: stax.Dense(8, w)
    below = stax.serial(stax.FanOut(2), stax.parallel(dense(1.), dense(3.)), stax.FanInConcat(-1))
    top, state = stax.serial(stax.Relu(), stax.Dense(1)), batch(below.kernel_fn, 4, 0)(X)
    np.testing.assert_allclose(state.ntk, below.kernel_fn(X).ntk, rtol=1e-12)
    with pytest.raises(ValueError, match='not Gaussian'): top.kernel_fn(state)


def test_what_cannot_be_put_together_is_refused():
    with pytest.raises(NotImplementedError, match='diagonal_batch=False'): batch(NET.kernel_fn, 4, 0)(NET.kernel_fn(X, X + 1, diagonal_batch=False))
    with pytest.raises(ValueError, match='both batches as leading axes'): batch(lambda x1, x2: jnp.ones(len(x1)), 4, 0)(X)
    with pytest.raises(ValueError, match='one batch size on axis 0'): batch(lambda a, b: a[0]@a[0].T, 4, 0)([X, X[:5]])


def test_inputs_that_are_large_or_masked():
    "Finite entries whose sum is not are no fault, nor are NaN that mark what is missing"
    x = np.where(np.arange(30).reshape(10, 3) == 4, np.nan, X)
    masked = dict(get='ntk', mask_constant=np.nan)
    np.testing.assert_allclose(batch(NET.kernel_fn, 4, 0)(x, None, **masked), NET.kernel_fn(x, None, **masked), rtol=1e-12)
    huge = np.full((4, 2), 1e308)
    assert batch(lambda x1, x2: 1/x1@x1.T, 0, 0)(huge).shape == (4, 4)


@pytest.mark.parametrize('x2', [None, X[:7]])
def test_a_result_is_put_together_where_it_lives(monkeypatch, x2):
    "By NumPy on the host, of which a processor's devices have their memory, by programs elsewhere: the same bits"
    both = lambda x1, x2, get=None: {n: linear(x1, x2)**i for i, n in enumerate('ab', 1)}
    host, cpu = (batch(both, 4, 0, store_on_device=on)(X, x2) for on in (False, True))
    calls, write = [], tiles._placed
    monkeypatch.setattr(tiles, '_placed', lambda *args: calls.append(args[2:4]) or write(*args))
    monkeypatch.setattr(jax, 'default_backend', lambda: 'other')
    other = batch(both, 4, 0)(X, x2)
    assert (6, 6 if x2 is None else 3) in calls # the last tile ends where the examples do
    for n in 'ab':
        assert type(host[n]) is np.ndarray and isinstance(cpu[n], jax.Array) and isinstance(other[n], jax.Array)
        assert (host[n] == cpu[n]).all() and (host[n] == other[n]).all()
        if x2 is None: assert (host[n] == host[n].T).all()


def test_a_result_on_the_device_is_its_own():
    "It shares memory with nothing that is written later, and may be donated"
    k = batch(linear, 4, 0)
    first = k(X, None)
    kept = np.array(first)
    k(2*X, None)
    np.testing.assert_array_equal(jax.jit(lambda a: a + 0, donate_argnums=0)(first), kept)


def test_only_the_first_process_shows_a_bar(monkeypatch):
    pytest.importorskip('tqdm')
    from neural_tangents_nb import progress
    monkeypatch.setattr(progress.sys, 'stderr', type('Terminal', (), dict(isatty=lambda self: True, write=lambda self, s: len(s), flush=lambda self: None))())
    seen = lambda **kw: progress.Bar(3, **kw).visible
    assert seen() and not seen(progress=False) and not progress.Bar(1).visible
    monkeypatch.setattr(jax, 'process_index', lambda: 1)
    assert not seen() and seen(progress=True)


@pytest.mark.parametrize('size', [4, 'auto'])
def test_tiles_inside_transformations(size):
    "Numbers and gradients of `jit`, `grad` and `vmap`, of our kernels and of others, and of constants under `jit`"
    f, other = batch(NET.kernel_fn, size), lambda a, b=None, get=None: jnp.tanh(linear(a, b))
    exact = NET.kernel_fn(X, None, 'ntk')
    np.testing.assert_allclose(jax.jit(f, static_argnums=2)(X, None, 'ntk'), exact, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(lambda s: s*f(X, None, 'ntk'))(2.), 2*exact, rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(lambda x: f(x, X[:7], 'ntk'))(np.stack([X, 2*X]))[1], NET.kernel_fn(2*X, X[:7], 'ntk'), rtol=1e-12)
    np.testing.assert_allclose(jax.jit(lambda x: f(x).ntk)(X), exact, rtol=1e-12)
    w = np.random.RandomState(3).randn(10, 10)
    for whole, x2 in ((NET.kernel_fn, X + 1), (other, X + 1), (other, None)):
        slope = lambda k: jax.grad(lambda x: (w*k(x, x2, 'ntk')).sum())(X)
        np.testing.assert_allclose(slope(batch(whole, size)), slope(whole), rtol=1e-9, atol=1e-12)


def test_a_tile_on_the_diagonal_knows_that_both_batches_are_one():
    "Under `jit` too, where one program computes all tiles"
    noisy = lambda a, b, get=None: linear(a, b) + (jnp.eye(len(a)) if b is None else 0.)
    np.testing.assert_allclose(jax.jit(batch(noisy, 4))(X, None), X@X.T + np.eye(10), rtol=1e-12)
    np.testing.assert_allclose(batch(noisy, 4, 0)(X, None), X@X.T + np.eye(10), rtol=1e-12)


def test_branches_within_branches():
    net, x = stax.parallel(stax.parallel(stax.Dense(8), stax.Dense(8)), stax.Dense(3)), ((X, X + 1), X + 2)
    for got, want in zip(*(jax.tree.leaves(k(x, None)) for k in (batch(net.kernel_fn, 4), net.kernel_fn))):
        np.testing.assert_allclose(got, want, rtol=1e-12)
