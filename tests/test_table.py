"`nt-predict`: a unix tool, on tables that are right and on tables that are not"
import csv, os, shlex, subprocess, sys
from pathlib import Path
import numpy as np, pytest
from neural_tangents_nb.apps import table

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
    "test.csv has no column 'b'; it has 'a'; train.csv has it": (GOOD, 'a\n1\n', []),
    '2 cells under 3 columns': (GOOD + '\n1,2', None, []),
    "of its own; 'a' twice": ('a,a,y\n1,2,3\n', None, []),
    'no rows': ('a,b,y\n', None, []),
    '(spreadsheets can save as "csv utf-8")': (b'\xff\xfe\x00', None, []),
    'one has none': ('a,,y\n' + '0,1,2.5\n'*9, 'a\n1\n', []),
    "it has 'a,b,y'": (GOOD, None, ['--delimiter', '|']),
    "is 'y' meant?": (GOOD, None, ['--target', 'Y']),
    'points, not commas': ('a;y\n' + '\n'.join(f'{i % 3},5;{i}' for i in range(30)), 'a\n1\n', []), # few values, which were categories
    "line 2: column 'y' has '0,5' (numbers have points": ('a;y\n' + '\n'.join(f'{i};{i},5' for i in range(30)), 'a\n1\n', []),
    "line 7: column 'a' has '5 cm', and most": ('a,y\n' + '\n'.join(f'{i}{" cm"*(i == 5)},{i}.5' for i in range(30)), 'a\n1\n', []),
    "has '1e200' (too large)": ('a,y\n' + '\n'.join(f'{i}{"e200"*(i == 1)},{i}.5' for i in range(30)), 'a\n1\n', []),
    "test.csv, line 2: column 'b' has '1_0'": (GOOD, 'a,b\n1,1_0\n', []),
    "the first of 3 gaps ('a' 1, 'y' 2)": (GOOD.replace('5,5,', 'NULL,5,').replace('9.5', '#DIV/0!'), None, []),
    "line 2: column 'a' has '12%', a number with a sign or unit": ('a,y\n' + '\n'.join(f'{i % 5 + 12}%,{i}.5' for i in range(30)), 'a\n1\n', []),
    "line 2: column 'a' has '$1,200', a number with": ('a,y\n' + '\n'.join(f'"${i % 5 + 1},200",{i}.5' for i in range(30)), 'a\n1\n', []),
    "no numbers are '5 kg', '6 kg'": ('a,y\n' + '\n'.join(f'{i % 5 + 5} kg,{i}.5' for i in range(30)), 'a\n1\n', []),
    "line 5: column 'a' has '.', and most other rows have a number; no numbers are '.', '>15'": ('a,y\n' + '\n'.join(f'{dict([(3, "."), (9, ">15")]).get(i, i % 4)},{i}.5' for i in range(30)), 'a\n1\n', []),
    "line 2: column 'y' has '1 cm'": ('a,y\n' + '\n'.join(f'{i},{i % 9 + 1} cm' for i in range(30)), 'a\n1\n', ['--task', 'quantity']),
    "has '2020-01-01', a date": ('a,y\n' + '\n'.join(f'2020-01-{i % 9 + 1:02},{i}.5' for i in range(30)), 'a\n1\n', []),
    'an excel workbook': (b'PK\x03\x04' + bytes(30), None, []),
    'a damaged gzip file': (b'\x1f\x8b' + bytes(30), None, []),
    'the first of 4 gaps': (GOOD.replace('5.5', '').replace('9.5', ''), None, []),
    "no column 'a', 'b'": (GOOD, 'z\n1\n', []),
    "line 3: not a row of a csv file": ('a,b,y\n1,2,3\n1,"2,3\n1,2,3\n', None, []),
    'it is empty': ('\n', None, []),
    'test.csv: no rows below': (GOOD, 'a,b\n', []),
    'is one of the tables': (GOOD, None, ['--out', 'test.csv']),
    'is a folder': (GOOD, None, ['--out', '.']),
    "--id: train.csv has no column 'c'": (GOOD, None, ['--id', 'c']),
    'predictions have a column of that name': (GOOD.replace('b', 'y_std'), 'a,y_std\n1,2\n', ['--id', 'y_std', '--no-score']),
    'if these are names, --category a': ('a;y\n' + '\n'.join(f'{i},25;{i}' for i in range(30)), 'a\n1\n', ['--delimiter', ';']),
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
    'there is no folder /no/such/folder': (GOOD, None, ['--out', '/no/such/folder/out']),
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

