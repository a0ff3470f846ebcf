"What every process of `test_multiprocess` runs: a program that knows nothing of processes, and saves its results"
import sys

import jax, numpy as np
from jax.experimental import multihost_utils

jax.config.update('jax_enable_x64', True)

import neural_tangents_nb as nt
from neural_tangents_nb import stax, tiles

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


def results():
    batched, host = nt.batch(rbf, 5), nt.batch(rbf, 5, store_on_device=False)
    state, uneven = nt.batch(net.kernel_fn, 5)(X), nt.batch(net.kernel_fn, 5)(Z, X)
    return dict(same=batched(X, None), cross=batched(Z, X), host=host(X, Z), auto=nt.batch(rbf, 'auto')(X, None),
                unequal=unequal(), positions=nt.batch(positions.kernel_fn, 2)(S, None, 'ntk'),
                nngp=state.nngp, cov1=state.cov1, ntk=uneven.ntk, cov2=uneven.cov2, above=top.kernel_fn(state).ntk,
                product=nt.Tiled(rbf, X, batch_size=5, device_count=-1)@X)


def refused():
    "Is a kernel state on many hosts not cut into tiles, but explained?"
    try: nt.batch(top.kernel_fn, 5)(net.kernel_fn(X, None))
    except NotImplementedError as e: return 'several processes cannot continue a Kernel' in str(e)
    return False


if __name__ == '__main__':
    rows = lambda k: multihost_utils.process_allgather(k, tiled=True) if isinstance(k, jax.Array) and not k.is_fully_addressable else np.asarray(k)
    out = {n: rows(k) for n, k in results().items()}
    if jax.process_index() == 0: np.savez(
        sys.argv[1], processes=jax.process_count(), devices=jax.device_count(), refused=refused(), **out)
