"""The shared core: CLM5's soil-carbon column at steady state, in JAX, and the sites that it is run on.

Public names load on first use; `clm5/__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
