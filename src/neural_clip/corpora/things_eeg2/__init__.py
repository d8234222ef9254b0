"""THINGS-EEG2: EEG of ten subjects, as raw recordings or as one of the preprocessed releases."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"build": ["prepare"]})
