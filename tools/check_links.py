"Find links of HTML pages that lead nowhere: `python tools/check_links.py [FOLDER]`, by default the built site"
import os, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent

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

def pages_of(site): return sorted(p.relative_to(site).as_posix() for p in site.rglob('*.html') if '_static' not in p.parts)

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

def main(site=ROOT/'_docs'):
    pages = pages_of(Path(site))
    if dead := sorted(set(dead_links(Path(site), pages))): sys.exit('Links that lead nowhere:\n' + '\n'.join(dead))
    print(f'All links between {len(pages)} pages lead somewhere')

if __name__ == '__main__': main(*sys.argv[1:])
