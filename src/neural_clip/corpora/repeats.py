"""Means over the presentations of an image to a subject."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np

from neural_clip.preparation import Statistics

Real = TypeVar("Real", np.float32, np.float64)


def mean_of_repeats(
    rows: Iterable[dict | Statistics], modality: str, counts: Mapping[str, int], dtype: type[Real]
) -> Iterator[dict | Statistics]:
    """One row an image: the mean of its presentations, given out at the last of them; statistics are passed on.

    `trial` is that of the first presentation; session and run are empty where presentations differ in them. In memory
    is one recording for each image that will be shown again.

    Args:
        rows (`Iterable[dict]`): Presentations to one subject.
        modality (`str`): Key of the recordings, float32.
        counts (`Mapping[str, int]`): How many presentations of each image there are.
        dtype (`type`): What sums are computed in; means are float32.
    """
    held: dict[str, dict] = {}
    for row in rows:
        if isinstance(row, Statistics):
            yield row
            continue
        image_id, count = row["image_id"], counts[row["image_id"]]
        if image_id in held:
            mean = held[image_id]
            mean[modality] += row[modality]
            mean["n_repeats"] += 1
            same_session = mean["session"] == row["session"]
            mean["run"] = mean["run"] if same_session and mean["run"] == row["run"] else ""
            mean["session"] = mean["session"] if same_session else ""
        else:
            # a copy, as a view would keep the whole session in memory
            mean = held[image_id] = {**row, modality: row[modality].astype(dtype)}
        if mean["n_repeats"] == count:
            del held[image_id]
            yield mean | {modality: (mean[modality] / dtype(count)).astype(np.float32, copy=False)}
