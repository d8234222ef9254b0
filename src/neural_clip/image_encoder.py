"""Image encoders: frozen CLIP vision towers, what they are called, and whether two descriptions mean the same one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neural_clip.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import torch

TINY_CLIP = "neural_clip/tiny-clip"  # the tiny CLIP shipped in this package, made for the simulated images
POOLING = "projected"
HUB_TIMEOUT = 5  # s; longer than any answer of a reachable Hub takes, short enough to wait for
ENCODER_KEYS = ("name", "revision", "pooling", "projection_dim")  # what tells one space of embeddings from another
# The same in the configuration of a model.
CONFIG_KEYS = {
    "name": "vision_model_name", "revision": "vision_revision", "pooling": "image_pooling",
    "projection_dim": "projection_dim",
}  # fmt: skip
# What decides the pixels that reach the tower; the rest of an image processor's settings are its own bookkeeping.
PROCESSOR_KEYS = (
    "do_convert_rgb", "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor",
    "do_normalize", "image_mean", "image_std",
)  # fmt: skip


class ImageEncoder:
    """A frozen CLIP vision tower with its image processor.

    Args:
        name (`str`): Name on the Hub, folder, or `"neural_clip/tiny-clip"`.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        device (`str`, *optional*): Where to run.

    Attributes:
        description (`dict`): `name`, `revision` (commit on the Hub, or SHA-256 of the weights of a folder),
            `pooling`, `projection_dim` and `image_processor` (its settings).
    """

    def __init__(self, name: str, revision: str | None = None, device: str | None = None):
        source, local = _locate(name, revision)  # before the slow imports, so that a missing model is told at once
        import torch
        from transformers import AutoConfig, AutoImageProcessor, CLIPVisionModelWithProjection
        from transformers.utils import logging

        self.device = _device(device)
        options: dict[str, Any] = (
            {} if local else {"revision": revision, "local_files_only": _is_cached(name, revision)}
        )
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # a whole CLIP holds a text tower too; that it is left out is no news
        try:
            whole = AutoConfig.from_pretrained(source, **options)
            config = _vision_config(whole, name)
            loaded: Any = CLIPVisionModelWithProjection.from_pretrained(
                source, config=config, output_loading_info=True, dtype=torch.float32, **options
            )
            model, report = loaded
            self.processor = AutoImageProcessor.from_pretrained(source, **options)
        except DataError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise DataError(f"'{name}' cannot be loaded as a CLIP vision model: {error}") from error
        finally:
            logging.set_verbosity(verbosity)
        faults = [*report["missing_keys"], *report["mismatched_keys"]]
        if faults:
            raise DataError(f"'{name}' lacks weights of a CLIP vision tower: {', '.join(map(str, faults[:3]))} ...")
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.description = {
            "name": Path(name).resolve().name if local and name != TINY_CLIP else name,
            "revision": weights_digest(Path(source)) if local else getattr(whole, "_commit_hash", None) or revision,
            "pooling": POOLING,
            "projection_dim": model.config.projection_dim,
            "image_processor": _processor_settings(self.processor),
        }

    def encode(self, images: list) -> np.ndarray:
        """Embed images (`PIL.Image`); returns float32 `(len(images), projection_dim)`, not normalised."""
        import torch

        with torch.inference_mode():
            pixel_values = self.processor(images=images, return_tensors="pt")["pixel_values"].to(self.device)
            return self.model(pixel_values=pixel_values).image_embeds.float().cpu().numpy()


def _vision_config(config: Any, name: str) -> Any:
    """Configuration of the vision tower with its projection, of a whole CLIP or of the tower alone."""
    if config.model_type == "clip":
        config.vision_config.projection_dim = config.projection_dim  # the tower's own may be left at its default
        return config.vision_config
    if config.model_type == "clip_vision_model":
        return config
    raise DataError(f"'{name}' is a model of type {config.model_type!r}; allowed are 'clip' and 'clip_vision_model'.")


def _processor_settings(processor: Any) -> dict:
    """Settings of an image processor that decide the pixels, as JSON gives them back."""
    settings = processor.to_dict()
    return json.loads(json.dumps({key: settings[key] for key in PROCESSOR_KEYS if key in settings}))


def _device(device: str | None) -> torch.device:
    import torch

    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"Invalid value for the 'device' parameter: {name!r} cannot be used here: {reason}") from error


def _locate(name: str, revision: str | None) -> tuple[str, bool]:
    """Return what to load from, and whether it is a folder of this machine."""
    from neural_clip.simulation.images import TINY_CLIP_DIR

    path = TINY_CLIP_DIR if name == TINY_CLIP else Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise DataError(f"'{path}' is no model folder: it has no config.json.")
        if revision is not None:
            raise DataError(f"'revision' is for models of the Hub, but '{name}' is a folder.")
        return str(path), True
    if name == TINY_CLIP or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise DataError(f"There is no model folder '{path}'.")
    if not _is_cached(name, revision):
        _ask_hub(name, revision)
    return name, False


def _is_cached(name: str, revision: str | None) -> bool:
    """Whether the Hub's cache on this machine holds the model."""
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in files)


