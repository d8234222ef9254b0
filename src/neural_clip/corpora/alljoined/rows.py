"""From recordings, trials and epochs to the parts of a prepared data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from neural_clip.corpora.alljoined.alljoined1 import CHANNELS as FIRST_CHANNELS
from neural_clip.corpora.alljoined.alljoined1 import Shards
from neural_clip.corpora.alljoined.facts import CHANNELS, CorpusFacts
from neural_clip.corpora.alljoined.flat import FlatFile, opened_flat
from neural_clip.corpora.alljoined.recordings import PREPARATION, SPEC, WINDOW, Block, signals_of
from neural_clip.corpora.alljoined.stimuli import Image
from neural_clip.corpora.nsd.plan import image_id
from neural_clip.corpora.repeats import mean_of_repeats
from neural_clip.corpora.sensor_epochs import cut_epochs
from neural_clip.corpora.sensor_scaling import fitted_scale
from neural_clip.errors import DataError
from neural_clip.preparation import Statistics
from neural_clip.prepared.parts import Part

Session = tuple[Block, ...]


def recorded_parts(
    sessions: Sequence[Session], images: Sequence[Image], facts: CorpusFacts, scaling: str, tables: Sequence[Path], *,
    average: bool,
) -> list[Part]:  # fmt: skip
    """Parts of recordings: by session, or by subject where presentations are averaged."""
    by_part: dict[str, list[Session]] = {}
    for session in sessions:
        name = f"sub-{session[0].subject:02d}" + ("" if average else f"_ses-{session[0].session:02d}")
        by_part.setdefault(name, []).append(session)
    parts = []
    for name, own in by_part.items():
        counts = Counter(images[number].image_id for session in own for number in shown(session).tolist())
        rows = partial(_recorded, own, images, facts, scaling, counts if average else None)
        files = [block.path for session in own for block in session]
        parts.append(Part(name, rows, (*files, *tables), len(counts) if average else counts.total()))
    return parts


def shown(blocks: Iterable[Block]) -> np.ndarray:
    """Ids of the images whose epochs were recorded whole, in order."""
    return np.concatenate([block.ids[block.inside] for block in blocks])


def _averaged(rows: Iterator[dict | Statistics], counts: Mapping[str, int] | None) -> Iterator[dict | Statistics]:
    """One row an image where there are counts."""
    return rows if counts is None else mean_of_repeats(rows, "eeg", counts, np.float64)


def _recorded(
    sessions: Sequence[Session], images: Sequence[Image], facts: CorpusFacts, scaling: str,
    counts: Mapping[str, int] | None,
) -> Iterator[dict | Statistics]:  # fmt: skip
    """Rows of some sessions of a subject."""
    rows = chain.from_iterable(_session_rows(session, images, facts, scaling) for session in sessions)
    return _averaged(rows, counts)


def _session_rows(
    blocks: Session, images: Sequence[Image], facts: CorpusFacts, scaling: str
) -> Iterator[dict | Statistics]:
    """Rows of a session, block by block, scaled by its training epochs."""
    subject, session = f"sub-{blocks[0].subject:02d}", f"ses-{blocks[0].session:02d}"

    def epochs(block: Block, events: np.ndarray) -> Iterator[np.ndarray]:
        if not len(events):
            return iter(())
        return cut_epochs(signals_of(block, facts), block.samples[events], WINDOW, SPEC, PREPARATION)

    def training() -> Iterator[np.ndarray]:
        for block in blocks:
            kept = [images[number].split == "train" for number in block.ids.tolist()]
            yield from epochs(block, np.flatnonzero(block.inside & np.array(kept)))

    scale = fitted_scale(scaling, training, CHANNELS, f"{subject}, {session}")
    if scale.rms is not None:
        yield Statistics(subject, session, np.zeros_like(scale.rms), scale.rms)
    for block in blocks:
        used = np.flatnonzero(block.inside)
        for event, epoch in zip(used.tolist(), epochs(block, used), strict=True):
            image = images[block.ids[event]]
            yield {
                "subject": subject, "session": session, "run": f"block-{block.number:02d}",
                "trial": 10_000_000 * block.session + 10_000 * block.number + event, "image_id": image.image_id,
                "concept": image.concept, "n_repeats": 1, "split": image.split, "eeg": scale.of(epoch),
            }  # fmt: skip


def flat_parts(
    files: Sequence[FlatFile], images: Sequence[Image], tables: Sequence[Path], *, average: bool
) -> list[Part]:
    """Parts of what was preprocessed: a file each."""
    parts = []
    for one in files:
        counts = Counter(images[number].image_id for number in one.ids.tolist())
        rows = partial(_flat, one, images, counts if average else None)
        n_rows = len(counts) if average else len(one.ids)
        parts.append(Part(f"sub-{one.subject:02d}_{one.part}", rows, (one.path, one.table, *tables), n_rows))
    return parts


def _flat(file: FlatFile, images: Sequence[Image], counts: Mapping[str, int] | None) -> Iterator[dict | Statistics]:
    return _averaged(_flat_rows(file, images), counts)


def _flat_rows(file: FlatFile, images: Sequence[Image]) -> Iterator[dict]:
    """Rows of a file, in its order, which is that of presentation within a part."""
    values = opened_flat(file.path)
    for place, number in enumerate(file.ids.tolist()):
        recording = np.asarray(values[place], dtype=np.float32)
        if not np.isfinite(recording).all():
            raise DataError(f"'{file.path}' holds values of trial {place} that are not finite (NaN or infinite).")
        image = images[number]
        yield {
            "subject": f"sub-{file.subject:02d}", "session": f"ses-{int(file.sessions[place]):02d}",
            "run": f"block-{int(file.blocks[place]):02d}",
            "trial": place + (0 if file.part == "training" else 10_000_000), "image_id": image.image_id,
            "concept": image.concept, "n_repeats": 1, "split": image.split, "eeg": recording,
        }  # fmt: skip


def first_parts(
    shards: Shards, subjects: Sequence[int], splits: Mapping[int, str], scaling: str, *, average: bool
) -> list[Part]:
    """Parts of Alljoined1: by subject."""
    parts = []
    for subject in subjects:
        places = shards.of(subject)
        counts = Counter(image_id(number) for number in shards.numbers["73k_id"][places].tolist())
        rows = partial(_first, shards, subject, splits, scaling, counts if average else None)
        n_rows = len(counts) if average else len(places)
        parts.append(Part(f"sub-{subject:02d}", rows, shards.paths, n_rows))
    return parts


def _first(
    shards: Shards, subject: int, splits: Mapping[int, str], scaling: str, counts: Mapping[str, int] | None
) -> Iterator[dict | Statistics]:
    return _averaged(_first_rows(shards, subject, splits, scaling), counts)


def _first_rows(shards: Shards, subject: int, splits: Mapping[int, str], scaling: str) -> Iterator[dict | Statistics]:
    """Rows of a subject of Alljoined1, each session scaled by its training epochs, in the order of the files."""
    places, name = shards.of(subject), f"sub-{subject:02d}"
    sessions, blocks, ids = (shards.numbers[key] for key in ("session", "block", "73k_id"))
    train = np.array([splits[number] == "train" for number in ids[places].tolist()])
    scales = {}
    for session in np.unique(sessions[places]).tolist():
        training = partial(_epochs, shards, places[train & (sessions[places] == session)])
        scales[session] = fitted_scale(scaling, training, FIRST_CHANNELS, f"{name}, ses-{session:02d}")
        if (rms := scales[session].rms) is not None:
            yield Statistics(name, f"ses-{session:02d}", np.zeros_like(rms), rms)
    trials = dict(zip(places.tolist(), shards.trials(places).tolist(), strict=True))
    for place, epoch in shards.epochs(places):
        session, number = int(sessions[place]), int(ids[place])
        yield {
            "subject": name, "session": f"ses-{session:02d}", "run": f"block-{int(blocks[place]):02d}",
            "trial": trials[place], "image_id": image_id(number), "concept": "", "n_repeats": 1,
            "split": splits[number], "eeg": scales[session].of(epoch),
        }  # fmt: skip


def _epochs(shards: Shards, places: np.ndarray) -> Iterator[np.ndarray]:
    """Epochs of some rows."""
    return (epoch for _, epoch in shards.epochs(places))
