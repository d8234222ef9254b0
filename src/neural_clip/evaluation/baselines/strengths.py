"""What baselines need of recordings, and by what the strength of a ridge is chosen.

The scores of validation rows; where these show fewer than two images, those of training rows, each predicted from the
rows of other folds. As in the test, what is held out is new: images, or recordings of images that are trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary, ref

import numpy as np

from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.ridge import RELATIVE_ALPHAS
from neural_clip.evaluation.baselines.targets import TARGET_ROWS
from neural_clip.prepared.image_table import ImageTable
from neural_clip.prepared.reader import Split
from neural_clip.retrieval.scores import two_way_accuracy
from neural_clip.retrieval.tiles import steps, unit_vectors

ROWS_LOOKED_AT, RUN = 256, 32  # in stretches, of which each is read at once
LEAST_DEVIATION, MOST_DEVIATION = 1e-16, 1e16  # MEG in T deviates by 1e-13
FOLD_SEED = 0
N_FOLDS = 5  # over training recordings
MIN_CHOSEN_BY = 2  # images that are told apart
BY_VALIDATION, BY_HELD_OUT = "validation recordings", "held-out training recordings"  # a strength is chosen
MAX_GRID_SIZE = 4000  # rows of a matrix for which every strength is tried; a larger one is factored for a few
FIRST_TRIED = 7  # of `RELATIVE_ALPHAS`, with its neighbours: 10^0.5, about where single trials have their best
MAX_CHUNK = 2**23  # cosines that are compared at a time: 64 MB
_UNITS: WeakKeyDictionary[ImageTable, ref[ImageTable]] = WeakKeyDictionary()  # at unit length, while somebody has them


def require_rows(train: Split, validation: Split) -> None:
    """Raise a `DataError` where there is nothing to fit on, nothing to choose by, or numbers cannot be squared."""
    if not len(train):
        raise DataError("There are no training recordings to fit it on.")
    if not can_choose(validation) and (count := n_told_apart(train)) < MIN_CHOSEN_BY:
        raise DataError(
            "Its strength is chosen on validation images, two at least, or by folds over training images, two at "
            f"least, but there are {n_told_apart(validation)} and {count}."
        )
    numbers = np.concatenate([np.ravel(values) for values in _some(train)]).astype(np.float64)
    if not np.isfinite(numbers).all():
        raise DataError("The training recordings hold NaN or infinity.")
    deviation = float(numbers.std())
    if deviation and not LEAST_DEVIATION < deviation < MOST_DEVIATION:
        raise DataError(
            f"The training recordings deviate by {deviation:.2g}, and of such numbers float32 holds no squares. Scale "
            "the recordings."
        )


def can_choose(validation: Split) -> bool:
    """Whether a strength can be chosen by the rows of a validation split: two of its images are told apart."""
    embeds, rows = validation.data.images.embeds, validation.data.images.rows_of(validation.shown_ids)
    return any((embeds[rows[part]] != embeds[rows[:1]]).any() for part in steps(len(rows), TARGET_ROWS))


def require_validation(validation: Split) -> None:
    """Raise a `DataError` where validation rows alone can choose, and cannot."""
    if not can_choose(validation):
        raise DataError(
            "Its strength is chosen on validation images, two at least, but there are "
            f"{n_told_apart(validation)}; those of the same embedding count once."
        )


def _some(train: Split) -> list[np.ndarray]:
    """Some recordings from all over a split."""
    n_runs = max(ROWS_LOOKED_AT // RUN, 1)
    length = min(RUN, ROWS_LOOKED_AT)
    if len(train) <= n_runs * length:
        return list(train.values(np.linspace(0, len(train) - 1, min(len(train), ROWS_LOOKED_AT)).astype(int)))
    starts = np.linspace(0, len(train) - length, n_runs).astype(int)
    return [row for start in starts for row in train.values(np.arange(start, start + length))]


def with_unit_targets(split: Split) -> Split:
    """The same split, the embeddings of its images at unit length: they are compared by their cosine.

    Splits of the same images share one copy of these: of many images it takes half a gigabyte.
    """
    data, before = split.data, split.data.images
    images = _UNITS[before]() if before in _UNITS else None
    if images is None:
        images = replace(before, embeds=unit_vectors(before.embeds))
        _UNITS[before] = ref(images)
    return replace(split, data=data.with_facts(data.facts, images))


def are_voxels(split: Split) -> bool:
    """Whether recordings are rows of voxels, which do not correspond between subjects."""
    return split.values([0])[0].ndim == 1


def subjects_of(train: Split, *others: Split) -> list[str]:
    """Subjects to fit, in order; all must have training rows."""
    known = sorted(set(train.subjects.tolist()))
    unknown = sorted({subject for split in others for subject in split.subjects.tolist()} - set(known))
    if unknown:
        raise DataError(f"Subject '{unknown[0]}' has no training rows; ridge regression is fitted for {known}.")
    return known


def told_apart(split: Split) -> np.ndarray:
    """Image of each row, `(n,)` str; images of one embedding are one, by whatever names: it has the first of these."""
    shown, images = split.shown_ids, split.data.images
    rows, first, names = images.rows_of(shown), dict[bytes, str](), shown.copy()
    for part in steps(len(shown), TARGET_ROWS):
        embeds = images.embeds[rows[part]] + 0.0  # of which -0.0 is 0.0
        for number, embed in enumerate(embeds, start=part.start):
            names[number] = first.setdefault(hashlib.sha256(embed.data).digest(), shown[number])
    return names[np.searchsorted(shown, split.image_ids)]


def n_told_apart(split: Split) -> int:
    """Images of a split that are told apart."""
    return len(set(told_apart(split).tolist())) if len(split) else 0


def share_seen(embeds: np.ndarray, learnt: np.ndarray) -> float:
    """Share of image embeddings `(n, projection_dim)` that are among others, bit for bit."""
    known = {row.tobytes() for row in learnt}
    return float(np.mean([row.tobytes() in known for row in embeds]))


def image_folds(image_ids: np.ndarray, n_folds: int) -> np.ndarray:
    """Fold of each row; all rows of an image share one.

    Folds hold as many images to one, and rows as equally as that allows. Images come in random order, those of most
    rows first. Of each `n_folds` of them, every fold gets one: that of most rows the fold with the fewest so far.
    """
    unique, codes, counts = np.unique(image_ids, return_inverse=True, return_counts=True)
    turns = np.random.default_rng(FOLD_SEED).permutation(len(unique))
    ordered = np.lexsort((turns, -counts))
    of_image, sizes = np.zeros(len(unique), dtype=np.int64), np.zeros(n_folds, dtype=np.int64)
    for start in range(0, len(unique), n_folds):
        several = ordered[start : start + n_folds]
        folds = np.argsort(sizes, kind="stable")[: len(several)]
        of_image[several] = folds
        sizes[folds] += counts[several]
    return of_image[codes]


@dataclass(frozen=True)
class Folds:
    """What is held out of training rows in turn.

    Args:
        of_rows (`np.ndarray` of shape `(n_rows,)`, int): Fold of each, from 0 on.
        over (`str`): What a fold holds: `"images"`, `"runs"` or `"recordings"`.
        n_images (`int`): Images of all rows that are told apart.
    """

    of_rows: np.ndarray
    over: str
    n_images: int

    @property
    def count(self) -> int:
        """Of folds."""
        return int(self.of_rows.max()) + 1


def folds_of_rows(train: Split, scored: Split) -> Folds:
    """Folds by which strengths are chosen where there are no validation images, [`N_FOLDS`] where that can be.

    Images are held out where those of `scored` are new. Where most of them are trained on, as categories are, the test
    asks for new recordings of known images: each subject's runs are held out, or where nobody has two,
    recordings of each image that follow each other.
    """
    images = told_apart(train)
    n_images = len(set(images.tolist()))
    if not len(scored) or share_seen(*(each.shown_images.embeds for each in (scored, train))) <= 0.5:
        return Folds(image_folds(images, min(N_FOLDS, n_images)), "images", n_images)
    runs = runs_of(train)
    if (n_runs := int(runs.max()) + 1) > 1:
        return Folds(runs % min(N_FOLDS, n_runs), "runs", n_images)
    return Folds(_stretches(train.subjects, images, N_FOLDS), "recordings", n_images)


def runs_of(split: Split) -> np.ndarray:
    """Number of the run of each recording among its subject's, in random order, `(n,)` int; 0 of what is in memory."""
    found = np.zeros(len(split), dtype=np.int64)
    if isinstance(split.recordings, np.ndarray | list):
        return found
    labels = split.labels("session", "run").astype(str).agg("/".join, axis=1).to_numpy()
    for name in set(split.subjects.tolist()):
        own = split.subjects == name
        unique, codes = np.unique(labels[own], return_inverse=True)
        found[own] = np.random.default_rng(FOLD_SEED).permutation(len(unique))[codes]
    return found


