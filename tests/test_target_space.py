"""Spaces of image embeddings told apart by vectors, against loops; the mean that was subtracted."""

import json

import numpy as np
import pytest

from neural_clip import NeuralClipConfig
from neural_clip.target_space import N_SAMPLED, TargetSpace, sample_of

WIDTH = 12


def rng(seed=0):
    return np.random.default_rng(seed)


def table(n, seed=0):
    return [f"im{i}" for i in range(n)], rng(seed).standard_normal((n, WIDTH)).astype(np.float32)


def space_of_table(ids, vectors):
    return TargetSpace(sample=sample_of(ids, vectors))


def turned(vector, cosine):
    """A vector at an angle to another, longer."""
    across = rng(9).standard_normal(len(vector))
    across -= across @ vector / (vector @ vector) * vector
    unit = vector / np.linalg.norm(vector)
    return 3 * (cosine * unit + np.sqrt(1 - cosine**2) * across / np.linalg.norm(across))


def test_json_gives_back_what_it_was_given():
    probes = rng().standard_normal((8, WIDTH))
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    mean = rng(1).standard_normal(WIDTH).astype(np.float32)
    space = TargetSpace(probes, sample_of(*table(300)), mean)
    content = json.loads(json.dumps(space.as_dict()))
    again = TargetSpace.of(content)
    np.testing.assert_array_equal(again.sample, space.sample)
    np.testing.assert_array_equal(again.mean, mean)
    np.testing.assert_allclose(again.probes, probes, atol=2**-11)
    assert again.as_dict() == content and again.width == WIDTH and again.differences(space) == []
    assert TargetSpace.of(None) is None and TargetSpace.of(TargetSpace().as_dict()).width is None
    config = NeuralClipConfig(projection_dim=WIDTH, target_space=content)
    assert NeuralClipConfig.from_dict(config.to_dict()).target_space == content
    with pytest.raises(ValueError, match=f"'target_space' is {WIDTH} wide, but 'projection_dim' is 5"):
        NeuralClipConfig(projection_dim=5, target_space=content)


DAMAGED = [{"mean": ["no base64"]}, {"probes": ["AAA=", "AAAAAA=="]}, {"sample": 3}, ["probes"], {"mean": ["AAAA"]}]


@pytest.mark.parametrize("damaged", DAMAGED)
def test_damaged_text_is_refused(damaged):
    with pytest.raises(ValueError, match="The target space cannot be read"):
        TargetSpace.of(damaged)


@pytest.mark.parametrize(("cosine", "same"), [(1, True), (0.99995, True), (0.9998, False), (0, False), (-1, False)])
def test_probes_are_compared_by_angle(cosine, same):
    probes = rng().standard_normal((8, WIDTH))
    others = 2 * probes
    others[5] = turned(probes[5], cosine)
    found = TargetSpace(probes).differences(TargetSpace(others))
    told = f"probe image 5 has a cosine of {cosine:.5f} between them, the same encoder 0.9999"
    assert found == ([] if same else [told])
    assert "of shape (8, 12) and (8, 3)" in TargetSpace(probes).differences(TargetSpace(others[:, :3]))[0]


def test_probes_and_tables_are_not_comparable():
    probed, ready = TargetSpace(rng().standard_normal((8, WIDTH))), space_of_table(*table(5))
    assert probed.differences(ready) is None and ready.differences(probed) is None
    assert TargetSpace().differences(TargetSpace()) is None


@pytest.mark.parametrize("n", [1, 20, N_SAMPLED, 2000])
def test_a_table_is_recognised_by_the_images_it_shares(n):
    ids, vectors = table(n)
    whole = space_of_table(ids, vectors)
    assert whole.sample.shape == (2, min(n, N_SAMPLED))
    order = rng(1).permutation(n)
    assert whole.differences(space_of_table([ids[row] for row in order], vectors[order])) == []
    assert whole.differences(space_of_table(ids, vectors.astype(np.float64))) == []
    longer = [*ids, *(f"new{i}" for i in range(n))], np.concatenate([vectors, table(n, 3)[1]])
    assert whole.differences(space_of_table(*longer)) == []
    half = slice(0, max(n // 2, 1))
    assert whole.differences(space_of_table(ids[half], vectors[half])) == []
    kept = min(n, N_SAMPLED)
    changed = space_of_table(ids, vectors * np.float32(1.0001))
    assert whole.differences(changed) == [f"{kept} of {kept} images kept of both tables have other vectors"]
    others = space_of_table([f"other{i}" for i in range(n)], vectors)
    assert whole.differences(others) == [f"of the {kept} and {kept} images kept of their tables, none is in both"]


def test_what_is_kept_of_a_table_are_the_smallest_digests():
    import hashlib

    ids, vectors = table(500)
    digests = sorted(
        (int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"),
         int.from_bytes(hashlib.sha256(vector.tobytes()).digest()[:8], "little"))
        for name, vector in zip(ids, vectors, strict=True)
    )  # fmt: skip
    assert sample_of(ids, vectors).T.tolist() == [list(pair) for pair in digests[:N_SAMPLED]]


def test_embeddings_are_moved_from_one_mean_to_another():
    raw = rng().standard_normal((7, WIDTH)).astype(np.float32)
    one, other = (rng(seed).standard_normal(WIDTH).astype(np.float32) for seed in (1, 2))
    none, first, second = (TargetSpace(mean=mean) for mean in (None, one, other))
    np.testing.assert_allclose(first.moved(raw - one, second), raw - other, atol=1e-6)
    np.testing.assert_allclose(first.moved(raw - one, none), raw, atol=1e-6)
    np.testing.assert_array_equal(none.moved(raw, first), (raw - one.astype(np.float64)).astype(np.float32))
    assert none.same_mean(TargetSpace()) and first.same_mean(TargetSpace(mean=one * np.float32(1 + 1e-6)))
    assert not (first.same_mean(none) or none.same_mean(first) or first.same_mean(second))
