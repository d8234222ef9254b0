"""Controls: scores that a decoder can reach from confounds alone.

Each control is a score of its own, with interval and p-value, and a sentence that says what it means. Those that need
a decoder of their own fit ridge regression on the training split (strength chosen as for baselines), because a linear
map is quick to fit and finds what a linear decoder can use. None is fitted on the split that is scored.
`evaluation/overlap.py` counts what the scored split shares with training.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.errors import DataError, ReadError
from neural_clip.evaluation.baselines.cost import FLOPS, LONG, NOTHING, NUMBERS, Cost
from neural_clip.evaluation.baselines.linear import frozen_identity_alignment, per_subject_ridge
from neural_clip.evaluation.baselines.ridge import RELATIVE_ALPHAS
from neural_clip.evaluation.baselines.strengths import n_folds_of, require_rows
from neural_clip.evaluation.baselines.targets import Targets
from neural_clip.evaluation.baselines.whitening import ROUNDING, mean_of, squares_of
from neural_clip.evaluation.finished_parts import NOT_KEPT, FinishedParts
from neural_clip.evaluation.overlap import overlap_records
from neural_clip.gallery.embedding import EmbeddedSplit
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import Split
from neural_clip.retrieval.scoring import score_record
from neural_clip.retrieval.tiles import steps

if TYPE_CHECKING:
    import pandas as pd


MAX_TRAIN_ROWS = 4000  # a subject's training rows that controls are fitted on; keeps each fit below a minute
NEIGHBOURS = 5  # training trials whose mean image is the guess from time alone; blocks last 10 trials and more
BLOCK_QUERIES = 1024  # whose neighbours are averaged at a time: 16 MB
N_PASSES = 3  # over recordings: means, deviations and the ridge
KEPT = ("two_way", "n_queries", "gallery_size", "chance_two_way", "resampled_unit")


@dataclass(frozen=True)
class ControlData:
    """What the controls of one modality look at.

    Args:
        scored (`EmbeddedSplit`): Recordings of the scored split in the model's space.
        train, validation, test ([`Split`]): The recordings themselves.
        times (`dict[str, tuple]`, *optional*): For `"train"` and `"test"`, `(n,)` names of subject and session, and
            `(n,)` numbers that grow with the time of presentation within them; `None` if that is not known.
        tick (`Callable`): Called when a ridge is fitted, for a progress bar.
    """

    scored: EmbeddedSplit
    train: Split
    validation: Split
    test: Split
    times: dict[str, tuple[np.ndarray, np.ndarray]] | None
    tick: Callable[[], object] = int

    @property
    def counted(self) -> FinishedParts:
        """Ridges of controls are not kept, but counted."""
        return replace(NOT_KEPT, tick=self.tick)


def presentation_times(train: Split, scored: Split) -> dict[str, tuple[np.ndarray, np.ndarray]] | None:
    """When recordings on disk were shown, for `ControlData.times`, where the data set knows it."""
    if not scored.facts.presentation_order:
        return None
    tables = {
        name: part.labels("subject", "session", "run", "trial") for name, part in (("train", train), ("test", scored))
    }
    return {name: (_stretches(table, tables), table["trial"].to_numpy()) for name, table in tables.items()}


def _stretches(table: pd.DataFrame, tables: dict[str, pd.DataFrame]) -> np.ndarray:
    """Names of what trials are numbered within: sessions, or runs where numbers begin anew with each."""
    keys = ["subject", "session"]
    if any(other.duplicated([*keys, "trial"]).any() for other in tables.values()):
        keys.append("run")
    return table[keys].agg("/".join, axis=1).to_numpy()


def run_controls(data: ControlData, seed: int, parts: FinishedParts = NOT_KEPT) -> list[dict]:
    """Run every control that the recordings allow.

    Args:
        data (`ControlData`): One modality.
        seed (`int`): Seed of shuffles, subsets and resampling.
        parts ([`FinishedParts`]): Where the record of each control is kept.

    Returns:
        `list[dict]`: `check`, `meaning`, `by` (`"count"`, `"model"`, `"ridge"` or `"order"`), and scores as in
        [`score_record`], `not_computed` with the reason, or counts with `found`, a sentence.
    """
    from tqdm import tqdm

    key, cost = data.scored.data.key, cost_of_controls(data)
    records = overlap_records(data.scored, data.train, seed) if len(data.train) else []
    with tqdm(
        total=cost.ridges, desc=f"{key} controls", unit="ridge", file=sys.stderr, disable=cost.seconds <= LONG
    ) as progress:
        data = replace(data, tick=progress.update)
        small = replace(data, train=data.train.at(_kept(data.train.subjects, seed)))
        for check, predict in _checks(data).items():
            used = data if check == "time alone" else small
            own = parts.of(control=check)
            records.append(own.record(f"{key} controls, {check}", partial(_record, used, check, predict, seed)))
    return records + _by_repeats(data.scored, seed)


def cost_of_controls(data: ControlData) -> Cost:
    """What the ridges of controls cost."""
    if not len(data.train):
        return NOTHING
    people, facts = len(set(data.test.subjects.tolist())), data.scored.facts
    shape, width = data.train.values([0])[0].shape, data.train.projection_dim
    n_rows = min(MAX_TRAIN_ROWS, len(data.train) // len(set(data.train.subjects.tolist())))
    features = {"shuffled labels": math.prod(shape)}
    if MODALITIES[facts.modality].sensors:
        n_before = facts.samples_before_onset if facts.tmin is not None and facts.sfreq else 0
        features |= {"slow drift alone": 2 * shape[0], "before onset": n_before * shape[0],
                     "leave one subject out": math.prod(shape)}  # fmt: skip
    n_folds, total = n_folds_of(data.train, data.validation), NOTHING
    for check, n_features in features.items():
        size = min(n_rows, n_features)
        flops = n_rows * n_features * size + len(RELATIVE_ALPHAS) * size**2 * (size / 3 + 2 * width)
        again = people if check == "leave one subject out" else 1  # the validation rows of others, for each
        n_read = people * n_rows * N_PASSES + again * len(data.validation) + len(data.test)
        cost = Cost(people, people * flops / FLOPS + n_read * math.prod(shape) / NUMBERS, size)
        total += cost.times(n_folds + 1)  # of those without a fold, and of all
    return total


def tell_cost(data: ControlData) -> None:
    """Say what controls cost, where that is much."""
    cost = cost_of_controls(data)
    if cost.seconds > LONG:
        print(
            f"{data.scored.data.key}: controls fit {cost.ridges} ridges on at most {MAX_TRAIN_ROWS:,} rows of each "
            f"person, which takes about {cost.seconds / 60:.0f} min of one core.",
            file=sys.stderr,
        )


def _checks(data: ControlData) -> dict[str, Callable]:
    """Controls that predict embeddings, in the order of reports."""
    checks: dict[str, Callable] = {"shuffled labels": _shuffled_labels, "time alone": _time_alone}
    if MODALITIES[data.scored.modality].sensors:
        checks |= {
            "slow drift alone": _slow_drift, "before onset": _before_onset, "leave one subject out": _leave_one_out,
        }  # fmt: skip
    return checks


MEANINGS = {
    "shuffled labels": "Ridge is fitted on training recordings whose images were exchanged at random within each "
    "subject. It should be at chance. Above chance, the subject alone predicts the image. This control does not "
    "detect test images that leaked into training; the overlap counts those.",
    "time alone": "No recording is used: the prediction is the mean image of the training trials shown nearest in "
    "time. Above chance, the order of presentation alone predicts the image, as in a block design.",
    "slow drift alone": "Ridge sees only the mean and slope of each channel over the window. Its score can come from "
    "slow states that outlast a trial. Compare it with the score of the whole window.",
    "before onset": "Ridge sees only the samples before the image appeared. It should be at chance. Above chance, the "
    "design or the preprocessing puts information about the image before its onset.",
    "leave one subject out": "Ridge is fitted on the other subjects and tested on the one left out, so nothing that "
    "belongs to a single session can help. A score above chance rests on what the subjects have in common.",
    "repeats": "The embeddings of several recordings of an image from one subject are averaged. Shows how much of "
    "a score is due to averaging.",
}


def _record(data: ControlData, check: str, predict: Callable, seed: int) -> dict:
    """Score of one control."""
    head = {"check": check, "by": "order" if check == "time alone" else "ridge", "meaning": MEANINGS[check]}
    try:
        predictions = predict(data, seed)
    except ReadError:
        raise
    except DataError as error:
        return {**head, "not_computed": str(error)}
    scored = data.scored
    record, _ = score_record(
        predictions, scored.gallery_embeds, data.test.image_ids, scored.gallery_ids,
        seed=seed, by_recording=scored.category_level, groups=data.test.subjects,
        among_shown=scored.searched is not None,
    )  # fmt: skip
    return {**head, **{name: value for name, value in record.items() if name.startswith(KEPT)}}


def _kept(subjects: np.ndarray, seed: int) -> np.ndarray:
    """Rows of at most MAX_TRAIN_ROWS of each subject, in order."""
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.flatnonzero(subjects == name))[:MAX_TRAIN_ROWS] for name in sorted(set(subjects))]
    return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *rows]))


def _ridge_on(data: ControlData, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Per-subject ridge on changed recordings; predictions for the scored split."""
    train, validation, test = (
        replace(split, change=lambda values, subjects: change(values))
        for split in (data.train, data.validation, data.test)
    )
    return per_subject_ridge(train, validation, test, parts=data.counted)[0]


