"""The verdict: do two sets of posterior draws agree, and is either right?"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
