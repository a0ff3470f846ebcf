"Predictions against recorded ones, scikit-learn, optax and their own laws"
import importlib.util, re
from pathlib import Path
from types import SimpleNamespace
import jax, numpy as np, pytest
from jax import numpy as jnp, random
from neural_tangents_nb import predict, solvers
from neural_tangents_nb.activations import Erf, Relu
from neural_tangents_nb.layer import serial
from neural_tangents_nb.core import test_close as close, test_mc as mc
from neural_tangents_nb.layer import Dense

NT = SimpleNamespace(stax=SimpleNamespace(serial=serial, Dense=Dense, Relu=Relu, Erf=Erf), predict=predict)


def recorded():
    path = Path(__file__).parent/'reference'/'predict_cases.py'
    spec = importlib.util.spec_from_file_location('predict_cases', path)
    module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)
    return module


CASES = recorded()
OURS = [n for n in CASES.CASES if n.startswith(('mse', 'ode', 'ensemble', 'gp', 'max'))]


@pytest.mark.parametrize('name', OURS)
def test_recorded(name):
    # The recorded ODE paths were integrated to 1.4e-8 a step, which is their accuracy; all else is closed form.
    assert CASES.check(NT, [name])[name] < (1e-6 if name.startswith('ode') else 1e-8)


@pytest.fixture(scope='module')
def problem():
    r = np.random.RandomState(0)
    x, xt = jnp.asarray(r.randn(9, 4)), jnp.asarray(r.randn(5, 4))
    return SimpleNamespace(x=x, xt=xt, y=jnp.asarray(np.sin(x[:, :2])), k=jax.jit(CASES.network(NT)[2], static_argnames='get'))


def ensemble(p, **kwargs): return predict.gradient_descent_mse_ensemble(p.k, p.x, p.y, **kwargs)


# ---------------------------------------------------------------- independent truths
def test_sklearn(problem):
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Kernel
    p, K = problem, np.asarray(problem.k(jnp.concatenate([problem.x, problem.xt]), None, 'nngp'))

    class Fixed(Kernel):
        "The kernel matrix of ours, looked up by index"
        def __init__(self): pass
        def __call__(self, X, Y=None, eval_gradient=False): return K[np.ix_(X[:, 0].astype(int), (X if Y is None else Y)[:, 0].astype(int))]
        def diag(self, X): return np.diag(K)[X[:, 0].astype(int)]
        def is_stationary(self): return False
    i = np.arange(14.)[:, None]
    gp = GaussianProcessRegressor(Fixed(), alpha=.1, optimizer=None).fit(i[:9], p.y)
    mean, std = gp.predict(i[9:], return_std=True)
    ours = predict.gp_inference(K[:9, :9], p.y, .1, True)('nngp', K[9:, :9], K[9:, 9:])
    close(np.asarray(ours.mean), mean, rtol=1e-10)
    close(np.sqrt(jnp.diagonal(ours.covariance)), std[:, 0], rtol=1e-10)
    close(float(predict.log_marginal_likelihood(K[:9, :9], p.y, .1, True)), float(gp.log_marginal_likelihood_value_), rtol=1e-10)
    mc(np.moveaxis(gp.sample_y(i[9:], 4000, 0), -1, 0), ours.mean)
    mc(predict.sample(random.PRNGKey(0), ours, 4000), mean)


