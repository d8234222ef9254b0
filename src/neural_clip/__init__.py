"""Align EEG, MEG and fMRI recordings with the CLIP embeddings of the images that subjects looked at.

Nothing heavy is imported before a name is used. `AutoConfig`, `AutoModel` and `AutoProcessor` of transformers know the
classes below once this package is imported, be it before transformers or after it.
"""

import importlib
from typing import Any

from neural_clip.modalities import MODALITIES
from neural_clip.registration import register_when_asked

__version__ = "0.1.0"

_SOURCES = {
    "configuration_neural_clip": (*(kind.config_class for kind in MODALITIES.values()), "NeuralClipConfig"),
    "gallery.neural_gallery": ("NeuralGallery",),
    **{f"modeling_{name}": (kind.encoder_class,) for name, kind in MODALITIES.items()},
    "modeling_neural_clip": ("NeuralClipModel", "NeuralClipOutput"),
    "processing_neural_clip": ("NeuralClipProcessor",),
    "report.conversion": ("plot_conversion",),
    "sample": ("load_sample",),
}
_MODULE_OF = {name: module for module, names in _SOURCES.items() for name in names}

__all__ = [*sorted(_MODULE_OF), "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public class when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


register_when_asked()
