"Data on disk, under a short name"
from .apps.data import *