def test_optax(problem):
    "A network linearized at initialization, trained by optax, follows the predicted outputs"
    optax = pytest.importorskip('optax')
    p, (init_fn, apply_fn, _) = problem, serial(Dense(32), Erf(), Dense(2))
    params = init_fn(random.PRNGKey(0), p.x.shape)[1]
    def linear(q, x): return sum(jax.jvp(lambda q: apply_fn(q, x), (params,), (jax.tree.map(jnp.subtract, q, params),)))
    flat = lambda x: jnp.concatenate([j.reshape(len(x), 2, -1) for j in jax.tree.leaves(jax.jacobian(apply_fn)(params, x))], -1)
    ntk = lambda x1, x2: jnp.einsum('iap,jbp->ijab', flat(x1), flat(x2))
    rate, sgd = .01, optax.sgd(.01)
    loss = lambda q: ((linear(q, p.x) - p.y)**2).mean()/2
    def step(_, s):
        up, state = sgd.update(jax.grad(loss)(s[0]), s[1])
        return optax.apply_updates(s[0], up), state
    f = predict.gradient_descent_mse(ntk(p.x, p.x), p.y, rate, trace_axes=())
    for steps in (200, 3000):
        q = jax.lax.fori_loop(0, steps, step, (params, sgd.init(params)))[0]
        a, b = f(steps, apply_fn(params, p.x), apply_fn(params, p.xt), ntk(p.xt, p.x))
        close(linear(q, p.x), a, rtol=1e-3); close(linear(q, p.xt), b, rtol=1e-3)


# ---------------------------------------------------------------- laws
TIMES = jnp.array([0., 1., 30., 1e3])


def test_covariances_are_psd_and_shrink(problem):
    out = ensemble(problem, diag_reg=1e-4)(TIMES, problem.xt, compute_cov=True)
    for c in (out.nngp.covariance, out.ntk.covariance): assert jnp.linalg.eigvalsh(c).min() > -1e-12
    v = jnp.diagonal(out.nngp.covariance, axis1=1, axis2=2)
    assert (v[1:] <= v[:-1] + 1e-14).all()
    close(out.ntk.covariance[0], problem.k(problem.xt, None, 'nngp'))
    close(out.ntk.mean[0], jnp.zeros((5, 2)))


@pytest.mark.parametrize('get', ['nngp', 'ntk'])
def test_time_to_infinity(problem, get):
    f = ensemble(problem, diag_reg=1e-3)
    end = f(None, problem.xt, get, True)
    for t in (1e9, jnp.inf): close(f(t, problem.xt, get, True), end, rtol=1e-9)
    close(ensemble(problem)(1e12, problem.x, get), problem.y, rtol=1e-5)
    close(f(None, None, get), problem.y)
    assert not f(None, None, get, True).covariance.any()
    k = problem.k(problem.x, None, ('nngp', 'ntk'))
    close(predict.gp_inference(k, problem.y, 1e-3)(get, problem.k(problem.xt, problem.x, ('nngp', 'ntk')),
                                                   problem.k(problem.xt, None, 'nngp')), end)


def test_equivariance(problem):
    p, order = problem, np.random.RandomState(1).permutation(9)
    want = ensemble(p, diag_reg=1e-3)(3., p.xt, 'ntk', True)
    perm = predict.gradient_descent_mse_ensemble(p.k, p.x[order], p.y[order], diag_reg=1e-3)(3., p.xt, 'ntk', True)
    close(perm, want, rtol=1e-11)
    R = jnp.array([[2., 1.], [-1., 3.]])
    close(predict.gradient_descent_mse_ensemble(p.k, p.x, p.y@R, diag_reg=1e-3)(3., p.xt, 'ntk'), want.mean@R, rtol=1e-11)


def test_variances_alone(problem):
    f = ensemble(problem, diag_reg=1e-3)
    for t in (None, TIMES, 2.):
        for xt in (problem.xt, None):
            full, diag = f(t, xt, compute_cov=True), f(t, xt, compute_cov='diag')
            for a, b in zip(full, diag):
                close(b.mean, a.mean); close(b.variance, jnp.diagonal(a.covariance, axis1=-2, axis2=-1), rtol=1e-10)


