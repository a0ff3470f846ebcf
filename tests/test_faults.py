"What goes wrong on real machines: killed workers, claims of the dead, full and read-only disks, no memory, an interrupt"
import contextlib, errno, importlib, multiprocessing, os, random, signal, tempfile, threading, time
from pathlib import Path

import numpy as np, pytest

from neural_tangents_nb.matrix import Tiled
from neural_tangents_nb.tiles import Tiling, batch
from neural_tangents_nb.store import Claims, Job, open_store, put, store

X = np.random.RandomState(0).randn(24, 4)
TILES = 10          # on and above the diagonal of 24 rows, 6 to a tile
NOBODY = 2**22 + 1  # the number of no process: Linux has no larger one than 2**22
processes = multiprocessing.get_context('forkserver')
processes.set_forkserver_preload(['neural_tangents_nb'])


def linear(x1, x2, get=None): return x1@(x1 if x2 is None else x2).T


def worker(path, log, seconds, timeout=60.):
    "A process that computes tiles slowly, and says before each which it is"
    import jax
    jax.config.update('jax_enable_x64', True)
    compute = Job.compute
    def slow(self, key):
        with open(log, 'a') as f: f.write(f'{key}\n')
        time.sleep(seconds)
        return compute(self, key)
    Job.compute = slow
    store(path, linear, X, tile=6, timeout=timeout)


def start(*args):
    p = processes.Process(target=worker, args=args, daemon=True)                    # none outlives a test that failed
    p.start()
    return p


def lines(log): return Path(log).read_text().split('\n')[:-1] if Path(log).exists() else []


def wait_for(condition, seconds=60):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, 'it did not happen'
        time.sleep(.01)


def computed(monkeypatch):
    "The keys of all tiles computed in this process from now on"
    keys, compute = [], Job.compute
    monkeypatch.setattr(Job, 'compute', lambda self, key: keys.append(key) or compute(self, key))
    return keys


@pytest.fixture(scope='module')
def whole(tmp_path_factory): return np.asarray(store(tmp_path_factory.mktemp('whole')/'k', linear, X, tile=6))


def test_killed_again_and_again(tmp_path, whole, monkeypatch):
    "SIGKILL of the only process at random times: no tile but the one it was at is computed again, no bit differs"
    path, log = tmp_path/'k', tmp_path/'log'
    for kill in range(3):
        before = len(lines(log))
        p = start(path, log, .05)
        wait_for(lambda: len(lines(log)) > before + kill)
        time.sleep(random.random()*.1)
        p.kill()
        p.join()
    keys = computed(monkeypatch)
    np.testing.assert_array_equal(np.asarray(store(path, linear, X)), whole)
    started = len(lines(log)) + len(keys)
    assert TILES < started <= TILES + 3


def test_a_worker_of_two_dies(tmp_path, whole):
    "The other one takes its tile over, and neither computes what the other did"
    path = tmp_path/'k'
    slow, fast = start(path, tmp_path/'slow', 1000), start(path, tmp_path/'fast', .01)
    wait_for(lambda: lines(tmp_path/'slow') and len(lines(tmp_path/'fast')) == TILES-1)
    slow.kill()
    fast.join(60)
    assert fast.exitcode == 0
    assert len(lines(tmp_path/'fast')) == TILES and lines(tmp_path/'fast')[-1] == lines(tmp_path/'slow')[0]
    np.testing.assert_array_equal(np.asarray(store(path, linear, X)), whole)
    assert not list((path/'.claims').iterdir())


def without_tile(path):
    "A store that lacks one tile: the file of this, and that of a claim on it"
    store(path, linear, X, tile=6)
    tile = path/'ntk'/'c'/'0'/'1'
    tile.unlink()
    return tile, path/'.claims'/'0-1'


def at_once(n, f):
    barrier, out = threading.Barrier(n), []
    def run(i): barrier.wait(); out.append(f(i))
    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for t in threads: t.start()
    for t in threads: t.join()
    return out


def test_one_of_many_claims(tmp_path):
    with contextlib.ExitStack() as stack:
        rivals = [stack.enter_context(Claims(tmp_path, 60)) for _ in range(8)]
        for key in range(20): assert sum(at_once(8, lambda i: rivals[i].take((key, 0)))) == 1