def _shuffled_labels(data: ControlData, seed: int) -> np.ndarray:
    """Images exchanged among a subject's training recordings, whole images at a time."""
    if data.scored.category_level:
        raise DataError("of a few categories one shuffle leaves many in place; the p-values come from 1,000 shuffles")
    rng = np.random.default_rng([seed, 1])
    image_ids = data.train.image_ids.copy()
    for subject in sorted(set(data.train.subjects)):
        own = data.train.rows_of(subject)
        names, codes = np.unique(data.train.image_ids[own], return_inverse=True)
        image_ids[own] = names[rng.permutation(len(names))[codes]]
    shuffled = replace(data.train, image_ids=image_ids)
    return per_subject_ridge(shuffled, data.validation, data.test, subject_means=True, parts=data.counted)[0]


def _time_alone(data: ControlData, seed: int) -> np.ndarray:
    """Mean target of the training trials of that subject and session that were shown nearest in time."""
    if not len(data.train):
        raise DataError("there are no training recordings")
    if data.times is None:
        raise DataError("the order in which images were shown is not known")
    (sessions, times), (asked_sessions, asked_times) = data.times["train"], data.times["test"]
    _, codes = np.unique(np.concatenate([sessions, asked_sessions]), return_inverse=True)
    codes, asked = codes[: len(sessions)], codes[len(sessions) :]
    if not np.isin(asked, codes).any():
        raise DataError("no session that is scored has training recordings")
    embeds, image_rows = data.train.data.images.embeds, data.train.image_rows
    mean = Targets.of(data.train, np.arange(len(data.train))).mean
    predictions = np.zeros((len(asked), len(mean)), mean.dtype)  # a session without training trials: no guess, all tie
    for session in np.intersect1d(asked, codes):
        own, queries = np.flatnonzero(codes == session), np.flatnonzero(asked == session)
        nearest = image_rows[own[_nearest(times[own], asked_times[queries])]]  # (n_queries, n_nearest)
        for part in steps(len(queries), BLOCK_QUERIES):
            # against the mean of all: an average image would lie nearest to the centre of the gallery
            predictions[queries[part]] = embeds[nearest[part]].mean(axis=1) - mean
    return predictions


