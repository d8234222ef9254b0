"""Make the sample that ships with the package: SIMULATED recordings, their images, and a small checkpoint.

    python scripts/make_sample.py --work-dir runs/sample

Simulates one subject of each corpus, prepares the recordings, embeds the images with the tiny CLIP and trains one
joint model in `runs/sample` (a quarter of an hour on two cores, 1 GB of disk; what is whole there is kept). Then it
writes `src/neural_clip/sample/eeg`, `meg`, `fmri` and `checkpoint` anew: a few rows of each data set, and of the
checkpoint what is needed where this package is installed.
On one machine the same bytes come out; another processor rounds differently and ends with other weights.
"""

from __future__ import annotations

import argparse
import json
import pkgutil
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.errors import DataError, run
from neural_clip.files.record import RECORD_FILE, check_record, record_files, sealed
from neural_clip.files.whole import whole_folder, write_whole
from neural_clip.prepared.facts import METADATA_FILE, Facts
from neural_clip.prepared.image_rows import stored_pictures
from neural_clip.prepared.known_corpora import CORPUS_OF
from neural_clip.prepared.reader import PreparedSet, Split
from neural_clip.prepared.writer import write_prepared
from neural_clip.publishing.model_card import configurations, model_card
from neural_clip.sample import CHECKPOINT, FOLDERS
from neural_clip.simulation.presets import TwinPreset, get_preset
from neural_clip.simulation.simulate import simulate
from neural_clip.targets.embed_images import embed_images
from neural_clip.targets.tiny_clip import TINY_CLIP
from neural_clip.training.recipe import Recipe

ROWS = {"train": 4, "validation": 2, "test": 40}  # a data set must have rows to train on; the test rows are shown
MAX_BYTES = 10_000_000
# A twin repeats what holds for its corpus; in the sample there is nothing of anybody else.
TERMS: dict[str, Any] = {
    "licence": "Apache-2.0", "redistribution": "allowed", "declared": None, "known_defects": [],
    "terms": "Simulated recordings and images; no subject was recorded.",
    "source": "simulated by scripts/make_sample.py of neural_clip",
    "citation": "neural_clip, CITATION.cff",
}  # fmt: skip
# As the recipe `demo`, with one network a modality, without the fine windows and readouts that fill half a checkpoint.
MODEL = {
    "eeg": {
        "encoder_type": "temporal_spatial", "time_shift": 0.01, "decimation": 4, "num_networks": 1, "hidden_size": 48,
        "temporal_kernel_size": 11, "n_windows": 11, "dropout": 0.5,
    },
    "meg": {
        "encoder_type": "temporal_spatial", "crop_tmin": 0.0, "time_shift": 0.008, "alignment_kernel_size": 1,
        "num_networks": 1, "hidden_size": 48, "temporal_kernel_size": 9, "n_windows": 20, "dropout": 0.5,
    },
    "fmri": {
        "alignment_size": 128, "num_networks": 1, "hidden_size": 128, "num_hidden_layers": 1, "linear_path": True,
        "dropout": 0.5,
    },
}  # fmt: skip
TRAINING = {
    "num_train_epochs": 12, "per_device_train_batch_size": 128, "learning_rate": 5e-3, "lr_scheduler_type": "cosine",
    "warmup_steps": 0.03, "weight_decay": 0.1, "seed": 0, "disable_tqdm": True,
}  # fmt: skip

# In place of what the card of other checkpoints says: the code is not beside this one.
USE = """## Use

It ships with `neural_clip`, whose code loads it:

```python
from neural_clip import NeuralClipModel, NeuralClipProcessor, load_sample

sample = load_sample("eeg")  # also "meg" and "fmri"
model = NeuralClipModel.from_pretrained(sample.checkpoint)
processor = NeuralClipProcessor.from_pretrained(sample.checkpoint)
inputs = processor(eeg=sample.recordings[:6])
embeds = model.get_eeg_features(**inputs)  # (6, 64)
```
"""


def preset() -> TwinPreset:
    """One subject a modality, with more trials than each has in the demo: no other subject's help to learn."""
    demo = get_preset("demo")
    return TwinPreset(
        name="sample",
        eeg=replace(demo.eeg, subjects=(1,), images_per_class=40, n_missing_trials=0),
        meg=replace(demo.meg, subjects=(1,), n_sessions=8, n_catch_per_session=0),
        fmri=replace(
            demo.fmri, subjects=(1,), n_unshared=1200, n_sessions=8, grid_shapes=demo.fmri.grid_shapes[3:],
            n_voxels=demo.fmri.n_voxels[3:],
        ),
    )  # fmt: skip


def prepared(modality: str, work: Path) -> Path:
    """The whole data set of a modality, with embeddings; kept where it is there."""
    corpus = CORPUS_OF[modality]
    folder = work / "data" / corpus.name
    raw = simulate(work / "raw", preset(), corpora=(modality,))[modality]
    if not (folder / METADATA_FILE).is_file():
        pkgutil.resolve_name(corpus.prepare)(raw, folder)
    if not Facts.read(folder).image_encoder:
        embed_images(folder, [TINY_CLIP])
    return folder


