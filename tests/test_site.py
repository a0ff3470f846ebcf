"The built site: links lead somewhere, and in a browser every page loads, typesets its mathematics and can be searched, offline"
import functools, json, os, re, shutil, subprocess, sys, tempfile, threading
from contextlib import contextmanager
from enum import Enum
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT/'tools'))
import adapt_notebooks, run_notebooks
from check_links import dead_links, pages_of

SITE = ROOT/'_docs'
PAGES = pages_of(SITE)
REQUIRED = os.environ.get('REQUIRE_BROWSER', '') not in ('', '0')     # set by .ci/run: there a missing part is a failure
BROWSER = next(filter(None, map(shutil.which, ['chromium', 'chromium-browser', 'google-chrome'])), None)
FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync']
MATH = re.compile(r'class="[^"]*\bmath notranslate')
SIZES = {'phone': dict(width=390, height=844), 'desktop': dict(width=1280, height=800)}
LIMIT = 30_000      # milliseconds for one page: a bound on a hang, not a measurement

def need(condition, reason):
    "Go on if `condition`, else skip, or fail where nothing may be skipped"
    if not condition: (pytest.fail if REQUIRED else pytest.skip)(reason)

@pytest.fixture(scope='module')
def site():
    need(PAGES, 'there is no site in _docs/: run `make docs`')
    return SITE

def test_no_dead_links(site):
    assert sorted(set(dead_links(site, PAGES))) == []

def test_dead_links_are_found(tmp_path):
    (tmp_path/'a.html').write_text('<a href="b.html#here">1</a><a href="b.html#gone">2</a><a href="c.html">3</a><a href="/b.html">4</a>')
    (tmp_path/'b.html').write_text('<p id="here">')
    assert len(list(dead_links(tmp_path, ['a.html', 'b.html']))) == 3

def test_every_notebook_has_a_page(site):
    notebooks = [re.sub(r'^\d+[a-z]?_', '', p.stem) for p in (SITE.parent/'nbs').rglob('*.ipynb') if p.stem[0] not in '._']
    assert not {*notebooks} - {Path(p).stem for p in PAGES}

def test_unlisted_pages_are_refused():
    for listed in ['a'], ['a', 'b', 'c'], ['a', 'b', 'b']:
        with pytest.raises(SystemExit, match='not listed: b|no such notebook: c|listed twice: b'): adapt_notebooks.check_listed([('x', listed)], ['a', 'b'])
    adapt_notebooks.check_listed([(None, ['a']), ('x', ['b'])], ['a', 'b'])

def test_text_that_myst_would_drop_is_kept():
    links = adapt_notebooks.Links('page', {}, dict(doc_host='', doc_baseurl='', git_url='', branch='', lib_path='', nbs_path=''))
    assert links('about 95\n% of them\n\n```\n% a comment of LaTeX\n```\n') == 'about 95\n\\% of them\n\n```\n% a comment of LaTeX\n```\n'

def test_signatures_say_what_there_is():
    "Short ones are one line, classes show their arguments or else their bases and members, comments have no LaTeX"
    class Colour(Enum): RED, BLUE = 1, 2
    class Failure(Exception): pass
    class Point:
        def __init__(self, x=0, y=0): pass
    shown = lambda text, symbol: adapt_notebooks.signature(text, symbol, __name__)
    assert shown('def Failure(\n    *args, **kwargs\n):', Failure) == 'class Failure(Exception):'
    assert shown('def Colour(\n    *args, **kwds\n):', Colour) == 'class Colour(Enum):\n    RED, BLUE'
    assert shown('def Point(\n    x:int=0, y:int=0\n)->None:', Point) == 'class Point(x:int=0, y:int=0):'
    assert shown('def f(\n    x, # $n\\ge0$\n):', len) == 'def f(\n    x, # n≥0\n):'
    with pytest.raises(SystemExit, match='no letter'): shown('def f(\n    x, # $\\nothing$\n):', len)

