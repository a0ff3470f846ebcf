"""Write README.md from nbs/index.ipynb: plain Markdown, with figures in nbs/images/.

    python tools/readme.py [--check]

`--check` writes nothing and fails if README.md or its figures are not what the notebook makes.
"""
import base64, json, os, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INDEX, IMAGES = ROOT/'nbs'/'index.ipynb', ROOT/'nbs'/'images'
CALLOUT = re.compile(r'^(:{3,}) *\{\.callout-(\w+)(?:[^}]*?title="([^"]*)")?[^}]*\}\n(.*?)\n\1$', re.M | re.S)
LINK = re.compile(r'(\]\()(?![a-z]+:|#|/)([^)\s]+)(\))')

def fenced(text, language=''): return f'```{language}\n{text.strip(chr(10))}\n```'

def alert(m):
    "A Quarto callout as GitHub's quotation of the same kind"
    lines = [f'[!{m[2].upper()}]', *[f'**{m[3]}**', '']*bool(m[3]), *m[4].splitlines()]
    return '\n'.join(f'> {line}'.rstrip() for line in lines)

def from_root(text):
    "Markdown for GitHub, with links relative to nbs/ made relative to README.md"
    text = CALLOUT.sub(alert, text)
    return LINK.sub(lambda m: m[1] + os.path.relpath((INDEX.parent/m[2]), ROOT).replace(os.sep, '/') + m[3], text)

def shown(output, figures, alt=''):
    "Markdown for one output of a cell; an image, with `alt` as its text, goes to `figures`, a dict of file names and bytes"
    if output['output_type'] == 'error': raise SystemExit(f"{INDEX.name} has an error in its outputs: run `make notebooks`")
    if output['output_type'] == 'stream':
        return fenced(''.join(output['text'])) if output.get('name') == 'stdout' else ''
    data = output['data']
    if 'image/png' in data:
        name = f'readme-{len(figures)+1}.png'
        figures[name] = base64.b64decode(''.join(data['image/png']))
        return f'![{alt}](nbs/images/{name})'
    if 'text/markdown' in data: return from_root(''.join(data['text/markdown']))
    return fenced(''.join(data['text/plain'])) if 'text/plain' in data else ''

def parts(cell, figures):
    "The Markdown blocks of one cell, after nbdev's directives: `hide` hides all, `echo: false` and `hide_input` the code"
    source = ''.join(cell['source'])
    if cell['cell_type'] == 'markdown': return [] if re.match(r'<!--|#\|\s*hide', source) else [from_root(source)]
    if cell['cell_type'] != 'code': return []
    directives = re.findall(r'^#\|\s*(.*?)\s*$', source, re.M)
    code = re.sub(r'^#\|.*\n?', '', source, flags=re.M)
    alt = re.findall(r'^#\|\s*fig-alt: "(.*)"', source, re.M)
    if {'hide', 'include: false'} & set(directives): return []
    outputs = [] if {'hide_output', 'output: false'} & set(directives) else [shown(o, figures, *alt) for o in cell['outputs']]
    return [fenced(code, 'python')]*(not {'hide_input', 'echo: false'} & set(directives) and bool(code.strip())) + outputs

def render():
    "The text of README.md and its figures"
    figures = {}
    cells = json.loads(INDEX.read_text(encoding='utf-8'))['cells']
    blocks = [b.strip('\n') for c in cells for b in parts(c, figures)]
    return '\n\n'.join(b for b in blocks if b) + '\n', figures

def main(check):
    text, figures = render()
    want = {ROOT/'README.md': text.encode(), **{IMAGES/name: data for name, data in figures.items()}}
    have = {p: p.read_bytes() for p in [ROOT/'README.md', *IMAGES.glob('readme-*.png')] if p.is_file()}
    if check and have != want: sys.exit('README.md is not in step with nbs/index.ipynb: run `make readme`')
    if check: return
    for p in have.keys() - want.keys(): p.unlink()
    for p, data in want.items():
        p.parent.mkdir(exist_ok=True)
        p.write_bytes(data)
    print(f'README.md and {len(figures)} figures are written')

if __name__ == '__main__': main('--check' in sys.argv[1:])
