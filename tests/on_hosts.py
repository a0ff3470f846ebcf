"What every process of `test_multiprocess` runs: a program that knows nothing of processes, and saves its results"
import sys

import jax, numpy as np
from jax.experimental import multihost_utils

jax.config.update('jax_enable_x64', True)

import neural_tangents_nb as nt


def rbf(x1, x2, get=None): return jax.numpy.exp(-((x1[:, None] - (x1 if x2 is None else x2)[None])**2).sum(-1))


def results():
    rng = np.random.RandomState(0)
    x, z = rng.randn(48, 5), rng.randn(11, 5)
    batched = nt.batch(rbf, 5)
    same, cross = batched(x, None), batched(z, x)
    host = nt.batch(rbf, 5, store_on_device=False)(x, z)
    return dict(same=same, cross=cross, host=host, product=nt.Tiled(rbf, x, batch_size=5, device_count=-1)@x)


if __name__ == '__main__':
    rows = lambda k: multihost_utils.process_allgather(k, tiled=True) if isinstance(k, jax.Array) and not k.is_fully_addressable else np.asarray(k)
    out = {n: rows(k) for n, k in results().items()}
    if jax.process_index() == 0: np.savez(sys.argv[1], processes=jax.process_count(), devices=jax.device_count(), **out)
