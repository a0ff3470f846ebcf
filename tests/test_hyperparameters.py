"Hyperparameters are learned where they can be, and what cannot be learned is said"
import subprocess, sys, warnings
import jax, numpy as np, pytest
from jax import numpy as jnp
import neural_tangents_nb as nt
from neural_tangents_nb import stax
from neural_tangents_nb.core import test_close as close
from neural_tangents_nb.hyperparameters import bound, freed, log_marginal_likelihood

RNG = np.random.RandomState(0)
X = RNG.randn(30, 2)
NET = stax.serial(stax.Dense(1, 1., .3))

def learned(net, x, y, *args, **given): return nt.fit_hyperparameters(net, x, y, *args, **dict(progress=None) | given)

def test_the_truth_is_found():
    "A linear function of two inputs, drawn from the prior: weights and noise come back, up to what 60 points know"
    x = RNG.randn(60, 2)
    w = RNG.randn(2, 40) # many functions with one kernel: sum of w x, of variance W_std^2/2 per weight
    y = x@w*3/np.sqrt(2) + .2*RNG.randn(60, 40)
    seen = []
    fit = learned(stax.Dense(1, 1.), x, y, progress=lambda *a: seen.append(a))
    scale = np.sqrt((w**2).mean())*3 # of these weights, rather than of all
    assert abs(fit.net.W_std/scale - 1) < .05 and abs(np.sqrt(fit.noise)/.2 - 1) < 4/np.sqrt(2*58*40)
    n = np.isfinite(fit.history).sum()
    assert n == len(seen) < 60 and seen[-1] == (n, 200, fit.value) and fit.value == np.nanmax(fit.history)

@pytest.mark.parametrize('x64', [True, False])
def test_units_do_not_matter(x64):
    "The same data in other units end at the same optimum, also in single precision"
    x = RNG.randn(40, 3)
    y = np.tanh(x[:, :1]) + .2*RNG.randn(40, 1)
    net = stax.serial(stax.Dense(1, 1.4, .1), stax.Relu(), stax.Dense(1, 1.))
    with jax.enable_x64(x64), warnings.catch_warnings():
        warnings.simplefilter('error') # none is unfinished
        fits = {u: learned(net, x, u*y) for u in (1., 100., 1e4, 1e-3)}
    rtol = 1e-3 if x64 else .1 # the square root of the tolerance of the objective, times the width of its maximum
    for u, fit in fits.items():
        assert fit.value + np.log(u) == pytest.approx(fits[1.].value, abs=1e-7 if x64 else 1e-4)
        assert fit.noise/u**2 == pytest.approx(fits[1.].noise, rel=rtol)
        assert fit.net.layers[-1].W_std*fit.net.layers[0].W_std/u == pytest.approx(fits[1.].net.layers[-1].W_std*fits[1.].net.layers[0].W_std, rel=rtol)

def test_single_precision_climbs_as_high():
    x = RNG.randn(60, 3)
    y = np.tanh(x[:, :1]) + .2*RNG.randn(60, 1)
    net = stax.serial(stax.Dense(1, 1.4, .1), stax.Relu(), stax.Dense(1, 1., .1))
    def value(x64):
        with jax.enable_x64(x64): return learned(net, x, y).value
    assert value(False) == pytest.approx(value(True), abs=3e-4) # a hundred times the least gain of a step

def test_what_is_unfinished_is_said():
    with pytest.warns(UserWarning, match=r'run 1 .* ended at step 4 of 4, unfinished: raise `steps`'): learned(NET, X, X[:, :1] + RNG.randn(30, 1), steps=4)

def test_no_lower_than_adam():
    y = np.sin(3*X[:, :1]) + .1*RNG.randn(30, 1)
    for objective in nt.hyperparameters.OBJECTIVES:
        fit, adam = learned(NET, X, y, objective), learned(NET, X, y, objective, steps=400, learning_rate=.1)
        assert fit.value > adam.value - 1e-6 and np.isfinite(adam.history).all() and adam.history.shape == (1, 400)

def test_what_is_fixed_stays():
    y = RNG.randn(30, 1)
    fit = learned(NET, X, y, fixed=('b_std', 'noise'), noise=.7)
    assert fit.net.layers[0].b_std == .3 and fit.noise == .7 and fit.net.layers[0].W_std != 1.
    a, b = (learned(NET, X, y, restarts=2, key=k).history[:, :2] for k in (0, 1))
    close(a[0], b[0]); assert (a[1] != b[1]).all() # the first run starts at the network, others do not

def test_the_slope_is_that_through_the_factor():
    k, y = np.array(NET.kernel_fn(X, None, 'nngp')), RNG.randn(30, 2)
    through = lambda *a: nt.predict.log_marginal_likelihood(*a, True)/y.size
    ours, theirs = (jax.jit(jax.grad(f, (0, 1, 2)))(k, y, .5) for f in (log_marginal_likelihood, through))
    close(ours, theirs, 1e-9) # a factor loses the digits of the condition number, some hundred

