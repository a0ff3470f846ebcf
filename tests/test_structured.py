"The three implementations agree on every network and primitive, and the proof of independence is sound"
import jax, numpy as np, pytest
from hypothesis import given, settings, strategies as st
from jax import lax, numpy as jnp
from neural_tangents_nb.core import test_close as close
from neural_tangents_nb.empirical import NtkImplementation
from neural_tangents_nb.structured import empirical_kernel_fn, empirical_ntk_fn, explain_ntk, plan_of


def draw(seed, *shapes):
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return [jax.random.normal(k, s) for k, s in zip(keys, shapes)]

def agree(f, x1, x2, params, axes=((-1,), ()), dtype=jnp.float64, vmap_axes=None, impls=(3,), **kw):
    "All implementations in `impls` give the kernel that Jacobian contraction gives"
    cast = lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a
    args = jax.tree.map(cast, (x1, x2, params))
    kernels = lambda *a: [empirical_ntk_fn(f, *axes, vmap_axes, i)(*a, **kw) for i in (1, *impls)]
    exact, *others = jax.jit(kernels)(*args)
    for k in others: close(k, exact, rtol=1e-10 if dtype == jnp.float64 else 1e-5)
    return exact

W = draw(0, *[(5, 6), (6, 6), (6, 6), (6, 3), (6,), (3,)])
X1, X2 = draw(1, (4, 5), (3, 5))
IM1, IM2 = draw(2, (4, 6, 5, 4), (3, 6, 5, 4))
SEQ1, SEQ2 = draw(3, (4, 7, 5), (3, 7, 5))

@jax.custom_vjp
def clipped(x): return jnp.tanh(x)
clipped.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (g*jnp.clip(1 - x**2, 0),))

@jax.custom_vjp
def affine(w, x): return x @ w
affine.defvjp(lambda w, x: (x @ w, (w, x)), lambda r, g: (r[1].T @ g, g @ r[0].T))

@jax.custom_jvp
def soft(x): return jax.nn.softplus(x)
soft.defjvp(lambda p, t: (soft(*p), t[0]*jax.nn.sigmoid(p[0])))

fcn = lambda p, x: jax.nn.relu(x @ p[0] + p[4]) @ p[3] + p[5]
def residual(p, x):
    h = x @ p[0]
    for w in p[1:3]: h = h + jax.nn.gelu(h) @ w
    return jax.nn.standardize(h)*p[4] @ p[3]
def attention(p, x):
    q, k, v = (x @ p[0] @ w for w in (p[1], p[2], p[1].T))
    a = jax.nn.softmax(jnp.einsum('nic,njc->nij', q, k)/np.sqrt(6.))
    return (jnp.einsum('nij,njc->nic', a, v) + p[4]).mean(1) @ p[3]
def graph(p, x):
    send, receive = jnp.asarray([0, 1, 2, 3, 4, 5, 6]), jnp.asarray([1, 0, 1, 4, 3, 6, 5])
    h = jax.nn.relu(x @ p[0])
    h = jax.vmap(lambda h: jax.ops.segment_sum(h[send], receive, 7))(h)
    return (h @ p[1]).sum(1) @ p[3]
def rnn(p, x):
    step = lambda h, xt: (jnp.tanh(xt @ p[0] + h @ p[1]), None)
    return lax.scan(step, jnp.zeros((x.shape[0], 6), x.dtype), x.swapaxes(0, 1))[0] @ p[3]
def unrolled(p, x):
    h = jnp.zeros((x.shape[0], 6), x.dtype)
    for t in range(x.shape[1]): h = jnp.tanh(x[:, t] @ p[0] + h @ p[1] + p[4])
    return h @ p[3]
def tied(p, x):
    h = jnp.tanh(x @ p[0])
    return h @ p[0].T + x
def solve(p, x): return jnp.linalg.solve(p[1] @ p[1].T + jnp.eye(6, dtype=x.dtype), (x @ p[0]).T).T @ p[3]
def branch(p, x): return lax.cond(x.sum() > 0, lambda h: jnp.sin(h) @ p[3], lambda h: h @ p[2] @ p[3], x @ p[0])
def looped(p, x): return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.tanh(c[1] @ p[1])), (0, x @ p[0]))[1] @ p[3]
def batchnorm(p, x):
    h = x @ p[0]
    return jnp.tanh((h - h.mean(0))/jnp.sqrt(h.var(0) + 1e-3))*p[4] @ p[3]

