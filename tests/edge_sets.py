"""Prepared sets at the edge of what can be learnt from: few people, few images, targets that hardly differ."""

import numpy as np

from neural_clip.prepared.writer import write_prepared
from planted_data import READY

WIDTH = 16
SPLITS = {"train": range(16), "validation": range(16, 20), "test": range(20, 24)}
FEW = {"train": range(4), "validation": range(4, 6), "test": range(6, 8)}
PEOPLE = ("sub-01", "sub-02")


def embeddings(n=24, seed=1):
    return np.random.default_rng(seed).standard_normal((n, WIDTH))


def rows(people=PEOPLE, splits=SPLITS, shift=0):
    """Subject, number of the image and split of each recording; `shift` gives the second subject images of its own."""
    return [
        (name, number + shift * person, split)
        for person, name in enumerate(people)
        for split, numbers in splits.items()
        for number in numbers
    ]


def line(n=24):
    """Embeddings on one line, which differ in one direction."""
    return embeddings(1) + np.linspace(-2, 2, n)[:, None] * embeddings(1, seed=2)


ONE_ROW = [*rows(PEOPLE[:1]), ("sub-02", 0, "train"), ("sub-02", 20, "test")]
CASES = {
    "one person": (embeddings(), rows(PEOPLE[:1])),
    "the same images for both under other names": (np.tile(embeddings(), (2, 1)), rows(shift=24)),
    "targets of rank 1": (line(), rows()),
    "two vectors and their signs": (np.linspace(-2, 2, 24)[:, None] * embeddings(1), rows()),
    "a subject with one row": (embeddings(), ONE_ROW),
    "subjects with one row each": (
        embeddings(8), [("sub-01", 0, "train"), ("sub-02", 1, "train"), *rows(splits={**FEW, "train": []})]
    ),
    "more dimensions than images": (embeddings(8), rows(splits=FEW)),
    "two training images": (embeddings(8), rows(splits={**FEW, "train": range(2)})),
    "a subject without validation": (
        embeddings(), [*rows(PEOPLE[:1]), *(("sub-02", number, "train") for number in range(16))]
    ),
}  # fmt: skip


def write_set(folder, modality, embeds, recordings, constant=None):
    """A prepared data set whose recordings are linear in the embedding; one value of each can be constant."""
    rng = np.random.default_rng(0)
    size = (30,) if modality == "fmri" else (4, 6)
    maps = rng.standard_normal((WIDTH, int(np.prod(size))))
    named = {"concept": "c", "categories": []}
    images = [{"image_id": f"im{n:03d}", "image_embeds": row, **named} for n, row in enumerate(np.float32(embeds))]

    def written():
        for subject, number, split in recordings:
            values = (embeds[number] @ maps + rng.standard_normal(maps.shape[1])).reshape(size)
            if constant is not None:
                values[constant] = 0.37
            yield {"subject": subject, "image_id": images[number]["image_id"], "split": split, modality: values}

    stated = dict.fromkeys(("corpus", "split_protocol", "licence", "citation", "source"), "planted")
    metadata = stated | {"modality": modality, "split_unit": "image", "redistribution": "allowed"}
    metadata |= {"image_encoder": READY}
    if modality != "fmri":
        metadata |= {"sfreq": 100.0, "tmin": 0.0, "ch_names": list("abcd")}
    return str(write_prepared(folder, metadata, written(), images))