def test_objectives_agree_with_their_definitions():
    y = RNG.randn(30, 2)
    k = np.array(NET.kernel_fn(X, None, 'nngp')) + .5*np.eye(30)
    def start(objective):
        with pytest.warns(UserWarning, match='unfinished'): return learned(NET, X, y, objective, noise=.5, steps=1).value
    want = sum(-.5*(v@np.linalg.solve(k, v) + np.linalg.slogdet(2*np.pi*k)[1]) for v in y.T)/y.size
    close(start('log_marginal_likelihood'), want, dtype=False)
    def without(i):
        o = np.arange(30) != i
        w = np.linalg.solve(k[np.ix_(o, o)], k[o, i])
        m, v = w@y[o], k[i, i] - w@k[o, i]
        return -.5*(np.log(2*np.pi*v) + (y[i] - m)**2/v)
    close(start('leave_one_out'), np.mean([without(i) for i in range(30)]), dtype=False)

def test_coordinates_are_inverse():
    net = stax.serial(stax.Dense(1, .7, None), stax.ABRelu(-.3, 2.), stax.Dense(1, 2., .1))
    close(bound(freed(net), net), jax.tree.map(jnp.asarray, net))

@pytest.mark.parametrize('change, error, said', [
    (dict(objective='evidence'), ValueError, 'objective'), (dict(steps=0), ValueError, 'steps'), (dict(restarts=1.5), ValueError, 'restarts'),
    (dict(y=np.ones(30)), ValueError, 'of shape'), (dict(y=np.full((30, 1), np.nan)), ValueError, 'NaN'), (dict(x=np.full((30, 2), np.nan)), ValueError, 'NaN'),
    (dict(y=np.ones((30, 1))), ValueError, 'constant'), (dict(y=None), TypeError, '`y`'), (dict(y='abc'), TypeError, '`y`'), (dict(y=RNG.randn(30, 1)*1j), TypeError, '`y`'), (dict(x=None), TypeError, '`x`'),
    (dict(noise='a'), ValueError, 'noise'), (dict(noise=np.nan), ValueError, 'noise'), (dict(steps=True), ValueError, 'steps'), (dict(learning_rate='a'), ValueError, 'learning_rate'),
    (dict(learning_rate=-.1), ValueError, 'learning_rate'), (dict(spread=-1.), ValueError, 'spread'), (dict(fixed='noise'), ValueError, 'fixed'), (dict(fixed=('Wstd',)), ValueError, "'W_std', 'b_std', 'noise'"),
    (dict(get='cov1'), ValueError, 'get'), (dict(progress=3), ValueError, 'progress'), (dict(optimizer=3), ValueError, 'optimizer'),
    (dict(noise=0.), ValueError, 'noise'), (dict(net=stax.Dense(1, 0.)), ValueError, 'W_std'), (dict(net=stax.Relu), TypeError, 'call it')])
def test_what_cannot_be_is_said(change, error, said):
    given = dict(net=NET, x=X, y=X[:, :1], progress=None) | change
    with pytest.raises(error, match=said): nt.fit_hyperparameters(**given)

def test_where_there_is_no_likelihood_a_run_ends():
    "A step far too long leads to a kernel of infinite scale; what was best is returned, and said"
    y = RNG.randn(30, 1)
    with pytest.warns(UserWarning, match=r'run 1 .* ended at step 2 of 9'): fit = learned(NET, X, y, noise=.1, steps=9, learning_rate=1e4)
    assert np.isfinite(fit.history[0, 0]) and fit.value == fit.history[0, 0] and not np.isfinite(fit.history[0, 1:]).any()
    assert (fit.net.layers[0].W_std, fit.noise) == pytest.approx((1., .1))
    with pytest.raises(ValueError, match='start from more `noise`'), pytest.warns(UserWarning, match='step 1'):
        learned(stax.Dense(1), np.ones((3, 2)), y[:3], noise=1e-30)

def test_an_interrupt_returns_what_was_found():
    whole = learned(NET, X, X[:, :1])
    def stop(done, of, value):
        if done == 4: raise KeyboardInterrupt
    with pytest.warns(UserWarning, match='interrupted'): fit = learned(NET, X, X[:, :1], progress=stop)
    close(fit.history[0, :4], whole.history[0, :4]); assert np.isnan(fit.history[0, 4:]).all() and fit.value == fit.history[0, :4].max() < whole.value

def test_without_optax_the_extra_is_named():
    "It is needed for Adam only"
    code = ("import sys; sys.modules['optax'] = None; import numpy as np, neural_tangents_nb as nt; from neural_tangents_nb import stax; "
            "fit = lambda **a: nt.fit_hyperparameters(stax.Dense(1), np.eye(3)[:, :2] + 1, np.eye(3), **a); print(fit().noise > 0); fit(learning_rate=.1)")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=100)
    assert done.returncode and 'neural-tangents-nb[optim]' in done.stderr and done.stdout.strip() == 'True'
