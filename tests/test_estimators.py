"The estimators behave as scikit-learn expects, and a saved model is data, never code"
import io, json, pickle, subprocess, sys, zipfile
import numpy as np, pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator
from neural_tangents_nb import __version__, stax, sklearn as estimators
from neural_tangents_nb.core import test_close as close
from neural_tangents_nb.sklearn import InfiniteClassifier, InfiniteRegressor, load

RNG = np.random.RandomState(0)
X, X_TEST = RNG.randn(40, 3), RNG.randn(9, 3)
Y = np.sin(X[:, 0]) + .1*RNG.randn(40)
SHALLOW = stax.serial(stax.Dense(1, 1.4, .5), stax.Relu(), stax.Dense(1, 1.4, .5)) # the same code as for deeper ones, compiled in less time
NOT_RUN = {'check_array_api_input'} # runs only where the environment sets SCIPY_ARRAY_API

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('model', [InfiniteRegressor(SHALLOW), pytest.param(InfiniteClassifier(SHALLOW), marks=pytest.mark.full)], ids=['regressor', 'classifier'])
def test_scikit_learn_is_content(model):
    results = check_estimator(model, on_fail=None, on_skip=None)
    assert len(results) > 40
    bad = {r['check_name']: r['exception'] for r in results if r['status'] != 'passed' and r['check_name'] not in NOT_RUN}
    assert not bad, bad

@pytest.fixture(scope='module')
def fitted(): return InfiniteRegressor(SHALLOW, kind='ntk').fit(X, Y)

def test_copies_predict_the_same(fitted, tmp_path):
    mean, std = fitted.predict(X_TEST, return_std=True)
    fitted.save(tmp_path/'m')
    for copy in pickle.loads(pickle.dumps(fitted)), load(tmp_path/'m'):
        close(copy.predict(X_TEST, return_std=True), (mean, std), 1e-9)
    assert load(tmp_path/'m').get_params() == fitted.get_params() and clone(fitted).get_params() == fitted.get_params()
    assert [p.name for p in tmp_path.iterdir()] == ['m'] # nothing left beside it

def test_scale_of_data_does_not_matter(fitted):
    other = InfiniteRegressor(SHALLOW, kind='ntk').fit(X*[1., 1e3, 1e-3] + 7., 50*Y - 3)
    for a, b in zip(fitted.predict(X_TEST, return_std=True), other.predict(X_TEST*[1., 1e3, 1e-3] + 7., return_std=True)):
        close(b, 50*a - (3 if (a < 0).any() else 0), 1e-6)

def test_tiles_and_solvers_change_nothing(fitted):
    other = InfiniteRegressor(SHALLOW, kind='ntk', batch_size=50, solver='eigh').fit(X, Y)
    close(other.predict(X_TEST), fitted.predict(X_TEST), 1e-9)

@pytest.mark.parametrize('kind, batch_size', [('ntk', 16), *(pytest.param(*p, marks=pytest.mark.full) for p in (('ntk', 0), ('nngp', 0), ('nngp', 16)))])
def test_conjugate_gradients_agree_with_factors(kind, batch_size):
    dense, tiled = (InfiniteRegressor(SHALLOW, kind, noise=.01, solver=s, batch_size=batch_size).fit(X, np.stack([Y, -2*Y], 1)) for s in ('cholesky', 'cg'))
    for a, b in zip(dense.predict(X_TEST, return_cov=True), tiled.predict(X_TEST, return_cov=True)): close(b, a, 1e-4) # residual 1e-6, condition number about 1e2
    close(tiled.sample_y(X_TEST, 2).shape, (9, 2, 2)); assert tiled.noise_ == dense.noise_

def test_conjugate_gradients_never_form_the_kernel(monkeypatch, tmp_path):
    "Noise, scale and sharpness are chosen on a part; no kernel of all training points with themselves is computed"
    sizes, whole = [], estimators.kernels
    monkeypatch.setattr(estimators, 'PART', 24)
    monkeypatch.setattr(estimators, 'kernels', lambda net, x1, x2=None, *args: sizes.append((len(x1), len(x1 if x2 is None else x2))) or whole(net, x1, x2, *args))
    labels = np.where(Y > .3, 'high', np.where(Y > -.3, 'middle', 'low'))
    for model, y in (InfiniteRegressor(SHALLOW, solver='cg'), Y), (InfiniteClassifier(SHALLOW, solver='cg'), labels):
        model.fit(X, y); ask = lambda m: m.predict_proba(X_TEST) if y is labels else np.stack(m.predict(X_TEST, return_std=True))
        model.save(tmp_path/'m')
        close(ask(load(tmp_path/'m')), ask(model), 1e-9)
        assert model.score(X, y) > .5
    assert set(sizes) == {(24, 24), (9, 40), (40, 40)} and sizes.count((40, 40)) == 2 # of the scores: test rows against training rows

