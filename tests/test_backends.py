"What depends on the kind of machine is asked in one place; where it is no CPU the plain formulation is computed, with the same numbers"
from pathlib import Path

import jax, numpy as np, pytest
from conftest import some
from jax import numpy as jnp
import neural_tangents_nb as nt
from neural_tangents_nb import stax
from neural_tangents_nb.core import test_close as close
from test_reference import DIAGONAL, errors

# Some of each kind of layer and of state: windows with each padding, all pairs of positions and equal ones, branches, masks, attention.
NAMES = ['fcn_relu', 'fcn_sign', 'dense_deep_erf', 'conv2d_same_21_gap', 'conv2d_valid_11_flatten', 'conv2d_circular_21_gap', 'conv_standard',
         'avgpool_same', 'layernorm_conv_13', 'attention_softmax', 'fan_in_concat_channels', 'mask_conv_gap', 'wide_resnet']

rng = np.random.RandomState(0)
def normal(*shape): return jnp.asarray(rng.randn(*shape))
def conv(n=1): return stax.Conv(n, (3, 3), padding='SAME', W_std=1.3, b_std=.1)

DENSE = stax.serial(stax.Dense(1, 1.5, .1), stax.Relu(), stax.Dense(1, 1.5, .1), stax.Relu(), stax.Dense(1))
POOLED = stax.serial(conv(), stax.Relu(), conv(), stax.Erf(), stax.GlobalAvgPool(), stax.Dense(1))
# Large enough for what a CPU does otherwise: tiles, halves of one batch with itself, padding that a nonlinearity writes.
CASES = dict(dense=(DENSE, normal(2100, 5), normal(1100, 5)), one_batch=(DENSE, normal(1000, 5), None),
             pooled=(POOLED, normal(5, 20, 20, 2), normal(3, 20, 20, 2)), pooled_one_batch=(POOLED, normal(3, 20, 20, 2), None))


@pytest.fixture
def elsewhere(monkeypatch):
    "As on a machine that has something else than a CPU, though it is this one that computes"
    jax.clear_caches()
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    yield
    jax.clear_caches()


def program(net, x1, x2): return jax.jit(lambda *x: net.kernel_fn(*x, 'ntk')).lower(x1, x2)


def tricks(net, x1, x2):
    "How often a program has computations that are kept apart, and loops"
    text = program(net, x1, x2).as_text()
    return text.count('inlineable'), text.count('stablehlo.while')


def test_one_place():
    asking = [p.name for p in Path(nt.__file__).parent.glob('*.py') if 'default_backend' in p.read_text()]
    assert asking == ['machine.py']


@pytest.mark.parametrize('name', some(NAMES, 'fcn_relu', 'conv2d_same_21_gap', 'attention_softmax', 'fan_in_concat_channels', 'mask_conv_gap'))
def test_recorded_numbers(name, elsewhere):
    off, on = errors(name, stax)
    assert off < 1e-9 and on < DIAGONAL


@pytest.mark.parametrize('name', some(CASES, 'dense', 'one_batch', 'pooled'))
def test_the_plain_formulation(name, request):
    apart, loops = tricks(*CASES[name])
    assert apart and loops
    here = program(*CASES[name]).compile()(*CASES[name][1:])
    request.getfixturevalue('elsewhere')
    assert tricks(*CASES[name]) == (0, 0)
    # A CPU drops the barriers that hold elsewhere: variances differ in their last bit from reader to reader, and so do diagonals.
    close(program(*CASES[name]).compile()(*CASES[name][1:]), here, DIAGONAL)


def test_empirical_kernels(request):
    net = stax.serial(stax.Conv(8, (3, 3), padding='SAME'), stax.Relu(), stax.Flatten(), stax.Dense(3))
    x1, x2 = normal(4, 5, 5, 2), normal(3, 5, 5, 2)
    params = net.init_fn(0, x1.shape)[1]
    ways = [nt.empirical_ntk_fn(net.apply_fn, vmap_axes=0, implementation=i) for i in nt.NtkImplementation]
    here = [f(x1, x2, params) for f in ways]
    request.getfixturevalue('elsewhere')
    for f, k in zip(ways, here): close(f(x1, x2, params), k, 1e-12) # sums of a few hundred terms in another order
