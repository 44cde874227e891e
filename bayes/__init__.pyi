from .config import Config as Config
from .diagnostics import converged as converged
from .diagnostics import estimate as estimate
from .diagnostics import summary as summary
from .diagnostics import verdict as verdict
from .model import site_model as site_model
from .sampling import sample as sample