PROGRAM = [sys.executable, '-m', 'neural_tangents_nb.table', 'train.csv', 'test.csv', '--target', 'y', '--no-score']
def process(folder, **options): return subprocess.Popen(PROGRAM, cwd=folder, stderr=subprocess.PIPE, env=os.environ | dict(PYTHONPATH=str(ROOT)), **options)

def test_a_closed_pipe_is_141_and_silent(files, tmp_path):
    at, to = os.pipe(); os.close(at) # nobody reads
    done = process(tmp_path, stdout=to); os.close(to)
    err = done.communicate(timeout=200)[1].decode()
    assert done.returncode == 141 and 'Error' not in err and 'Traceback' not in err, err

def test_an_interrupt_is_130_and_leaves_nothing(files, tmp_path):
    (tmp_path/'train.csv').unlink(); os.mkfifo(tmp_path/'train.csv') # opening it waits for ever
    # What a shell starts in the background inherits that it ignores interrupts.
    code = 'import os, signal, threading, sys; from neural_tangents_nb.apps import table; signal.signal(signal.SIGINT, signal.default_int_handler); threading.Timer(1., os.kill, (os.getpid(), signal.SIGINT)).start(); table.main(sys.argv[1:])'
    done = subprocess.run([sys.executable, '-c', code, *PROGRAM[3:], '--out', 'out.csv'], cwd=tmp_path, capture_output=True, text=True, timeout=100, env=os.environ | dict(PYTHONPATH=str(ROOT)))
    assert done.returncode == 130 and 'Traceback' not in done.stderr and not list(tmp_path.glob('out*')), done.stderr

def test_an_old_file_is_replaced_as_a_whole(tmp_path, monkeypatch):
    out = tmp_path/'out.csv'
    out.write_text('old'); out.chmod(0o640); (tmp_path/'link').symlink_to(out)
    table.write(dict(a=[1, 2]), tmp_path/'link')
    assert out.read_text() == 'a\n1\n2\n' and out.stat().st_mode & 0o777 == 0o640 and (tmp_path/'link').is_symlink()
    def full(*args): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(table.os, 'replace', full)
    with pytest.raises(OSError): table.write(dict(a=[3]), out)
    assert out.read_text() == 'a\n1\n2\n' and sorted(p.name for p in tmp_path.iterdir()) == ['link', 'out.csv']
    table.write(dict(a=[3]), '/dev/null') # a device is no file to replace
    assert not Path('/dev/null').is_file()

def test_standard_output_is_appended_to(tmp_path):
    "By either name, and whatever it is: a file of the shell is not replaced"
    for name in '-', '/dev/stdout':
        with open(tmp_path/'all', 'w') as f:
            f.write('before\n'); f.flush()
            subprocess.run([sys.executable, '-c', f'from neural_tangents_nb.apps import table; table.write(dict(a=[1]), {name!r})'], stdout=f, check=True, env=os.environ | dict(PYTHONPATH=str(ROOT)))
            f.seek(0, 2); f.write('after\n')
        assert (tmp_path/'all').read_text() == 'before\na\n1\nafter\n'

@pytest.mark.parametrize('text', ['a,b,y\n1,2,3\n', '\ufeffa,b,y\r\n1,2,3\r\n', 'a;b;y\n1;2;3\n', 'a\tb\ty\n1\t2\t3\n', '"a", "b","y"\n 1,2, "3"\n\n', '\n\na,b,y\r1,2,3\r', '"a"; "b";y\n1;2;3'])
def test_ways_of_writing_a_table(text, tmp_path):
    (tmp_path/'t').write_bytes(text.encode())
    assert table.read(tmp_path/'t').columns == dict(a=['1'], b=['2'], y=['3'])

def test_quoted_cells_keep_delimiters_and_lines(tmp_path):
    (tmp_path/'t').write_text('"a;b;c",y\n"x, ""z""\nw",1\n,2\n')
    t = table.read(tmp_path/'t')
    assert t.columns == {'a;b;c': ['x, "z"\nw', ''], 'y': ['1', '2']} and t.lines == [3, 4]

