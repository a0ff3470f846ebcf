"The package is typed: mypy is content with it, and finds the mistakes of its users"
import subprocess, sys
from pathlib import Path

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
