"""Checkpoint folders: read whole, written whole."""

from __future__ import annotations

import json
from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.files.record import RECORD_FILE
from neural_clip.files.whole import write_whole
from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.processing_neural_clip import NeuralClipProcessor
from neural_clip.publishing.model_card import model_card


def read_checkpoint(folder: str | Path) -> tuple[NeuralClipModel, NeuralClipProcessor, dict]:
    """Model, processor and record of a checkpoint folder, or a `DataError`."""
    for name in ("config.json", RECORD_FILE):
        if not Path(folder, name).is_file():
            raise DataError(
                f"'{folder}' is no checkpoint folder of `neural-clip train`: it has no {name}. One of the Hub is "
                "brought here by `hf download NAME --local-dir FOLDER`."
            )
    try:
        model = NeuralClipModel.from_pretrained(str(folder))
        processor = NeuralClipProcessor.from_pretrained(str(folder))
        return model, processor, json.loads(Path(folder, RECORD_FILE).read_text(encoding="utf-8"))
    except (ImportError, OSError, ValueError) as error:
        raise DataError(f"'{folder}' is no readable checkpoint of a NeuralClipModel: {error}") from error


def write_checkpoint(
    folder: Path, name: str, model: NeuralClipModel, processor: NeuralClipProcessor, record: dict
) -> None:
    """Write model, processor, record and card into a folder that will be called `name`."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_whole(folder / RECORD_FILE, json.dumps(record, indent=2) + "\n")
    write_whole(folder / "README.md", model_card(name, record))
