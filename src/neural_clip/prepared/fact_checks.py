"""Whether `neural_clip.json` says what it can say: each entry of its type and in its range, and no two at odds."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Union, get_args, get_origin

from neural_clip.errors import DataError
from neural_clip.preparation import Preparation
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.places import SPACES
from neural_clip.prepared.recording_rows import SUBJECT_PATTERN
from neural_clip.prepared.splits import SPLITS
from neural_clip.target_space import TargetSpace

SPLIT_UNITS = ("image", "run", "recording", "subject")
REDISTRIBUTION = ("allowed", "forbidden")
WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object",
         list: "a list"}  # fmt: skip
SHOWN = 60  # characters of a wrong value


def has_type(value: object, hint: Any) -> bool:
    """Whether a value of JSON is what a type hint says; `True` is no number, and numbers are finite."""
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(has_type(value, one) for one in inner)
    if hint in (int, float):
        number = isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
        return number and math.isfinite(value)  # type: ignore[arg-type]
    if origin is list and inner:
        return isinstance(value, list) and all(has_type(one, inner[0]) for one in value)
    if origin is dict and inner:
        return isinstance(value, dict) and all(has_type(one, inner[1]) for one in value.values())
    return isinstance(value, origin)


def in_words(hint: Any) -> str:
    """A type hint for a message."""
    inner = [one for one in get_args(hint) if one is not types.NoneType]
    origin = get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return " or ".join(map(in_words, inner))
    told = WORDS.get(origin, str(origin))
    return f"{told} of which each is {in_words(inner[-1])}" if inner and inner[-1] is not Any else told


def _one_of(*allowed: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in allowed, f"one of {', '.join(map(repr, allowed))}"


def _at_least_one(value: Mapping[str, Any]) -> bool:
    return all(count >= 1 for count in value.values())


def _is_place(place: Any) -> bool:
    return place is None or (has_type(place, list[float | None]) and len(place) == 3)


def _are_counts(value: Mapping[str, Mapping[str, int]], names: Collection[str], least: int) -> bool:
    """Whether the inner entries have these names and are not below the least."""
    return all(set(counts) <= set(names) and all(n >= least for n in counts.values()) for counts in value.values())


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _is_listed(entry: Mapping[str, Any]) -> bool:
    sums = [entry.get("sha256"), *([entry["footer_sha256"]] if "footer_sha256" in entry else [])]
    return has_type(entry.get("bytes"), int) and entry["bytes"] >= 0 and all(isinstance(one, str) for one in sums)


# What is allowed beyond the type.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "modality": _one_of(*MODALITIES),
    "split_unit": _one_of(*SPLIT_UNITS),
    "redistribution": _one_of(*REDISTRIBUTION),
    "subjects": (lambda names: len(names) == len(set(names)) > 0 and all(map(SUBJECT_PATTERN.fullmatch, names)),
                 "different names such as 'sub-01'"),
    "n_chans": (lambda count: count >= 1, "1 and more"),
    "n_times": (lambda count: count >= 1, "1 and more"),
    "sfreq": (lambda rate: rate > 0, "more than 0"),
    "places_space": _one_of(*SPACES),
    "n_voxels": (_at_least_one, "1 and more for each subject"),
    "ch_positions": (lambda places: all(map(_is_place, places)), "three numbers a channel"),
    "splits": (lambda value: set(value) <= set(SPLITS) and _are_counts(value, ("rows", "images", "concepts"), 0),
               "'rows', 'images' and 'concepts', 0 and more, of 'train', 'validation' and 'test'"),
    "subject_splits": (lambda value: _are_counts(value, SPLITS, 1),
                       "the rows, 1 and more, of 'train', 'validation' and 'test' for each subject"),
    "fingerprint_version": (lambda version: version in (1, 2), "1 or 2; update this package"),
    "files": (lambda files: all(map(_is_inside, files)) and all(map(_is_listed, files.values())),
              "names below the folder, each with 'bytes' and 'sha256'"),
}  # fmt: skip
# Entries of entries.
NESTED: dict[str, dict[str, Any]] = {
    "scaling": {"method": str | None, "fit_scope": str | None, "statistics": str | None,
                "fitted_on_own_rows": list[str] | None},
    "image_encoder": {"name": str | None, "revision": str | None, "pooling": str | None,
                      "projection_dim": int | None},
    "targets": {"images": int | None, "sha256": str | None, "space": dict | None},
    "shared_windows": {"rows": int, "held_out": int},
}  # fmt: skip


def check_facts(metadata: Mapping[str, Any], hints: Mapping[str, Any], optional: Sequence[str], path: Path) -> None:
    """Raise a `DataError` unless metadata are of the types of [`Facts`], in range and not at odds.

    Args:
        metadata (`Mapping`): What `neural_clip.json` holds; entries that are absent are not looked at.
        hints (`Mapping`): Type of each entry.
        optional (sequence of `str`): Entries that may be null.
        path (`Path`): The file, for the message.
    """
    for key, value in metadata.items():
        if value is None and key in optional:
            continue
        if key in hints and not has_type(value, hints[key]):
            raise _wrong(path, key, value, in_words(hints[key]))
        if key in RULES and not RULES[key][0](value):
            raise _wrong(path, key, value, RULES[key][1])
        for name, hint in NESTED.get(key, {}).items():
            if not isinstance(value, dict) or not has_type(value.get(name), hint):
                found = value.get(name) if isinstance(value, dict) else value
                raise _wrong(path, f"{key}: {name}", found, in_words(hint))
    for problem in _at_odds({key: value for key, value in metadata.items() if value is not None}):
        raise DataError(f"'{path}' is damaged: {problem}. Prepare the data set again.")
    for key, kind in (("preparation", Preparation), ("targets", TargetSpace)):
        content = metadata.get(key) if key == "preparation" else (metadata.get(key) or {}).get("space")
        try:
            kind.of(content)
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"'{path}': {key!r} is damaged: {error}") from error


def _wrong(path: Path, key: str, value: object, allowed: str) -> DataError:
    """The error of one entry."""
    shown = json.dumps(value, default=str)
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
    return DataError(f"'{path}' is damaged: {key!r} should be {allowed}, but is {shown}. Prepare the data set again.")


def _at_odds(facts: Mapping[str, Any]) -> Iterator[str]:
    """What facts say against each other."""
    if "n_chans" in facts:
        for key in ("ch_names", "ch_positions"):
            if key in facts and len(facts[key]) != facts["n_chans"]:
                yield f"{key!r} has {len(facts[key])} entries, but 'n_chans' is {facts['n_chans']}"
    if "tmin" in facts and "sfreq" not in facts:
        yield f"'tmin' is {facts['tmin']}, but there is no 'sfreq'"
    if "subjects" in facts:
        for key in ("subject_splits", "n_voxels"):
            if key in facts and (other := set(facts["subjects"]) ^ set(facts[key])):
                yield f"'subjects' and {key!r} are not of the same subjects: {', '.join(sorted(other))}"
    if "splits" in facts and "subject_splits" in facts:
        for split in SPLITS:
            rows = sum(counts.get(split, 0) for counts in facts["subject_splits"].values())
            if rows != (stated := facts["splits"].get(split, {}).get("rows", 0)):
                yield f"'splits' has {stated} {split} rows, but 'subject_splits' {rows}"
