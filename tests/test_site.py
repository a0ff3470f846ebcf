"The built site: links lead somewhere, and in a browser every page loads, typesets its mathematics and can be searched, offline"
import functools, os, re, shutil, tempfile, threading
from contextlib import contextmanager
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit
import pytest

SITE = Path(__file__).resolve().parent.parent/'_docs'
PAGES = sorted(p.relative_to(SITE).as_posix() for p in SITE.rglob('*.html') if '_static' not in p.parts)
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

class Anchors(HTMLParser):
    "Collects the ids of a page and the addresses that it refers to"
    def __init__(self, text):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[k] for k in ('id', 'name') if attrs.get(k)}
        self.links += [attrs[k] for k in ('href', 'src') if attrs.get(k)]

def dead_links(root, pages):
    "Links of `pages`, relative to `root`, to files or anchors that do not exist"
    parsed = {p: Anchors((root/p).read_text(encoding='utf-8')) for p in pages}
    for page, anchors in parsed.items():
        for link in anchors.links:
            url = urlsplit(link)
            if url.scheme or url.netloc: continue
            if url.path.startswith('/'): yield f'{page}: {link} depends on where the site lies'; continue
            target = (root/page).parent/unquote(url.path) if url.path else root/page
            name = os.path.relpath(target, root)
            if not target.is_file(): yield f'{page}: {link}'
            elif url.fragment and name in parsed and unquote(url.fragment) not in parsed[name].ids: yield f'{page}: {link}'

def test_no_dead_links(site):
    assert sorted(set(dead_links(site, PAGES))) == []

def test_dead_links_are_found(tmp_path):
    (tmp_path/'a.html').write_text('<a href="b.html#here">1</a><a href="b.html#gone">2</a><a href="c.html">3</a><a href="/b.html">4</a>')
    (tmp_path/'b.html').write_text('<p id="here">')
    assert len(list(dead_links(tmp_path, ['a.html', 'b.html']))) == 3

def test_every_notebook_has_a_page(site):
    notebooks = [re.sub(r'^\d+[a-z]?_', '', p.stem) for p in (SITE.parent/'nbs').rglob('*.ipynb') if p.stem[0] not in '._']
    assert not {*notebooks} - {Path(p).stem for p in PAGES}

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

@pytest.mark.parametrize('name', PAGES)
def test_page(browser, name):
    page, home, complaints = browser
    complaints.clear()
    page.goto(f'{home}/{name}', wait_until='networkidle')
    if MATH.search((SITE/name).read_text(encoding='utf-8')):
        page.wait_for_function("window.MathJax?.startup?.promise && document.querySelector('mjx-container')")
        page.evaluate('MathJax.startup.promise.then(() => true)')
        assert page.locator('mjx-merror').count() == 0, page.locator('mjx-merror').all_inner_texts()
        untypeset = [t for t in page.locator('.math.notranslate').all_inner_texts() if t.startswith(('\\(', '\\['))]
        assert not untypeset
    assert not {size: wide for size, wide in ((size, too_wide(page, SIZES[size])) for size in SIZES) if wide}
    assert not complaints

def too_wide(page, size):
    "By how many pixels the page is wider than a screen of this size, and the elements that stick out of it"
    page.set_viewport_size(size)
    over = page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth')
    return over and (over, page.evaluate("""[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)
        .map(e => e.tagName + '.' + e.className + ': ' + e.textContent.slice(0, 40)).slice(0, 5)"""))

def test_copied_formulas_are_latex(browser):
    page, home, complaints = browser
    page.goto(f'{home}/kernel.html', wait_until='networkidle')
    page.wait_for_function("document.querySelector('mjx-container')")
    copied = page.evaluate("""() => {
        const p = document.querySelector('p:has(mjx-container)'), data = new DataTransfer();
        document.getSelection().selectAllChildren(p);
        p.dispatchEvent(new ClipboardEvent('copy', {clipboardData: data, bubbles: true, cancelable: true}));
        return data.getData('text/plain')}""")
    assert '$' in copied and '\\' in copied, copied

def test_dark_and_by_keyboard(browser):
    page, home, complaints = browser
    page.goto(f'{home}/kernel.html')
    colour = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")
    seen = {page.evaluate("document.documentElement.dataset.theme"): colour()}
    for _ in range(3):
        page.locator('.theme-switch-button:visible').first.click()
        seen[page.evaluate("document.documentElement.dataset.theme")] = colour()
    assert len(set(seen.values())) == 2, seen
    page.keyboard.press('Control+k')
    page.keyboard.type('NTK')
    page.keyboard.press('Enter')
    page.wait_for_url('**/search.html?q=NTK*')

def test_search(browser):
    page, home, complaints = browser
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