def test_traced_output_axes():
    "A kernel K x I written out in full gives what `trace_axes` gives, for two output axes, of which one is shared"
    r = np.random.RandomState(0)
    j, y = r.randn(6, 20), jnp.asarray(r.randn(6, 3, 2))
    k = jnp.asarray(j@j.T)
    full = jnp.einsum('ij,ab->ijab', k, jnp.eye(3))
    short = predict.gradient_descent_mse(k[:4, :4], y[:4], trace_axes=(-1, -2))(TIMES, 0., 0., k[4:, :4])
    long = predict.gradient_descent_mse(full[:4, :4], y[:4], trace_axes=-1)(TIMES, 0., 0., full[4:, :4])
    for a, b in zip(short, long): close(a, b, rtol=1e-11)
    gp = predict.gp_inference(full[:4, :4], y[:4])('nngp', full[4:, :4], full[4:, 4:])
    assert gp.covariance.shape == (2, 2, 3, 3)
    assert predict.sample(random.PRNGKey(0), gp, 3).shape == (3, 2, 3, 2)
    loo, one = (predict.leave_one_out(k, y, .1, trace_axes=t) for k, t in ((full, -1), (k, (-1, -2))))
    close(loo.mean, one.mean, rtol=1e-11); close(loo.variance[:, 1], one.variance, rtol=1e-11)


def test_duplicates_have_limits(problem):
    p, twice = problem, [0, 0, 1, 2]
    f = predict.gradient_descent_mse_ensemble(p.k, p.x[jnp.array(twice)], p.y[jnp.array([3, 4, 1, 2])])
    with pytest.raises(np.linalg.LinAlgError, match='smallest eigenvalue'): f(None, p.xt, 'ntk')
    out = f(jnp.array([0., 1., 1e6, jnp.inf]), p.xt, compute_cov=True)
    assert all(jnp.isfinite(a).all() for a in jax.tree.leaves(out))
    # At the limit two contradicting labels act as one, their mean.
    mean = predict.gradient_descent_mse_ensemble(p.k, p.x[:3], jnp.stack([(p.y[3]+p.y[4])/2, p.y[1], p.y[2]]))
    close(out.ntk.mean[-1], mean(None, p.xt, 'ntk'), rtol=1e-7)
    with pytest.warns(UserWarning, match='added'):
        auto = predict.gradient_descent_mse_ensemble(p.k, p.x[jnp.array(twice)], p.y[jnp.array(twice)], diag_reg='auto')(None, p.xt, 'ntk')
    close(auto, predict.gradient_descent_mse_ensemble(p.k, p.x[:3], p.y[:3])(None, p.xt, 'ntk'), rtol=1e-6)


def test_noise_per_point(problem):
    k, r = problem.k(problem.x, None, 'nngp'), jnp.linspace(.1, 1, 9)
    a = predict.gp_inference(k, problem.y, r, True)('nngp', k)
    close(a, k@jnp.linalg.solve(k + jnp.diag(r), problem.y), rtol=1e-11)
    close(predict.gp_inference(k, problem.y, jnp.full(9, .1))('nngp', k), predict.gp_inference(k, problem.y, .1)('nngp', k))


@pytest.mark.parametrize('t', [None, 2., [[0., 1.], [3., 30.]], np.inf])
def test_times_and_train_points(problem, t):
    "Any shape of times, on test and on train points, is the times one by one"
    f = ensemble(problem, diag_reg=1e-3)
    for xt in (problem.xt, None):
        out = f(t, xt, compute_cov=True)
        for i in np.ndindex(np.shape(t or 0.)):
            one = f(None if t is None else np.asarray(t)[i], xt, compute_cov=True)
            for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(one)): close(a[i], b, rtol=1e-10)