def test_stored_errors_are_refused():
    cell = dict(cell_type='code', source='1/0', outputs=[dict(output_type='error', ename='ZeroDivisionError', evalue='by zero')])
    links = adapt_notebooks.Links('page', {}, dict(doc_host='', doc_baseurl='', git_url='', branch='', lib_path='', nbs_path=''))
    with pytest.raises(SystemExit, match='page has an error in its outputs: ZeroDivisionError'): adapt_notebooks.code_cells(cell, links)

def run(*command): return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)

def test_failing_cells_are_refused(tmp_path):
    cell = lambda source: dict(cell_type='code', source=source, metadata={}, outputs=[], execution_count=None, id=str(len(source)))
    for name, source in ('good', '1/1'), ('bad', '1/0'):
        (tmp_path/f'{name}.ipynb').write_text(json.dumps(dict(cells=[cell('2'), cell(source)], metadata={}, nbformat=4, nbformat_minor=5)))
    done = run(ROOT/'tools/run_notebooks.py', '--times', tmp_path/'times.json', tmp_path/'good.ipynb', tmp_path/'bad.ipynb')
    assert done.returncode and 'ZeroDivisionError' in done.stdout and 'Failed: bad.ipynb' in done.stderr, done

def test_sphinx_refuses_broken_links_and_lost_pages(site, tmp_path):
    (tmp_path/'index.md').write_text('# Title\n\n[there](gone.ipynb)\n')
    (tmp_path/'lost.md').write_text('# Lost\n')
    done = run('-m', 'sphinx', '-q', '-W', '--keep-going', '-E', '-c', ROOT/'tools/sphinx', tmp_path, tmp_path/'html')
    assert done.returncode and "'gone.ipynb'" in done.stderr and 'lost.md: WARNING: document isn\'t included in any toctree' in done.stderr, done.stderr

class Quiet(SimpleHTTPRequestHandler):
    "A file server that says nothing"
    def log_message(self, *args): pass

@contextmanager
def serve(folder):
    "The address at which `folder` is served"
    server = ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{server.server_port}'
    finally: server.shutdown(); server.server_close()

@pytest.fixture(scope='module')
def browser(site):
    "A page of headless Chromium, the address of the site (below a path, as it may be published), and what the page complains of"
    need(BROWSER, 'no Chromium is installed')
    from playwright.sync_api import sync_playwright
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as tmp, sync_playwright() as play:
        (Path(tmp)/'sub').mkdir()
        (Path(tmp)/'sub'/'site').symlink_to(site)
        with serve(tmp) as home:
            context = play.chromium.launch_persistent_context(f'{tmp}/profile', executable_path=BROWSER, args=FLAGS)
            page, complaints = context.new_page(), []
            page.set_default_timeout(LIMIT)
            page.on('console', lambda m: complaints.append(f"{m.text} ({m.location['url']})") if m.type == 'error' else None)
            page.on('pageerror', lambda e: complaints.append(str(e)))
            page.on('requestfailed', lambda r: complaints.append(f'failed: {r.url}'))
            page.on('request', lambda r: None if r.url.startswith((home, 'data:', 'blob:')) else complaints.append(f'outside: {r.url}'))
            yield page, f'{home}/sub/site', complaints
            context.close()

# What a reader would see that should not be there: marks of Markdown, of Quarto, of LaTeX, outside code and typeset formulas
RAW = r'/:::|\{\.\w|#\| |\$|\\\(|\\\[|\]\(|\\[a-z]+\{|\*\*|```/'
RAW_TEXT = """raw => {
    const walker = document.createTreeWalker(document.querySelector('main') ?? document.body, NodeFilter.SHOW_TEXT), found = [];
    while (walker.nextNode()) {
        const node = walker.currentNode;
        if (raw.test(node.data) && !node.parentElement.closest('pre, code, script, style, mjx-container, .docutils.literal')) found.push(node.data.trim());
    }
    return found.slice(0, 5)}"""
STICK_OUT = """() => {
    const held = e => e && e !== document.body && (getComputedStyle(e).overflowX !== 'visible' || held(e.parentElement));
    return [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !held(e.parentElement))
        .map(e => `${e.tagName}.${e.className}: ${e.textContent.slice(0, 40)}`).slice(0, 5)}"""

