"""Splits of one's own recordings: by image, by run, by recording or by subject."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from neural_clip.corpora.custom.manifest import Manifest, Recording, Splits
from neural_clip.corpora.custom.sections import check_unique
from neural_clip.corpora.custom.trials import Trials
from neural_clip.errors import DataError, did_you_mean
from neural_clip.files.names import plain_name
from neural_clip.prepared.splits import SPLITS, validation_split

CHOSEN = ("test", "validation")  # test first: what is validated on is taken from the rest


def unit_label(entry: Recording, run: str) -> str:
    """Name of a run, like `sub-01/ses-01/run-01`."""
    return "/".join(part for part in (entry.subject, entry.session, run) if part)


def check_splits(manifest: Manifest, where: str) -> None:
    """Refuse splits that cannot be made, before any file is read.

    Raises:
        DataError: If a share is out of range, shares leave nothing, a list is empty or names something twice or what
            does not occur, nothing is there to test on, or two recordings have one name where recordings are divided.
    """
    splits, where = manifest.splits, f"{where}, 'splits'"
    for split in CHOSEN:
        value = getattr(splits, split)
        if isinstance(value, list):
            if not value:
                raise DataError(f"{where}: {split!r} is an empty list. Allowed are names, a share, and null for none.")
            check_unique(value, split, where)
    if splits.by != "subject" and (total := sum(_share(splits, split) for split in CHOSEN)) >= 1:
        raise DataError(f"{where}: 'test' and 'validation' are {total:g} of all together; none is left to train on.")
    entries, given = manifest.recordings, {entry.split for entry in manifest.recordings}
    if splits.test is None and "test" not in given:
        raise DataError(f"{where}: there is nothing to test on. Give 'test' as a share or a list of names.")
    if None not in given and splits.by != "subject":
        for split in ("train", "validation", "test"):
            if split not in given and (split != "validation" or splits.validation is not None):
                without = ", or say 'validation: null' to go without" if split == "validation" else ""
                raise DataError(
                    f"{where}: every recording has its own 'split', but none is {split!r}. Add one{without}."
                )
    if splits.by != "image" and not (splits.by == "run" and any(entry.run_column for entry in entries)):
        later = splits.by == "subject" and not isinstance(splits.validation, list)  # a share of images or runs
        known = replace(splits, validation=None) if later else splits
        assign_splits(entries, [[""]] * len(entries), [[entry.run] for entry in entries], known)


def _check_labels(entries: list[Recording]) -> None:
    labels = [unit_label(entry, entry.run) for entry in entries]
    repeated = {label for label in labels if labels.count(label) > 1}
    if repeated:
        raise DataError(f"Recordings need names of their own, but two are {min(repeated)!r}; set 'session' and 'run'.")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def assign_splits(
    entries: list[Recording],
    image_ids: list[list[str]],
    runs: list[list[str]],
    splits: Splits,
    *,
    category_level: bool = False,
) -> list[list[str]]:
    """Choose the split of each row.

    Args:
        entries (`list[Recording]`): Files; one with a `split` of its own keeps it.
        image_ids, runs (`list[list[str]]`): Image and run of each row of each file.
        splits (`Splits`): What to divide by, and how.
        category_level (`bool`): Whether images are categories, which every split has.

    Returns:
        `list[list[str]]`: `"train"`, `"validation"` or `"test"` for each row of each file.

    Raises:
        DataError: If a share is out of range, a list names what does not occur, or a split that is wanted gets no row.
    """
    if splits.by == "subject":
        held = _chosen(dict.fromkeys(entry.subject for entry in entries if entry.split is None), splits, CHOSEN[:1])
        entries = [replace(entry, split=entry.split or held.get(entry.subject)) for entry in entries]
        # whoever is trained on is validated on, with other images (other runs, where images are categories)
        share = None if isinstance(splits.validation, list) or all(e.split for e in entries) else splits.validation
        others = replace(splits, by="run" if category_level else "image", test=None, validation=share)
        found = _assigned(entries, image_ids, runs, others)
        _check_whole(entries, found)
        return found
    return _assigned(entries, image_ids, runs, splits)


def _assigned(
    entries: list[Recording], image_ids: list[list[str]], runs: list[list[str]], splits: Splits
) -> list[list[str]]:
    if splits.by == "image":
        keys = image_ids
    elif splits.by == "run":
        keys = [[unit_label(entry, run) for run in rows] for entry, rows in zip(entries, runs, strict=True)]
    else:
        _check_labels(entries)
        keys = [[unit_label(entry, entry.run)] * len(rows) for entry, rows in zip(entries, image_ids, strict=True)]
    free: dict[str, str] = {}  # what the choice is free for, with its subject
    for entry, rows in zip(entries, keys, strict=True):
        if entry.split is None:
            free.update(dict.fromkeys(rows, entry.subject))
    chosen = _chosen(free, splits, CHOSEN) if splits.by == "image" else _chosen_units(free, splits)
    found = [
        [entry.split or chosen.get(key, "train") for key in rows] for entry, rows in zip(entries, keys, strict=True)
    ]
    _check_met(found, free, splits)
    return found


def _check_whole(entries: list[Recording], found: list[list[str]]) -> None:
    """Raise where a test subject has rows in another split: a file's own `split` may have put them there."""
    of_subject: dict[str, set[str]] = {}
    for entry, rows in zip(entries, found, strict=True):
        of_subject.setdefault(entry.subject, set()).update(rows)
    if {split for given in of_subject.values() for split in given} == {"test", "validation"}:
        raise DataError("splits: nothing is left for 'train': every subject is in 'test' or in 'validation'.")
    for subject, given in of_subject.items():
        if "test" in given and len(given) > 1:
            raise DataError(
                f"splits: subjects are divided, but {subject} is in {' and '.join(map(repr, sorted(given)))}; the "
                "'split' of a file puts rows there."
            )


