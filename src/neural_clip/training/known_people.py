"""What the recordings of people whom a checkpoint knows tell of tuning to images, by voxel place.

Their training rows give each one's tuning, their validation rows stay for a rehearsal. Test rows are never read.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.closed_form import LEAST_VARIANCE, ready, undoing
from neural_clip.evaluation.baselines.whitening import mean_of, reciprocal, row_blocks, squares_of, stacked
from neural_clip.gallery.building import SAME_IMAGE_COSINE
from neural_clip.gallery.fit import check_shape
from neural_clip.prepared.reader import PreparedSet, Split
from neural_clip.retrieval.scores import nearest_rows
from neural_clip.retrieval.tiles import unit_vectors
from neural_clip.training.record import recorded_facts
from neural_clip.training.voxel_kernels import MAX_SAMPLED, Kernels, Parcels, Sample
from neural_clip.training.voxel_prior import Tuning

MIN_PEOPLE = 2  # what two share cannot be told from what one has
MAX_KNOWN_PARCELS = 6000  # of all known people: one matrix of 288 MB, which is factored
IMAGES_A_COORDINATE = 4  # training images of a person for each coordinate of images whose tuning is estimated


@dataclass(frozen=True)
class ImageSpace:
    """Whitened coordinates of images: principal components of their embeddings at unit variance.

    Args:
        mean (`np.ndarray` of shape `(width,)`): Of the embeddings.
        into (`np.ndarray` of shape `(width, n_coordinates)`): From embeddings less their mean to coordinates.
        back (`np.ndarray` of shape `(n_coordinates, width)`): From coordinates to what the closed form predicts:
            embeddings with a share of their covariance undone, less what all images share ([`undoing`]).
    """

    mean: np.ndarray
    into: np.ndarray
    back: np.ndarray

    @classmethod
    def of(cls, targets: np.ndarray, most: int) -> ImageSpace:
        """The space of target vectors `(n_images, width)`, with `most` coordinates or fewer."""
        targets = np.asarray(targets, dtype=np.float64)
        mean = targets.mean(axis=0)
        variances, directions = np.linalg.eigh((targets - mean).T @ (targets - mean) / len(targets))
        if variances[-1] <= np.finfo(np.float32).eps ** 2 * (targets**2).sum(axis=1).mean():
            raise DataError(
                "The training images of known people have the same embedding; they tell nothing of tuning."
            )
        kept = np.flatnonzero(variances > LEAST_VARIANCE * variances[-1])[::-1][:most]
        variances, directions = variances[kept], directions[:, kept]
        back = (directions * np.sqrt(variances)).T @ undoing(targets)
        return cls(mean, directions / np.sqrt(variances), back)

    def coordinates(self, targets: np.ndarray) -> np.ndarray:
        """Of target vectors `(n, width)`, `(n, n_coordinates)`."""
        return (targets - self.mean) @ self.into


@dataclass(frozen=True)
class KnownPeople:
    """People whose tuning is carried over.

    Args:
        places (`dict[str, np.ndarray]`): Of the voxels of each, `(n_voxels, 3)` in mm.
        train, validation (`dict[str, Split]`): Their recordings, ready for a closed form.
        space ([`ImageSpace`]): Of their training images.
        tunings (`dict[str, Tuning]`): By their training rows.
        kernels ([`Kernels`]): Of all of them.
        record (`dict`): What the record of a checkpoint says of them.
    """

    places: dict[str, np.ndarray]
    train: dict[str, Split]
    validation: dict[str, Split]
    space: ImageSpace
    tunings: dict[str, Tuning]
    kernels: Kernels
    record: dict[str, Any]

    @classmethod
    def of(cls, known: PreparedSet, config: Any, data: PreparedSet, new: Sequence[str]) -> KnownPeople:
        """Read the recordings of those in a data set whom a model knows, and estimate what they have in common.

        Training rows are left out whose image is in the validation or test split of a new person, or in the
        validation split of a known one, except where "images" are categories.

        Args:
            known ([`PreparedSet`]): Recordings of known people, in the space of the model.
            config ([`FmriConfig`]): Of the model, before new people were added.
            data ([`PreparedSet`]): Recordings of the new people; of their validation and test splits only the images
                are looked up.
            new (sequence of `str`): The new people.

        Raises:
            DataError: If there are fewer than two, or places, recordings or images are missing or do not fit.
        """
        for opened in (data, known):
            if opened.facts.modality != "fmri":
                raise DataError(
                    f"`--prior places` is for fMRI, but '{opened.name}' holds {opened.facts.modality} recordings."
                )
        people = [name for name in known.facts.subjects if name in config.subjects]
        if unused := [name for name in known.facts.subjects if name not in people]:
            print(
                f"note: of '{known.name}' {unused} are not used, whom the checkpoint does not know.", file=sys.stderr
            )
        places = places_of(known, config, data, people, new)
        train, validation = (
            {name: ready(known.split(split, [name])) for name in people} for split in ("train", "validation")
        )
        if not known.facts.category_level:
            held_out = [data.split(split, [name]) for name in new for split in ("validation", "test")
                        if data.facts.subject_splits[name].get(split)]  # fmt: skip
            train = _without(train, held_out + list(validation.values()))
        n_images = min(len(split.shown_ids) for split in train.values())
        if n_images < 2 * IMAGES_A_COORDINATE:
            raise DataError(
                f"Someone in '{known.name}' has {n_images} training images that are in no validation split and not in "
                f"the test split of {list(new)}; `--prior places` needs {2 * IMAGES_A_COORDINATE} and more of each."
            )
        targets = np.concatenate([split.of_its_images().gallery_embeds for split in train.values()])
        space = ImageSpace.of(targets, n_images // IMAGES_A_COORDINATE)
        found = {
            name: tuning_of(train[name], space, places[name], MAX_KNOWN_PARCELS // len(people)) for name in people
        }
        kernels = Kernels.estimated([sample for _, sample in found.values()])
        record = recorded_facts(known.facts, people) | {
            "simulated": bool(known.facts.simulated), "space": known.places_space,
            "n_coordinates": space.into.shape[1], "kernels": kernels.as_dict(),
            "train_rows": {name: len(split) for name, split in train.items()},
        }  # fmt: skip
        return cls(places, train, validation, space, {name: one for name, (one, _) in found.items()}, kernels, record)


def places_of(
    known: PreparedSet, config: Any, data: PreparedSet, people: Sequence[str], new: Sequence[str]
) -> dict[str, np.ndarray]:
    """Places of the voxels of known and of new people; a `DataError` where they do not fit or somebody has none."""
    if len(people) < MIN_PEOPLE:
        raise DataError(
            f"`--prior places` needs recordings of {MIN_PEOPLE} people and more whom the checkpoint knows, to tell "
            f"what they share; of {list(config.subjects)}, '{known.name}' has {people}."
        )
    check_shape(config, known, people)
    if unlike := [found.name for found in (known, data) if found.places_space is None]:
        raise DataError(
            f"'{unlike[0]}' does not say where voxels lie in a space that people share, which `--prior places` needs. "
            "Prepare it with places of voxels (MNI152 or fsaverage)."
        )
    if known.places_space != data.places_space:
        raise DataError(
            f"The voxels of '{known.name}' have places in {known.places_space}, those of '{data.name}' in "
            f"{data.places_space}. `--prior places` needs one space: prepare both in the same."
        )
    for name in people:
        for split in ("train", "validation"):
            if not known.facts.subject_splits[name].get(split):
                raise DataError(f"'{known.name}' has no {split} recordings of {name!r}; `--prior places` needs some.")
    found = {}
    for where, names in ((known, people), (data, new)):
        for name in names:
            own = where.voxel_places(name)
            if own is None:
                raise DataError(
                    f"'{where.name}' does not know where the voxels of {name!r} lie in {where.places_space}, which "
                    "`--prior places` needs."
                )
            found[name] = np.asarray(own, dtype=np.float64)
    return found


def _without(train: Mapping[str, Split], held_out: Sequence[Split]) -> dict[str, Split]:
    """Training rows whose image is in none of the held-out splits, by id or by embedding."""
    ids = np.unique(np.concatenate([split.shown_ids for split in held_out]))
    embeds = unit_vectors(np.concatenate([split.of_its_images().gallery_embeds for split in held_out]))
    found = {}
    for name, split in train.items():
        shown = unit_vectors(split.of_its_images().gallery_embeds)
        nearest = embeds[nearest_rows(shown, embeds)[:, 0]]
        same = split.shown_ids[np.einsum("ij,ij->i", shown, nearest) >= SAME_IMAGE_COSINE]
        found[name] = split.at(np.flatnonzero(~np.isin(split.image_ids, np.concatenate([ids, same]))))
    return found


def tuning_of(train: Split, space: ImageSpace, places: np.ndarray, most: int) -> tuple[Tuning, Sample]:
    """Least squares from the coordinates of images to the standardised voxels of one person; rows are read by blocks.

    Args:
        train ([`Split`]): Recordings of one person.
        space ([`ImageSpace`]): Of coordinates.
        places (`np.ndarray` of shape `(n_voxels, 3)`): In mm.
        most (`int`): Parcels.
    """
    rows = np.arange(len(train))
    mean = mean_of(train, rows)
    scale = reciprocal(np.sqrt(squares_of(train, rows, mean) / len(rows))).astype(np.float32)
    if not (np.isfinite(mean).all() and np.isfinite(scale).all()):
        raise DataError(
            f"The training recordings of {train.subjects[0]!r} in '{train.data.name}' hold NaN or infinity. Prepare "
            "the data set again from whole recordings, or without these."
        )
    z = space.coordinates(train.targets)
    z = (z - z.mean(axis=0)).astype(np.float32)
    chosen = np.sort(np.random.default_rng(0).permutation(len(places))[:MAX_SAMPLED])
    sampled, products = np.empty((len(rows), len(chosen)), dtype=np.float32), np.zeros((z.shape[1], len(places)))
    for part in row_blocks(train, rows):
        values = (stacked(train, rows[part]) - mean) * scale
        products += z[part].T @ values
        sampled[part] = values[:, chosen]
    inverse = np.linalg.pinv(np.asarray(z.T @ z, dtype=np.float64), hermitian=True)  # a person may lack a direction
    weights, share = inverse @ products, float(np.trace(inverse)) / len(inverse)
    left = sampled - z @ weights[:, chosen]
    noise = left.T @ left / (len(rows) - 1 - len(inverse))
    parcels = Parcels.of(places, most)
    sample = Sample(places[chosen], weights[:, chosen], noise, share)
    return Tuning(parcels, parcels.gathered(weights), share), sample
