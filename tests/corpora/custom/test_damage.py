"""What damaged, missing and changed files do to `prepare custom`, and what an interrupted run leaves; simulated."""

import json
import pickle
from functools import partial

import numpy as np
import pytest

from custom_raw import (
    N,
    eeg_manifest,
    patterns,
    prepared,
    rng,
    save_epochs,
    save_pictures,
    series_manifest,
    write_manifest,
)
from damaged_bytes import flipped_bits
from folder_contents import contents
from neural_clip.commands.prepare import main
from neural_clip.corpora.custom.build import prepare
from neural_clip.corpora.custom.epochs import read_epochs
from neural_clip.corpora.custom.manifest import Recording, parse_manifest
from neural_clip.corpora.custom.parts import images_of, recording_parts
from neural_clip.corpora.custom.recordings import read_trials
from neural_clip.errors import DataError, run
from neural_clip.files.arrays import read_array
from neural_clip.files.tables import read_table
from neural_clip.files.volumes import read_volumes
from neural_clip.prepared.facts import read_metadata, verify_prepared
from prepared_rows import parquet_rows
from second_process import python


def epochs_set(tmp_path):
    return eeg_manifest(tmp_path)[0], ["1-epo.fif", "2-epo.fif", "stimuli/dogs/im04.png"]


def series_set(tmp_path):
    return series_manifest(tmp_path)[0], ["run2.nii.gz", "run2.tsv", "mask.nii.gz", "e.npz"]


def patterns_set(tmp_path):
    return patterns(tmp_path)[0], ["p.npz"]


def matlab_set(tmp_path):
    import scipy.io

    manifest, arrays = patterns(tmp_path)
    scipy.io.savemat(tmp_path / "p.mat", arrays, do_compression=True)
    manifest["recordings"][0]["file"] = "p.mat"
    return manifest, ["p.mat"]


def npy_set(tmp_path):
    manifest, arrays = patterns(tmp_path)
    np.save(tmp_path / "p.npy", arrays["betas"])
    manifest["recordings"] = [{"file": "p.npy", "kind": "patterns", "subject": "sub-01", "first_image": 0}]
    return manifest, ["p.npy"]


def csv_set(tmp_path):
    manifest, _ = patterns(tmp_path)
    text = "image_id\n" + "".join(f"image-{i:05d}\n" for i in range(N))
    (tmp_path / "p.csv").write_text(text)
    manifest["recordings"] = [
        {"file": "p.npz", "kind": "patterns", "subject": "sub-01", "data_key": "betas", "events": "p.csv"}
    ]
    return manifest, ["p.csv"]


@pytest.mark.parametrize("make", [epochs_set, series_set, patterns_set, matlab_set, npy_set, csv_set])
def test_damaged_files_make_no_output_and_leave_the_old_one_as_it_is(tmp_path, make):
    manifest, names = make(tmp_path)
    before = contents(prepared(tmp_path, manifest))
    for name in names:
        path = tmp_path / name
        whole = path.read_bytes()
        for damage in (None, b"", b"\x00\xff junk" * 40, whole[: len(whole) // 2]):
            if damage is None:
                path.unlink()
            else:
                path.write_bytes(damage)
            for folder in ("set", "new"):
                with pytest.raises((DataError, FileNotFoundError)):  # each is one line at a shell
                    prepare(tmp_path / "manifest.yaml", tmp_path / folder, overwrite=True)
            assert contents(tmp_path / "set") == before and not (tmp_path / "new").exists()
        path.write_bytes(whole)
    prepare(tmp_path / "manifest.yaml", tmp_path / "new")
    assert contents(tmp_path / "new") == before  # nothing of the damaged tries is left


@pytest.mark.parametrize("make", [epochs_set, series_set, patterns_set, matlab_set, npy_set, csv_set])
def test_files_without_their_last_bytes_are_refused_or_give_the_same_rows(tmp_path, make):
    """An image without its end mark, and a table without the end of a row that is not kept, lack nothing."""
    manifest, names = make(tmp_path)
    before = parquet_rows(prepared(tmp_path, manifest))
    refused = 0
    for name in names:
        path = tmp_path / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-4])
        try:
            assert parquet_rows(prepared(tmp_path, manifest, overwrite=True)) == before
        except DataError:
            refused += 1
        path.write_bytes(whole)
    assert refused > 0 or make is matlab_set  # its last array is not asked for