def test_the_claim_of_a_dead_host(tmp_path, whole, monkeypatch):
    "A claim is left alone while it is young, by the clock of the file system, and taken over once it is old"
    store(tmp_path/'k', linear, X, tile=6)
    tile, claim = tmp_path/'k'/'ntk'/'c'/'0'/'1', tmp_path/'k'/'.claims'/'0-1'
    tile.unlink()
    claim.write_text(f'{NOBODY} a host that is no more')                            # what no process is here may be one there
    clock = time.time
    monkeypatch.setattr(time, 'time', lambda: clock() + 1e6)                        # the clock of this host is wrong
    store(tmp_path/'k', linear, X, wait=False, timeout=3600)
    assert claim.exists() and not tile.exists()
    os.utime(claim, (clock() - 4000,)*2)
    np.testing.assert_array_equal(np.asarray(store(tmp_path/'k', linear, X, timeout=3600)), whole)
    assert not claim.exists() and tile.exists()


@pytest.mark.parametrize('left', [b'', b'\xff\xfe\x00', f'{NOBODY} a host that is no more'.encode()], ids=['empty', 'garbled', 'whole'])
@pytest.mark.parametrize('age', [4000, -4000], ids=['old', 'from_the_future'])
def test_whatever_the_dead_left_is_taken_over(tmp_path, whole, left, age):
    "Killed before its name was in the claim; a disk that garbled it; a host whose clock was wrong: none of them blocks a tile for ever"
    tile, claim = without_tile(tmp_path/'k')
    claim.write_bytes(left)
    store(tmp_path/'k', linear, X, wait=False, timeout=3600)
    assert claim.exists() and not tile.exists()                                     # as young as it is, it may be of the living
    os.utime(claim, (time.time() + -age,)*2)
    np.testing.assert_array_equal(np.asarray(store(tmp_path/'k', linear, X, timeout=3600, wait=False)), whole)
    assert tile.exists() and not claim.exists()


def test_a_claim_taken_from_the_living_is_given_back(tmp_path, monkeypatch):
    "Between the look at an old claim and the attempt to take it over, a faster worker has replaced it"
    with Claims(tmp_path, 60) as one, Claims(tmp_path, 60) as two:
        assert one.take((0, 0))
        text, stale = (tmp_path/'0-0').read_text(), Claims.stale
        monkeypatch.setattr(Claims, 'stale', lambda self, path: path.name == '0-0' or stale(self, path))
        assert not two.take((0, 0))
        assert [p.name for p in tmp_path.iterdir()] == ['0-0'] and (tmp_path/'0-0').read_text() == text


def test_a_tile_finished_before_the_claim_is_not_computed_again(tmp_path, monkeypatch):
    "Another worker writes it and gives its claim back between the look for the tile and the claim"
    tile, claim = without_tile(tmp_path/'k')
    data, take, keys = (tile.parent/'2').read_bytes(), Claims.take, computed(monkeypatch)
    monkeypatch.setattr(Claims, 'take', lambda self, key: tile.write_bytes(data) and take(self, key))
    store(tmp_path/'k', linear, X)
    assert keys == [] and tile.read_bytes() == data and not claim.exists()


def test_a_living_worker_keeps_its_claim(tmp_path):
    "It touches its claim, so that this does not grow old"
    with Claims(tmp_path, .2) as one, Claims(tmp_path, 3600) as two:
        assert one.take((0, 0))
        claim = tmp_path/'0-0'
        claim.write_text('1 another host')                                          # so that only its age speaks for it
        os.utime(claim, (0, 0))
        wait_for(lambda: claim.stat().st_mtime > 0)
        assert not two.take((0, 0))


