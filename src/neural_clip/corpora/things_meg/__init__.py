"""THINGS-MEG: MEG of four subjects, as raw CTF recordings or as the published epochs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"build": ["prepare"]})
