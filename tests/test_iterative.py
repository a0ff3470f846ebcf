"Solvers that know products only: against factorizations, on every kind of kernel matrix, and where they must refuse"
import functools as ft

import jax, numpy as np, pytest
from jax import numpy as jnp

import neural_tangents_nb as nt
from neural_tangents_nb.core import select
from neural_tangents_nb.predict import gp_inference, gradient_descent, gradient_descent_mse_ensemble, leave_one_out, log_marginal_likelihood
from neural_tangents_nb.solvers import CG, Cholesky, LowRank, Woodbury, nystrom, pivoted_cholesky
from neural_tangents_nb.tiles import KernelMatrix, Tiled, Whole

rng = np.random.RandomState(0)
X, X2, Y = rng.randn(60, 4), rng.randn(9, 4), rng.randn(60, 2)
R = 1e-2


def kernel(x1, x2, get='nngp'):
    "Two different kernels that compile fast"
    z = x1 if x2 is None else x2
    one = dict(nngp=lambda: jnp.exp(-((x1[:, None] - z[None])**2).sum(-1)/4), ntk=lambda: (1 + x1@z.T)**2)
    return one[get]() if isinstance(get, str) else jax.tree.map(lambda g: one[g](), tuple(get))


K = kernel(X, None)


def matrices(tmp_path):
    return dict(whole=Whole(K), stored=nt.store(tmp_path/'k', kernel, X, get='nngp', tile=17), tiled=Tiled(kernel, X, get='nngp', batch_size=17))


