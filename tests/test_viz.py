"Pictures are drawn on the axes they are given, and say what the numbers say"
import base64, io, subprocess, sys
import jax, matplotlib, numpy as np, pytest
matplotlib.use('agg')
from matplotlib import pyplot as plt
from neural_tangents_nb import predict, stax, viz

RNG = np.random.RandomState(0)
A = RNG.randn(12, 5)
K = A@A.T + np.eye(12)
X = np.linspace(-1, 1, 6)
BAND = predict.Marginals(np.zeros((6, 1)), np.full(6, .25))
NET = stax.serial(stax.Dense(1, 1.4, .1), stax.Relu(), stax.Dense(1))
DRAWN = dict(
    kernel_matrix=lambda ax: viz.kernel_matrix(K, np.arange(12) % 3, ax=ax), clusters=lambda ax: viz.kernel_matrix(K, ax=ax),
    spectrum=lambda ax: viz.spectrum(K, ax), correlation_map=lambda ax: viz.correlation_map(NET, ax), phases=lambda ax: viz.phases(stax.Relu(), ax=ax),
    posterior=lambda ax: viz.posterior(X, BAND, ax, data=([0.], [1.])), learning=lambda ax: viz.learning(predict.learning_curve(K, A[:, :1]), ax=ax),
    calibration=lambda ax: viz.calibration(np.array([[.2, .8], [.7, .3]]), [1, 1], ax=ax), coverage=lambda ax: viz.coverage(X, np.ones(6), X**2, ax),
    diagram=lambda ax: viz.diagram(NET, ax))

@pytest.mark.parametrize('name', DRAWN)
def test_axes_are_taken_and_returned(name):
    "The caller's axes keep their own colours; new ones have no background and text in grey"
    fig, ax = plt.subplots()
    assert DRAWN[name](ax) is ax and ax.xaxis.label.get_color() == plt.rcParams['axes.labelcolor']
    new = DRAWN[name](None)
    assert new.figure.get_facecolor()[3] == 0 and new.get_facecolor()[3] == 0 and new.xaxis.label.get_color() == viz.GREY
    new.figure.canvas.draw()
    assert max(new.figure.get_size_inches()) < 8
    plt.close('all')

def test_matrix_is_ordered_by_class():
    labels = np.array([1, 0]*6)
    shown = np.asarray(viz.kernel_matrix(K, labels).images[0].get_array())
    order = np.r_[1:12:2, 0:12:2]
    np.testing.assert_allclose(shown, viz.correlation(K)[np.ix_(order, order)])
    assert set(viz.clustered(K)) == set(range(12))

def test_bands_are_two_standard_deviations():
    band, = viz.posterior(X, BAND, samples=0).collections
    assert np.isclose(np.abs(band.get_paths()[0].vertices[:, 1]).max(), 1.)

def _lines(ax): return [np.asarray(l.get_xydata()) for l in ax.lines] + [np.unique(c.get_paths()[0].vertices, axis=0) for c in ax.collections]

@pytest.mark.parametrize('covariance', [True, False])
def test_lines_go_from_left_to_right(covariance):
    "Whatever the order of the inputs, or of the times"
    order = np.array([3, 0, 5, 1, 4, 2])
    c = np.exp(-(X[:, None] - X)**2)
    if covariance: of = lambda at: predict.Gaussian(np.sin(X[at])[:, None], c[np.ix_(at, at)])
    else: of = lambda at: predict.Marginals(np.sin(X[at])[:, None], 1 + X[at]**2)
    mixed, want = (_lines(viz.posterior(X[at], of(at), samples=0)) for at in (order, np.arange(6)))
    for a, b in zip(mixed, want, strict=True): np.testing.assert_allclose(a, b)
    for line in viz.posterior(X[order], of(order), samples=2).lines: assert (np.diff(line.get_xdata()) > 0).all()
    curve = viz.learning(predict.learning_curve(K, A[:, :1]), [3., 1., 2.])
    assert (np.diff(curve.lines[0].get_xdata()) > 0).all()
    plt.close('all')

@pytest.mark.parametrize('times', [1, 2])
def test_nothing_is_below_the_legend_of_a_posterior(times):
    "Of one and of two on the same axes, with more labels than a line holds; the band is what reaches highest"
    ax = None
    for i in range(times): ax = viz.posterior(X, BAND, ax, data=([0.], [1.]), label=f'network {i}')
    ax.figure.canvas.draw()
    lowest = ax.get_legend().get_window_extent().y0
    highest = max(ax.transData.transform(c.get_paths()[0].vertices)[:, 1].max() for c in ax.collections)
    assert highest < lowest and ax.get_legend().get_window_extent().y1 <= ax.get_window_extent().y1
    plt.close('all')

def test_known_phases():
    "ReLU is critical at W_std**2 = 2 without bias; a linear map keeps correlations; erf in chaos tells all inputs apart"
    chi = lambda act, w, b: jax.jit(viz.criticality)(act, w, b)[0]
    np.testing.assert_allclose(chi(stax.Relu(), np.array([1., 2.])**.5, 0.), [.5, 1.])
    np.testing.assert_allclose(viz.correlations(stax.Dense(1, 2.), X), X, atol=1e-12)
    chaos, order = chi(stax.Erf(), np.array([3., 1.]), .1)
    assert chaos > 1 > order