def test_uncertainty_covers_what_is_left_out():
    x = RNG.randn(300, 2)
    y = np.abs(x[:, 0]) + .3*RNG.randn(300)
    model = InfiniteRegressor(SHALLOW).fit(x[:128], y[:128])
    mean, std = model.predict(x[128:], return_std=True)
    inside = np.mean(np.abs(y[128:] - mean) < 2*std)
    assert abs(inside - .954) < 4*np.sqrt(.954*.046/172) + .03 # sampling error, and what 128 points know about the noise
    assert abs(np.sqrt(model.noise_variance_[0]) - .3) < .1

def rewritten(path, new, **changes):
    "The saved model at `path` with members, or entries of its description, changed"
    with zipfile.ZipFile(path) as z: parts = {n: z.read(n) for n in z.namelist()}
    parts |= {n: v for n, v in changes.items() if isinstance(v, bytes)}
    parts['model.json'] = json.dumps(json.loads(parts['model.json']) | {n: v for n, v in changes.items() if not isinstance(v, bytes)}).encode()
    with zipfile.ZipFile(new, 'w') as z:
        for n, d in parts.items(): z.writestr(n, d)
    return new

class Bomb:
    def __reduce__(self): return (open, (Bomb.path, 'w'))

def test_a_file_cannot_run_code(fitted, tmp_path):
    fitted.save(tmp_path/'m'); Bomb.path = str(tmp_path/'ran')
    f = io.BytesIO(); np.save(f, np.array([Bomb()], object), allow_pickle=True)
    for changes, said in ({'targets_.npy': f.getvalue()}, 'pickle'), (dict(net={'layer': 'os.system', 'fields': {}}), 'os.system'), (dict(estimator='Bomb'), 'Bomb'):
        with pytest.raises(ValueError, match=said): load(rewritten(tmp_path/'m', tmp_path/'bad', **changes))
    assert not (tmp_path/'ran').exists()
    np.load(f := io.BytesIO(f.getvalue()), allow_pickle=True) # the same bytes do run code where it is allowed
    assert (tmp_path/'ran').exists()

def test_the_version_is_in_the_file_and_checked(fitted, tmp_path):
    fitted.save(tmp_path/'m')
    with zipfile.ZipFile(tmp_path/'m') as z: info = json.loads(z.read('model.json'))
    assert info['version'] == __version__ and info['format'] == estimators.FORMAT
    close(load(rewritten(tmp_path/'m', tmp_path/'same')).predict(X_TEST), fitted.predict(X_TEST), 1e-9) # `rewritten` alone breaks nothing
    with pytest.raises(ValueError, match=f'format 99, written by version 7.8; this is version {__version__}'): load(rewritten(tmp_path/'m', tmp_path/'new', format=99, version='7.8'))

