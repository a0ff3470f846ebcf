"The program that moves code over: `python -m neural_tangents_nb.migrate`"
from .apps.migrate import *

if __name__ == '__main__': main()