CUT_OFF = """() => [...document.querySelectorAll('article mjx-container:not([display="true"]), .prev-next-title')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('pre, table')).map(e => e.parentElement.textContent.slice(0, 40))"""

def typeset(page):
    "Wait until formulas are drawn, if the page has any; those that could not be: errors, unknown commands (in red), and those not even tried"
    if not page.locator('.math.notranslate').count(): return []
    page.wait_for_function('window.MathJax?.startup?.document')
    page.evaluate('MathJax.startup.promise.then(() => true)')
    bad = page.evaluate("""() => [...MathJax.startup.document.math].filter(m => m.typesetRoot?.querySelector('mjx-merror, mjx-mtext[style*="red"]'))
        .map(m => m.math)""")
    left = [t for t in page.locator('.math.notranslate').all_inner_texts() if t.startswith(('\\(', '\\['))]
    return [f'formula: {t}' for t in bad + left]

def too_wide(page, size):
    "By how many pixels the page is wider than a screen of this size, and the elements that stick out of it; what is cut off and cannot be scrolled to"
    page.set_viewport_size(SIZES[size])
    over = page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth')
    return [f'{over} pixels wider than a {size}: {page.evaluate(STICK_OUT)}']*bool(over) + [f'cut off on a {size}: {t}' for t in page.evaluate(CUT_OFF)]

def problems(page, url, complaints):
    "What is wrong with the page at `url`: nothing, if it is as it should be"
    complaints.clear()
    page.goto(url)
    found = typeset(page)
    found += [f'raw: {t}' for t in page.evaluate(f'({RAW_TEXT})({RAW})')]
    found += [f'no text for {n} images'] if (n := page.locator('main img:not([alt]), main img[alt=""]').count()) else []
    found += sum([too_wide(page, size) for size in SIZES], [])
    page.evaluate('document.fonts.ready.then(() => true)')      # the last requests that a page makes
    return found + complaints

@pytest.mark.parametrize('name', PAGES)
def test_page(browser, name):
    page, home, complaints = browser
    assert not problems(page, f'{home}/{name}', complaints)

PIXEL = 'data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA='
def formula(latex): return f'<span class="math notranslate">\\({latex}\\)</span><script src="_static/mathjax/tex-chtml.js"></script>'
FAULTS = {
    'console': ('<script>console.error("out of order")</script>', 'out of order'),
    'exception': ('<script>nothing_of_this_name()</script>', 'nothing_of_this_name'),
    'another host': ('<img alt="x" src="http://127.0.0.1:9/x.png">', 'outside: '),
    'missing file': ('<img alt="x" src="gone.png">', '404'),
    'no alternative text': (f'<img src="{PIXEL}">', 'no text for 1 '),
    'formula left out': (formula(r'\frac{1'), r'formula: \(\frac{1\)'),
    'error in a formula': (formula(r'\left(x'), 'formula: '),
    'unknown command': (formula(r'\nothing_of_this_name'), r'formula: \nothing'),
    'directive': ('<p>::: {.callout-note}</p>', 'raw: :::'),
    'dollars': ('<p>where $x$ is</p>', 'raw: where'),
    'width': ('<p style="width: 1300px">wide</p>', 'wider than a desktop'),
    'width on a phone': ('<p style="width: 500px">wide</p>', 'wider than a phone'),
    'cut off': ('<div style="overflow: hidden"><p class="prev-next-title" style="width: 500px">wide</p></div>', 'cut off on a phone')}

@pytest.mark.parametrize('fault', FAULTS)
def test_faults_are_found(browser, fault):
    page, home, complaints = browser
    body, said = FAULTS[fault]
    url = f'{home}/{fault.replace(" ", "-")}.html'
    page.route(url, lambda route: route.fulfill(content_type='text/html', body=f'<!doctype html><link rel="icon" href="{PIXEL}"><main>{body}</main>'))
    assert any(said in p for p in problems(page, url, complaints))

