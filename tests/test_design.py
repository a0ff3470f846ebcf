"What keeps the core small is counted: fields of a state, patches, frames of the stack, questions to the layers"
import ast, dataclasses as dc, sys, traceback
from pathlib import Path
import jax, numpy as np, pytest
from jax import numpy as jnp
from neural_tangents_nb import stax
from neural_tangents_nb.activations import Kinked
from neural_tangents_nb.core import test_close as close
from neural_tangents_nb.kernel import Kernel

LIBRARY = Path(sys.modules['neural_tangents_nb'].__file__).parent
rng = np.random.RandomState(0)
X1, X2 = (jnp.asarray(rng.randn(n, 6, 6, 3)) for n in (4, 3))

def mlp(): return stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1), stax.Relu(), stax.Dense(1))
def conv(n=4): return stax.Conv(n, (3, 3), padding='SAME', W_std=1.3, b_std=.1)

def test_a_state_has_few_fields(): assert len(dc.fields(Kernel)) <= 12

def test_methods_of_a_state_stand_in_its_class():
    "Nobody patches `Kernel`, by `@patch` and `self: Kernel` or by assignment; but how it shows itself needs the pictures, which come later"
    def patched(tree):
        for f in ast.walk(tree):
            if isinstance(f, ast.FunctionDef) and any('patch' in ast.unparse(d) for d in f.decorator_list):
                if f.args.args and 'Kernel' in ast.unparse(f.args.args[0].annotation or ast.Constant(0)): yield f.name
            if isinstance(f, ast.Assign): yield from (ast.unparse(t) for t in f.targets if ast.unparse(t).startswith('Kernel.'))
    assert list(patched(ast.parse('@patch\ndef f(self: Kernel): pass\nKernel.g = f'))) # it finds some where there are some
    assert not [(p.name, n) for p in LIBRARY.rglob('*.py') for n in patched(ast.parse(p.read_text(encoding='utf-8'))) if n != '_repr_html_']

@pytest.mark.parametrize('plan, most', [(True, 11), (False, 9)])
def test_few_frames_lie_between_a_call_and_a_dual(plan, most, monkeypatch):
    "Of the package, from `kernel_fn` on, where a layer by itself takes its turn, or in a group of a plan"
    depths, duals = [], Kinked.duals
    def counted(self, *k):
        frames = [f.f_code for f, _ in traceback.walk_stack(sys._getframe(1)) if f.f_code.co_filename.startswith(str(LIBRARY))]
        depths.append([c.co_name for c in frames].index('kernel_fn') + 1)
        return duals(self, *k)
    monkeypatch.setattr(Kinked, 'duals', counted)
    mlp().kernel_fn(jnp.ones((5, 4 + plan)), None, 'ntk', plan=plan) # shapes of no other test, so that something is traced
    assert max(depths) <= most

def test_a_layer_is_asked_once_what_it_needs(monkeypatch):
    "In one call, for shapes that are not compiled yet; for shapes that are, not at all"
    asked, need = [], stax.Dense.need
    monkeypatch.setattr(stax.Dense, 'need', lambda self, want: asked.append(1) or need(self, want))
    call = lambda: mlp().kernel_fn(jnp.ones((11, 7)), jnp.ones((2, 7)), 'ntk')
    call(); assert len(asked) == 3
    call(); assert len(asked) == 3

NETS = dict(
    masks=(stax.serial(conv(), stax.Relu(), conv(), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1)), dict(mask_constant=float(X1[0, 0, 0, 0]))),
    groups=(stax.serial(conv(), stax.FanOut(2), stax.parallel(stax.serial(stax.Relu(), conv(5)), conv(3)), stax.FanInConcat(-1), stax.Erf(), stax.Flatten(), stax.Dense(1)), {}),
    attention=(stax.serial(conv(), stax.Relu(), stax.GlobalSelfAttention(4, 4, 4, 2), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1)), {}),
    repeat=(stax.serial(conv(), stax.repeat(stax.serial(stax.Relu(), conv()), 4), stax.Flatten(), stax.Dense(1)), {}),
    dropout=(stax.serial(conv(), stax.Relu(), stax.Dropout(.8), stax.Dense(4), stax.Relu(), stax.Flatten(), stax.Dense(1)), {}),
    norm=(stax.serial(*[conv(), stax.LayerNorm(), stax.Relu()]*3, stax.Flatten(), stax.Dense(1)), {}))

@pytest.mark.parametrize('name', NETS)
def test_a_plan_changes_no_number(name):
    net, kwargs = NETS[name]
    f = lambda plan: net.kernel_fn(X1, X2, ('nngp', 'ntk', 'cov1'), plan=plan, **kwargs)
    close(f(True), f(False), rtol=1e-12) # the same sums, fused otherwise
