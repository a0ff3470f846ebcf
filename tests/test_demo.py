"The main job, `python -m neural_tangents_nb`: on the digits, on a user's own data, and on what a user can get wrong"
import csv, os, re, shlex, subprocess, sys
from pathlib import Path
import numpy as np, pytest
from neural_tangents_nb import stax
from neural_tangents_nb.apps import demo

RNG = np.random.RandomState(0)
X = RNG.rand(50, 2)
ROOT = Path(__file__).resolve().parent.parent
FIGURES = [f'{name}.png' for name in ('curves', 'kernel', 'calibration', 'least_certain', 'posterior_1d')]

def save(path, **changed):
    "A user's archive of 30 training and 20 test examples with real targets; `None` removes an array"
    y = np.sin(5*X[:, 0]) + X[:, 1]
    arrays = dict(x_train=X[:30], y_train=y[:30], x_test=X[30:], y_test=y[30:]) | changed
    np.savez(path, **{name: a for name, a in arrays.items() if a is not None})
    return path

@pytest.mark.full
def test_digits_in_a_process_of_its_own(tmp_path):
    done = subprocess.run([sys.executable, '-m', 'neural_tangents_nb', '--train-size', '60', '--out', 'here'], cwd=tmp_path,
                          capture_output=True, text=True, timeout=400, stdin=subprocess.DEVNULL, env=os.environ | dict(PYTHONPATH=str(ROOT)))
    assert done.returncode == 0, done.stderr
    rows = {name: numbers for name, *numbers in (re.split(r'\s{2,}', line.strip()) for line in done.stdout.splitlines())}
    for name in 'Fully connected, NNGP', 'Fully connected, NTK', 'Convolutional, NNGP', 'Convolutional, NTK', 'Support vector machine', 'Gaussian process':
        assert rows[name][0] == '60' and float(rows[name][1]) > .7, done.stdout
    assert {'accuracy', 'nll', 'ece', 'seconds'} <= set(rows['train']) and str(tmp_path/'here') in done.stdout
    assert all((tmp_path/'here'/f).stat().st_size > 5000 for f in FIGURES)
    with np.load(tmp_path/'here'/'predictions.npz') as p:
        assert p['predicted'].shape == (1737,) and set(p['predicted']) <= set(range(10))

def test_it_starts_in_a_process_of_its_own(tmp_path):
    done = subprocess.run([sys.executable, '-m', 'neural_tangents_nb', '--train-size', 'x'], cwd=tmp_path, capture_output=True, text=True,
                          timeout=100, stdin=subprocess.DEVNULL, env=os.environ | dict(PYTHONPATH=str(ROOT)))
    assert done.returncode == 2 and 'train-size' in done.stderr, done.stderr

def test_real_targets(tmp_path, capsys):
    demo.main(['--data', str(save(tmp_path/'own.npz')), '--out', str(tmp_path/'out')])
    said = capsys.readouterr().out
    assert 'rmse' in said and 'accuracy' not in said
    with np.load(tmp_path/'out'/'predictions.npz') as p: mean, std = p['mean'], p['std']
    truth = np.sin(5*X[30:, 0]) + X[30:, 1]
    assert np.sqrt(np.mean((mean - truth)**2)) < .5*truth.std() and (std > 0).all()
    rows = list(csv.DictReader(open(tmp_path/'out'/'predictions.csv')))
    assert len(rows) == 20 and float(rows[3]['std']) == pytest.approx(std[3], rel=1e-5)
    assert all((tmp_path/'out'/f).is_file() for f in FIGURES)

def test_labels_without_truth(tmp_path, capsys):
    "A fifth of the training set is held out for the scores; predictions come from the whole"
    names = np.where(X[:30, 0] > .5, 'large', 'small')
    demo.main(['--data', str(save(tmp_path/'own.npz', y_train=names, y_test=None)), '--out', str(tmp_path/'out')])
    said = capsys.readouterr().out
    assert 'a fifth of the training set' in said and re.search(r'Fully connected, NTK +24 ', said)
    with np.load(tmp_path/'out'/'predictions.npz') as p:
        assert np.mean(p['predicted'] == np.where(X[30:, 0] > .5, 'large', 'small')) > .7
        np.testing.assert_allclose(p['p_large'] + p['p_small'], 1)

def test_without_sklearn_the_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn', None)
    with pytest.raises(SystemExit) as e: demo.main([])
    assert e.value.code == 2 and 'neural-tangents-nb[demo]' in capsys.readouterr().err

