"""Recordings of one's own: manifests, readers of every kind, splits, scaling, category targets and their errors."""

from functools import partial

import numpy as np
import pytest
import yaml
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from custom_raw import TERMS, N, eeg_manifest, patterns, prepared, rng, save_epochs, series_manifest, write_manifest
from neural_clip.commands.prepare import main
from neural_clip.corpora.custom.build import prepare
from neural_clip.corpora.custom.manifest import Recording, Splits, parse_manifest, read_manifest
from neural_clip.corpora.custom.splits import assign_splits, unit_label
from neural_clip.errors import DataError, run
from neural_clip.prepared.facts import Facts, read_metadata, verify_prepared
from prepared_rows import columns_of


def image_table(folder, tmp_path):
    images = load_dataset(str(folder), "images", split="images", cache_dir=str(tmp_path / "cache"))
    return {row["image_id"]: row for row in images.remove_columns([c for c in images.column_names if c == "image"])}


def test_patterns_of_an_npz_with_one_based_index(tmp_path):
    manifest, arrays = patterns(tmp_path)
    folder = prepared(tmp_path, manifest)
    counts = {}
    for split in ("train", "validation", "test"):
        rows = columns_of(folder, split, tmp_path)
        counts[split] = len(rows["image_id"])
        for image_id, trial, values in zip(rows["image_id"], rows["trial"], rows["fmri"], strict=True):
            assert image_id == f"image-{arrays['shown'][trial] - 1:05d}"
            np.testing.assert_array_equal(values, arrays["betas"][trial].astype(np.float32))
    assert counts == {"train": 6, "validation": 3, "test": 3}
    pictures = load_dataset(str(folder), "images", split="images", cache_dir=str(tmp_path / "cache"))
    np.testing.assert_array_equal(np.asarray(pictures[4]["image"])[..., 0], arrays["pictures"][4])


def test_scaling_done_before_and_block_designs_are_declared(tmp_path):
    manifest, arrays = patterns(tmp_path, unit="z")
    betas = arrays["betas"]
    arrays["betas"] = (betas - betas.mean(axis=0)) / betas.std(axis=0)  # over test trials as well
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(DataError, match="test split"):  # the leak guard sees it
        prepared(tmp_path, manifest)
    folder = prepared(tmp_path, manifest | {"scaling": "unknown", "block_design": True})
    metadata = read_metadata(folder)
    assert metadata["scaling"]["fit_scope"] == "unknown" and metadata["block_confounded"]
    warnings = {finding["check"] for finding in metadata["findings"] if finding["severity"] == "warning"}
    assert {"fit scope", "block design"} <= warnings
    assert not metadata["presentation_order"]


def test_patterns_of_a_mat_file_row_by_row_with_labels(tmp_path):
    import scipy.io

    pictures = rng(1).integers(0, 255, (N, 2, 3), dtype=np.uint8)
    flat = np.stack([picture.ravel(order="F") for picture in pictures])
    betas = rng(0).normal(size=(N, 5))
    content = {"train": betas[:9], "test": betas[9:], "stim": flat, "label": 1 + np.arange(N)[:, None] % 2}
    scipy.io.savemat(tmp_path / "m.mat", content)
    entry = {"file": "m.mat", "kind": "patterns", "subject": "sub-01"}
    manifest = {
        "name": "mine", "modality": "fmri", **TERMS, "splits": {"validation": 0.3}, "scaling": "none",
        "recordings": [
            {**entry, "run": "a", "data_key": "train", "first_image": 0},
            {**entry, "run": "b", "data_key": "test", "first_image": 9, "split": "test"},
        ],
        "images": {
            "file": "m.mat", "keys": ["stim"], "shape": [2, 3], "order": "F", "concept_keys": ["label"],
            "concept_names": {1: "six", 2: "nine"},
        },
    }  # fmt: skip
    folder = prepared(tmp_path, manifest)
    test = columns_of(folder, "test", tmp_path)
    assert list(test["image_id"]) == ["image-00009", "image-00010", "image-00011"]
    assert list(test["concept"]) == ["nine", "six", "nine"]
    np.testing.assert_array_equal(np.stack(test["fmri"]), betas[9:].astype(np.float32))
    assert len(columns_of(folder, "validation", tmp_path)["image_id"]) == 3
    stored = load_dataset(str(folder), "images", split="images", cache_dir=str(tmp_path / "cache"))
    np.testing.assert_array_equal(np.asarray(stored[7]["image"])[..., 0], pictures[7])


