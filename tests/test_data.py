"CIFAR-10 from disk: small copies in both formats are read back exactly; what is missing, damaged or harmful is refused and named"
import os, pickle
import numpy as np, pytest
from neural_tangents_nb.apps import data
from neural_tangents_nb.data import BATCHES, Images, load_cifar10, unpickle

RNG = np.random.RandomState(1)
X, Y = RNG.randint(0, 256, (24, 32, 32, 3), np.uint8), RNG.randint(0, 10, 24)
NAMES = 'airplane automobile bird cat deer dog frog horse ship truck'.split()
ROWS = X.transpose(0, 3, 1, 2).reshape(24, -1) # red, green, blue, as the formats have it

def binary(folder):
    "A copy of four images a file in the binary format"
    for i, b in enumerate(BATCHES):
        at = slice(4*i, 4*i+4)
        (folder/(b + '.bin')).write_bytes(b''.join(bytes([y]) + r.tobytes() for y, r in zip(Y[at], ROWS[at])))
    (folder/'batches.meta.txt').write_text('\n'.join(NAMES) + '\n')
    return folder

def python(folder, protocol=2):
    "The same in the Python format"
    for i, b in enumerate(BATCHES):
        at = slice(4*i, 4*i+4)
        d = {b'batch_label': b'batch', b'labels': Y[at].tolist(), b'data': ROWS[at], b'filenames': [b'some.png']*4}
        (folder/b).write_bytes(pickle.dumps(d, protocol))
    (folder/'batches.meta').write_bytes(pickle.dumps({b'num_cases_per_batch': 4, b'label_names': [n.encode() for n in NAMES]}, protocol))
    return folder

# What Python 2 writes: its own names of NumPy's functions, bytes as STRING and SHORT_BINSTRING, an array of 1 x 2 bytes
PYTHON2 = (b'\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05'
           b'(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb'
           b'\x89U\x02\x07\xfftbU\x06labelsq\x08]q\tK\x03au.')

@pytest.mark.parametrize('write', [binary, *(lambda f, p=p: python(f, p) for p in range(6))])
def test_read_back(tmp_path, write):
    got = load_cifar10(write(tmp_path))
    for a, b in zip(got, (X[:20], Y[:20], X[20:], Y[20:])): assert a.dtype == b.dtype and np.array_equal(a, b)
    assert got.classes == tuple(NAMES)

@pytest.mark.parametrize('write, name', [(binary, 'cifar-10-batches-bin'), (python, 'cifar-10-batches-py')])
def test_the_folder_above(tmp_path, write, name):
    (tmp_path/name).mkdir()
    write(tmp_path/name)
    assert np.array_equal(load_cifar10(str(tmp_path)).x_test, X[20:])

def test_a_pickle_of_python_2(tmp_path):
    (tmp_path/'p').write_bytes(PYTHON2)
    d = unpickle(tmp_path/'p')
    assert d['data'].tolist() == [[7, 255]] and d['data'].dtype == np.uint8 and d['labels'] == [3]

def test_without_names(tmp_path):
    (binary(tmp_path)/'batches.meta.txt').unlink()
    assert load_cifar10(tmp_path).classes == tuple('0123456789')

class Call:
    "Pickled as a call of `f(*args)`"
    def __init__(self, f, *args): self.f, self.args = f, args
    def __reduce__(self): return self.f, self.args

def test_nothing_is_called(tmp_path):
    "Neither functions of the system nor those of NumPy, wherever they stand in the file, nor names with dots, persistent ids, other codecs"
    made = tmp_path/'made'
    calls = [Call(os.mkdir, str(made)), Call(eval, f'__import__("os").mkdir({str(made)!r})'), Call(np.save, str(made), 1), Call(getattr, 'a', 'upper')]
    files = [pickle.dumps(v) for c in calls for v in (c, {b'data': c}, [c], np.array([c], object))]
    files += [b'cnumpy\nndarray.tofile\n.', b'\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.', b'Pid\n.', b'c_codecs\nencode\n(Va\nVutf-16\ntR.',
              b'cnumpy.core.multiarray\n_reconstruct\n.', b'cneural_tangents_nb.apps.data\npickle\n.', b'cbuiltins\nexec\n.', b'']
    for raw in files:
        (tmp_path/'p').write_bytes(raw)
        if raw.startswith(b'cnumpy.core'): unpickle(tmp_path/'p'); continue # a name of the table, not called: a record of an array, no function
        with pytest.raises(ValueError, match='p cannot be read as plain data'): unpickle(tmp_path/'p')
    assert not made.exists()
    assert not any(f.__module__ != data.__name__ for f in data.ADMITTED.values()) # all that a file can call is in the module

@pytest.mark.parametrize('a', [np.array(['a']), np.array([1j]), np.array(['2020'], 'M8[Y]'), np.zeros(2, [('a', 'i4')]), np.array([None])])
def test_arrays_of_other_types(tmp_path, a):
    (tmp_path/'p').write_bytes(pickle.dumps(a, 2))
    with pytest.raises(ValueError, match='cannot be read as plain data'): unpickle(tmp_path/'p')

