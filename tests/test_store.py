"Kernels on disk: every byte is under a checksum, fingerprints tell kernels apart, predictors read from disk"
import warnings

import jax, numpy as np, pytest

import neural_tangents_nb as nt
from neural_tangents_nb import stax
from neural_tangents_nb.store import digest, open_store, store

pytestmark = pytest.mark.usefixtures('strict')

X = np.random.RandomState(0).randn(20, 5)


def linear(x1, x2, get=None, scale=1.): return scale*x1@(x1 if x2 is None else x2).T


@pytest.fixture
def stored(tmp_path): return store(tmp_path/'k', linear, X, tile=5)


def test_every_byte_is_guarded(stored):
    "Whichever byte of a tile changes, and wherever it is cut off, the tile is computed again"
    file, good = stored.disk.file('ntk', (0, 1)), stored.tile(0, 1)
    data = file.read_bytes()
    rng = np.random.RandomState(1)
    for at in rng.choice(len(data), 12, replace=False):
        file.write_bytes(data[:at] + bytes([data[at] ^ (1 << rng.randint(8))]) + data[at+1:])
        with pytest.warns(UserWarning, match='damaged'): np.testing.assert_array_equal(stored.tile(0, 1), good)
        assert file.read_bytes() == data
    for end in (0, 3, len(data)//2, len(data)-1):
        file.write_bytes(data[:end])
        with pytest.warns(UserWarning, match='damaged'): np.testing.assert_array_equal(stored.tile(0, 1), good)


@pytest.mark.parametrize('damage', [lambda data: data[:-1], lambda data: b'', lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:]],
                         ids=['truncated', 'empty', 'flipped'])
def test_a_damaged_tile_is_found(stored, damage):
    "When the store is next asked for, unless told not to verify; who only opens it is told when it comes to the tile"
    path, file = stored.disk.path, stored.disk.file('ntk', (0, 1))
    data = file.read_bytes()
    file.write_bytes(damage(data))
    with pytest.raises(OSError, match=r'tile \(0, 1\) of .* is damaged.*call `store` as before'): np.asarray(open_store(path))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        store(path, linear, X, verify=False)
    assert file.read_bytes() == damage(data)
    with pytest.warns(UserWarning, match=r'tile \(0, 1\) of ntk in .* is damaged.*computed again'): store(path, linear, X)
    assert file.read_bytes() == data


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_bytes_are_those_of_zarr(tmp_path, dtype):
    "Each tile's file, also at the ragged edge, is what Zarr writes for the same numbers"
    import zarr
    k = store(tmp_path/'k', linear, X.astype(dtype), X[:13].astype(dtype), tile=6)
    ours, numbers = {p: p.read_bytes() for p in (tmp_path/'k').rglob('c/*/*')}, np.asarray(k)
    for p in ours: p.unlink()
    zarr.open_group(tmp_path/'k')['ntk'][:] = numbers
    assert len(ours) == 12 and ours == {p: p.read_bytes() for p in ours}


@pytest.mark.parametrize('rows', [1, 7, 19, 20, 400])
def test_any_tile(tmp_path, rows):
    k = store(tmp_path/'k', linear, X, tile=rows)
    np.testing.assert_allclose(np.asarray(k), X@X.T, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(k@X, X@X.T@X, rtol=1e-12)
    assert k[3, 4] == k[4, 3]


def test_fingerprints():
    nets = [stax.serial(stax.Dense(8, W), stax.Relu(), stax.Dense(1)) for W in (1., 1., 2.)]
    a, b, c = map(digest, nets)
    assert a == b != c
    assert digest(stax.Elementwise(np.sin)) != digest(stax.Elementwise(np.cos))
    f = lambda p: nt.empirical_kernel_fn(lambda params, x: x@params*p)
    assert digest(f(1.)) == digest(f(1.)) != digest(f(2.))
    assert digest(jax.random.key(1)) == digest(jax.random.key(1)) != digest(jax.random.key(2))
    assert len({digest(np.zeros(s, t)) for s in ((6,), (2, 3), (3, 2)) for t in ('f4', 'f8', 'i4')}) == 9
    assert digest([1, [2, 3]]) != digest([1, 2, [3]]) and digest(1) != digest(1.) and digest('1') != digest(1)


def test_another_dtype_is_refused(stored):
    with jax.enable_x64(False), pytest.raises(ValueError, match='dtype differ.*float64 there, float32 here'):
        store(stored.disk.path, linear, X)


@pytest.mark.parametrize('change', [dict(x1=X + 1e-9), dict(x2=X), dict(get='nngp'), dict(scale=2.), dict(kernel_fn=lambda a, b, get: a@a.T)])
def test_another_kernel_is_refused(stored, change):
    with pytest.raises(ValueError, match='differ'): store(**(dict(path=stored.disk.path, kernel_fn=linear, x1=X) | change))
    assert stored.disk.file('ntk', (0, 0)).exists()


def test_another_version_is_refused(stored, monkeypatch):
    monkeypatch.setattr(nt, '__version__', '0.0')
    with pytest.raises(ValueError, match='version differ.*here'): store(stored.disk.path, linear, X)


def test_nan_is_never_stored(tmp_path):
    with pytest.raises(ValueError, match='`x2` has NaN'): store(tmp_path/'k', linear, X, X*np.inf)
    assert not (tmp_path/'k').exists()
    with pytest.raises(FloatingPointError, match=r'NaN or infinite.*tile \(.*rows'):
        store(tmp_path/'k', lambda a, b, get: linear(a, b)/0, X, tile=10)
    with pytest.raises(ValueError, match='not complete'): open_store(tmp_path/'k')[0]


def test_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match='positive integer'): store(tmp_path/'k', linear, X, tile=0)
    with pytest.raises(TypeError, match='not a Kernel'):
        store(tmp_path/'k', lambda a, b, get: stax.Dense(1).kernel_fn(a, b), X)


def test_empirical_kernels_on_disk(tmp_path):
    net = stax.serial(stax.Dense(16), stax.Erf(), stax.Dense(1))
    params = net.init_fn(jax.random.key(0), X.shape)[1]
    ntk = nt.empirical_kernel_fn(net.apply_fn)
    k = store(tmp_path/'k', ntk, X, get='ntk', tile=8, params=params)
    np.testing.assert_allclose(np.asarray(k), ntk(X, None, 'ntk', params), rtol=1e-10)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        store(tmp_path/'k', ntk, X, get='ntk', params=params)
    with pytest.raises(ValueError, match='arguments differ'):
        store(tmp_path/'k', ntk, X, get='ntk', params=jax.tree.map(lambda p: p + 1e-9, params))
