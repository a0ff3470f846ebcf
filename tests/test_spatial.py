"Layers over positions against direct computations, recorded kernels, and each other"
import types
from pathlib import Path
import jax, numpy as np, pytest
from jax import lax, numpy as jnp, random
from reference import cases
from neural_tangents_nb import activations, attention, combinators, conv, layer, norm, spatial
from neural_tangents_nb.core import error, test_close as close
from neural_tangents_nb.kernel import ALL, EQUAL, Need, Slice, lift
from neural_tangents_nb.combinators import FanInConcat, FanInProd, FanOut, parallel, repeat
from neural_tangents_nb.conv import Conv, ConvLocal, ConvTranspose
from neural_tangents_nb.graph import Aggregate
from neural_tangents_nb.inputs import unmask_fn
from neural_tangents_nb.layer import Dense, serial
from neural_tangents_nb.spatial import *

stax = types.SimpleNamespace(**{n: v for m in (activations, layer, combinators, spatial, conv) for n, v in vars(m).items() if not n.startswith('_')})
x1, x2 = random.normal(random.key(1), (2, 6, 5, 3)), random.normal(random.key(2), (3, 6, 5, 3))

@pytest.mark.parametrize('name', ['conv_transpose_circular', 'mask_conv_gap'])
def test_recorded(name):
    # Recorded kernels of ReLU networks carry an error of a square root of rounding at equal inputs: 1e-9, not rounding.
    assert cases.check(stax, [name])[name] < 1e-9

def test_float32():
    with jax.enable_x64(False): assert cases.check(stax, ['conv_transpose_valid'])['conv_transpose_valid'] < 2e-5

def test_resized_kernels_were_recorded_with_height_and_width_exchanged():
    # The recording library resized the wrong axis of each pair after an odd number of convolutions; finite networks agree with us.
    x, _ = cases.inputs(cases.CASES['image_resize_linear'], 'image_resize_linear')
    net = lambda *sizes: serial(Conv(8, (3, 3), padding='SAME'), activations.Relu(), ImageResize((-1, *sizes, -1), 'linear'),
                                Conv(8, (2, 2)), activations.Relu(), GlobalAvgPool(), Dense(1)).kernel_fn(x, None, 'nngp')
    want = np.load(Path(cases.__file__).with_name('kernels.npz'))['image_resize_linear/nngp_sym']
    close(net(3, 6), want, rtol=1e-9)
    assert error(net(6, 3), want) > .01

def commutes(layer, b=0, c=-1):
    y1, y2 = layer.apply_fn((), x1), layer.apply_fn((), x2)
    k = layer.kernel_fn(x1, x2, diagonal_batch=False)
    for name in ('nngp', 'cov1', 'cov2'): close(getattr(k, name), getattr(lift(y1, y2, need=Need(examples=ALL), batch_axis=b, channel_axis=c), name))
    assert k.shape1 == y1.shape and k.shape2 == y2.shape

@pytest.mark.parametrize('layer', [AvgPool((3, 2), (2, 1), 'CIRCULAR'), SumPool((2, 2), padding='SAME'), ImageResize((-1, 4, 8, -1), 'lanczos3'),
                                   Index(Slice[:, ::-2, 1]), GlobalAvgPool()])
def test_linear_layers_act_on_moments_as_on_activations(layer): commutes(layer)

def test_dot_general_along_several_axes():
    A = random.normal(random.key(0), (5, 6, 4))
    commutes(DotGeneral(rhs=A, dimension_numbers=(((1, 2), (1, 0)), ((), ()))), c=1)
    commutes(DotGeneral(lhs=A, dimension_numbers=(((0,), (2,)), ((1,), (1,)))), b=2, c=3)

def test_two_dot_generals_keep_batches_diagonal():
    assert serial(DotGeneral(rhs=2.), DotGeneral(rhs=3.)).kernel_fn(x1).diagonal_batch

def test_dot_general_without_constants_is_the_identity(): close(DotGeneral().kernel_fn(x1).nngp, lift(x1).nngp)

