"The package imports lightly, and what is generated is in step with what is written"
import importlib.metadata, json, re, subprocess, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent

def python(*args, cwd=ROOT):
    "Run Python with `args`; its standard output, or a failure that shows what it said"
    done = subprocess.run([sys.executable, *args], cwd=cwd, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()

def test_import_is_light():
    loaded = python('-c', 'import sys, neural_tangents_nb; print(*sys.modules)').split()
    assert not {'tensorflow', 'sklearn', 'scipy.stats', 'matplotlib', 'nbdev', 'IPython', 'flax', 'equinox', 'diffrax', 'optax'} & set(loaded)

def test_every_module_imports_without_extras():
    lib = ROOT/'neural_tangents_nb'
    modules = ['.'.join(p.relative_to(lib).with_suffix('').parts) for p in lib.rglob('*.py') if not p.stem.startswith('_') and p.stem != 'sklearn'] # is its extra
    code = '; '.join(f'import neural_tangents_nb.{m}' for m in modules)
    loaded = python('-c', f'import sys; {code}; print(*sys.modules)').split()
    assert not {'tensorflow', 'sklearn', 'nbdev', 'IPython', 'flax', 'equinox', 'diffrax', 'optax'} & set(loaded)

def test_version_is_that_of_the_package():
    assert python('-c', 'import neural_tangents_nb as n; print(n.__version__)') == importlib.metadata.version('neural-tangents-nb')

def test_readme_is_in_step(): python('tools/readme.py', '--check')

def test_readme_names_the_commands():
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    for command in 'make demo', 'make test': assert command in text

@pytest.mark.parametrize('tool', ['check_imports', 'check_house'])
def test_checks_pass(tool): python(f'tools/{tool}.py')

def notebook(path, *sources):
    "Write a notebook with code cells `sources`"
    path.write_text(json.dumps(dict(cells=[dict(cell_type='code', source=s) for s in sources])))

@pytest.fixture
def tools(monkeypatch): monkeypatch.syspath_prepend(ROOT/'tools')

def test_forward_import_is_found(tools, tmp_path):
    import check_imports
    notebook(tmp_path/'00_a.ipynb', '#| default_exp a', '#| export\nfrom neural_tangents_nb.b import f')
    notebook(tmp_path/'00a_b.ipynb', '#| default_exp b', '#| export\nfrom neural_tangents_nb.a import g')
    with pytest.raises(SystemExit, match='00_a.ipynb: b'): check_imports.main(tmp_path)
    notebook(tmp_path/'00_a.ipynb', '#| default_exp a')
    check_imports.main(tmp_path)

def test_house_rules_are_checked(tools, tmp_path):
    import check_house
    (tmp_path/'m.py').write_text('def f():\n' + '    pass\n'*check_house.LONGEST)
    assert len(check_house.long_functions(tmp_path/'m.py')) == 1
    notebook(tmp_path/'03_x.ipynb', '#| export\n"about the ntk"\nk.ntk # ntk', '#| hide\nntk')
    assert len(check_house.tangent_names(tmp_path/'03_x.ipynb')) == 1

    draws = dict(cell_type='code', source='plot()', outputs=[dict(data={'image/png': 'x'})])
    said = dict(draws, source='#| fig-alt: "a line"\nplot()')
    (tmp_path/'f.ipynb').write_text(json.dumps(dict(cells=[said, draws])))
    assert [f'cell {i}' in m for i, m in zip([1], check_house.mute_figures(tmp_path/'f.ipynb'), strict=True)] == [True]
    wide = '    f(' + 'x, '*32 + 'x)'
    address = 'https://example.org/' + 'a'*100
    notebook(tmp_path/'w.ipynb', f'#| export\n{wide[:100]}', f'# {address}\n"{address}"', f'#| fig-alt: "{wide}"\nplot()', f'ok\n{wide}', f'# see {address}')
    assert [m.split()[2] for m in check_house.wide_lines(tmp_path/'w.ipynb')] == ['3', '4']

def test_settings_of_the_site_are_one_file():
    "A link: nbdev looks in nbs/, everybody else at the top. (Some tools turn links into files that hold a path.)"
    assert (ROOT/'nbs/_quarto.yml').is_symlink() and (ROOT/'nbs/_quarto.yml').read_text() == (ROOT/'_quarto.yml').read_text()

def test_outputs_name_no_path_of_a_machine():
    "A warning shown in a notebook carries the path of the file that gave it"
    found = [p.name for p in (ROOT/'nbs').rglob('*.ipynb') if any(s in p.read_text(encoding='utf-8') for s in (str(ROOT), 'site-packages/'))]
    assert not found

def test_tour_lists_every_notebook():
    text = '\n'.join(''.join(c['source']) for c in json.loads((ROOT/'nbs/tour.ipynb').read_text(encoding='utf-8'))['cells'])
    paths = [*(ROOT/'nbs').glob('[0-9]*.ipynb'), *(ROOT/'nbs/apps').glob('*.ipynb')]
    assert not [p.name for p in paths if f']({p.relative_to(ROOT/"nbs").as_posix()})' not in text]

def test_tutorials_end_with_what_to_try_next():
    tutorials = [p for p in (ROOT/'nbs/tutorials').glob('[0-9]*.ipynb') if p.stem != '00_where_is']
    headings = {p.name: re.findall(r'^## (.+)$', '\n'.join(''.join(c['source']) for c in json.loads(p.read_text(encoding='utf-8'))['cells']
                                                             if c['cell_type'] == 'markdown'), re.M) for p in tutorials}
    assert not {name: found[-1:] for name, found in headings.items() if found[-1:] != ['What to try next']}