def _ask_hub(name: str, revision: str | None) -> None:
    """Raise within seconds unless the Hub is reachable and has the model."""
    from huggingface_hub import HfApi, constants

    advice = (
        f"Download it where there is a network (`hf download {name}`) and give its folder with --model, or copy it "
        "into the Hub cache of this machine; a data set may also bring ready-made embeddings "
        "(`neural-clip prepare custom`)."
    )
    if constants.HF_HUB_OFFLINE:
        raise DataError(f"The image encoder '{name}' is not on this machine and HF_HUB_OFFLINE is set. {advice}")
    try:
        HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT)
    except Exception as error:  # the HTTP client's own errors differ between versions; all mean "not to be had"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"The image encoder '{name}' is not on this machine and the Hub does not give it ({reason}). {advice}"
        ) from error


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


def check_same_encoder(expected: Mapping, expected_by: str, found: Mapping, found_in: str) -> None:
    """Raise unless two descriptions of an image encoder mean the same space.

    Args:
        expected, found (`Mapping`): Descriptions with `name`, `revision`, `pooling` and `projection_dim`.
        expected_by, found_in (`str`): Where each stands, for the message.

    Raises:
        DataError: If they differ in a key that `expected` has.
    """
    different = [key for key in ENCODER_KEYS if key in expected and expected[key] != found.get(key)]
    if different:
        wanted, got = ({key: side.get(key) for key in ENCODER_KEYS if key in side} for side in (expected, found))
        raise DataError(
            f"{expected_by} expects image embeddings of {wanted}, but those of {found_in} were made by {got}; they "
            f"differ in {' and '.join(repr(key) for key in different)}. Embed the images with the expected encoder "
            "(`neural-clip embed-images FOLDER --model NAME --overwrite`) or train anew."
        )


def configured_encoder(encoder: Mapping) -> dict:
    """The description of an image encoder as a model's configuration keeps it.

    Args:
        encoder (`Mapping`): `image_encoder` of a prepared data set.

    Returns:
        `dict`: `name`, `revision`, `projection_dim` and `pooling`, which is `"precomputed"` for any other than CLIP's.
    """
    pooling = encoder["pooling"] if encoder["pooling"] in ("projected", "cls") else "precomputed"
    return {key: encoder[key] for key in ENCODER_KEYS} | {"pooling": pooling}


def model_encoder(config: Any) -> dict | None:
    """The image encoder that a model's configuration expects, `None` where it names none.

    Args:
        config ([`NeuralClipConfig`]): `vision_model_name`, `vision_revision`, `image_pooling` and `projection_dim`.
    """
    if getattr(config, CONFIG_KEYS["name"], None) is None:
        return None
    return {name: getattr(config, key) for name, key in CONFIG_KEYS.items()}