@pytest.mark.parametrize('t', [None, 5., np.geomspace(.1, 1e3, 5), np.geomspace(.1, 1e3, 60)])
def test_more_points_than_a_block(t):
    "Symmetric products are halved by blocks: the formula in full, by eigenvalues, at a size that has several"
    r = np.random.RandomState(0)
    a, b = r.randn(390, 500), r.randn(390, 450)
    ntk, nngp = a@a.T/500, b@b.T/450
    k = lambda x1, x2, get: jax.tree.map(jnp.asarray, {'nngp': nngp, 'ntk': ntk}[get][np.ix_(x1[:, 0], (x1 if x2 is None else x2)[:, 0])] if isinstance(get, str)
                                         else tuple(k(x1, x2, g) for g in get))
    i, y = np.arange(390)[:, None], jnp.asarray(r.randn(350, 2))
    f = predict.gradient_descent_mse_ensemble(k, i[:350], y, diag_reg=1e-2)
    l, v = np.linalg.eigh(ntk[:350, :350] + 1e-2*np.diag(ntk)[:350].mean()*np.eye(350))
    for cov in (True, 'diag'):
        out = f(t, i[350:], 'ntk', cov)
        for j in np.ndindex(np.shape(0. if t is None else t)):
            decay = 0. if t is None else np.exp(-l*np.asarray(t)[j]/y.size)
            A = ntk[350:, :350]@(v*((1 - decay)/l))@v.T
            full = np.block([-A, np.eye(40)])@nngp@np.block([-A, np.eye(40)]).T
            close(out.mean[j], A@y, rtol=1e-9)
            close(out[1][j], full if cov is True else np.diag(full), rtol=1e-9)


def test_kernels_of_any_origin(problem):
    "Batched and empirical ones, and Monte Carlo estimates, are predicted with as the arrays they compute"
    from neural_tangents_nb import batch, empirical_kernel_fn, monte_carlo_kernel_fn
    p, (init_fn, apply_fn, kernel_fn) = problem, CASES.network(NT)
    params = init_fn(random.PRNGKey(0), p.x.shape)[1]
    empirical = empirical_kernel_fn(apply_fn)
    origins = dict(batched=(batch(kernel_fn, 3), {}), empirical=(empirical, dict(params=params)),
                   sampled=(monte_carlo_kernel_fn(init_fn, apply_fn, random.PRNGKey(1), 4), {}))
    get = 'nngp', 'ntk'
    for k, kwargs in origins.values():
        x, xt = (p.x[:6], p.xt[:3]) if k is origins['batched'][0] else (p.x, p.xt)
        f = predict.gradient_descent_mse_ensemble(k, x, p.y[:len(x)], diag_reg=1e-3, **kwargs)
        a, b, c = k(x, None, get, **kwargs), k(xt, x, get, **kwargs), k(xt, None, 'nngp', **kwargs)
        close(f(None, xt, get, True), predict.gp_inference(a, p.y[:len(x)], 1e-3)(get, b, c), rtol=1e-9)
        close(f(1e9, xt, get, True), f(None, xt, get, True), rtol=1e-6)


# ---------------------------------------------------------------- many times from a few
MANY = np.concatenate([[0., np.inf, 3., 0., 3.], np.geomspace(1e-3, 1e6, 55)]).reshape(6, 10)


@pytest.mark.parametrize('get', ['nngp', 'ntk'])
@pytest.mark.parametrize('twice', [False, True])
def test_many_times(problem, get, twice):
    "Covariances that are combined are those of each time alone: with the first and the last time, times that repeat, a singular kernel"
    p, i = problem, jnp.array([0, 0, 1, 2, 3, 4, 5] if twice else range(9))
    f = predict.gradient_descent_mse_ensemble(p.k, p.x[i], p.y[i], diag_reg=0. if twice else 1e-4)
    for xt in (p.xt, None):
        out, var = f(MANY, xt, get, True), f(MANY, xt, get, 'diag')
        prior = p.k(p.xt if xt is not None else p.x[i], None, 'nngp')
        flat = out.covariance.reshape(60, *prior.shape)
        assert jnp.linalg.eigvalsh(flat).min() > -1e-13*prior.max()
        if (prior == prior.mT).all(): assert (flat == flat.mT).all() # the prior's own rounding is not ours
        close(var.variance, jnp.diagonal(out.covariance, axis1=-2, axis2=-1), rtol=1e-11)
        for j in np.ndindex(MANY.shape):
            one = f(MANY[j], xt, get, True)
            close(out.mean[j], one.mean, rtol=1e-10)
            assert abs(out.covariance[j] - one.covariance).max() < 1e-13*prior.max()
        if xt is not None: assert (flat[0] == prior).all() and (flat[3] == flat[0]).all() and (flat[4] == flat[2]).all()
        if get == 'nngp' and xt is not None: assert (jnp.diagonal(flat, axis1=1, axis2=2) <= prior.diagonal() + 1e-14*prior.max()).all()


