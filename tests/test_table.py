"`nt-predict`: a unix tool, on tables that are right and on tables that are not"
import csv, os, shlex, subprocess, sys
from pathlib import Path
import numpy as np, pytest
from neural_tangents_nb import table

RNG = np.random.RandomState(0)
ROOT = Path(__file__).resolve().parent.parent
A, B = RNG.randn(60), RNG.choice(['red', 'blue'], 60)
Y = A + 3*(B == 'red')

def write(path, columns, delimiter=','):
    with open(path, 'w', newline='') as f: csv.writer(f, delimiter=delimiter).writerows([columns, *zip(*columns.values())])
    return str(path)

@pytest.fixture
def files(tmp_path):
    train = write(tmp_path/'train.csv', dict(a=A[:40], colour=B[:40], y=Y[:40]))
    return train, write(tmp_path/'test.csv', dict(colour=B[40:], other=B[40:], a=A[40:]))

def test_as_a_process(files):
    "Predictions to standard output, everything else to standard error, columns in any order, one table from a pipe"
    done = subprocess.run([sys.executable, '-m', 'neural_tangents_nb.table', '-', files[1], '--target', 'y'], input=Path(files[0]).read_text(),
                          capture_output=True, text=True, timeout=200, env=os.environ | dict(PYTHONPATH=str(ROOT)), cwd=Path(files[0]).parent)
    assert done.returncode == 0 and 'cross-validated R2' in done.stderr, done.stderr
    rows = list(csv.DictReader(done.stdout.splitlines()))
    mean, std = (np.array([float(r[c]) for r in rows]) for c in ('y', 'y_std'))
    assert len(rows) == 20 and (np.abs(mean - Y[40:]) < 4*std).all() and np.abs(mean - Y[40:]).mean() < .5

def test_classes(files, tmp_path, capsys):
    table.main([files[0], files[1], '--target', 'colour', '--ignore', 'y', '--out', str(tmp_path/'out.csv'), '--no-score']) # a alone says nothing
    rows = list(csv.DictReader(open(tmp_path/'out.csv')))
    p = np.array([[float(r['p_blue']), float(r['p_red'])] for r in rows])
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    assert [r['colour'] for r in rows] == [('blue', 'red')[i] for i in p.argmax(1)] and p.max() < .95
    assert 'cross-validated' not in capsys.readouterr().err

def test_whole_numbers_are_classes_or_not(files, tmp_path, capsys):
    train = write(tmp_path/'train.csv', dict(a=A[:40], n=(A[:40] > 0).astype(int)))
    table.main([train, files[1], '--target', 'n', '--out', str(tmp_path/'out.csv'), '--no-score'])
    assert '2 classes' in capsys.readouterr().err and Path(tmp_path/'out.csv').read_text().startswith('n,p_0,p_1\n')
    table.main([train, files[1], '--target', 'n', '--task', 'quantity', '--out', str(tmp_path/'out.csv'), '--no-score'])
    assert 'a quantity' in capsys.readouterr().err and Path(tmp_path/'out.csv').read_text().startswith('n,n_std\n')

def test_new_values_are_said(files, tmp_path, capsys):
    test = write(tmp_path/'test.csv', dict(a=A[:2], colour=['green', 'red']))
    table.main([files[0], test, '--target', 'y', '--out', str(tmp_path/'out.csv'), '--no-score'])
    assert "'green'" in capsys.readouterr().err and len((tmp_path/'out.csv').read_text().splitlines()) == 3

