"""Splits of one's own recordings: by image, by run or by recording."""

from __future__ import annotations

import numpy as np

from neural_clip.corpora.custom.manifest import Recording, Splits
from neural_clip.errors import DataError, did_you_mean
from neural_clip.files.names import plain_name
from neural_clip.prepared.splits import validation_split


def unit_label(entry: Recording, run: str) -> str:
    """Name of a run, like `sub-01/ses-01/run-01`."""
    return "/".join(part for part in (entry.subject, entry.session, run) if part)


def assign_splits(
    entries: list[Recording], image_ids: list[list[str]], runs: list[list[str]], splits: Splits
) -> list[list[str]]:
    """Choose the split of each row.

    Args:
        entries (`list[Recording]`): Files; one with a `split` of its own keeps it.
        image_ids, runs (`list[list[str]]`): Image and run of each row of each file.
        splits (`Splits`): What to divide by, and how.

    Returns:
        `list[list[str]]`: `"train"`, `"validation"` or `"test"` for each row of each file.

    Raises:
        DataError: If a share is out of range or a list names what does not occur.
    """
    if splits.by == "image":
        keys = image_ids
    elif splits.by == "run":
        keys = [[unit_label(entry, run) for run in rows] for entry, rows in zip(entries, runs, strict=True)]
    else:
        labels = [unit_label(entry, entry.run) for entry in entries]
        repeated = {label for label in labels if labels.count(label) > 1}
        if repeated:
            raise DataError(
                f"Recordings need names of their own, but two are {min(repeated)!r}; set 'session' and 'run'."
            )
        keys = [[label] * len(rows) for label, rows in zip(labels, image_ids, strict=True)]
    free: dict[str, str] = {}  # what the choice is free for, with its subject
    for entry, rows in zip(entries, keys, strict=True):
        if entry.split is None:
            free.update(dict.fromkeys(rows, entry.subject))
    chosen = _chosen_images(set(free), splits) if splits.by == "image" else _chosen_units(free, splits)
    return [
        [entry.split or chosen.get(key, "train") for key in rows] for entry, rows in zip(entries, keys, strict=True)
    ]


def _listed(names: set[str], splits: Splits) -> dict[str, str]:
    """Splits given as lists of names."""
    chosen: dict[str, str] = {}
    for split in ("test", "validation"):
        listed = getattr(splits, split)
        for name in map(plain_name, map(str, listed if isinstance(listed, list) else [])):
            if name not in names:
                near = did_you_mean(str(name), sorted(names))
                raise DataError(f"splits, '{split}': {name!r} does not occur.{near}")
            if name in chosen:
                raise DataError(f"splits: {name!r} is listed for 'test' and for 'validation'.")
            chosen[name] = split
    return chosen


def _share(splits: Splits, split: str) -> float:
    """The share of a split, 0 where it is a list or not wanted."""
    value = getattr(splits, split)
    if value is None or isinstance(value, list):
        return 0.0
    if not 0 < value < 1:
        raise DataError(f"splits, '{split}': allowed are shares between 0 and 1 and lists of names, but got {value}.")
    return float(value)


def _chosen_images(names: set[str], splits: Splits) -> dict[str, str]:
    chosen = _listed(names, splits)
    for split in ("test", "validation"):
        share = _share(splits, split)
        left = names - set(chosen)
        if share and names:
            share = min(share * len(names) / max(len(left), 1), 1 - 1e-9)  # of all images, taken from those left
            chosen |= dict.fromkeys(validation_split(left, share, splits.seed), split)
    return chosen


def _chosen_units(units: dict[str, str], splits: Splits) -> dict[str, str]:
    """Shares of each subject's runs or recordings; a subject keeps at least one to train on."""
    chosen = _listed(set(units), splits)
    generator = np.random.default_rng(splits.seed)
    for subject in sorted(set(units.values())):
        own = sorted(unit for unit, owner in units.items() if owner == subject)
        order = [own[i] for i in generator.permutation(len(own))]
        for split in ("test", "validation"):
            share = _share(splits, split)
            left = [unit for unit in order if unit not in chosen]
            if share and len(left) > 1:
                count = min(max(round(share * len(own)), 1), len(left) - 1)
                chosen |= dict.fromkeys(left[:count], split)
    return chosen
