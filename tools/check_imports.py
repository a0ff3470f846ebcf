"A notebook imports only what lower-numbered notebooks export: the package can be read, and is built, from front to back"
import json, re, sys
from pathlib import Path

NBS = Path(__file__).resolve().parent.parent/'nbs'
IMPORT = re.compile(r'^\s*(?:from|import) neural_tangents_nb(?:\.([\w.]+)| import ([\w, ]+))', re.M)

def main(nbs=NBS):
    "Exit with a list of the imports that point forward"
    numbered = [*nbs.glob('[0-9][0-9]*_*.ipynb'), *nbs.glob('apps/*.ipynb')]
    cells = {p: [''.join(c['source']) for c in json.loads(p.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
             for p in sorted(numbered, key=lambda p: p.name)}
    exports = {p: set(re.findall(r'^#\|\s*default_exp\s+([\w.]+)', '\n'.join(cs), re.M)) for p, cs in cells.items()}
    bad, known = [], set()
    for p, sources in cells.items():
        for source in sources:
            allowed = known if re.match(r'#\|\s*export', source) else known | exports[p]
            for module, names in IMPORT.findall(source):
                imported = {module} if module else {n.split()[0] for n in names.split(',') if n.strip()}
                bad += [f'  {p.name}: {m}' for m in sorted(imported & set.union(*exports.values()) - allowed)]
        known |= exports[p]
    if bad: sys.exit('These notebooks import what a later notebook exports:\n' + '\n'.join(bad))
    print(f'{len(cells)} notebooks import forward only')

if __name__ == '__main__': main()
