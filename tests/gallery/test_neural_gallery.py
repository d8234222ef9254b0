"""Searches of a gallery against loops over all pairs."""

import subprocess
import sys

import numpy as np

import neural_clip
from neural_clip.gallery.embedder import CheckpointIdentity
from neural_clip.gallery.neural_gallery import NeuralGallery
from neural_clip.targets.identity import EncoderIdentity
from planted_data import ENCODER, split_of

WIDTH = 6
CHECKPOINT = CheckpointIdentity("model", "0" * 64)
NAMED = ENCODER | {"projection_dim": WIDTH}


def planted(seed=0, n_images=9, n_rows=40):
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((n_images, WIDTH)).astype(np.float32)
    shown = np.r_[np.arange(n_images), rng.integers(0, n_images, n_rows - n_images)]
    ids = np.array([f"im{n}" for n in range(n_images)])
    concepts = {name: "cat" if n % 2 else "dog" for n, name in enumerate(ids)}
    subjects = np.array([f"sub-{n % 3}" for n in range(n_rows)])
    part = split_of(np.zeros((n_rows, 1)), subjects, ids[shown], images[shown], "meg", concepts=concepts,
                    image_encoder=NAMED)  # fmt: skip
    return part, images[shown] + 2 * rng.standard_normal((n_rows, WIDTH))


def order_of(query, vectors):
    """Rows from the most to the least alike, pair by pair."""
    cosines = [query @ row / np.sqrt((query @ query) * (row @ row)) for row in vectors]
    return sorted(range(len(vectors)), key=lambda row: -cosines[row])


def test_nearest_and_hits_equal_loops():
    part, vectors = planted()
    for gallery in (NeuralGallery.of_images(part), NeuralGallery.of_recordings(part, vectors)):
        queries = np.random.default_rng(1).standard_normal((7, WIDTH))
        nearest, hits = gallery.nearest(queries, 4), gallery.hits(queries, 3)
        for query, rows, found in zip(queries, nearest, hits, strict=True):
            order = order_of(query, gallery.vectors)
            assert rows.tolist() == order[:4]
            first = []
            for row in order:
                if gallery.image_ids[row] not in gallery.image_ids[first]:
                    first.append(row)
            assert found.tolist() == first[:3]


def test_places_without_another_image_are_marked():
    part, vectors = planted(n_images=2)
    hits = NeuralGallery.of_recordings(part, vectors).hits(vectors[:4])
    assert hits.shape == (4, 5) and (hits[:, :2] >= 0).all() and (hits[:, 2:] == -1).all()


def test_what_stands_behind_each_vector():
    part, vectors = planted()
    images, recordings = NeuralGallery.of_images(part), NeuralGallery.of_recordings(part, vectors, CHECKPOINT)
    assert (images.modalities, recordings.modalities) == (["image"], ["meg"])
    assert (len(images), len(recordings)) == (9, 40) and not any(images.subjects)
    assert images.image_ids.tolist() == sorted(set(part.image_ids)) and images.checkpoint is None
    assert images.encoder == recordings.encoder == EncoderIdentity.of_facts(NAMED)
    assert recordings.checkpoint == CHECKPOINT
    for row, image_id in enumerate(recordings.image_ids):
        assert image_id == part.image_ids[row] and recordings.subjects[row] == part.subjects[row]
        assert recordings.concepts[row] == ("cat" if int(image_id[2:]) % 2 else "dog")
    assert images.labels == recordings.labels == {"cat", "dog"}


def test_the_package_offers_it_without_heavy_imports():
    assert neural_clip.NeuralGallery is NeuralGallery and "NeuralGallery" in dir(neural_clip)
    code = (
        "import sys, neural_clip\n"
        "neural_clip.NeuralGallery\n"
        "heavy = {'torch', 'transformers', 'datasets', 'matplotlib', 'pandas', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
