"The kernels of all architectures recorded from the library that this one succeeds, in both precisions"
import importlib.util, sys
from pathlib import Path

import jax
import numpy as np
import pytest

from conftest import some
from neural_tangents_nb import stax

HERE = Path(__file__).with_name('reference')


def load(name):
    spec = importlib.util.spec_from_file_location(f'reference_{name}', HERE/f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


cases, RECORD = load('cases'), np.load(HERE/'kernels.npz')
# The recording resized height as width and width as height here (it keeps positions in reversed order after an odd
# number of convolutions). `test_resize` compares with the sizes exchanged; test_spatial, with the finite network.
EXCHANGED = {'image_resize_linear': 'linear', 'image_resize_nearest': 'nearest'}
RECORDED = [name for name in cases.CASES if name not in cases.UNRECORDED and name not in EXCHANGED]

# An input's correlation with itself is 1. The recording computed it with rounding, and arccos and sqrt turn an error of
# eps there into one of sqrt(eps): its own diagonals of x2=None are right to that only. Ours are exact (see 01_kernel).
DIAGONAL = 4*np.sqrt(np.finfo(np.float64).eps)

# The float32 bound is 1e-5 but for these, where rounding is amplified by the architecture itself, not by a formula:
FLOAT32 = {}


def errors(name, stax, computed=None):
    "`(error off, error on)` the diagonal of equal examples, relative to the largest entry, over all recorded arrays"
    off, on = 0., 0.
    for key, got in (computed or cases.compute(stax, name)).items():
        want = RECORD[f'{name}/{key}']
        assert got is not None and got.shape == want.shape, f'{name}/{key}'
        assert np.isfinite(got).all(), f'{name}/{key}'
        err = np.abs(got - want)/np.abs(want).max()
        same = np.eye(*err.shape[:2], dtype=bool) if key.endswith('_sym') else np.zeros(err.shape[:2], bool)
        off, on = max(off, err[~same].max(initial=0)), max(on, err[same].max(initial=0))
    return off, on


# Behind convolutions most nonlinearities compute what they compute behind dense layers; paddings, strides and tops are tried apart.
LONG = [n for n in RECORDED if n.startswith('conv_') and n.replace('conv_', 'fcn_', 1) in RECORDED and n not in ('conv_relu', 'conv_erf', 'conv_sign', 'conv_hermite2')]
LONG += ['conv2d_same_11_gap', 'conv2d_same_21_flatten', 'conv2d_valid_11_gap', 'conv2d_valid_21_flatten', 'conv2d_circular_11_gap',
         'conv2d_circular_21_flatten', 'sumpool_same', 'sumpool_valid', 'avgpool_circular', 'attention_posemb_sum_noval', 'attention_posemb_concat_noval']
SINGLE = ['fcn_relu', 'fcn_erf', 'fcn_sign', 'fcn_gelu', 'fcn_exp_normalized', 'fcn_monomial3', 'conv_relu', 'conv2d_same_21_gap', 'conv2d_valid_11_flatten', 'conv_local_same',
          'conv_transpose_same', 'conv_standard', 'avgpool_same', 'index_slice', 'layernorm_conv_13', 'dropout_fcn', 'attention_softmax', 'fan_in_prod', 'mask_conv_gap', 'aggregate_graph']


@pytest.mark.parametrize('name', some(RECORDED, *set(RECORDED) - set(LONG)))
def test_float64(name):
    off, on = errors(name, stax)
    assert off < 1e-9
    assert on < DIAGONAL


@pytest.mark.parametrize('name', some(RECORDED, *SINGLE))
def test_float32(name):
    bound = FLOAT32.get(name, 1e-5)
    with jax.enable_x64(False): worst = max(errors(name, stax))
    assert worst < bound


@pytest.mark.parametrize('name', EXCHANGED)
def test_resize(name):
    exchanged = stax.serial(
        stax.Conv(8, (3, 3), padding='SAME'), stax.Relu(), stax.ImageResize((-1, 3, 6, -1), method=EXCHANGED[name]),
        stax.Conv(8, (2, 2)), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1))
    x1, x2 = cases.inputs(cases.CASES[name], name)
    k, s = exchanged.kernel_fn(x1, x2, ('nngp', 'ntk')), exchanged.kernel_fn(x1, None, ('nngp', 'ntk'))
    got = dict(nngp=k.nngp, ntk=k.ntk, nngp_sym=s.nngp, ntk_sym=s.ntk)
    off, on = errors(name, stax, {key: np.asarray(v) for key, v in got.items()})
    assert off < 1e-9
    assert on < DIAGONAL


@pytest.mark.parametrize('name', sorted(cases.UNRECORDED))
def test_unrecorded_are_finite(name):
    "The recording library returned NaN here; values are checked against Monte Carlo in the notebook on activations"
    for key, got in cases.compute(stax, name).items():
        assert got is not None and np.isfinite(got).all(), f'{name}/{key}'
    k = cases.compute(stax, name)['nngp_sym']
    assert np.linalg.eigvalsh(k).min() > -1e-12*np.abs(k).max()