def test_many_times_are_few_covariances(problem, monkeypatch):
    "What is computed at a thousand times is the covariance at some tens of them, and at each where times are traced"
    asked, moments = [], predict.moments
    monkeypatch.setattr(predict, 'moments', lambda solver, s, *a: asked.append(None if a[3:] == () else s.size) or moments(solver, s, *a))
    f, t = ensemble(problem, diag_reg=1e-3), np.geomspace(.1, 1e3, 1000)
    close(f(t, problem.xt, 'ntk', 'diag'), jax.jit(lambda t: f(t, problem.xt, 'ntk', 'diag'))(t), rtol=1e-11)
    assert asked[0] is None and 8 < asked[1] < 60 and asked[2:] == [1000]
    asked.clear(); f(t[:31], problem.xt, 'ntk', 'diag'); f(t, problem.xt, 'ntk')
    assert asked == [31, 1000] # few times, and a mean alone, by the formula


@pytest.mark.parametrize('dtype', ['f4', 'f8'])
@pytest.mark.parametrize('decades', [1, 6, 12, 20])
def test_a_few_times_span_all(dtype, decades):
    "Products of any two eigenvalues' functions of time, in NumPy, from those at the times taken; the numbers that combine them are small"
    r, eps = np.random.RandomState(decades), np.finfo(dtype).eps
    l = np.sort(np.append(10**-r.uniform(0, decades, 80), [0, -eps])).astype(dtype)
    s = np.append(10**r.uniform(-3, 3, 200), [0, np.inf, 1, 1]).astype(dtype)
    few, c = predict.spanning(l, s)
    assert len(few) < 110 and abs(c).max() < 5 and abs(c).sum(1).max() < 60
    l, s = np.maximum(l, 0).astype(float), s.astype(float)[:, None]
    with np.errstate(all='ignore'): f = np.where(l == 0, s, -np.expm1(-l*s)/l)
    f[-3] = np.where(l > 10*eps*l.max(), 1/np.maximum(l, 1e-300), 0)
    f = f/f.max(0)
    for a in (f, (f[:, :, None]*f[:, None]).reshape(len(s), -1)): assert abs(c@a[few] - a).max() < max(30*eps, 1e-13)


def test_slopes_at_many_times(problem):
    "By test inputs, through covariances that are combined, against each time alone"
    p, t = problem, np.geomspace(.1, 1e3, 40)
    f = ensemble(p, diag_reg=1e-3)
    slope = lambda ts: jax.grad(lambda xt: sum((f(t, xt, 'ntk', 'diag').variance**2).sum() for t in ts))(p.xt)
    close(slope([t]), slope([t[:20], t[20:]]), rtol=1e-9)


# ---------------------------------------------------------------- transformations
def test_jit_grad_vmap(problem):
    p, f = problem, ensemble(problem, diag_reg=1e-3)
    want = f(TIMES, p.xt, 'ntk', True)
    close(jax.jit(lambda t, xt: ensemble(p, diag_reg=1e-3)(t, xt, 'ntk', True))(TIMES, p.xt), want, rtol=1e-11)
    close(jax.vmap(lambda t: f(t, p.xt, 'ntk', True))(TIMES), want, rtol=1e-11)
    k, td = p.k(p.x, None, 'ntk'), p.k(p.xt, p.x, 'ntk')
    for t in (None, 4.):
        g = jax.jit(lambda e: (predict.gradient_descent_mse(k + e*td.T@td, p.y, diag_reg=e)(t, None, 0., td)**2).sum())
        close(jax.grad(g)(.1), (g(.1+1e-5) - g(.1-1e-5))/2e-5, rtol=1e-6)
    g = lambda t: f(t, p.xt, 'ntk').sum()
    close(jax.grad(g)(4.), (g(4+1e-5) - g(4-1e-5))/2e-5, rtol=1e-6)
    g = jax.jit(lambda r: predict.log_marginal_likelihood(k, p.y, r))
    close(jax.vmap(jax.grad(g))(jnp.array([.1, .3])), (g(.1+1e-5) - g(.1-1e-5))/2e-5*jnp.array([1, 0.])
          + (g(.3+1e-5) - g(.3-1e-5))/2e-5*jnp.array([0, 1.]), rtol=1e-6)