def _check_met(found: list[list[str]], free: Mapping[str, str], splits: Splits) -> None:
    """Raise where a split that is wanted has no row."""
    present = {split for rows in found for split in rows}
    wanted = [split for split in CHOSEN if getattr(splits, split) is not None]
    for split in [*wanted, "train"] if free else []:
        if split not in present:
            raise DataError(
                f"splits: nothing is left for {split!r}. To divide: {_counted(len(free), splits.by)} of "
                f"{_counted(len(set(free.values())), 'subject')}; each stays whole."
            )


def _listed(names: set[str], splits: Splits) -> dict[str, str]:
    """Splits given as lists of names."""
    chosen: dict[str, str] = {}
    for split in CHOSEN:
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


def _chosen(names: Mapping[str, object], splits: Splits, shared: tuple[str, ...]) -> dict[str, str]:
    """Names that are listed, and shares of all names for the splits in `shared`."""
    chosen = _listed(set(names), splits)
    for split in shared:
        share = _share(splits, split)
        left = set(names) - set(chosen)
        if share and names:
            if len(left) < 2:
                raise DataError(
                    f"splits: {split!r} cannot be a share of {share:g} of {_counted(len(names), splits.by)}, of which "
                    f"{len(chosen)} have another split: one must be left to train on."
                )
            share = min(share * len(names) / len(left), 1 - 1e-9)  # of all names, taken from those left
            chosen |= dict.fromkeys(validation_split(left, share, splits.seed), split)
    return chosen


def _chosen_units(units: dict[str, str], splits: Splits) -> dict[str, str]:
    """Shares of each subject's runs or recordings; a subject keeps at least one to train on."""
    chosen = _listed(set(units), splits)
    generator = np.random.default_rng(splits.seed)
    for subject in sorted(set(units.values())):
        own = sorted(unit for unit, owner in units.items() if owner == subject)
        order = [own[i] for i in generator.permutation(len(own))]
        for split in CHOSEN:
            share = _share(splits, split)
            left = [unit for unit in order if unit not in chosen]
            if share and len(left) > 1:
                count = min(max(round(share * len(own)), 1), len(left) - 1)
                chosen |= dict.fromkeys(left[:count], split)
    return chosen


def shared_windows(trials: list[Trials], splits: list[list[str]]) -> dict[str, int] | None:
    """Count test and validation rows whose window overlaps that of a row in another split, of the same recording.

    Returns:
        `dict`: `rows` that overlap of `held_out` rows; `None` where none do, or windows are not known.
    """
    stretches: dict[str, list[tuple[float, float, int]]] = {}
    for trial, names in zip(trials, splits, strict=True):
        for (begin, end), name in zip(trial.windows, names, strict=False):  # () where they are not known
            stretches.setdefault(trial.source, []).append((begin, end, SPLITS.index(name)))
    shared = 0
    for found in stretches.values():
        windows = np.array(found)  # (n, 3)
        for begin, end, split in windows[windows[:, 2] > 0]:
            overlapping = (windows[:, 0] < end) & (windows[:, 1] > begin) & (windows[:, 2] < split)
            shared += bool(overlapping.any())
    held_out = sum(name != "train" for names in splits for name in names)
    return {"rows": shared, "held_out": held_out} if shared else None
