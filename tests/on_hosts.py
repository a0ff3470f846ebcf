"What every process of `test_multiprocess` runs: a program that knows nothing of processes, and saves its results"
import sys

import jax, numpy as np
from jax.experimental import multihost_utils

jax.config.update('jax_enable_x64', True)

import neural_tangents_nb as nt
from neural_tangents_nb import matrix, stax, tiles
from neural_tangents_nb.solvers import CG

net, top = stax.serial(stax.Dense(1, 1.5, .1), stax.Relu(), stax.Dense(1)), stax.serial(stax.Erf(), stax.Dense(1))
rng = np.random.RandomState(0)
positions = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1, 1., .2))
X, Z, S = rng.randn(48, 5), rng.randn(11, 5), rng.randn(19, 3, 2)


def rbf(x1, x2, get=None): return jax.numpy.exp(-((x1[:, None] - (x1 if x2 is None else x2)[None])**2).sum(-1))


def unequal():
    "A kernel with tiles of a size that fits the process with the least memory, which all have to agree on"
    free = tiles.free_memory
    tiles.free_memory = lambda device: 1e4*4**jax.process_index()
    try: return nt.batch(rbf, 'auto')(X, None)
    finally: tiles.free_memory = free


def noisy(x1, x2, get=None): return rbf(x1, x2) + (jax.numpy.eye(len(x1)) if x2 is None else 0.)

def weighted(x1, x2, get=None, weights=None): return rbf(x1, x2)*weights[0][:, None]*weights[1]

def pairs(x1, x2, get=None): return jax.numpy.einsum('ipc,jqc->ijpq', x1, x1 if x2 is None else x2)

def small(x1, x2, get=None):
    if len(x1) > 2: raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 1 byte')
    return rbf(x1, x2)


def same_tile():
    "The rows of a tile if all processes had the least memory, less what they agree on if only the first has: nothing"
    free, sizes = tiles.free_memory, []
    for least in (lambda device: 1e4, lambda device: 1e4*4**jax.process_index()):
        tiles.free_memory = least
        try: sizes.append(tiles.tiling(rbf, X, None, (), {}, 'auto', tiles.devices_of(-1)).size)
        finally: tiles.free_memory = free
    return sizes[0] - sizes[1]


def more():
    "What depends on where rows are, or on which tiles lie on the diagonal, and products whose last tiles are not full"
    w = np.linspace(1, 2, 48)
    return dict(noisy=nt.batch(noisy, 5)(X, None), weighted=nt.batch(weighted, 5)(Z, X, weights=(w[:11], w)), pairs=nt.batch(pairs, 2)(S, None),
                one_each=nt.batch(rbf, 5, 1)(X, Z), same_tile=same_tile(), whole=matrix.Whole(nt.batch(rbf, 5)(X, None))@X,
                padded=nt.Tiled(rbf, Z, batch_size=4, device_count=-1)@Z, cross_product=nt.Tiled(rbf, Z, X[:47], batch_size=4, device_count=-1)@X[:47])


def results():
    batched, host = nt.batch(rbf, 5), nt.batch(rbf, 5, store_on_device=False)
    state, uneven = nt.batch(net.kernel_fn, 5)(X), nt.batch(net.kernel_fn, 5)(Z, X)
    return dict(same=batched(X, None), cross=batched(Z, X), host=host(X, Z), auto=nt.batch(rbf, 'auto')(X, None),
                unequal=unequal(), positions=nt.batch(positions.kernel_fn, 2)(S, None, 'ntk'),
                nngp=state.nngp, cov1=state.cov1, ntk=uneven.ntk, cov2=uneven.cov2, above=top.kernel_fn(state).ntk,
                product=nt.Tiled(rbf, X, batch_size=5, device_count=-1)@X, **more())


def refused():
    "Is a kernel state on many hosts not cut into tiles, but explained? Does no process halve its tiles, as not all might?"
    try: nt.batch(top.kernel_fn, 5)(net.kernel_fn(X, None))
    except NotImplementedError as e: explained = 'several processes cannot continue a Kernel' in str(e)
    else: return False
    try: nt.batch(small, 4)(X, None)
    except RuntimeError as e: return explained and 'RESOURCE_EXHAUSTED' in str(e)
    return False


def placed():
    "Are results on the host arrays of NumPy, and rows on the devices shared by them in equal parts?"
    rows = {s.data.shape for s in nt.batch(rbf, 5)(X, None).addressable_shards}
    return type(nt.batch(rbf, 5, store_on_device=False)(X, Z)) is np.ndarray and rows == {(48//jax.device_count(), 48)}


def solved():
    "Do conjugate gradients with a kernel whose rows the processes share, and with one never formed, solve on all of them?"
    k = np.asarray(rbf(X, None)) + .1*np.eye(48)
    ways = matrix.Whole(nt.batch(rbf, 5)(X, None)), nt.Tiled(rbf, X, batch_size=5, device_count=-1)
    return all(abs(k@CG(way, .1, rank=10).solve(X) - X).max() < 1e-7 for way in ways)


if __name__ == '__main__':
    rows = lambda k: multihost_utils.process_allgather(k, tiled=True) if isinstance(k, jax.Array) and not k.is_fully_addressable else np.asarray(k)
    out = {n: rows(k) for n, k in results().items()}
    marks = dict(processes=jax.process_count(), devices=jax.device_count(), refused=refused(), placed=placed(), solved=solved())
    if jax.process_index() == 0: np.savez(sys.argv[1], **marks, **out)
