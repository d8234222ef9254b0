"""Folders of image towers: the tiny CLIP that ships with the package, and the digest that tells weights apart."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from .errors import DataError

TINY_CLIP = "neural_clip/tiny-clip"  # the tiny CLIP shipped in the package, made for the simulated images


def tiny_clip_folder() -> Path | None:
    """Where the tiny CLIP lies; `None` where the package is not installed and these files came with a checkpoint."""
    try:
        package = find_spec("neural_clip")
    except (ImportError, ValueError):
        return None
    places = [] if package is None else package.submodule_search_locations or []
    folders = [Path(place) / "targets" / "tiny_clip_model" for place in places]
    return next((folder for folder in folders if folder.is_dir()), None)


def weights_digest(folder: Path) -> str:
    """`sha256:` of the weights in a model folder."""
    weights = sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")])
    if not weights:
        raise DataError(f"'{folder}' is no model folder: it has no weights (*.safetensors).")
    digest = hashlib.sha256()
    for path in weights:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"
