"""From nbdev's processed notebooks, which speak Quarto's dialect, to pages that Sphinx and MyST understand.

Front matter becomes a title, `show_doc` output becomes text with an anchor, links into the published site become relative ones,
links to the source code lead to listings on the site itself, and `_quarto.yml`'s sidebar becomes the navigation.
"""
import base64, inspect, json, os, re
from collections import Counter
from enum import Enum
from html import escape
from importlib import import_module
from itertools import groupby
from pathlib import Path
import yaml

CALLOUT = re.compile(r'^(:{3,})\s*\{\.callout-(\w+)(?:[^}]*?title="([^"]*)")?[^}]*\}', re.M)
LINK = re.compile(r'(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)(\{[^}]*\})?')
COMMENT = re.compile(r'^( *)(%|\+\+\+)', re.M)       # a line that starts so is text in Markdown, and a comment or a break in MyST
NOISE = [(r'\A---\s*', ''), (r'^\[source\].*\n+', ''), (r' at 0x[0-9a-f]+>', '>'), (r':NoneType=None', '=None'), (r'\b(jax\.)?jaxlib\._jax\.Array', 'jax.Array'),
         (r'\n\*(Call self as a function|Initialize self\.[^\n]*signature)\.\*', ''),
         (r':_MISSING_TYPE=<[^>]*>', '=MISSING'), (r':function=', '='), (r'<function (\w+)>', r'\1'), (r'<(\w+\.[A-Z_]+): [^>]*>', r'\1'),
         (r'\bjax\._src\.lax\.', ''), (r'\bneural_tangents_nb\.(\w+\.)+(?=[A-Z])', ''), (r'=\{[^{}\n]{60,}\}(?=,? #)', '={...}')]
SIGNATURE = re.compile(r'(?<=```python\n).*?(?=\n```)', re.S)
LETTERS = {r'\pi': 'π', r'\infty': '∞', r'\gamma': 'γ', r'\ge': '≥', r'\le': '≤', r'\dots': '…'}
LINE = 92       # characters of code that a column of the site holds
WIDE = 1450     # pixels of a figure beyond which its text is not read at the width of a phone: there it scrolls
FENCE = re.compile(r'(^```.*?^```|^\$\$.*?\$\$)', re.M | re.S)

def read(path): return json.loads(path.read_text(encoding='utf-8'))

def markdown(text): return dict(cell_type='markdown', metadata={}, source=text)

def front_matter(nb):
    "The front matter that nbdev writes into a raw cell"
    for cell in nb['cells']:
        text = ''.join(cell['source']).strip()
        if cell['cell_type'] == 'raw' and text.startswith('---'): return yaml.safe_load(text.strip('-\n'))
    return {}

def page_of(path, fm):
    "The page, without suffix, that nbdev makes of the notebook at relative `path`: without its number"
    return path.with_name(Path(fm.get('output-file', path.name)).stem).as_posix()

class Links:
    "Rewrites links on the page `page`: raw HTML where MyST would look for a document of its own"
    def __init__(self, page, pages, cfg):
        self.page, self.pages = page, pages         # pages: notebook path -> page
        self.home = cfg['doc_host'] + cfg['doc_baseurl'] + '/'
        self.code = f"{cfg['git_url']}/blob/{cfg['branch']}/"
        self.lib, self.nbs = cfg['lib_path'], cfg['nbs_path']

    def relative(self, target):
        "`target`, an address from the top of the site, seen from this page"
        path, sep, anchor = target.partition('#')
        return os.path.relpath(path or 'index.html', os.path.dirname(self.page) or '.') + sep + anchor

    def inside(self, url):
        "Where on this site `url` leads, or `None` for the world outside"
        if url.startswith(self.home): return self.relative(url.removeprefix(self.home))
        if m := re.fullmatch(re.escape(self.code + self.lib) + r'/([\w/]+)\.py(?:#L(\d+))?', url):
            return self.relative(f'source/{m[1]}.html' + (f'#L-{m[2]}' if m[2] else ''))
        if m := re.fullmatch(r'([^:#]+\.ipynb)(#.*)?', url):
            notebook = os.path.normpath(os.path.join(os.path.dirname(self.page), m[1]))
            if notebook in self.pages: return self.relative(self.pages[notebook] + '.html' + (m[2] or ''))
        if re.fullmatch(r'[^:]*\.html(#.*)?', url): return url
        return None

    def replace(self, m):
        text, url = m[1], m[2]
        if inside := self.inside(url): return f'<a href="{escape(inside)}">{text}</a>'
        if url.startswith('../'):       # a file of the repository beside the notebooks
            return f"[{text}]({self.code}{os.path.normpath(os.path.join(self.nbs, os.path.dirname(self.page), url))})"
        return f'[{text}]({url})'

    def __call__(self, text):
        "Markdown with its links, callouts and pandoc attributes rewritten and what MyST alone would not show escaped, outside fences and displayed formulas"
        parts = FENCE.split(CALLOUT.sub(lambda m: f"{m[1]}{{{m[2]}}}" + (f"\n**{m[3]}**\n" if m[3] else ''), text))
        return ''.join(p if i % 2 else LINK.sub(self.replace, COMMENT.sub(r'\1\\\2', p)) for i, p in enumerate(parts))

