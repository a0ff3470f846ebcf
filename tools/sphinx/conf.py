"The look of the offline site; titles and addresses come from settings.ini"
import configparser
from pathlib import Path

root = Path(__file__).resolve().parents[2]
_settings = configparser.ConfigParser(delimiters=['='])
_settings.read(root/'settings.ini', encoding='utf-8')
_cfg = dict(_settings['DEFAULT'])

project, author, copyright, version = _cfg['title'], _cfg['author'], _cfg['copyright'], _cfg['version']
language = 'en'
extensions = ['myst_nb', 'sphinx.ext.mathjax', 'sphinx_copybutton']

nb_execution_mode = 'off'
nb_merge_streams = True
nb_render_markdown_format = 'myst'
myst_enable_extensions = ['amsmath', 'attrs_inline', 'colon_fence', 'deflist', 'dollarmath']
myst_dmath_double_inline = True          # a displayed formula inside a paragraph, as Jupyter and Quarto allow
myst_heading_anchors = 4
suppress_warnings = ['myst.header']      # `show_doc` makes a third-level heading wherever it stands

html_theme = 'sphinx_book_theme'
html_title = _cfg['title']
html_static_path = [str(root/'build'/'site'/'static')]
html_extra_path = [str(root/'build'/'site'/'extra')]
html_css_files = ['styles.css']
html_js_files = ['copy_tex.js']
copybutton_selector = 'div.cell_input div.highlight pre, div.highlight-default pre, div.highlight-none pre, div.highlight-python pre'
html_copy_source = False
html_show_sourcelink = False
html_theme_options = dict(home_page_in_toc=True, show_navbar_depth=1, show_toc_level=2, use_download_button=False,
                          navbar_persistent=[])
mathjax_path = 'mathjax/tex-chtml.js'
html_favicon = 'favicon.svg'
html_context = dict(default_mode='auto')
