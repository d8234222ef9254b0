"""The model card of a checkpoint, written from its own records and nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from neural_clip.checkpoint_card import (
    MARK,
    branches_of,
    card_data,
    people_section,
    recordings_section,
    titles,
    use_section,
)
from neural_clip.errors import DataError
from neural_clip.files.reading import read_json
from neural_clip.files.record import RECORD_FILE, read_record
from neural_clip.files.whole import write_whole
from neural_clip.markup import code, code_block, markdown, one_line, python_text
from neural_clip.prepared.modalities import MODALITIES, kind_of
from neural_clip.publishing.terms import data_carried_over
from neural_clip.terms import TRAINED_ON

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

METRICS = {"two_way": "2-way accuracy", "top1": "top-1", "top5": "top-5"}
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


def model_card(
    name: str, record: dict, report: dict | None = None, config: dict | None = None, processor: dict | None = None
) -> str:
    """Text of a model card.

    Args:
        name (`str`): Name of the checkpoint, as users load it.
        record (`dict`): Content of its `training.json`.
        report (`dict`, *optional*): Content of `report.json` as `neural-clip evaluate` wrote it.
        config, processor (`dict`, *optional*): Content of its `config.json` and `processor_config.json`.
    """
    from huggingface_hub import ModelCard

    shapes = branches_of(config, processor)
    branches = _branches(record, shapes)
    data = card_data(branches)
    if report is not None:
        data.model_name, data.eval_results = name, eval_results(report, record)
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        mark=MARK,
        name=name,
        record=record,
        scores=None if report is None else score_rows(report),
        several=list(dict.fromkeys(kind_of(key) for key in record["data"] if key not in MODALITIES)),
        sensors=[name for name in record["data"] if name in MODALITIES and MODALITIES[name].sensors],
        use=use_section(name, branches, {"projection_dim": record["image_encoder"]["projection_dim"]}),
        recordings=recordings_section(shapes) if shapes else None,
        people=people_section(branches),
        titles=titles,
        markdown=markdown,
        code=code,
        code_block=code_block,
    )
    return card.content + "\n"


def _branches(record: dict, shapes: dict[str, dict]) -> dict[str, dict]:
    """What [`branches_of`] tells, with the data sets that the record names."""
    found = {}
    for modality in dict.fromkeys(map(kind_of, record["data"])):
        sets = {key: facts for key, facts in record["data"].items() if kind_of(key) == modality}
        adapted = [entry for entry in record.get("adaptations", []) if entry["modality"] == modality]
        listed = [facts | {"simulated": key in record["simulated"]} for key, facts in sets.items()]
        listed += [each for entry in adapted for each in (*data_carried_over(entry), entry["data"])]
        learnt = list({str([each.get(name) for name in TRAINED_ON]): each for each in listed}.values())
        subjects = [name for facts in sets.values() for name in facts["subjects"]]
        found[modality] = {"subjects": subjects, **shapes.get(modality, {}), "trained_on": learnt}
    return found


def eval_results(report: dict, record: dict) -> list[EvalResult]:
    """Scores of single recordings as the front matter of a card has them (`model-index`)."""
    from huggingface_hub import EvalResult

    found = []
    for modality, row in score_rows(report).items():
        corpus = (report.get("data") or record["data"])[modality]["corpus"]
        simulated = " (simulated)" if modality in report.get("simulated_modalities", record["simulated"]) else ""
        for metric, title in METRICS.items():
            found.append(
                EvalResult(
                    task_type="image-retrieval",
                    dataset_type=one_line(corpus),
                    dataset_name=f"{one_line(corpus)}, {MODALITIES[kind_of(modality)].title}{simulated}",
                    dataset_split=report.get("split"),
                    metric_type=metric,
                    metric_name=f"{title}, single recordings among {row['gallery_size']} images",
                    metric_value=row[metric],
                )
            )
    return found


def eval_entries(report: dict) -> list[dict]:
    """The same as `.eval_results/*.yaml` has them, of data sets that lie on the Hub."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries = []
    for modality, row in score_rows(report).items():
        place = report["data"][modality].get("repository")
        if place:
            notes = f"{MODALITIES[kind_of(modality)].title}, single recordings among {row['gallery_size']} images"
            entries += [
                EvalResultEntry(
                    dataset_id=place["name"], dataset_revision=place["revision"], task_id=metric, value=row[metric],
                    notes=notes,
                )
                for metric in METRICS
            ]  # fmt: skip
    return eval_result_entries_to_yaml(entries)


def write_model_card(folder: str | Path, report: dict | None = None) -> Path:
    """Write `README.md` of a checkpoint from its `training.json` and, where there is one, an evaluation report.

    Raises:
        DataError: If there is no record, or it is damaged.
    """
    folder = Path(folder)
    record = read_record(folder)
    if record is None:
        raise DataError(f"'{folder}' has no {RECORD_FILE}, from which the card of a checkpoint is written.")
    write_whole(folder / "README.md", model_card(folder.name, record, report, *configurations(folder)))
    return folder / "README.md"


def renamed(text: str, repo: str) -> str:
    """A card with the name of a repository where it names the folder that it was written for."""
    found = re.search(r'from_pretrained\(("(?:[^"\\]|\\.)*")', text)
    name = ast.literal_eval(found[1]) if found else ""
    text = text.replace(f"from_pretrained({found[1]}" if found else "\0", f"from_pretrained({python_text(repo)}")
    text = text.replace(f"\nmodel-index:\n- name: {name}\n", f"\nmodel-index:\n- name: {repo}\n", 1)
    return text.replace(f"\n# {markdown(name)}\n", f"\n# {markdown(repo)}\n", 1) if name else text


def configurations(folder: Path) -> list[dict | None]:
    """Content of `config.json` and `processor_config.json` of a checkpoint; `None` where there is none."""
    paths = [folder / name for name in ("config.json", "processor_config.json")]
    return [read_json(path) if path.is_file() else None for path in paths]
