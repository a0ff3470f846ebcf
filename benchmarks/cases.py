"""What is measured. This file runs unchanged on both libraries: it uses only what they share.

A case is a function of the library that prepares everything and returns the call to time. Inputs come from NumPy's generator, so that
they are the same numbers under every version of JAX.
"""
import functools

import jax
import numpy as np
from jax import numpy as jnp

CASES = {}      # name: (function of the library, entries of the kernel, relative agreement that is asked for or None)


def case(name, n1, n2, rtol=1e-4):
    def register(make):
        CASES[name] = make, n1*n2, rtol
        return make
    return register


def normal(n, *shape, seed=0):
    dtype = np.float64 if jax.config.jax_enable_x64 else np.float32
    return jnp.asarray(np.random.RandomState(seed).randn(n, *shape).astype(dtype))


def jitted(net): return jax.jit(net[2], static_argnames='get')


class Program:
    "One call of a compiled kernel function"
    def __init__(self, k, *args, **kwargs): self.k, self.args, self.kwargs = k, args, kwargs
    def __call__(self): return self.k(*self.args, **self.kwargs)
    def planned(self):
        "MiB that XLA plans for what lies between inputs and result"
        return self.k.lower(*self.args, **self.kwargs).compile().memory_analysis().temp_size_in_bytes/2**20


# --- no library: what the two versions of JAX themselves take ------------------------------------------------
# Written as one would write them at a blackboard, the same lines for both, so that what differs is JAX and its compiler.

def plain(name, n, make): case(f'plain_{name}', n, n)(lambda nt: make())


def by_hand():
    "The NTK of `fcn3_1000_ntk`"
    def layer(q, k, d1, d2):
        q, k, d1, d2 = 2.25*q + .0025, 2.25*(k + q) + .0025, 2.25*d1 + .0025, 2.25*d2 + .0025
        r = jnp.sqrt(d1[:, None]*d2)
        c = jnp.clip(q/r, -1, 1)
        a = jnp.pi - jnp.arccos(c)
        return (r*jnp.sqrt(1 - c*c) + a*q)/(2*jnp.pi), k*a/(2*jnp.pi), d1/2, d2/2
    def kernel(x1, x2):
        q, d1, d2 = (jnp.einsum(e, x, y)/784 for e, x, y in (('ac,bc->ab', x1, x2), ('ac,ac->a', x1, x1), ('ac,ac->a', x2, x2)))
        k = jnp.zeros_like(q)
        for _ in range(3): q, k, d1, d2 = layer(q, k, d1, d2)
        return 2.25*(k + q) + .0025
    return Program(jax.jit(kernel), normal(1000, 784), normal(1000, 784, seed=1))


def filters(x, w): return jax.lax.conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def jacobians():
    "The NTK of `emp_cnn_16_jacobian_contraction_vmap0`"
    r = np.random.RandomState(7)
    params = [jnp.asarray(r.randn(*s), normal(1, 1).dtype) for s in ((3, 3, 3, 64), (3, 3, 64, 64), (3, 3, 64, 64), (64, 10))]
    def f(params, x):
        x = x[None]
        for w in params[:-1]: x = jax.nn.relu(filters(x, w)/(9*w.shape[2])**.5)
        return x.mean((0, 1, 2)) @ params[-1]/8
    def kernel(x1, x2):
        j1, j2 = (jax.vmap(jax.jacrev(f), (None, 0))(params, x) for x in (x1, x2))
        flat = lambda j: j.reshape(16, -1)
        return sum(flat(a) @ flat(b).T for a, b in zip(j1, j2))/10
    return Program(jax.jit(kernel), normal(16, 8, 8, 3), normal(16, 8, 8, 3, seed=1))


def kernels(n):
    "So many results, each of a few operations: a program of as many small kernels"
    return Program(jax.jit(lambda x: [(x + i)*x*x + i for i in range(1, n + 1)]), normal(300, 300))


plain('fcn3_1000', 1000, by_hand)
for n in (1, 24): plain(f'kernels_{n}', 300, functools.partial(kernels, n))
plain('conv_512', 512, lambda: Program(jax.jit(filters), normal(512, 8, 8, 64), normal(3, 3, 64, 64)))
plain('jacobians_16', 16, jacobians)


# --- fully connected ---------------------------------------------------------------------------------------

