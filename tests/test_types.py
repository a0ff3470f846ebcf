"The package is typed: mypy is content with it, and finds the mistakes of its users"
import importlib, inspect, pkgutil, subprocess, sys, types, typing
from pathlib import Path
import jax, jaxtyping, numpy as np, pytest
import neural_tangents_nb as nt
from neural_tangents_nb import empirical, hyperparameters, predict, sketch, sklearn as estimators, stax, viz
from neural_tangents_nb.kernel import Kernel
from neural_tangents_nb.predict import Gaussian, Marginals
from neural_tangents_nb.matrix import KernelMatrix

ROOT = Path(__file__).resolve().parent.parent
USER = '''
import numpy as np
import neural_tangents_nb as nt
from neural_tangents_nb import stax
from neural_tangents_nb.hyperparameters import Fit
ones = np.ones((1, 1))
net = stax.serial(stax.Dense(512, W_std=1.4), stax.Relu(), stax.Dense(1))
k = net.kernel_fn(ones, None, 'ntk')
fit: Fit = nt.fit_hyperparameters(net, ones, ones, steps=3)
stax.Dense(512, W_std='large')  # wrong
stax.Dense(512, with_std=1.4)  # wrong
nt.fit_hyperparameters(net, ones, ones, restarts='many')  # wrong
nt.predict.gp_inference(np.eye(1), ones, diag_reg=.1)(get='nngp')
nt.predict.gp_inference(np.eye(1), 'targets')  # wrong
nt.predict.accuracy(ones, np.zeros(1, int)).astype(float)
nt.predict.accuracy(ones, 'labels')  # wrong
nt.monte_carlo_kernel_fn(net.init_fn, net.apply_fn, nt.predict.centred_labels, 3)  # wrong
nt.no_such_function  # wrong
nt.predict.log_marginal_likelihood(np.eye(1), ones, .1).mean()
nt.predict.log_marginal_likelihood(np.eye(1), ones, .1).no_such_method()  # wrong
nt.viz.spectrum(np.eye(2)).set_title('eigenvalues')
nt.viz.spectrum(np.eye(2)).no_such_method()  # wrong
nt.Tiled(net.kernel_fn, ones).shape[0] + 1
nt.Tiled(net.kernel_fn, ones).no_such_field  # wrong
'''

def test_mypy(tmp_path):
    user = tmp_path/'user.py'
    user.write_text(USER)
    done = subprocess.run([sys.executable, '-m', 'mypy', '--config-file', 'pyproject.toml', '--no-color-output', '--cache-dir', tmp_path/'cache',
                           'neural_tangents_nb', user], cwd=ROOT, capture_output=True, text=True, timeout=300)
    errors = [line for line in done.stdout.splitlines() if ': error:' in line]
    own = [line for line in errors if 'user.py' not in line]
    assert not own, '\n'.join(own)
    found = {int(line.split('user.py:')[1].split(':')[0]) for line in errors}
    assert found == {i for i, line in enumerate(USER.splitlines(), 1) if '# wrong' in line}, done.stdout

def test_public_names_are_exported():
    "Checkers of types take for public what is in `__all__`, and so does an import of all"
    for module in nt, stax:
        names = {n for n, v in vars(module).items() if n[0] != '_' and not isinstance(v, types.ModuleType) and (getattr(v, '__module__', None) or '').startswith('neural_tangents_nb')}
        assert names <= set(module.__all__) and all(hasattr(module, n) for n in module.__all__), names ^ set(module.__all__)
    names = {}
    exec('from neural_tangents_nb.stax import *', names)
    assert names['serial'] is stax.serial and names['Dense'] is stax.Dense

def test_marked_as_typed(): assert (ROOT/'neural_tangents_nb'/'py.typed').is_file()