def test_matlab_7_3_arrays_come_the_right_way_round(tmp_path):
    import h5py

    manifest, arrays = patterns(tmp_path)
    with h5py.File(tmp_path / "v73.mat", "w", userblock_size=512) as file:
        file["betas"] = arrays["betas"].T
        file["shown"] = arrays["shown"][:, None].T
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    with (tmp_path / "v73.mat").open("r+b") as file:
        file.write(header)
    manifest["recordings"][0]["file"] = "v73.mat"
    rows = columns_of(prepared(tmp_path, manifest), "test", tmp_path)
    np.testing.assert_array_equal(np.stack(rows["fmri"]), arrays["betas"][rows["trial"]].astype(np.float32))


def test_epochs_with_pictures_and_training_scaling(tmp_path):
    manifest, data = eeg_manifest(tmp_path, scaling="train")
    folder = prepared(tmp_path, manifest)
    metadata = verify_prepared(folder)
    assert (metadata["ch_names"], metadata["n_chans"], metadata["n_times"]) == (["A", "B", "C"], 3, 21)
    assert (metadata["sfreq"], metadata["unit"]) == (100.0, "z (V before scaling)")
    assert metadata["tmin"] == pytest.approx(0)
    assert metadata["scaling"]["fit_scope"] == "train"
    splits = {split: columns_of(folder, split, tmp_path) for split in ("train", "validation", "test")}
    scaling = load_file(folder / "scaling.safetensors")
    for subject, values in data.items():
        window = values[:, :, 10:31]
        train = [
            trial for name, trial in zip(splits["train"]["subject"], splits["train"]["trial"], strict=True)
            if name == f"sub-0{subject}"
        ]  # fmt: skip
        mean = window[train].transpose(1, 0, 2).reshape(3, -1).mean(axis=1)
        deviation = window[train].transpose(1, 0, 2).reshape(3, -1).std(axis=1)
        np.testing.assert_allclose(scaling[f"sub-0{subject}/mean"], mean, rtol=1e-3, atol=1e-10)
        for rows in splits.values():
            for name, trial, eeg in zip(rows["subject"], rows["trial"], rows["eeg"], strict=True):
                if name == f"sub-0{subject}":
                    expected = (window[trial] - mean[:, None]) / deviation[:, None]
                    np.testing.assert_allclose(eeg, expected, rtol=1e-3, atol=1e-3)
    assert set(splits["train"]["concept"]) <= {"cat", "dogs"}
    ids = [set(rows["image_id"]) for rows in splits.values()]
    assert not ids[0] & ids[1] and not ids[0] & ids[2] and not ids[1] & ids[2]
    assert all(image_id.endswith(".png") for image_id in ids[0])  # found without the suffix, stored with it
    assert set(splits["test"]["run"]) <= {"0", "1", "2"}


def test_channels_are_picked_in_the_order_asked_for(tmp_path):
    import mne

    manifest, data = eeg_manifest(tmp_path)
    manifest["defaults"]["picks"] = ["C", "A"]
    places = {"A": [-0.05, 0.06, 0.03], "B": [0.0, 0.0, 0.0], "C": [0.051234, 0.06, 0.03]}
    epochs = mne.read_epochs(tmp_path / "1-epo.fif", verbose="error")
    montage = mne.channels.make_dig_montage(
        {name: np.array(place) for name, place in places.items()}, coord_frame="head"
    )
    epochs.set_montage(montage, verbose="error")
    epochs.save(tmp_path / "1-epo.fif", overwrite=True, verbose="error")
    folder = prepared(tmp_path, manifest)
    metadata = read_metadata(folder)
    assert metadata["ch_names"] == ["C", "A"]
    assert (metadata["ch_positions"], metadata["ch_positions_frame"]) == ([[0.0512, 0.06, 0.03], places["A"]], "head")
    rows = columns_of(folder, "test", tmp_path)
    subject = int(rows["subject"][0][-1])
    np.testing.assert_allclose(rows["eeg"][0], data[subject][rows["trial"][0]][[2, 0], 10:31], rtol=1e-4, atol=1e-10)