def fcn(nt, depth, act='Relu'):
    s = nt.stax
    hidden = [l for _ in range(depth) for l in (s.Dense(512, W_std=1.5, b_std=.05), getattr(s, act)())]
    return s.serial(*hidden, s.Dense(1, W_std=1.5, b_std=.05))


def dense(name, n, get, depth=3, act='Relu', sym=False):
    @case(name, n, n)
    def make(nt):
        k, a, b = jitted(fcn(nt, depth, act)), normal(n, 784), None if sym else normal(n, 784, seed=1)
        return Program(k, a, b, get=get)


dense('fcn3_1000_ntk', 1000, 'ntk')
dense('fcn3_1000_nngp_ntk', 1000, ('nngp', 'ntk'))
dense('fcn3_1000_sym_ntk', 1000, 'ntk', sym=True)
dense('fcn3_4000_ntk', 4000, 'ntk')
dense('fcn_erf5_1000_ntk', 1000, 'ntk', 5, 'Erf')


@case('fcn3_10x20_eager', 10, 20)
def eager(nt):
    k, a, b = fcn(nt, 3)[2], normal(10, 100), normal(20, 100, seed=1)
    return lambda: k(a, b, ('nngp', 'ntk'))


# --- images ------------------------------------------------------------------------------------------------

def images(name, net, n, sym=False):
    @case(name, n, n)
    def make(nt):
        k, a, b = jitted(net(nt.stax)), normal(n, 32, 32, 3), None if sym else normal(n, 32, 32, 3, seed=1)
        return Program(k, a, b, get='ntk')


def cnn21(s, top): return s.serial(*[s.Conv(1, (3, 3), (1, 1), 'SAME'), s.Relu()]*21, top)


def myrtle(s, depth):
    n = {5: (2, 1, 1), 10: (3, 3, 3)}[depth]
    conv = [s.Conv(1, (3, 3), W_std=2**.5, b_std=0., padding='SAME'), s.Relu()]
    pool = [s.AvgPool((2, 2), strides=(2, 2))]
    return s.serial(*conv*n[0], *pool, *conv*n[1], *pool, *conv*n[2], *pool*3, s.Flatten(), s.Dense(10, 2**.5, 0.))


def wide_resnet(s, blocks):
    def conv(n, stride=1): return s.Conv(n, (3, 3), (stride, stride), padding='SAME')
    def block(n, stride, first):
        main = s.serial(s.Relu(), conv(n, stride), s.Relu(), conv(n))
        return s.serial(s.FanOut(2), s.parallel(main, conv(n, stride) if first else s.Identity()), s.FanInSum())
    group = lambda n, stride: [block(n, stride if i == 0 else 1, i == 0) for i in range(blocks)]
    return s.serial(conv(16), *group(16, 1), *group(32, 2), *group(64, 2), s.AvgPool((8, 8)), s.Flatten(), s.Dense(10, 1., 0.))


images('cnn21_nopool_32', lambda s: cnn21(s, s.Flatten()), 32)
images('cnn21_gap_2', lambda s: cnn21(s, s.GlobalAvgPool()), 2)
images('cnn21_gap_4', lambda s: cnn21(s, s.GlobalAvgPool()), 4)
images('myrtle5_4', lambda s: myrtle(s, 5), 4)
images('myrtle10_4', lambda s: myrtle(s, 10), 4)
images('myrtle5_4_sym', lambda s: myrtle(s, 5), 4, sym=True)
images('wideresnet6_1', lambda s: wide_resnet(s, 6), 1) # 40 layers: what depth costs to compile
images('wideresnet4_4', lambda s: wide_resnet(s, 4), 4)


@case('attention_16', 16, 16)
def attention(nt):
    s = nt.stax
    k = jitted(s.serial(
        s.Conv(1, (3,), padding='SAME'), s.Relu(),
        s.GlobalSelfAttention(n_chan_out=1, n_chan_key=1, n_chan_val=1, n_heads=1, linear_scaling=True),
        s.Relu(), s.GlobalAvgPool(), s.Dense(1)))
    a, b = normal(16, 64, 16), normal(16, 64, 16, seed=1)
    return lambda: k(a, b, get='ntk')


# --- tiles -------------------------------------------------------------------------------------------------