NAMES = dict(vars(jaxtyping), np=np, jax=jax, ArrayLike=jax.typing.ArrayLike, Kernel=Kernel, KernelMatrix=KernelMatrix)
ONES, NET = np.ones, stax.Dense(1)
EYE, WHICH = np.eye(3), np.array([0, 1, 1])
BAND = Marginals(jax.numpy.ones((3, 2)), jax.numpy.ones(3))
NORMAL = Gaussian(jax.numpy.ones((3, 2)), jax.numpy.eye(3))
RIGHT = [ # Calls whose arguments and results have the shapes that the annotations say
    (estimators.kernels, NET, ONES((3, 2)), ONES((4, 2))), (estimators.variances, NET, ONES((3, 2))), (estimators.probabilities, ONES((3, 2)), ONES(3)),
    (estimators.leave_one_out, dict(nngp=np.eye(3)), ONES((3, 2)), 'nngp', [.1]), (estimators.leave_fold_out, dict(nngp=np.eye(3)), ONES((3, 2)), 'nngp', 1., .1),
    (hyperparameters.log_marginal_likelihood, jax.numpy.eye(3), jax.numpy.ones((3, 2)), .1), (hyperparameters.leave_one_out, jax.numpy.eye(3), jax.numpy.ones((3, 2)), .1),
    (viz.correlation, np.eye(3)), (viz.clustered, EYE), (viz.correlations, NET, np.linspace(-1, 1, 5)), (viz.participation_ratio, ONES(3)),
    (hyperparameters.fit_hyperparameters, NET, ONES((3, 2)), np.array([[1.], [0.], [2.]]), 'leave_one_out', .1, 2),
    (predict.log_marginal_likelihood, EYE, ONES((3, 2)), .1), (predict.centred_labels, WHICH), (predict.class_probabilities, BAND),
    (predict.accuracy, ONES((3, 2)), WHICH), (predict.nll, ONES((3, 2)), WHICH), (predict.calibration_error, ONES((3, 2)), WHICH),
    (predict.loss_moments, NORMAL, ONES((3, 2))), (predict.sample, jax.random.key(0), NORMAL, 4), (predict.gp_inference, EYE, ONES((3, 2))),
    (predict.learning_curve, EYE, ONES((3, 2))), (predict.leave_one_out, EYE, ONES((3, 2)), .1), (predict.max_learning_rate, EYE),
    (predict.gp_inference, ONES((3, 3, 2, 2)), ONES((3, 2)), 0., False, ()), (stax.Dense.kernel_fn, NET, ONES((3, 2)), ONES((4, 2)), 'nngp'),
    (empirical.flatten_kernel, ONES((3, 4, 2, 5))), (empirical.unflatten_kernel, ONES((6, 20)), (3, 2), (4, 5)), (sketch.nystrom_features, NET.kernel_fn, ONES((3, 2)))]

def is_a(v, t):
    "`isinstance`, which does not look into unions of shaped arrays"
    if typing.get_origin(t) in (typing.Union, types.UnionType): return any(is_a(v, a) for a in typing.get_args(t))
    return isinstance(v, t)

def fits(f, *args):
    "Do arguments, and the result of the call, have the shapes in the annotations of `f`, dimensions of one name being equal?"
    parameters = list(inspect.signature(f).parameters.values())
    shaped = [(eval(p.annotation, NAMES), a) for p, a in zip(parameters, args) if isinstance(p.annotation, str)]
    out = inspect.signature(f).return_annotation
    with jaxtyping.jaxtyped('context'):
        if not all(is_a(a, t) for t, a in shaped): return False
        if not isinstance(out, str): return True
        out, result = eval(out, NAMES), f(*args)
        parts = zip(result, out.__args__) if getattr(out, '__origin__', None) is tuple else [(result, out)]
        return all(is_a(r, t) for r, t in parts)

@pytest.mark.parametrize('f, args', [(f, args) for f, *args in RIGHT], ids=lambda v: getattr(v, '__name__', ''))
def test_shapes_are_what_annotations_say(f, args): assert fits(f, *args)

@pytest.mark.parametrize('f, args', [
    (estimators.kernels, (NET, ONES((3, 2)), ONES((4, 3)))), (estimators.probabilities, (ONES((3, 2)), ONES(2))), (estimators.leave_one_out, ({}, ONES(3), 'nngp', [.1])),
    (hyperparameters.leave_one_out, (jax.numpy.eye(3), jax.numpy.ones((4, 2)), .1)), (viz.correlation, (np.ones((2, 3)),)), (viz.correlation, (np.eye(3, dtype=int),)),
    (predict.gp_inference, (ONES((3, 2)), ONES((3, 2)))), (predict.log_marginal_likelihood, (EYE, ONES((4, 2)), .1)), (predict.accuracy, (ONES((3, 2)), WHICH[:2])),
    (predict.centred_labels, (ONES(3),)), (predict.nll, (ONES((3, 2)), ONES(3))), (predict.learning_curve, (EYE, ONES((2, 2)))),
    (stax.Dense.kernel_fn, (NET, ONES((3, 2)), ONES((3, 3)), 'nngp')), (empirical.unflatten_kernel, (ONES(6), (3,), (2,))), (sketch.nystrom_features, (NET.kernel_fn, 1.))])
def test_annotations_tell_wrong_shapes(f, args): assert not fits(f, *args)