def names_of(notebook):
    "What a call of `show_doc` needs in the notebook at path `notebook`: nbdev's function, and all of the module that it exports"
    from nbdev.showdoc import show_doc
    source = '\n'.join(''.join(c['source']) for c in read(notebook)['cells'])
    module = re.search(r'^#\|\s*default_exp\s+([\w.]+)', source, re.M)
    return dict(vars(import_module(f'neural_tangents_nb.{module[1]}')) if module else {}, show_doc=show_doc)

def definition(symbol, lib):
    "Module of the package `lib` (a path below it, without suffix) and line number where `symbol` is defined, or `('', 0)`"
    module = (getattr(symbol, '__module__', None) or '').removeprefix(f'{lib}.').replace('.', '/')
    try: return module, inspect.getsourcelines(symbol)[1]
    except (OSError, TypeError): return '', 0

def in_letters(comment):
    "A comment whose formulas are written without LaTeX, as code is shown as it stands"
    def letter(m):
        if m[0] in LETTERS: return LETTERS[m[0]]
        raise SystemExit(f'tools/adapt_notebooks.py has no letter for {m[0]}, which a comment beside an argument has: {comment}')
    plain = lambda m: re.sub(r'\^\{(.*?)\}', r'^(\1)', re.sub(r'\\[a-z]+', letter, m[1]))
    return re.sub(r'\$(.+?)\$', plain, comment)

def class_line(cls):
    "The first line of a class whose arguments say nothing, as they are those of a base class, and the members of an enumeration"
    bases = ', '.join(b.__name__ for b in cls.__bases__ if b is not object)
    members = ', '.join(cls.__members__) if issubclass(cls, Enum) else ''
    return f'class {cls.__name__}' + f'({bases})'*bool(bases) + ':' + f'\n    {members}'*bool(members)

def signature(text, symbol, lib):
    "nbdev's signature `text` of `symbol`: a class is called one, short ones are one line, comments are without LaTeX"
    if inspect.isclass(symbol):
        if fields := getattr(symbol, '_fields', None): text = text.replace('\n    *args, **kwargs\n', f"\n    {', '.join(fields)}\n", 1)
        text = re.sub(r'\)->None:$', '):', re.sub('^def ', 'class ', text))
        foreign = not (getattr(symbol.__init__, '__module__', None) or lib).startswith((lib, '__main__'))
        if foreign or re.search(r'\(\s*\*args, \*\*kw\w+\s*\)', text) or text.endswith('():') and not issubclass(symbol, tuple): return class_line(symbol)
    if '#' in text: return re.sub(r'#.*', lambda m: in_letters(m[0]), text)
    line = re.sub(r'\s*\n\s*', ' ', text).replace('( ', '(').replace(' )', ')')
    return line if len(line) <= LINE else text

