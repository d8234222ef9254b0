"""How long it took to record something, and what fits into so many minutes: the price of adapting to a new subject.

Counted are the trials of the rows themselves. What a recording costs besides (set-up, breaks between runs, blank and
catch trials, the validation and test splits) comes on top.
"""

from __future__ import annotations

import numpy as np

from neural_clip.errors import DataError
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.known_corpora import CORPORA
from neural_clip.training.batches import RecordingDataset


def trial_seconds(facts: Facts, given: float | None = None) -> float | None:
    """Seconds a trial of a data set: those given, those of its corpus, or `None` where nobody knows."""
    known = CORPORA.get(facts.corpus) if given is None else None
    return known.seconds_per_trial if known else given


def recording_seconds(recordings: RecordingDataset, per_trial: float) -> np.ndarray:
    """Seconds that each recording took, `(n_recordings,)`: an average took as many trials as were averaged."""
    return per_trial * recordings.part.labels("n_repeats")["n_repeats"].to_numpy(np.float64)


def minutes_of(recordings: RecordingDataset, per_trial: float) -> dict[str, float]:
    """Minutes that the recordings of each subject took."""
    seconds = recording_seconds(recordings, per_trial)
    return {
        name: float(seconds[recordings.subject_ids == subject].sum()) / 60
        for subject, name in enumerate(recordings.subjects)
        if subject in recordings.subject_ids
    }


def collection_order(recordings: RecordingDataset, rows: np.ndarray, seed: int) -> np.ndarray:
    """Rows of one subject as they would be collected: in time where the data set knows it, else shuffled.

    Args:
        recordings ([`RecordingDataset`]): All recordings.
        rows (`np.ndarray` of shape `(n,)`): Those of one subject.
        seed (`int`): Of the shuffle.
    """
    if not recordings.part.facts.presentation_order:
        return np.random.default_rng(seed).permutation(rows)
    times = recordings.part.at(rows).labels("session", "run", "trial")
    return rows[times.sort_values(["session", "run", "trial"], kind="stable").index.to_numpy()]


def first_minutes(recordings: RecordingDataset, minutes: float, per_trial: float | None, seed: int) -> np.ndarray:
    """Rows of the first recordings of each subject that took no more than so many minutes, in the order of the rows.

    Args:
        recordings ([`RecordingDataset`]): Of any number of subjects.
        minutes (`float`): For each subject.
        per_trial (`float`, *optional*): Seconds a trial, as [`trial_seconds`] gives them.
        seed (`int`): See [`collection_order`].

    Raises:
        DataError: If the seconds a trial are not known, or fewer than two recordings of a subject fit, the least that
            can be told apart.
    """
    if per_trial is None:
        raise DataError(
            f"How long a trial of '{recordings.part.facts.corpus}' lasts is not known (it is for "
            f"{sorted(CORPORA)}). Give the seconds from one onset to the next with the 'seconds_per_trial' "
            "parameter (--seconds-per-trial)."
        )
    seconds, kept = recording_seconds(recordings, per_trial), []
    for subject in np.unique(recordings.subject_ids):
        order = collection_order(recordings, np.flatnonzero(recordings.subject_ids == subject), seed)
        # a thousandth of a second, so that sums of rounded numbers fit into the minutes that they make
        within = np.cumsum(seconds[order]) <= 60 * minutes + 1e-3
        if within.sum() < 2:
            raise DataError(
                f"Invalid value for the 'minutes' parameter. Two recordings of {recordings.subjects[subject]!r} at "
                f"least must fit, which take {seconds[order[:2]].sum() / 60:.3g} minutes, but got {minutes:g}."
            )
        kept.append(order[within])
    return np.sort(np.concatenate(kept))
