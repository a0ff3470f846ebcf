"`nt-predict` by another name: `python -m neural_tangents_nb.table`"
from .apps.table import *

if __name__ == '__main__': main()