def test_series_are_averaged_over_the_window_at_category_level(tmp_path):
    manifest, volumes, mask = series_manifest(tmp_path)
    folder = prepared(tmp_path, manifest)
    metadata = read_metadata(folder)
    assert metadata["category_level"] and metadata["split_unit"] == "run"
    assert "category level" in (folder / "README.md").read_text().lower()
    assert metadata["n_voxels"] == {"sub-01": int(mask.sum())}
    assert metadata["preprocessing"]["images per category target"] == {"face": 2, "house": 1}
    rows = columns_of(folder, "test", tmp_path)
    assert set(rows["run"]) == {"run-03"}
    assert list(rows["image_id"]) == ["category:house", "category:face"] * 2
    voxels = [index for index in np.ndindex(mask.shape) if mask[index]]  # C order, one by one
    for row, onset in enumerate([8, 24, 40, 56]):
        chosen = [v for v in range(40) if onset + 4 <= 2 * v < onset + 8]
        assert len(chosen) == 2
        expected = [np.mean([volumes[3][(*voxel, v)] for v in chosen]) for voxel in voxels]
        np.testing.assert_allclose(rows["fmri"][row], expected, rtol=1e-5)
    targets = image_table(folder, tmp_path)
    assert set(targets) == {"category:face", "category:house"}
    assert targets["category:face"]["image_embeds"] == [0.5, 0.5, 0]
    assert targets["category:house"]["image_embeds"] == [0, 0, 2]
    assert metadata["image_encoder"] == {"name": "net", "revision": None, "pooling": None, "projection_dim": 3}


