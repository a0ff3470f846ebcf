"""Infinitely wide neural networks in JAX: kernels, predictions with uncertainty, and the finite networks behind them."""
__version__ = "0.1.0"

import sys
from . import cost, predict, stax, viz
from .empirical import (
    NtkImplementation, empirical_nngp_fn, empirical_ntk_eigenpairs, empirical_ntk_trace_fn, empirical_ntk_vp_fn,
    flatten_kernel, from_equinox, from_flax, gradient_flow_params, linearize, taylor_expand, unflatten_kernel)
from .hyperparameters import fit_hyperparameters
from .kernel import Kernel
from .plans import plan
from .montecarlo import monte_carlo_kernel_fn
from .store import open_store, store
from .structured import empirical_kernel_fn, empirical_ntk_fn, explain_ntk
from .matrix import Tiled
from .tiles import batch


__all__ = [
    'cost', 'predict', 'stax', 'viz', 'NtkImplementation', 'empirical_nngp_fn', 'empirical_ntk_eigenpairs',
    'empirical_ntk_trace_fn', 'empirical_ntk_vp_fn', 'flatten_kernel', 'from_equinox', 'from_flax',
    'gradient_flow_params', 'linearize', 'taylor_expand', 'unflatten_kernel', 'fit_hyperparameters', 'Kernel',
    'monte_carlo_kernel_fn', 'plan', 'open_store', 'store', 'empirical_kernel_fn', 'empirical_ntk_fn', 'explain_ntk', 'Tiled',
    'batch']


def _former(module):
    "A `__getattr__` by which names of old say what they are called now"
    def __getattr__(name):
        from .migrate import former_name
        raise former_name(module, name)
    return __getattr__

for _m in __name__, 'neural_tangents_nb.predict', 'neural_tangents_nb.stax': setattr(sys.modules[_m], '__getattr__', _former(_m))
