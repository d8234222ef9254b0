"""Tests of neural_clip.simulation.images"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neural_clip.errors import DataError
from neural_clip.simulation import images

CENTRED = images.ImageSpec(
    shape=0, texture=0, colour=5, background=0, size=0.8, x=0.5, y=0.5, angle=0.0, seed=3
)  # a blue disc on a plain background


def _variant(**changes):
    """The centred blue disc with some fields changed."""
    return dataclasses.replace(CENTRED, **changes)


def test_forty_categories_are_indexed_by_shape_then_texture():
    assert len(images.CATEGORIES) == len(set(images.CATEGORIES)) == 40
    for shape in range(10):
        for texture in range(4):
            spec = _variant(shape=shape, texture=texture)
            assert spec.category == 4 * shape + texture
            assert spec.category_name == f"{images.TEXTURES[texture]} {images.SHAPES[shape]}"


def test_there_are_as_many_concepts_as_things_has():
    assert len(set(images.CONCEPTS)) == len(images.CONCEPTS) >= 1854
    assert "red_striped_star_on_grid" in images.CONCEPTS
    parts = [concept.split("_") for concept in images.CONCEPTS[:40]]
    assert {f"{texture} {shape}" for _, texture, shape, _, _ in parts} == set(images.CATEGORIES)


def test_rendering_is_the_same_bytes_again_with_cold_and_warm_tables():
    specs = images.sample_specs(60, np.random.default_rng(11))
    assert specs == images.sample_specs(60, np.random.default_rng(11))
    first = [images.render(spec) for spec in specs]
    images._distance_field.cache_clear()
    images._pixel_grid.cache_clear()
    for spec, before in zip(reversed(specs), reversed(first), strict=True):
        np.testing.assert_array_equal(images.render(spec), before)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), size=st.sampled_from([1, 32, 64, 100, 192]))
def test_every_sampled_image_is_a_uint8_rgb_array_with_a_visible_object(seed, size):
    spec = images.sample_specs(1, np.random.default_rng(seed))[0]
    image = images.render(spec, size=size)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8
    native = images.render(spec)
    outline = (native.max(axis=-1) < 40).mean()  # nearly black pixels: no background or fill is as dark
    assert 0.02 < outline < 0.35
    # The enclosing circle leaves the image by MARGIN at most.
    assert abs(spec.x - 0.5) + spec.size / 2 <= 0.5 + images.MARGIN + 1e-9
    assert abs(spec.y - 0.5) + spec.size / 2 <= 0.5 + images.MARGIN + 1e-9


def test_other_sizes_repeat_the_native_pixels():
    native = images.render(CENTRED)
    double = images.render(CENTRED, size=128)
    np.testing.assert_array_equal(double, native.repeat(2, axis=0).repeat(2, axis=1))


def test_disc_matches_its_geometry():
    """Independent oracle: which pixels are blue follows from the distance to the centre alone."""
    image = images.render(CENTRED).astype(int)
    blue = (np.abs(image - images.COLOURS["blue"]) <= 1).all(axis=-1)
    rows, columns = np.mgrid[:64, :64] + 0.5
    distance = np.hypot(rows - 32, columns - 32)
    radius = 0.9 * 0.8 * 32  # the disc fills 0.9 of the enclosing circle
    assert blue[distance < radius - 2.5].all()
    assert not blue[distance > radius].any()


def test_position_size_and_angle_move_the_object():
    def dark(spec):
        return np.argwhere(images.render(spec).max(axis=-1) < 60) + 0.5  # (n, 2) rows and columns of outline pixels

    shifted = images.render(_variant(x=0.6, y=0.45, size=0.6)).astype(int)
    blue = np.argwhere((np.abs(shifted - images.COLOURS["blue"]) <= 1).all(axis=-1)) + 0.5
    np.testing.assert_allclose(blue.mean(axis=0) / 64, [0.45, 0.6], atol=0.005)  # 0.3 pixels
    assert np.ptp(dark(_variant(size=0.9))[:, 0]) > 1.3 * np.ptp(dark(_variant(size=0.6))[:, 0])
    level, turned = (dark(_variant(shape=8, angle=angle)) for angle in (0.0, 25.0))
    tip, turned_tip = (points[points[:, 1].argmax()] for points in (level, turned))
    assert turned_tip[0] > tip[0] + 5  # the arrow's tip goes down: clockwise


def test_shapes_differ_by_many_pixels():
    masks = [images.render(_variant(shape=shape)).astype(int) for shape in range(len(images.SHAPES))]
    for a in range(10):
        for b in range(a):
            differing = (np.abs(masks[a] - masks[b]).sum(axis=-1) > 60).mean()
            assert differing > 0.08, (images.SHAPES[a], images.SHAPES[b])


def test_textures_backgrounds_and_colours_differ():
    for field, n in (("texture", 4), ("background", 6), ("colour", 8)):
        renderings = [images.render(_variant(**{field: value})).astype(int) for value in range(n)]
        for a in range(n):
            for b in range(a):
                assert (np.abs(renderings[a] - renderings[b]).sum(axis=-1) > 20).mean() > 0.05, (field, a, b)


def test_seed_changes_nuisances_only():
    a, b = _variant(seed=1), _variant(seed=2)
    assert (a.category, a.concept, a.caption) == (b.category, b.concept, b.caption)
    assert (images.render(a) != images.render(b)).any()


def test_caption_tells_the_facts():
    spec = images.ImageSpec(3, 1, 0, 1, size=0.88, x=0.4, y=0.6, angle=0.0, seed=0)
    assert spec.caption == "a large red striped star on a grid background at the bottom left"
    assert spec.concept == "red_striped_star_on_grid"


def test_sampling_honours_category_and_concept():
    rng = np.random.default_rng(0)
    assert {spec.category for spec in images.sample_specs(20, rng, category=13)} == {13}
    assert {spec.category for spec in images.sample_specs(5, rng, category=np.int64(13))} == {13}
    assert {spec.category_name for spec in images.sample_specs(20, rng, category="dotted ring")} == {"dotted ring"}
    concept = images.CONCEPTS[-1]
    assert {spec.concept for spec in images.sample_specs(20, rng, concept=concept)} == {concept}
    assert images.sample_specs(0, rng) == []
    # Uniform: 4,000 draws of 40 categories leave each within five standard deviations (10) of 100.
    counts = np.bincount([spec.category for spec in images.sample_specs(4000, rng)], minlength=40)
    assert counts.min() > 50 and counts.max() < 150


@pytest.mark.parametrize("category", [-1, 40, "striped blob"])
def test_unknown_category_is_refused(category):
    with pytest.raises(DataError, match="'category' parameter"):
        images.sample_specs(1, np.random.default_rng(0), category=category)


def test_unknown_concept_contradiction_and_size_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match=r"'concept' parameter.*blue_cat"):
        images.sample_specs(1, rng, concept="blue_cat")
    with pytest.raises(DataError, match="is of category 'striped star'"):
        images.sample_specs(1, rng, concept="red_striped_star_on_grid", category="solid star")
    with pytest.raises(DataError, match=r"'size' parameter.*got 0"):
        images.render(CENTRED, size=0)