def test_series_in_blocks_detrended_and_standardised_by_their_run(tmp_path):
    manifest, volumes, mask = series_manifest(tmp_path)
    manifest["defaults"] |= {"block_step": 2.0, "window": [4, 6], "detrend": "linear", "standardise": "run"}
    rows = columns_of(prepared(tmp_path, manifest), "test", tmp_path)
    assert len(rows["image_id"]) == 4 * 4  # blocks of 8 s, a row every 2 s
    times = np.arange(40)
    for column, voxel in enumerate(zip(*np.nonzero(mask), strict=True)):
        series = volumes[3][voxel].astype(float)
        residual = series - np.polyval(np.polyfit(times, series, 1), times)
        residual /= residual.std()
        expected = [residual[(8 + 16 * block + 2 * step + 4) // 2] for block in range(4) for step in range(4)]
        np.testing.assert_allclose([values[column] for values in rows["fmri"]], expected, atol=1e-3)


def test_embeddings_can_be_centred_on_the_training_images(tmp_path):
    manifest, _ = patterns(tmp_path)
    vectors = 5 + rng(4).normal(size=(N, 3))
    np.savez(tmp_path / "e.npz", embeds=vectors)
    manifest["embeddings"] = {"file": "e.npz", "name": "net", "ids_key": None, "centre": "train"}
    folder = prepared(tmp_path, manifest)
    train = sorted({int(image_id[-5:]) for image_id in columns_of(folder, "train", tmp_path)["image_id"]})
    mean = vectors[train].astype(np.float32).mean(axis=0)
    table = image_table(folder, tmp_path)
    stored = np.array([table[f"image-{i:05d}"]["image_embeds"] for i in range(N)])
    np.testing.assert_allclose(stored, vectors - mean, atol=1e-5)
    np.testing.assert_allclose(np.load(folder / "embedding_mean.npz")["mean"], mean, rtol=1e-6)
    assert read_metadata(folder)["image_encoder"]["subtracted"] == "the mean over the training images"
    assert "the mean over the training images" in (folder / "README.md").read_text()
    np.testing.assert_allclose(Facts.read(folder).target_space.mean, mean, rtol=1e-6)


def test_two_runs_of_the_program_give_the_same_bytes(tmp_path):
    manifest, _ = patterns(tmp_path, scaling="train")
    path = write_manifest(tmp_path, manifest)
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        run(partial(main, "custom"), [str(path), "--output-dir", str(folder)])
    files = [sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file()) for folder in folders]
    assert files[0] == files[1]
    assert all((folders[0] / name).read_bytes() == (folders[1] / name).read_bytes() for name in files[0])


def test_raw_dir_is_where_paths_begin(tmp_path):
    manifest, _ = patterns(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    path = write_manifest(tmp_path / "elsewhere", manifest)
    with pytest.raises(DataError, match="There is no"):
        prepare(path, tmp_path / "set")
    assert prepare(path, tmp_path / "set", raw_dir=tmp_path).is_dir()


# Errors: each names the file or key, what was found and what is allowed.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scalling": "train"}, "unknown key 'scalling'. Did you mean 'scaling'"),
        ({"scaling": "test"}, "'none', 'train', 'unknown', but got 'test'"),
        ({"modality": "ecog"}, "'eeg', 'meg', 'fmri', but got 'ecog'"),
        ({"splits": {"bye": "image"}}, "'splits': unknown key 'bye'. Did you mean 'by'"),
        ({"splits": {"test": 1.5}}, "shares between 0 and 1"),
        ({"splits": {"test": ["image-00099"]}}, "'image-00099' does not occur. Did you mean 'image-0"),
        ({"splits": {"test": ["image-00001"], "validation": ["image-00001"]}}, "for 'test' and for 'validation'"),
        ({"splits": {"test": [f"image-{i:05d}" for i in range(N)]}}, "'validation' cannot be a share .* of 12 images"),
        (
            {"splits": {"test": [f"image-{i:05d}" for i in range(N)], "validation": None}},
            "nothing is left for 'train'. To divide: 12 images of 1 subject",
        ),
        ({"recordings": []}, "'recordings' is empty"),
        ({"recordings": "p.npz"}, "'recordings' must be a list, but got 'p.npz'"),
        ({"images": None}, "give 'images', 'embeddings' or both"),
        ({"images": {}}, "needs either 'folder' or 'file'"),
        ({"category_level": True}, "'category_level' needs 'embeddings'"),
        ({"name": 3}, "'name' must be text, but got 3"),
        ({"licence": ...}, "lacks 'licence'"),
        ({"name": " "}, "'name' is empty"),
        ({"source": "a\0b"}, "'source' holds a zero byte"),
        ({"images": {"folder": "a\0"}}, "'images': 'folder' holds a zero byte"),
        ({"splits": {"seed": -1}}, "'splits': 'seed' must be 0 or more, but got -1"),
        ({"preprocessing": {1: "filtered", "x": "y"}}, "'preprocessing' has the name 1; write it in quotes"),
        ({"preprocessing": {"by": {"whom": b"x"}}}, "'preprocessing', 'by', 'whom' holds b'x'; allowed are text"),
        ({"known_defects": ["noise", {"at": [float("inf")]}]}, "'known_defects', 'at' holds inf; allowed are text"),
    ],
)
def test_bad_manifests_are_named(tmp_path, changes, message):
    manifest, _ = patterns(tmp_path)
    content = {key: value for key, value in (manifest | changes).items() if value is not ...}
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, content)
    assert not (tmp_path / "set").exists() and not (tmp_path / "set.partial").exists()


@pytest.mark.parametrize("number", [np.inf, np.nan, 1.5, 0.0])
def test_positions_of_images_are_whole_numbers(tmp_path, number):
    manifest, arrays = patterns(tmp_path)
    np.savez(tmp_path / "p.npz", **arrays | {"shown": np.where(np.arange(12) == 3, number, arrays["shown"])})
    with pytest.raises(DataError, match=r"p\.npz': array 'shown' must hold whole numbers from 1"):
        prepared(tmp_path, manifest)


def test_a_recording_is_listed_once(tmp_path):
    manifest, _ = patterns(tmp_path)
    manifest["recordings"] += [dict(manifest["recordings"][0])]
    with pytest.raises(DataError, match=r"recording 1 is recording 0 once more \('p.npz'\)"):
        prepared(tmp_path, manifest)


