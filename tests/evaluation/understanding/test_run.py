"""What a model learned, on planted signals whose place, time and geometry are known."""

import csv
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform
from scipy.stats import kstest, spearmanr, t

from neural_clip.errors import DataError
from neural_clip.evaluation.embedding import EmbeddedSplit, embed_split
from neural_clip.evaluation.understanding import (
    pictures as understanding_pictures,
)
from neural_clip.evaluation.understanding import (
    rdms as understanding_rdms,
)
from neural_clip.evaluation.understanding import (
    rsa as understanding_rsa,
)
from neural_clip.evaluation.understanding.attribution import (
    MARGIN,
    TWO_WAY,
    Scorer,
    pair_scores,
    require_captum,
    split_half,
    training_mean,
)
from neural_clip.evaluation.understanding.maps import image_intervals
from neural_clip.evaluation.understanding.pictures import (
    draw_similarity,
    draw_slices,
    draw_time_course,
    scale_of,
    write_csv,
)
from neural_clip.evaluation.understanding.rdms import draw_dissimilarities, main_kinds, mean_distances, rank_shares
from neural_clip.evaluation.understanding.rsa import compare_spaces, dissimilarities, noise_ceiling, spearman
from neural_clip.evaluation.understanding.run import understand
from neural_clip.evaluation.understanding.sensors import sensor_positions
from neural_clip.evaluation.understanding.similarity import _noise_ceiling, across_modalities
from neural_clip.evaluation.understanding.voxels import SLICES, VoxelMask, cut_planes, read_mask
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.writer import write_prepared
from planted_data import ENCODER

pytestmark = pytest.mark.numerical

pytest.importorskip("captum")

WIDTH, COUNTS = 8, {"train": 60, "validation": 4, "test": 14}
SUBJECTS = ["sub-01", "sub-02"]
NAMES = {
    "eeg": ["Fp1", "Fp2", "C3", "Cz", "C4", "Pz", "O1", "O2", "Fz"],
    "meg": ["MLC11-1609", "MLF12-1609", "MRO11-1609", "MRT14-1609"],
}
SHAPES = {"eeg": (9, 12), "meg": (4, 12)}
SIGNAL_SENSORS, SIGNAL_SAMPLES = {"eeg": [2, 6], "meg": [1]}, {"eeg": [6, 7], "meg": [8, 9]}
SIGNAL_VOXELS = [3, 11, 12, 20]
N_VOXELS = {"sub-01": 26, "sub-02": 23}


class LinearModel(torch.nn.Module):
    """One matrix a subject from recording to embedding, with an offset, fitted by ridge regression."""

    def __init__(self, weights):
        super().__init__()
        self.weights = {key: torch.tensor(value, dtype=torch.float32) for key, value in weights.items()}
        self.config = SimpleNamespace(**{
            f"{m}_config": SimpleNamespace(subjects=SUBJECTS, n_voxels=None) if (m, 0) in weights else None
            for m in ("eeg", "meg", "fmri")
        })  # fmt: skip

    def _features(self, modality, values, subject_ids):
        rows = [
            row[: len(self.weights[modality, subject])] @ self.weights[modality, subject]
            for row, subject in zip(values.flatten(1), subject_ids.tolist(), strict=True)
        ]
        return torch.stack(rows) + 0.3

    def get_eeg_features(self, eeg_values, subject_ids):
        return self._features("eeg", eeg_values, subject_ids)

    def get_meg_features(self, meg_values, subject_ids):
        return self._features("meg", meg_values, subject_ids)

    def get_fmri_features(self, fmri_values, subject_ids):
        return self._features("fmri", fmri_values, subject_ids)


def signal_columns(modality, subject):
    """Which features of a recording carry signal, and how many there are."""
    if modality == "fmri":
        return np.array(SIGNAL_VOXELS), N_VOXELS[subject]
    cells = np.zeros(SHAPES[modality], dtype=bool)
    cells[np.ix_(SIGNAL_SENSORS[modality], SIGNAL_SAMPLES[modality])] = True
    return np.flatnonzero(cells), cells.size


def write_local(folder, modality, seed=0, simulated=True):
    """Recordings of which few sensors, samples or voxels answer to the image, and ridge weights fitted on them."""
    rng = np.random.default_rng([seed, ["eeg", "meg", "fmri"].index(modality)])
    splits = np.repeat(list(COUNTS), list(COUNTS.values()))
    embeds = rng.standard_normal((len(splits), WIDTH)).astype(np.float32)
    rows, weights = [], {}
    for number, subject in enumerate(SUBJECTS):
        columns, size = signal_columns(modality, subject)
        values = 0.5 * rng.standard_normal((len(splits), size)) + 0.2
        directions, _ = np.linalg.qr(rng.standard_normal((WIDTH, len(columns))))
        values[:, columns] += 2 * embeds @ directions  # each carries something that no other does
        x, y = values[splits == "train"], embeds[splits == "train"]
        weights[modality, number] = np.linalg.solve(x.T @ x + 30 * np.eye(size), x.T @ y)
        for image, split in enumerate(splits):
            shaped = values[image] if modality == "fmri" else values[image].reshape(SHAPES[modality])
            rows.append({"subject": subject, "image_id": f"{modality}{image:02d}", "split": split, modality: shaped})
    images = [
        {"image_id": f"{modality}{n:02d}", "concept": "abc"[n % 3], "categories": [], "image_embeds": embed}
        for n, embed in enumerate(embeds)
    ]
    metadata = {
        "corpus": "local", "modality": modality, "split_protocol": "planted", "split_unit": "image", "licence": "none",
        "redistribution": "allowed", "citation": "none", "source": "planted", "image_encoder": ENCODER,
        "simulated": {"preset": "local", "seed": seed} if simulated else None,
    }  # fmt: skip
    if modality != "fmri":
        metadata |= {"sfreq": 50.0, "tmin": -0.04, "ch_names": NAMES[modality]}
    return write_prepared(folder, metadata, rows, images), weights