NETS = dict(
    fcn=fcn, residual=residual, tied=tied, solve=solve, branch=branch, batchnorm=batchnorm,
    linear=lambda p, x: x @ p[0], scalar_weight=lambda p, x: x @ p[0]*p[4][0] + p[4][1],
    scaled=lambda p, x: jnp.tanh(-x @ (p[0]/jnp.sqrt(5.)) * 2.) @ (3.*p[3]).reshape(3, 6).T,
    custom_vjp=lambda p, x: clipped(x @ p[0]) @ p[3], custom_vjp_weight=lambda p, x: affine(p[0], x) @ p[3],
    custom_jvp=lambda p, x: soft(x @ p[0]) @ soft(p[3]), remat=lambda p, x: jax.checkpoint(lambda h: jnp.sin(h @ p[1]))(x @ p[0]) @ p[3],
    nested_jit=lambda p, x: jax.jit(lambda w, h: jax.jit(jnp.tanh)(h @ w))(p[0], x) @ p[3],
    sort=lambda p, x: jnp.sort(x @ p[0], -1) @ p[3], fft=lambda p, x: jnp.abs(jnp.fft.fft(x @ p[0])) @ p[3],
    fft_weight=lambda p, x: x @ jnp.fft.ifft(jnp.fft.fft(p[0], axis=1)*1j, axis=1).imag,
    fft_batch=lambda p, x: jnp.fft.ifft(jnp.fft.fft(x @ p[0], axis=0)*(1 + 2j), axis=0).imag @ p[3],
    powers=lambda p, x: jnp.tanh(x @ p[0] @ p[1] @ p[1]) @ p[3], weights_only=lambda p, x: x @ (p[0] @ jnp.tanh(p[1])) @ p[3],
    sliced=lambda p, x: x @ p[0][:, :3] + jnp.tanh(x @ p[0][:, 3:]) * p[4][:3], reused_bias=lambda p, x: jnp.tanh(x @ p[0] + p[4]) @ p[3] * p[5] + p[5],
    joined=lambda p, x: jnp.concatenate([x @ p[0], jnp.broadcast_to(p[4], (x.shape[0], 6))], 1).reshape(-1, 4, 3).sum(1),
    stopped=lambda p, x: (x @ p[0] * lax.stop_gradient(x @ p[0])) @ p[3], none=lambda p, x: jnp.broadcast_to(p[5], (x.shape[0], 3)),
    identity=lambda p, x: p[3], empty_pieces=lambda p, x: x @ jnp.roll(p[0], 0, 0) @ jnp.concatenate([p[3][:0], p[3]]), norm=lambda p, x: x @ (p[0]/jnp.linalg.norm(p[0], axis=0)) @ p[3],
    piecewise=lambda p, x: jnp.where(x @ p[0] > 0, x @ p[0], p[4]) @ p[3], maxout=lambda p, x: (x @ p[0]).reshape(-1, 3, 2).max(-1),
    padded=lambda p, x: jnp.pad(x @ p[0], ((0, 0), (1, 2)))[:, ::-1].cumsum(1)[:, 3:6], rolled=lambda p, x: jnp.roll(x, 1, 0) @ p[0],
    mixed=lambda p, x: jnp.roll(x @ p[0], 1, 0) @ p[3], batch_sum=lambda p, x: (x @ p[0]).sum(0, keepdims=True) * jnp.ones_like(x[:, :1]))

@pytest.mark.parametrize('name', NETS)
def test_vectors(name): agree(NETS[name], X1, X2, W, impls=(2, 3) if name in ('fcn', 'batchnorm', 'custom_vjp') else (3,))

@pytest.mark.parametrize('net', [attention, graph, rnn, unrolled])
def test_sequences(net):
    if net is not rnn: agree(net, SEQ1, SEQ2, W)
    else: agree(net, SEQ1, SEQ2, W, dtype=jnp.float32, vmap_axes=0, impls=(0, 3))

def test_while(): agree(looped, X1, X2, W, impls=(0, 3))