def test_a_date_is_text(tmp_path):
    manifest, _ = patterns(tmp_path)
    path = write_manifest(tmp_path, manifest)
    path.write_text(path.read_text() + "\npreprocessing: {when: 2020-01-31}\n")
    assert read_manifest(path).preprocessing == {"when": "2020-01-31"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "raw"}, "'epochs', 'continuous', 'bids', 'series', 'patterns', but got 'raw'"),
        ({"t_r": 2.0}, "of kind 'patterns' do not use 't_r'"),
        ({"data_kye": "x"}, "recording 0: unknown key 'data_kye'. Did you mean 'data_key'"),
        ({"index_base": 2}, "allowed values for 'index_base' are 0 and 1"),
        ({"index_base": 0}, "shows image number 12"),
        ({"index_base": None}, "say by 'index_base' if they begin at 0 or 1"),
        ({"data_key": "beta"}, "there is no array 'beta'; it holds 'betas', 'pictures', 'shown'"),
        ({"data_key": None}, "no array was chosen"),
        ({"first_image": 0}, "exactly one of 'image_key', 'events' and 'first_image'"),
        ({"file": "q.npz"}, "There is no recording '.*q.npz'"),
        ({"subject": "S1"}, "named like 'sub-01', but got 'S1'"),
        ({"mask": "p.npz"}, "no array was chosen"),
    ],
)
def test_bad_pattern_entries_are_named(tmp_path, changes, message):
    manifest, _ = patterns(tmp_path)
    manifest["recordings"][0] |= changes
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, manifest)
    assert not (tmp_path / "set").exists() and not (tmp_path / "set.partial").exists()


def test_nan_patterns_are_named(tmp_path):
    manifest, arrays = patterns(tmp_path)
    arrays["betas"][2, 3] = np.nan
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(DataError, match="1 of 5 voxels hold values that are not finite"):
        prepared(tmp_path, manifest)
    manifest, arrays = patterns(tmp_path, "eeg")
    arrays["betas"][2] = np.inf
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(DataError, match=r"'p.npz': 1 rows hold values that are not finite, the first is row 2"):
        prepared(tmp_path, manifest)


def test_recordings_that_repeat_across_splits_are_refused_by_the_name_of_the_manifest(tmp_path):
    manifest, arrays = patterns(tmp_path)
    arrays["betas"][:] = arrays["betas"][0]
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(DataError, match=r"The data set of '.*manifest\.yaml' is not written.*identical recordings"):
        prepared(tmp_path, manifest)
    assert not (tmp_path / "out").exists()


def test_damaged_array_files_are_named(tmp_path):
    manifest, _ = patterns(tmp_path)
    whole = (tmp_path / "p.npz").read_bytes()
    cases = {
        "q.npz": (whole[: len(whole) // 2], "cannot be read.*damaged or truncated"),
        "q.mat": (b"no matlab file" * 20, "cannot be read: no MAT-file"), "q.npy": (b"", "is empty: it has 0 bytes"),
    }  # fmt: skip
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        manifest["recordings"][0] |= {"file": name, "first_image": 0}
        for key in ("data_key", "image_key", "index_base"):
            manifest["recordings"][0].pop(key, None)
        with pytest.raises(DataError, match=f"{name}' {message}"):
            prepared(tmp_path, manifest)


def test_pickled_arrays_are_refused(tmp_path):
    manifest, arrays = patterns(tmp_path)
    np.savez(tmp_path / "p.npz", **arrays | {"betas": np.array([{"x": 1}] * N, dtype=object)})
    with pytest.raises(DataError, match="cannot be read"):
        prepared(tmp_path, manifest)


def test_counts_that_differ_are_named(tmp_path):
    manifest, arrays = patterns(tmp_path)
    np.savez(tmp_path / "p.npz", **arrays | {"shown": arrays["shown"][:-1]})
    with pytest.raises(DataError, match="holds 12 patterns, but 11 rows"):
        prepared(tmp_path, manifest)


@pytest.mark.parametrize(
    ("vectors", "changes", "message"),
    [
        (np.full((N, 3), np.nan), {}, "not finite"),
        (np.ones((N - 1, 3)), {}, "11 embeddings for 12 images, and no ids"),
        (np.ones(N), {}, r"expected floats \(n, projection_dim\)"),
        (np.ones((N, 3)), {"vectors_key": "vectors"}, "there is no array 'vectors'"),
        (np.ones((N, 3)), {"ids_key": "same"}, "repeated, for example 'twin'"),
        (np.ones((N, 3)), {"ids_key": "other"}, "'embeddings' lacks 12 of 12 images"),
        (np.ones((N, 3)), {"name": ...}, "lacks 'name'"),
        (np.ones((N, 3)), {"centre": "train"}, "all zeros"),
    ],
)
def test_bad_embeddings_are_named(tmp_path, vectors, changes, message):
    manifest, _ = patterns(tmp_path)
    names = {"same": np.array(["twin"] * N), "other": np.array([f"x{i}" for i in range(N)])}
    np.savez(tmp_path / "e.npz", embeds=vectors, **names)
    entry = {"file": "e.npz", "name": "net", "ids_key": None} | changes
    manifest["embeddings"] = {key: value for key, value in entry.items() if value is not ...}
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, manifest)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_column": "img"}, "no column 'img'; it has 'picture', 'block'"),
        ({"picks": ["A", "Z"]}, "no channel 'Z'"),
        ({"picks": ["mag"]}, "no channel of type"),
        ({"tmin": 5.0, "tmax": 6.0}, "spans -0.1 to 0.4 s from onset; 'tmin' .5 s. and 'tmax' .6 s. must lie within"),
        ({"tmin": -0.11, "tmax": 0.2}, "'tmin' .-0.11 s. and 'tmax' .0.2 s. must lie within"),
        ({"tmin": 0.0, "tmax": 1.0}, "'tmin' .0 s. and 'tmax' .1 s. must lie within"),
        ({"tmin": 0.001, "tmax": 0.009}, "the window of 0.001 to 0.009 s holds no sample at 100 Hz"),
        ({"keep": {"block": [99]}}, "no row is left"),
        ({"events": "x.tsv"}, "do not use 'events'"),
    ],
)
def test_bad_epochs_entries_are_named(tmp_path, changes, message):
    manifest, _ = eeg_manifest(tmp_path)
    manifest["defaults"] |= changes
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, manifest)