def test_every_damage_is_noticed(fitted, tmp_path):
    fitted.save(tmp_path/'m'); data = (tmp_path/'m').read_bytes()
    for cut in data[:len(data)//2], b'', b'PK nonsense', data[:80] + bytes([data[80] ^ 255]) + data[81:]:
        (tmp_path/'bad').write_bytes(cut)
        with pytest.raises(ValueError, match='bad'): load(tmp_path/'bad')
    with pytest.raises(FileNotFoundError): load(tmp_path/'none')

def test_every_flipped_byte_is_noticed_or_without_effect(fitted, tmp_path):
    "Some bytes of the archive say nothing about the model, such as its date; all others are guarded"
    fitted.save(tmp_path/'m'); data, noticed = (tmp_path/'m').read_bytes(), 0
    state = lambda m: {n: v for n, v in vars(m).items() if n not in ('_ensemble', 'arch', 'net_')} | dict(arch=str(m.arch), net=str(m.net_))
    want, at = state(fitted), range(0, len(data), 5)
    for i in at:
        (tmp_path/'bad').write_bytes(data[:i] + bytes([data[i] ^ 255]) + data[i+1:])
        try: got = state(load(tmp_path/'bad'))
        except ValueError: noticed += 1
        else: assert got.keys() == want.keys() and all(np.array_equal(got[n], want[n]) for n in want)
    assert noticed > len(at)/2

@pytest.mark.parametrize('options, said', [
    (dict(kind='gp'), 'kind'), (dict(t=-1.), '`t`'), (dict(t=0), '`t`'), (dict(noise='much'), 'noise'), (dict(noise=-.1), 'noise'), (dict(noise=None), 'noise'),
    (dict(t=np.inf), '`t`'), (dict(noise=True), 'noise'), (dict(standardize='no'), 'standardize'), (dict(input_shape=3), 'input_shape'), (dict(input_shape='abc'), 'input_shape'), (dict(input_shape=(3.,)), 'input_shape'),
    (dict(solver='qr'), 'solver'), (dict(solver='cg', t=1.), '`t`'), (dict(batch_size=-1), 'batch_size'), (dict(arch='cnn'), 'arch'), (dict(input_shape=(2, 2)), 'input_shape')])
def test_wrong_options_are_named(options, said):
    with pytest.raises(ValueError, match=said): InfiniteRegressor(**options).fit(X, Y)

def test_very_large_and_small_numbers(fitted):
    "Squares of the inputs are none, and those of the targets are refused"
    for size in 1e200, 1e-200: close(InfiniteRegressor(SHALLOW, kind='ntk').fit(X*size, Y).predict(X_TEST*size), fitted.predict(X_TEST), 1e-6)
    for size in 1e200, 1e-200:
        with pytest.raises(ValueError, match='change its units'): InfiniteRegressor(SHALLOW).fit(X, Y*size)

def test_log_probabilities_and_refusals(fitted, tmp_path):
    model = InfiniteClassifier(SHALLOW).fit(X, Y > 0)
    close(np.exp(model.predict_log_proba(X_TEST)), model.predict_proba(X_TEST), 1e-12)
    for n in 0, -1, 1.5, None:
        with pytest.raises(ValueError, match='n_samples'): fitted.sample_y(X_TEST, n)
    with pytest.raises(IsADirectoryError, match='folder'): fitted.save(tmp_path)
    assert not list(tmp_path.iterdir()) and not list(tmp_path.parent.glob('*.new'))
    with pytest.raises(TypeError, match='sample_weight'): InfiniteRegressor(SHALLOW).fit(X, Y, sample_weight=np.ones(40))

def test_pandas_pipelines_and_searches():
    "Names of features are kept and checked; architectures and noise are searched, in and out of a pipeline"
    import pandas as pd
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    table, y = pd.DataFrame(X, columns=list('abc')), pd.Series(Y)
    model = InfiniteRegressor(SHALLOW).fit(table, y)
    assert list(model.feature_names_in_) == list('abc')
    close(model.predict(table), InfiniteRegressor(SHALLOW).fit(X, Y).predict(X), 1e-12)
    for wrong in table[list('bac')], table[['a', 'b']]:
        with pytest.raises(ValueError, match='feature names'): model.predict(wrong)
    pipe = make_pipeline(StandardScaler(), InfiniteRegressor(SHALLOW)).set_output(transform='pandas').fit(table, y)
    close(pipe.predict(table), model.predict(table), 1e-6) # standardized twice is once, up to rounding
    grid = {'infiniteregressor__arch': [SHALLOW, 'fcn'], 'infiniteregressor__noise': [1e3, .01]}
    best = GridSearchCV(pipe, grid, cv=2).fit(table, y).best_params_
    assert best['infiniteregressor__noise'] == .01 # a thousandfold noise predicts the mean

def test_a_singular_kernel_says_what_to_do():
    linear = stax.Dense(1, 1.4, .5) # of rank 4
    with pytest.raises(ValueError, match='eigh'): InfiniteRegressor(linear, noise=0.).fit(X, Y)
    assert np.isfinite(InfiniteRegressor(linear, noise=0., solver='eigh').fit(X, Y).predict(X_TEST)).all()

def test_equal_rows_without_noise_are_one(fitted):
    "Their mean is learned; the kernel of the rows as they are would be singular"
    twice = InfiniteRegressor(SHALLOW, noise=0.).fit(np.concatenate([X, X]), np.concatenate([Y + 1, Y - 1]))
    close(twice.predict(X_TEST), InfiniteRegressor(SHALLOW, noise=0.).fit(X, Y).predict(X_TEST), 1e-6)
    assert len(twice.x_train_) == 40

@pytest.mark.parametrize('t', [None, 3.])
def test_noise_of_each_row(t):
    one, each = (InfiniteRegressor(SHALLOW, t=t, noise=n).fit(X, Y) for n in (.1, np.full(40, .1)))
    close(each.predict(X_TEST, return_std=True), one.predict(X_TEST, return_std=True), 1e-9)
    for bad in np.full(3, .1), np.full(40, -.1), np.full(40, np.nan):
        with pytest.raises(ValueError, match='noise'): InfiniteRegressor(SHALLOW, t=t, noise=bad).fit(X, Y)

def test_noisy_rows_are_hardly_read():
    wrong = np.arange(40) < 8
    known = InfiniteRegressor(SHALLOW, noise=np.where(wrong, 1e4, .1)).fit(X, Y + wrong)
    left = np.abs(known.predict(X[wrong]) - Y[wrong]) < np.abs(known.predict(X[wrong]) - Y[wrong] - 1)
    assert left.mean() > .8

def test_one_row_is_refused():
    for model, y in (InfiniteRegressor(SHALLOW), [1.]), (InfiniteClassifier(SHALLOW), ['a']):
        with pytest.raises(ValueError, match='1 sample'): model.fit(X[:1], y)

def test_arrays_of_other_kinds(fitted):
    "Lists, frames and foreign bytes are numbers; what is masked is not"
    import pandas as pd
    for x in X.tolist(), pd.DataFrame(X).to_numpy('>f8'), np.ma.array(X):
        close(InfiniteRegressor(SHALLOW, kind='ntk').fit(x, Y).predict(X_TEST), fitted.predict(X_TEST), 1e-9)
    masked = np.ma.array(X, mask=X > 2)
    for call in lambda: InfiniteRegressor(SHALLOW).fit(masked, Y), lambda: InfiniteRegressor(SHALLOW).fit(X, np.ma.array(Y, mask=Y > .9)), lambda: fitted.predict(masked):
        with pytest.raises(ValueError, match='masked'): call()

@pytest.mark.parametrize('kind', ['nngp', 'ntk'])
def test_large_tables_need_one_kernel_and_one_factor(kind, monkeypatch):
    "The noise comes from a part; scale and score from what is left out of the one factorization"
    sizes, made, whole, solver_of = [], [], estimators.kernels, estimators.solver_of
    monkeypatch.setattr(estimators, 'PART', 24)
    monkeypatch.setattr(estimators, 'kernels', lambda net, x1, x2=None, *args: sizes.append(len(x1)) or whole(net, x1, x2, *args))
    monkeypatch.setattr(estimators, 'solver_of', lambda *args: made.append(args) or solver_of(*args))
    part = InfiniteRegressor(SHALLOW, kind, noise=.1).fit(X, Y)
    assert sizes == [40] and len(made) == 1
    monkeypatch.undo()
    all = InfiniteRegressor(SHALLOW, kind, noise=.1).fit(X, Y)
    close(part.predict(X_TEST), all.predict(X_TEST), 1e-12)
    (score, error), (of_all, _) = part.left_out_score_, all.left_out_score_
    assert abs(score - of_all) < 4*error and all.noise_ == part.noise_

def test_scores_are_pooled():
    "R2 of predictions of each row by a model that was trained on the others, and its error; linear in rows, so that five rows have one"
    x, y = X - X.mean(0), Y - Y.mean()
    model = InfiniteRegressor(SHALLOW, noise=.5, standardize=False).fit(x, y)
    k = estimators.kernels(model.net_, x)['nngp']
    a = k + .5*np.diag(k).mean()*np.eye(40)
    without = np.array([k[i, o]@np.linalg.solve(a[np.ix_(o, o)], y[o]) for i in range(40) for o in [np.delete(np.arange(40), i)]])
    close(model.left_out_score_[0], 1 - ((y - without)**2).sum()/(y**2).sum(), 1e-9)
    assert 0 < model.left_out_score_[1] < 1

@pytest.mark.parametrize('classes', [False, True])
def test_scores_do_not_see_copies(classes):
    "Four of each row, answers by chance: who left out one copy alone would be right of nearly all"
    x, y = np.repeat(RNG.randn(60, 3), 4, axis=0), np.repeat(RNG.randn(60), 4)
    model = InfiniteClassifier(SHALLOW).fit(x, y > 0) if classes else InfiniteRegressor(SHALLOW).fit(x, y)
    assert model.left_out_score_[0] < (.75 if classes else .5) # 1/2 and 0 by chance; of 60 points three standard errors are .2

def test_files_of_the_first_format_are_read(fitted, tmp_path):
    fitted.save(tmp_path/'m')
    with zipfile.ZipFile(tmp_path/'m') as z: parts = {n: z.read(n) for n in z.namelist() if n != 'counts_.npy'}
    with zipfile.ZipFile(tmp_path/'less', 'w') as z:
        for n, d in parts.items(): z.writestr(n, d)
    close(load(rewritten(tmp_path/'less', tmp_path/'old', format=1)).predict(X_TEST), fitted.predict(X_TEST), 1e-9)

def test_dear_rows_are_not_repeated(monkeypatch):
    "Rows are padded so that tables share programs, unless the model of costs says that pairs are dearer than a program"
    seen, net = [], stax.serial(stax.Conv(1, (3, 3), padding='SAME'), stax.Relu(), stax.Flatten(), stax.Dense(1))
    monkeypatch.setattr(estimators, 'batch', lambda f, *args, **kwargs: lambda x1, x2, get: seen.append(x1.shape[0]) or f(x1, x2, get))
    x = RNG.randn(3, 4, 4, 1)
    for cost, rows in (0., 128), (1., 3):
        monkeypatch.setattr(estimators, 'pair_seconds', lambda *args: cost)
        estimators.kernels(net, x)
        assert seen.pop() == rows

def test_without_scikit_learn_the_extra_is_named():
    code = "import sys; sys.modules['sklearn'] = None; import neural_tangents_nb.sklearn"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=100)
    assert done.returncode and 'neural-tangents-nb[sklearn]' in done.stderr