@pytest.mark.parametrize('axes', [((), ()), ((0,), ()), ((), (0,)), ((0, 1), ()), ((), (0, 1)), ((1,), (0,)), ((0,), (1,)), ((), (-1,))])
def test_axes(axes):
    agree(residual, X1, X1[::-1], W, axes)
    if len(axes[0]) + len(axes[1]) == 1: agree(fcn, X1, X1[::-1], W, axes, impls=(0, 3), vmap_axes=0)

CONV = dict(strides=dict(window_strides=(2, 1)), valid=dict(padding='VALID'), dilated=dict(rhs_dilation=(1, 2)), transposed=dict(lhs_dilation=(2, 2), padding=((1, 2), (0, 1))),
            padded=dict(padding=((2, -1), (0, 3))), grouped=dict(feature_group_count=2), depthwise=dict(feature_group_count=4))
@pytest.mark.parametrize('name', CONV)
def test_convolutions(name):
    kw = dict(window_strides=(1, 1), padding='SAME') | CONV[name]
    w, v = draw(4, (3, 2, 4//kw.get('feature_group_count', 1), 8), (8, 3))
    def cnn(p, x):
        h = lax.conv_general_dilated(x, p[0], dimension_numbers=('NHWC', 'HWIO', 'NHWC'), **kw) + p[2]
        h = lax.reduce_window(jax.nn.relu(h), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), 'VALID')
        return h.mean((1, 2)) @ p[1]
    if name != 'strides': agree(cnn, IM1[:2], IM2[:2], [w, v, v[:, 0]])
    else: agree(cnn, IM1, None, [w, v, v[:, 0]], ((), ()), jnp.float32, 0, impls=(0, 3))

def test_batch_groups():
    cnn = lambda p, x: lax.conv_general_dilated(x, p, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), batch_group_count=2).mean((1, 2))
    agree(cnn, IM1, IM1[::-1], draw(5, (2, 3, 4, 6))[0], impls=(3,))

def test_image_is_the_weight():
    cnn = lambda p, x: lax.conv(p, x, (1, 1), 'SAME').sum((2, 3))
    agree(cnn, draw(6, (4, 2, 3, 3))[0], draw(7, (4, 2, 3, 3))[0], draw(8, (3, 2, 5, 5))[0], impls=(3,))

def test_embedding():
    i1, i2 = jnp.asarray([[0, 3, 3], [1, 4, 0]]), jnp.asarray([[4, 4, 2]])
    f = lambda p, i: jnp.tanh(jnp.take(p[0], i, axis=0).reshape(-1, 18) @ p[1]) @ p[2]
    p = draw(9, (5, 6), (18, 4), (4, 2))
    agree(f, i1, i2, p); agree(f, i1, None, p, vmap_axes=0)
    agree(lambda p, i: f(p, i) @ p[0][:2, :3], i1, i2, p)

def test_dropout():
    def f(p, x, rng): return jnp.where(jax.random.bernoulli(rng, .5, (x.shape[0], 6)), x @ p[0], 0) @ p[3]
    agree(f, X1, X2, W, rng=jax.random.key(0))

def test_refused():
    ntk = empirical_ntk_fn(fcn)
    with pytest.raises(TypeError, match='int'): ntk(X1, X2, [*W[:5], jnp.arange(3)])
    with pytest.raises(TypeError, match='complex'): ntk(X1, X2, [*W[:5], W[5] + 0j])
    with pytest.raises(ValueError, match='implementation'): empirical_ntk_fn(fcn, implementation=9)
    with pytest.raises(TypeError, match='get'): empirical_kernel_fn(fcn)(X1, X2, W, 'ntk')

def test_scalar_and_tree_outputs():
    agree(lambda p, x: fcn(p, x).sum(), X1, X2, W, ((), ()))
    k = empirical_kernel_fn(lambda p, x: dict(a=fcn(p, x), b=[tied(p, x)]))(X1, X2, ('ntk', 'nngp'), W)
    close(k['a'].ntk, empirical_ntk_fn(fcn, implementation=1)(X1, X2, W))
    close(k['b'][0].ntk, empirical_ntk_fn(tied, implementation=1)(X1, X2, W))