def test_nothing_is_found_where_nothing_is(browser):
    page, home, complaints = browser
    page.route(f'{home}/empty.html', lambda route: route.fulfill(content_type='text/html', body=f'<!doctype html><link rel="icon" href="{PIXEL}"><main>x</main>'))
    assert not problems(page, f'{home}/empty.html', complaints)

def test_copied_formulas_are_latex(browser):
    page, home, complaints = browser
    page.goto(f'{home}/kernel.html')
    page.wait_for_function("document.querySelector('mjx-container')")
    copied = page.evaluate("""() => {
        const p = document.querySelector('p:has(mjx-container)'), data = new DataTransfer();
        document.getSelection().selectAllChildren(p);
        p.dispatchEvent(new ClipboardEvent('copy', {clipboardData: data, bubbles: true, cancelable: true}));
        return data.getData('text/plain')}""")
    assert '$' in copied and '\\' in copied, copied

def test_dark_and_light(browser):
    "Colours follow the system until one chooses, by keyboard alone"
    page, home, complaints = browser
    page.goto(f'{home}/kernel.html')
    def colour(theme):
        page.wait_for_function(f'document.documentElement.dataset.theme == "{theme}"')
        return page.evaluate('getComputedStyle(document.body).backgroundColor')
    page.emulate_media(color_scheme='light')
    light = colour('light')
    page.emulate_media(color_scheme='dark')
    dark = colour('dark')
    assert light != dark
    for mode, theme, shown in ('light', 'light', light), ('dark', 'dark', dark), ('light', 'light', light), ('auto', 'dark', dark):
        page.locator('.theme-switch-button:visible').first.focus()
        page.keyboard.press('Enter')
        page.locator(f'.theme-change-button[data-mode={mode}]:visible').focus()
        page.keyboard.press('Enter')
        assert colour(theme) == shown
    page.emulate_media(color_scheme='light')

def test_search_by_keyboard(browser):
    page, home, complaints = browser
    page.goto(f'{home}/kernel.html')
    page.keyboard.press('Control+k')
    page.keyboard.type('NTK')
    page.keyboard.press('Enter')
    page.wait_for_url('**/search.html?q=NTK*')

def test_search(browser):
    page, home, complaints = browser
    page.goto('about:blank')        # ends requests of the page before, which would be complaints of this one
    complaints.clear()
    page.goto(f'{home}/index.html')
    page.locator('.search-button-field, .search-button, .search-button__button').first.click()
    box = page.locator('input[type=search]:visible').first
    box.fill('NTK')
    box.press('Enter')
    page.wait_for_url('**/search.html?q=NTK*')
    page.wait_for_selector('#search-results ul.search li a')
    assert page.locator('#search-results ul.search li a').count() > 0
    assert not complaints

def test_copy_buttons(browser):
    page, home, complaints = browser
    page.context.grant_permissions(['clipboard-read', 'clipboard-write'])
    page.goto(f'{home}/index.html', wait_until='load')
    block = page.locator('div.cell_input div.highlight').first
    block.hover()
    block.locator('.copybtn').click()
    assert page.evaluate('navigator.clipboard.readText()').strip() == block.locator('pre').inner_text().strip()

def test_notebooks_and_sources_are_within_reach(site):
    "Where these links lead is the matter of `test_no_dead_links`"
    text = {p: (site/p).read_text(encoding='utf-8') for p in PAGES}
    notebooks = [p for p in PAGES if '<p class="notebook">' in text[p]]
    assert len(notebooks) == len([*(site/'notebooks').rglob('*.ipynb')])
    assert all(re.search(r'<a href="(\.\./)*notebooks/[\w/]+\.ipynb" download', text[p]) for p in notebooks)
    assert re.search(r'class="source" href="source/kernel.html#L-\d+"', text['kernel.html'])

def test_first_tab_skips_to_the_text(browser):
    page, home, complaints = browser
    page.goto(f'{home}/kernel.html', wait_until='load')
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.textContent.trim()') == 'Skip to main content'
    page.keyboard.press('Enter')
    page.keyboard.press('Tab')
    assert page.evaluate("document.activeElement.closest('main') !== null")