def test_criticality_compiles_once():
    "Other scales, and another slope, run the program that is there"
    act = stax.LeakyRelu
    first = viz.criticality(act(.1), 1.3, .1)
    before = viz._compiled._cache_size()
    for slope, w in (.1, 1.5), (.2, 1.3):
        chi, q = viz.criticality(act(slope), w, .1)
        np.testing.assert_allclose(chi, w**2*(1 + slope**2)/2, rtol=1e-6) # of positively homogeneous ones, whatever the variance is
    assert viz._compiled._cache_size() == before and (first[1] > 0).all()

def test_edges_join_what_is_joined():
    net = stax.serial(stax.FanOut(2), stax.parallel(stax.Dense(1), stax.serial(stax.Dense(2), stax.Relu())), stax.FanInSum())
    boxes, lines, tops, ends = viz.arranged(net)
    names = {place: text.split('(')[0] for text, *place in boxes for place in [tuple(place)]}
    want = [('FanOut', 'Dense'), ('FanOut', 'Dense'), ('Dense', 'Relu'), ('Dense', 'FanInSum'), ('Relu', 'FanInSum')]
    assert sorted((names[a], names[b]) for a, b in lines) == sorted(want)
    xs, ys = zip(*names)
    assert len(names) == len(boxes) and min(xs) < 0 < max(xs) and max(ys) == 3 and [names[p] for p in tops + ends] == ['FanOut', 'FanInSum']
    assert viz.arranged(stax.repeat(stax.Dense(3), 4))[0][0][0] == repr(stax.repeat(stax.Dense(3), 4))

def test_png_is_one():
    image = lambda a: plt.imread(io.BytesIO(base64.b64decode(viz.png(a).split(',')[1])))
    small = image(np.arange(6.).reshape(2, 3))
    assert small.shape[:2] == (2, 3)
    np.testing.assert_allclose(small[[0, -1], [0, -1], :3]*255, [(0, 34, 78), (254, 232, 56)], atol=1) # the ends of cividis; a byte is rounded
    assert len(image(np.zeros((1000, 3)))) <= 256

def test_objects_show_themselves():
    k = NET.kernel_fn(A, None)
    assert 'data:image/png' in k._repr_html_() and 'nngp' in k._repr_html_() and '[12, 12] float64' in k._repr_html_()
    assert '&lt;' not in NET._repr_html_() and NET._repr_html_().count('Dense(') == 2 and 'Relu()' in NET._repr_html_()
    assert '0.5 to 0.5' in BAND._repr_html_()
    times = predict.Gaussian(np.zeros((2, 6, 1)), np.broadcast_to(4*np.eye(6), (2, 6, 6)))
    assert '2 to 2' in times._repr_html_() and '2 to 2' in predict.Gaussian(times.mean[0], times.covariance[0])._repr_html_()
    jax.jit(lambda k: k.replace(nngp=k.nngp*(1 if k._repr_html_() is None else 0)))(k) # a traced kernel has nothing to show, and does not fail

def test_pictures_cost_nothing_until_drawn():
    code = "import sys, neural_tangents_nb as nt; nt.stax.Dense(1)._repr_html_(); nt.viz.boxes(nt.stax.Dense(1)); print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=100).stdout.strip() == 'False'

@pytest.mark.parametrize('wrong, error, said', [
    (lambda: viz.kernel_matrix(K[:3]), ValueError, 'square'), (lambda: viz.kernel_matrix(K, [1, 2]), ValueError, 'labels'), (lambda: viz.spectrum(K*np.nan), ValueError, 'NaN'),
    (lambda: viz.kernel_matrix(None), TypeError, 'NoneType'), (lambda: viz.spectrum('k'), TypeError, '`k`'), (lambda: viz.spectrum(K*1j), TypeError, 'complex'), (lambda: viz.spectrum(np.ones((0, 0))), ValueError, 'empty'),
    (lambda: viz.spectrum(K, np.array(plt.figure().subplots(1, 2))), TypeError, '`ax` must be one axes'), (lambda: viz.participation_ratio(K), ValueError, '`l`'), (lambda: viz.participation_ratio([]), ValueError, '`l`'),
    (lambda: viz.correlations(NET, np.array([2., 0.])), ValueError, 'from -1 to 1'), (lambda: viz.correlation_map(NET, depth=0), ValueError, '`depth`'), (lambda: viz.phases(stax.Relu(), W_std=3.), ValueError, '`W_std`'),
    (lambda: viz.criticality(stax.Dense(1), 1., 1.), TypeError, 'nonlinearity'), (lambda: viz.posterior(X, None), TypeError, 'NoneType'), (lambda: viz.posterior(X, X), TypeError, 'ndarray'),
    (lambda: viz.calibration(np.ones((2, 2)), [0, 9]), ValueError, r'in 0..1, got \[0 9\]'), (lambda: viz.calibration(np.ones((0, 2)), np.ones(0, int)), ValueError, 'empty'), (lambda: viz.calibration(np.ones((2, 2)), [0, 1], 0), ValueError, '`bins`'),
    (lambda: viz.coverage(X, 0., X), ValueError, '`std`'), (lambda: viz.coverage(X*np.nan, 1., X), ValueError, 'NaN'),
    (lambda: viz.posterior(X[:3], BAND), ValueError, 'prediction'), (lambda: viz.phases(stax.Dense(1)), TypeError, 'nonlinearity'), (lambda: viz.calibration(X, X), ValueError, 'classes')])
def test_what_cannot_be_drawn_is_said(wrong, error, said):
    with pytest.raises(error, match=said): wrong()