def _stretches(subjects: np.ndarray, images: np.ndarray, n_folds: int) -> np.ndarray:
    """Fold of each row: what each subject has of an image is cut into stretches of neighbours.

    Where that is less than a row for each fold, images begin with different folds, so that all are about as large.
    """
    folds = np.zeros(len(images), dtype=np.int64)
    pairs = np.unique(np.stack([subjects.astype(str), images.astype(str)]), axis=1, return_inverse=True)[1].ravel()
    for pair in range(int(pairs.max()) + 1):
        own = np.flatnonzero(pairs == pair)
        first = pair if len(own) < n_folds else 0
        folds[own] = (np.arange(len(own)) * n_folds // len(own) + first) % n_folds
    return np.unique(folds, return_inverse=True)[1]


def n_folds_of(train: Split, validation: Split) -> int:
    """Folds by which a strength is chosen; 0 where validation rows choose it."""
    if can_choose(validation) or not len(train):
        return 0
    return min(N_FOLDS, n_told_apart(train))


def validation_two_way(predictions: np.ndarray, validation: Split) -> float:
    """2-way score of predictions `(n_rows, projection_dim)` among the images of their split."""
    _, first = np.unique(validation.image_ids, return_index=True)
    gallery, ids = unit_vectors(validation.targets_of(first)), validation.image_ids[first]
    step = max(MAX_CHUNK // len(ids), 1)
    total = 0.0
    for start in range(0, len(predictions), step):
        part = slice(start, start + step)
        cosines = unit_vectors(predictions[part]) @ gallery.T
        found = two_way_accuracy(cosines, validation.image_ids[part], ids, tolerance=1e-9)
        total += found * len(cosines) / len(predictions) if len(cosines) < len(predictions) else found
    return total


def best_of(scores: dict[int, float]) -> int:
    """Position of the highest score; the stronger ridge wins a tie."""
    return max(scores, key=lambda number: (scores[number], number))


def walked(score: Callable[[list[int]], list[float]], size: int, first: int = FIRST_TRIED) -> dict[int, float]:
    """Scores of strengths, by their position in `RELATIVE_ALPHAS`.

    All of them; with a large matrix those around the best, which is walked to until both neighbours are known.

    Args:
        score (`Callable`): Gives the scores of strengths by their positions.
        size (`int`): Rows of the matrix that is factored for each.
        first (`int`): Position that is tried first, with its neighbours.
    """
    last, found = len(RELATIVE_ALPHAS) - 1, dict[int, float]()
    middle = min(first, max(last - 1, 0))
    wanted = list(range(last + 1)) if size <= MAX_GRID_SIZE else [middle - 1, middle, middle + 1]
    while wanted := [number for number in wanted if 0 <= number <= last and number not in found]:
        found |= dict(zip(wanted, score(wanted), strict=True))
        best = best_of(found)
        wanted = [best - 1, best + 1]
    return found
