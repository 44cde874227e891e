from .sampling import Config as Config
from .sampling import sample as sample
