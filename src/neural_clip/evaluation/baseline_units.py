"""Baselines of an evaluation, fitted by several processes.

A unit keeps what it finds among the finished parts; whoever makes the rows reads it there, so that they are those of
one process. Units come in rounds: what is fitted over all people (temporal components), what several baselines need of
a person, and the baselines themselves. A ridge that two baselines share is fitted once: by the first, for which the
other waits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from neural_clip.errors import DataError
from neural_clip.evaluation.baseline_rows import now, of_baseline, parts_of, predicted, since, small
from neural_clip.evaluation.baselines.closed_form import ready
from neural_clip.evaluation.baselines.closed_form_fit import keep_of_person
from neural_clip.evaluation.baselines.cost import LONG, costs_of, in_turns, told
from neural_clip.evaluation.baselines.inputs import kept_for, n_components, temporal_components
from neural_clip.evaluation.baselines.ridge import one_thread
from neural_clip.evaluation.baselines.rows import BASELINES, OF_SENSORS, OF_VOXELS, not_refused
from neural_clip.evaluation.baselines.strengths import are_voxels, subjects_of, with_unit_targets
from neural_clip.evaluation.finished_parts import FinishedParts
from neural_clip.evaluation.scope import fitted_splits, left_out_of
from neural_clip.files.kept import deciding_versions
from neural_clip.parallel import n_processes, run_units
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.reader import PreparedSet, Split

CLOSED_FORM = "closed form"  # takes training rows as `ready` gives them


def fit_elsewhere(
    scored: Mapping[str, Split], names: Sequence[str], protocol: str, kept: FinishedParts, num_proc: int
) -> None:
    """Have other processes fit baselines and keep what they find.

    Args:
        scored (`Mapping[str, Split]`): What is scored of each data set.
        names (sequence of `str`): Baselines as tables call them.
        protocol (`str`): Key of `PROTOCOLS`.
        kept ([`FinishedParts`]): In a folder that all processes share.
        num_proc (`int`): As for [`run_units`].

    Raises:
        DataError: If a process is killed, works on the same part for another evaluation, or does not find the same
            data set and packages. A baseline that cannot be fitted is left for [`baseline_rows`], which says why.
    """
    from tqdm import tqdm

    rounds = _rounds([_Fitted.of(part, protocol, kept) for part in scored.values()], names, n_processes(num_proc))
    total = sum(len(units) for _, units in rounds)
    with tqdm(total=total, desc="baselines", unit="part", file=sys.stderr, disable=not total) as progress:
        for work, units in rounds:
            for name, took in run_units(work, units, num_proc=num_proc):
                progress.update()
                if took is not None:
                    _check_there(units[name])
                    tqdm.write(f"{name} in {took}", file=sys.stderr)


@dataclass(frozen=True)
class _Fitted:
    """A data set that baselines are fitted on, as another process opens it.

    Args:
        data ([`PreparedSet`]): Which.
        split (`str`): That is scored.
        subjects, left_out (`list[str]`): Who is scored, and on whom nothing is fitted.
        parts ([`FinishedParts`]): Where what is finished is kept.
    """

    data: PreparedSet
    split: str
    subjects: list[str]
    left_out: list[str]
    parts: FinishedParts

    @classmethod
    def of(cls, part: Split, protocol: str, kept: FinishedParts) -> _Fitted:
        """That of a split that is scored."""
        left_out = left_out_of(part, protocol)
        subjects = list(dict.fromkeys(part.subjects.tolist()))
        return cls(part.data, part.name, subjects, left_out, parts_of(kept, part, left_out))

    def splits(self) -> list[Split]:
        """Training, validation and scored rows from image onset on, small ones in memory."""
        part = self.data.split(self.split, self.subjects)
        return [small(split).from_onset() for split in fitted_splits(part, self.left_out)]

    def opened(self) -> list[Split]:
        """The same in another process, which must find the same."""
        if (found := Facts.read(self.data.folder).fingerprint) != self.data.facts.fingerprint:
            raise DataError(f"Another process finds another data set in '{self.data.folder}' ({found}).")
        if (versions := deciding_versions()) != self.parts.key["versions"]:
            raise DataError(
                f"A process that fits baselines has other versions of packages, {versions}, than this one, "
                f"{self.parts.key['versions']}. Install the same everywhere."
            )
        return self.splits()


_Unit = tuple[_Fitted, str, Sequence[str]]  # a person or a baseline, and the baselines that a person's parts are for
_Work = Callable[[_Unit], str | None]


def _rounds(fitted: Sequence[_Fitted], names: Sequence[str], processes: int) -> list[tuple[_Work, dict[str, _Unit]]]:
    """Units in rounds; what long ones cost is told."""
    over_people: dict[str, _Unit] = {}
    of_person: dict[str, _Unit] = {}
    turns: list[dict[str, _Unit]] = []
    for each in fitted:
        key, splits = each.data.key, each.splits()
        train = splits[0]
        lacking = [name for name, _ in BASELINES if name in names and not _is_there(each, name)]
        lacking = not_refused(lacking, *splits)
        if not lacking:
            continue
        costs = costs_of(lacking, *splits[:2])
        if sum(cost.seconds for cost in costs.values()) > LONG:
            print(told(key, list(costs.values()), processes), file=sys.stderr)
        if kept_for(train, each.parts).folder is not None:
            if n_components(train):
                over_people[f"{key}: temporal components"] = (each, "", lacking)
            for subject in subjects_of(train):
                of_person[f"{key}: statistics and matrix of {subject}"] = (each, subject, lacking)
        for number, turn in enumerate(in_turns(lacking, *splits[:2])):
            turns += [{}] * (number == len(turns))
            turns[number] = turns[number] | {f"{key}: {name}": (each, name, ()) for name in turn}
    rounds = [(_keep_over_people, over_people), (_keep_of_person, of_person), *((_fit, turn) for turn in turns)]
    return [(work, units) for work, units in rounds if units]


def _is_there(fitted: _Fitted, name: str) -> bool:
    """Whether a baseline is finished."""
    return of_baseline(fitted.parts, name).finished("predictions") is not None


def _check_there(unit: _Unit) -> None:
    """Raise where another process kept a baseline, but this one does not see it."""
    fitted, name, _ = unit
    if not _is_there(fitted, name):
        raise DataError(
            f"'{fitted.parts.folder}' lacks the predictions of '{name}', which another process wrote. All processes "
            "need the same folders under the same names."
        )


def _as_fitted(train: Split, names: Sequence[str]) -> Iterator[tuple[Split, Sequence[str]]]:
    """Training rows as baselines take them."""
    if others := [name for name in names if name != CLOSED_FORM]:
        yield with_unit_targets(train), others
    if CLOSED_FORM in names:
        yield ready(train), [CLOSED_FORM]


@one_thread
def _keep_over_people(unit: _Unit) -> None:
    """Keep the temporal components of all people."""
    fitted, _, names = unit
    train = fitted.opened()[0]
    with fitted.parts.alone("temporal components"), suppress(DataError):  # the baselines will say what is wrong
        for rows, _ in _as_fitted(train, names):
            temporal_components(rows, n_components(rows), kept_for(rows, fitted.parts))


def _keep_of_person(unit: _Unit) -> None:
    """Keep what several baselines need of a person."""
    fitted, subject, names = unit
    train = fitted.opened()[0]
    ridges = OF_VOXELS if are_voxels(train) else OF_SENSORS
    with fitted.parts.of(whose=subject).alone("person"), suppress(DataError):  # as above
        for rows, those in _as_fitted(train, names):
            pooled = sorted({together for name in those for together in ridges.get(name, ())})
            keep_of_person(rows, subject, pooled, fitted.parts)


def _fit(unit: _Unit) -> str | None:
    """Fit a baseline and keep its predictions; how long it took, `None` where it cannot be fitted."""
    fitted, name, _ = unit
    began, splits = now(), fitted.opened()
    with of_baseline(fitted.parts, name).alone("predictions"), suppress(DataError):  # as above
        predicted(name, splits, fitted.parts)
        return since(began)
    return None
