"Hyperparameters are learned where they can be, and what cannot be learned is said"
import subprocess, sys
import jax, numpy as np, pytest
from jax import numpy as jnp
import neural_tangents_nb as nt
from neural_tangents_nb import stax
from neural_tangents_nb.core import test_close as close
from neural_tangents_nb.hyperparameters import bound, freed

RNG = np.random.RandomState(0)
X = RNG.randn(30, 2)
NET = stax.serial(stax.Dense(1, 1., .3))

def test_the_truth_is_found():
    "A linear function of two inputs, drawn from the prior: weights and noise come back, up to what 60 points know"
    x = RNG.randn(60, 2)
    w = RNG.randn(2, 40) # many functions with one kernel: sum of w x, of variance W_std^2/2 per weight
    y = x@w*3/np.sqrt(2) + .2*RNG.randn(60, 40)
    seen = []
    fit = nt.fit_hyperparameters(stax.Dense(1, 1.), x, y, steps=150, learning_rate=.1, progress=lambda *a: seen.append(a))
    scale = np.sqrt((w**2).mean())*3 # of these weights, rather than of all
    assert abs(fit.net.W_std/scale - 1) < .05 and abs(np.sqrt(fit.noise)/.2 - 1) < 4/np.sqrt(2*58*40)
    assert seen[-1][:2] == (150, 150) and fit.history.shape == (1, 150) and fit.value == fit.history.max()

def test_what_is_fixed_stays():
    y = RNG.randn(30, 1)
    fit = nt.fit_hyperparameters(NET, X, y, steps=3, fixed=('b_std', 'noise'), noise=.7, progress=None)
    assert fit.net.layers[0].b_std == .3 and fit.noise == .7 and fit.net.layers[0].W_std != 1.
    a, b = (nt.fit_hyperparameters(NET, X, y, steps=3, restarts=2, key=k, progress=None).history for k in (0, 1))
    close(a[0], b[0]); assert (a[1] != b[1]).all() # the first run starts at the network, others do not

def test_objectives_agree_with_their_definitions():
    y = RNG.randn(30, 2)
    k = np.array(NET.kernel_fn(X, None, 'nngp')) + .5*np.eye(30)
    start = lambda objective: nt.fit_hyperparameters(NET, X, y, objective, noise=.5, steps=1, progress=None).value
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
    close(bound(freed(net)), jax.tree.map(jnp.asarray, net))

@pytest.mark.parametrize('change, error, said', [
    (dict(objective='evidence'), ValueError, 'objective'), (dict(steps=0), ValueError, 'steps'), (dict(restarts=1.5), ValueError, 'restarts'),
    (dict(y=np.ones(30)), ValueError, 'of shape'), (dict(y=np.full((30, 1), np.nan)), ValueError, 'NaN'), (dict(x=np.full((30, 2), np.nan)), ValueError, 'NaN'),
    (dict(y=np.ones((30, 1))), ValueError, 'constant'), (dict(y=None), TypeError, '`y`'), (dict(y='abc'), TypeError, '`y`'), (dict(y=RNG.randn(30, 1)*1j), TypeError, '`y`'), (dict(x=None), TypeError, '`x`'),
    (dict(noise='a'), ValueError, 'noise'), (dict(noise=None), ValueError, 'noise'), (dict(noise=np.nan), ValueError, 'noise'), (dict(steps=True), ValueError, 'steps'), (dict(learning_rate='a'), ValueError, 'learning_rate'),
    (dict(learning_rate=-.1), ValueError, 'learning_rate'), (dict(spread=-1.), ValueError, 'spread'), (dict(fixed='noise'), ValueError, 'fixed'), (dict(fixed=('Wstd',)), ValueError, "'W_std', 'b_std', 'noise'"),
    (dict(get='cov1'), ValueError, 'get'), (dict(progress=3), ValueError, 'progress'), (dict(optimizer=3), ValueError, 'optimizer'),
    (dict(noise=0.), ValueError, 'noise'), (dict(net=stax.Dense(1, 0.)), ValueError, 'W_std'), (dict(net=stax.Relu), TypeError, 'call it')])
def test_what_cannot_be_is_said(change, error, said):
    given = dict(net=NET, x=X, y=X[:, :1], progress=None) | change
    with pytest.raises(error, match=said): nt.fit_hyperparameters(**given)

def test_where_there_is_no_likelihood_a_run_ends():
    "A step far too long leads to a kernel of infinite scale; what was best is returned, and said"
    y = RNG.randn(30, 1)
    with pytest.warns(UserWarning, match=r'run 1 .* ended at step 2 of 9'): fit = nt.fit_hyperparameters(NET, X, y, steps=9, learning_rate=1e4, progress=None)
    assert np.isfinite(fit.history[0, 0]) and fit.value == fit.history[0, 0] and not np.isfinite(fit.history[0, 1:]).any()
    assert (fit.net.layers[0].W_std, fit.noise) == pytest.approx((1., .1))
    with pytest.raises(ValueError, match='start from more `noise`'), pytest.warns(UserWarning, match='step 1'):
        nt.fit_hyperparameters(stax.Dense(1), np.ones((3, 2)), y[:3], noise=1e-30, progress=None)

def test_an_interrupt_returns_what_was_found():
    y, whole = RNG.randn(30, 1), nt.fit_hyperparameters(NET, X, X[:, :1], steps=6, progress=None)
    def stop(done, of, value):
        if done == 4: raise KeyboardInterrupt
    with pytest.warns(UserWarning, match='interrupted'): fit = nt.fit_hyperparameters(NET, X, X[:, :1], steps=6, progress=stop)
    close(fit.history[0, :4], whole.history[0, :4]); assert np.isnan(fit.history[0, 4:]).all() and fit.value == fit.history[0, :4].max() < whole.value

def test_the_bar_is_for_people(capsys, monkeypatch):
    from neural_tangents_nb.hyperparameters import bar
    monkeypatch.delitem(sys.modules, 'ipykernel', raising=False) # another test may have imported it
    bar(5, 10, -1.); assert capsys.readouterr().err == ''
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
    bar(5, 10, -1.); assert capsys.readouterr().err == '\r[' + '='*15 + ' '*15 + '] 5/10  -1.0000'

def test_without_optax_the_extra_is_named():
    code = ("import sys; sys.modules['optax'] = None; import numpy as np, neural_tangents_nb as nt; from neural_tangents_nb import stax; "
            "nt.fit_hyperparameters(stax.Dense(1), np.ones((3, 1)), np.eye(3))")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=100)
    assert done.returncode and 'neural-tangents-nb[optim]' in done.stderr