def test_partial_files_of_the_dead_are_removed(tmp_path, whole):
    "What is half written goes when it is old, and stays while someone may be writing it"
    store(tmp_path/'k', linear, X, tile=6)
    folder = tmp_path/'k'/'ntk'/'c'/'0'
    (folder/'1').unlink()
    old, new = folder/'a.partial', folder/'b.partial'
    for p in (old, new): p.write_bytes(b'half')
    os.utime(old, (0, 0))
    np.testing.assert_array_equal(np.asarray(store(tmp_path/'k', linear, X)), whole)
    assert not old.exists() and new.exists()


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EDQUOT])
def test_full_disk(tmp_path, whole, monkeypatch, code):
    module = importlib.import_module('neural_tangents_nb.store')
    put, written = module.put, []
    def full(path, *parts):
        if len(written) == 4:
            Path(path).with_suffix('.partial').write_bytes(b'half')
            raise OSError(code, os.strerror(code))
        written.append(path)
        put(path, *parts)
    store(tmp_path/'k', linear, X, tile=6).disk.path                                # an empty one: its tiles are removed
    for f in (tmp_path/'k').rglob('c/*/*'): f.unlink()
    with monkeypatch.context() as m:
        m.setattr(module, 'put', full)
        with pytest.raises(OSError, match=f'no space left.*4 of {TILES} tiles are safe') as e: store(tmp_path/'k', linear, X)
        assert e.value.errno == code
    assert not list((tmp_path/'k'/'.claims').iterdir())
    keys = computed(monkeypatch)
    np.testing.assert_array_equal(np.asarray(store(tmp_path/'k', linear, X)), whole)
    assert len(keys) == TILES-4


def test_a_disk_full_before_the_claim_is_written(tmp_path, monkeypatch):
    "An empty claim takes no space, its text does: none is left behind"
    without_tile(tmp_path/'k')
    class Full:
        def __init__(self, fd, mode): os.close(fd)
        def __enter__(self): return self
        def __exit__(self, *_): pass
        def write(self, text): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, 'fdopen', Full)
    with pytest.raises(OSError, match=f'no space left.*{TILES-1} of {TILES} tiles'): store(tmp_path/'k', linear, X)
    assert not list((tmp_path/'k'/'.claims').iterdir())


@pytest.mark.parametrize('code, error, said', [
    (errno.EFBIG, OSError, 'no space left to create'), (errno.EROFS, PermissionError, 'cannot create.*read-only'), (errno.EIO, OSError, 'Errno 5')])
def test_a_store_that_cannot_be_made_leaves_nothing(tmp_path, monkeypatch, code, error, said):
    def fail(self, to): raise OSError(code, os.strerror(code))
    monkeypatch.setattr(Path, 'rename', fail)
    with pytest.raises(error, match=said) as e: store(tmp_path/'k', linear, X)
    assert e.value.errno == code and not list(tmp_path.iterdir())


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path):
    "What fails in the middle leaves what was there before, and nothing else"
    put(tmp_path/'a', b'before')
    for name in ('a', 'b'):
        with pytest.raises(TypeError): put(tmp_path/name, b'half', None)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b'before']


@contextlib.contextmanager
def unprivileged():
    "Without the rights of root, to whom nothing is read-only"
    if os.geteuid(): yield; return
    os.seteuid(65534)
    try: yield
    finally: os.seteuid(0)


def test_read_only(whole):
    "A finished store can be read, an unfinished one says what is wrong"
    folder = Path(tempfile.mkdtemp())
    store(folder/'k', linear, X, tile=6)
    folder.chmod(0o555)
    for p in [folder/'k', *(folder/'k').rglob('*')]: p.chmod(0o555)
    try:
        with unprivileged():
            np.testing.assert_array_equal(np.asarray(store(folder/'k', linear, X)), whole)
            with pytest.raises(PermissionError, match='read-only'): store(folder/'new', linear, X)
        (folder/'k'/'ntk'/'c'/'0'/'0').unlink()
        with unprivileged(), pytest.raises(PermissionError, match=f'read-only.*{TILES-1} of {TILES} tiles'): store(folder/'k', linear, X)
    finally:
        for p in [folder, folder/'k', *(folder/'k').rglob('*')]: p.chmod(0o755)
        importlib.import_module('shutil').rmtree(folder)


