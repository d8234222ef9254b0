"""Parts of an evaluation that are finished, kept in a folder so that one which was interrupted goes on from there.

A part is a named set of arrays. Its file is named after everything that decides what is in it, and holds the digest of
its content: what was made of something else, or is damaged, is computed again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.files.whole import only_writer, told, whole_file

PARTS_DIR = "unfinished"
# Of a part, of one that was killed while it was written, or the lock of it.
PART_FILE = re.compile(r"\.?[A-Za-z0-9-]+-[0-9a-f]{16}\.safetensors(\.partial|\.writing)?")


@dataclass(frozen=True)
class FinishedParts:
    """Where finished parts are kept.

    Args:
        folder (`Path`, *optional*): `None` keeps nothing on disk.
        key (`Mapping`): What decides the content of all parts, as JSON knows it.
        tick (`Callable`): Called when a step of the work is done, for a progress bar.
    """

    folder: Path | None = None
    key: Mapping[str, Any] = field(default_factory=dict)
    tick: Callable[[], object] = int

    def of(self, **key: Any) -> FinishedParts:
        """The same folder for parts that more is needed to tell apart."""
        return replace(self, key={**self.key, **key})

    def finished(self, name: str) -> Mapping[str, np.ndarray] | None:
        """The arrays of a part, read from its file one by one, each time they are asked for; `None` if it lacks."""
        return None if self.folder is None else _whole(self._path(name))

    def arrays(self, name: str, compute: Callable[[], Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
        """The arrays of a part, from its file where it is finished.

        Args:
            name (`str`): What the part is, for the name of the file.
            compute (`Callable`): Makes them.

        Returns:
            `Mapping[str, np.ndarray]`: Read from the file one by one, each time they are asked for.
        """
        found = self.finished(name)
        return self.keep(name, compute()) if found is None else found

    def keep(self, name: str, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Write the arrays of a part, and give them as [`FinishedParts.finished`] does."""
        if self.folder is None:
            return arrays
        with told(self.folder, of_any_kind=True):
            self.folder.mkdir(parents=True, exist_ok=True)
        _write(self._path(name), arrays)
        return _Stored(self._path(name))

    def record(self, name: str, compute: Callable[[], Any]) -> Any:
        """What JSON can hold, as a part."""

        def as_bytes() -> dict[str, np.ndarray]:
            return {"json": np.frombuffer(json.dumps(compute()).encode(), dtype=np.uint8)}

        return json.loads(self.arrays(name, as_bytes)["json"].tobytes())

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Be the only process that works on a part; a `DataError` where another one does."""
        if self.folder is None:
            yield
            return
        with only_writer(self._path(name)):
            yield

    def remove(self) -> None:
        """Remove what was kept, of whatever was computed, and nothing else that lies there."""
        if self.folder is not None and self.folder.is_dir():
            for path in self.folder.iterdir():
                if PART_FILE.fullmatch(path.name):
                    path.unlink(missing_ok=True)
            with suppress(OSError):  # others have files there
                self.folder.rmdir()

    def _path(self, name: str) -> Path:
        """File of a part."""
        assert self.folder is not None  # asked by those who keep parts
        digest = hashlib.sha256(json.dumps([name, self.key], sort_keys=True).encode()).hexdigest()
        return self.folder / f"{re.sub('[^A-Za-z0-9]+', '-', name)}-{digest[:16]}.safetensors"


NOT_KEPT = FinishedParts()


class _Stored(Mapping[str, np.ndarray]):
    """Arrays in a file of safetensors."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self.path = path
        with safe_open(path, framework="np") as file:
            self.names = list(file.keys())

    def __getitem__(self, name: str) -> np.ndarray:
        from safetensors import safe_open

        with safe_open(self.path, framework="np") as file:
            return file.get_tensor(name)

    def __iter__(self) -> Any:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays and the digest of them."""
    from safetensors.numpy import save_file

    laid = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    with whole_file(path) as partial:
        save_file(laid, partial, {"sha256": _digest(laid)})


def _whole(path: Path) -> _Stored | None:
    """The arrays of a file that is there and holds what was written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            stated = (file.metadata() or {}).get("sha256")
        found = _Stored(path)
        return found if stated == _digest(found) else None
    except (OSError, SafetensorError, ValueError, TypeError):
        return None


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and numbers."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = arrays[name]
        digest.update(f"{name} {value.dtype} {value.shape} ".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()