def test_constants_per_batch():
    A, B = random.normal(random.key(0), (2, 6, 4))
    dims = (((1,), (0,)), ((), ()))
    k = lift(x1, x2).dot_general(A, B, False, dims)
    close(k.nngp, lift(lax.dot_general(x1, A, dims), lax.dot_general(x2, B, dims), channel_axis=2).nngp)

def test_resize_method_may_be_an_enum():
    a, b = (ImageResize((-1, 3, -1, -1), m).kernel_fn(x1, None, 'nngp') for m in ('linear', jax.image.ResizeMethod.LINEAR))
    close(a, b)

@pytest.mark.parametrize('kind', [Conv, ConvTranspose, ConvLocal])
def test_every_layout_is_the_default_one_transposed(kind):
    plain = kind(4, (3, 2), (2, 1), 'SAME', 1.3, .2)
    turned = kind(4, (3, 2), (2, 1), 'SAME', 1.3, .2, dimension_numbers=('CWNH', 'OHIW', 'WHCN'))
    (s, (W, b)), xt = plain.init_fn(random.key(0), x1.shape), [x.transpose(3, 2, 0, 1) for x in (x1, x2)]
    p = W.transpose(3, 0, 2, 1), b.transpose(2, 1, 3, 0)
    st, pt = turned.init_fn(random.key(0), xt[0].shape)
    assert st == (s[2], s[1], s[3], s[0]) and jax.tree.map(jnp.shape, pt) == jax.tree.map(jnp.shape, p)
    close(turned.apply_fn(p, xt[0]), plain.apply_fn((W, b), x1).transpose(2, 1, 3, 0))
    k, kt = plain.kernel_fn(x1, x2), turned.kernel_fn(*xt)
    for name in ('nngp', 'ntk', 'cov2'): close(getattr(kt, name), getattr(k.transpose(), name))
    assert kt.shape1 == st and (kt.batch_axis, kt.channel_axis) == (3, 2)
    m = jnp.zeros(x1.shape, bool).at[0, 2:4].set(True)
    close(turned.mask(m.transpose(3, 2, 0, 1), xt[0].shape), plain.mask(m, x1.shape).transpose(2, 1, 3, 0))

def test_local_widths_follow_the_standard_parameterization():
    layer = ConvLocal(4, (3, 2), parameterization='standard', s=(1, 3))
    s, (W, _) = layer.init_fn(random.key(0), x1.shape)
    assert s[-1] == 12 == W.shape[-1] and jax.eval_shape(layer.apply, (W, None), x1).shape == s

def test_standard_parameterization_against_its_formula():
    k = Conv(4, (3, 2), W_std=1.3, b_std=.2, parameterization='standard', s=(2, 1)).kernel_fn(x1, x2)
    plain = Conv(4, (3, 2)).kernel_fn(x1, x2, 'nngp')
    close(k.nngp, 1.3**2*plain + .04)
    close(k.ntk, 18/2*plain + 1)

def test_frozen_convolutions_add_nothing():
    assert not Conv(4, (3, 2), trainable=False).kernel_fn(x1, x2, 'ntk').any()

def test_masks_move_with_the_windows():
    m = jnp.zeros((2, 6, 5, 3), bool).at[0, 4:].set(True)
    assert (Conv(4, (3, 3), padding='SAME').mask(m, x1.shape)[..., 0] == m[..., 0]).all()
    assert Conv(4, (3, 3), (2, 1)).mask(m, x1.shape).shape == (2, 2, 3, 1)
    up = ConvTranspose(4, (3, 3), (2, 1), 'SAME').mask(m, x1.shape)
    assert up.shape == (2, 12, 5, 1) and up[0, 8:].all() and not up[0, :6].any()
    assert GlobalAvgPool().mask(m, x1.shape).shape == (2, 1) and Flatten().mask(m, x1.shape).shape == (2, 90)

def test_feature_wise_masks_agree_with_the_finite_network():
    x = x1.at[0, 1, 1, 0].set(100.).at[0, 4:].set(100.)
    y = unmask_fn(serial(AvgPool((2, 2)), GlobalAvgPool()).apply_fn)([(), ()], x, mask_constant=100.)
    close(serial(AvgPool((2, 2)), GlobalAvgPool()).kernel_fn(x, None, 'nngp', mask_constant=100.), y@y.T/3)

