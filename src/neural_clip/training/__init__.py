"""From recipe and data to a checkpoint, and to new subjects."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"run": ["train"]})