def test_interrupted(tmp_path, whole, monkeypatch, request):
    "Ctrl-C in the middle: the exception comes through, no claim is left, the next call goes on from there"
    # Python takes no notice of the signal where it was started in the background of a script: its handler is what is tried here.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    compute, keys = Job.compute, []
    def interrupt(self, key):
        keys.append(key)
        if len(keys) == 4: signal.raise_signal(signal.SIGINT)
        return compute(self, key)
    with monkeypatch.context() as m:
        m.setattr(Job, 'compute', interrupt)
        with pytest.raises(KeyboardInterrupt): store(tmp_path/'k', linear, X, tile=6)
    assert not list((tmp_path/'k'/'.claims').iterdir())
    rest = computed(monkeypatch)
    np.testing.assert_array_equal(np.asarray(store(tmp_path/'k', linear, X)), whole)
    assert len(rest) == TILES-3 and not set(rest) & set(keys[:3])


SLOW_CELL = """
import sys, time, numpy as np
from neural_tangents_nb.store import Job, store
from test_faults import X, linear
compute, made = Job.compute, []
def slow(self, key):
    made.append(key)
    if len(made) == 4: time.sleep(1000)
    return compute(self, key)
Job.compute = slow
k = store(PATH, linear, X, tile=6)
"""


def test_interrupted_in_a_notebook(tmp_path, whole):
    "The stop button of Jupyter: the cell ends with KeyboardInterrupt, the kernel lives on, the next cell computes the rest"
    jupyter = pytest.importorskip('jupyter_client.manager')
    pytest.importorskip('ipykernel')
    path = str(tmp_path/'k')
    manager, client = jupyter.start_new_kernel(kernel_name='python3', cwd=str(Path(__file__).parent))
    def reply(id):
        while (m := client.get_shell_msg(timeout=120))['parent_header'].get('msg_id') != id: pass
        return m['content']
    try:
        client.execute('import jax; jax.config.update("jax_enable_x64", True)')
        # by default a failed cell aborts requests that reach the kernel just behind its reply: the next one, now and then
        id = client.execute(SLOW_CELL.replace('PATH', repr(path)), stop_on_error=False)
        wait_for(lambda: len(list(Path(path).rglob('c/*/*'))) == 3, 120)
        manager.interrupt_kernel()
        assert reply(id)['ename'] == 'KeyboardInterrupt'
        assert not list((Path(path)/'.claims').iterdir())
        rest = client.execute(f'done = len(made); k = store({path!r}, linear, X)', user_expressions=dict(n='len(made) - done'))
        assert reply(rest)['user_expressions']['n']['data']['text/plain'] == str(TILES - 3)
    finally: manager.shutdown_kernel(now=True)
    np.testing.assert_array_equal(np.asarray(store(path, linear, X)), whole)


def test_nan_is_found_before_the_first_tile(tmp_path):
    "One NaN in the last row, and nothing is computed, whichever way a kernel is asked for"
    bad = X.copy()
    bad[-1, -1] = np.nan
    def never(x1, x2, get=None): raise AssertionError('a tile was computed')
    ways = (lambda x1, x2: batch(never, 6, 0)(x1, x2), lambda x1, x2: store(tmp_path/'k', never, x1, x2), lambda x1, x2: Tiled(never, x1, x2))
    for way in ways:
        with pytest.raises(ValueError, match='`x1` has NaN or infinite entries'): way(bad, None)
        with pytest.raises(ValueError, match='`x2` has NaN or infinite entries'): way(X, bad)
    assert not (tmp_path/'k').exists()


def test_out_of_memory(tmp_path, monkeypatch):
    "A tile that does not fit is computed in parts, and so are those after it"
    tile, sizes = Tiling.tile, []
    def small(self, i, j, r1, r2, device=None):
        sizes.append(r1)
        if r1 > 4: raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.')
        return tile(self, i, j, r1, r2, device)
    monkeypatch.setattr(Tiling, 'tile', small)
    with pytest.warns(UserWarning, match='out of memory: tiles are halved to 6 rows'): k = batch(linear, 12, 0)(X, None)
    np.testing.assert_allclose(k, X@X.T, rtol=1e-13, atol=1e-13)
    monkeypatch.setattr(Tiling, 'tile', tile)
    store(tmp_path/'k', linear, X, tile=12)
    monkeypatch.setattr(Tiling, 'tile', small)
    for f in (tmp_path/'k').rglob('c/*/*'): f.unlink()
    sizes.clear()
    with pytest.warns(UserWarning, match='halved to 3 rows'): k = store(tmp_path/'k', linear, X)
    np.testing.assert_allclose(np.asarray(k), X@X.T, rtol=1e-13, atol=1e-13)
    assert sizes.count(12) == 1 and k.disk.tile == (12, 12)


