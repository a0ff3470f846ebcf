"Tests run in double precision; the library itself never chooses"
import os, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'tools'))
from run_notebooks import quickly

# Tests compile much and compute little: LLVM's optimizations, with which the library runs, cost more here than they save.
os.environ.update(quickly(os.environ))

import jax, numpy as np, pytest

jax.config.update('jax_enable_x64', True)


@pytest.fixture
def strict():
    "No array is broadcast to more axes in silence, no step of a computation is NaN, and NumPy divides by no zero"
    with jax.numpy_rank_promotion('raise'), jax.debug_nans(True), np.errstate(all='raise'): yield
