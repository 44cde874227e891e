from .features import Features as Features
from .splits import distances as distances
from .splits import split as split
from .training import Config as Config
from .training import Run as Run
from .training import fit as fit
from .training import load as load
from .uncertainty import posterior as posterior
