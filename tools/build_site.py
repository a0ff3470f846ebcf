"""Build the site into _docs/, offline and without Quarto.

nbdev processes the notebooks (documentation of what each cell exports, links, hidden cells), `adapt_notebooks` turns its Quarto
dialect into MyST, and Sphinx renders the pages with its own copies of MathJax and of all fonts.
"""
import configparser, os, shutil, subprocess, sys, time
from importlib.metadata import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SITE, BUILD = ROOT/'_docs', ROOT/'build'/'site'

def process():
    "What `nbdev_docs` does before it calls Quarto: write _proc/ from nbs/"
    from nbdev.doclinks import _build_modidx
    from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
    from nbdev.serve import proc_nbs
    # The hidden cell that configures JAX is code beside an import, which nbdev remarks on
    os.environ['PYTHONWARNINGS'] = 'ignore:Found cells containing imports'
    sys.path.insert(0, str(ROOT))
    refresh_quarto_yml()
    _build_modidx()
    nbdev_sidebar.__wrapped__()
    try: return proc_nbs(n_workers=2, force=True)
    except Exception as e: sys.exit(f'{e}\n{e.__cause__ or ""}\nThe site needs what each cell exports, so nbdev executes exported cells and all cells '
                                    'that have an import in them, and no others: keep imports in cells of their own.')

def copy_mathjax(target):
    "Of MathJax, what displays LaTeX as text: one script, its fonts, and the LaTeX packages that it loads when they are used"
    wanted = 'tex-chtml.js', 'output/chtml/fonts/woff-v2/', 'input/tex/extensions/'
    for f in files('sphinx-mathjax-offline'):
        name = str(f).partition('static/mathjax/')[2]
        if not name.startswith(wanted): continue
        (target/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(f.locate(), target/name)

def main():
    os.chdir(ROOT)
    start = time.time()
    settings = configparser.ConfigParser(delimiters=['='])
    settings.read('settings.ini', encoding='utf-8')
    from adapt_notebooks import adapt
    import check_links
    shutil.rmtree(BUILD, ignore_errors=True)
    adapt(process(), BUILD/'pages', settings['DEFAULT'])
    adapted = time.time()
    copy_mathjax(BUILD/'static'/'mathjax')
    for name in 'nbs/styles.css', 'tools/sphinx/copy_tex.js': shutil.copy(name, BUILD/'static')
    shutil.copytree('nbs', BUILD/'extra'/'notebooks', ignore=lambda folder, names: [
        n for n in names if n[0] in '._' or not (n.endswith('.ipynb') or (Path(folder)/n).is_dir())])
    sphinx = subprocess.run([sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', '-j', '2', '-E', '-d', BUILD/'doctrees',
                             '-c', 'tools/sphinx', BUILD/'pages', BUILD/'html'])
    if sphinx.returncode: sys.exit('Sphinx met the problems above; _docs/ is left as it was')
    check_links.main(BUILD/'html')
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.move(BUILD/'html', SITE)
    print(f"The site is built in {time.time()-start:.0f} s, {adapted-start:.0f} s of them to process notebooks: open {(SITE/'index.html').relative_to(ROOT)}")

if __name__ == '__main__': main()
