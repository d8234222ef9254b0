"""THINGS-fMRI: 3T fMRI of three subjects, as single-trial betas in tables or volumes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"build": ["prepare"]})