def flips(whole, count, seed, first=0, last=None):
    """The file with one bit turned, `count` times."""
    generator = rng(seed)
    return flipped_bits(whole, generator.integers(first, last or len(whole), count), generator)


def outcomes(path, damaged_files, read, same):
    """How often a flipped bit was refused, changed nothing, or changed what was read."""
    counts = {"refused": 0, "same": 0, "changed": 0}
    for content in damaged_files:
        path.write_bytes(content)
        try:
            counts["same" if same(read()) else "changed"] += 1
        except DataError as error:
            assert path.name in str(error)
            counts["refused"] += 1
    return counts


@pytest.mark.parametrize("compressed", [False, True])
def test_a_flipped_bit_in_an_npz_is_refused_or_changes_nothing(tmp_path, compressed):
    arrays = {"betas": rng(0).normal(size=(20, 30)), "shown": np.arange(20)}
    path = tmp_path / "p.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    whole = path.read_bytes()
    counts = outcomes(
        path,
        [*flips(whole, 150, 1), *flips(whole, 150, 2, last=250)],
        lambda: read_array(path, "betas"),
        lambda found: found.dtype == float and np.array_equal(found, arrays["betas"]),
    )
    assert counts["changed"] == 0 and counts["refused"] > 100 and counts["same"] > 0


def test_a_flipped_bit_in_a_nii_gz_is_refused_or_changes_nothing(tmp_path):
    import nibabel

    data = rng(0).normal(size=(3, 4, 2, 10)).astype(np.float32)
    np.save(tmp_path / "mask.npy", np.ones((3, 4, 2)))
    path = tmp_path / "run.nii.gz"
    nibabel.Nifti1Image(data, np.eye(4)).to_filename(path)
    expected, _ = read_volumes(path, tmp_path / "mask.npy", None)
    counts = outcomes(
        path,
        flips(path.read_bytes(), 200, 3),
        lambda: read_volumes(path, tmp_path / "mask.npy", None)[0],
        lambda found: np.array_equal(found, expected),
    )
    assert counts["changed"] == 0 and counts["refused"] > 150


