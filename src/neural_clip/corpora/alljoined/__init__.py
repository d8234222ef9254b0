"""Alljoined-1.6M, EEG of twenty subjects with a consumer headset, and Alljoined1, EEG of eight subjects."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"build": ["prepare"]})
