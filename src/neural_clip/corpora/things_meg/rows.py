"""From trials and a reader of THINGS-MEG epochs to the parts of a prepared data set."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.corpora.repeats import mean_of_repeats
from neural_clip.corpora.things_meg.reader import Reader
from neural_clip.errors import DataError
from neural_clip.preparation import Statistics
from neural_clip.prepared.parts import Part

if TYPE_CHECKING:
    import pandas as pd


def recording_parts(
    reader: Reader, trials: pd.DataFrame, tables: Sequence[Path], *, train_std: bool, average: bool, workspace: Path
) -> list[Part]:
    """Parts of recordings: by session, or by subject where something is computed across sessions.

    Args:
        reader (`Reader`): Of the epochs.
        trials (`pandas.DataFrame`): All trials, with `split`, `image_id` and `concept`.
        tables (`Sequence[Path]`): Further files on which all rows depend.
        train_std (`bool`): Divide by the root mean square of the subject's training epochs, by channel.
        average (`bool`): One row per image.
        workspace (`Path`): Folder for a temporary file as large as the subject's epochs, if `train_std`.
    """
    parts = []
    for key, own in trials.groupby(["subject"] if train_std or average else ["subject", "session"]):
        used = own[own.split != ""]
        if used.empty:
            continue
        names = [f"{name}-{number:02d}" for name, number in zip(("sub", "ses"), key, strict=False)]
        rows = partial(part_rows, reader, own, train_std=train_std, average=average, workspace=workspace)
        n_rows = int(used.image_id.nunique()) if average else len(used)
        parts.append(Part("_".join(names), rows, (*reader.files(own), *tables), n_rows))
    return parts


def trials_digest(trials: pd.DataFrame) -> str:
    """SHA-256 over subject, session, run, number, image and split of the trials, so that a choice can be compared."""
    columns = ["subject", "session", "run", "trial", "image_id", "split"]
    return hashlib.sha256(trials[columns].to_csv(index=False, lineterminator="\n").encode()).hexdigest()


def part_rows(
    reader: Reader, trials: pd.DataFrame, *, train_std: bool, average: bool, workspace: Path
) -> Iterable[dict | Statistics]:
    """Rows of a part; see [`recording_parts`]."""
    used = trials[trials.split != ""]
    presented = _presentations(reader, trials)
    rows: Iterator = _scaled(presented, len(used), workspace) if train_std else presented
    return mean_of_repeats(rows, "meg", used.image_id.value_counts().to_dict(), np.float64) if average else rows


def _presentations(reader: Reader, trials: pd.DataFrame) -> Iterator[dict]:
    """Recording rows, one presentation each."""
    facts = trials.to_dict("index")
    for label, epoch in reader.epochs(trials):
        trial = facts[label]
        yield {
            "subject": f"sub-{trial['subject']:02d}", "session": f"ses-{trial['session']:02d}",
            "run": f"run-{trial['run']:02d}", "trial": trial["trial"], "image_id": trial["image_id"],
            "concept": trial["concept"], "n_repeats": 1, "split": trial["split"], "meg": epoch,
        }  # fmt: skip


def _scaled(rows: Iterator[dict], n_rows: int, workspace: Path) -> Iterator[dict | Statistics]:
    """Divide by the root mean square of the training epochs, by channel; epochs wait in a nameless file meanwhile."""
    with tempfile.TemporaryFile(dir=workspace) as file:
        store = None
        facts, power = [], []
        for number, row in enumerate(rows):
            epoch = row.pop("meg")
            if store is None:
                store = np.memmap(file, np.float32, "w+", shape=(n_rows, *epoch.shape))
            store[number] = epoch
            facts.append(row)
            if row["split"] == "train":
                power.append(np.square(epoch, dtype=np.float64).mean(axis=1))  # the baseline mean is the zero
        if store is None or not power:
            raise DataError("There are no training epochs to fit 'train_std' on; choose another scaling.")
        scale = np.sqrt(np.mean(power, axis=0)).astype(np.float32)[:, None]  # (n_chans, 1)
        if not (scale > 0).all():
            raise DataError(f"{facts[0]['subject']}: channel {int(scale.argmin())} is flat in all training epochs.")
        yield Statistics(facts[0]["subject"], "", np.zeros_like(scale), scale)
        for number, row in enumerate(facts):
            yield row | {"meg": store[number] / scale}
