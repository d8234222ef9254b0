"""What was predicted of validation recordings by a model that had not learnt from them.

At the end of a training the closed form is fitted on training and validation recordings, so that the scores of the
finished checkpoint on the latter say nothing any more. What network and closed form made of them before that is kept
here, for whatever is calibrated on validation recordings. Without a validation split it is what cross-validation
predicted of each training recording.

The file lies in the folder of the checkpoint and stays on this machine: embeddings tell in part what was recorded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.errors import DataError, parse_json
from neural_clip.evaluation.baselines.closed_form import scores_of
from neural_clip.files.record import CHECKPOINT_ADVICE, PREDICTIONS_FILE, check_local_file
from neural_clip.prepared.reader import Split
from neural_clip.retrieval.tiles import unit_vectors

HALF_MAY_CHANGE = 1e-3  # by which half of the bits may change 2-way, top-1 and cross-entropy in nats
ARRAYS = ("embeds", "rows", "subject_ids", "image_rows")


@dataclass(frozen=True)
class ValidationPredictions:
    """What was predicted of recordings of one modality, in the order of the split.

    Args:
        modality (`str`): `"eeg"`, `"meg"` or `"fmri"`.
        split (`str`): `"validation"`, or `"train"` where each recording was held out once by cross-validation.
        fingerprint (`str`): Of the prepared data set.
        subjects (`list[str]`): Whose recordings they are.
        embeds (`np.ndarray` of shape `(n, projection_dim)`): Unit vectors in the space of the images, float16, or
            float32 where half of the bits change the scores.
        rows (`np.ndarray` of shape `(n,)`, int64): Of each recording among its subject's in the split.
        subject_ids (`np.ndarray` of shape `(n,)`, int64): Position of its subject in `subjects`.
        image_rows (`np.ndarray` of shape `(n,)`, int64): Position of its image among all of the data set.
    """

    modality: str
    split: str
    fingerprint: str
    subjects: list[str]
    embeds: np.ndarray
    rows: np.ndarray
    subject_ids: np.ndarray
    image_rows: np.ndarray

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in ARRAYS}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"Predictions have arrays of different lengths: {lengths}.")

    @classmethod
    def of(cls, part: Split, rows: np.ndarray, embeds: np.ndarray) -> ValidationPredictions:
        """Predictions of the recordings of a split.

        Args:
            part ([`Split`]): `n` recordings.
            rows (`np.ndarray` of shape `(n,)`, int): Of each among its subject's.
            embeds (`np.ndarray` of shape `(n, projection_dim)`): Of any length.
        """
        full = unit_vectors(embeds).astype(np.float32)
        half = full.astype(np.float16)
        scores = [scores_of(found.astype(np.float32), part) for found in (full, half)]
        same = all(abs(scores[0][name] - scores[1][name]) <= HALF_MAY_CHANGE for name in scores[0])
        subjects, subject_ids = np.unique(part.subjects, return_inverse=True)
        where = (part.modality, part.name, part.facts.fingerprint, subjects.tolist())
        return cls(*where, half if same else full, np.asarray(rows), subject_ids.ravel(), part.image_rows)


def write_predictions(folder: Path, predictions: Sequence[ValidationPredictions]) -> None:
    """Write predictions into the folder of a checkpoint that is being made; nothing where there are none."""
    from safetensors.numpy import save_file

    tensors: dict[str, np.ndarray] = {}
    stated = []
    for number, found in enumerate(predictions):
        entry = asdict(found)
        tensors |= {f"{number}.{name}": np.ascontiguousarray(entry.pop(name)) for name in ARRAYS}
        stated.append(entry)
    if tensors:
        about = {"made": "before the closed form was fitted on these recordings", "predictions": stated}
        # one key: the order of several differs from run to run
        save_file(tensors, folder / PREDICTIONS_FILE, {"validation_predictions": json.dumps(about)})


def validation_predictions(checkpoint: str | Path) -> list[ValidationPredictions]:
    """What a checkpoint folder holds of predictions of validation recordings.

    Args:
        checkpoint (`str` or `Path`): Folder of a checkpoint.

    Returns:
        `list[ValidationPredictions]`: One entry a modality, and one for each subject that the model was adapted to;
        none for a checkpoint of an earlier version or from the Hub, or that had neither validation recordings nor
        cross-validation.

    Raises:
        DataError: If the file is damaged, or not the one that the record of the checkpoint lists.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(checkpoint, PREDICTIONS_FILE)
    if not check_local_file(checkpoint, PREDICTIONS_FILE):
        return []
    try:
        with safe_open(path, framework="np") as file:
            about: Any = parse_json(file.metadata()["validation_predictions"], finite=False)
            return [
                ValidationPredictions(**entry, **{name: file.get_tensor(f"{number}.{name}") for name in ARRAYS})
                for number, entry in enumerate(about["predictions"])
            ]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"'{path}' is damaged: {error}. {CHECKPOINT_ADVICE}") from error
