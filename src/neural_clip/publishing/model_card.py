"""The model card of a checkpoint, written from its own records and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from neural_clip.files.whole import write_whole

RECORD_FILE = "training.json"
REPORT_FILE = "report.json"
TITLES = {"eeg": "EEG", "meg": "MEG", "fmri": "fMRI"}
TEXT = """# {title}

This checkpoint maps {modalities} recordings of subjects who look at images into the embedding space of a frozen image
encoder (`{encoder}`, {projection_dim} dimensions). It follows Ferrante et al. 2024
([arXiv:2411.09723](https://arxiv.org/abs/2411.09723)) and was made by `neural_clip`.
{warning}
## Use

```python
from neural_clip import NeuralClipModel, NeuralClipProcessor

model = NeuralClipModel.from_pretrained("{name}")
processor = NeuralClipProcessor.from_pretrained("{name}")
inputs = processor({modality}=recordings, subject="{subject}")
embeds = model.get_{modality}_features(**inputs)  # (batch_size, {projection_dim})
```

## Data

{data}

Each subject named above has an alignment layer. {others}

## Training

Best validation 2-way accuracy {best} at step {best_step} of {steps} ({epochs:g} epochs), seed {seed}. Every decision
was made on the validation split. `training.json` holds the recipe, the versions and the scores of each epoch.{frozen}

```
{command}
```
{adaptations}
## Test scores

{scores}

## Limits

Scores hold for the subjects, stimuli and preprocessing named here. The model retrieves images from a given gallery. A
2-way accuracy above one half is an average; it does not say that a single trial is decoded correctly.
"""


def describe_data(record: dict) -> str:
    """List the training data, one line a modality, simulated ones named so."""
    lines = []
    for modality, facts in record["data"].items():
        simulated = " (**simulated** twin)" if modality in record["simulated"] else ""
        counts = ", ".join(f"{split} {size['rows']} recordings" for split, size in facts["splits"].items())
        lines.append(
            f"- {TITLES[modality]}: {facts['corpus']}{simulated}, subjects {', '.join(facts['subjects'])}; {counts}; "
            f"split: {facts['split_protocol']}; fingerprint `{facts['fingerprint'][:16]}`."
        )
    return "\n".join(lines)


def describe_others(modalities: list[str]) -> str:
    """What to do with recordings of subjects without an alignment layer."""
    fitted = "`neural-clip adapt` fits one\nfor a new subject."
    if modalities == ["fmri"]:
        return f"{fitted} Recordings of subjects without a layer are refused."
    without = 'Without one, `subject="average"` applies the mean of all layers'
    return f"{fitted} {without}{' (not for fMRI)' if 'fmri' in modalities else ''}."


def describe_adaptations(record: dict) -> str:
    """Say who was added to a trained checkpoint, one paragraph a command."""
    paragraphs = []
    for entry in record.get("adaptations", []):
        people, facts, scores = ", ".join(entry["subjects"]), entry["data"], entry["validation_two_way"]
        simulated = " (**simulated**)" if facts["simulated"] else ""
        minutes = entry.get("minutes", {}).get("train")
        lasting = f", {sum(minutes.values()):.1f} minutes of trials," if minutes else ""
        paragraphs.append(
            f"{TITLES[entry['modality']]} alignment layers of {people} were added to `{entry['checkpoint']}` "
            f"(`{entry['weights'][:16]}`) and fitted to {entry['recordings']['train']} training recordings{lasting} "
            f"of {facts['corpus']}{simulated}, fingerprint `{facts['fingerprint'][:16]}`; nothing else changed. Their "
            f"validation 2-way accuracy was {scores[0]:.4f} at the start and is {scores[entry['best_epoch']]:.4f}, "
            f"after {entry['best_epoch']} of {len(scores) - 1} epochs.\n\n```\n{entry['command']}\n```\n"
        )
    return "\n## Adaptation\n\n" + "\n".join(paragraphs) if paragraphs else ""


def score_rows(report: dict) -> dict[str, dict]:
    """Return the single-trial decoding scores of the checkpoint in a report, by modality."""
    name = report["checkpoints"][0]["name"]
    return {
        modality: row
        for modality, table in report["decoding"].items()
        for row in table["rows"]
        if (row["method"], row["aggregation"]) == (name, "single trial")
    }


def describe_scores(report: dict | None, simulated: list[str]) -> str:
    """Table of decoding scores of an evaluation report."""
    if report is None:
        return "Not evaluated on test data yet; `neural-clip evaluate` fills this section."
    lines = [
        "| recordings to images | 2-way (95 % interval) | chance | gallery | top-1 | top-5 | data |",
        "|---" * 7 + "|",
    ]
    for modality, row in score_rows(report).items():
        low, high = row["two_way_interval"]
        lines.append(
            f"| {TITLES[modality]} | {row['two_way']:.4f} ({low:.4f} to {high:.4f}) | "
            f"{row['chance_two_way']:.2f} | {row['gallery_size']} images | {row['top1']:.4f} | {row['top5']:.4f} | "
            f"{'simulated' if modality in simulated else 'recorded'} |"
        )
    return "\n".join(lines)


def model_card(name: str, record: dict, report: dict | None = None) -> str:
    """Text of a model card.

    Args:
        name (`str`): Name of the checkpoint, as people load it.
        record (`dict`): Content of its `training.json`.
        report (`dict`, *optional*): Content of `report.json` as `neural-clip evaluate` wrote it.
    """
    from huggingface_hub import ModelCardData

    modalities = list(record["data"])
    simulated = record["simulated"]
    warning = ""
    if simulated:
        names = " and ".join(TITLES[modality] for modality in simulated)
        warning = f"\n**It was trained on simulated {names} data, not on recordings of real brains.**\n"
    frozen = ""
    if record["recipe"]["model"].get("freeze_alignment"):
        frozen = " The subjects'\nalignment layers were left as they were initialised; everything else was trained."
    text = TEXT.format(
        frozen=frozen,
        others=describe_others(modalities),
        adaptations=describe_adaptations(record),
        title=name,
        name=name,
        modalities=", ".join(TITLES[modality] for modality in modalities),
        modality=modalities[0],
        subject=record["data"][modalities[0]]["subjects"][0],
        encoder=record["image_encoder"]["name"],
        projection_dim=record["image_encoder"]["projection_dim"],
        warning=warning,
        data=describe_data(record),
        best=f"{record['best_validation_two_way']:.4f}",
        best_step=record["best_step"],
        steps=record["steps"],
        epochs=record["epochs"],
        seed=record["seed"],
        command=record["command"],
        scores=describe_scores(report, simulated),
    )
    data = ModelCardData(
        license="apache-2.0",
        library_name="neural_clip",
        pipeline_tag="feature-extraction",
        tags=["neural_clip", "clip", *modalities, *(["simulated"] if simulated else [])],
    )
    return f"---\n{data.to_yaml()}\n---\n\n{text}"


def write_model_card(folder: str | Path, report: dict | None = None) -> Path:
    """Write `README.md` of a checkpoint from its `training.json` and, where there is one, an evaluation report."""
    folder = Path(folder)
    record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    write_whole(folder / "README.md", model_card(folder.name, record, report))
    return folder / "README.md"


def publish(folder: str | Path, report: dict, target: str | Path) -> None:
    """Write a card as `target` and everything it was made from beside it, as JSON of the same name."""
    record = json.loads((Path(folder) / RECORD_FILE).read_text(encoding="utf-8"))
    scores = {modality: {"rows": [row]} for modality, row in score_rows(report).items()}
    source = {
        "name": Path(target).stem,
        "training": record,
        "report": {"checkpoints": report["checkpoints"][:1], "decoding": scores},
    }
    Path(target).with_suffix(".json").write_text(json.dumps(source, indent=1) + "\n", encoding="utf-8")
    Path(target).write_text(model_card(source["name"], record, source["report"]), encoding="utf-8")
