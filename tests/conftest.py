"Tests run in double precision; the library itself never chooses"
import os, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'tools'))
from run_notebooks import QUICK

# Tests compile much and compute little: LLVM's optimizations, with which the library runs, cost more here than they save.
os.environ['XLA_FLAGS'] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()

import jax

jax.config.update('jax_enable_x64', True)