def test_a_window_may_begin_and_end_between_the_samples_of_epochs(tmp_path):
    manifest, _ = eeg_manifest(tmp_path)
    manifest["defaults"] |= {"tmin": -0.109, "tmax": 0.409}
    metadata = verify_prepared(prepared(tmp_path, manifest))
    assert (metadata["tmin"], metadata["n_times"]) == (pytest.approx(-0.1), 51)


def test_bad_epochs_files_are_named(tmp_path):
    manifest, _ = eeg_manifest(tmp_path)
    path = tmp_path / "2-epo.fif"
    cases = [
        (lambda: save_epochs(path, metadata=False), "has no metadata"),
        (lambda: save_epochs(path, names=("B", "A", "C")), r"channel 1 is 'B' instead of 'A'.*order"),
        (lambda: save_epochs(path, sfreq=120.0), "has sfreq 120.0"),
        (lambda: save_epochs(path), "shows 'im00'|nearest"),
        (lambda: path.write_bytes(path.read_bytes()[:1000]), "cannot be read"),
        (lambda: path.write_bytes(b"junk"), "cannot be read"),
        (path.unlink, "There is no recording"),
    ]
    images = [f"{'cats' if i % 2 else 'dogs'}/im{i:02d}" for i in range(N - 1)] + ["dogs/im77"]
    cases.insert(3, (lambda: save_epochs(path, images=images), "row 11 shows 'dogs/im77', which is none of the 12"))
    for break_it, message in cases:
        break_it()
        with pytest.raises(DataError, match=message):
            prepared(tmp_path, manifest)


def test_epochs_cut_off_in_their_data_are_named(tmp_path):
    manifest, _ = eeg_manifest(tmp_path)
    path = tmp_path / "2-epo.fif"
    whole = path.read_bytes()
    for share in (0.3, 0.5, 0.7, 0.9, 0.97):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match="2-epo"):
            prepared(tmp_path, manifest)
        assert not (tmp_path / "set").exists()