def documentation(call, names, links):
    """Line number and Markdown of `call`, a call of `show_doc`, repeated with the exported object.

    The object of nbdev's own call was made by a notebook cell, where neither the comments beside a dataclass' fields nor the source
    can be found. The heading gets the very name that nbdev links to, and what Python says of the undocumented is left out.
    """
    renderer = eval(call, names)
    renderer.dm.maxline = 80
    text = renderer._repr_markdown_()
    for noise, plain in NOISE: text = re.sub(noise, plain, text, flags=re.M if noise[0] == '^' else 0)
    text = SIGNATURE.sub(lambda m: signature(m[0], renderer.sym, links.lib), text, 1)
    text = re.sub(r'^#+ .*', lambda m: m[0].replace('_', r'\_'), text, count=1, flags=re.M)      # or __mul__ would be bold
    module, line = definition(renderer.sym, links.lib)
    source = f' <a class="source" href="{links.relative(f"source/{module}.html#L-{line}")}">source</a>' if module else ''
    anchor = f'<a id="{escape(renderer.nm.lower())}"></a>'
    return line, f'{anchor}{source}\n\n{links(text)}'

def options(source):
    "Quarto's options of a code cell, and the rest of its source"
    found = re.findall(r'^#\|\s*([\w-]+):\s*(.*?)\s*$', source, re.M)
    return {k: v.strip('"') for k, v in found}, re.sub(r'^#\|.*\n?', '', source, flags=re.M)

def is_documentation(cell):
    "Is `cell` a call of `show_doc` that nbdev inserted, or that an author wrote?"
    return cell['cell_type'] == 'code' and bool(re.match(r'(#\|.*\n)*show_doc\(', ''.join(cell['source'])))

def documentation_cells(cells, names, links):
    "Adjacent calls of `show_doc` as text, in the order of the definitions (nbdev's is the reverse)"
    calls = [options(''.join(c['source']))[1] for c in cells]
    return [markdown(text) for _, text in sorted((documentation(c, names, links) for c in calls), key=lambda d: d[0])]

def shown(output, links):
    "An output of a code cell, with the links rewritten if it is Markdown"
    text = ''.join(output.get('data', {}).get('text/markdown', ''))
    if output['output_type'] == 'error': raise SystemExit(f"{links.page} has an error in its outputs: {output['ename']}: {output['evalue']}")
    return dict(output, data=output['data'] | {'text/markdown': links(text)}) if text else output

def is_wide(output):
    "Is `output` of a cell a figure too wide for a phone? The header of a PNG has its width"
    png = ''.join(output.get('data', {}).get('image/png', ''))[:64]
    return bool(png) and int.from_bytes(base64.b64decode(png)[16:20]) > WIDE

def code_cells(cell, links):
    "A code cell of nbdev's output as cells of a page"
    opts, source = options(''.join(cell['source']))
    if opts.get('include') == 'false': return []
    if opts.get('output') == 'asis':
        texts = [''.join(o.get('data', {}).get('text/markdown', '')) for o in cell['outputs']]
        return [markdown(links(t)) for t in texts if t]
    tags = [tag for on, tag in [(opts.get('echo') == 'false', 'remove-input'), (opts.get('output') == 'false', 'remove-output'),
                                ('code-fold' in opts, 'hide-input')] if on]
    image = dict(alt=opts['fig-alt']) if 'fig-alt' in opts else {}
    if any(map(is_wide, cell['outputs'])): image['classes'] = 'wide'
    metadata = dict(tags=tags) | (dict(mystnb=dict(image=image)) if image else {})
    return [dict(cell, source=source, metadata=metadata, outputs=[shown(o, links) for o in cell['outputs']])] if source.strip() else []

def plain_cells(cell, links):
    "Any other cell of nbdev's output as cells of a page"
    text = ''.join(cell['source'])
    if cell['cell_type'] == 'code': return code_cells(cell, links)
    if cell['cell_type'] != 'markdown' or 'WARNING: THIS FILE WAS AUTOGENERATED' in text: return []
    return [dict(markdown(links(text)), **{k: v for k, v in cell.items() if k == 'attachments'})]

def notebook_link(path, links):
    "A line that leads to the notebook at relative `path`: the copy on this site, and where it is edited"
    return (f'\n<p class="notebook"><a href="{links.relative(f"notebooks/{path}")}" download>Notebook of this page</a> · '
            f'<a href="{links.code}{links.nbs}/{path}">in the repository</a></p>\n')

