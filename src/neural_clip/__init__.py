"""Align EEG, MEG and fMRI recordings with the CLIP embeddings of the images that people looked at.

Nothing heavy is imported before a name is used. Using any of the classes below registers them all with
`AutoConfig`, `AutoModel` and `AutoProcessor`; so does importing this package after `transformers`.
"""

import importlib
import sys
from typing import Any

__version__ = "0.1.0"

_SOURCES = {
    "configuration_neural_clip": ("EegConfig", "FmriConfig", "MegConfig", "NeuralClipConfig"),
    "modeling_eeg": ("EegEncoder",),
    "modeling_fmri": ("FmriEncoder",),
    "modeling_meg": ("MegEncoder",),
    "modeling_neural_clip": ("NeuralClipModel", "NeuralClipOutput"),
    "processing_neural_clip": ("NeuralClipProcessor",),
}
_MODULE_OF = {name: module for module, names in _SOURCES.items() for name in names}

__all__ = [
    "EegConfig",
    "EegEncoder",
    "FmriConfig",
    "FmriEncoder",
    "MegConfig",
    "MegEncoder",
    "NeuralClipConfig",
    "NeuralClipModel",
    "NeuralClipOutput",
    "NeuralClipProcessor",
    "__version__",
]


def _register() -> None:
    """Make the Auto classes of transformers know the classes of this package, once."""
    from transformers import AutoConfig, AutoModel, AutoProcessor

    loaded = {
        name: getattr(importlib.import_module(f"{__name__}.{module}"), name) for name, module in _MODULE_OF.items()
    }
    globals().update(loaded)
    for prefix in ("Eeg", "Meg", "Fmri"):
        config_class, encoder_class = loaded[f"{prefix}Config"], loaded[f"{prefix}Encoder"]
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        AutoModel.register(config_class, encoder_class, exist_ok=True)
        config_class.register_for_auto_class()
        encoder_class.register_for_auto_class("AutoModel")
    AutoConfig.register("neural_clip", loaded["NeuralClipConfig"], exist_ok=True)
    AutoModel.register(loaded["NeuralClipConfig"], loaded["NeuralClipModel"], exist_ok=True)
    AutoProcessor.register(loaded["NeuralClipConfig"], loaded["NeuralClipProcessor"], exist_ok=True)
    loaded["NeuralClipConfig"].register_for_auto_class()
    loaded["NeuralClipModel"].register_for_auto_class("AutoModel")
    loaded["NeuralClipProcessor"].register_for_auto_class("AutoProcessor")


def __getattr__(name: str) -> Any:
    """Import a public class when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _register()
    return globals()[name]


def __dir__() -> list[str]:
    return sorted(__all__)


if "transformers" in sys.modules:
    _register()
