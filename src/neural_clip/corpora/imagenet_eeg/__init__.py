"""ImageNetEEG: EEG of six subjects, as the released .pth files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"build": ["prepare"]})