def test_caches(problem):
    "The reference failed on the second call; and a call under `jit` must leave nothing behind"
    calls = []
    def k(x1, x2, get): calls.append(x2 is None); return problem.k(x1, x2, get)
    f = predict.gradient_descent_mse_ensemble(k, problem.x, problem.y)
    jax.jit(lambda xt: f(None, xt, 'ntk'))(problem.xt)
    a, b = f(None, problem.xt, 'ntk'), f(None, problem.xt, 'ntk', True)
    close(a, b.mean)
    calls.clear(); f(2., problem.xt); f(None, problem.xt)
    assert not any(calls)


def test_kernel_arguments(problem):
    def k(x1, x2, get, pattern=None, scale=1.): 
        more = 0 if pattern is None else pattern[0][:, None]*pattern[1]
        return jax.tree.map(lambda k: scale*k + more, problem.k(x1, x2, get))
    a, b = jnp.linspace(0, 1, 9), jnp.linspace(1, 2, 5)
    f = predict.gradient_descent_mse_ensemble(k, problem.x, problem.y, pattern=(a, a))
    K = k(problem.x, None, 'nngp', (a, a)), k(problem.xt, problem.x, 'nngp', (b, a)), k(problem.xt, None, 'nngp', (b, b))
    close(f(None, problem.xt, 'nngp', True, pattern=(b, b)), predict.gp_inference(K[0], problem.y)('nngp', K[1], K[2]))
    with pytest.raises(ValueError, match='scale differs'):
        predict.gradient_descent_mse_ensemble(k, problem.x, problem.y, scale=1.)(None, problem.xt, scale=2.)


def test_float32(problem):
    p = jax.tree.map(lambda a: a.astype(jnp.float32), (problem.x, problem.y, problem.xt))
    single = lambda x1, x2, get: jax.tree.map(lambda k: k.astype(jnp.float32), problem.k(x1, x2, get))
    f = predict.gradient_descent_mse_ensemble(single, p[0], p[1], diag_reg=1e-2)
    for t in (None, 20.):
        out, want = f(t, p[2], compute_cov=True), ensemble(problem, diag_reg=1e-2)(t, problem.xt, compute_cov=True)
        assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(out))
        # Condition numbers of some hundreds times the rounding error of the kernel.
        for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(want)): close(a, b, rtol=1e-4, dtype=False)


# ---------------------------------------------------------------- programs
def test_a_hundred_times_are_few_programs(problem, caplog):
    "Two products, the posterior twice and what combines it; and training for ever, of numbers, takes none"
    f = ensemble(problem, diag_reg=1e-3)
    f(1., problem.xt, 'ntk', True)
    compiled = lambda: [m for m in caplog.messages if m.startswith('Finished XLA compilation') and 'stage' not in m]
    with jax.log_compiles(): f(np.geomspace(.1, 1e3, 97), problem.xt, 'ntk', True)
    assert 0 < len(compiled()) <= 5
    caplog.clear()
    k, td, tt = (problem.k(a, b, ('nngp', 'ntk')) for a, b in ((problem.x, None), (problem.xt, problem.x), (problem.xt, None)))
    caplog.clear()
    with jax.log_compiles(): predict.gp_inference(k, problem.y, 1e-3)(None, td, tt)
    assert not compiled()


# ---------------------------------------------------------------- any loss
def soft(f, y): return -(jax.nn.log_softmax(f)*y).mean()