def test_channels_marked_bad_are_not_taken_in_silence(tmp_path):
    import mne

    manifest, _ = eeg_manifest(tmp_path)
    epochs = mne.read_epochs(tmp_path / "1-epo.fif", verbose="error")
    epochs.info["bads"] = ["B"]
    epochs.save(tmp_path / "1-epo.fif", overwrite=True, verbose="error")
    with pytest.raises(DataError, match="channels marked bad: B"):
        prepared(tmp_path, manifest)
    manifest["defaults"]["picks"] = ["A", "C"]
    assert read_metadata(prepared(tmp_path, manifest))["ch_names"] == ["A", "C"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": "nowhere.nii"}, r"There is no mask '.*nowhere.nii'.* The manifest is '.*manifest\.yaml'"),
        ({"mask": None}, "'mask' must name the voxels"),
        ({"data_key": "betas"}, "holds one array without a name, but 'data_key' is set"),
        ({"mask": "small.npy"}, r"has shape \(2, 2, 2\), but '.*run0.nii.gz' has shape \(3, 4, 2, 40\)"),
        ({"mask": "empty.npy"}, "no voxel above 0"),
        ({"mask": "infinite.npy"}, r"infinite\.npy' holds NaN or infinite values"),
        ({"mask": "nan.nii"}, r"nan\.nii' holds NaN or infinite values"),
        ({"mask": "shifted.nii"}, "their affines differ"),
        ({"t_r": 1.5}, "2.0 s in its header, but 't_r' is 1.5 s"),
        ({"window": [8, 4]}, "'window' is"),
        ({"window": [4, 30]}, "is not covered"),
        ({"window": [4.5, 5.5]}, "is not covered"),
        ({"keep": {"trial_type": ["dog"]}}, "no row is left"),
        ({"keep": {}}, "shows 'category:rest'"),
        ({"events": "nowhere.tsv"}, r"There is no table.* The manifest is '.*manifest\.yaml'"),
        ({"events": None}, "need 'events'"),
        ({"block_step": -1.0}, "'block_step'"),
        ({"standardise": "all"}, "'none', 'run', but got 'all'"),
    ],
)
def test_bad_series_entries_are_named(tmp_path, changes, message):
    import nibabel

    manifest, _, mask = series_manifest(tmp_path)
    np.save(tmp_path / "small.npy", np.ones((2, 2, 2)))
    np.save(tmp_path / "empty.npy", np.zeros(mask.shape))
    np.save(tmp_path / "infinite.npy", np.where(mask, np.inf, 0))
    spoiled = np.where(mask, 1, np.nan).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(spoiled, np.eye(4)), tmp_path / "nan.nii")
    nibabel.Nifti1Image(mask.astype(np.uint8), np.diag([2.0, 2, 2, 1])).to_filename(tmp_path / "shifted.nii")
    for entry in manifest["recordings"]:
        entry |= {key: value for key, value in changes.items() if key == "events"}
    manifest["defaults"] |= {key: value for key, value in changes.items() if key != "events"}
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, manifest)
    assert not (tmp_path / "set").exists()


