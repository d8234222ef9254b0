"""What a model learned, on planted signals whose place, time and geometry are known."""

import csv
import json
import sys
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr

from changed_splits import changed, with_images
from local_signals import (
    NAMES,
    SIGNAL_SAMPLES,
    SIGNAL_SENSORS,
    SIGNAL_VOXELS,
    SUBJECTS,
    planted_mask,
)
from neural_clip.errors import DataError
from neural_clip.evaluation.understanding.attribution import (
    TWO_WAY,
    require_captum,
)
from neural_clip.evaluation.understanding.run import understand
from neural_clip.gallery.embedding import EmbeddedSplit, embed_split
from slow_scores import slow_ceiling

pytestmark = pytest.mark.numerical

pytest.importorskip("captum")


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_maps_peak_where_the_signal_is(understood):
    result, folder = understood
    for modality in ("eeg", "meg"):
        rows = table(folder / f"{modality}_sensors.csv")
        assert [row["sensor"] for row in rows] == NAMES[modality]
        drops, n = np.array([float(row["margin_drop"]) for row in rows]), len(SIGNAL_SENSORS[modality])
        assert sorted(np.argsort(-drops)[:n]) == SIGNAL_SENSORS[modality]
        assert np.delete(drops, SIGNAL_SENSORS[modality]).max() < 0.5 * drops.max()
        record = result["maps"][modality]
        assert record["sensors"]["most_important"][0] == NAMES[modality][int(np.argmax(drops))]
        assert record["sensors"]["peak_drop"] == pytest.approx(drops.max(), rel=1e-4)
        # windows of two samples each; the signal lies in one of them
        heads = [key for key in rows[0] if key.startswith("margin_drop ")]
        window = np.argmax([max(float(row[head]) for row in rows) for head in heads])
        assert (len(heads), window) == (6, SIGNAL_SAMPLES[modality][0] // 2)
        course = table(folder / f"{modality}_time_course.csv")
        ends = np.array([[float(row["start_s"]), float(row["end_s"])] for row in course])
        np.testing.assert_allclose(ends[:, 0], -0.04 + np.arange(6) / 25, atol=1e-6)
        np.testing.assert_allclose(ends[:, 1] - ends[:, 0], 0.04, atol=1e-6)
        for score in ("margin", "two_way"):
            drop, low, high = (
                np.array([float(row[f"{score}_{e}"]) for row in course]) for e in ("drop", "low", "high")
            )
            assert np.argmax(drop) == SIGNAL_SAMPLES[modality][0] // 2 and (low <= drop).all() and (drop <= high).all()
        assert record["time_course"]["peak_s"] == pytest.approx(
            [-0.04 + (SIGNAL_SAMPLES[modality][0] + samples) / 50 for samples in (0, 2)]
        )
        assert record["intact"][TWO_WAY] > 0.8 and record["n_recordings"] == 20


def test_voxel_maps_peak_where_the_signal_is_and_return_to_the_grid(understood):
    result, folder = understood
    inside, affine = planted_mask()
    for subject in SUBJECTS:
        rows = table(folder / f"fmri_{subject}_voxels.csv")
        shares = np.array([float(row["margin_share"]) for row in rows])
        assert sorted(np.argsort(-shares)[:4]) == SIGNAL_VOXELS
        record = result["maps"]["fmri"]["subjects"][subject]
        assert record["largest_error_of_a_sum"] < 0.02 and record["n_recordings"] == 14
        assert record["sum_of_map"] == pytest.approx(record["margin"] - record["margin_of_training_mean"], abs=0.01)
        assert record["split_half_correlation"] > 0.5
        assert (folder / f"fmri_{subject}_voxels.png").is_file()
        if subject == "sub-01":
            image = nibabel.load(folder / record["image"])
            np.testing.assert_allclose(image.get_fdata()[inside], shares, rtol=1e-5)
            assert not image.get_fdata()[~inside].any()
            np.testing.assert_allclose(image.affine, affine, atol=1e-6)
            assert [[int(row[axis]) for axis in "ijk"] for row in rows] == np.argwhere(inside).tolist()
        else:
            assert record["image"] is None and "no masks/sub-02.nii.gz" in record["why_no_image"]
            assert "i" not in rows[0] and not (folder / "sub-02_importance.nii.gz").exists()


def test_similarity_is_that_of_the_embeddings(understood, planted):
    result, folder = understood
    _, _, splits = planted
    part = splits["eeg"]
    pairs = result["similarity"]["modalities"]["eeg"]["pairs"]
    assert [(pair["first"], pair["second"]) for pair in pairs] == [
        ("encoder", "images"), ("recordings", "images"), ("encoder", "recordings")
    ]  # fmt: skip
    rows = part.subjects == "sub-01"
    order = np.argsort(part.image_ids[rows])
    encoder = pdist(part.embeds[rows][order], "correlation")
    expected = spearmanr(encoder, pdist(part.gallery_embeds, "correlation")).statistic
    assert pairs[0]["subjects"]["sub-01"]["spearman"] == pytest.approx(expected, abs=1e-4)
    assert pairs[0]["p"] < 0.01 and pairs[0]["spearman"] > 0.3
    spaces = []
    for subject in SUBJECTS:
        own = part.subjects == subject
        spaces.append(squareform(pdist(part.embeds[own][np.argsort(part.image_ids[own])], "correlation")))
    lower, upper = slow_ceiling(spaces)
    ceiling = pairs[0]["noise_ceiling"]
    assert (ceiling["lower"], ceiling["upper"]) == pytest.approx((lower, upper), abs=1e-4)
    assert (ceiling["n_subjects"], ceiling["n_images"]) == (2, 14) and "not_computed" in pairs[2]["noise_ceiling"]
    written = [
        row for row in table(folder / "similarity.csv") if row["modality"] == "eeg" and row["subject"] == "mean"
    ]
    assert [float(row["spearman"]) for row in written] == pytest.approx([pair["spearman"] for pair in pairs], rel=1e-4)
    assert float(written[0]["ceiling_upper"]) == pytest.approx(upper, abs=1e-4) and written[2]["ceiling_lower"] == ""


def test_latent_space_is_the_principal_plane_of_the_images(understood, planted):
    result, folder = understood
    _, _, splits = planted
    rows = table(folder / "latent_space.csv")
    images = np.concatenate([part.gallery_embeds for part in splits.values()]).astype(float)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    spread, axes = np.linalg.eigh(np.cov(images.T))
    shares = spread[::-1][:2] / spread.sum()
    assert result["latent_space"]["share_of_images_variance"] == pytest.approx(shares, abs=1e-5)
    found = np.array([[float(row["pc1"]), float(row["pc2"])] for row in rows])
    shown = np.array([row["modality"] for row in rows])
    expected = (images - images.mean(axis=0)) @ axes[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(found[shown == "image"]), np.abs(expected), atol=1e-5)
    signs = np.sign((found[shown == "image"] * expected).sum(axis=0))
    part = splits["meg"]
    of_one = part.embeds[part.image_ids == "meg64"].astype(float).mean(axis=0)
    (row,) = np.flatnonzero([(r["modality"], r["image_id"]) == ("meg", "meg64") for r in rows])
    np.testing.assert_allclose(found[row], signs * ((of_one - images.mean(axis=0)) @ axes[:, [-1, -2]]), atol=1e-5)
    assert {name: int((shown == name).sum()) for name in set(shown)} == {"image": 42, "eeg": 14, "meg": 14, "fmri": 14}


def test_simulated_recordings_are_called_so_where_they_stand(understood):
    result, folder = understood
    assert result["simulated_modalities"] == ["eeg", "meg"]
    titles = {name: title for title, name in result["pictures"].items()}
    for name, title in titles.items():
        assert ("SIMULATED" in title) == (not name.startswith("fmri"))
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"
        assert b"</svg>" in (folder / name).with_suffix(".svg").read_bytes()
        assert (folder / name).with_suffix(".csv").is_file()
    assert "some recordings SIMULATED" in titles["latent_space.png"]
    for modality, flag in (("eeg", "True"), ("fmri_sub-01", "False")):
        ending = "voxels" if modality.startswith("fmri") else "sensors"
        assert {row["simulated"] for row in table(folder / f"{modality}_{ending}.csv")} == {flag}
    assert {(r["modality"], r["simulated"]) for r in table(folder / "similarity.csv")} == {
        ("eeg", "True"), ("meg", "True"), ("fmri", "False")
    }  # fmt: skip
    assert json.loads((folder / "understanding.json").read_text(encoding="utf-8")) == result
    assert not list(folder.glob("*.partial")) and result["captum"] == require_captum()


@pytest.mark.slow
def test_two_runs_write_the_same_bytes(planted, understood, tmp_path):
    _, model, splits = planted
    understand(model, splits, tmp_path, progress=False, max_recordings=20)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert len(files) == 1 + 3 * 8 + 1  # numbers; eight times picture, picture, table; an image
    for name in files:
        assert (tmp_path / name).read_bytes() == (understood[1] / name).read_bytes(), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: replace(p, image_ids=p.image_ids[:-1]), "rows that do not match.*28.*27"),
        (lambda p: replace(p, subjects=p.subjects[:-1], image_ids=p.image_ids[:-1]), "28.*27"),
        (lambda p: replace(p, embeds=p.embeds[:-1]), "rows that do not match.*'image_ids': 28, 'embeds': 27"),
        (lambda p: replace(p, embeds=p.embeds[:, 0]), r"'embeds' of eeg must have shape \(28, projection_dim\)"),
        (lambda p: changed(p, embeds=np.where(np.arange(8) == 3, np.nan, p.embeds)), "'embeds' of eeg holds NaN"),
        (lambda p: with_images(p, lambda e: e[:, :5]), "'gallery_embeds' of eeg must have shape"),
        (lambda p: with_images(p, lambda e: np.full_like(e, np.inf)), "'gallery_embeds' of eeg holds NaN"),
        (lambda p: p.at(np.flatnonzero(p.columns == 0)), "has one test image"),
        (lambda p: changed(p, n_times=11), r"should be Array2D\(shape=\(9, 11\)"),
    ],
)
def test_splits_that_do_not_fit_raise(planted, tmp_path, change, message):
    _, model, splits = planted
    with pytest.raises(DataError, match=message):
        understand(model, {"eeg": change(splits["eeg"])}, tmp_path, progress=False)