def test_any_loss_under_transformations(problem):
    "By pmap and by vmap the same path, and in the kernel and in time the slopes that differences have"
    p, k = problem, problem.k(problem.x, None, 'ntk')
    path = lambda k, t: predict.gradient_descent(soft, k, jax.nn.softmax(p.y))(t)
    want = path(k, 9.)
    close(jax.pmap(path, in_axes=(0, None))(k[None], 9.)[0], want, rtol=1e-10)
    close(jax.vmap(path, (0, None))(jnp.stack([k, 2*k]), 9.)[0], want, rtol=1e-10)
    f = jax.jit(lambda e, t: (path(k + e*p.y@p.y.T, t)**2).sum())
    # The path is known to 1e-9 and a bit, which differences divide by twice their step.
    h, slopes = 1e-3, jax.jit(jax.grad(f, (0, 1)))(0., 9.)
    close(slopes, ((f(h, 9.) - f(-h, 9.))/(2*h), (f(0., 9. + h) - f(0., 9. - h))/(2*h)), rtol=1e-5)


def test_a_stiff_flow_comes_to_rest():
    "Rates over six decades, in some hundred steps: one that follows the fastest of them takes millions"
    r = np.random.RandomState(0)
    q = np.linalg.qr(r.randn(8, 8))[0]
    y = jax.nn.softmax(jnp.asarray(r.randn(8, 3)))
    end = predict.gradient_descent(soft, (q*np.geomspace(1e-5, 10, 8))@q.T, y, max_steps=400)(None)
    close(jax.nn.softmax(end), y, rtol=1e-5)


def test_more_outputs_than_have_a_jacobian(problem):
    "An explicit method, against the closed form"
    k, y = problem.k(problem.x, None, 'ntk'), jnp.asarray(np.random.RandomState(0).randn(9, 70))
    mse = lambda f, y: ((f - y)**2).mean()/2
    close(predict.gradient_descent(mse, k, y)(100.), predict.gradient_descent_mse(k, y)(100.), rtol=1e-8)