def broken(x1, x2, get=None): raise RuntimeError('no kernel today')


def test_a_kernel_function_that_raises(tmp_path, whole, monkeypatch):
    "Its error comes through as it is: nothing is made if it never works, no claim is left if it fails later"
    with pytest.raises(RuntimeError, match='no kernel today'): store(tmp_path/'k', broken, X)
    assert not list(tmp_path.iterdir())
    tile, calls = Tiling.tile, []
    def fail(self, *args):
        calls.append(args)
        return tile(self, *args) if len(calls) < 5 else broken(X, X)                # the first call asks for the shape
    with monkeypatch.context() as m:
        m.setattr(Tiling, 'tile', fail)
        with pytest.raises(RuntimeError, match='no kernel today'): store(tmp_path/'k', linear, X, tile=6)
    assert not list((tmp_path/'k'/'.claims').iterdir())
    keys = computed(monkeypatch)
    np.testing.assert_array_equal(np.asarray(store(tmp_path/'k', linear, X)), whole)
    assert len(keys) == TILES - 3


@pytest.mark.parametrize('tiles', [(6, 6, 6, 6), (5, 7)])
def test_threads_at_once(tmp_path, tiles, monkeypatch):
    "Calls of one process share the work too, from an empty disk on; who makes the store chooses the tiles"
    keys, slow = computed(monkeypatch), Job.compute
    monkeypatch.setattr(Job, 'compute', lambda self, key: time.sleep(.005) or slow(self, key))
    stores = at_once(len(tiles), lambda i: store(tmp_path/'k', linear, X, tile=tiles[i], timeout=600))
    assert len(stores) == len(tiles)                                                # no call raised
    for k in stores: np.testing.assert_allclose(np.asarray(k), X@X.T, rtol=1e-13, atol=1e-13)
    assert sorted(keys) == stores[0].disk.keys() and len({k.disk.tile for k in stores}) == 1
    assert not list((tmp_path/'k'/'.claims').iterdir()) and [p.name for p in tmp_path.iterdir()] == ['k']


def test_a_store_keeps_its_tiles(tmp_path, whole, monkeypatch):
    "Who asks for other tiles later gets those that are there"
    without_tile(tmp_path/'k')
    keys = computed(monkeypatch)
    k = store(tmp_path/'k', linear, X, tile=7)
    np.testing.assert_array_equal(np.asarray(k), whole)
    assert k.disk.tile == (6, 6) and keys == [(0, 1)]


def test_a_path_of_something_else(tmp_path):
    "It is left as it is, whatever it is; an empty directory is as good as none"
    import zarr
    file, folder, group, array, empty, torn = (tmp_path/n for n in ('file', 'folder', 'group', 'array', 'empty', 'torn'))
    file.write_text('mine')
    for p in (folder, empty): p.mkdir()
    (folder/'mine').touch()
    zarr.create_group(group)
    zarr.create_array(array, shape=(3, 3), dtype='f4')
    store(torn, linear, X)
    (torn/'zarr.json').write_bytes(b'')
    before = {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob('*')}
    for p in (file, folder, group, array, torn):
        with pytest.raises(ValueError, match=f'{p.name} exists and is no store'): store(p, linear, X)
        if p.is_dir():
            with pytest.raises(ValueError, match=f'{p.name} exists and is no store'): open_store(p)
    with pytest.raises(OSError, match='file'): store(file/'k', linear, X)
    with pytest.raises(FileNotFoundError, match='there is no store'): open_store(file)
    assert before == {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob('*')}
    np.testing.assert_allclose(np.asarray(store(empty, linear, X)), X@X.T, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize('timeout', [0, -1, float('nan')])
def test_a_timeout_is_positive(tmp_path, timeout):
    with pytest.raises(ValueError, match='`timeout` must be a positive number'): store(tmp_path/'k', linear, X, timeout=timeout)


def test_a_kernel_of_nothing(tmp_path):
    with pytest.raises(ValueError, match='0 and 0 examples is empty'): store(tmp_path/'k', linear, X[:0])
    assert not list(tmp_path.iterdir())