def tiles(name, on_device, sym=False):
    @case(name, 2000, 2000)
    def make(nt):
        k = nt.batch(fcn(nt, 3)[2], batch_size=500, store_on_device=on_device)
        a, b = normal(2000, 784), None if sym else normal(2000, 784, seed=1)
        return lambda: k(a, b, 'ntk')


tiles('batch500_fcn3_2000_dev', True)
tiles('batch500_fcn3_2000_host', False)
tiles('batch500_fcn3_2000_sym_dev', True, sym=True)


# --- finite networks ---------------------------------------------------------------------------------------

def finite_fcn(s): return s.serial(s.Dense(512), s.Relu(), s.Dense(512), s.Relu(), s.Dense(10))


def finite_cnn(s):
    return s.serial(*[l for _ in range(3) for l in (s.Conv(64, (3, 3), padding='SAME'), s.Relu())], s.GlobalAvgPool(), s.Dense(10))


def empirical(name, net, n, shape, method, vmap):
    @case(name, n, n)
    def make(nt):
        init, f, _ = net(nt.stax)
        r = np.random.RandomState(7) # weights from NumPy too: JAX changed its generator between the versions
        params = jax.tree_util.tree_map(lambda p: jnp.asarray(r.randn(*p.shape), p.dtype), init(jax.random.PRNGKey(0), (1, *shape))[1])
        # What the older library calls its default is what a user of it gets who names no method.
        how = {} if method == 'AUTO' else dict(implementation=getattr(nt.NtkImplementation, method))
        k = jax.jit(nt.empirical_ntk_fn(f, vmap_axes=vmap, **how))
        a, b = normal(n, *shape), normal(n, *shape, seed=1)
        return Program(k, a, b, params)


for method in ('AUTO', 'JACOBIAN_CONTRACTION', 'NTK_VECTOR_PRODUCTS', 'STRUCTURED_DERIVATIVES'):
    for vmap in (None, 0):
        end = f"{method.lower()}{'' if vmap is None else '_vmap0'}"
        empirical(f'emp_fcn_64_{end}', finite_fcn, 64, (784,), method, vmap)
        empirical(f'emp_cnn_16_{end}', finite_cnn, 16, (8, 8, 3), method, vmap)


def sampled(name, get):
    @case(name, 64, 64, None) # both libraries draw their own networks
    def make(nt):
        init, f, _ = fcn(nt, 3)
        k = nt.monte_carlo_kernel_fn(init, f, jax.random.PRNGKey(0), 64)
        a, b = normal(64, 784), normal(64, 784, seed=1)
        return lambda: k(a, b, get)


sampled('mc64_fcn512_64', 'ntk')
sampled('mc64_fcn512_64_nngp', 'nngp')


# --- prediction --------------------------------------------------------------------------------------------

def data():
    y = np.random.RandomState(5).randn(1000, 10)
    return normal(1000, 784), jnp.asarray(y, normal(1, 1).dtype), normal(200, 784, seed=1)


def ensemble(name, times, cached):
    # Solving with a kernel of condition number c magnifies rounding c times: see the float32 errors in the table.
    @case(name, 1200, 1000, 1e-3)
    def make(nt):
        k, (x, y, x_test) = jitted(fcn(nt, 3)), data()
        t = None if times is None else jnp.asarray(np.logspace(-1, 3, times), x.dtype)
        predictor = functools.partial(nt.predict.gradient_descent_mse_ensemble, k, x, y, diag_reg=1e-4)
        ready = predictor() if cached else None
        return lambda: (ready or predictor())(t=t, x_test=x_test, get='ntk', compute_cov=True)


ensemble('predict_ens_tNone_e2e', None, False)
ensemble('predict_ens_t10_e2e', 10, False)
ensemble('predict_ens_tNone_cached', None, True)
ensemble('predict_ens_t10_cached', 10, True)


@case('gp_inference', 1200, 1000, 1e-3)
def gp(nt):
    k, (x, y, x_test), get = jitted(fcn(nt, 3)), data(), ('nngp', 'ntk')
    k_dd, k_td, k_tt = k(x, None, get=get), k(x_test, x, get=get), k(x_test, None, get='nngp')
    return lambda: nt.predict.gp_inference(k_dd, y, diag_reg=1e-4)(get=get, k_test_train=k_td, k_test_test=k_tt)