def test_names_of_rows_go_along_and_known_answers_are_scored(files, tmp_path, capsys):
    train = write(tmp_path/'named.csv', dict(a=A[:40], colour=B[:40], y=Y[:40], who=[f'n{i}' for i in range(40)]), ';')
    test = write(tmp_path/'test.csv', dict(a=A[40:], y=[*Y[40:59], ''], colour=B[40:], who=[f'm{i}' for i in range(20)]))
    table.main([train, test, '--target', 'y', '--id', 'who', '--no-score', '--out', str(tmp_path/'out.csv')])
    rows = list(csv.DictReader(open(tmp_path/'out.csv')))
    assert list(rows[0]) == ['who', 'y', 'y_std'] and [r['who'] for r in rows] == [f'm{i}' for i in range(20)]
    got = np.array([float(r['y']) for r in rows[:19]])
    r2 = 1 - ((got - Y[40:59])**2).sum()/((Y[40:59] - Y[40:59].mean())**2).sum()
    assert f'R2 on 19 rows of {test}: {r2:.3f}' in capsys.readouterr().err

def test_rows_beyond_memory_go_to_conjugate_gradients(files, tmp_path, capsys, monkeypatch):
    from neural_tangents_nb import sklearn as estimators
    table.main([*files, '--target', 'y', '--no-score', '--out', str(tmp_path/'a')]); assert 'conjugate gradients' not in capsys.readouterr().err
    monkeypatch.setattr(estimators, 'free_memory', lambda device: 8*40**2)
    table.main([*files, '--target', 'y', '--no-score', '--out', str(tmp_path/'b')]); assert 'conjugate gradients' in capsys.readouterr().err
    a, b = (np.genfromtxt(tmp_path/n, delimiter=',', skip_header=1) for n in 'ab')
    np.testing.assert_allclose(a, b, atol=1e-3) # residual 1e-6, condition number about 1e2

def test_small_classes_are_scored_too(files, tmp_path, capsys):
    "Rows are left out one by one: a class of one row cuts no folds"
    train = write(tmp_path/'train.csv', dict(a=A[:9], c=['u']*4 + ['v']*4 + ['w']))
    table.main([train, files[1], '--target', 'c', '--out', str(tmp_path/'out.csv')])
    assert 'cross-validated accuracy: 0.' in capsys.readouterr().err and len((tmp_path/'out.csv').read_text().splitlines()) == 21

def predicted(tmp_path, capsys, train, *args, test='a\n1\n'):
    for name, text in ('train.csv', train), ('test.csv', test): (tmp_path/name).write_bytes(text if isinstance(text, bytes) else text.encode())
    table.main([str(tmp_path/'train.csv'), str(tmp_path/'test.csv'), '--target', 'y', '--no-score', *args, '--out', str(tmp_path/'out.csv')])
    return (tmp_path/'out.csv').read_text().splitlines(), capsys.readouterr().err

def test_what_is_asked_for_is_taken(tmp_path, capsys):
    "A gap that is a value, a category of many values, decimal commas"
    text = 'a,y\n' + '\n'.join(f'{("None", "NA", "some")[i % 3]},{i}.5' for i in range(30))
    assert 'a (3 values)' in predicted(tmp_path, capsys, text, '--missing', '-99', test='a\nNone\n')[1]
    with pytest.raises(SystemExit): predicted(tmp_path, capsys, text, '--missing', 'na')
    capsys.readouterr()
    text = 'a,y\n' + '\n'.join(f'{i},{i}.5' for i in range(40))
    assert 'a (40 values)' in predicted(tmp_path, capsys, text.replace(',', ' kg,').replace('a kg', 'a'), '--category', 'a')[1]
    comma = 'a;y\n' + '\n'.join(f'1.00{i % 9},5;{i},5' for i in range(30))
    assert predicted(tmp_path, capsys, comma, '--decimal', ',')[0] == predicted(tmp_path, capsys, comma.replace('.', '').replace(',', '.'))[0]

def test_names_of_rows_as_r_and_pandas_write_them(tmp_path, capsys):
    rows = '\n'.join(f'row {i},{i % 9},{i}.5' for i in range(30))
    for head in ',a,y\n', 'a,y\n':
        out, said = predicted(tmp_path, capsys, head + rows, test=',a\nfirst,1\nsecond,2\n')
        assert out[0] == ',y,y_std' and [r.split(',')[0] for r in out[1:]] == ['first', 'second'] and 'names of rows' in said
    assert predicted(tmp_path, capsys, ',a,y\n' + rows)[0][0] == 'y,y_std' # the test table has no names

