"""The model card of a checkpoint, written from its own records and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.files.record import RECORD_FILE, read_record
from neural_clip.files.whole import write_whole
from neural_clip.markup import code, code_block, markdown, python_text
from neural_clip.prepared.modalities import MODALITIES

TEMPLATE = Path(__file__).with_name("model_card.md")


def score_rows(report: dict) -> dict[str, dict]:
    """Return the single-trial decoding scores of the checkpoint in a report, by modality."""
    name = report["checkpoints"][0]["name"]
    return {
        modality: row
        for modality, table in report["decoding"].items()
        for row in table["rows"]
        if (row["method"], row["aggregation"]) == (name, "single trial")
    }


def model_card(name: str, record: dict, report: dict | None = None) -> str:
    """Text of a model card.

    Args:
        name (`str`): Name of the checkpoint, as users load it.
        record (`dict`): Content of its `training.json`.
        report (`dict`, *optional*): Content of `report.json` as `neural-clip evaluate` wrote it.
    """
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(
        license="apache-2.0",
        library_name="neural_clip",
        pipeline_tag="feature-extraction",
        tags=["neural_clip", "clip", *record["data"], *(["simulated"] if record["simulated"] else [])],
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        record=record,
        scores=None if report is None else score_rows(report),
        sensors=[modality for modality in record["data"] if MODALITIES[modality].sensors],
        titles=_titles,
        markdown=markdown,
        code=code,
        code_block=code_block,
        python_text=python_text,
    )
    return card.content + "\n"


def _titles(modalities: Iterable[str]) -> str:
    """Modalities as a sentence names them: `"EEG, MEG and fMRI"`."""
    *first, last = (MODALITIES[modality].title for modality in modalities)
    return " and ".join([", ".join(first), last] if first else [last])


def write_model_card(folder: str | Path, report: dict | None = None) -> Path:
    """Write `README.md` of a checkpoint from its `training.json` and, where there is one, an evaluation report.

    Raises:
        DataError: If there is no record, or it is damaged.
    """
    folder = Path(folder)
    record = read_record(folder)
    if record is None:
        raise DataError(f"'{folder}' has no {RECORD_FILE}, from which the card of a checkpoint is written.")
    write_whole(folder / "README.md", model_card(folder.name, record, report))
    return folder / "README.md"
