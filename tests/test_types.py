"The package is typed: mypy is content with it, and finds the mistakes of its users"
import inspect, subprocess, sys
from pathlib import Path
import jax, jaxtyping, numpy as np, pytest
from neural_tangents_nb import hyperparameters, sklearn as estimators, stax, viz
from neural_tangents_nb.kernel import Kernel

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
nt.no_such_function  # wrong
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

def test_marked_as_typed(): assert (ROOT/'neural_tangents_nb'/'py.typed').is_file()

NAMES = dict(vars(jaxtyping), np=np, jax=jax, Kernel=Kernel)
ONES, NET = np.ones, stax.Dense(1)
RIGHT = [ # Calls whose arguments and results have the shapes that the annotations say
    (estimators.kernels, NET, ONES((3, 2)), ONES((4, 2))), (estimators.variances, NET, ONES((3, 2))), (estimators.probabilities, ONES((3, 2)), ONES(3)),
    (estimators.leave_one_out, dict(nngp=np.eye(3)), ONES((3, 2)), 'nngp', [.1]), (estimators.leave_fold_out, dict(nngp=np.eye(3)), ONES((3, 2)), 'nngp', 1., .1),
    (hyperparameters.log_marginal_likelihood, jax.numpy.eye(3), jax.numpy.ones((3, 2)), .1), (hyperparameters.leave_one_out, jax.numpy.eye(3), jax.numpy.ones((3, 2)), .1),
    (viz.correlation, np.eye(3))]

def fits(f, *args):
    "Do arguments, and the result of the call, have the shapes in the annotations of `f`, dimensions of one name being equal?"
    parameters = list(inspect.signature(f).parameters.values())
    shaped = [(eval(p.annotation, NAMES), a) for p, a in zip(parameters, args) if isinstance(p.annotation, str)]
    out = inspect.signature(f).return_annotation
    with jaxtyping.jaxtyped('context'):
        if not all(isinstance(a, t) for t, a in shaped): return False
        return not isinstance(out, str) or isinstance(f(*args), eval(out, NAMES))

@pytest.mark.parametrize('f, args', [(f, args) for f, *args in RIGHT], ids=lambda v: getattr(v, '__name__', ''))
def test_shapes_are_what_annotations_say(f, args): assert fits(f, *args)

@pytest.mark.parametrize('f, args', [
    (estimators.kernels, (NET, ONES((3, 2)), ONES((4, 3)))), (estimators.probabilities, (ONES((3, 2)), ONES(2))), (estimators.leave_one_out, ({}, ONES(3), 'nngp', [.1])),
    (hyperparameters.leave_one_out, (jax.numpy.eye(3), jax.numpy.ones((4, 2)), .1)), (viz.correlation, (np.ones((2, 3)),)), (viz.correlation, (np.eye(3, dtype=int),))])
def test_annotations_tell_wrong_shapes(f, args): assert not fits(f, *args)
