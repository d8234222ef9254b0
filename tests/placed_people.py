"""Prepared fMRI of people whose tuning to images depends on where a voxel lies, alike in all of them or in none."""

import numpy as np

from neural_clip.prepared.writer import write_prepared
from planted_data import READY, WIDTH

PEOPLE = ("sub-01", "sub-02", "sub-03", "sub-04")
IMAGES = {"train": 80, "validation": 30, "test": 40}  # of each person; those of the test split are everybody's
LENGTH = 12.0  # mm, of tuning


def places_of(person, n_voxels=90):
    """Voxels in a block of 30 x 30 x 20 mm, `(n_voxels, 3)`; those of two people do not correspond."""
    rng = np.random.default_rng([3, person])
    return (rng.uniform(0, 1, (n_voxels + 5 * person, 3)) * (30, 30, 20)).astype(np.float32)


def smooth(places, n_maps, seed):
    """Random functions of place with a Gaussian covariance of unit variance, `(n_maps, n_voxels)`."""
    rng = np.random.default_rng(seed)
    frequencies, phases = rng.standard_normal((3, 400)) / LENGTH, rng.uniform(0, 2 * np.pi, 400)
    return (np.cos(places @ frequencies + phases) @ rng.standard_normal((400, n_maps))).T / np.sqrt(200)


def tuning(person, shared):
    """Of an embedding's `WIDTH` directions, `(WIDTH, n_voxels)`; a share of its variance is everybody's at a place."""
    places = places_of(person)
    if not shared:
        return np.random.default_rng([5, person]).standard_normal((WIDTH, len(places)))
    own = np.random.default_rng([5, person]).standard_normal((WIDTH, len(places)))
    return np.sqrt(shared) * smooth(places, WIDTH, 4) + np.sqrt(1 - shared) * own


def write_people(folder, shared=0.8, *, people=PEOPLE, noise=6.0, seed=0, repeats=1, images=IMAGES, rank=WIDTH,
                 **changes):  # fmt: skip
    """Write a prepared data set of some of `PEOPLE`; `changes` are keywords of the writer and facts by name.

    Embeddings of images differ in `rank` directions.
    """
    rng = np.random.default_rng([seed, 11])
    pool = [("test", f"all-{number:03d}", None) for number in range(images["test"])]
    for person in people:
        for split in ("train", "validation"):
            pool += [(split, f"{person}-{split}-{number:03d}", person) for number in range(images[split])]
    vectors = rng.standard_normal((len(pool), WIDTH)).astype(np.float32)
    if rank < WIDTH:
        vectors = vectors[:, :rank] @ vectors[:rank] + vectors[-1]
    rows = [
        {"image_id": image_id, "concept": "thing", "categories": ["thing"], "image_embeds": vector}
        for (_, image_id, _), vector in zip(pool, vectors, strict=True)
    ]
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) * np.sqrt(WIDTH)

    def recordings():
        for person in people:
            weights = tuning(PEOPLE.index(person), shared)
            own = np.random.default_rng([seed, 12, PEOPLE.index(person)])
            for (split, image_id, whose), unit in zip(pool, units, strict=True):
                for _ in range(repeats if whose in (None, person) else 0):
                    values = unit @ weights + noise * own.standard_normal(weights.shape[1])
                    yield {"subject": person, "image_id": image_id, "split": split, "fmri": values}

    places = {person: places_of(PEOPLE.index(person)) for person in people}
    words = {"places": changes.pop("places", places)}
    facts = {
        "corpus": "placed", "modality": "fmri", "split_protocol": "planted", "split_unit": "image",
        "licence": "none", "redistribution": "allowed", "citation": "none", "source": "planted",
        "image_encoder": READY, "places_space": "MNI152" if words["places"] else None,
        "simulated": {"preset": "planted", "seed": seed, "ceiling": {"two_way": 0.99, "what it knows": "all"}},
    } | changes  # fmt: skip
    return write_prepared(folder, facts, recordings(), rows, **words)
