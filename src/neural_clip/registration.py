"""Let `AutoConfig`, `AutoModel` and `AutoProcessor` know our classes, whichever package was imported first.

Beside its own table of classes each Auto class has a dictionary of those that were registered. Where the module of an
Auto class is loaded, before or after this package, that dictionary is exchanged for one that registers our classes
when it is first asked for one of them. So neither package loads the other, and nothing is imported in the middle of
another import, where half of transformers may not be there yet.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock
from types import ModuleType
from typing import Any

MODELS = {
    "EegConfig": "EegEncoder",
    "FmriConfig": "FmriEncoder",
    "MegConfig": "MegEncoder",
    "NeuralClipConfig": "NeuralClipModel",
}
PACKAGE = __name__.rpartition(".")[0]
_LOCK = RLock()  # a second thread waits until the first has registered


def _ours(name: str) -> Any:
    """A public class of this package."""
    return getattr(importlib.import_module(PACKAGE), name)


def _register_configs(auto: ModuleType) -> None:
    """Tell `AutoConfig` which class reads which `model_type`."""
    for name in MODELS:
        auto.AutoConfig.register(_ours(name).model_type, _ours(name), exist_ok=True)


def _register_models(auto: ModuleType) -> None:
    """Tell `AutoModel` which model belongs to which configuration."""
    for config, model in MODELS.items():
        auto.AutoModel.register(_ours(config), _ours(model), exist_ok=True)


def _register_processors(auto: ModuleType) -> None:
    """Tell `AutoProcessor` of the one processor."""
    auto.AutoProcessor.register(_ours("NeuralClipConfig"), _ours("NeuralClipProcessor"), exist_ok=True)


# Where each Auto class stands, what the table there is called, and how our classes get into it.
AUTO_MODULES: dict[str, tuple[str, Callable[[ModuleType], None]]] = {
    "transformers.models.auto.configuration_auto": ("CONFIG_MAPPING", _register_configs),
    "transformers.models.auto.modeling_auto": ("MODEL_MAPPING", _register_models),
    "transformers.models.auto.processing_auto": ("PROCESSOR_MAPPING", _register_processors),
}


class LateClasses(dict[Any, Any]):
    """Classes registered with an Auto class; those of this package join when they, or all, are first asked for.

    Args:
        known (`dict`): What is registered already.
        register (`Callable`): Registers the classes of this package; called at most once.
    """

    def __init__(self, known: dict[Any, Any], register: Callable[[], None]) -> None:
        super().__init__(dict.items(known))
        self._register: Callable[[], None] | None = register

    def complete(self) -> LateClasses:
        """Register the classes of this package, unless that is done or under way in this thread."""
        with _LOCK:
            register, self._register = self._register, None
            if register is not None:
                try:
                    register()
                except BaseException:
                    self._register = register
                    raise
        return self

    def complete_for(self, key: Any) -> LateClasses:
        """Register them where `key`, a `model_type` or a configuration class, is one of ours."""
        if isinstance(key, str):
            return self.complete() if key.startswith(PACKAGE) else self
        return self.complete() if getattr(key, "__module__", "").startswith(f"{PACKAGE}.") else self

    def __contains__(self, key: object) -> bool:
        return dict.__contains__(self.complete_for(key), key)

    def __getitem__(self, key: Any) -> Any:
        return dict.__getitem__(self.complete_for(key), key)

    def get(self, key: Any, default: Any = None) -> Any:
        """The class of `key`, or `default`."""
        return dict.get(self.complete_for(key), key, default)

    def __iter__(self) -> Iterator[Any]:
        return dict.__iter__(self.complete())

    def __len__(self) -> int:
        return dict.__len__(self.complete())

    def keys(self) -> Any:
        """All keys, ours among them."""
        return dict.keys(self.complete())

    def values(self) -> Any:
        """All classes, ours among them."""
        return dict.values(self.complete())

    def items(self) -> Any:
        """All pairs, ours among them."""
        return dict.items(self.complete())


def attach(auto: ModuleType) -> None:
    """Exchange the dictionary of registered classes in a loaded module of transformers; others are left alone."""
    if auto.__name__ in AUTO_MODULES:
        table, register = AUTO_MODULES[auto.__name__]
        mapping = getattr(auto, table)
        mapping._extra_content = LateClasses(mapping._extra_content, lambda: register(auto))


class AutoModuleFinder:
    """Finds the modules of the Auto classes where Python would, and has them changed once they are loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Specification of such a module, `None` for all others."""
        if fullname not in AUTO_MODULES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader  # made for this module alone
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                attach(module)

            loader.exec_module = exec_module
        return spec


def register_when_asked() -> None:
    """Prepare the Auto classes, loaded or not; a second call changes nothing."""
    if not any(type(finder).__name__ == AutoModuleFinder.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, AutoModuleFinder())
    for name in AUTO_MODULES:
        if name in sys.modules:
            attach(importlib.import_module(name))  # waits where another thread is still loading it
