"""Let `AutoConfig`, `AutoModel`, `AutoProcessor` and `pipeline` know our classes, whichever package came first.

Each Auto class has a dictionary of registered classes. Once its module is loaded, before or after this package, that
dictionary is exchanged for one that registers our classes when it is first asked for one of them. So neither package
loads the other, and nothing is imported while transformers is half loaded. Pipelines are named by their module, as
transformers names its own, and imported when one is made.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.machinery import ModuleSpec, PathFinder
from os import PathLike
from threading import RLock
from types import ModuleType
from typing import Any

from .modalities import MODALITIES

MODELS = {
    **{kind.config_class: kind.encoder_class for kind in MODALITIES.values()},
    "NeuralClipConfig": "NeuralClipModel",
}
PACKAGE = __name__.rpartition(".")[0]
# Where each Auto class stands, what the table there is called, and the class that goes with each configuration.
AUTO_MODULES: dict[str, tuple[str, dict[str, str]]] = {
    "transformers.models.auto.configuration_auto": ("CONFIG_MAPPING", {name: name for name in MODELS}),
    "transformers.models.auto.modeling_auto": ("MODEL_MAPPING", MODELS),
    "transformers.models.auto.processing_auto": ("PROCESSOR_MAPPING", {"NeuralClipConfig": "NeuralClipProcessor"}),
}
PIPELINES = {
    "neural-decoding": "NeuralDecodingPipeline",
    "neural-encoding": "NeuralEncodingPipeline",
    "neural-conversion": "NeuralConversionPipeline",
}
PIPELINE_MODULE = "transformers.pipelines"
CHANGED = {*AUTO_MODULES, PIPELINE_MODULE}
_LOCK = RLock()  # a second thread waits until the first has registered


class LateClasses(dict[Any, Any]):
    """Classes `known` to an Auto class; `register`, called once, adds ours when they, or all, are first asked for."""

    def __init__(self, known: dict[Any, Any], register: Callable[[], object]) -> None:
        super().__init__(dict.items(known))
        self._register = register

    def complete(self) -> None:
        """Register the classes of this package, unless that is done or under way in this thread."""
        with _LOCK:
            register, self._register = self._register, lambda: None
            try:
                register()
            except BaseException:
                self._register = register
                raise


def _completing(name: str) -> Callable[..., Any]:
    """A method of `dict` that looks up one key, a `model_type` or a configuration class, or all; ours join before."""

    def look_up(self: LateClasses, *arguments: Any) -> Any:
        key = arguments[0] if arguments else PACKAGE
        prefix, origin = (PACKAGE, key) if isinstance(key, str) else (f"{PACKAGE}.", getattr(key, "__module__", ""))
        if origin.startswith(prefix):
            self.complete()
        return getattr(dict, name)(self, *arguments)

    return look_up


for _name in ("__contains__", "__getitem__", "get", "__iter__", "__len__", "keys", "values", "items"):
    setattr(LateClasses, _name, _completing(_name))


def attach(auto: ModuleType) -> None:
    """Exchange the dictionary of registered classes in a loaded module of an Auto class, or name our pipelines."""
    if auto.__name__ == PIPELINE_MODULE:
        for task, name in PIPELINES.items():
            models = (auto.AutoModel,) if hasattr(auto, "AutoModel") else ()  # there is none without torch
            entry = {"impl": f"{PACKAGE}.gallery.pipelines.{name}", "pt": models, "type": "multimodal"}
            auto.PIPELINE_REGISTRY.supported_tasks[task] = entry
        vars(auto)["pipeline"] = asking_first(auto.pipeline)
        return
    table, classes = AUTO_MODULES[auto.__name__]
    mapping = getattr(auto, table)

    def register() -> None:
        ours = importlib.import_module(PACKAGE)
        for name, partner in classes.items():
            config = getattr(ours, name)
            key = config.model_type if name == partner else config  # a configuration is found by its type
            mapping.register(key, getattr(ours, partner), exist_ok=True)

    mapping._extra_content = LateClasses(mapping._extra_content, register)


def asking_first(pipeline: Callable[..., Any]) -> Callable[..., Any]:
    """`pipeline`, which for our tasks says at once where there is no such model; it would ask the Hub for a minute."""

    @wraps(pipeline)
    def ask_first(task: Any = None, model: Any = None, *args: Any, **kwargs: Any) -> Any:
        if task in PIPELINES and (model is None or isinstance(model, str | PathLike)):
            errors = importlib.import_module(f"{PACKAGE}.errors")
            if model is None:
                raise errors.DataError(f"The pipeline '{task}' needs a checkpoint; say model=FOLDER.")
            errors.check_to_be_had(model, kwargs | (kwargs.get("model_kwargs") or {}))
        return pipeline(task, model, *args, **kwargs)

    return pipeline if hasattr(pipeline, "__wrapped__") else ask_first


class AutoModuleFinder:
    """Finds the modules of [`CHANGED`] where Python would, and has them changed once they are loaded."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Specification of such a module, `None` for all others."""
        spec = PathFinder.find_spec(name, path, target) if name in CHANGED else None
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader  # made for this module alone
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                attach(module)

            loader.exec_module = exec_module
        return spec


def register_when_asked() -> None:
    """Prepare the Auto classes and `pipeline`, loaded or not; a second call changes nothing."""
    if not any(type(finder).__name__ == AutoModuleFinder.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, AutoModuleFinder())
    for name in CHANGED:
        if name in sys.modules:
            attach(importlib.import_module(name))  # waits where another thread is still loading it