def adapt_notebook(nb, fm, page, names, links, path):
    "The notebook `nb`, at relative `path`, as the page `page`"
    title = fm.get('title', page.rpartition('/')[2])
    description = f"\n> {fm['description']}\n" if fm.get('description') else ''
    out = [markdown(f'# {title}\n{description}{notebook_link(path, links)}')]
    for documented, cells in groupby(nb['cells'], is_documentation):
        if documented: out += documentation_cells(list(cells), names, links)
        else: out += sum([plain_cells(c, links) for c in cells], [])
    for i, cell in enumerate(out): cell['id'] = f'cell-{i}'
    kernel = dict(display_name='Python 3', language='python', name='python3')
    return dict(cells=out, metadata=dict(kernelspec=kernel, language_info=dict(name='python')), nbformat=4, nbformat_minor=5)

def navigation(quarto):
    "The sidebar of `_quarto.yml` and its metadata files as (caption, notebooks) pairs, in their order"
    entries = []
    for path in [quarto, *(quarto.with_name(n) for n in yaml.safe_load(quarto.read_text()).get('metadata-files', []))]:
        website = yaml.safe_load(path.read_text(encoding='utf-8')).get('website', {})
        entries += website.get('sidebar', {}).get('contents', [])
    def notebooks(es): return [n for e in es for n in ([e] if isinstance(e, str) else
                               [h for h in [e.get('href')] if h] + notebooks(e.get('contents', [])))]
    sections = [(e['section'], notebooks([e])) for e in entries if not isinstance(e, str) and 'section' in e]
    return [(None, [e for e in entries if isinstance(e, str)]), *sections]

def check_listed(sections, notebooks):
    "Refuse a navigation that does not list each of `notebooks` once"
    listed = Counter(n for _, names in sections for n in names)
    wrong = {'not listed': {*notebooks} - {*listed}, 'no such notebook': {*listed} - {*notebooks}, 'listed twice': {n for n in listed if listed[n] > 1}}
    if bad := [f"{what}: {', '.join(sorted(names))}" for what, names in wrong.items() if names]: raise SystemExit('nbs/sidebar.yml: ' + '; '.join(bad))

def toctrees(sections, pages):
    "The navigation in MyST"
    def tree(caption, names): return '\n'.join(
        ['```{toctree}', ':hidden:', *[f':caption: {caption}']*bool(caption), *(pages[n] for n in names if pages[n] != 'index'), '```'])
    return '\n\n'.join(tree(c, ns) for c, ns in sections if ns)

def listing(module, lib, name):
    "A page with the source of `module`, each line with an anchor"
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer
    html = highlight(module.read_text(encoding='utf-8'), PythonLexer(), HtmlFormatter(lineanchors='L', linenos='inline'))
    return f'---\norphan: true\nnosearch: true\n---\n\n# {lib}/{name}.py\n\n````{{raw}} html\n{html}\n````\n'

def adapt(proc, target, cfg):
    "Write pages into `target` from the processed notebooks in `proc`, under the settings `cfg`"
    notebooks = {p.relative_to(proc): read(p) for p in sorted(proc.rglob('*.ipynb'))}
    matter = {p: front_matter(nb) for p, nb in notebooks.items()}
    pages = {p.as_posix(): page_of(p, matter[p]) for p in notebooks}
    sections = navigation(proc/'_quarto.yml')
    check_listed(sections, pages)
    for path, nb in notebooks.items():
        page = pages[path.as_posix()]
        nb = adapt_notebook(nb, matter[path], page, names_of(Path(cfg['nbs_path'])/path), Links(page, pages, cfg), path.as_posix())
        if page == 'index': nb['cells'].append(dict(markdown(toctrees(sections, pages)), id='navigation'))
        out = target/f'{page}.ipynb'
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(nb), encoding='utf-8')
    lib = Path(cfg['lib_path'])
    for module in sorted(lib.rglob('*.py')):
        name = module.relative_to(lib).with_suffix('').as_posix()
        out = target/'source'/f'{name}.md'
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(listing(module, lib, name), encoding='utf-8')
