"What CONTRIBUTING shows of adding things is executed"
import re
from pathlib import Path
import jax
from jax import numpy as jnp, random
from neural_tangents_nb.activations import Activation
from neural_tangents_nb.core import static, struct, test_close as close
from neural_tangents_nb.kernel import join, reads_covariances
from neural_tangents_nb.layer import Affine, Layer
from neural_tangents_nb import laws
from run_notebooks import FULL
from neural_tangents_nb.solvers import Solver, phi

TEXT = (Path(__file__).parent.parent/'CONTRIBUTING.md').read_text(encoding='utf-8')
SECTION = TEXT[TEXT.index('## Adding things'):TEXT.index('## House rules')]
PARTS = re.split(r'^\*\*An? (.*?)\*\*', SECTION, flags=re.M)[1:]

def check(layer, shape, skip=(), **options):
    "All laws in `make test-all`; else those without sampled networks, which `test_laws` and the notebooks try on others"
    laws.check(layer, shape, skip if FULL else (*skip, 'monte_carlo'), **options)

NAMES = dict(globals(), test_close=close)

def test_five_things(): assert PARTS[::2] == ['nonlinearity', 'layer with weights', 'recurrent layer with shared weights', 'solver', 'predictor']

def test_adding_things():
    "In order, as later parts use earlier ones"
    for text in PARTS[1::2]:
        code = '\n'.join(l[4:] for l in text.splitlines() if l.startswith('    ') or not l.strip())
        assert 'check(' in code or 'test_close(' in code
        exec(code, NAMES)