def test_cut_anywhere(tmp_path):
    "A pickle without its end is an error, wherever the end is"
    raw = pickle.dumps({b'data': ROWS[:1, :8], b'labels': [1, 2]}, 2)
    for n in range(len(raw)):
        (tmp_path/'p').write_bytes(raw[:n])
        with pytest.raises(ValueError, match='Unpack the archive again'): unpickle(tmp_path/'p')

def spoil(change):
    "A copy in the Python format of which one file holds something else"
    def make(folder):
        d = {b'data': ROWS[:4], b'labels': Y[:4].tolist()}
        (python(folder)/'data_batch_2').write_bytes(pickle.dumps(change(d)))
    return make

def edit(name, f):
    "A copy in the binary format of which the bytes of one file are changed"
    def make(folder): path = binary(folder)/name; path.write_bytes(f(path.read_bytes()))
    return make

BAD = { # what is said: how the copy is made
    'data_batch_2 lacks labels': spoil(lambda d: {b'data': d[b'data']}),
    'data_batch_2 lacks data and labels': spoil(lambda d: [1, 2]),
    r'data_batch_2 has data of shape \(4, 100\)': spoil(lambda d: d | {b'data': ROWS[:4, :100]}),
    'data_batch_2 has data of shape': spoil(lambda d: d | {b'data': ROWS[:4].astype(float)}),
    'data_batch_2 has 3 labels for 4 images': spoil(lambda d: d | {b'labels': [1, 2, 3]}),
    'data_batch_2 has labels outside': spoil(lambda d: d | {b'labels': [1, 2, 3, 10]}),
    'data_batch_2 has 2 images, data_batch_1 has 4': spoil(lambda d: {b'data': ROWS[:2], b'labels': [1, 2]}),
    'data_batch_4.bin has 12291 bytes': edit('data_batch_4.bin', lambda b: b[:-1]),
    'test_batch.bin has 0 bytes': edit('test_batch.bin', lambda b: b''),
    'test_batch.bin has 3 images': edit('test_batch.bin', lambda b: b[:3*3073]),
    'data_batch_1.bin has the label 255': edit('data_batch_1.bin', lambda b: b'\xff' + b[1:]),
    'batches.meta.txt has 9 names': edit('batches.meta.txt', lambda b: b.rsplit(b'\n', 2)[0]),
}

@pytest.mark.parametrize('said', BAD)
def test_damage_is_named(tmp_path, said):
    BAD[said](tmp_path)
    with pytest.raises(ValueError, match=said) as e: load_cifar10(tmp_path)
    assert str(tmp_path) in str(e.value) and 'Unpack the archive again' in str(e.value)

def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match='has neither data_batch_1 nor data_batch_1.bin'): load_cifar10(tmp_path)
    (tmp_path/'cifar-10-python.tar.gz').write_bytes(b'')
    with pytest.raises(NotADirectoryError, match='unpack it and give the folder'): load_cifar10(tmp_path/'cifar-10-python.tar.gz')
    with pytest.raises(NotADirectoryError, match='nowhere is no folder$'): load_cifar10(tmp_path/'nowhere')
    for name in BATCHES[1], BATCHES[5]: (binary(tmp_path)/(name + '.bin')).unlink()
    with pytest.raises(FileNotFoundError, match='lacks test_batch.bin: unpack the whole'): load_cifar10(tmp_path)

def test_take_and_scaled():
    images = Images(X[:20], Y[:20], X[20:], Y[20:], tuple(NAMES))
    some, more = images.take(5, 2, seed=3), images.take(9, 4, seed=3)
    assert np.array_equal(some.x_train, more.x_train[:5]) and np.array_equal(some.y_test, more.y_test[:2])
    assert all((X[:20] == x).all((1, 2, 3)).any() for x in more.x_train) and len(np.unique(more.x_train, axis=0)) == 9
    s = images.scaled('float64')
    assert abs(s.x_train.mean()) < 1e-12 and abs(s.x_train.std() - 1) < 1e-12 # sums of 6e4 numbers of size one, rounded at 1e-16
    unit = (float(X[5, 1, 2, 0]) - float(X[0, 1, 2, 0]))/(s.x_train[5, 1, 2, 0] - s.x_train[0, 1, 2, 0])
    np.testing.assert_allclose((s.x_test[0] - s.x_test[1])*unit, X[20].astype(float) - X[21], atol=1e-9) # both sets by the same numbers
    assert images.scaled().x_train.dtype == np.float32 and (images._replace(x_train=0*X[:20]).scaled().x_train == 0).all()
    for bad in ((0, 1), (21, 1), (1, 5)):
        with pytest.raises(ValueError, match='as many images as there are'): images.take(*bad)
