"Tests run in double precision; the library itself never chooses. Those marked `full` run where `FULL=1` is set, as in `make test-all`"
import os, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'tools'))
from run_notebooks import FULL, quickly

# Tests compile much and compute little: LLVM's optimizations, with which the library runs, cost more here than they save.
os.environ.update(quickly(os.environ))

import jax, numpy as np, pytest

jax.config.update('jax_enable_x64', True)


@pytest.fixture
def strict():
    "No array is broadcast to more axes in silence, no step of a computation is NaN, and NumPy divides by no zero"
    with jax.numpy_rank_promotion('raise'), jax.debug_nans(True), np.errstate(all='raise'): yield


def some(cases, *few):
    "All `cases` as parameters, those outside `few` for `make test-all` only"
    assert not set(few) - set(cases), set(few) - set(cases)
    return [c if c in few else pytest.param(*(c if isinstance(c, tuple) else (c,)), marks=pytest.mark.full) for c in cases]


def pytest_configure(config): config.addinivalue_line('markers', 'full: runs in `make test-all` only')


def pytest_collection_modifyitems(config, items):
    left = [] if FULL else [i for i in items if i.get_closest_marker('full')]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [i for i in items if i not in set(left)]
