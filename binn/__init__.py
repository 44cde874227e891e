"""The network: one Flax BINN for all sites, trained through the column, with Monte Carlo dropout."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