def test_errors_say_what_to_do():
    for words, make in (('3 position', lambda: AvgPool((2,)).init_fn(random.key(0), (1, 4, 4, 4, 2))),
                        ('all position pairs', lambda: ImageResize((-1, 2, 2, -1), 'linear').kernel_fn(lift(x1, need=Need(EQUAL, EQUAL)))),
                        ('ntk', lambda: Conv(1, (2, 2), parameterization='NTP')), ('SAME', lambda: Conv(1, (2, 2), padding='valid')),
                        ('two Ellipses', lambda: Index(Slice[..., 0, ...])), ('channel axis', lambda: ImageResize((-1, 2, 2, 5), 'linear'))):
        with pytest.raises((ValueError, NotImplementedError), match=words): make()

IMAGE, WORDS = (3, 6, 5, 2), (3, 4, 2)
LAYERS = dict(
    avgpool=(IMAGE, AvgPool((3, 2), (2, 1), 'SAME', normalize_edges=True)), sumpool=(IMAGE, SumPool((2, 2))), mean=(IMAGE, GlobalAvgPool()),
    flatten=(IMAGE, Flatten()), resize=(IMAGE, ImageResize((-1, 4, 8, -1), 'linear')), index=(IMAGE, Index(Slice[:, 1:, 2])),
    dot=(IMAGE, DotGeneral(rhs=np.ones((6, 4)), dimension_numbers=(((1,), (0,)), ((), ())))), conv=(IMAGE, Conv(2, (3, 3), padding='SAME', b_std=.1)),
    local=(IMAGE, serial(ConvLocal(2, (3, 3), padding='SAME', b_std=.1), AvgPool((2, 2)))), transposed=(IMAGE, ConvTranspose(2, (2, 2), (2, 2))),
    large=((3, 20, 20, 2), serial(Conv(2, (3, 3), padding='SAME'), activations.Erf(), Conv(2, (3, 3), padding='SAME'), GlobalAvgPool())),
    layernorm=(WORDS, norm.LayerNorm((1, 2))), batchnorm=(WORDS, norm.BatchNorm(min_entries=2)), dropout=(WORDS, serial(activations.Erf(), norm.Dropout(.5))),
    attention=(WORDS, attention.GlobalSelfAttention(2, 2, 2, 2, b_std=.1, pos_emb_type='SUM', pos_emb_decay_fn=lambda d: jnp.exp(-d))),
    series=(WORDS, activations.Tanh()), quadrature=(WORDS, activations.ElementwiseNumerical(jnp.tanh, 5)), elu=(WORDS, activations.Elu()),
    product=(WORDS, serial(FanOut(2), parallel(Dense(2), Dense(2)), FanInProd())), joined=(WORDS, serial(FanOut(2), parallel(Dense(2), Dense(2)), FanInConcat(1))),
    repeated=(WORDS, repeat(serial(activations.Relu(), Dense(2)), 3)), graph=(WORDS, Aggregate()), edges=(WORDS, Aggregate(implementation='SPARSE')))

@pytest.mark.parametrize('masks', [False, True])
@pytest.mark.parametrize('name', LAYERS)
def test_nothing_is_broadcast_in_silence(name, masks):
    "As users may ask of JAX; what is traced need not be computed"
    shape, layer = LAYERS[name]
    net, x, x2 = serial(Dense(2), layer), jnp.ones(shape), jnp.ones((2, *shape[1:]))
    options = dict(mask_constant=5.) if masks else {}
    graph = lambda n: dict(pattern=np.zeros((n, 7, 2), int) if name == 'edges' else np.ones((n, 4, 4))) if name in ('graph', 'edges') else {}
    both = dict(pattern=(graph(3)['pattern'], graph(2)['pattern'])) if graph(3) else {}
    with jax.numpy_rank_promotion('raise'):
        jax.eval_shape(lambda x: net.kernel_fn(x, None, ('nngp', 'ntk'), **graph(3), **options), x)
        jax.eval_shape(lambda x, y: net.kernel_fn(x, y, ('nngp', 'ntk'), **both, **options), x, x2)
        jax.eval_shape(lambda x: net.apply_fn(net.init_fn(0, shape)[1], x, rng=random.key(0), **graph(3), **options), x)
