"House rules that a program can check: functions and lines stay short, layers know nothing of the tangent kernel, figures have a text for those who do not see them"
import ast, io, json, re, sys, tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 40                                        # lines of a function, docstring included
WIDEST = 100                                        # columns of a line of code in a notebook
LAYERS = '0[3-9]*.ipynb', '10*.ipynb'               # each layer's NTK follows from its covariance map alone

def long_functions(path):
    "Functions of the module at `path` that are longer than `LONGEST`"
    functions = [n for n in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
                 if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return [f'{path.name}: `{n.name}` has {n.end_lineno-n.lineno+1} lines, more than {LONGEST}: split it'
            for n in functions if n.end_lineno-n.lineno+1 > LONGEST]

def exported(path):
    "The exported code cells of the notebook at `path`"
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    sources = (''.join(c['source']) for c in cells if c['cell_type'] == 'code')
    return [s for s in sources if re.match(r'#\|\s*export', s)]

def tangent_names(path):
    "Identifiers of exported cells (strings and comments do not count) that have `ntk` in them"
    tokens = [t for s in exported(path) for t in tokenize.generate_tokens(io.StringIO(s).readline)]
    names = sorted({t.string for t in tokens if t.type == tokenize.NAME and 'ntk' in t.string.lower().split('_')})
    return [f'{path.name}: the identifier `{n}` in a layer: it belongs to the kernel state, notebook 01' for n in names]

def mute_figures(path):
    "Cells of the notebook at `path` that draw a figure and do not say what it shows"
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    drawn = [i for i, c in enumerate(cells) for o in c.get('outputs', []) if any(t.startswith('image/') for t in o.get('data', {}))]
    return [f'{path.name}: cell {i} draws a figure without `#| fig-alt: "what it shows"`' for i in drawn
            if not re.search(r'^#\|\s*fig-alt: ".+"$', ''.join(cells[i]['source']), re.M)]

def wide_lines(path):
    "Lines of code in the notebook at `path` wider than `WIDEST`; the text of a figure and a lone address cannot be broken"
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    lines = [(i, l) for i, c in enumerate(cells) if c['cell_type'] == 'code' for l in ''.join(c['source']).splitlines()]
    return [f'{path.name}: cell {i} has a line of {len(l)} columns, more than {WIDEST}: {l.strip()[:50]}...' for i, l in lines
            if len(l) > WIDEST and not re.match(r'#\|\s*fig-alt:|\W*https?://\S+\s*$', l)]

def main():
    modules = sorted((ROOT/'neural_tangents_nb').rglob('*.py'))
    layers = sorted(p for glob in LAYERS for p in (ROOT/'nbs').glob(glob))
    notebooks = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if not any(s[0] in '._' for s in p.relative_to(ROOT).parts))
    bad = sum([*map(long_functions, modules), *map(tangent_names, layers), *map(mute_figures, notebooks),
               *map(wide_lines, notebooks)], [])
    if bad: sys.exit('\n'.join(bad))
    print(f'House rules hold in {len(modules)} modules and {len(notebooks)} notebooks')

if __name__ == '__main__': main()
