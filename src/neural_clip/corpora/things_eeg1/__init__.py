"""THINGS-EEG1: EEG of fifty subjects, ten images a second."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"build": ["prepare"]})
