"""Infinitely wide neural networks in JAX: kernels, predictions with uncertainty, and the finite networks behind them."""
__version__ = "0.1.0"

from . import predict, stax
from .empirical import (
    NtkImplementation, empirical_nngp_fn, empirical_ntk_vp_fn, linearize, taylor_expand)
from .kernel import Kernel
from .montecarlo import monte_carlo_kernel_fn
from .store import open_store, store
from .structured import empirical_kernel_fn, empirical_ntk_fn
from .tiles import Tiled, batch