@pytest.mark.parametrize('t', [None, 10.])
@pytest.mark.parametrize('rows', [30, 300])
def test_repeated_rows_are_left_out_together(rows, t):
    "Noise chosen from a table in which rows occur twice is as without them: a row is not predicted from its copy"
    from sklearn.datasets import load_diabetes
    x, y = load_diabetes(return_X_y=True)
    more = np.r_[0:300, 0:rows]
    once, twice = (InfiniteRegressor(SHALLOW, t=t).fit(x[i], y[i]) for i in (more[:300], more))
    if t is None: assert .1 <= twice.noise_/once.noise_ <= 10 # two equal observations are one of half the noise
    mean, std = twice.predict(x[300:], return_std=True)
    assert abs(np.mean(abs(y[300:] - mean) < 2*std) - .954) < 4*np.sqrt(.954*.046/142) + .03 # as above
    assert twice.score(x[300:], y[300:]) > once.score(x[300:], y[300:]) - .05

def test_repeated_rows_of_classes():
    "All rows twice: the classifier doubts what it was not shown"
    from sklearn.datasets import load_iris
    from sklearn.metrics import log_loss
    x, y = load_iris(return_X_y=True)
    at = np.random.RandomState(0).permutation(150)
    loss = lambda i: log_loss(y[at[75:]], InfiniteClassifier(SHALLOW).fit(x[i], y[i]).predict_proba(x[at[75:]]))
    assert loss(np.r_[at[:75], at[:75]]) < loss(at[:75]) + .05

def test_replicates_with_other_answers_tell_the_noise():
    x = np.repeat(RNG.randn(30, 2), 8, 0)
    y = np.sin(x[:, 0]) + .5*RNG.randn(len(x))
    model = InfiniteRegressor(SHALLOW).fit(x, y)
    assert abs(np.sqrt(model.noise_variance_[0])/.5 - 1) < 4/np.sqrt(2*240) + .15 # sampling, and the grid of levels

@pytest.mark.parametrize('t', [None, 10.])
def test_a_table_of_one_row_many_times(t):
    model = InfiniteRegressor(SHALLOW, t=t).fit(np.ones((6, 2)), Y[:6])
    assert np.isfinite(model.predict(X_TEST[:, :2], return_std=True)).all()