@pytest.mark.parametrize('train, test', [([0, 1], [0., 1.]), ([False, True], ['FALSE', 'TRUE']), (['0', '1.0'], [0, 1]), ([0, 1], ['0', '1'])])
def test_labels_are_compared_by_value(train, test, tmp_path):
    "However the two arrays hold them"
    task = demo.own(save(tmp_path/'own.npz', y_train=np.array(train)[np.arange(30) % 2], y_test=np.array(test)[np.arange(20) % 2]))
    assert task.classes.tolist() == train and (task.y_test == np.array(train)[np.arange(20) % 2]).all()

def test_predictions_of_several_targets(tmp_path):
    task = demo.own(save(tmp_path/'own.npz', y_train=X[:30], y_test=X[30:]))
    answers = demo.infinite(demo.fully_connected(), 'nngp')(task), demo.support_vectors(task), demo.gaussian_process(task)
    assert all(demo.scores(task, a)['rmse'] < .1 for a in answers) and list(demo.columns(task, answers[0])) == ['mean_0', 'std_0', 'mean_1', 'std_1']

def images(side):
    x = RNG.rand(60, side*side)
    return demo.Task(x[:40], np.arange(40) % 2, x[40:], np.arange(20) % 2, (side, side, 1))

def test_the_forecast_is_said_and_can_leave_out(capsys):
    "It grows with the pixels; the option is compared with it"
    net = demo.convolutional()
    assert 3 < demo.forecast(net, images(24))/demo.forecast(net, images(12)) < 5 # the last layers cost the same
    assert 'Convolutional, NTK' in demo.methods(images(12)) and re.fullmatch(r'Convolutional: about \d+ s once compiled\n', capsys.readouterr().err)
    assert not [m for m in demo.methods(images(12), 0.) if 'Conv' in m] and 'left out: more than --minutes 0' in capsys.readouterr().err

def test_tiles_are_no_thinner_than_they_must():
    "Of a network that flattens first: one row at a time takes many times as long"
    x = np.zeros((500, 28*28))
    assert demo.tile_rows(stax.serial(stax.Flatten(), stax.Dense(1)), x, (28, 28, 1)) > 8 and demo.tile_rows(demo.fully_connected(), x, None) == 0

BAD = {
    'no such file': None,
    'not a readable .npz': b'nonsense',
    'y_train is missing': dict(y_train=None),
    'at least 10': dict(x_train=X[:5], y_train=X[:5, 0]),
    'NaN': dict(x_test=np.full((3, 2), np.nan), y_test=None),
    'differ in shape': dict(x_test=np.ones((20, 3))),
    '29 examples': dict(x_train=X[:29]),
    'must be real numbers': dict(x_train=X[:30].astype(complex)),
    'must be (n, d)': dict(x_train=np.ones((30, 1, 1, 1, 1))),
    'constant': dict(y_train=np.ones(30)),
    'one class only': dict(y_train=np.ones(30, int), y_test=None),
    'save them as floats': dict(y_train=np.arange(30), y_test=None),
    'y_train has not': dict(y_train=np.arange(30) % 3, y_test=np.full(20, 7)),
    'not of the kind': dict(y_test=np.array(['a']*20)),
    'one label for each': dict(y_train=np.ones((30, 4), int)),
}

@pytest.mark.parametrize('said', BAD)
def test_bad_data_is_one_line_and_status_2(said, tmp_path, capsys):
    path = tmp_path/'own.npz'
    if isinstance(BAD[said], bytes): path.write_bytes(BAD[said])
    elif BAD[said]: save(path, **BAD[said])
    with pytest.raises(SystemExit) as e: demo.main(['--data', str(path), '--out', str(tmp_path/'out')])
    err = capsys.readouterr().err
    assert e.value.code == 2 and said in err and err.count('\n') == 1, err

@pytest.mark.parametrize('args', [['--train-size', '3'], ['--train-size', 'x'], ['--train-size', '1797'], ['--seed', '-1'], ['--minutes', '-1'], ['--what'], ['surplus']])
def test_bad_arguments_are_one_line_and_status_2(args, capsys):
    with pytest.raises(SystemExit) as e: demo.main(args)
    err = capsys.readouterr().err
    assert e.value.code == 2 and 'error' in err and err.count('\n') == 1, err

def test_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path/'file').touch()
    with pytest.raises(SystemExit) as e: demo.main(['--data', str(save(tmp_path/'own.npz')), '--out', str(tmp_path/'file'/'out')])
    assert e.value.code == 2 and 'file' in capsys.readouterr().err

def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as e: demo.main(['--help'])
    assert e.value.code == 0 and '--data own.npz' in capsys.readouterr().out

def test_the_example_is_right(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(demo.EXAMPLE[demo.EXAMPLE.index('python'):])
    subprocess.run([sys.executable, *words[1:3]], check=True)
    assert words[3:6] == ['python', '-m', 'neural_tangents_nb'] and demo.own('own.npz').x_train.shape == (200, 2)