KS, ENSEMBLE = dict(nngp=EYE), estimators.Ensemble(dict(nngp=EYE), ONES((3, 1)), noise=.1)
mse = lambda x, y: predict.gradient_descent_mse_ensemble(NET.kernel_fn, x, y, diag_reg=.1)
NAMED = { # What is tried, and how its error begins to name what is wrong
    'inputs of one axis': (lambda: estimators.kernels(NET, ONES(3)), '`x1`'), 'inputs of other width': (lambda: estimators.kernels(NET, ONES((3, 2)), ONES((4, 3))), '`x2`'),
    'targets of one axis': (lambda: estimators.leave_one_out(KS, ONES(3), 'nngp', [.1]), '`y`'), 'targets of other number': (lambda: estimators.leave_fold_out(KS, ONES((4, 2)), 'nngp', 1., .1), "`ks['nngp']`"),
    'a kernel that is missing': (lambda: estimators.Ensemble(KS, ONES((3, 1)), 'ntk'), "'ntk'"), 'test kernel': (lambda: ENSEMBLE.predict(dict(nngp=ONES((2, 4)))), "`k_td['nngp']`"),
    'test variances': (lambda: ENSEMBLE.predict(dict(nngp=ONES((2, 3))), ONES(3)), '`k_tt`'), 'means': (lambda: estimators.probabilities(ONES(3), ONES(3)), '`mean`'),
    'variances': (lambda: estimators.probabilities(ONES((3, 2)), ONES(2)), '`var`'), 'kernel that is not square': (lambda: hyperparameters.log_marginal_likelihood(ONES((3, 2)), ONES((3, 1)), .1), '`k`'),
    'targets of a likelihood': (lambda: hyperparameters.leave_one_out(EYE, ONES((4, 1)), .1), '`y`'), 'targets to learn from': (lambda: nt.fit_hyperparameters(NET, ONES((3, 2)), ONES((4, 1))), '`y`'),
    'picture of no kernel': (lambda: viz.kernel_matrix(ONES((2, 3))), '`k`'), 'labels': (lambda: viz.kernel_matrix(EYE, labels=[1, 2]), '`labels`'), 'prediction': (lambda: viz.posterior(ONES(4), BAND), '`prediction`'),
    'correlations': (lambda: viz.correlations(NET, ONES((2, 2))), '`c`'), 'curve': (lambda: viz.learning(EYE), '`curve`'),
    'data': (lambda: viz.posterior(ONES(3), BAND._replace(mean=ONES((3, 1))), data=(ONES(2), ONES(3))), '`data`'), 'confidences': (lambda: viz.calibration(ONES(3), WHICH), '`p`'),
    'coverage': (lambda: viz.coverage(ONES(3), ONES(2), ONES(3)), '`std`'), 'train kernel': (lambda: predict.gp_inference(EYE, ONES((4, 1)))('nngp', ONES((2, 4))), 'k_train_train'),
    'test-train kernel': (lambda: predict.gp_inference(EYE, ONES((3, 1)))('nngp', ONES((2, 4))), 'k_test_train'), 'test inputs': (lambda: mse(ONES((3, 2)), ONES((3, 1)))(x_test=ONES((4, 5))), 'x_test'),
    'test inputs of other rank': (lambda: mse(ONES((3, 2)), ONES((3, 1)))(x_test=ONES((4, 2, 1))), 'x_test'), 'train inputs': (lambda: mse(ONES((2, 2)), ONES((3, 1))), 'x_train'),
    'classes': (lambda: predict.centred_labels(WHICH[None]), 'labels'), 'probabilities': (lambda: predict.nll(ONES((3, 2)), WHICH[:2]), '`p`'), 'what came': (lambda: predict.loss_moments(NORMAL, ONES((3, 1))), 'y has the shape'),
    'outputs with kernels of their own': (lambda: predict.class_probabilities(Marginals(ONES((3, 2)), ONES((3, 2)))), '`prediction`'), 'an odd number of axes': (lambda: empirical.flatten_kernel(ONES((2, 2, 3))), '`k`'),
    'rows and columns': (lambda: empirical.unflatten_kernel(ONES((6, 4)), (3, 2), (2, 3)), '`matrix`')}

@pytest.mark.parametrize('name', NAMED)
def test_errors_of_shape_name_the_argument(name):
    attempt, said = NAMED[name]
    with pytest.raises((ValueError, TypeError)) as e: attempt()
    assert said in str(e.value)


def test_annotations_have_a_meaning():
    "The names in them exist at run time, too, where the site, `help` and checkers at run time read them"
    def functions(module):
        own = [v for v in vars(module).values() if getattr(v, '__module__', None) == module.__name__]
        inside = [f for c in own if inspect.isclass(c) for f in vars(c).values()]
        return [f for f in own + inside if inspect.isfunction(f)]
    names = [m.name for m in pkgutil.iter_modules(nt.__path__) if not m.name.startswith('_')]
    found = [f for n in names for f in functions(importlib.import_module(f'neural_tangents_nb.{n}'))]
    for f in found: inspect.get_annotations(inspect.unwrap(f), eval_str=True)
    assert len(found) > 500
