"Programs for the predecessor are rewritten where that is certain, and remarked on where it is not"
import subprocess, sys
import pytest
import neural_tangents_nb as nt
from neural_tangents_nb import migrate, stax
from neural_tangents_nb.migrate import migrated

SAME = [ # nothing of ours in them
    'import neural_tangents_nb as nt\nnt.get_ntk_fn\n', 'from .neural_tangents import stax\n', 'import neural_tangents_other\n', 'x = "import neural_tangents"\n',
    'from other import stax\nstax.Relu(do_backprop=True)\n', '# import neural_tangents\n', '']
CHANGED = [
    ('import neural_tangents as nt', 'import neural_tangents_nb as nt'), ('import neural_tangents', 'import neural_tangents_nb as neural_tangents'),
    ('import jax, neural_tangents as nt, os', 'import jax, neural_tangents_nb as nt, os'), ('import neural_tangents.stax as s', 'import neural_tangents_nb.stax as s'),
    ('from neural_tangents.stax import Dense', 'from neural_tangents_nb.stax import Dense'), ('from neural_tangents import stax as s, predict', 'from neural_tangents_nb import stax as s, predict'),
    ('from   neural_tangents   import (\n  stax,  # layers\n)', 'from   neural_tangents_nb   import (\n  stax,  # layers\n)'),
    ('from neural_tangents import get_ntk_fun_empirical\nget_ntk_fun_empirical(f)', 'from neural_tangents_nb import empirical_ntk_fn as get_ntk_fun_empirical\nget_ntk_fun_empirical(f)'),
    ('if x:\n    import neural_tangents as nt\n    é = "é"; nt.get_ker_fun_monte_carlo(f)', 'if x:\n    import neural_tangents_nb as nt\n    é = "é"; nt.monte_carlo_kernel_fn(f)'),
    ('import neural_tangents\nneural_tangents.stax.NumericalActivation(f)', 'import neural_tangents_nb as neural_tangents\nneural_tangents.stax.ElementwiseNumerical(f)'),
    ('from neural_tangents import stax\nstax.LeakyRelu(.1, do_backprop=True, do_stabilize=True)', 'from neural_tangents_nb import stax\nstax.LeakyRelu(.1, do_stabilize=True)'),
    ('from neural_tangents import stax\nstax.Relu(do_backprop=True, do_stabilize=True)', 'from neural_tangents_nb import stax\nstax.Relu(do_stabilize=True)'),
    ('from neural_tangents import stax\r\nstax.Relu()\r\n', 'from neural_tangents_nb import stax\r\nstax.Relu()\r\n')]
REMARKS = [
    ('from neural_tangents import experimental', 'TensorFlow'), ('import neural_tangents.stax', 'write `import'), ('from neural_tangents._src import empirical', 'internal'),
    ('import neural_tangents as nt\nnt.utils.batch', 'internal'), ('from neural_tangents import predict\npredict.gradient_descent_mse_gp(k, x, y, t, "ntk")', 'gradient_descent_mse_ensemble'),
    ('from neural_tangents.predict import gradient_descent_mse_gp', 'gradient_descent_mse_ensemble'),
    ('from neural_tangents import predict\npredict.gradient_descent_mse(k, y, g_td=k2)', 'k_test_train'), ('from neural_tangents import predict as p\np.momentum(k)', 'learning_rate, momentum'),
    ('import neural_tangents as nt\nnt.predict.gp_inference(k, x_train=x, y_train=y, x_test=t, get="ntk")', 'kernel_fn(x_train')]

@pytest.mark.parametrize('source', SAME)
def test_other_code_is_left_alone(source): assert migrated(source) == (source, [])

@pytest.mark.parametrize('old, new', CHANGED)
def test_certain_changes_are_made_once(old, new):
    assert migrated(old) == (new, []) and migrated(new)[0] == new
    compile(new, 'new', 'exec')

@pytest.mark.parametrize('source, said', REMARKS)
def test_uncertain_ones_are_remarked(source, said):
    remarks = migrated(source)[1]
    assert remarks and any(said in r.text for r in remarks) and all(r.line == len(source.splitlines()) for r in remarks)

def test_present_calls_are_not_remarked():
    source = 'from neural_tangents_nb import predict\n'.replace('_nb', '') + 'predict.gp_inference(k, y, .1)("ntk", a, b)\npredict.gradient_descent_mse(k, y)(1., 0., 0., a)\n'
    assert migrated(source)[1] == []

def test_names_exist():
    "What old names are said to be called now is there"
    places = nt, stax, nt.predict
    for new in migrate.RENAMED.values(): assert any(hasattr(p, new) for p in places), new
    for old in [*migrate.RENAMED, *migrate.GONE]:
        for p in places:
            with pytest.raises(AttributeError, match='module'): getattr(p, old)

def test_as_a_process(tmp_path):
    run = lambda *args: subprocess.run([sys.executable, '-W', 'error', '-m', 'neural_tangents_nb.migrate', *map(str, args)], capture_output=True, text=True, timeout=100)
    a, b = tmp_path/'a.py', tmp_path/'b.py'
    a.write_text('import neural_tangents as nt'); b.write_text('x = 1\n')
    shown = run(a, b)
    assert shown.returncode == 1 and '+import neural_tangents_nb as nt' in shown.stdout and a.read_text() == 'import neural_tangents as nt'
    assert run('--write', a, b).returncode == 0 and a.read_text() == 'import neural_tangents_nb as nt' and run(a).returncode == 0
    b.write_text('x =')
    bad = run(a, b, tmp_path/'none.py')
    assert bad.returncode == 2 and 'not a Python program' in bad.stderr and 'none.py' in bad.stderr and 'Traceback' not in bad.stderr
