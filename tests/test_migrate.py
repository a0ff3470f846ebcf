"Programs for the predecessor are rewritten where that is certain, and remarked on where it is not"
import json, os, subprocess, sys
import pytest
import neural_tangents_nb as nt
from neural_tangents_nb import stax
from neural_tangents_nb.apps import migrate
from neural_tangents_nb.apps.migrate import cells_migrated, migrated, notebook_migrated

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

JAX = [ # what JAX removed
    ('from jax.config import config', 'from jax import config'), ('from jax.experimental import optimizers', 'from jax.example_libraries import optimizers'),
    ('import jax.experimental.stax as s', 'import jax.example_libraries.stax as s'), ('from jax.experimental.optimizers import adam', 'from jax.example_libraries.optimizers import adam'),
    ('from jax.api import jit, grad', 'from jax import jit, grad'), ('import jax\njax.tree_map(f, jax.tree_leaves(x))', 'import jax\njax.tree.map(f, jax.tree.leaves(x))'),
    ('from jax.tree_util import tree_multimap', 'from jax.tree import map as tree_multimap'), ('from jax.lib import xla_bridge\nxla_bridge.get_backend()', 'from jax.extend import backend as xla_bridge\nxla_bridge.get_backend()'),
    ('import jax\njax.ops.index_add(jax.ops.index_update(x + 1, jax.ops.index[1:, 0], y), i, 2)', 'import jax\n(x + 1).at[1:, 0].set(y).at[i].add(2)'),
    ('from jax import random\nrandom.shuffle(key, x)', 'from jax import random\nrandom.permutation(key, x, independent=True)'),
    ('from jax.scipy.linalg import solve\nsolve(a, b, sym_pos=True)', "from jax.scipy.linalg import solve\nsolve(a, b, assume_a='pos')"),
    ('import jax.scipy as sp\nsp.linalg.solve(a, b, sym_pos=False)', 'import jax.scipy as sp\nsp.linalg.solve(a, b)'),
    ('import jax\nf: jax.interpreters.xla.DeviceArray', 'import jax\nf: jax.Array'), ('from jax.interpreters.xla import DeviceArray', 'from jax import Array as DeviceArray'),
    ('import jax.numpy as np\nnp.product(x)', 'import jax.numpy as np\nnp.prod(x)'),
    ('from neural_tangents._src.stax.requirements import layer, Bool', 'from neural_tangents_nb.stax import layer, Bool'),
    ('from neural_tangents._src.utils.kernel import Kernel', 'from neural_tangents_nb import Kernel'),
    ('from neural_tangents._src.utils.typing import InternalLayer', 'from neural_tangents_nb.stax import InternalLayer'),
    ('import neural_tangents as nt\nnt._src.stax.linear.Dense(3)', 'import neural_tangents_nb as nt\nnt.stax.Dense(3)')]
UNKNOWN = [
    ('from neural_tangents.stax import NoSuchLayer', 'NoSuchLayer'), ('from neural_tangents._src.utils import rules', 'internal'), ('from neural_tangents import stax as s\ns.NoSuchLayer(3)', 'NoSuchLayer'),
    ('from neural_tangents import stax\nstax.Dense(3, width=4)', '`Dense` takes no `width`, only out_dim'), ('import jax\njax.no_such_name(3)', 'no_such_name'), ('from jax.ops import index_update', 'index_update'),
    ('import jax.scipy as sp\nsp.linalg.solve(a, b, sym_pos=known)', 'assume_a'), ('import neural_tangents as nt\nnt.predict.max_learning_rate(k, num_outputs=3)', 'num_outputs'),
    ('from neural_tangents import stax\nk = kernel_fn(x, None, "nngp").transpose((0, 1, 4, 5, 2, 3))', 'order of the inputs'), ('import neural_tangents, numpy\nnumpy.moveaxis(k.ntk, 2, 4)', 'order of the inputs')]

@pytest.mark.parametrize('old, new', JAX)
def test_what_jax_removed_is_rewritten(old, new):
    assert migrated(old) == (new, []) and migrated(new) == (new, [])
    compile(new, 'new', 'exec')

@pytest.mark.parametrize('source, said', UNKNOWN)
def test_nothing_unknown_passes_in_silence(source, said): assert any(said in r.text for r in migrated(source)[1])

@pytest.mark.parametrize('source', SAME)
def test_other_code_is_left_alone(source): assert migrated(source) == (source, [])

@pytest.mark.parametrize('source, said', [("setup(install_requires=['jax', 'neural-tangents>=0.6'])", 'require'), ("importlib.import_module('neural_tangents.stax')", 'called'), ("pytest.importorskip('neural_tangents')", 'called')])
def test_texts_that_name_the_package_are_remarked(source, said):
    new, remarks = migrated(source)
    assert new == source and said in remarks[0].text

