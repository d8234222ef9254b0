"""Image encoders: frozen CLIP vision towers, what they are called, and whether two descriptions mean the same one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.errors import DataError, check_option, check_value
from neural_clip.image_pixels import rgb_images
from neural_clip.image_tower_files import weights_digest
from neural_clip.publishing.hub import ask_hub, is_cached
from neural_clip.targets.identity import POOLINGS, EncoderIdentity
from neural_clip.targets.tiny_clip import TINY_CLIP

if TYPE_CHECKING:
    import torch


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
        pooling (`str`, *optional*, defaults to `"projected"`): Or `"cls"`, the class token of the last layer.

    Attributes:
        description (`dict`): `name`, `revision` (commit on the Hub, or SHA-256 of the weights of a folder),
            `pooling`, `projection_dim` (of the embeddings) and `image_processor` (its settings).
    """

    def __init__(self, name: str, revision: str | None = None, device: str | None = None, pooling: str = POOLINGS[0]):
        check_option("pooling", pooling, POOLINGS)
        source, local = _locate(name, revision)  # before the slow imports, so that a missing model is told at once
        import torch
        from transformers import AutoConfig, AutoImageProcessor, CLIPVisionModelWithProjection
        from transformers.utils import logging

        from neural_clip.processing_neural_clip import check_image_processor

        self.device = usable_device(device)
        options: dict[str, Any] = (
            {} if local else {"revision": revision, "local_files_only": is_cached(name, revision)}
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
            pixels, edge = check_image_processor(self.processor), config.image_size
            if pixels[1:] != (edge, edge):
                raise ValueError(
                    f"its image processor makes pictures of {pixels[1]} x {pixels[2]} pixels, its tower takes "
                    f"{edge} x {edge}"
                )
        except DataError:
            raise
        except (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
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
            "pooling": pooling,
            "projection_dim": model.config.hidden_size if pooling == "cls" else model.config.projection_dim,
            "image_processor": _processor_settings(self.processor),
        }

    def encode(self, images: list) -> np.ndarray:
        """Embed images (`PIL.Image`); returns float32 `(len(images), projection_dim)`, not normalised."""
        import torch

        from neural_clip.modeling_image_tower import pooled_image

        with torch.inference_mode():
            pixels = self.processor(images=rgb_images(images), return_tensors="pt")["pixel_values"]
            output = self.model(pixel_values=pixels.to(self.device))
            return pooled_image(output, self.description["pooling"]).float().cpu().numpy()


class TargetEncoder:
    """One image encoder or several side by side, on images as they are or blurred.

    The embeddings of one encoder are not normalised. Those of several are L2-normalised one by one and then
    concatenated, so that the cosine of two images is the mean of their cosines in the single spaces.

    Args:
        models (sequence of `str`): As `name` of [`ImageEncoder`].
        poolings (sequence of `str`): One for all models, or one for each.
        revisions (sequence of `str` or `None`): One for all models, or one for each.
        device (`str`, *optional*): Where to run.
        blur (`float`, *optional*): Standard deviation of a Gaussian blur (`PIL.ImageFilter.GaussianBlur`) as a share
            of the image's shorter side, above 0 and up to 1; applied before the encoders' own preprocessing.

    Attributes:
        description (`dict`): That of the encoder, if it is one on images as they are. Otherwise `name` says
            everything, because a model's configuration keeps it; `revision` and `image_processor` are of all, and
            `pooling` is none that a tower has by itself, so that a model takes the embeddings as ready-made.
    """

    def __init__(
        self,
        models: Sequence[str],
        poolings: Sequence[str] = POOLINGS[:1],
        revisions: Sequence[str | None] = (None,),
        device: str | None = None,
        blur: float | None = None,
    ):
        check_value("blur", blur, blur is None or 0 < blur <= 1, "a share in (0, 1]")
        each = _each("pooling", poolings, models), _each("revision", revisions, models)
        self.blur = blur
        self.encoders = [
            ImageEncoder(model, revision, device, pooling)
            for model, pooling, revision in zip(models, *each, strict=True)
        ]
        self.device = self.encoders[0].device
        self.description = _joint_description([encoder.description for encoder in self.encoders], blur)

    def encode(self, images: list) -> np.ndarray:
        """Embed images (`PIL.Image` in RGB); returns float32 `(len(images), projection_dim)`."""
        from PIL import ImageFilter

        if self.blur is not None:
            images = [image.filter(ImageFilter.GaussianBlur(self.blur * min(image.size))) for image in images]
        parts = [encoder.encode(images) for encoder in self.encoders]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts], axis=1)


def _each(name: str, values: Sequence, models: Sequence[str]) -> list:
    """A value for each model, given one for all or one for each."""
    allowed = f"one for all models or one for each of {list(models)}"
    check_value(name, list(values), len(values) in (1, len(models)), allowed)
    return [*values] * (len(models) // len(values))


def _joint_description(parts: list[dict], blur: float | None) -> dict:
    """What [`TargetEncoder`] is, or a `DataError` where it has the same encoder twice."""
    if len(parts) == 1 and blur is None:
        return parts[0]
    blurred = "" if blur is None else f", images blurred with sigma {float(blur)} of the shorter side"
    names = [f"{part['name']} ({part['pooling']}{blurred})" for part in parts]
    spaces = [EncoderIdentity.of_facts(part) for part in parts]
    twice = [name for i, name in enumerate(names) if spaces[i] in spaces[:i]]
    if twice:
        raise DataError(f"Invalid value for the 'model' parameter. {twice[0]} is given twice.")
    processors = [part["image_processor"] for part in parts]
    return {
        "name": " + ".join(names),
        "revision": " + ".join(str(part["revision"]) for part in parts),
        "pooling": f"{parts[0]['pooling']}{blurred}" if len(parts) == 1 else "concatenated",
        "projection_dim": sum(part["projection_dim"] for part in parts),
        "image_processor": processors[0] if len(parts) == 1 else processors,
    }


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


def usable_device(device: str | None) -> torch.device:
    """A device by its name, by default the one that this machine has; a `DataError` where it cannot be used."""
    import torch

    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"Invalid value for the 'device' parameter: {name!r} cannot be used here: {reason}") from error


def _locate(name: str, revision: str | None) -> tuple[str, bool]:
    """Return what to load from, and whether it is a folder of this machine."""
    from neural_clip.targets.tiny_clip import TINY_CLIP_DIR

    path = TINY_CLIP_DIR if name == TINY_CLIP else Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise DataError(f"'{path}' is no model folder: it has no config.json.")
        if revision is not None:
            raise DataError(f"'revision' is for models of the Hub, but '{name}' is a folder.")
        return str(path), True
    if name == TINY_CLIP or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise DataError(f"There is no model folder '{path}'.")
    if not is_cached(name, revision):
        ask_hub(name, revision)
    return name, False