def test_every_kind_of_matrix(tmp_path):
    "A kernel in memory, on disk and never formed have one product, one diagonal, one solution and one determinant"
    exact, b = Cholesky.of(K + R*jnp.eye(60)), Y
    for name, k in matrices(tmp_path).items():
        np.testing.assert_allclose(k.matmul(Y), K@Y, rtol=1e-12, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(k.diagonal(), jnp.diagonal(K), rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(k[5:9], K[5:9], rtol=1e-12, atol=1e-13, err_msg=name)
        solver = CG(k, R, rank=20)
        np.testing.assert_allclose(solver.solve(b), exact.solve(b), rtol=1e-6, atol=1e-7, err_msg=name)
        assert np.linalg.norm((K + R*np.eye(60))@solver.solve(b) - b, axis=0).max() < 1e-9*np.linalg.norm(b, axis=0).max()
        assert solver.report.residual <= 1e-9 and solver.report.products == len(solver.report.residuals)
    e = solver.logdet_estimate()
    assert abs(e.value - exact.logdet()) < 5*e.error + 1e-8


def test_single_precision():
    "A kernel in single precision, of a condition number of a million, to a residual far below its rounding"
    k = np.asarray(K + 5, np.float32)
    for x64 in (True, False):
        with jax.enable_x64(x64):
            x = CG(Whole(k), 1e-4, rtol=1e-8, rank=20).solve(Y)
            never = Tiled(lambda a, b, get: kernel(a, b) + 5, X.astype('f4'), batch_size=17)
            assert never.matmul(Y).dtype == np.float64
            np.testing.assert_allclose(never.matmul(Y), k.astype('f8')@Y, rtol=1e-5 if not x64 else 1e-4, atol=1e-4)
        a = k.astype('f8') + 1e-4*np.eye(60)
        assert np.linalg.norm(a@x - Y, axis=0).max() < 1e-8*np.linalg.norm(Y, axis=0).max()*1.001


@pytest.mark.parametrize('factor', [pivoted_cholesky, nystrom])
def test_the_preconditioner_saves_products(factor):
    "A smooth kernel, most of which a rank of 30 explains, needs less than half of the products"
    smooth = Whole(jnp.exp(-((X[:, None] - X[None])**2).sum(-1)/40))
    plain, helped = CG(smooth, 1e-3, rank=0), CG(smooth, 1e-3, rank=30, factor=factor)
    for s in (plain, helped): s.solve(Y)
    assert helped.report.products < plain.report.products/2


def test_a_recursion_that_deceives_itself_is_found():
    "Products with an error: the residual of the recursion goes to zero, that of the solution does not, and this is what counts"
    class Inexact(Whole):
        calls = 0
        def matmul(self, v):
            Inexact.calls += 1
            return super().matmul(v)*(1 + 1e-4*(-1)**Inexact.calls)
    with pytest.raises(np.linalg.LinAlgError, match='relative residual'): CG(Inexact(K), R, rank=20, rtol=1e-9).solve(Y)


def test_noise_of_each_point():
    noise = np.linspace(.01, 2, 60)
    np.testing.assert_allclose(CG(Whole(K), noise, rank=20).solve(Y), np.linalg.solve(K + np.diag(noise), Y), rtol=1e-6, atol=1e-7)


def test_a_zero_column_and_duplicates():
    "A right-hand side of zeros, and points that are there twice"
    twice = np.r_[0:30, 0:30]
    b = np.c_[np.zeros(60), rng.randn(60)]
    x = CG(Whole(K[twice][:, twice]), .1, rank=20).solve(b)
    assert (x[:, 0] == 0).all()
    np.testing.assert_allclose(x, np.linalg.solve(K[twice][:, twice] + .1*np.eye(60), b), atol=1e-7)


@pytest.mark.parametrize('factor', [pivoted_cholesky, nystrom])
def test_low_rank_kernels_are_found(factor):
    "A kernel of rank 5 is all in 8 columns, and what is left is positive semi-definite"
    f = rng.randn(60, 5)
    got = factor(Whole(f@f.T), 8)
    np.testing.assert_allclose(got@got.T, f@f.T, atol=1e-6)
    part = factor(Whole(K), 8)
    assert np.linalg.eigvalsh(K - part@part.T).min() > -1e-7


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_nystrom_takes_off_what_it_adds(dtype):
    "Of the multiple of the identity with which it factors a kernel of rank 5, nothing is left in the other columns"
    f = rng.randn(60, 5)
    part = np.asarray(nystrom(Whole(jnp.asarray(f@f.T, dtype)), 8), np.float64)
    # What it adds is 77 roundings of a norm that is about a third of the kernel's.
    assert np.sort((part**2).sum(0))[:3].max() < 5*np.finfo(dtype).eps*np.linalg.norm(f@f.T, 2)


@pytest.mark.parametrize('probes', [4, 16])
def test_the_error_bar_of_the_determinant(probes):
    "Over 40 keys the estimates scatter about the determinant by as much as their error bars say"
    exact, solver = Cholesky.of(K + R*jnp.eye(60)).logdet(), CG(Whole(K), R, rank=5)
    values, errors = np.array([solver.logdet_estimate(probes, key=jax.random.key(i)) for i in range(40)]).T
    # The scatter is known to 1/sqrt(80) = 11 %, the mean square of the error bars to less; four of these either way.
    ratio = np.sqrt(((values - exact)**2).mean()/(errors**2).mean())
    assert 1/1.5 < ratio < 1.5


@pytest.mark.parametrize('get', ['nngp', 'ntk', 'ntkgp'])
def test_inference(get):
    "Mean, variance and covariance as by Cholesky, for kernels never formed and by conjugate gradients in memory"
    whole = lambda a, b: select(('nngp', 'ntk'), lambda g: kernel(a, b, g))
    tiled = lambda a, b: select(('nngp', 'ntk'), lambda g: Tiled(kernel, a, b, g, batch_size=17))
    exact = gp_inference(whole(X, None), Y, .1)
    for how, k, solver in (('tiled', tiled, 'auto'), ('memory', whole, ft.partial(CG, rank=20))):
        got = gp_inference(k(X, None), Y, .1, solver=solver)
        test, cov = whole(X2, X) if how == 'memory' else k(X2, X), whole(X2, None)
        for compute_cov in (False, True, 'diag'):
            a, b = got(get, test, cov, compute_cov), exact(get, whole(X2, X), cov, compute_cov)
            for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b)): np.testing.assert_allclose(u, v, rtol=1e-6, atol=1e-7, err_msg=how)