# Random programs: a stack of values of shape (n, 6), each step makes a new one from some of them and from parameters.
def unary(f): return lambda p, a, b: f(a)
STEPS = [
    lambda p, a, b: a @ p[1], lambda p, a, b: a @ p[1].T, lambda p, a, b: a @ (p[2]*.3), lambda p, a, b: a + p[4], lambda p, a, b: a*p[4],
    lambda p, a, b: a - b, lambda p, a, b: a*b, lambda p, a, b: jnp.where(a > b, a, p[4]), lambda p, a, b: jnp.concatenate([a[:, :2], b[:, 2:]], 1),
    lambda p, a, b: a + p[2][3], lambda p, a, b: jnp.einsum('nij,nj->ni', (a[:, :, None]*p[1])/6, b), lambda p, a, b: lax.stop_gradient(a)*b,
    lambda p, a, b: jnp.broadcast_to(p[4][::-1]*2, a.shape), lambda p, a, b: a @ jnp.tanh(p[1]), lambda p, a, b: a/(1 + p[4]**2),
    lambda p, a, b: (a.reshape(-1, 2, 3) @ p[1][:3, :3]).reshape(a.shape), lambda p, a, b: a - jnp.take(p[2], jnp.asarray(2), axis=0),
    *map(unary, [jnp.tanh, jnp.sin, jax.nn.relu, jax.nn.softmax, jnp.sort, jax.nn.standardize, lambda a: a[:, ::-1], lambda a: jnp.roll(a, 1, 0),
                 lambda a: jnp.cumsum(a, 1)/3, lambda a: a - a.mean(0), jax.jit(jax.nn.gelu), jax.checkpoint(lambda a: jnp.cos(a)*a), clipped,
                 lambda a: jnp.pad(a, ((0, 0), (1, 0)))[:, :-1], lambda a: a.reshape(-1, 2, 3).swapaxes(1, 2).reshape(a.shape),
                 lambda a: jnp.repeat(a.max(1, keepdims=True), 6, 1), lambda a: lax.scan(lambda c, r: (c + r, c), a[:, 0]*0, a.T)[1].T])]

def program(steps):
    def f(p, x):
        stack = [x @ p[0], jnp.tanh(x @ p[0] + p[4])]
        for k, i, j in steps: stack.append(STEPS[k](p, stack[i % len(stack)], stack[j % len(stack)]))
        return stack[-1] + stack[-2] @ jnp.eye(6)
    return f

index = st.integers(0, 9)
@settings(max_examples=6, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.integers(0, len(STEPS) - 1), index, index), min_size=2, max_size=6), st.sampled_from([((-1,), ()), ((), ()), ((), (-1,))]))
def test_random_programs(steps, axes): agree(program(steps), X1, X2, W, axes)

def batch_of(f, x): return plan_of(lambda ls: f(ls, x), W).batch
def test_proof():
    for name in ('fcn', 'residual', 'scaled', 'custom_vjp', 'custom_jvp', 'remat', 'sort', 'fft', 'piecewise', 'padded', 'stopped', 'tied', 'rolled'):
        assert batch_of(NETS[name], X1) == 0, name
    for name in ('batchnorm', 'mixed', 'batch_sum', 'fft_batch'): assert batch_of(NETS[name], X1) is None, name
    for net in (attention, rnn, unrolled): assert batch_of(net, SEQ1) == 0

def test_trap():
    "Programs that change with the size of the batch, and constants that look like a batch"
    agree(lambda p, x: fcn(p, x)/x.shape[0], X1, X2, W)
    square = draw(10, (4, 4))[0]
    agree(lambda p, x: jnp.tanh(square @ x @ p[0]) @ p[3], X1, X1[::-1], W)
    agree(lambda p, x: square @ jnp.tanh(x @ p[0]) @ p[3], X1, X1[::-1], W)
    agree(lambda p, x: jnp.tanh(x @ p[0] + p[1]) @ p[3], draw(11, (6, 5))[0], draw(12, (6, 5))[0], W)

def test_auto():
    table = explain_ntk(fcn)(X1, X2, W)[0]
    assert table.chosen == NtkImplementation.STRUCTURED_DERIVATIVES and 'STRUCTURED' in repr(table)