GOOD = 'a,b,y\n' + '\n'.join(f'{i},{i % 7},{i*i % 11}.5' for i in range(12))
BAD = { # what is said: the training table, the test table, further arguments
    "line 3: column 'b' has no value": (GOOD.replace('1,1,', '1,,'), None, []),
    "column 'y' has no value ('NaN')": (GOOD.replace('1.5', 'NaN', 1), None, []),
    "test.csv, line 2: column 'a' has no value": (GOOD, 'a,b\n,2\n', []),
    "test.csv, line 3: column 'a' has 'x'": (GOOD, 'a,b\n1,2\nx,1\n', []),
    "column 'b' of": (GOOD, 'a\n1\n', []),
    '2 cells under 3 columns': (GOOD + '\n1,2', None, []),
    'is there twice': ('a,a,y\n1,2,3\n', None, []),
    'no rows': ('a,b,y\n', None, []),
    'not a text': (b'\xff\xfe\x00', None, []),
    'pandas writes none': (',a,y\n' + '0,1,2.5\n'*9, 'a\n1\n', []),
    "is the delimiter ';'? --delimiter": (GOOD.replace(',', ';'), None, []),
    'with a point': ('a;y\n' + '\n'.join(f'{i},25;{i}' for i in range(30)), 'a\n1\n', ['--delimiter', ';']),
    "has no column 'z'": (GOOD, None, ['--target', 'z']),
    'no column is left': (GOOD, None, ['--ignore', 'a', '--ignore', 'b']),
    'constant': ('a,y\n' + '1,1.5\n'*20, 'a\n1\n', []),
    'one class only': ('a,y\n' + '1,k\n'*20, 'a\n1\n', []),
    'at least 3 rows': ('a,y\n1,2.5\n2,3\n', 'a\n1\n', []),
    'too many for a category': ('a,y\n' + '\n'.join(f'name{i},{i}.5' for i in range(30)), 'a\nname1\n', []),
    'different classes': ('a,y\n' + '\n'.join(f'{i},c{i}' for i in range(30)), 'a\n1\n', []),
    'no such file': (None, None, []),
    'one character': (GOOD, None, ['--delimiter', ';;']),
    'not both': (GOOD, '-', []),
    '/no/such/folder': (GOOD, None, ['--out', '/no/such/folder/out', '--no-score']),
}

@pytest.mark.parametrize('said', BAD)
def test_bad_tables_are_one_line_and_status_2(said, tmp_path, capsys, monkeypatch):
    train, test, args = BAD[said]
    monkeypatch.chdir(tmp_path)
    if train is not None: Path('train.csv').write_bytes(train if isinstance(train, bytes) else train.encode())
    Path('test.csv').write_text('a,b\n1,2\n' if test is None else test)
    names = ['-', '-'] if test == '-' else ['train.csv', 'test.csv']
    with pytest.raises(SystemExit) as e: table.main([*names, '--target', 'y', *args])
    err = capsys.readouterr().err
    assert e.value.code == 2 and said in err.lower().replace("'nan'", "'NaN'") and err.splitlines()[-1].startswith('nt-predict: error'), err

@pytest.mark.parametrize('args', [[], ['a', 'b'], ['a', 'b', '--target', 'y', '--kind', 'gp'], ['a', 'b', '--target', 'y', '--time', '-1'], ['a', 'b', 'c', '--target', 'y']])
def test_bad_arguments_are_one_line_and_status_2(args, capsys):
    with pytest.raises(SystemExit) as e: table.main(args)
    err = capsys.readouterr().err
    assert e.value.code == 2 and err.startswith('nt-predict: error') and err.count('\n') == 1, err

def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as e: table.main(['--help'])
    out = capsys.readouterr().out
    assert e.value.code == 0 and 'nt-predict train.csv test.csv --target' in out and 'exit status' in out

def test_without_scikit_learn_the_extra_is_named(files, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn', None); monkeypatch.delitem(sys.modules, 'neural_tangents_nb.sklearn', raising=False)
    with pytest.raises(SystemExit) as e: table.main([*files, '--target', 'y'])
    assert e.value.code == 2 and 'neural-tangents-nb[sklearn]' in capsys.readouterr().err

def test_the_example_is_right(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(table.EXAMPLE[table.EXAMPLE.index('python'):table.EXAMPLE.index('exit status')])
    at = words.index('nt-predict')
    subprocess.run([sys.executable, *words[1:at]], check=True)
    table.main([*words[at+1:], '--no-score'])
    assert len((tmp_path/'predictions.csv').read_text().splitlines()) == 443 - 300