def test_a_stored_kernel_predicts(tmp_path):
    "Train and test kernels on disk; the likelihood to its error bar"
    train, test = nt.store(tmp_path/'a', kernel, X, get='nngp', tile=17), nt.store(tmp_path/'b', kernel, X2, X, 'nngp', tile=17)
    mean = gp_inference(train, Y, .1)('nngp', test)
    np.testing.assert_allclose(mean, gp_inference(K, Y, .1)('nngp', kernel(X2, X)), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(log_marginal_likelihood(train, Y, .1), log_marginal_likelihood(K, Y, .1), rtol=1e-2)


def test_features_predict():
    "A kernel of low rank is solved exactly"
    f, f2 = rng.randn(60, 7), rng.randn(9, 7)
    got = gp_inference(LowRank(f), Y, .1)('nngp', LowRank(f2, f), LowRank(f2), 'diag')
    exact = gp_inference(f@f.T, Y, .1)('nngp', f2@f.T, f2@f2.T, 'diag')
    np.testing.assert_allclose(got.mean, exact.mean, rtol=1e-9)
    np.testing.assert_allclose(got.variance, exact.variance, rtol=1e-8, atol=1e-10)


def test_tracing_is_refused():
    "Conjugate gradients under jit or grad say what to do instead; Cholesky goes through both"
    tiled, test = Tiled(kernel, X, get='nngp', batch_size=17), kernel(X2, X)
    mean = lambda k, y, solver: gp_inference(k, y, .1, solver=solver)('nngp', test)
    for trace in (jax.jit, jax.grad):
        total = lambda f: trace(lambda a: f(a).sum())
        for f, a in ((lambda y: mean(tiled, y, 'auto'), Y), (lambda y: mean(K, y, 'cg'), Y), (lambda k: mean(k, Y, 'cg'), K),
                     (lambda v: tiled@v, Y), (lambda y: CG(K, .1).solve(y), Y)):
            with pytest.raises(TypeError, match="cannot be traced.*solver='cholesky'"): total(f)(jnp.asarray(a))
        total(lambda y: mean(K, y, 'cholesky'))(jnp.asarray(Y))


def test_refusals(monkeypatch):
    k = Tiled(kernel, X, get='nngp', batch_size=17)
    with pytest.raises(ValueError, match='needs the kernel in memory'): leave_one_out(k, Y)
    with pytest.raises(ValueError, match='needs the kernel in memory'): gp_inference(k, Y, .1, solver='cholesky')('nngp', K[:3])
    with pytest.raises(ValueError, match='needs the kernel in memory'): gradient_descent(lambda f, y: ((f - y)**2).sum(), k, Y)
    with pytest.raises(ValueError, match='give a number'): gp_inference(k, Y, 'auto')('nngp', K[:3])
    with pytest.raises(ValueError, match='59 train points'): gp_inference(k, Y[1:], .1)('nngp', K[:3, 1:])
    with pytest.raises(NotImplementedError, match='share one kernel'): gp_inference(k, Y, .1, trace_axes=())('nngp', Tiled(kernel, X2, X, 'nngp', 17))
    with pytest.raises(ValueError, match="`solver` must be 'auto'"): gp_inference(K, Y, solver='lu')
    with pytest.raises(ValueError, match='`rank` must be'): CG(k, rank=61)
    with pytest.raises(ValueError, match=r'shape \(60, m\)'): CG(k).solve(Y[:, 0])
    with pytest.raises(np.linalg.LinAlgError, match='noise'): CG(Whole(K - 2*jnp.eye(60)), 0., rank=5, max_products=30).solve(Y)
    with pytest.raises(ValueError, match='eigenvalues'): gradient_descent_mse_ensemble(kernel, X, Y, solver='cg')(1., X2, 'nngp')
    monkeypatch.setattr('neural_tangents_nb.predict.LARGE', 59)
    with pytest.raises(ValueError, match='eigenvalues'): gradient_descent_mse_ensemble(kernel, X, Y)(1., X2, 'nngp')
    assert issubclass(type(k), KernelMatrix)