@pytest.mark.parametrize('source', ["'neural-tangents-nb'", "'neural_tangents'", "'about neural-tangents'", "import_module('neural_tangents_nb')", "import_module(name)"])
def test_other_texts_are_not(source): assert migrated(source)[1] == []

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

def test_lines_are_counted_as_python_does():
    "A form feed ends no line; a carriage return does"
    assert migrated('x = 1\f\n"\u2028"\rimport neural_tangents as nt')[0] == 'x = 1\f\n"\u2028"\rimport neural_tangents_nb as nt'

OUTPUT = dict(output_type='stream', name='stdout', text=['import neural_tangents\n'])
CELLS = [dict(cell_type='markdown', source=['import neural_tangents as nt']), dict(cell_type='code', source=['# für ∂\n', 'import neural_tangents as nt, jax\n', 'from neural_tangents import stax'], outputs=[OUTPUT]),
         dict(cell_type='code', source='ker = nt.get_ker_fun_empirical(f)\nstax.Relu(do_backprop=True)', outputs=[]), dict(cell_type='code', source=[], outputs=[])]
NEW_CELLS = [CELLS[0], CELLS[1] | dict(source=['# für ∂\n', 'import neural_tangents_nb as nt, jax\n', 'from neural_tangents_nb import stax']),
             CELLS[2] | dict(source='ker = nt.empirical_kernel_fn(f)\nstax.Relu()'), CELLS[3]]

@pytest.mark.parametrize('style', [dict(indent=1), dict(indent=4, ensure_ascii=False), dict(separators=(',', ':')), dict(indent='\t', sort_keys=True)], ids=str)
def test_of_a_notebook_only_changed_lines_change(style):
    write = lambda cells: json.dumps(dict(cells=cells, metadata={'é': 'ü'}, nbformat=4), **style) + '\n\n'
    new, parts = notebook_migrated(write(CELLS))
    assert new == write(NEW_CELLS) and [i for i, *_ in parts] == [2, 3, 4]
    assert notebook_migrated(new)[0] == new

def test_strings_that_are_no_lines():
    "Sources may be cut anywhere"
    text = json.dumps(dict(cells=[dict(cell_type='code', source=['import neural_', 'tangents as nt\nnt.get_ntk', '_fn'])]))
    assert ''.join(json.loads(notebook_migrated(text)[0])['cells'][0]['source']) == 'import neural_tangents_nb as nt\nnt.empirical_ntk_fn'

IMPORT = 'import neural_tangents as nt\n'
@pytest.mark.parametrize('old, new', [
    ('%matplotlib inline\nnt.get_ntk_fn(f)', '%matplotlib inline\nnt.empirical_ntk_fn(f)'), ('!ls {x}\n  # y\nnt.get_ntk_fn', '!ls {x}\n  # y\nnt.empirical_ntk_fn'),
    ('%%time\nnt.get_ntk_fn(f)', '%%time\nnt.empirical_ntk_fn(f)'), ('nt.batch?\nnt.get_ntk_fn', 'nt.batch?\nnt.empirical_ntk_fn'),
    ('files = !ls\nif files:\n    %time k = nt.get_ntk_fn(f)', 'files = !ls\nif files:\n    %time k = nt.empirical_ntk_fn(f)'),
    ('y = (x\n% nt.get_ntk_fn(f))', 'y = (x\n% nt.empirical_ntk_fn(f))'), ('%timeit -n 3 nt.get_ntk_fn(f)', '%timeit -n 3 nt.get_ntk_fn(f)')])
def test_magics_stand_aside(old, new): assert cells_migrated([IMPORT, old])[1] == (new, [])

@pytest.mark.parametrize('cell, said', [('!pip install -q git+https://example.com/neural-tangents', 'install neural-tangents-nb'), ('%pip install neural_tangents', 'install neural-tangents-nb'),
    ('%%bash\npython -c "import neural_tangents"', 'no Python'), ('def f(:\n  neural_tangents', 'no Python'), ('nt.utils.f()', 'internal')])
def test_what_is_left_in_a_notebook_is_said(cell, said):
    new, remarks = cells_migrated([IMPORT, cell])[1]
    assert new == cell and said in remarks[0].text

def test_other_cells_are_left_alone(): assert cells_migrated(['%%bash\nls', '!pip install neural-tangents-nb', 'x =']) == [('%%bash\nls', []), ('!pip install neural-tangents-nb', []), ('x =', [])]

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