def test_bad_series_files_are_named(tmp_path):
    manifest, _, _ = series_manifest(tmp_path)
    path, table = tmp_path / "run1.nii.gz", tmp_path / "run1.tsv"
    whole, events = path.read_bytes(), table.read_text()
    for content in (whole[: len(whole) // 2], b"", b"junk" * 100):
        path.write_bytes(content)
        with pytest.raises(DataError, match="run1"):
            prepared(tmp_path, manifest)
    path.write_bytes(whole)
    for content, message in (
        ("", "is no table"),
        ("onset\ttrial_type\nsoon\tface\n", "'soon' is no finite number"),
        ("onset\ttrial_type\nnan\tface\n", "'nan' is no finite number"),
        ("time\ttrial_type\n1\tface\n", "no column 'onset'"),
        ("onset\ttrial_type\n1\n", "is no table"),
    ):
        table.write_text(content)
        with pytest.raises(DataError, match=message):
            prepared(tmp_path, manifest)
    table.write_text(events)
    assert prepared(tmp_path, manifest).is_dir()


def test_program_shows_one_line_and_exit_code_2(tmp_path, capsys):
    manifest, _ = patterns(tmp_path, scalling="train")
    with pytest.raises(SystemExit) as stop:
        run(partial(main, "custom"), [str(write_manifest(tmp_path, manifest)), "--output-dir", str(tmp_path / "set")])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_splits_are_disjoint_in_their_unit_and_keep_some_to_train_on(data):
    by = data.draw(st.sampled_from(["image", "run", "recording"]))
    n_files = data.draw(st.integers(3, 8))
    subjects = [f"sub-0{data.draw(st.integers(1, 2))}" for _ in range(n_files)]
    entries = [Recording("f", "patterns", subject, run=f"run-{i}") for i, subject in enumerate(subjects)]
    sizes = [data.draw(st.integers(1, 6)) for _ in entries]
    images = [[f"im{data.draw(st.integers(0, 5))}" for _ in range(size)] for size in sizes]
    if by == "image" and len({name for rows in images for name in rows}) < 3:
        return
    runs = [[entry.run] * size for entry, size in zip(entries, sizes, strict=True)]
    splits = Splits(by=by, validation=0.2, test=0.3, seed=data.draw(st.integers(0, 3)))
    if by != "image" and max(map(subjects.count, subjects)) < 3:  # each keeps one to train on, then one to test on
        with pytest.raises(DataError, match=r"nothing is left for 'validation'. To divide: "):
            assign_splits(entries, images, runs, splits)
        return
    chosen = assign_splits(entries, images, runs, splits)
    assert [len(rows) for rows in chosen] == sizes
    where = {}
    for entry, names, rows in zip(entries, images, chosen, strict=True):
        for name, split in zip(names, rows, strict=True):
            key = name if by == "image" else unit_label(entry, entry.run)
            assert where.setdefault(key, split) == split
    if by == "image":
        assert set(where.values()) == {"train", "validation", "test"}
    for subject in set(subjects) if by != "image" else ():
        own = [split for key, split in where.items() if key.startswith(subject)]
        assert "train" in own
        assert ("test" in own) == (len(own) > 1)
        assert ("validation" in own) == (len(own) > 2)
    assert assign_splits(entries, images, runs, splits) == chosen


def test_recordings_of_one_name_cannot_be_told_apart():
    entries = [Recording("a", "patterns", "sub-01"), Recording("b", "patterns", "sub-01")]
    with pytest.raises(DataError, match="two are 'sub-01'"):
        assign_splits(entries, [["x"], ["y"]], [[""], [""]], Splits(by="recording"))


def test_manifest_must_be_a_mapping(tmp_path):
    for content, message in ((["a"], "must be a mapping"), ("x: [", "is no readable manifest")):
        path = tmp_path / "manifest.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        with pytest.raises(DataError, match=message):
            prepare(path, tmp_path / "set")
    with pytest.raises(DataError, match="no manifest"):
        prepare(tmp_path / "none.yaml", tmp_path / "set")
    with pytest.raises(DataError, match="need 'sfreq'"):
        parse_manifest(patterns(tmp_path, "eeg")[0] | {"sfreq": None})


# Real recordings.


def test_real_betas_with_nan_outside_the_brain_are_refused_without_a_mask_of_the_brain(tmp_path, real_data):
    import nibabel

    if not (real_data / "nifti_betas").is_dir():
        pytest.skip("no nifti_betas among the real recordings")
    path = next((real_data / "nifti_betas").rglob("*_signal.nii.gz"))
    image = nibabel.load(path)
    data = image.get_fdata()
    finite = np.isfinite(data).all(axis=3) if data.ndim == 4 else np.isfinite(data)
    np.save(tmp_path / "all.npy", np.ones(finite.shape))
    np.save(tmp_path / "brain.npy", finite)
    n_rows = data.shape[3] if data.ndim == 4 else 1
    from neural_clip.files.volumes import read_volumes

    with pytest.raises(DataError, match="hold values that are not finite"):
        read_volumes(path, tmp_path / "all.npy", None)
    values, _ = read_volumes(path, tmp_path / "brain.npy", None)
    assert values.shape == (n_rows, int(finite.sum()))


def test_masks_of_one_subject_must_be_the_same(tmp_path):
    """Two masks of as many voxels would give each column two meanings."""
    import nibabel

    manifest, _, mask = series_manifest(tmp_path)
    (tmp_path / "copy.nii.gz").write_bytes((tmp_path / "mask.nii.gz").read_bytes())
    manifest["recordings"][1]["mask"] = "copy.nii.gz"
    prepared(tmp_path, manifest)
    other = np.roll(mask, 1, axis=0)
    nibabel.Nifti1Image(other.astype(np.uint8), np.diag([3.0, 3.0, 3.0, 1.0])).to_filename(tmp_path / "copy.nii.gz")
    assert other.sum() == mask.sum() and (other != mask).any()
    with pytest.raises(
        DataError, match=r"'run1\.nii\.gz': its mask 'copy\.nii\.gz' marks other voxels than an earlier one of sub-01"
    ):
        prepared(tmp_path, manifest, overwrite=True)