def test_parameters_and_missing_captum_raise(planted, tmp_path, monkeypatch):
    _, model, splits = planted
    for options in ({"max_recordings": 0}, {"batch_size": -1}):
        with pytest.raises(DataError, match=f"'{next(iter(options))}' parameter. Allowed is 1 and more"):
            understand(model, splits, tmp_path, **options)
    with pytest.raises(DataError, match="'splits' parameter"):
        understand(model, {}, tmp_path)
    trained = embed_split(model, splits["meg"].data.split("train"))
    with pytest.raises(DataError, match=r"splits differ: .*'eeg': 'test', 'meg': 'train'"):
        understand(model, splits | {"meg": trained}, tmp_path)
    narrow = with_images(replace(splits["meg"], embeds=splits["meg"].embeds[:, :5]), lambda e: e[:, :5])
    with pytest.raises(DataError, match=r"differ in width.*'eeg': 8, 'meg': 5"):
        understand(model, {"eeg": splits["eeg"], "meg": narrow}, tmp_path)
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(DataError, match=r"pip install 'neural_clip\[understand\]'"):
        understand(model, splits, tmp_path)
    assert not list(tmp_path.iterdir())


def test_recordings_that_are_not_finite_raise(planted, tmp_path, monkeypatch):
    _, model, splits = planted
    monkeypatch.setattr(EmbeddedSplit, "values", lambda self, rows: np.full((len(rows), 9, 12), np.nan))
    with pytest.raises(DataError, match="14 of 14 recordings hold NaN or infinity"):
        understand(model, {"eeg": splits["eeg"]}, tmp_path, progress=False)