@pytest.mark.full
def test_notebooks_as_a_process(tmp_path):
    run = lambda *args: subprocess.run([sys.executable, '-W', 'error', '-m', 'neural_tangents_nb.migrate', *map(str, args)], capture_output=True, text=True, encoding='utf-8', timeout=100)
    a, text = tmp_path/'a.ipynb', json.dumps(dict(cells=CELLS), indent=1, ensure_ascii=False).replace('\n', '\r\n')
    a.write_bytes(text.encode())
    shown = run(a)
    assert shown.returncode == 1 and f'{a}, cell 2 (new)' in shown.stdout and '+import neural_tangents_nb as nt' in shown.stdout and a.read_bytes() == text.encode()
    assert run('--write', a).returncode == 0 and run(a).returncode == 0
    assert a.read_bytes() == json.dumps(dict(cells=NEW_CELLS), indent=1, ensure_ascii=False).replace('\n', '\r\n').encode()
    for bad in b'{"cells": [', b'[]', b'{}', b'\xff', b'{"cells": [{"cell_type": "code"}]}':
        a.write_bytes(bad); done = run(a)
        assert done.returncode == 2 and 'not a notebook' in done.stderr and 'Traceback' not in done.stderr and a.read_bytes() == bad

def run(*args, **options): return subprocess.run([sys.executable, '-m', 'neural_tangents_nb.migrate', *map(str, args)], capture_output=True, text=True, timeout=100, **options)

def test_folders_are_searched(tmp_path):
    files = {'a.py': IMPORT, 'sub/b.ipynb': json.dumps(dict(cells=CELLS)), 'requirements-dev.txt': 'jax\nneural-tangents~=0.6 # old\n# neural-tangents\nneural-tangents-nb\n', 'pyproject.toml': 'dependencies = ["neural_tangents"]'}
    aside = {'.git/c.py': IMPORT, 'venv/lib/site-packages/neural_tangents/d.py': IMPORT, 'notes.md': IMPORT, 'sub/.ipynb_checkpoints/b.ipynb': '{'}
    for name, text in (files | aside).items():
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True); (tmp_path/name).write_text(text)
    assert {p.relative_to(tmp_path).as_posix() for p in migrate.files_of(tmp_path)} == files.keys()
    done = run('--write', tmp_path)
    assert done.returncode == 1 and 'requirements-dev.txt:2: require' in done.stderr and done.stderr.count(': require') == 2 # what is left to a person
    assert (tmp_path/'a.py').read_text() == 'import neural_tangents_nb as nt\n' and json.loads((tmp_path/'sub/b.ipynb').read_text())['cells'] == NEW_CELLS
    assert all((tmp_path/n).read_text() == t for n, t in aside.items())
    empty = tmp_path/'empty'; empty.mkdir()
    done = run(empty); assert done.returncode == 0 and 'nothing to migrate' in done.stderr

def test_odd_files(tmp_path):
    "A mark of byte order stays; old notebooks and files that cannot be written are said; letters that cannot be shown are escaped"
    a = tmp_path/'a.ipynb'
    a.write_bytes('\ufeff'.encode() + json.dumps(dict(cells=CELLS)).encode())
    assert migrate.changes(a, a.read_bytes())[0] == '\ufeff'.encode() + json.dumps(dict(cells=NEW_CELLS)).encode()
    a.write_text(json.dumps(dict(worksheets=[], nbformat=3)))
    done = run(a); assert done.returncode == 2 and 'nbconvert' in done.stderr
    b = tmp_path/'b.py'
    b.write_text('import neural_tangents # é\nx = "\\d"\n')
    done = run(b, env={'PYTHONIOENCODING': 'ascii', 'PYTHONPATH': ':'.join(sys.path)})
    assert done.returncode == 1 and r'+import neural_tangents_nb as neural_tangents # \xe9' in done.stdout and not done.stderr

def test_what_cannot_be_written_is_said(tmp_path, monkeypatch, capsys):
    a = tmp_path/'a.py'; a.write_text(IMPORT)
    def refuse(*args): raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(migrate.Path, 'write_bytes', refuse)
    with pytest.raises(SystemExit) as e: migrate.main(['--write', str(a)])
    assert e.value.code == 2 and f'{a}: not written: Permission denied' in capsys.readouterr().err

def test_a_closed_pipe_is_141_and_silent(tmp_path):
    a = tmp_path/'a.py'; a.write_text(IMPORT)
    at, to = os.pipe(); os.close(at) # nobody reads
    done = subprocess.run([sys.executable, '-m', 'neural_tangents_nb.migrate', str(a)], stdout=to, stderr=subprocess.PIPE, text=True, timeout=100); os.close(to)
    assert done.returncode == 141 and not done.stderr
