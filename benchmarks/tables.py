"""Infinite networks and what people use otherwise on the tables of scikit-learn, by nested cross-validation.

    python -m benchmarks.tables [TABLE ...]     (default: all; many minutes)

Scores go to `benchmarks/tables.json` method by method, which notebook 25_tables reads. A run that was stopped goes on where it was:
what is there and was computed by this very program, in the same versions of the libraries, is kept, and all else is computed anew.
"""
import argparse, hashlib, importlib.metadata, json, os, time, warnings
from pathlib import Path

import jax, numpy as np
from sklearn import datasets
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from neural_tangents_nb.hyperparameters import fit_hyperparameters
from neural_tangents_nb.sklearn import InfiniteClassifier, InfiniteRegressor, distinct, network

RESULTS = Path(__file__).with_name('tables.json')
OUTER, INNER = 5, 3                         # folds
ROWS = dict(digits=400)                     # of larger tables so many, at random: the Gaussian process takes the cube of their number
LIBRARIES = 'scikit-learn', 'jax', 'numpy', 'optax'


# --- the methods ------------------------------------------------------------------------------------------

class _Learned(BaseEstimator):
    "An infinite network at the scales, slopes and noise of the greatest marginal likelihood; classes are one-hot targets there"
    def __init__(self, arch='fcn', steps=30): self.arch, self.steps = arch, steps
    def fit(self, X, y):
        x = (X - X.mean(0))/np.where(X.std(0) > 0, X.std(0), 1)
        t = self._targets(y)
        with jax.enable_x64(True):
            fit = fit_hyperparameters(network(self.arch), x, (t - t.mean(0))/t.std(0), steps=self.steps, learning_rate=.1, progress=None)
        self.model_ = self.estimator(fit.net).fit(X, y)
        return self
    def predict(self, X): return self.model_.predict(X)


class LearnedRegressor(RegressorMixin, _Learned):
    estimator = InfiniteRegressor
    def _targets(self, y): return y.reshape(len(y), -1).astype(float)


class LearnedClassifier(ClassifierMixin, _Learned):
    estimator = InfiniteClassifier
    def _targets(self, y):
        self.classes_, labels = np.unique(y, return_inverse=True)
        return np.eye(len(self.classes_))[labels]


def scaled(model, **grid):
    "`model` on standardized inputs, and the grid to choose from"
    name = type(model).__name__.lower()
    return make_pipeline(StandardScaler(), model), {f'{name}__{n}': v for n, v in grid.items()}


def methods(classes):
    "Estimators and what the inner folds choose from, by name"
    pick = lambda c, r: c if classes else r
    infinite, archs = pick(InfiniteClassifier, InfiniteRegressor), {'arch': ['fcn', 'erf']}
    gaussian, noise = pick((GaussianProcessClassifier(), 0), (GaussianProcessRegressor(normalize_y=True), WhiteKernel()))
    smooth = [ConstantKernel()*k + noise if noise else ConstantKernel()*k for k in (RBF(3.), Matern(3., nu=1.5))]
    return {
        'infinite network, NNGP': (infinite(), archs),
        'infinite network, NTK': (infinite(kind='ntk'), archs),
        'infinite network, learned': (pick(LearnedClassifier, LearnedRegressor)(), archs),
        'random forest': (pick(RandomForestClassifier, RandomForestRegressor)(100, random_state=0), {'max_features': [.2, .5, 1.]}),
        'gradient boosting': (pick(HistGradientBoostingClassifier, HistGradientBoostingRegressor)(random_state=0),
                              {'learning_rate': [.03, .1], 'max_leaf_nodes': [4, 31]}),
        'SVM, RBF': scaled(pick(SVC, SVR)(), C=[float(c) for c in pick(1., 40.)*10.**np.arange(-1, 3)], gamma=['scale', .01]),
        'Gaussian process': scaled(gaussian, kernel=smooth),
        'trained network, 100 wide': scaled(pick(MLPClassifier, MLPRegressor)(hidden_layer_sizes=(100,), max_iter=300, random_state=0),
                                            alpha=[1e-4, 1e-1, 10.], learning_rate_init=[1e-3, 1e-2])}


# --- the study --------------------------------------------------------------------------------------------

LOADERS = {'diabetes': datasets.load_diabetes, 'breast cancer': datasets.load_breast_cancer, 'wine': datasets.load_wine,
           'iris': datasets.load_iris, 'digits': datasets.load_digits}


def table(name, rows=None):
    "Inputs, targets, and whether these are classes; `rows` of them at random, if there are more"
    x, y = LOADERS[name](return_X_y=True)
    at = np.random.RandomState(0).permutation(len(x))[:rows or ROWS.get(name)]
    return x[at], y[at], name != 'diabetes'


def folds(x, y, classes, n, seed):
    "Pairs of rows to learn from and to score; equal rows are in one fold, so that none is predicted from its copy"
    first, group = distinct(x)
    rows = lambda sets: np.flatnonzero(np.isin(group, sets))
    cut = (StratifiedKFold if classes else KFold)(n, shuffle=True, random_state=seed)
    return [(rows(a), rows(b)) for a, b in cut.split(first, y[first])]


def nested(model, grid, x, y, classes, outer=OUTER, inner=INNER):
    "Scores of the outer test sets (accuracy for classes, else R2), and what the inner folds chose for each"
    scores, chosen = [], []
    for train, test in folds(x, y, classes, outer, 0):
        search = GridSearchCV(model, grid, cv=folds(x[train], y[train], classes, inner, 1), error_score='raise')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')     # about convergence: it is the method's business
            search.fit(x[train], y[train])
            scores.append(float(search.score(x[test], y[test])))
        chosen.append({n.split('__')[-1]: v if isinstance(v, (int, float, str)) else str(v) for n, v in search.best_params_.items()})
    return dict(scores=scores, chosen=chosen)


def program():
    "What the scores depend on: this file and the libraries"
    versions = {n: importlib.metadata.version(n) for n in LIBRARIES}
    return dict(sha256=hashlib.sha256(Path(__file__).read_bytes()).hexdigest(), **versions)


def saved():
    "The saved study, or the beginning of one if that was another program's"
    new = dict(program=program(), outer=OUTER, inner=INNER, rows={}, of={}, results={})
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else new
    return old if old.get('program') == new['program'] else new


def store(study):
    part = RESULTS.with_suffix('.part')
    part.write_text(json.dumps(study, indent=1) + '\n')
    os.replace(part, RESULTS)


def main():
    parser = argparse.ArgumentParser(prog='python -m benchmarks.tables', description=__doc__.splitlines()[0])
    parser.add_argument('tables', nargs='*', metavar='TABLE', help=f"of {', '.join(LOADERS)} (default: all)")
    names = parser.parse_args().tables or list(LOADERS)
    if unknown := [n for n in names if n not in LOADERS]: parser.error(f'unknown: {unknown[0]}')
    study = saved()
    for name in names:
        x, y, classes = table(name)
        study['rows'][name], study['of'][name] = len(x), len(LOADERS[name](return_X_y=True)[1])
        results = study['results'].setdefault(name, {})
        for m, (model, grid) in methods(classes).items():
            if m in results: continue
            start = time.time()
            results[m] = nested(model, grid, x, y, classes)
            results[m]['seconds'] = round(time.time() - start, 1)
            print(f"{name}, {m}: {np.mean(results[m]['scores']):.3f}, {results[m]['seconds']} s", flush=True)
            store(study)


if __name__ == '__main__': main()