@pytest.mark.parametrize("suffix", ["fif", "fif.gz"])
def test_a_flipped_bit_in_epochs_is_refused_unless_it_hits_plain_samples_or_names(tmp_path, suffix):
    """FIF holds no checksum: a turned bit in a sample, or in a name, is another sample or name. Gzip tells."""
    entry = Recording(f"a-epo.{suffix}", "epochs", "sub-01", image_column="picture")
    path = tmp_path / entry.file
    save_epochs(path)
    good = read_epochs(entry, "eeg", path)
    values = good.load()

    def read():
        trials = read_epochs(entry, "eeg", path)
        found = trials.values("V")
        assert found.shape == values.shape and len(trials.shown) == N
        return trials, found

    def same(found):
        return found[0].shown == good.shown and found[0].facts == good.facts and np.array_equal(found[1], values)

    whole = path.read_bytes()
    counts = outcomes(path, [*flips(whole, 20, 4), *flips(whole, 60, 5, last=len(whole) // 2)], read, same)
    assert counts["refused"] >= 5
    assert (counts["changed"] == 0) == (suffix == "fif.gz")


def test_a_fif_tag_that_points_back_is_refused_at_once(tmp_path):
    """The library would read the tags between there and here for ever."""
    import struct

    entry = Recording("a-epo.fif", "epochs", "sub-01", image_column="picture")
    path = tmp_path / "a-epo.fif"
    save_epochs(path)
    content = bytearray(path.read_bytes())
    content[12:16] = struct.pack(">i", 36)  # where the second tag begins anyway
    path.write_bytes(content)
    assert read_epochs(entry, "eeg", path).shown
    content[36 + 12 : 36 + 16] = struct.pack(">i", 36)
    path.write_bytes(content)
    with pytest.raises(DataError, match="no tag at byte 36 of"):
        read_epochs(entry, "eeg", path)


def test_epochs_that_were_all_rejected_are_named(tmp_path):
    import mne

    manifest, _ = eeg_manifest(tmp_path)
    epochs = mne.read_epochs(tmp_path / "2-epo.fif", verbose="error")
    epochs.drop(range(len(epochs)), verbose="error").save(tmp_path / "2-epo.fif", overwrite=True, verbose="error")
    with pytest.raises(DataError, match=r"2-epo.fif' holds no epochs; were all of them rejected"):
        prepared(tmp_path, manifest)


def test_epochs_of_another_unit_and_with_nan_are_named(tmp_path):
    import mne

    manifest, _ = eeg_manifest(tmp_path)
    epochs = mne.read_epochs(tmp_path / "2-epo.fif", verbose="error")
    for change, message in ((1e6, "'2-epo.fif': the unit is V, but a median"), (np.nan, "'2-epo.fif': 12 rows hold")):
        other = mne.EpochsArray(
            epochs.get_data() * change, epochs.info, epochs.events, epochs.tmin, metadata=epochs.metadata,
            verbose="error",
        )  # fmt: skip
        other.save(tmp_path / "2-epo.fif", overwrite=True, verbose="error")
        for scaling in ("none", "train"):
            with pytest.raises(DataError, match=message):
                prepared(tmp_path, manifest | {"scaling": scaling})
    assert not (tmp_path / "set").exists()


def test_tables_with_two_columns_of_one_name_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("onset,image_id,onset\n1,a,2\n")
    with pytest.raises(DataError, match="two columns of one name"):
        read_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(b"onset,image_id\n1,\xff\n")
    with pytest.raises(DataError, match="is no table"):
        read_table(tmp_path / "t.csv")


def test_a_directory_in_the_place_of_a_file_is_named(tmp_path):
    manifest, _ = patterns(tmp_path)
    (tmp_path / "p.npz").unlink()
    (tmp_path / "p.npz").mkdir()
    with pytest.raises(DataError, match=r"There is no .* '.*p.npz'"):
        prepared(tmp_path, manifest)


# NIfTI: repetition times, windows at the ends, masks.


def series(tmp_path, onsets, header_t_r=2.0, n_volumes=40, unit="sec", mask=None, affine=None, **changes):
    """One run whose voxels hold the number of the volume, and its trials."""
    import nibabel

    data = np.broadcast_to(np.arange(n_volumes, dtype=np.float32), (2, 2, 2, n_volumes)).copy()
    image = nibabel.Nifti1Image(data, np.eye(4))
    image.header.set_zooms((1, 1, 1, header_t_r))
    image.header.set_xyzt_units("mm", unit)
    image.to_filename(tmp_path / "run.nii.gz")
    mask = np.ones((2, 2, 2), np.uint8) if mask is None else mask
    nibabel.Nifti1Image(mask, np.eye(4) if affine is None else affine).to_filename(tmp_path / "mask.nii.gz")
    rows = "".join(f"{onset}\tim\n" for onset in onsets)
    (tmp_path / "run.tsv").write_text("onset\timage_id\n" + rows)
    entry = {"file": "run.nii.gz", "kind": "series", "subject": "sub-01", "mask": "mask.nii.gz", "events": "run.tsv"}
    manifest, _ = patterns(tmp_path, recordings=[entry | changes])
    manifest = parse_manifest(manifest)
    return read_trials(manifest.recordings[0], manifest, tmp_path).values(None)


def test_onsets_pick_the_volumes_that_start_in_the_window(tmp_path):
    # Windows of 4 to 8 s after onsets; volume v starts at 2 v s.
    values = series(tmp_path, [0, 1.9, 2, 2.1, -4, 72])
    np.testing.assert_array_equal(values[:, 0], [2.5, 3.5, 3.5, 4.5, 0.5, 38.5])


@pytest.mark.parametrize("onset", [-4.1, 72.1, 1000])
def test_windows_beyond_the_ends_of_a_run_are_refused(tmp_path, onset):
    with pytest.raises(DataError, match=r"run.nii.gz' lasts 80 s in volumes of 2 s; .* is not covered"):
        series(tmp_path, [10, onset])


def test_repetition_times_of_24_bits_do_not_move_late_volumes(tmp_path):
    """0.7 s is stored as 0.699999988 s; volume 3000 then seems to start before 2100 s."""
    values = series(tmp_path, [2096.0], header_t_r=0.7, n_volumes=3100, window=[4.0, 4.7])
    assert values[0, 0] == 3000
    assert read_volumes(tmp_path / "run.nii.gz", tmp_path / "mask.nii.gz", None)[1] == 0.7
    values = series(tmp_path, [2096.0], header_t_r=700.0, unit="msec", n_volumes=3100, window=[4.0, 4.7])
    assert values[0, 0] == 3000


def test_a_repetition_time_of_unknown_unit_must_be_given(tmp_path):
    with pytest.raises(DataError, match="does not tell its repetition time; give 't_r' in s"):
        series(tmp_path, [10], unit="unknown")
    # The header's number is then no promise that could be broken.
    values = series(tmp_path, [10], header_t_r=7.0, unit="unknown", t_r=2.0)
    assert values[0, 0] == 7.5


def test_masks_of_another_grid_or_with_a_time_axis_are_refused(tmp_path):
    one = np.zeros((2, 2, 2, 1), np.uint8)
    one[1, 0, 1] = 1
    assert series(tmp_path, [10], mask=one).shape == (1, 1)  # a fourth axis of one is no time
    with pytest.raises(DataError, match=r"mask.nii.gz' has shape \(2, 2, 2, 3\)"):
        series(tmp_path, [10], mask=np.ones((2, 2, 2, 3), np.uint8))
    with pytest.raises(DataError, match=r"mask.nii.gz' has shape \(2, 2, 3\)"):
        series(tmp_path, [10], mask=np.ones((2, 2, 3), np.uint8))
    with pytest.raises(DataError, match="lies elsewhere in space"):
        series(tmp_path, [10], affine=np.diag([1, 1, -1, 1]))
    mask = np.full((2, 2, 2), np.nan, np.float32)
    mask[0, 1, 1] = 0.5
    with pytest.raises(DataError, match=r"mask.nii.gz' .*finite"):
        series(tmp_path, [10], mask=mask)


def test_constant_voxels_become_zero_when_standardised(tmp_path):
    import nibabel

    series(tmp_path, [10])
    data = np.full((2, 2, 2, 40), 10000.3, np.float32)
    data[0, 0, 0] = np.arange(40)
    image = nibabel.Nifti1Image(data, np.eye(4))
    image.header.set_zooms((1, 1, 1, 2.0))
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(tmp_path / "run.nii.gz")
    entry = Recording(
        "run.nii.gz", "series", "sub-01", events="run.tsv", mask="mask.nii.gz", standardise="run", detrend="none"
    )
    manifest = parse_manifest(patterns(tmp_path)[0])
    values = read_trials(entry, manifest, tmp_path).values(None)
    assert values[0, 0] != 0 and not values[0, 1:].any()


# What the manifest expects, and a part of the subjects.


@pytest.mark.parametrize(
    ("expect", "found"),
    [
        ({"n_rows": 25}, "n_rows: 24 instead of 25"),
        ({"n_subjects": 3}, "n_subjects: 2 instead of 3"),
        ({"n_recordings": 1}, "n_recordings: 2 instead of 1"),
        ({"n_images": 13}, "n_images: 12 instead of 13"),
        ({"n_chans": 4}, "n_chans: 3 instead of 4"),
        ({"n_times": 22}, "n_times: 21 instead of 22"),
        ({"sfreq": 99.0}, "sfreq: 100.0 instead of 99.0"),
        ({"n_runs": 2}, "n_runs: 6 instead of 2"),
        ({"n_sessions": 4}, "n_sessions: 2 instead of 4"),
    ],
)
def test_recordings_that_are_not_what_was_expected_are_refused_or_marked(tmp_path, expect, found):
    manifest, _ = eeg_manifest(tmp_path)
    name, value = next(iter(expect.items()))
    with pytest.raises(DataError, match=found):
        prepared(tmp_path, manifest | {"expect": expect})
    assert not (tmp_path / "set").exists()
    facts = read_metadata(prepared(tmp_path, manifest | {"expect": expect}, allow_partial=True))
    assert facts["partial"][name]["declared"] == value and facts["declared"] == expect
    right = facts["partial"][name]["found"]
    facts = read_metadata(prepared(tmp_path, manifest | {"expect": {name: right}}, overwrite=True))
    assert facts["partial"] is None and facts["declared"] == {name: right}


def test_expected_voxels_are_compared_by_subject(tmp_path):
    manifest, _ = patterns(tmp_path)
    assert prepared(tmp_path, manifest | {"expect": {"n_voxels": {"sub-01": 5}, "n_images": N}}).is_dir()
    with pytest.raises(DataError, match=r"n_voxels: {'sub-01': 5} instead of {'sub-01': 6}"):
        prepared(tmp_path, manifest | {"expect": {"n_voxels": {"sub-01": 6}}}, overwrite=True)
    manifest, _ = patterns(tmp_path, "eeg", unit="z", expect={"n_chans": 2, "n_times": 5})
    with pytest.raises(DataError, match="n_times: 4 instead of 5"):
        prepared(tmp_path, manifest, overwrite=True)
    with pytest.raises(DataError, match=r"unknown key 'n_row'\. Did you mean 'n_rows'"):
        prepared(tmp_path, manifest | {"expect": {"n_row": 6}}, overwrite=True)


def test_some_subjects_can_be_taken_and_the_rest_need_not_be_there(tmp_path):
    manifest, _ = eeg_manifest(tmp_path)
    (tmp_path / "1-epo.fif").unlink()
    path = write_manifest(tmp_path, manifest)
    run(partial(main, "custom"), [str(path), "--output-dir", str(tmp_path / "set"), "--subjects", "sub-02"])
    facts = verify_prepared(tmp_path / "set")
    assert facts["subjects"] == ["sub-02"]
    assert facts["partial"]["subjects"] == {"found": ["sub-02"], "declared": ["sub-01", "sub-02"]}
    with pytest.raises(DataError, match="recordings of sub-01, sub-02, but the 'subjects' parameter names 'sub-03'"):
        prepare(path, tmp_path / "other", subjects=["sub-02", "sub-03"])


# Parts.


def parts_of(tmp_path, manifest):
    manifest = parse_manifest(manifest)
    trials = [read_trials(entry, manifest, tmp_path) for entry in manifest.recordings]
    ids = [[str(name) for name in trial.shown] for trial in trials]
    splits = [["train"] * len(rows) for rows in ids]
    return recording_parts(trials, ids, splits, manifest, None), trials


def test_there_is_a_part_for_each_file_which_another_process_can_write(tmp_path):
    for manifest, names in (
        (eeg_manifest(tmp_path)[0], [["1-epo.fif"], ["2-epo.fif"]]),
        (series_manifest(tmp_path)[0], [[f"run{i}.nii.gz", f"run{i}.tsv", "mask.nii.gz"] for i in range(4)]),
    ):
        parts, trials = parts_of(tmp_path, manifest)
        assert len({part.name for part in parts}) == len(parts) == len(names)
        for part, trial, files in zip(parts, trials, names, strict=True):
            assert [path.name for path in part.files] == files
            rows = list(pickle.loads(pickle.dumps(part.rows))())
            assert len(rows) == part.n_rows == len(trial.shown)
            np.testing.assert_array_equal(np.stack([row[list(row)[-1]] for row in rows]), trial.load())


def test_image_files_come_in_parts_of_a_thousand(tmp_path):
    save_pictures(tmp_path / "stimuli")
    files = sorted((tmp_path / "stimuli").rglob("*.png"))
    rows = {f"im{i}": {"image": files[i % len(files)], "concept": ""} for i in range(2500)}
    parts = images_of(rows)
    assert [part.n_rows for part in parts] == [1000, 1000, 500]
    listed = [row for part in parts for row in pickle.loads(pickle.dumps(part.rows))()]
    assert [row["image_id"] for row in listed] == list(rows)
    assert [len(part.files) for part in parts] == [1000, 1000, 500]
    assert images_of({"im": {"image_embeds": "in memory"}}) == [{"image_id": "im", "image_embeds": "in memory"}]


PROGRAM = """
import sys
from neural_clip.corpora import custom
from neural_clip.corpora.custom import patterns, series
original, calls, limit = series.read_volumes, [], int(sys.argv[3])
def counted(file, *arguments):
    if len(calls) == limit:
        raise KeyboardInterrupt
    calls.append(file.name)
    return original(file, *arguments)
patterns.read_volumes = series.read_volumes = counted
try:
    custom.prepare(sys.argv[1], sys.argv[2])
finally:
    print(*calls)
"""


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    manifest, _, _ = series_manifest(tmp_path)
    path = write_manifest(tmp_path, manifest)
    whole = contents(prepare(path, tmp_path / "whole"))

    def started(limit):
        return python("-c", PROGRAM, path, tmp_path / "set", limit)

    first = started(2)
    assert first.returncode != 0 and first.stdout.split() == ["run0.nii.gz", "run1.nii.gz"]
    assert not (tmp_path / "set").exists()
    second = started(99)
    assert second.returncode == 0 and second.stdout.split()[:2] == ["run2.nii.gz", "run3.nii.gz"], second.stderr
    assert contents(tmp_path / "set") == whole


def test_what_decides_the_rows_decides_whether_parts_are_kept(tmp_path):
    manifest, _ = patterns(tmp_path)
    hashes = set()
    for i, changes in enumerate(
        [{}, {"splits": {"seed": 1, "test": 0.25}}, {"splits": {"seed": 2, "test": 0.25}}, {"scaling": "train"},
         {"known_defects": ["x"]}]
    ):  # fmt: skip
        path = write_manifest(tmp_path, manifest | {"splits": {"test": 0.25}} | changes)
        hashes.add(read_metadata(prepare(path, tmp_path / f"set{i}"))["design_sha256"])
    assert len(hashes) == 5
    (tmp_path / "moved").mkdir()
    (tmp_path / "p.npz").rename(tmp_path / "moved" / "q.npz")
    moved = json.loads(json.dumps(manifest | {"splits": {"test": 0.25}}).replace("p.npz", "moved/q.npz"))
    facts = read_metadata(prepare(write_manifest(tmp_path, moved), tmp_path / "moved_set"))
    assert facts["design_sha256"] == read_metadata(tmp_path / "set0")["design_sha256"]
    assert facts["fingerprint"] == read_metadata(tmp_path / "set0")["fingerprint"]


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(tmp_path):
    manifest, _ = eeg_manifest(tmp_path, scaling="train")
    path = write_manifest(tmp_path, manifest)
    run(partial(main, "custom"), [str(path), "--output-dir", str(tmp_path / "one")])
    run(partial(main, "custom"), [str(path), "--output-dir", str(tmp_path / "two"), "--num-proc", "2"])
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
