"""The images of the THINGS twins: one name is one picture, in about the proportions of the real corpora."""

import json
from dataclasses import replace

import numpy as np
import pytest

from neural_clip.errors import DataError
from neural_clip.prepared.splits import validation_split
from neural_clip.simulation import things_eeg2_twin, things_fmri_twin, things_meg_twin
from neural_clip.simulation.generative import simulated_stamp
from neural_clip.simulation.images import render
from neural_clip.simulation.presets import get_preset
from neural_clip.simulation.simulate import simulate
from neural_clip.simulation.things_images import OWN_NUMBER, ThingsImages, concept_of


def shown(name, seed):
    """By corpus and kind, the picture of each image name."""
    preset = get_preset(name)
    images = ThingsImages(preset, seed)
    found = {}
    for stimulus in things_meg_twin.make_stimuli(preset.meg, np.random.default_rng([seed, 101])):
        found.setdefault(f"meg {stimulus.kind}", {})[stimulus.file[:-4]] = stimulus.spec
    for corpus, twin in (("eeg2", things_eeg2_twin), ("fmri", things_fmri_twin)):
        for kind, stimuli in twin.make_stimuli(images).items():
            found[f"{corpus} {kind}"] = {stimulus.file[:-4]: stimulus.spec for stimulus in stimuli}
    return preset, found


@pytest.mark.parametrize(("preset", "seed"), [("tiny", 0), ("tiny", 5), ("demo", 0), ("realistic", 1)])
def test_one_name_is_one_picture_and_shares_are_those_of_the_real_corpora(preset, seed):
    sizes, images = shown(preset, seed)
    drawn = {}
    for own in images.values():
        for name, spec in own.items():
            assert drawn.setdefault(name, spec) == spec and spec.concept == concept_of(name)
    test, kinds = set(images["eeg2 test"]), ("meg test", "fmri test", "meg unshown", "eeg2 training")
    assert len(test) == sizes.things_eeg2.n_test_images and not any(test & set(images[kind]) for kind in kinds)
    assert len(test & set(images["meg exp"])) == round(0.89 * len(test))
    assert len(test & set(images["fmri train"])) == round(0.385 * len(test))
    assert all(name.endswith(f"_{OWN_NUMBER}s") for name in test - set(images["meg exp"]))
    assert set(images["fmri test"]) <= set(images["meg test"])
    concepts = {kind: {concept_of(name) for name in own} for kind, own in images.items()}
    assert not concepts["eeg2 test"] & concepts["eeg2 training"] and concepts["fmri test"] <= concepts["fmri train"]
    assert len(concepts["eeg2 training"]) == sizes.things_eeg2.n_concepts
    assert len(images["eeg2 training"]) == sizes.things_eeg2.n_images("training")
    assert len(concepts["fmri train"]) == sizes.things_fmri.n_concepts
    assert len(images["fmri test"]) == sizes.things_fmri.n_test_images


@pytest.mark.slow
def test_the_largest_twins_have_the_counts_of_the_real_corpora():
    full = get_preset("full")
    images, kinds = ThingsImages(full, 0), {}
    for stimulus in things_meg_twin.make_stimuli(full.meg, np.random.default_rng([0, 101])):
        kinds.setdefault(stimulus.kind, set()).add(stimulus.file[:-4])
    test, tested = set(images.eeg2["test"]), {concept_of(name) for name in kinds["test"]}
    assert (len(test), len(images.eeg2["training"]), len(images.fmri["train"])) == (200, 16_540, 8640)
    assert (len(test & kinds["exp"]), len(test & set(images.fmri["train"])), len(test & kinds["test"])) == (178, 77, 0)
    assert len(set(images.fmri["test"]) & kinds["test"]) == 100
    trained = {concept_of(name) for name in images.eeg2["training"]}
    assert (len(tested & trained), len(tested & {concept_of(name) for name in test})) == (178, 21)  # 199 of 200


def test_equal_names_look_alike_and_others_do_not():
    images = ThingsImages(get_preset("tiny"), 0)
    names = [name for names in images.eeg2.values() for name in names]
    pictures = [render(images.spec(name)).tobytes() for name in names]
    assert len(set(pictures)) == len(names)
    again = ThingsImages(get_preset("tiny"), 0)
    assert [render(again.spec(name)).tobytes() for name in names] == pictures
    other = ThingsImages(get_preset("tiny"), 1)
    assert all(render(other.spec(name)).tobytes() != one for name, one in zip(names, pictures, strict=True))


def left_of_validation(sizes, images):
    """Validation images of each corpus as `prepare` chooses them, without the concepts that any corpus tests."""
    concepts = {kind: [concept_of(name) for name in own] for kind, own in images.items()}
    tested = {concept for kind, own in concepts.items() if kind.endswith("test") for concept in own}
    untested = [concept for concept in concepts["fmri train"] if concept not in set(concepts["fmri test"])]
    chosen = {
        "eeg2": validation_split(concepts["eeg2 training"], 0.1, 0),
        "fmri": validation_split(untested, 0.1, 0),
        "meg": {concept_of(name) for name in validation_split(images["meg exp"], 0.1, 0)},
    }
    return {corpus: len(own - tested) for corpus, own in chosen.items()}


@pytest.mark.parametrize("preset", ["tiny", "demo"])
def test_every_twin_has_validation_concepts_that_none_tests(preset):
    """So that they can be trained together."""
    for seed in range(6 if preset == "tiny" else 2):
        left = left_of_validation(*shown(preset, seed))
        assert min(left.values()) >= (1 if preset == "tiny" else 5), (seed, left)


def test_more_images_than_the_twin_of_meg_has_are_drawn_by_their_names():
    tiny = get_preset("tiny")
    larger = replace(
        tiny,
        things_eeg2=replace(tiny.things_eeg2, n_concepts=40, images_per_concept=5, n_test_images=20),
        things_fmri=replace(tiny.things_fmri, n_concepts=60, n_test_images=20),
    )
    images = ThingsImages(larger, 0)
    assert len(images.eeg2["test"]) == 20 and len(images.eeg2["training"]) == 200
    assert len(images.fmri["test"]) == 20 and len(images.fmri["train"]) == 180
    assert {concept_of(name) for name in images.fmri["test"]} < {concept_of(name) for name in images.fmri["train"]}
    names = {*images.eeg2["test"], *images.eeg2["training"], *images.fmri["test"], *images.fmri["train"]}
    assert len({images.spec(name) for name in names}) == len(names)


def test_a_twin_with_other_pictures_is_another_corpus(tmp_path):
    """That of an earlier version, or beside a THINGS-MEG of other sizes."""
    tiny = get_preset("tiny")
    for folder, change in (("things_eeg2", None), ("things_fmri", {"n_concepts": 21})):
        stamp = simulated_stamp(tiny, folder, 0, ceiling={})
        others = stamp.pop("other_counts")
        if change is not None:
            stamp["other_counts"] = others | {"meg": others["meg"] | change}
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "SIMULATED.json").write_text(json.dumps(stamp))
        with pytest.raises(DataError, match="other_counts differ from what was asked"):
            simulate(tmp_path, tiny, corpora=(folder,))
    assert "other_counts" not in simulated_stamp(tiny, "meg", 0, ceiling={})  # twins of the demo are as they were
