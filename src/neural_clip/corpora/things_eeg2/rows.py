"""From recordings, or from what others preprocessed, to the parts of a prepared data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from neural_clip.corpora.repeats import mean_of_repeats
from neural_clip.corpora.sensor_scaling import fitted_scale
from neural_clip.corpora.things_eeg2.facts import PARTS, TARGET, CorpusFacts
from neural_clip.corpora.things_eeg2.recordings import Recipe, Recording, epochs
from neural_clip.corpora.things_eeg2.releases import ReleaseFile, opened_release
from neural_clip.errors import DataError
from neural_clip.preparation import Statistics
from neural_clip.prepared.parts import Part

Shown = Mapping[str, Sequence[tuple[str, str, str]]]  # by part: image_id, concept and split of each code from 1


@dataclass(frozen=True)
class Session:
    """One session of a subject.

    Args:
        recordings (`tuple[Recording, ...]`): Its files, in order of time.
        used (`tuple[numpy.ndarray, ...]`): Indices of the events of each that become rows.
        first_trial (`int`): Events of the subject before this session.
    """

    recordings: tuple[Recording, ...]
    used: tuple[np.ndarray, ...]
    first_trial: int

    @classmethod
    def of(cls, recordings: Sequence[Recording], facts: CorpusFacts, first_trial: int) -> Session:
        """Without targets and without surplus: the first presentations of each image count, of all as many."""
        seen: dict[str, Counter] = {part: Counter() for part in PARTS}
        used = []
        for recording in recordings:
            kept = []
            for event, code in enumerate(recording.codes.tolist()):
                seen[recording.part][code] += 1
                if code != TARGET and seen[recording.part][code] <= facts.repeats(recording.part):
                    kept.append(event)
            used.append(np.array(kept, dtype=int))
        return cls(tuple(recordings), tuple(used), first_trial)

    @property
    def subject(self) -> int:
        """Whose it is."""
        return self.recordings[0].subject

    @property
    def name(self) -> str:
        """`"ses-01"`."""
        return f"ses-{self.recordings[0].session:02d}"

    def codes(self, part: str) -> np.ndarray:
        """What a part of it shows, in order of time."""
        return np.concatenate([recording.codes for recording in self.recordings if recording.part == part])

    @property
    def n_rows(self) -> int:
        """Rows that it gives."""
        return sum(map(len, self.used))


def recorded_parts(
    sessions: Sequence[Session], shown: Shown, recipe: Recipe, facts: CorpusFacts, scaling: str,
    tables: Sequence[Path], *, average: bool,
) -> list[Part]:  # fmt: skip
    """Parts of recordings: by session, or by subject where presentations are averaged."""
    by_part: dict[str, list[Session]] = {}
    for session in sessions:
        name = f"sub-{session.subject:02d}" + ("" if average else f"_{session.name}")
        by_part.setdefault(name, []).append(session)
    parts = []
    for name, own in by_part.items():
        rows = partial(_recorded_rows, own, shown, recipe, facts, scaling, average=average)
        files = [file for session in own for recording in session.recordings for file in recording.files]
        n_rows = len(image_counts(own, shown)) if average else sum(session.n_rows for session in own)
        parts.append(Part(name, rows, (*files, *tables), n_rows))
    return parts


def image_counts(sessions: Sequence[Session], shown: Shown) -> Counter:
    """Presentations of each image that some sessions show."""
    return Counter(
        shown[recording.part][code - 1][0]
        for session in sessions
        for recording, used in zip(session.recordings, session.used, strict=True)
        for code in recording.codes[used].tolist()
    )


def _recorded_rows(
    sessions: Sequence[Session], shown: Shown, recipe: Recipe, facts: CorpusFacts, scaling: str, *, average: bool
) -> Iterator[dict | Statistics]:
    """Rows of some sessions of a subject."""
    rows = chain.from_iterable(_session_rows(session, shown, recipe, facts, scaling) for session in sessions)
    return mean_of_repeats(rows, "eeg", image_counts(sessions, shown), np.float64) if average else rows


def _session_rows(
    session: Session, shown: Shown, recipe: Recipe, facts: CorpusFacts, scaling: str
) -> Iterator[dict | Statistics]:
    """Rows of a session in order of presentation, scaled by its training epochs."""
    where = f"sub-{session.subject:02d}, {session.name}"
    training = partial(_training_epochs, session, shown, recipe, facts)
    scale = fitted_scale(scaling, training, recipe.ch_names, where)
    if scale.rms is not None:
        yield Statistics(f"sub-{session.subject:02d}", session.name, np.zeros_like(scale.rms), scale.rms)
    first = session.first_trial
    for recording, used in zip(session.recordings, session.used, strict=True):
        for event, epoch in zip(used.tolist(), epochs(recording, used, recipe, facts), strict=True):
            image_id, concept, split = shown[recording.part][recording.codes[event] - 1]
            yield {
                "subject": f"sub-{recording.subject:02d}", "session": session.name, "run": recording.run,
                "trial": first + event, "image_id": image_id, "concept": concept, "n_repeats": 1, "split": split,
                "eeg": scale.of(epoch),
            }  # fmt: skip
        first += len(recording.codes)


def _training_epochs(session: Session, shown: Shown, recipe: Recipe, facts: CorpusFacts) -> Iterator[np.ndarray]:
    """Epochs of a session whose images are training images; those of validation images are left out."""
    for recording, used in zip(session.recordings, session.used, strict=True):
        splits = [shown[recording.part][code - 1][2] for code in recording.codes[used].tolist()]
        yield from epochs(recording, used[np.array(splits) == "train"], recipe, facts)


def released_parts(
    found: Sequence[ReleaseFile],
    route: str,
    shown: Shown,
    facts: CorpusFacts,
    tables: Sequence[Path],
    *,
    average: bool,
) -> list[Part]:
    """Parts of what others preprocessed: a file each."""
    parts = []
    for one in found:
        rows = partial(_released_rows, one, route, shown[one.part], facts, average=average)
        n_rows = facts.n_images(one.part) * (1 if average else facts.all_repeats(one.part))
        parts.append(Part(f"sub-{one.subject:02d}_{one.part}", rows, (*one.files, *tables), n_rows))
    return parts


def _released_rows(
    found: ReleaseFile, route: str, shown: Sequence[tuple[str, str, str]], facts: CorpusFacts, *, average: bool
) -> Iterator[dict]:
    """Rows of a file, one image after the other.

    Nobody tells when a recording was made. Trials are numbered so that neighbours show different concepts: the order
    of the file, by concept, would look like a block design.
    """
    values, sessions, _, _ = opened_release(found.path, route, found.part, facts)
    first = 0 if found.part == "training" else facts.n_images("training") * facts.all_repeats("training")
    a_concept = facts.n_exemplars(found.part)
    for number, (image_id, concept, split) in enumerate(shown):
        recordings = np.asarray(values[number], dtype=np.float64)  # (n_repeats, n_chans, n_times)
        if not np.isfinite(recordings).all():
            raise DataError(
                f"'{found.path}' holds values of image {number + 1} that are not finite (NaN or infinite)."
            )
        n_repeats = len(recordings)
        place = number % a_concept * (len(shown) // a_concept) + number // a_concept
        names = [f"ses-{int(session) + 1:02d}" for session in ([] if sessions is None else sessions[number])]
        row = {
            "subject": f"sub-{found.subject:02d}", "session": "", "run": "", "image_id": image_id, "concept": concept,
            "n_repeats": n_repeats if average else 1, "split": split,
        }  # fmt: skip
        if average:
            yield row | {"trial": first + place, "eeg": recordings.mean(axis=0).astype(np.float32)}
            continue
        for repeat, recording in enumerate(recordings):
            session = names[repeat] if names else ""
            trial = first + repeat * len(shown) + place
            yield row | {"session": session, "trial": trial, "eeg": recording.astype(np.float32)}