def planted_mask(seed=0):
    """Mask of as many voxels as the first subject has, and its affine."""
    inside = np.zeros((4, 5, 3), dtype=bool)
    inside.ravel()[np.random.default_rng(seed).choice(60, N_VOXELS["sub-01"], replace=False)] = True
    return inside, np.array([[-1.8, 0, 0, 20], [0, 1.8, 0, -30], [0, 0, 1.8, -10], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Folders, model and embedded test splits of all three modalities; the first fMRI subject has a mask."""
    root, folders, weights = tmp_path_factory.mktemp("local"), {}, {}
    for modality in ("eeg", "meg", "fmri"):
        folders[modality], found = write_local(root / modality, modality, simulated=modality != "fmri")
        weights |= found
    inside, affine = planted_mask()
    (folders["fmri"] / "masks").mkdir()
    nibabel.save(nibabel.Nifti1Image(inside.astype(np.uint8), affine), folders["fmri"] / "masks" / "sub-01.nii.gz")
    model = LinearModel(weights)
    return (
        folders,
        model,
        {m: embed_split(model, PreparedSet.open(folder).split("test")) for m, folder in folders.items()},
    )


@pytest.fixture(scope="module")
def understood(planted, tmp_path_factory):
    """Result of a run over all three, and its folder."""
    _, model, splits = planted
    output_dir = tmp_path_factory.mktemp("understood")
    return understand(model, splits, output_dir, progress=False, max_recordings=20), output_dir


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def slow_cosine(first, second):
    return float(first @ second) / float(np.sqrt(first @ first) * np.sqrt(second @ second))


def slow_margin(embed, column, gallery):
    others = [slow_cosine(embed, image) for number, image in enumerate(gallery) if number != column]
    return slow_cosine(embed, gallery[column]) - sum(others) / len(others)


def slow_two_way(embed, column, gallery):
    own = slow_cosine(embed, gallery[column])
    others = [slow_cosine(embed, image) for number, image in enumerate(gallery) if number != column]
    return float(np.mean([1.0 if own > other else 0.5 if own == other else 0.0 for other in others]))


# --- similarity of spaces


def test_distances_are_scipys():
    patterns = np.random.default_rng(0).standard_normal((7, 5))
    np.testing.assert_allclose(dissimilarities(patterns, "x"), squareform(pdist(patterns, "correlation")), atol=2e-9)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (np.zeros(4), r"shape \(2 or more images, 2 or more features\), but got \(4,\)"),
        (np.ones((4, 1)), r"but got \(4, 1\)"),
        (np.array([[1.0, 2], [3, np.nan]]), "1 of 2 patterns hold NaN or infinity, row 1 first"),
        (np.array([[1.0, 2], [3, 3], [0.1, 0.1]]), "2 of 3 patterns are constant, row 1 first"),
    ],
)
def test_patterns_without_distances_raise(patterns, message):
    with pytest.raises(DataError, match=f"space: {message}|space must have {message}|{message}"):
        dissimilarities(patterns, "space")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 12), st.booleans())
def test_spearman_equals_scipy_also_with_ties(seed, n, coarse):
    rng = np.random.default_rng(seed)
    first, second = (squareform(rng.random(n * (n - 1) // 2)) for _ in range(2))
    if coarse:
        first, second = np.round(4 * first), np.round(3 * second)
    upper = np.triu_indices(n, 1)
    expected = spearmanr(first[upper], second[upper]).statistic
    if np.ptp(first[upper]) == 0 or np.ptp(second[upper]) == 0:
        expected = np.nan
    np.testing.assert_allclose(spearman(first, second), expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_resampled_spearman_equals_writing_the_resample_out(seed, coarse):
    rng = np.random.default_rng(seed)
    first, second = (squareform(rng.random(36)) for _ in range(2))
    if coarse:
        first = np.round(3 * first)
    drawn = rng.integers(0, 9, size=9)
    pairs = [(a, b) for i, a in enumerate(drawn) for b in drawn[i + 1 :] if a != b]
    sides = [[matrix[pair] for pair in pairs] for matrix in (first, second)]
    expected = spearmanr(*sides).statistic if all(np.ptp(side) > 0 for side in sides) else np.nan
    np.testing.assert_allclose(spearman(first, second, np.bincount(drawn, minlength=9)), expected, atol=1e-12)


def random_spaces(seed, n=16, n_subjects=2):
    rng = np.random.default_rng(seed)
    return [{name: dissimilarities(rng.standard_normal((n, 6)), name) for name in "ab"} for _ in range(n_subjects)]


def test_identical_spaces_agree_fully_and_surely():
    spaces = [{"a": part["a"], "b": part["a"]} for part in random_spaces(0)]
    (record,) = compare_spaces(spaces, [np.arange(16)] * 2, [("a", "b")], 16, seed=0)
    assert record["spearman"] == pytest.approx(1) and record["p"] == pytest.approx(1 / 1001)
    assert record["interval"] == pytest.approx([1, 1]) and record["subjects"][1]["spearman"] == pytest.approx(1)


def test_unrelated_spaces_have_uniform_p_values(monkeypatch):
    monkeypatch.setattr(understanding_rsa, "PERMUTATIONS", 99)
    monkeypatch.setattr(understanding_rsa, "RESAMPLES", 100)
    records = [
        compare_spaces(random_spaces(seed), [np.arange(16)] * 2, [("a", "b")], 16, seed)[0] for seed in range(50, 110)
    ]
    assert abs(np.mean([record["spearman"] for record in records])) < 0.05
    assert kstest([record["p"] for record in records], "uniform").pvalue > 0.01
    # copies of an image, if their distance 0 counted, would lift every resample far above 0
    covered = [record["interval"][0] <= 0 <= record["interval"][1] for record in records]
    assert np.mean(covered) > 0.85
    assert abs(np.mean([np.mean(record["interval"]) for record in records])) < 0.05


def test_interval_and_p_equal_a_slow_computation(monkeypatch):
    monkeypatch.setattr(understanding_rsa, "PERMUTATIONS", 150)
    monkeypatch.setattr(understanding_rsa, "RESAMPLES", 60)
    n, members = 14, [np.arange(14), np.array([1, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13])]
    rng = np.random.default_rng(1)
    spaces = []
    for member in members:
        patterns = rng.standard_normal((len(member), 6))
        near = patterns + 1.5 * rng.standard_normal(patterns.shape)
        spaces.append({"a": dissimilarities(patterns, "a"), "b": dissimilarities(near, "b")})
    (record,) = compare_spaces(spaces, members, [("a", "b")], n, seed=5)

    def correlations(rows_of):
        values = []
        for space, member in zip(spaces, members, strict=True):
            upper = np.triu_indices(len(member), 1)
            rows = rows_of(member)
            values.append(spearmanr(space["a"][np.ix_(rows, rows)][upper], space["b"][upper]).statistic)
        return values

    observed = correlations(lambda member: np.arange(len(member)))
    assert record["spearman"] == pytest.approx(np.mean(observed))
    assert [part["spearman"] for part in record["subjects"]] == pytest.approx(observed)
    draws = np.random.default_rng([5, 1]).multinomial(n, np.full(n, 1 / n), size=60)
    resampled = [
        np.mean([spearman(s["a"], s["b"], counts[m]) for s, m in zip(spaces, members, strict=True)])
        for counts in draws
    ]
    assert record["interval"] == pytest.approx(np.quantile(resampled, [0.025, 0.975]))
    shuffles, reached = np.random.default_rng([5, 2]), np.zeros(3)
    for _ in range(150):
        keys = shuffles.random(n)
        values = correlations(lambda member, keys=keys: np.argsort(keys[member]))
        reached += np.array([*values, np.mean(values)]) >= np.array([*observed, np.mean(observed)])
    expected = (1 + reached) / 151
    assert [*(part["p"] for part in record["subjects"]), record["p"]] == pytest.approx(expected)
    assert 1 / 151 < max(expected) < 1


def test_a_collapsed_space_has_no_correlation():
    spaces = random_spaces(0)
    spaces[0]["b"] = np.zeros((16, 16))
    (record,) = compare_spaces(spaces, [np.arange(16)] * 2, [("a", "b")], 16, seed=0)
    assert record["spearman"] is None and record["p"] is None and record["subjects"][0]["interval"] is None
    assert record["subjects"][1]["spearman"] is not None


# --- noise ceiling


def slow_ranks(values):
    return [sum(other < own for other in values) + (1 + sum(other == own for other in values)) / 2 for own in values]


def slow_spearman(first, second):
    first, second = slow_ranks(first), slow_ranks(second)
    middle = (len(first) + 1) / 2
    products = [(a - middle) * (b - middle) for a, b in zip(first, second, strict=True)]
    squares = [sum((rank - middle) ** 2 for rank in side) for side in (first, second)]
    return sum(products) / (squares[0] * squares[1]) ** 0.5


def slow_ceiling(distances):
    n = len(distances[0])
    pairs = [[float(matrix[i, j]) for i in range(n) for j in range(i + 1, n)] for matrix in distances]
    ranks = [slow_ranks(subject) for subject in pairs]
    lower, upper = [], []
    for number, own in enumerate(pairs):
        others = [subject for other, subject in enumerate(ranks) if other != number]
        lower.append(slow_spearman(own, [sum(column) for column in zip(*others, strict=True)]))
        upper.append(slow_spearman(own, [sum(column) for column in zip(*ranks, strict=True)]))
    return sum(lower) / len(lower), sum(upper) / len(upper)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(5, 9), st.booleans())
def test_noise_ceiling_equals_loops_also_with_ties(seed, n_subjects, n_images, coarse):
    rng = np.random.default_rng(seed)
    shared = rng.random(n_images * (n_images - 1) // 2)
    distances = [squareform(shared + rng.random(len(shared))) for _ in range(n_subjects)]
    if coarse:
        distances = [np.round(4 * matrix) for matrix in distances]
    assert noise_ceiling(distances) == pytest.approx(slow_ceiling(distances), abs=1e-12)


def test_noise_ceiling_holds_what_the_true_space_reaches():
    rng, found = np.random.default_rng(0), []
    for _ in range(30):
        truth = rng.random(190)
        subjects = [squareform(truth + 0.4 * rng.standard_normal(190)) for _ in range(5)]
        reached = np.mean([spearman(subject, squareform(truth)) for subject in subjects])
        found.append([*noise_ceiling(subjects), reached])
    lower, upper, reached = np.mean(found, axis=0)
    assert 0 < lower < reached < upper and upper - lower < 0.2


def test_noise_ceiling_at_its_ends():
    one, two = (squareform(np.random.default_rng(seed).random(45)) for seed in (0, 1))
    assert noise_ceiling([one, one, one]) == pytest.approx((1, 1))
    assert noise_ceiling([one, two])[0] == pytest.approx(spearman(one, two))
    assert np.isnan(noise_ceiling([one, np.zeros((10, 10))])[0])
    with pytest.raises(DataError, match="2 or more subjects, but got 1"):
        noise_ceiling([one])


def test_noise_ceiling_is_over_common_images_or_says_why_there_is_none():
    rng = np.random.default_rng(3)
    members = [np.arange(14), np.array([0, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13])]
    spaces = [{"encoder": dissimilarities(rng.standard_normal((len(m), 4)), "x")} for m in members]
    found = _noise_ceiling(spaces, members, "encoder", "images")
    cut = spaces[0]["encoder"][np.ix_(members[1], members[1])]
    lower, upper = slow_ceiling([cut, spaces[1]["encoder"]])
    assert found == {"lower": pytest.approx(lower), "upper": pytest.approx(upper), "n_subjects": 2, "n_images": 12}
    assert "each subject's own" in _noise_ceiling(spaces, members, "encoder", "recordings")["not_computed"]
    assert "One subject" in _noise_ceiling(spaces[:1], members[:1], "encoder", "images")["not_computed"]
    few = _noise_ceiling(spaces, [members[0], members[1] + 5], "encoder", "images")["not_computed"]
    assert few.startswith("7 images that all subjects saw; at least 10")
    flat = [spaces[0], {"encoder": np.zeros((12, 12))}]
    assert _noise_ceiling(flat, members, "encoder", "images") == {
        "not_computed": "All distances of one side are equal."
    }


# --- pictures of dissimilarities


def test_mean_distances_equal_loops():
    rng = np.random.default_rng(0)
    members = [np.array([0, 2, 3]), np.array([0, 1, 3])]
    distances = [squareform(rng.random(3)) for _ in members]
    found = mean_distances(distances, members, 5)
    for i in range(5):
        for j in range(5):
            seen = [
                d[list(m).index(i), list(m).index(j)]
                for d, m in zip(distances, members, strict=True)
                if {i, j} <= {*m}
            ]
            if seen and i != j:
                assert found[i, j] == pytest.approx(np.mean(seen))
            else:
                assert np.isnan(found[i, j])
    assert np.isfinite(found).sum() == 10


def test_rank_shares_run_from_nearest_to_farthest_and_ties_share_one():
    distances = np.array([[np.nan, 3.0, 1.0], [3.0, np.nan, 7.0], [1.0, 7.0, np.nan]])
    # six distances, two by two: ranks 1.5, 3.5 and 5.5
    ranks = np.array([[np.nan, 3.5, 1.5], [3.5, np.nan, 5.5], [1.5, 5.5, np.nan]])
    np.testing.assert_allclose(rank_shares(distances), (ranks - 1.5) / 4)


def test_an_image_stands_under_its_most_frequent_category():
    part = SimpleNamespace(
        gallery_categories=[["dog", "animal"], ["animal"], ["zebra"], [], ["dog", "cat"], ["car"]],
        gallery_concepts=["a", "b", "c", "d", "e", "f"],
    )
    assert main_kinds(part, np.arange(5)) == ["animal", "animal", "zebra", "d", "dog"]
    assert main_kinds(part, np.array([0, 5])) == ["animal", "car"]  # a tie, by name


def captured(monkeypatch, module):
    figures = []
    monkeypatch.setattr(module, "save_figure", lambda figure, stem: figures.append(figure))
    return figures


def test_maps_of_dissimilarities_show_ranks_and_name_kinds(monkeypatch, tmp_path):
    figures = captured(monkeypatch, understanding_rdms)
    rng = np.random.default_rng(0)
    maps = {name: squareform(rng.random(780)) + np.diag(np.full(40, np.nan)) for name in ("one", "two")}
    kinds = ["bird_of_prey"] * 20 + ["cat"] * 19 + ["an uncommonly long name"]
    draw_dissimilarities(maps, kinds, ("Title", "Note"), tmp_path / "x")
    (figure,) = figures
    for axes, (name, distances) in zip(figure.axes, maps.items(), strict=False):
        np.testing.assert_allclose(np.ma.filled(axes.images[0].get_array(), np.nan), rank_shares(distances))
        assert axes.get_title().startswith(name) and f"{np.nanmax(distances):.2f}" in axes.get_title()
    names = {label.get_text(): place for label, place in zip(figure.axes[0].get_yticklabels(),
             figure.axes[0].get_yticks(), strict=True)}  # fmt: skip
    assert names == {"bird of prey": 9.5, "cat": 29.0, "an uncommonly long …": 39.0}
    assert figure.axes[0].get_yticks(minor=True).tolist() == [19.5, 38.5]


def test_the_ceiling_is_drawn_as_a_band_where_there_is_one(monkeypatch, tmp_path):
    figures = captured(monkeypatch, understanding_pictures)
    value = {"spearman": 0.2, "interval": [0.1, 0.3], "p": 0.5, "group": 0, "subjects": []}
    records = [
        value | {"label": "a", "noise_ceiling": {"lower": 0.4, "upper": 0.6}},
        value | {"label": "b", "noise_ceiling": {"not_computed": "One subject; at least 2 are needed."}},
    ]
    draw_similarity(records, "Title", tmp_path / "x")
    (band,) = figures[0].axes[0].patches
    assert (band.get_x(), band.get_width()) == (pytest.approx(0.4), pytest.approx(0.2))
    assert band.get_y() < 0 < band.get_y() + band.get_height() < 1
    assert "No ceiling: One subject" in figures[0].get_supxlabel().replace("\n", " ")


def test_bands_of_time_courses_lie_inside_the_axes(monkeypatch, tmp_path):
    figures = captured(monkeypatch, understanding_pictures)
    curve = {"label": "a", "intact": 1.0, "mean": np.array([0.1, 0.2]), "low": np.array([-5.0, 0.1])}
    curve["high"] = np.array([0.3, 4.0])
    draw_time_course(np.array([0.0, 0.1, 0.2]), [curve], ("Title", "Note"), tmp_path / "x")
    low, high = figures[0].axes[0].get_ylim()
    assert low < -5 and high > 4
    (band,) = figures[0].axes[0].collections
    assert band.get_paths()[0].contains_points([(50, -4), (50, 1), (150, 3), (150, 0)]).tolist() == [1, 0, 1, 0]


def test_modalities_compare_only_over_shared_images(planted):
    _, _, splits = planted
    records = across_modalities(splits, 0)
    assert [(r["first"], r["second"]) for r in records] == [("eeg", "meg"), ("eeg", "fmri"), ("meg", "fmri")]
    assert all("different images (0 in common, 10 needed)" in r["not_computed"] for r in records)
    eeg = splits["eeg"]
    twin = changed(eeg, modality="meg")
    (record,) = across_modalities({"eeg": eeg, "meg": twin}, 0)
    assert (record["spearman"], record["n_images"]) == (pytest.approx(1), 14)
    # the same names for other images
    other = with_images(twin, lambda embeds: embeds[::-1])
    assert "0 in common" in across_modalities({"eeg": eeg, "meg": other}, 0)[0]["not_computed"]


# --- scores and attributions


def test_scores_equal_loops_and_ties_count_half():
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((6, 4))
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    gallery[3] = gallery[1]
    embeds, columns = 5 * rng.standard_normal((9, 4)), np.arange(9) % 6
    arguments = (torch.tensor(embeds), torch.tensor(columns), torch.tensor(gallery))
    pairs = list(zip(embeds, columns, strict=True))
    margins, wins = ([score(*pair, gallery) for pair in pairs] for score in (slow_margin, slow_two_way))
    np.testing.assert_allclose(pair_scores(*arguments, MARGIN), margins)
    np.testing.assert_allclose(pair_scores(*arguments, TWO_WAY), wins)
    collapsed = (torch.ones(9, 4), arguments[1], torch.ones(6, 4).double() / 2)
    np.testing.assert_allclose(pair_scores(*collapsed, TWO_WAY), 0.5)
    np.testing.assert_allclose(pair_scores(*collapsed, MARGIN), 0, atol=1e-12)


def planted_scorer(planted, modality, subject=1, **options):
    _, model, splits = planted
    gallery = splits[modality].gallery_embeds.astype(float)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    return Scorer(model, modality, subject, gallery, "cpu", **options), gallery


@pytest.mark.parametrize("kind", [MARGIN, TWO_WAY])
@pytest.mark.parametrize(("window", "stride"), [((9, 4), (9, 2)), ((1, 12), (1, 12)), ((1, 5), (1, 5))])
def test_occlusion_equals_explicit_loops(planted, kind, window, stride):
    scorer, gallery = planted_scorer(planted, "eeg", batch_size=50)
    rng = np.random.default_rng(0)
    values, columns = rng.standard_normal((19, 9, 12)).astype(np.float32), rng.integers(0, 14, 19)
    replacement = rng.standard_normal((9, 12)).astype(np.float32)
    weights = scorer.model.weights["eeg", 1].numpy()

    def slow(recording, column):
        return {MARGIN: slow_margin, TWO_WAY: slow_two_way}[kind](recording.ravel() @ weights + 0.3, column, gallery)

    expected = np.zeros((2, 9, 12))
    for row in range(2):
        seen = np.zeros((9, 12))
        for sensor in range(0, 9, stride[0]):
            for sample in range(0, max(1, 12 - window[1] + stride[1]), stride[1]):
                where = (slice(sensor, sensor + window[0]), slice(sample, sample + window[1]))
                occluded = values[row].copy()
                occluded[where] = replacement[where]
                expected[row][where] += slow(values[row], columns[row]) - slow(occluded, columns[row])
                seen[where] += 1
        assert seen.min() >= 1
        expected[row] /= seen
    found = scorer.occlude(values, columns, replacement, window, stride, kind)
    assert found.shape == values.shape and np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found[:2], expected, atol=1e-5)


def test_integrated_gradients_equal_an_explicit_integral(planted):
    scorer, gallery = planted_scorer(planted, "fmri", batch_size=64)
    rng = np.random.default_rng(0)
    values, columns = rng.standard_normal((18, 23)).astype(np.float32), rng.integers(0, 14, 18)
    start = (0.4 + 0.1 * rng.standard_normal(23)).astype(np.float32)
    found = scorer.integrate(values, columns, start)
    weights, images = scorer.model.weights["fmri", 1].double(), torch.tensor(gallery)
    nodes, shares = np.polynomial.legendre.leggauss(50)
    for row in (0, 17):
        total = torch.zeros(23, dtype=torch.float64)
        for node, share in zip((nodes + 1) / 2, shares / 2, strict=True):
            point = torch.tensor(start + node * (values[row] - start), dtype=torch.float64, requires_grad=True)
            cosines = torch.nn.functional.cosine_similarity((point @ weights + 0.3)[None], images)
            own = cosines[columns[row]]
            margin = own - (cosines.sum() - own) / 13
            total += share * torch.autograd.grad(margin, point)[0]
        np.testing.assert_allclose(found[row], total * torch.tensor(values[row] - start), atol=1e-5)
    ends = scorer.scores(values, columns, MARGIN) - scorer.scores(np.tile(start, (18, 1)), columns, MARGIN)
    np.testing.assert_allclose(found.sum(axis=1), ends, atol=1e-3)


def test_training_mean_is_of_this_subjects_training_recordings(planted):
    opened = {name: PreparedSet.open(folder) for name, folder in planted[0].items()}
    rows = [row for row in opened["eeg"].split("train").recordings if row["subject"] == "sub-02"]
    expected = np.mean([np.array(row["eeg"], dtype=float) for row in rows], axis=0)
    np.testing.assert_allclose(training_mean(opened["eeg"], "sub-02"), expected, atol=1e-6)
    assert training_mean(opened["fmri"], "sub-02").shape == (23,)
    with pytest.raises(DataError, match="sub-09"):
        training_mean(opened["eeg"], "sub-09")


def test_split_half_correlates_two_sets_of_images():
    rng = np.random.default_rng(0)
    maps, images = rng.standard_normal((12, 3, 4)), list("aabbccddeeff")
    even = np.mean([m for m, i in zip(maps, images, strict=True) if i in "ace"], axis=0)
    odd = np.mean([m for m, i in zip(maps, images, strict=True) if i in "bdf"], axis=0)
    assert split_half(maps, images) == pytest.approx(np.corrcoef(even.ravel(), odd.ravel())[0, 1])
    assert split_half(maps, ["a"] * 12) is None and split_half(np.ones((12, 3)), images) is None


def test_intervals_resample_images_not_recordings():
    rng = np.random.default_rng(0)
    by_image = rng.standard_normal((40, 3))
    ids = np.repeat([f"i{n:02d}" for n in range(40)], 6)
    low, high = image_intervals(np.repeat(by_image, 6, axis=0), ids, seed=0)
    once_low, once_high = image_intervals(by_image, ids[::6], seed=0)
    np.testing.assert_allclose([low, high], [once_low, once_high])  # copies of recordings add no certainty
    few_low, few_high = image_intervals(by_image[:6], ids[:36:6], seed=0)
    for width, values in ((high - low, by_image), (few_high - few_low, by_image[:6])):
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
        np.testing.assert_allclose(width, 2 * t.ppf(0.975, len(values) - 1) * error, rtol=0.12)
    assert np.isnan(image_intervals(by_image[:4], ids[:24:6], seed=0)).all()


# --- voxels


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_voxels_return_to_their_places(tmp_path_factory, data):
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=3, max_size=3)))
    cells = data.draw(st.lists(st.booleans(), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    inside = np.array(cells).reshape(shape)
    values = np.random.default_rng(0).standard_normal(int(inside.sum()))
    affine = np.diag([*data.draw(st.lists(st.sampled_from([-2.0, 1.0, 1.5]), min_size=3, max_size=3)), 1.0])
    folder = tmp_path_factory.mktemp("mask")
    nibabel.save(nibabel.Nifti1Image(inside.astype(np.uint8), affine), folder / "mask.nii.gz")
    mask = read_mask(folder / "mask.nii.gz", int(inside.sum()))
    (folder / "map.nii.gz").write_bytes(mask.nifti(values, "SIMULATED; planted"))
    image = nibabel.load(folder / "map.nii.gz")
    volume, following = image.get_fdata(), iter(values)
    for i in range(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                assert volume[i, j, k] == (np.float32(next(following)) if inside[i, j, k] else 0)
    np.testing.assert_array_equal(image.affine, affine)
    assert image.header["descrip"].item() == b"SIMULATED; planted" and image.get_data_dtype() == np.float32


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_slices_show_voxels_where_they_lie(data):
    order = data.draw(st.permutations([0, 1, 2]))
    signs = data.draw(st.lists(st.sampled_from([-1, 1]), min_size=3, max_size=3))
    sizes = data.draw(st.lists(st.sampled_from([1.0, 1.8, 3.0]), min_size=3, max_size=3))  # mm along x, y, z
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    for grid_axis, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        affine[axis, grid_axis] = sign * sizes[axis]
    affine[:3, 3] = [-7.0, 20.0, 3.5]
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    inside = rng.random((7, 9, 8)) < data.draw(st.sampled_from([0.02, 0.3, 0.9]))
    inside[3, 4, 5] = True
    grid = np.stack(np.meshgrid(*map(np.arange, inside.shape), indexing="ij"), axis=-1)
    places = grid @ affine[:3, :3].T + affine[:3, 3]  # mm of every voxel
    planes = [cut_planes(places[..., axis], inside, affine) for axis in range(3)]
    assert [(plane.axis, plane.sides) for plane in planes[0]] == [("z", "LRPA"), ("y", "LRIS"), ("x", "PAIS")]
    for number, (cut, across, up) in enumerate([(2, 0, 1), (1, 0, 2), (0, 1, 2)]):
        shown = [planes[axis][number] for axis in range(3)]
        centres = places[inside][:, cut]
        assert (
            1 <= len(shown[0].slices) <= SLICES and np.ptp(centres) + 0.1 > max(shown[0].places) - centres.min() > -0.1
        )
        for which, place in enumerate(shown[0].places):
            values = [plane.slices[which] for plane in shown]
            at_place = inside & (np.abs(places[..., cut] - place) < 1e-4)
            found = np.stack([part[np.isfinite(part)] for part in values], axis=-1)
            expected = places[at_place]
            assert len(found) == len(expected) > 0
            np.testing.assert_allclose(sorted(map(tuple, found)), sorted(map(tuple, expected)), atol=1e-4)
            rows, columns = np.nonzero(np.isfinite(values[0]))
            for axis, cells in ((across, columns), (up, rows)):  # right, front and above come last
                np.testing.assert_allclose(
                    values[axis][rows, columns] - values[axis][rows[0], columns[0]],
                    sizes[axis] * (cells - cells[0]), atol=1e-4,
                )  # fmt: skip
            assert shown[0].extent == pytest.approx(
                (values[0].shape[1] * sizes[across], values[0].shape[0] * sizes[up])
            )


def test_slices_pass_through_where_most_voxels_are():
    inside = np.zeros((60, 6, 6), dtype=bool)
    inside[[2, 50]] = True
    inside[0, 0, 0] = inside[59, 0, 0] = True  # two stray voxels get no slice
    planes = {plane.axis: plane for plane in cut_planes(inside.astype(float), inside, np.eye(4))}
    assert planes["x"].places == [2, 50] and planes["z"].places == [0, 1, 2, 3, 4, 5]


def test_slices_of_a_mask_of_real_size_are_drawn(tmp_path, monkeypatch):
    figures = captured(monkeypatch, understanding_pictures)
    x, y, z = np.indices((81, 104, 83)) - np.array([40, 30, 40])[:, None, None, None]
    shell = np.abs(np.sqrt((x / 35) ** 2 + (y / 28) ** 2 + (z / 30) ** 2) - 0.95) < 0.05
    volume = np.where(shell, x / 40.0, 0)
    draw_slices(volume, shell, np.diag([1.8, 1.8, 1.8, 1]), ("Title", "Note"), tmp_path / "x")
    axes = [axes for axes in figures[0].axes if axes.images]
    assert len(axes) == 3 * SLICES and all(
        np.isfinite(np.ma.filled(a.images[0].get_array(), np.nan)).any() for a in axes
    )
    assert all(a.images[0].get_array().shape[1] < 75 for a in axes)  # cropped
    limits = {a.images[0].get_clim() for a in axes}
    assert len(limits) == 1 and limits.pop() == pytest.approx((-825, 825), rel=0.1)  # 10⁻³
    assert axes[0].get_title().startswith("z = ") and [text.get_text() for text in axes[0].texts] == list("LRPA")
    scales = {round(float(np.diff(a.get_xlim())[0]), 6) for a in axes}
    assert len(scales) == 1  # one scale in all planes


def test_masks_that_do_not_fit_raise(tmp_path):
    path = tmp_path / "sub-01.nii.gz"
    assert read_mask(path, 3) is None
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 2, 2), dtype=np.uint8), np.eye(4)), path)
    with pytest.raises(DataError, match="holds 8 voxels, but the recordings have 7"):
        read_mask(path, 7)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"nothing", b"", whole[:-12] + bytes(12)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="no readable NIfTI mask"):
            read_mask(path, 8)
    for wrong in (np.ones((2, 2, 2, 2), dtype=np.float32), np.full((2, 2, 2), np.nan, dtype=np.float32)):
        nibabel.save(nibabel.Nifti1Image(wrong, np.eye(4)), path)
        with pytest.raises(DataError, match="three dimensions, finite"):
            read_mask(path, 8)
    with pytest.raises(DataError, match="holds 2 voxels, but got values"):
        VoxelMask(np.array([[[True, True]]]), np.eye(4)).volume(np.ones(3))


# --- sensors


def test_positions_of_ctf_sensors_and_sites():
    names = ["MLF11", "MRF11", "MLO11", "MRO11", "MLT21", "MRT21", "MZC01", "MZF01"]
    found, sentence = sensor_positions([f"{name}-1609" for name in names])
    places = dict(zip(names, found.places, strict=True))
    assert "CTF-275" in sentence and np.linalg.norm(found.places, axis=1).max() < 0.0951
    assert all(places[f"ML{site}"][0] < 0 < places[f"MR{site}"][0] for site in ("F11", "O11", "T21"))
    assert places["MLF11"][1] > places["MLT21"][1] > places["MLO11"][1]
    backwards, _ = sensor_positions([f"{name}-2622" for name in names[::-1]])
    np.testing.assert_array_equal(backwards.places[::-1], found.places)
    found, sentence = sensor_positions(["FP1", "Fp2", "cz", "Pz", "O1", "O2", "T7", "T8"])
    xyz = np.array([channel["loc"][:3] for channel in found.places["chs"]])
    assert "10-05" in sentence and xyz[0, 0] < 0 < xyz[1, 0] and xyz[4, 1] < xyz[2, 1] < xyz[0, 1]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([f"EEG{n:03d}" for n in range(9)], "the names of the sensors (EEG000, EEG001, EEG002, ...)"),
        (["Fz", "Cz", "Pz"], "3 sensors are too few"),
        (["Fz", "Cz", "Pz", "O1", "O2", "T7", "T8", "C0"], "do not say where they lie"),
        (["MLC99"] * 8, "do not say where they lie"),
    ],
)
def test_unknown_positions_say_why(names, reason):
    found, sentence = sensor_positions(names)
    assert found is None and sentence.startswith("No topography") and reason in sentence


# --- the whole


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


def test_dissimilarities_are_written_in_the_order_that_is_drawn(understood, planted):
    result, folder = understood
    part = planted[2]["eeg"]
    rows = table(folder / "eeg_rdms.csv")
    # three concepts, no categories: concept after concept, image ids inside
    ordered = sorted(range(14), key=lambda row: (part.gallery_concepts[row], part.gallery_ids[row]))
    ids = [str(part.gallery_ids[row]) for row in ordered]
    pairs = [(i, j) for i in range(14) for j in range(i + 1, 14)]
    assert [(row["first"], row["second"]) for row in rows] == [(ids[i], ids[j]) for i, j in pairs]
    assert rows[0]["first_kind"] == "a" and rows[-1]["second_kind"] == "c"
    by_image = {image: number for number, image in enumerate(sorted(set(part.image_ids)))}
    means = np.zeros((14, 14))
    for subject in SUBJECTS:
        own = part.subjects == subject
        embeds = part.embeds[own][np.argsort(part.image_ids[own])]
        means += squareform(pdist(embeds, "correlation")) / len(SUBJECTS)
    gallery = squareform(pdist(part.gallery_embeds, "correlation"))
    places = [(by_image[ids[i]], by_image[ids[j]]) for i, j in pairs]
    np.testing.assert_allclose([float(row["encoder"]) for row in rows], [means[place] for place in places], rtol=1e-4)
    np.testing.assert_allclose([float(row["images"]) for row in rows], [gallery[place] for place in places], rtol=1e-4)
    assert result["similarity"]["modalities"]["eeg"]["shown"]["kinds"] == 3


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
    assert len(files) == 1 + 3 * 11 + 1  # numbers; eleven times picture, picture, table; an image
    for name in files:
        assert (tmp_path / name).read_bytes() == (understood[1] / name).read_bytes(), name


def changed(part, *, embeds=None, images=(), **facts):
    """A split with other embeddings, or of a data set with other facts or images."""
    data = PreparedSet(part.data.name, part.data.folder, replace(part.facts, **facts),
                       replace(part.data.images, **dict(images)))  # fmt: skip
    return replace(part, data=data, embeds=part.embeds if embeds is None else embeds)


def with_images(part, embeds):
    """The split with other embeddings of all images of its data set."""
    return changed(part, images={"embeds": embeds(part.data.images.embeds)})


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
        (lambda p: changed(p, n_times=11), "its metadata says 9 sensors and 11 samples"),
    ],
)
def test_splits_that_do_not_fit_raise(planted, tmp_path, change, message):
    _, model, splits = planted
    with pytest.raises(DataError, match=message):
        understand(model, {"eeg": change(splits["eeg"])}, tmp_path, progress=False)


def test_parameters_and_missing_captum_raise(planted, tmp_path, monkeypatch):
    _, model, splits = planted
    for options in ({"max_recordings": 0}, {"batch_size": -1}):
        with pytest.raises(DataError, match=f"'{next(iter(options))}' parameter. Allowed are 1 and more"):
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


def test_tables_and_scales(tmp_path):
    write_csv(tmp_path / "x.csv", {"a": np.array([0.1234567, 2.0]), "b": ["x,y", None]})
    assert (tmp_path / "x.csv").read_text() == 'a,b\n0.123457,"x,y"\n2,\n'
    with pytest.raises(ValueError, match="zip"):
        write_csv(tmp_path / "y.csv", {"a": [1], "b": [1, 2]})
    assert not (tmp_path / "y.csv").exists()
    assert scale_of(np.array([-0.02, 0.01])) == (pytest.approx(1e3), " / 10⁻³")
    assert scale_of(np.array([2e-5])) == (pytest.approx(1e6), " / 10⁻⁶")
    assert scale_of(np.array([3.0])) == scale_of(np.zeros(2)) == (1.0, "")
