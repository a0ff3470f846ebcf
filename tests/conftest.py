"Tests run in double precision; the library itself never chooses"
import os

# Tests compile much and compute little: LLVM's optimizations, with which the notebooks run, cost more here than they save.
os.environ['XLA_FLAGS'] = (os.environ.get('XLA_FLAGS', '') + ' --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false').strip()

import jax

jax.config.update('jax_enable_x64', True)
