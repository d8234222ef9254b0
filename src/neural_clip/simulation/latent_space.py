"""From images to the latent variables that drive simulated recordings.

The latents are principal components of the image embedding under the shipped tiny CLIP, so what a simulated brain
knows of an image is part of what the embedding knows, as decoding into CLIP space presumes.
"""

from __future__ import annotations

import hashlib
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np

from neural_clip.errors import DataError
from neural_clip.simulation import images as procedural
from neural_clip.simulation.presets import N_LATENTS
from neural_clip.targets import tiny_clip

BASIS_FILE = Path(__file__).parent / "latent_basis.npz"
# The basis is fitted on this many fixed renderings: 60 times the embedding's width, stable to a few per cent.
N_REFERENCE = 4000
_REFERENCE_SEED = 411
LATENT_GAIN = 1 / np.sqrt(1 + np.arange(N_LATENTS) / 6)
"""Weight of each latent in every response: later ones weigh less, as they do in the embedding itself."""
_BATCH = 250


def tiny_clip_sha256(folder: Path | None = None) -> str:
    """Fingerprint of the tiny CLIP that defines the latents.

    Args:
        folder (`Path`, *optional*, defaults to `targets.tiny_clip.TINY_CLIP_DIR`): Folder of the `CLIPModel`.

    Returns:
        `str`: SHA-256 of its `model.safetensors`, hexadecimal.

    Raises:
        DataError: If the folder holds no weights.
    """
    path = Path(folder or tiny_clip.TINY_CLIP_DIR) / "model.safetensors"
    if not path.is_file():
        raise DataError(f"The tiny CLIP has no weights: {path} does not exist.")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache(maxsize=1)
def _tiny_clip(folder: str):
    """The tiny CLIP and its image processor, on the CPU, float32, in evaluation mode."""
    from transformers import AutoImageProcessor, CLIPModel

    tiny_clip_sha256(Path(folder))  # a missing model raises here, before anything tries a download
    model = CLIPModel.from_pretrained(folder, local_files_only=True).float().eval()
    return model, AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")


def image_embeds(images) -> np.ndarray:
    """Embed images with the shipped tiny CLIP.

    Args:
        images (`np.ndarray` of shape `(n, height, width, 3)` or sequence of such images): RGB, uint8.

    Returns:
        `np.ndarray` of shape `(n, 64)`, float32: Projected image embeddings, L2-normalised.

    Raises:
        DataError: If the tiny CLIP is missing.
    """
    import torch

    model, processor = _tiny_clip(str(tiny_clip.TINY_CLIP_DIR))
    rows = []
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            pixels = processor(images=list(images[start : start + _BATCH]), return_tensors="pt")["pixel_values"]
            features = model.get_image_features(pixel_values=pixels)
            features = getattr(features, "pooler_output", features)  # transformers 5 wraps the projection in an output
            rows.append(torch.nn.functional.normalize(features, dim=-1).numpy())
    width = model.config.projection_dim
    return np.concatenate(rows).astype(np.float32) if rows else np.zeros((0, width), np.float32)


def check_latents(z: np.ndarray) -> np.ndarray:
    """Latents as float64 `(n, 24)`.

    Raises:
        DataError: If the shape is another or a value is not finite.
    """
    z = np.asarray(z, np.float64)
    if z.ndim != 2 or z.shape[1] != N_LATENTS:
        raise DataError(
            f"Invalid shape of the 'latents' parameter. Allowed is (n, {N_LATENTS}), but got {z.shape} instead."
        )
    if not np.isfinite(z).all():
        raise DataError("Invalid value for the 'latents' parameter. Only finite numbers are allowed.")
    return z


def reference_embeds() -> np.ndarray:
    """Embeddings of the fixed 4,000 renderings that define the latents, `(4000, 64)` float32."""
    specs = procedural.sample_specs(N_REFERENCE, np.random.default_rng(_REFERENCE_SEED))
    return image_embeds(np.stack([procedural.render(spec) for spec in specs]))


def basis_from_embeds(embeds: np.ndarray) -> dict[str, np.ndarray]:
    """Principal components of embeddings.

    Args:
        embeds (`np.ndarray` of shape `(n, dim)`): Reference embeddings.

    Returns:
        `dict`: `mean` `(dim,)`, `components` `(24, dim)` with the entry of largest size positive (a sign that does not
        depend on the solver), and `scale` `(24,)`, the standard deviation along each component.
    """
    embeds = np.asarray(embeds, np.float64)
    mean = embeds.mean(0)
    values, vectors = np.linalg.eigh((embeds - mean).T @ (embeds - mean) / (len(embeds) - 1))
    components = vectors[:, ::-1][:, :N_LATENTS].T
    largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], axis=1)
    return {"mean": mean, "components": components * np.sign(largest), "scale": np.sqrt(values[::-1][:N_LATENTS])}


@lru_cache(maxsize=1)
def _basis(sha256: str) -> dict[str, np.ndarray]:
    """The stored basis when it was made with this tiny CLIP, else a fresh one."""
    if BASIS_FILE.is_file():
        with np.load(BASIS_FILE, allow_pickle=False) as stored:
            if str(stored["tiny_clip_sha256"]) == sha256:
                return {name: stored[name] for name in ("mean", "components", "scale")}
    warnings.warn(
        f"{BASIS_FILE.name} was not made with the tiny CLIP in {tiny_clip.TINY_CLIP_DIR}; fitting the latents anew. "
        "Run scripts/calibrate_twins.py.",
        stacklevel=3,
    )
    return basis_from_embeds(reference_embeds())


def latents(embeds: np.ndarray) -> np.ndarray:
    """Latent variables of images.

    Args:
        embeds (`np.ndarray` of shape `(n, 64)`): Embeddings from [`image_embeds`].

    Returns:
        `np.ndarray` of shape `(n, 24)`, float64: Principal component scores, unit variance over random renderings.

    Raises:
        DataError: If the width differs from the embedding of the tiny CLIP, or a value is not finite.
    """
    basis = _basis(tiny_clip_sha256())
    embeds = np.asarray(embeds, np.float64)
    if embeds.ndim != 2 or embeds.shape[1] != len(basis["mean"]):
        raise DataError(
            f"Invalid shape of the 'embeds' parameter. Allowed is (n, {len(basis['mean'])}), but got "
            f"{embeds.shape} instead."
        )
    if not np.isfinite(embeds).all():
        raise DataError("Invalid value for the 'embeds' parameter. Only finite numbers are allowed.")
    return (embeds - basis["mean"]) @ basis["components"].T / basis["scale"]