def _nearest(times: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Positions of the NEIGHBOURS times that are nearest to each that is asked for; of equals the first."""
    count, reach = len(times), np.arange(NEIGHBOURS)
    after = np.argsort(times, kind="stable")
    before = np.lexsort((-np.arange(count), times))  # the same order, but of equal times the first comes last
    place = np.searchsorted(times[after], asked)[:, None]
    left, right = place - 1 - reach, place + reach
    found = np.hstack([before[left.clip(0)], after[right.clip(max=count - 1)]])  # (n_asked, 2 * NEIGHBOURS)
    away = np.abs(times[found] - asked[:, None]).astype(np.float64)
    away[np.hstack([left < 0, right >= count])] = np.inf
    order = np.lexsort((found, away))[:, : min(NEIGHBOURS, count)]
    return np.take_along_axis(found, order, axis=1)


def _slow_drift(data: ControlData, seed: int) -> np.ndarray:
    """Ridge on mean and slope of each channel."""
    require_rows(data.train, data.validation)
    times = np.linspace(-1.0, 1.0, np.shape(data.train.values([0]))[2])
    slope = times / (times**2).sum()  # least squares on a centred axis
    return _ridge_on(data, lambda values: np.stack([values.mean(axis=2), values @ slope], axis=2))


def _before_onset(data: ControlData, seed: int) -> np.ndarray:
    """Ridge on the samples before onset."""
    facts = data.scored.facts
    if facts.tmin is None or not facts.sfreq or facts.tmin >= 0:
        raise DataError(f"the window begins at {facts.tmin} s from onset, so it holds no sample before it")
    count = facts.samples_before_onset
    return _ridge_on(data, lambda values: values[:, :, :count])


def _leave_one_out(data: ControlData, seed: int) -> np.ndarray:
    """Ridge fitted on all subjects but one, for each in turn; recordings are standardised by subject and channel."""
    require_rows(data.train, data.validation)
    subjects, trained = sorted(set(data.test.subjects)), sorted(set(data.train.subjects))
    if any(trained == [name] for name in subjects):
        raise DataError("there is one subject only")
    # subjects who are not trained on have their own scored recordings alone
    known = {subject: data.train if subject in trained else data.test for subject in {*subjects, *trained}}
    scales = {subject: _channel_scale(split, subject) for subject, split in known.items()}
    predictions = np.zeros((len(data.test.subjects), data.train.projection_dim), dtype=np.float32)
    for subject in subjects:
        others = [name for name in trained if name != subject]
        predictions[data.test.subjects == subject], _ = frozen_identity_alignment(
            _scaled(data.train, scales, others, seed),
            _scaled(data.validation, scales, others),
            _scaled(data.test, scales, [subject]),
            parts=data.counted,
        )
    return predictions


def _channel_scale(split: Split, subject: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of a subject's channels over recordings, `(n_chans, 1)` each."""
    rows = split.rows_of(subject)
    mean = mean_of(split, rows).mean(axis=1, keepdims=True)
    spread = squares_of(split, rows, np.broadcast_to(mean, split.values(rows[:1])[0].shape))
    deviation = np.sqrt(spread.mean(axis=1, keepdims=True) / len(rows))
    return mean, np.where(deviation > ROUNDING * np.abs(mean), deviation, 1.0).astype(np.float32)


def _scaled(split: Split, scales: dict, subjects: Sequence[str], seed: int | None = None) -> Split:
    """Rows of some subjects, each by that subject's own scale; with a seed a subset."""
    rows = np.flatnonzero(np.isin(split.subjects, list(subjects)))
    if seed is not None:
        rows = rows[_kept(np.full(len(rows), "anyone"), seed)]

    def change(values: np.ndarray, whose: np.ndarray) -> np.ndarray:
        """Recordings by the scale of their subject."""
        means, deviations = (np.stack([scales[name][which] for name in whose]) for which in (0, 1))
        return (values - means) / deviations

    return replace(split.at(rows), change=change)


def _by_repeats(scored: EmbeddedSplit, seed: int) -> list[dict]:
    """Scores of the mean of 1, 2, 4, ... recordings of an image by one subject."""
    from neural_clip.retrieval.tiles import unit_vectors

    if scored.category_level:
        return []
    units = unit_vectors(scored.embeds)
    keys, codes = np.unique(np.stack([scored.subjects, scored.image_ids]), axis=1, return_inverse=True)
    shuffled = np.random.default_rng([seed, 2]).permutation(len(units))
    groups = [shuffled[codes.ravel()[shuffled] == code] for code in range(keys.shape[1])]
    least = min(len(group) for group in groups)
    counts = [count for count in (1, 2, 4, 8, 16) if count < least] + [least]
    records = []
    for count in counts if least > 1 else []:
        means = np.stack([units[group[:count]].mean(axis=0) for group in groups])
        record, _ = score_record(
            means, scored.gallery_embeds, keys[1], scored.gallery_ids, seed=seed,
            among_shown=scored.searched is not None,
        )  # fmt: skip
        kept = {name: value for name, value in record.items() if name.startswith(KEPT)}
        head = {"check": f"{count} repeats" if count > 1 else "1 repeat", "by": "model", "n_repeats": count}
        records.append({**head, "meaning": MEANINGS["repeats"], **kept})
    return records
