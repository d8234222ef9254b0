"""A new fMRI person's closed form, blended with other people's tuning that is carried over by voxel place.

Whether that helps is rehearsed: each known person is taken for a new one in turn, with as many images as the new
person has, and read by the tuning of the others. The weight with the lowest cross-entropy on the validation rows of
the known people is taken, and only if its gain there in 2-way accuracy has an interval above zero: over the best of
what does without the tuning of others, which is the closed form alone, or blended with a prior that knows how alike
neighbouring voxels are and expects no tuning of any. Otherwise the closed form stays as it is, bit for bit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neural_clip.evaluation.baselines.closed_form import choose, cross_entropy, ready, undoing
from neural_clip.evaluation.baselines.closed_form_fit import fit_of
from neural_clip.evaluation.baselines.ridge import one_thread
from neural_clip.evaluation.baselines.whitening import reciprocal, stacked
from neural_clip.prepared.reader import Split
from neural_clip.retrieval.scores import scores_and_contributions
from neural_clip.retrieval.tiles import unit_vectors
from neural_clip.retrieval.uncertainty import bootstrap_interval
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.closed_form import UNFITTED, joined, reason_of
from neural_clip.training.closed_form_maps import Maps
from neural_clip.training.known_people import ImageSpace, KnownPeople
from neural_clip.training.ridge_start import of_subject
from neural_clip.training.voxel_kernels import Parcels
from neural_clip.training.voxel_prior import Prior

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of what is carried over
N_DRAWS = 2  # of images for each known person
LEVEL = 0.99  # of the interval, as the best of several weights is looked at
MAX_PARCELS = 2000  # of the person to whom tuning is carried over
MAX_IMAGES = 1000  # of a new person; with more there is nothing to gain, and rehearsing takes long
ROWS_OF_ALL = 20  # recordings for which the variance of all voxels stands beside that of each

Map = tuple[np.ndarray, np.ndarray]  # weights (n_voxels, width) and offset (width,)


@dataclass(frozen=True)
class Carried:
    """What is blended with a closed form.

    Args:
        prior ([`Prior`]): Of one person.
        space ([`ImageSpace`]): Of its coordinates.
        weight (`float`): Of what is carried over, 0 to 1; the closed form has the rest.
    """

    prior: Prior
    space: ImageSpace
    weight: float

    def __call__(self, maps: Maps, train: Split) -> Maps:
        """The blend of a person's closed form with what is carried over, both on the same rows."""
        (name,) = maps.offsets
        pair = maps_of_equal_noise(self.prior, self.space, maps, train)
        weights, offset = (self.weight * one + (1 - self.weight) * other for one, other in zip(*pair, strict=True))
        largest = max(float(np.abs(weights).max()), float(np.finfo(np.float32).tiny))
        scaled, moved = ((each / largest).astype(np.float32) for each in (weights, offset))
        return replace(maps, weights={name: scaled}, offsets={name: moved})


def maps_of_equal_noise(prior: Prior, space: ImageSpace, maps: Maps, train: Split) -> tuple[Map, Map]:
    """What is carried over to a person, and the closed form, so that the noise of recordings counts alike in both."""
    (name,) = maps.offsets
    values = np.asarray(stacked(train, np.arange(len(train))), dtype=np.float64)
    mean, scale = values.mean(axis=0), scale_of_few(values)
    decoder = prior.decoder(space.coordinates(train.targets), (values - mean) * scale)
    carried, own = decoder.weights @ space.back, maps.weights[name]
    noises = [decoder.noise_of(each) for each in (carried, reciprocal(scale)[:, None] * own)]
    first, second = reciprocal(np.sqrt(noises))
    carried = first * scale[:, None] * carried
    return (carried, -mean @ carried), (second * own, second * maps.offsets[name])


def scale_of_few(values: np.ndarray) -> np.ndarray:
    """Reciprocal deviation of each voxel, `(n_voxels,)`; with few recordings `(n, n_voxels)` near that of all."""
    variances = values.var(axis=0)
    shrunk = (len(values) * variances + ROWS_OF_ALL * variances.mean()) / (len(values) + ROWS_OF_ALL)
    return reciprocal(np.sqrt(shrunk))