def trained(data: dict[str, Path], folder: Path) -> Path:
    """The checkpoint of one joint model; kept where it is there."""
    from neural_clip.training.run import train

    if (folder / RECORD_FILE).is_file():
        return folder
    named: dict[str, str | list[str]] = {modality: str(place) for modality, place in data.items()}
    train(Recipe(named, MODEL, TRAINING | {"output_dir": str(folder)}, min_steps=200, closed_form=True))
    return folder


def chosen(part: Split) -> np.ndarray:
    """Rows that ship, in the order of the data: of as many concepts as there are, then of as many images."""
    concepts = np.array(part.gallery_concepts)[part.columns]
    rows = [np.unique(labels, return_index=True)[1] for labels in (concepts, part.image_ids)]
    in_order = dict.fromkeys([*np.sort(rows[0]).tolist(), *np.sort(rows[1]).tolist()])
    return np.array(sorted(list(in_order)[: ROWS[part.name]]))


def recordings(part: Split) -> Iterator[dict]:
    """Rows of a split as `write_prepared` takes them, with the precision of float16: half of what a wheel holds."""
    for row, values in zip(part.recordings, part.values(), strict=True):
        yield row | {part.modality: values.astype(np.float16), "split": part.name}


def images(data: PreparedSet, image_ids: Sequence[str]) -> Iterator[dict]:
    """Images of these names as `write_prepared` takes them."""
    stored = data.stored_images
    rows = [row for row, name in enumerate(stored["image_id"][:]) if name in set(image_ids)]
    for row, picture in zip(rows, stored_pictures(stored, rows, data.folder), strict=True):
        yield stored.remove_columns("image")[row] | {
            "image": picture,
            "image_embeds": np.asarray(stored[row]["image_embeds"], np.float32),
        }


def cut(whole: Path, folder: Path) -> None:
    """Write a data set of a few rows of another one."""
    data = PreparedSet.open(whole)
    splits = [data.split(name) for name in ROWS]
    parts = [part.at(chosen(part)) for part in splits]
    shown = sorted({name for part in parts for name in part.image_ids.tolist()})
    counts = zip(splits, parts, strict=True)
    partial = {f"{part.name} rows": {"found": len(few), "declared": len(part)} for part, few in counts}
    found = dict.fromkeys(("files", "splits", "subject_splits", "fingerprint")) | {"findings": []}
    facts = data.facts.as_dict() | TERMS | found | {"partial": partial, "places_space": None}
    rows = (row for part in parts for row in recordings(part))
    write_prepared(folder, facts, rows, images(data, shown), voxels=data.statistics)


def copy_checkpoint(whole: Path, folder: Path) -> None:
    """Copy a checkpoint on the sample's terms, without the code beside it, which this package has."""
    terms = {name: TERMS[name] for name in ("licence", "redistribution", "terms")}
    record = check_record(whole) or {}
    record = {name: value for name, value in record.items() if name != "local_files"}
    record["data"] = {modality: part | terms for modality, part in record["data"].items()}
    with whole_folder(folder, holds=RECORD_FILE, what="checkpoint", overwrite=True) as aside:
        names = [name for name in record["files"] if not name.endswith(".py")]
        for name in names:
            shutil.copyfile(whole / name, aside / name)
        for name in ("config.json", "processor_config.json"):
            settings = json.loads((aside / name).read_text(encoding="utf-8"))
            settings.pop("auto_map", None)
            for entry in learnt_from(settings):
                entry.update(terms)
            (aside / name).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        record["files"] = record_files(aside, names)
        write_whole(aside / RECORD_FILE, json.dumps(sealed(record), indent=2) + "\n")
        card = model_card(CHECKPOINT.name, record, None, *configurations(aside))
        start, rest = card[: card.index("## Use\n")], card[card.index("## Recordings\n") :]
        write_whole(aside / "README.md", f"{start}{USE}\n{rest}")


def learnt_from(settings: dict) -> Iterator[dict]:
    """What a configuration says of the data that were learnt from, wherever it does."""
    for name, value in settings.items():
        if name == "trained_on":
            yield from chain.from_iterable(value.values()) if isinstance(value, dict) else value
        elif isinstance(value, dict):
            yield from learnt_from(value)


def main(argv: Sequence[str] | None = None) -> None:
    """Make everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, default=Path("runs/sample"), help="folder of what is made on the way")
    work = parser.parse_args(argv).work_dir
    data = {modality: prepared(modality, work) for modality in FOLDERS}
    checkpoint = trained(data, work / "checkpoint")
    for modality, folder in FOLDERS.items():
        shutil.rmtree(folder, ignore_errors=True)
        cut(data[modality], folder)
    copy_checkpoint(checkpoint, CHECKPOINT)
    places = [CHECKPOINT, *FOLDERS.values()]
    size = sum(path.stat().st_size for place in places for path in place.rglob("*") if path.is_file())
    if size > MAX_BYTES:
        raise DataError(f"The sample takes {size:,} bytes, more than the {MAX_BYTES:,} that may ship.")
    print(f"sample: {CHECKPOINT.parent} ({size:,} bytes)")


if __name__ == "__main__":
    run(main)
