"""The Natural Scenes Dataset (NSD): 7T fMRI of eight subjects, as NIfTI or HDF5 betas."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"build": ["prepare"]})
