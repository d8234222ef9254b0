"""What a checkpoint learned: similarity of spaces, maps of samples, sensors and voxels, and the shared space.

Written beside one another, each picture as PNG and SVG with its numbers as CSV, and all of it in `understanding.json`:

* `similarity`: for each modality, do the encoder's space, the image encoder's and the raw recordings find the same
  images alike, and how far could any space agree with the subjects' (noise ceiling)? (`rsa.py`)
* `<modality>_time_course`, `<modality>_sensors`: what the score loses without a window of time or a sensor
  (`maps.py`, `sensors.py`).
* `<modality>_<subject>_voxels` and `<subject>_importance.nii.gz`: what each voxel adds to the score. The image is
  written where the data set holds `masks/<subject>.nii.gz`, whose voxels in C order are the columns.
* `latent_space`: images and recordings in the plane in which the images vary most.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.errors import DataError, check_value
from neural_clip.evaluation.understanding.attribution import require_captum
from neural_clip.evaluation.understanding.latent_space import write_latent_space
from neural_clip.evaluation.understanding.maps import sensor_maps, voxel_maps
from neural_clip.evaluation.understanding.recordings import Analysis, check_embedded
from neural_clip.evaluation.understanding.rsa import DISTANCE
from neural_clip.evaluation.understanding.similarity import across_modalities, modality_similarity, write_similarity
from neural_clip.files.whole import write_whole
from neural_clip.gallery.embedding import EmbeddedSplit
from neural_clip.prepared.modalities import MODALITIES

if TYPE_CHECKING:
    from neural_clip.modeling_neural_clip import NeuralClipModel


UNDERSTANDING_FILE = "understanding.json"
FORMAT_VERSION = 1


def understand(
    model: NeuralClipModel,
    splits: dict[str, EmbeddedSplit],
    output_dir: str | Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    batch_size: int = 256,
    max_recordings: int = 64,
    progress: bool = True,
) -> dict:
    """Analyse what a model learned of each modality, and write pictures and numbers.

    Args:
        model ([`NeuralClipModel`]): In `eval()` mode.
        splits (`dict[str, EmbeddedSplit]`): For each modality, what [`embed_split`] made by this model.
        output_dir (`str` or `Path`): Made if missing; files of the same names are replaced.
        seed (`int`, defaults to 0): Of the choice of recordings and images, of resampling and shuffling.
        device (`str`, defaults to `"cpu"`): Where the model computes.
        batch_size (`int`, defaults to 256): Recordings a forward pass, occluded copies included.
        max_recordings (`int`, defaults to 64): That are mapped: of EEG and MEG over all subjects, of
            fMRI of each subject.
        progress (`bool`, defaults to `True`): Show a bar on stderr.

    Returns:
        `dict`: What `understanding.json` holds; `pictures` maps titles to files in `output_dir`. The same input gives
            the same bytes on one machine with one number of threads; another number of threads changes the last bits
            of what the model computes in float32, and with them correlations by about 0.00001.

    Raises:
        DataError: If captum is not installed, a parameter is out of range, embeddings do not fit their split,
            a value is not finite, or a mask does not fit.
    """
    captum_version = require_captum()
    _check(splits, max_recordings=max_recordings, batch_size=batch_size)
    import torch

    Path(output_dir).mkdir(parents=True, exist_ok=True)
    model = model.eval().to(torch.device(device))
    split = next(iter(splits.values())).name
    run = Analysis(model, Path(output_dir), split, seed, device, batch_size, max_recordings, progress, {})
    similarity, maps = {}, {}
    for modality, part in splits.items():
        similarity[modality] = modality_similarity(part, run)
        maps[modality] = sensor_maps(part, run) if MODALITIES[modality].sensors else voxel_maps(part, run)
    write_similarity(similarity, splits, run)
    result = _rounded({
        "format_version": FORMAT_VERSION,
        "simulated_modalities": [name for name, part in splits.items() if part.facts.simulated],
        "split": split,
        "seed": seed,
        "max_recordings": max_recordings,
        "captum": captum_version,
        "similarity": {
            "distance": DISTANCE,
            "correlation": "Spearman, upper triangles",
            "modalities": similarity,
            "across_modalities": across_modalities(splits, seed),
        },
        "maps": maps,
        "latent_space": write_latent_space(splits, run),
        "pictures": run.pictures,
    })  # fmt: skip
    text = json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_whole(run.output_dir / UNDERSTANDING_FILE, text.encode())
    return result


def _check(splits: dict[str, EmbeddedSplit], **counts: int) -> None:
    """Raise a `DataError` where there is nothing to analyse, or what is given does not fit together."""
    check_value("splits", list(splits), bool(splits), "one modality or more")
    for name, value in counts.items():
        check_value(name, value, value >= 1, "1 and more")
    for part in splits.values():
        check_embedded(part)
    widths = {modality: part.gallery_embeds.shape[1] for modality, part in splits.items()}
    if len(set(widths.values())) > 1:
        raise DataError(f"The image embeddings of the data sets differ in width: {widths}.")
    if len({part.name for part in splits.values()}) > 1:
        raise DataError(f"The splits differ: { ({modality: part.name for modality, part in splits.items()}) }.")


def _rounded(value: Any) -> Any:
    """Numbers with six significant digits, so that rounding of the last bits does not show."""
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}")
    return int(value) if isinstance(value, np.integer) else value