@pytest.mark.parametrize('code', [lambda t: __import__('gzip').compress(t.encode()), lambda t: t.encode('utf-16'), lambda t: t.encode('utf-16-le'), lambda t: t.encode('utf-16-be')])
def test_compressed_and_wide_texts(code, tmp_path):
    (tmp_path/'t').write_bytes(code('a,b\n1,é\n'))
    assert table.read(tmp_path/'t').columns == dict(a=['1'], b=['é'])

def test_version(capsys):
    from neural_tangents_nb import __version__
    with pytest.raises(SystemExit) as e: table.main(['--version'])
    assert e.value.code == 0 and capsys.readouterr().out == f'nt-predict {__version__}\n'

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

# Spellings in the training table and in the test table, and the classes by name
SPELT = [(['0', '1'], ['0.0', '1.0'], '01'), (['0.0', '1.0'], ['0', '1'], ['0.0', '1.0']), (['False', 'True'], ['FALSE', 'TRUE'], ['False', 'True']), (['1', '2'], ['+1', '2e0'], '12')]

@pytest.mark.parametrize('train, test, classes', SPELT)
def test_classes_are_compared_by_value(train, test, classes, tmp_path, capsys):
    "0 and 0.0 are one class, however another program wrote the test table"
    a, at = np.r_[-np.ones(20), np.ones(20)], np.repeat([0, 1], 20)
    files = write(tmp_path/'a.csv', dict(a=a, y=np.array(train)[at])), write(tmp_path/'b.csv', dict(a=a, y=np.array(test)[at]))
    table.main([*files, '--target', 'y', '--no-score', '--out', str(tmp_path/'out.csv')])
    assert f'accuracy on 40 rows of {files[1]}: 1.000' in capsys.readouterr().err
    assert (tmp_path/'out.csv').read_text().startswith('y,' + ','.join(f'p_{c}' for c in classes) + '\n')

def test_one_class_in_two_spellings(tmp_path, capsys):
    a, y = np.r_[-np.ones(20), np.ones(20)], ['0', '0.0']*10 + ['1', '1.0']*10
    file = write(tmp_path/'a.csv', dict(a=a, y=y))
    table.main([file, file, '--target', 'y', '--task', 'classes', '--out', str(tmp_path/'out.csv')])
    said = capsys.readouterr().err
    assert 'y: 2 classes' in said and 'accuracy on 40 rows of' in said and (tmp_path/'out.csv').read_text().startswith('y,p_0,p_1\n')

def test_labels_that_are_no_classes_are_said(tmp_path, capsys):
    a, at = np.r_[-np.ones(20), np.ones(20)], np.repeat([0, 1], 20)
    train = write(tmp_path/'a.csv', dict(a=a, y=np.array(['cat', 'dog'])[at]))
    for names, said in (['Cat', 'Dog'], "has 'Cat', 'Dog', none of which is a class of the training table ('cat', 'dog')"), (['cat', 'cow'], "rows of {}: 0.500; 'cow', no class there"):
        test = write(tmp_path/'b.csv', dict(a=a, y=np.array(names)[at]))
        table.main([train, test, '--target', 'y', '--no-score', '--out', str(tmp_path/'out.csv')])
        assert said.format(test) in capsys.readouterr().err

def test_categories_are_compared_by_value(tmp_path, capsys):
    "Declared ones, and those that a text among numbers makes; numbers of more digits than a float has stay apart"
    columns = lambda *spelt: table.Table('t', dict(c=list(spelt)), list(range(len(spelt))))
    column = table.inferred(columns('1', '1.0', '2', '12345678901234567890', '12345678901234567891', 'True'), 'c', ['c'])
    assert column.values.names == ['1', '12345678901234567890', '12345678901234567891', '2', 'True']
    x = table.inputs(columns('1.00', '2.0', 'TRUE', '3'), [column])
    assert x.argmax(1)[:3].tolist() == [0, 3, 4] and x.sum(1).tolist() == [1, 1, 1, 0]
    table.described([column], columns('1'), columns('1.00', '3.0', '3'))
    assert "has '3', not in the training table" in capsys.readouterr().err