# ---------------------------------------------------------------- bad input
K4 = np.eye(4) + 1.
Y4 = np.ones((4, 1))
BAD = {
    'integer targets': (TypeError, 'centred_labels', lambda: predict.gp_inference(K4, np.arange(4)[:, None])),
    'complex targets': (TypeError, 'y_train. is complex', lambda: predict.gp_inference(K4, Y4 + 1j)),
    'NaN targets': (ValueError, 'y_train. has NaN', lambda: predict.gp_inference(K4, Y4*np.nan)),
    'NaN kernel': (ValueError, 'k_train_train. has NaN', lambda: predict.gradient_descent_mse(K4*np.nan, Y4)),
    'NaN test kernel': (ValueError, 'k_test_train. has NaN', lambda: predict.gp_inference(K4, Y4)('nngp', K4*np.nan)),
    'empty': (ValueError, 'empty', lambda: predict.gp_inference(K4, np.ones((0, 1)))),
    'not square': (ValueError, 'need', lambda: predict.gradient_descent_mse(K4[:3], Y4)),
    'not symmetric': (ValueError, 'symmetric', lambda: predict.gradient_descent_mse(np.triu(K4), Y4)),
    'wrong test kernel': (ValueError, 'need', lambda: predict.gp_inference(K4, Y4)('nngp', K4[:, :3])),
    'no output axis': (ValueError, 'batch axis', lambda: predict.gp_inference(K4, np.ones(4))),
    'unknown get': (ValueError, 'get must be one of', lambda: predict.gp_inference(K4, Y4)('gp')),
    'ntkgp ensemble': (NotImplementedError, 'gp_inference', lambda: predict.gradient_descent_mse_ensemble(lambda *a: K4, Y4, Y4)(get='ntkgp')),
    'lengths': (ValueError, 'x_train has 3 points', lambda: predict.gradient_descent_mse_ensemble(lambda *a: K4, Y4[:3], Y4)),
    'NaN inputs': (ValueError, 'x_test. has NaN', lambda: predict.gradient_descent_mse_ensemble(lambda *a: K4, Y4, Y4)(None, Y4*np.nan)),
    'negative noise': (ValueError, 'diag_reg', lambda: predict.gp_inference(K4, Y4, -1.)),
    'negative time': (ValueError, 'negative', lambda: predict.gradient_descent_mse(K4, Y4)(-1.)),
    'compute_cov': (ValueError, 'compute_cov', lambda: predict.gradient_descent_mse_ensemble(lambda *a: K4, Y4, Y4)(compute_cov='full')),
    'singular': (np.linalg.LinAlgError, 'smallest eigenvalue', lambda: predict.gp_inference(np.ones((4, 4)), Y4)('nngp', K4)),
    'former gp_inference': (TypeError, '2019', lambda: predict.gp_inference(lambda *a: K4, Y4, Y4, Y4, get='ntk')),
    'former mse': (TypeError, '2019', lambda: predict.gradient_descent_mse(K4, Y4, K4)),
    'former ode': (TypeError, '2019', lambda: predict.gradient_descent(K4, Y4, lambda f, y: 0.)),
    'former ensemble': (TypeError, 'predict_fn|2019|compute_cov', lambda: predict.gradient_descent_mse_ensemble(lambda *a: K4, Y4, Y4, Y4)),
    'state and test': (ValueError, 'ODEState', lambda: predict.gradient_descent(lambda f, y: f.sum(), K4, Y4)(1., predict.ODEState(Y4), 0., K4)),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_input(name):
    error, words, call = BAD[name]
    with pytest.raises(error, match=words): call()


def test_under_jit_nothing_raises_but_nan():
    "Documented: a traced singular kernel cannot raise and gives NaN"
    f = jax.jit(lambda k: predict.gp_inference(k, jnp.asarray(Y4))('nngp', k))
    assert jnp.isnan(f(jnp.ones((4, 4)) - jnp.eye(4))).all()


def test_solver_interface():
    k = jnp.asarray(K4)
    for solver in (solvers.Cholesky.of(k), solvers.Eigh.of(k)):
        close(solver.solve(jnp.asarray(Y4)), jnp.linalg.solve(k, Y4)); close(solver.logdet(), jnp.linalg.slogdet(k)[1])


def test_scores_name_what_is_wrong():
    p = jnp.array([[.2, .8], [.5, .5]])
    for labels in ([0, 2], [-1, 0]):
        with pytest.raises(ValueError, match='labels'): predict.nll(p, jnp.array(labels))
    with pytest.raises(ValueError, match='probabilities'): predict.nll(p - .3, jnp.array([0, 1]))
    with pytest.raises(ValueError, match='empty'): predict.centred_labels(jnp.array([], int))
    gaussian = predict.Gaussian(jnp.zeros(2), jnp.eye(2))
    with pytest.raises(ValueError, match='`n`'): predict.sample(jax.random.key(0), gaussian, -1, traced=0)
    for y, reg, error in [('y', 0., TypeError), (None, 0., TypeError), (jnp.ones((2, 1)), 'a', ValueError)]:
        with pytest.raises(error, match='y_train|diag_reg'): predict.gp_inference(jnp.eye(2), y, reg)

def test_class_probabilities_are_linear_in_classes():
    "No array has an entry for each pair of classes; two classes far apart are a Gaussian tail"
    m = 7*jnp.sin(jnp.arange(300.)).reshape(3, 100)
    jaxpr = jax.make_jaxpr(lambda m: predict.class_probabilities(predict.Marginals(m, jnp.ones(3))))(m)
    assert not re.search(r'\[(\d+,)*100,100\]', str(jaxpr))
    for gap in 1., 5., 12.: # sums to p(first largest) = Phi(gap/sqrt 2); the quadrature is exact to rounding while the tail is on its grid
        p = predict.class_probabilities(predict.Marginals(jnp.array([[gap, 0.]]), jnp.ones(1)))
        np.testing.assert_allclose(p[0, 1], jax.scipy.special.ndtr(-gap/2**.5), rtol=1e-8)
