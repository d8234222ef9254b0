"""Galleries beyond the split: all images, those of a split, and those of another data set."""

from dataclasses import replace

import numpy as np
import pytest

from neural_clip.errors import DataError
from neural_clip.gallery.neural_gallery import NeuralGallery
from neural_clip.gallery.searched import searched_images
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.writer import write_prepared
from planted_data import COUNTS, ENCODER, WIDTH, write_planted
from toy_sets import toy_facts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_planted(tmp_path_factory.mktemp("searched") / "eeg", "eeg", repeats=1, pixels=False)


def write_others(folder, names, embeds, **changes):
    """A data set of other images; each is shown once."""
    splits = ["train", "validation", *["test"] * (len(names) - 2)]
    rows = [
        {"subject": "sub-01", "image_id": name, "split": split, "eeg": np.full((3, 4), i + 1.0)}
        for i, (name, split) in enumerate(zip(names, splits, strict=True))
    ]
    images = [
        {"image_id": name, "concept": "other", "categories": ["other"], "image_embeds": np.asarray(vector, np.float32)}
        for name, vector in zip(names, embeds, strict=True)
    ]
    return write_prepared(folder, toy_facts(image_encoder=changes.pop("encoder", ENCODER), **changes), rows, images)


def test_all_images_and_those_of_a_split(folder):
    data = PreparedSet.open(folder)
    part = data.split("test")
    every = replace(part, searched=searched_images(part, "all"))
    assert len(every.gallery_ids) == sum(COUNTS.values()) and len(every.shown_ids) == COUNTS["test"]
    assert every.gallery_ids.tolist() == sorted(data.images.image_ids)
    for part_of in (part, every, replace(part, searched=searched_images(part, "test"))):
        assert part_of.gallery_ids[part_of.columns].tolist() == part_of.image_ids.tolist()
        assert part_of.gallery_ids[part_of.shown_columns].tolist() == part_of.shown_ids.tolist()
        np.testing.assert_array_equal(part_of.gallery_embeds[part_of.columns], part_of.targets)
        named = dict(zip(data.images.image_ids, data.images.concepts, strict=True))
        assert part_of.gallery_concepts == [named[name] for name in part_of.gallery_ids]
        gallery = NeuralGallery.of_images(part_of)
        assert len(gallery) == len(part_of.gallery_ids) == len(gallery.concepts) == len(gallery.categories)
    assert every.of_its_images().gallery_ids.tolist() == part.gallery_ids.tolist()
    assert part.at(np.arange(3)).searched is None and len(every.at(np.arange(3)).gallery_ids) == len(every.gallery_ids)
    with pytest.raises(
        DataError, match=r"The gallery lacks 24 of the 24 images that the test split .* such as 'eeg05"
    ):
        replace(part, searched=searched_images(part, "train"))


def test_another_set_joins_and_pictures_are_told_by_their_embeddings(folder, tmp_path):
    part = PreparedSet.open(folder).split("test")
    shown, embeds = part.shown_ids, part.gallery_embeds
    generator = np.random.default_rng(8)
    fresh = generator.standard_normal((3, WIDTH))
    names = ["same picture, other name", str(shown[0]), "new", "far"]  # the second: same name, another picture
    vectors = [embeds[5] * (1 + 1e-7), *fresh]
    other = write_others(tmp_path / "others", names, vectors)
    searched = searched_images(part, str(other))
    expected = {name: vector for name, vector in zip(shown.tolist(), embeds, strict=True)}
    expected |= {f"others/{shown[0]}": fresh[0], "new": fresh[1], "far": fresh[2]}
    assert searched.image_ids == sorted(expected)
    np.testing.assert_allclose(searched.embeds, [expected[name] for name in searched.image_ids], rtol=1e-6)
    assert searched.concepts[searched.image_ids.index("new")] == "other"
    assert replace(part, searched=searched).columns.max() < len(searched.image_ids)
    again = searched_images(part, str(folder))  # its own set: every picture once
    assert again.image_ids == searched_images(part, "all").image_ids


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (ENCODER | {"name": "another"}, "differ in 'name'. Embed the images"),
        (ENCODER | {"revision": "1"}, "differ in 'revision'"),
    ],
)
def test_another_space_is_refused(folder, tmp_path, encoder, message):
    part = PreparedSet.open(folder).split("test")
    vectors = np.random.default_rng(0).standard_normal((3, WIDTH))
    other = write_others(tmp_path / "others", ["a", "b", "c"], vectors, encoder=encoder)
    with pytest.raises(DataError, match=message):
        searched_images(part, str(other))


def test_another_set_without_embeddings_is_refused(folder, tmp_path):
    part = PreparedSet.open(folder).split("test")
    names = ["a", "b", "c"]
    rows = [
        {"subject": "sub-01", "image_id": name, "split": split, "eeg": np.full((3, 4), i + 1.0)}
        for i, (name, split) in enumerate(zip(names, ("train", "validation", "test"), strict=True))
    ]
    images = [{"image_id": name, "image": np.full((4, 4), 20 * i, np.uint8)} for i, name in enumerate(names)]
    other = write_prepared(tmp_path / "others", toy_facts(), rows, images)
    with pytest.raises(DataError, match=r"others' have no embeddings; run `neural-clip embed-images"):
        searched_images(part, str(other))


def test_what_is_no_gallery_is_named(folder, tmp_path):
    part = PreparedSet.open(folder).split("test")
    with pytest.raises(
        DataError, match=r"'all', 'train', 'validation', 'test' and 'FOLDER', but got 'al' instead\. Did"
    ):
        searched_images(part, "al")
    with pytest.raises(DataError, match="is no prepared data set"):
        searched_images(part, str(tmp_path))
    rows = [
        {"subject": "sub-01", "image_id": "a", "split": split, "run": split, "eeg": np.full((3, 4), i + 1.0)}
        for i, split in enumerate(("train", "validation", "test"))
    ]
    image = {"image_id": "a", "concept": "a", "categories": ["a"], "image_embeds": np.ones(WIDTH, np.float32)}
    facts = toy_facts(image_encoder=ENCODER, category_level=True, split_unit="run")
    categories = write_prepared(tmp_path / "categories", facts, rows, [image])
    with pytest.raises(DataError, match="images are categories in one only"):
        searched_images(part, str(categories))
