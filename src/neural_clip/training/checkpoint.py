"""Checkpoint folders: read whole, written whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from neural_clip.errors import DataError
from neural_clip.files.record import LOCAL_FILES, RECORD_FILE, read_record, record_files, sealed
from neural_clip.files.whole import write_whole
from neural_clip.gallery.embedder import load_model
from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.processing_neural_clip import NeuralClipProcessor
from neural_clip.publishing.model_card import configurations, model_card


def read_checkpoint(folder: str | Path) -> tuple[NeuralClipModel, NeuralClipProcessor, dict]:
    """Model, processor and record of a checkpoint folder, or a `DataError`."""
    for name in ("config.json", RECORD_FILE):
        if not Path(folder, name).is_file():
            raise DataError(
                f"'{folder}' is no checkpoint folder of `neural-clip train`: it has no {name}. One of the Hub is "
                "brought here by `hf download NAME --local-dir FOLDER`."
            )
    model = load_model(folder)
    try:
        return model, NeuralClipProcessor.from_pretrained(str(folder)), read_record(folder) or {}
    except (OSError, ValueError) as error:
        raise DataError(f"'{folder}' is no readable checkpoint with its processor: {error}") from error


def write_checkpoint(
    folder: Path, name: str, model: NeuralClipModel, processor: NeuralClipProcessor, record: dict[str, Any]
) -> None:
    """Write model, processor, record and card into a folder that will be called `name` and holds no other files
    but those of `LOCAL_FILES`.

    Raises:
        DataError: If a weight is not finite.
    """
    check_weights(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    names = {path.name for path in folder.iterdir() if path.is_file()}
    listed = {"files": names.difference(LOCAL_FILES), "local_files": names.intersection(LOCAL_FILES)}
    record = record | {what: record_files(folder, those) for what, those in listed.items()}
    write_whole(folder / RECORD_FILE, json.dumps(sealed(record), indent=2) + "\n")
    write_whole(folder / "README.md", model_card(name, record, None, *configurations(folder)))


def check_weights(model: torch.nn.Module) -> None:
    """Raise a `DataError` where a weight is NaN or infinite."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise DataError(
                f"Training diverged: the weights of '{name}' hold NaN or infinity, so they are not saved. Try a "
                "smaller learning rate."
            )
