"""Continuous image models for arbitrary-scale super-resolution, composed of plugins.

``__init__.pyi`` lists the public names. Each is imported when it is first used, so that ``import liif_core`` does not
import torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