@one_thread
def carried_over(
    people: KnownPeople, train: RecordingDataset, validation: RecordingDataset, name: str, seed: int
) -> tuple[Carried | None, dict[str, Any]]:
    """What is blended with the closed form of a new person, if rehearsal says that it helps, and the record of it.

    Args:
        people ([`KnownPeople`]): Whose tuning is carried over.
        train, validation ([`RecordingDataset`]): Of the new person and perhaps others.
        name (`str`): The new person.
        seed (`int`): Of the images that are drawn.
    """
    started = time.monotonic()
    parts = [of_subject(part, part.subjects.index(name)).part for part in (train, validation)]
    n_images, n_rows = [len(part.shown_ids) for part in parts], sum(map(len, parts))
    found: dict[str, Any] = {"weight": 0.0}
    if not people.kernels.shared.variances.any():
        found["left_out"] = "The known people's tuning is not alike at the same place."
    elif sum(n_images) > MAX_IMAGES:
        found["left_out"] = f"{sum(n_images)} images are more than the {MAX_IMAGES} up to which it may help."
    else:
        try:
            found |= rehearsed(people, n_images[0], n_images[1], -(-n_rows // sum(n_images)), seed)
        except UNFITTED as error:
            found["left_out"] = reason_of(error)
    told = found.get("left_out") or f"it counts {found['weight']:.2f}."
    print(f"prior by places of {name}: {told} ({time.monotonic() - started:.1f} s)", file=sys.stderr)
    if not found["weight"]:
        return None, found
    return Carried(_prior(people, name), people.space, found["weight"]), found


def _prior(people: KnownPeople, name: str) -> Prior:
    """What all others tell of somebody."""
    others = [tuning for other, tuning in people.tunings.items() if other != name]
    return Prior.of(others, Parcels.of(people.places[name], MAX_PARCELS), people.kernels)


def rehearsed(people: KnownPeople, n_train: int, n_validation: int, n_repeats: int, seed: int) -> dict[str, Any]:
    """Take each known person for a new one; the record of it, with the `weight` that is chosen.

    Args:
        people ([`KnownPeople`]): Two and more.
        n_train, n_validation (`int`): Images of the new person in either split; fewer where somebody has fewer.
        n_repeats (`int`): Recordings of an image, at most.
        seed (`int`): Of the images that are drawn.
    """
    least = min(len(split.shown_ids) for split in people.train.values())
    n_validation = min(n_validation, max(least // 4, 2))
    n_train = min(n_train, least - n_validation)
    entropies, hits, images = [], [], []
    for number, name in enumerate(people.tunings):
        prior, scored = _prior(people, name), people.validation[name]
        priors = prior.without_others(people.kernels), prior
        images += scored.image_ids.tolist()
        draws = []
        for draw in range(N_DRAWS):
            rng = np.random.default_rng([seed, number, draw])
            train, validation = drawn(people.train[name], n_train, n_validation, n_repeats, rng)
            closed = own_closed_form(train, validation)
            pairs = [maps_of_equal_noise(each, people.space, *closed) for each in priors]
            draws.append([_scores(pair, scored) for pair in pairs])
        entropies.append(np.mean([[[one for one, _ in row] for row in draw] for draw in draws], axis=0))
        hits.append(np.mean([[[two_way for _, two_way in row] for row in draw] for draw in draws], axis=0))
    found = {"images": {"train": n_train, "validation": n_validation}, "draws": N_DRAWS}
    return decided(np.mean(entropies, axis=0), np.concatenate(hits, axis=2), images, found)


def decided(
    entropies: np.ndarray, two_way: np.ndarray, images: Sequence[str], found: dict[str, Any]
) -> dict[str, Any]:
    """What rehearsal says.

    Args:
        entropies (`np.ndarray` of shape `(2, n_weights)`): Without and with the tuning of others, for `WEIGHTS`.
        two_way (`np.ndarray` of shape `(2, n_weights, n_rows)`): Of each rehearsed recording.
        images (sequence of `n_rows` `str`): What was shown.
        found (`dict`): What else the record says.
    """
    alone, best = (int(np.argmin(row)) for row in entropies)
    gain = two_way[1, best] - two_way[0, alone]
    low, high = bootstrap_interval(gain, images, seed=0, level=LEVEL)
    helps = best > 0 and low > 0
    record: dict[str, Any] = {"weight": WEIGHTS[best] if helps else 0.0}
    if not helps:
        record["left_out"] = "Rehearsal on the known people does not say that it helps."
    tables = {
        name: [
            {"weight": weight, "cross_entropy": float(entropy), "two_way": float(score)}
            for weight, entropy, score in zip(WEIGHTS, entropies[row], two_way[row].mean(axis=1), strict=True)
        ]
        for row, name in enumerate(("without_others", "with_others"))
    }
    found |= tables | {"best": WEIGHTS[best], "best_without_others": WEIGHTS[alone]}
    return record | {"rehearsal": found | {"gain": float(gain.mean()), "interval": [low, high], "level": LEVEL}}


def drawn(
    split: Split, n_train: int, n_validation: int, n_repeats: int, rng: np.random.Generator
) -> tuple[Split, Split]:
    """Recordings of so many images, drawn at random, for training and for validation."""
    order = rng.permutation(split.shown_ids)
    seen: dict[str, int] = {}
    early = []  # recordings among the first `n_repeats` of their image
    for image_id in split.image_ids.tolist():
        seen[image_id] = seen.get(image_id, 0) + 1
        early.append(seen[image_id] <= n_repeats)
    first, second = (
        split.at(np.flatnonzero(np.isin(split.image_ids, chosen) & early))
        for chosen in (order[:n_train], order[n_train : n_train + n_validation])
    )
    return first, second


def own_closed_form(train: Split, validation: Split) -> tuple[Maps, Split]:
    """The closed form of one person as `neural-clip adapt` fits it without a prior, and the rows behind it."""
    choice, _ = choose(train, validation)
    everything = ready(joined(train, validation))
    transform = undoing(everything.shown_images.embeds)
    return Maps.of(fit_of(choice.fit.way, everything), choice.relative_alpha, transform), everything


def _scores(maps: tuple[Map, Map], scored: Split) -> list[tuple[float, np.ndarray]]:
    """Cross-entropy, and 2-way accuracy of each row, of what blends of two maps make of recordings; for `WEIGHTS`."""
    values = stacked(scored, np.arange(len(scored)))
    carried, own = (values @ weights + offset for weights, offset in maps)
    found, shown = [], scored.of_its_images()
    for weight in WEIGHTS:
        predictions = weight * carried + (1 - weight) * own
        units = unit_vectors(predictions).astype(np.float32)
        two_way = scores_and_contributions(units, shown.targets, shown.image_ids.tolist())[1]["two_way"]
        found.append((cross_entropy(predictions, scored), two_way))
    return found
