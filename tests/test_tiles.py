"The size of a tile: what the cost model holds for fast, as far as memory goes"
import jax, numpy as np, pytest
from jax import numpy as jnp

from neural_tangents_nb import stax, tiles
from neural_tangents_nb.tiles import Tiling, batch, count_tiles

NET = stax.serial(stax.Dense(1, 1.5, .1), stax.Relu(), stax.Dense(1))


def tiling(n1, n2=None):
    x = lambda n: None if n is None else np.zeros((n, 3), 'f4')
    return Tiling(NET.kernel_fn, None, x(n1), x(n2), 0, ('ntk',), {}, (), True)


@pytest.mark.parametrize('devices', [1, 3])
@pytest.mark.parametrize('pace', [(1e-3, 1e-8, 1e-8), (1e-3, 1e-3, 1e-4), (1e-6, 1e-7, 1e-9), (1., 0., 0.)])
def test_the_fastest_tile(monkeypatch, pace, devices):
    "By the model, no tile that fits is much faster than the chosen one, and none that is as fast is much smaller"
    monkeypatch.setattr(Tiling, 'pace', lambda self: pace)
    for n1, n2, largest in ((500, None, 400), (37, None, 400), (501, 200, 64), (1, 1, 9)):
        t = tiling(n1, n2)
        seconds = lambda r: count_tiles(*t.sizes(), r, t.symmetric(), devices)*(pace[0] + pace[1]*r + pace[2]*r*r)
        size, best = t.fast_size(largest, devices), min(map(seconds, range(1, largest + 1)))
        assert 1 <= size <= largest
        # the model allows a twentieth; sizes are tried in steps of a fifth, of which an entry's work may feel the square
        assert seconds(size) <= 1.05*1.2**2*best
        assert not [r for r in range(1, size//2) if seconds(r) < best*1.0001]


def test_memory_bounds_the_tile(monkeypatch):
    "However fast more rows would be"
    monkeypatch.setattr(Tiling, 'pace', lambda self: (1., 0., 0.))
    monkeypatch.setattr(Tiling, 'bytes_per_entry', lambda self: 100.)
    for rows in (1, 10, 31, 100):
        monkeypatch.setattr(tiles, 'free_memory', lambda device: 100.*tiles.SHARE*rows**2)
        assert rows/1.2 <= tiling(5000, 5000).auto_size() <= rows


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
    (lambda: batch(None), 'got NoneType'), (lambda: batch(NET, 2), 'as its attribute `kernel_fn`'), (lambda: tiles.Tiled(NET.kernel_fn, 'x'), '`x1` must be an array'),
    (lambda: batch(NET.kernel_fn, 2)(np.ones((3, 2)), 'x'), '`x2` must be an array')])
def test_what_is_no_kernel_function_and_no_array_is_named(wrong, said):
    with pytest.raises(TypeError, match=said): wrong()
