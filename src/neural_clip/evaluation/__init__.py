"""Decoding, encoding, conversion, with baselines and controls."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"run": ["evaluate_checkpoints"]})
