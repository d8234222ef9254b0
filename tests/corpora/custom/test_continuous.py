"""Epochs out of continuous recordings and BIDS data sets, sample by sample against mne's; recordings are simulated."""

import os
from importlib.util import find_spec

import numpy as np
import pytest
import yaml

from continuous_raw import SFREQ, simulated_raw, write_brainvision
from custom_raw import TERMS, rng
from neural_clip.corpora.custom.build import prepare
from neural_clip.corpora.custom.manifest import parse_manifest
from neural_clip.corpora.custom.recordings import read_trials
from neural_clip.errors import DataError
from neural_clip.prepared.facts import read_metadata
from prepared_rows import parquet_rows, rows_with_split

N = 20  # events a recording
CUT = {"tmin": -0.1, "tmax": 0.4}


def onsets(n=N):
    """Moments that fall between samples."""
    return np.round(1 + 1.3 * np.arange(n) + rng(7).uniform(0, 0.3, n), 4)


def write_events(path, names=None, times=None):
    """Table with a row of another kind after each image."""
    times = onsets() if times is None else times
    names = names or [f"im{i:02d}" for i in range(len(times))]
    lines = ["onset\tduration\ttrial_type\tstim_file\tblock"]
    for i, (onset, name) in enumerate(zip(times, names, strict=True)):
        lines += [f"{onset}\t0.5\timage\t{name}\t{i // 5}", f"{float(onset) + 0.6}\t0\tpress\tn/a\t{i // 5}"]
    path.write_text("\n".join(lines) + "\n")


def manifest_of(recordings, modality="eeg", **changes):
    names = [f"im{i:02d}" for i in range(N)]
    return {
        "name": "mine", "modality": modality, "recordings": recordings, **TERMS,
        "embeddings": {"file": "e.npz", "name": "net"}, "splits": {"validation": 0.2, "test": 0.2},
        "scaling": "none",
    } | changes, names  # fmt: skip


def prepared(tmp_path, recordings, modality="eeg", folder="set", options=None, **changes):
    manifest, names = manifest_of(recordings, modality, **changes)
    np.savez(tmp_path / "e.npz", ids=np.array(names), embeds=1 + rng(5).normal(size=(N, 3)))
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump(manifest))
    return prepare(path, tmp_path / folder, **(options or {}))


def stored(folder, modality="eeg"):
    """Values by subject and trial, over all splits, and the rows."""
    rows = sorted(parquet_rows(folder), key=lambda row: (row["subject"], row["trial"]))
    return np.array([row[modality] for row in rows], dtype=np.float32), rows


def entry(**changes):
    return {
        "file": "rec_raw.fif", "kind": "continuous", "subject": "sub-01", "events": "events.tsv",
        "image_column": "stim_file", "keep": {"trial_type": ["image"]}, **CUT,
    } | changes  # fmt: skip


def continuous(tmp_path, raw=None, **changes):
    """A recording on disk (32-bit floats), the same as mne reads it, and its entry."""
    import mne

    path = tmp_path / "rec_raw.fif"
    (raw or simulated_raw()).save(path, overwrite=True, verbose="error")
    write_events(tmp_path / "events.tsv")
    return mne.io.read_raw_fif(path, preload=True, verbose="error"), entry(**changes)


def mne_epochs(raw, times, tmin, tmax, **options):
    """What mne makes of the same events."""
    import mne

    samples = np.array([round(float(t) * raw.info["sfreq"]) for t in times]) + raw.first_samp
    events = np.column_stack([samples, np.zeros(len(samples), int), np.ones(len(samples), int)])
    options = {"baseline": None, "preload": True, "verbose": "error"} | options
    return mne.Epochs(raw, events, tmin=tmin, tmax=tmax, **options)


def test_epochs_are_those_of_mne_sample_by_sample(tmp_path):
    raw, recording = continuous(tmp_path, run_column="block")
    folder = prepared(tmp_path, [recording])
    values, rows = stored(folder)
    expected = mne_epochs(raw, onsets(), -0.1, 0.4).get_data()
    np.testing.assert_array_equal(values, expected.astype(np.float32))
    assert [row["image_id"] for row in rows] == [f"im{i:02d}" for i in range(N)]
    assert [row["trial"] for row in rows] == [2 * i for i in range(N)]  # rows of the table, presses included
    assert [row["run"] for row in rows] == [str(i // 5) for i in range(N)]
    facts = read_metadata(folder)
    assert (facts["ch_names"], facts["sfreq"], facts["n_times"]) == (["A", "B", "C", "D"], SFREQ, 251)
    assert facts["tmin"] == pytest.approx(-0.1) and facts["unit"] == "V"


@pytest.mark.parametrize(
    "settings",
    [
        {"low_pass": 40.0},
        {"high_pass": 1.0},
        {"notch": [50.0, 100.0]},
        {"high_pass": 0.5, "low_pass": 100.0, "notch": 50.0, "baseline": [None, 0]},
        {"baseline": [-0.05, 0.02]},
        {"low_pass": 30.0, "decimate_to": 100.0},
        {"low_pass": 30.0, "decimate_to": 100.0, "baseline": [-0.1, 0], "picks": ["D", "B"]},
    ],
)
def test_filters_baseline_and_decimation_are_those_of_mne(tmp_path, settings):
    raw, recording = continuous(tmp_path, **settings)
    folder = prepared(tmp_path, [recording])
    values, _ = stored(folder)
    raw = raw.copy()
    if "notch" in settings:
        raw.notch_filter(settings["notch"], verbose="error")
    if "high_pass" in settings or "low_pass" in settings:
        raw.filter(settings.get("high_pass"), settings.get("low_pass"), verbose="error")
    baseline = settings.get("baseline")
    epochs = mne_epochs(raw, onsets(), -0.1, 0.4, baseline=None if baseline is None else tuple(baseline))
    if "decimate_to" in settings:
        epochs.decimate(int(SFREQ / settings["decimate_to"]), verbose="error")
        assert 0.0 in epochs.times
    expected = epochs.get_data(picks=settings.get("picks", list(raw.ch_names)))
    np.testing.assert_allclose(values, expected.astype(np.float32), rtol=1e-6, atol=1e-12)
    facts = read_metadata(folder)
    assert facts["sfreq"] == settings.get("decimate_to", SFREQ)
    assert facts["ch_names"] == settings.get("picks", ["A", "B", "C", "D"])
    assert {key: facts["preprocessing"][key] for key in settings if key != "picks"} == {
        key: value for key, value in settings.items() if key != "picks"
    }


def test_decimation_keeps_the_sample_of_the_onset(tmp_path):
    """The window begins between two kept samples; an impulse at the onset stays where it is."""
    raw = simulated_raw(unit=1e-9)
    samples = [round(t * SFREQ) for t in onsets()]
    raw._data[:, samples] = 1e-3
    _, recording = continuous(tmp_path, raw, low_pass=30.0, decimate_to=100.0, tmin=-0.113, tmax=0.2)
    folder = prepared(tmp_path, [recording])
    facts, (values, _) = read_metadata(folder), stored(folder)
    assert facts["tmin"] == pytest.approx(-0.11) and facts["n_times"] == 11 + 1 + 20
    assert (np.abs(values).argmax(axis=2) == 11).all()  # -0.11 s and eleven steps of 0.01 s


def test_onsets_count_from_the_first_stored_sample(tmp_path):
    """A FIF file remembers samples that were cropped away; onsets do not count them."""
    raw = simulated_raw(seconds=40)
    cropped = raw.copy().crop(tmin=8.0)
    assert cropped.first_samp == 8 * SFREQ
    _, recording = continuous(tmp_path, cropped)
    values, _ = stored(prepared(tmp_path, [recording]))
    first = round(onsets()[0] * SFREQ) + int(8 * SFREQ)
    np.testing.assert_array_equal(values[0], raw.get_data()[:, first - 50 : first + 201].astype(np.float32))


def test_events_in_segments_marked_bad_stop_or_are_left_out(tmp_path):
    import mne

    raw = simulated_raw()
    raw.set_annotations(mne.Annotations([onsets()[3] + 0.35], [0.4], ["bad blink"]))
    _, recording = continuous(tmp_path, raw)
    with pytest.raises(DataError, match="windows of 1 of 20 events overlap segments marked bad"):
        prepared(tmp_path, [recording])
    folder = prepared(tmp_path, [recording | {"bad_segments": "drop"}])
    values, rows = stored(folder)
    epochs = mne_epochs(raw, onsets(), -0.1, 0.4, reject_by_annotation=True)
    np.testing.assert_array_equal(values, epochs.get_data().astype(np.float32))
    assert [row["trial"] // 2 for row in rows] == [i for i in range(N) if i != 3]
    assert read_metadata(folder)["preprocessing"]["events left out, in segments marked bad"] == 1
    raw.set_annotations(mne.Annotations([0], [30], ["BAD all"]))
    continuous(tmp_path, raw)
    with pytest.raises(DataError, match="all 20 events overlap"):
        prepared(tmp_path, [recording | {"bad_segments": "drop"}], folder="other")


@pytest.mark.parametrize(("begin", "length", "overlaps"), [
    (5.4, 0.1, True), (5.402, 0.1, False), (4.8, 0.102, True), (4.8, 0.098, False),
])  # fmt: skip
def test_bad_segments_count_from_the_first_to_the_last_sample_of_a_window(tmp_path, begin, length, overlaps):
    import mne

    raw = simulated_raw()
    raw.set_annotations(mne.Annotations([begin], [length], ["BAD"]))
    _, recording = continuous(tmp_path, raw)
    write_events(tmp_path / "events.tsv", times=[2.0, 5.0, 8.0, 11.0])
    facts = read_metadata(prepared(tmp_path, [recording | {"bad_segments": "drop"}]))
    assert sum(split["rows"] for split in facts["splits"].values()) == 4 - overlaps


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decimate_to": 100.0}, "at 100 Hz, whatever lies above 50 Hz comes back as false slow waves.*there is none"),
        ({"decimate_to": 100.0, "low_pass": 45.0}, "45 Hz reaches up to 56.25 Hz"),
        ({"decimate_to": 240.0, "low_pass": 40.0}, "250 or 166.667 Hz, but got 240 Hz|166.667 or 250 Hz, but got 240"),
        ({"decimate_to": 1000.0}, "has 500 samples a second"),
        ({"low_pass": 250.0}, "'low_pass' must lie below 250 Hz, but got 250 Hz"),
        ({"notch": [50.0, 300.0]}, "'notch' must lie below 250 Hz, but got 300 Hz"),
        ({"high_pass": 40.0, "low_pass": 30.0}, "'high_pass' .40 Hz. must lie below 'low_pass'"),
        ({"high_pass": 0.05}, "filter_length"),
        ({"high_pass": -1.0}, "'high_pass'. Allowed are numbers above 0, but got -1.0"),
        ({"notch": ["50"]}, "'notch'. Allowed are numbers above 0, but got '50'"),
        ({"baseline": [-0.3, 0]}, "baseline of -0.3 to 0 s must lie in the window of -0.1 to 0.4 s"),
        ({"baseline": [0, -0.1]}, r"'baseline' is \[first, last\] in s"),
        ({"tmin": 0.4, "tmax": 0.1}, "'tmin' .0.4 s. lies after 'tmax'"),
        ({"tmin": 0.0005, "tmax": 0.0015}, "holds no sample at 500 Hz"),
        ({"tmax": None}, "of kind 'continuous' need 'tmax'"),
        ({"events": None}, "of kind 'continuous' need 'events'"),
        ({"events": "nowhere.tsv"}, "There is no table"),
        ({"file": "nowhere.fif"}, "There is no recording '.*nowhere.fif'"),
        ({"picks": ["A", "Z"]}, "no channel 'Z'; it has A, B, C, D"),
        ({"picks": ["A", "A"]}, "'picks' lists 'A' twice"),
        ({"picks": [1]}, "lists names, but got 1; write it in quotes"),
        ({"picks": ["mag"]}, "no channel of type"),
        ({"keep": {}}, "shows 'n/a', which is none of the 20 images.*left out by 'keep'"),
        ({"keep": {"trial_type": ["dog"]}}, "no row is left"),
        ({"image_column": "image"}, "no column 'image'; it has 'onset'"),
        ({"subject": "S1"}, "recording 0: subjects are named like 'sub-01', but got 'S1'"),
        ({"window": [1, 2]}, "do not use 'window'"),
        ({"tmax": float("nan")}, "'tmax' must be a number, but got nan"),
    ],
)  # fmt: skip
def test_bad_entries_are_named(tmp_path, changes, message):
    _, recording = continuous(tmp_path)
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, [recording | changes])
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([1.0, "nan"], "column 'onset', row 2: 'nan' is no finite number"),
        ([1.0, "n/a"], "column 'onset', row 2: 'n/a' is no finite number"),
        ([1.0, 29.7], "lasts 30 s, but the windows of 1 of 2 events reach beyond its ends; the first is row 2"),
        ([1.0, 29.6], "the windows of 1 of 2 events reach beyond its ends"),  # by one sample
        ([0.05, 2.0], "the first is row 0 of '.*events.tsv', at 0.05 s with a window of -0.1 to 0.4 s"),
        ([1.0, 1.0004], "rows 0 and 2 are events at the same moment"),
        ([1000, 20000.5], "Is 'onset' in s from the first sample on"),
        (
            [1000, 2000],
            "whole numbers up to 2000, which would fit as samples at 500 Hz: divide them by 500",
        ),
        ([1000, 20000], "all onsets are whole numbers up to 20000, which would fit as ms: divide them by 1000"),
        ([1000, 40000], "Is 'onset' in s from the first sample on"),
    ],
)
def test_bad_events_are_named(tmp_path, times, message):
    _, recording = continuous(tmp_path)
    lines = ["onset\ttrial_type\tstim_file"]
    for onset, name in zip(times, ["im00", "im01"], strict=True):
        lines += [f"{onset}\timage\t{name}", "n/a\tpress\tn/a"]  # rows that are not kept may lack an onset
    (tmp_path / "events.tsv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, [recording])


@pytest.mark.parametrize(("step", "shared"), [(0.4, True), (0.502, False)])  # windows are 0.5 s and a sample long
def test_windows_that_share_samples_across_splits_are_told(tmp_path, step, shared, capsys):
    _, recording = continuous(tmp_path)
    times = 1 + step * np.arange(N)
    write_events(tmp_path / "events.tsv", times=times)
    folder = prepared(tmp_path, [recording])
    facts = read_metadata(folder)
    rows = {int(row["trial"]) // 2: row["split"] for row in rows_with_split(folder)}  # by event
    held_out = [i for i in rows if rows[i] != "train"]
    order = ("train", "validation", "test")
    expected = sum(
        any(abs(times[i] - times[j]) <= 0.5 and order.index(rows[j]) < order.index(rows[i]) for j in rows)
        for i in held_out
    )
    assert (expected > 0) == shared
    told = [finding for finding in facts["findings"] if finding["check"] == "shared windows"]
    if not shared:
        assert not told and "shared_windows" not in facts and not facts["known_defects"]
        return
    assert facts["shared_windows"] == {"rows": expected, "held_out": len(held_out)}
    sentence = (
        f"The windows of {expected} of {len(held_out)} test and validation rows overlap windows of another split"
    )
    assert [finding["severity"] for finding in told] == ["warning"] and sentence in told[0]["message"]
    assert sentence in facts["known_defects"][0] and sentence in capsys.readouterr().err
    runs = {"by": "run", "test": 0.25, "validation": 0.25}
    by_run = prepared(tmp_path, [recording | {"run_column": "block"}], folder="runs", splits=runs)
    edges = read_metadata(by_run).get("shared_windows", {"rows": 0})["rows"]
    assert 0 < edges < expected  # the first trials of a run alone


def test_an_event_that_just_fits_is_taken(tmp_path):
    _, recording = continuous(tmp_path)
    write_events(tmp_path / "events.tsv", times=[0.1, 15.0, 30 - 1 / SFREQ - 0.4])
    values, _ = stored(prepared(tmp_path, [recording]))
    assert len(values) == 3


def test_names_in_tables_are_never_paths(tmp_path):
    _, recording = continuous(tmp_path)
    (tmp_path / "secret.png").write_bytes(b"x")
    write_events(tmp_path / "events.tsv", ["../../secret.png", *(f"im{i:02d}" for i in range(1, N))])
    with pytest.raises(DataError, match=r"row 0 shows '../../secret.png', which is none of the 20 images"):
        prepared(tmp_path, [recording])


@pytest.mark.parametrize(("kind", "unit", "message"), [
    ("eeg", 1.0, "the unit is V, but .* plausible are 1e-09 to 0.01.* are they in microvolt"),
    ("eeg", 1e-12, "the unit is V, but"),
    ("mag", 1e-6, "the unit is T, but .* are they in femtotesla"),
])  # fmt: skip
def test_implausible_units_are_refused_with_advice(tmp_path, kind, unit, message):
    _, recording = continuous(tmp_path, simulated_raw(kind=kind, unit=unit))
    modality = "eeg" if kind == "eeg" else "meg"
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, [recording], modality)
    assert not (tmp_path / "set").exists()
    folder = prepared(tmp_path, [recording], modality, unit="amplifier counts")
    assert read_metadata(folder)["unit"] == "amplifier counts"


def test_a_few_broken_channels_are_no_wrong_unit(tmp_path):
    raw = simulated_raw()
    raw._data[3] *= 1e6
    _, recording = continuous(tmp_path, raw)
    assert prepared(tmp_path, [recording]).is_dir()


def test_an_amplifier_that_was_off_is_named(tmp_path):
    raw = simulated_raw()
    raw._data[:, int(20 * SFREQ) :] = 1.0
    _, recording = continuous(tmp_path, raw)
    with pytest.raises(DataError, match="every channel stands still in the epoch at 20"):
        prepared(tmp_path, [recording])


def test_files_must_agree_in_channels_and_rate(tmp_path):
    simulated_raw().save(tmp_path / "a_raw.fif", verbose="error")
    write_events(tmp_path / "events.tsv")
    cases = [
        ({"names": ("B", "A", "C", "D")}, "has other channels than 'a_raw.fif': its channel 1 is 'B' instead of 'A'"),
        ({"names": ("A", "B", "X", "D")}, "'b_raw.fif' .* 'a_raw.fif': it lacks 'C' and has 'X' besides"),
        ({"sfreq": 250.0}, "has sfreq 250.0, but 'a_raw.fif'"),
    ]
    for changes, message in cases:
        simulated_raw(**changes).save(tmp_path / "b_raw.fif", overwrite=True, verbose="error")
        with pytest.raises(DataError, match=message):
            prepared(tmp_path, [entry(file=f"{name}_raw.fif", run=name) for name in "ab"])
    with pytest.raises(DataError, match=r"manifest says sfreq is 512.0, but 'a_raw.fif' has 500.0"):
        prepared(tmp_path, [entry(file="a_raw.fif")], sfreq=512.0)
    stated = {"sfreq": 500.0, "tmin": -0.1}
    with pytest.raises(DataError, match=r"'a_raw.fif' has other .* 'ch_names' of the manifest: it has 'C' besides\."):
        prepared(tmp_path, [entry(file="a_raw.fif")], ch_names=["A", "B", "D"], **stated)
    assert prepared(tmp_path, [entry(file="a_raw.fif")], ch_names=["A", "B", "C", "D"], **stated).is_dir()


# Formats without a checksum that mne would read on in part.


def write_edf(path, raw, labels=None):
    """Smallest EDF recording: 16-bit samples in microvolt, records of 1 s."""
    data = raw.get_data() * 1e6
    n_chans, rate = len(data), int(raw.info["sfreq"])
    n_records = data.shape[1] // rate
    limit = np.ceil(np.abs(data).max())

    def fields(values, width):
        return "".join(str(value).ljust(width)[:width] for value in values)

    head = fields(["0"], 8) + fields(["X X X X", "Startdate X X X X"], 80) + "01.01.2000.00.00"
    head += fields([256 * (1 + n_chans)], 8) + " " * 44 + fields([n_records, 1], 8) + fields([n_chans], 4)
    head = head.replace("01.01.2000.00.00", "01.01.20" + "00.00.00")
    signal = fields(labels or raw.ch_names, 16) + " " * 80 * n_chans + fields(["uV"] * n_chans, 8)
    signal += fields([-limit] * n_chans, 8) + fields([limit] * n_chans, 8)
    signal += fields([-32768] * n_chans, 8) + fields([32767] * n_chans, 8)
    signal += " " * 80 * n_chans + fields([rate] * n_chans, 8) + " " * 32 * n_chans
    digital = np.round((data + limit) / (2 * limit) * 65535 - 32768).astype("<i2")
    records = digital[:, : n_records * rate].reshape(n_chans, n_records, rate).transpose(1, 0, 2)
    path.write_bytes((head + signal).encode("ascii") + records.tobytes())
    return 2 * limit / 65535 * 1e-6  # V, one step


def test_brainvision_and_edf_give_the_same_epochs(tmp_path):
    raw, _ = continuous(tmp_path)
    write_brainvision(tmp_path, raw)
    step = write_edf(tmp_path / "rec.edf", raw)
    expected = mne_epochs(raw, onsets(), -0.1, 0.4).get_data()
    for name, tolerance in (("rec.vhdr", 1e-9), ("rec.edf", step)):
        values, _ = stored(prepared(tmp_path, [entry(file=name)], options={"overwrite": True}))
        np.testing.assert_allclose(values, expected, atol=tolerance)


def test_rows_depend_on_all_files_of_a_recording_and_on_nothing_else(tmp_path):
    raw, recording = continuous(tmp_path)
    write_brainvision(tmp_path, raw)
    (tmp_path / "rec.partial").mkdir()  # a folder that grows while the data set is written
    for name, expected in (
        ("rec.vhdr", {"rec.vhdr", "rec.eeg", "rec.vmrk", "events.tsv"}),
        ("rec_raw.fif", {"rec_raw.fif", "events.tsv"}),
    ):
        manifest = parse_manifest(manifest_of([recording | {"file": name}])[0])
        trials = read_trials(manifest.recordings[0], manifest, tmp_path)
        assert {path.name for path in trials.files} == expected
    root, _ = bids_tree(tmp_path, ("01",)) if find_spec("mne_bids") else (None, None)
    if root is not None:
        manifest = parse_manifest(manifest_of([bids_entry()], "meg")[0])
        names = [path.name for path in read_trials(manifest.recordings[0], manifest, tmp_path).files]
        assert [name.rpartition("_")[2] for name in names] == ["channels.tsv", "events.tsv", "meg.fif"]


def test_cut_off_recordings_are_named(tmp_path):
    """Also where the cut leaves every event where it is."""
    raw, _ = continuous(tmp_path)
    write_edf(tmp_path / "rec.edf", raw)
    write_brainvision(tmp_path, raw)
    for data, name in (("rec.edf", "rec.edf"), ("rec.eeg", "rec.vhdr"), ("rec_raw.fif", "rec_raw.fif")):
        whole = (tmp_path / data).read_bytes()
        for n_bytes in (0, 100, len(whole) // 2, len(whole) - 160, len(whole) - 33, len(whole) - 1):
            (tmp_path / data).write_bytes(whole[:n_bytes])
            with pytest.raises(DataError, match="rec"):
                prepared(tmp_path, [entry(file=name)])
            assert not (tmp_path / "set").exists()
        (tmp_path / data).write_bytes(whole)
        assert prepared(tmp_path, [entry(file=name)], folder=f"set_{data}").is_dir()


def test_channel_names_that_occur_twice_are_refused(tmp_path):
    raw, _ = continuous(tmp_path)
    write_edf(tmp_path / "rec.edf", raw, ["A", "B", "B", "D"])
    write_brainvision(tmp_path, raw, ["A", "B", "B", "D"])
    for name in ("rec.edf", "rec.vhdr"):
        with pytest.raises(DataError, match=f"{name}.*not unique.*B"):
            prepared(tmp_path, [entry(file=name)])


def test_missing_data_files_of_a_header_are_named(tmp_path):
    raw, _ = continuous(tmp_path)
    write_brainvision(tmp_path, raw)
    (tmp_path / "rec.eeg").unlink()
    with pytest.raises(DataError, match=r"rec.vhdr' cannot be read by mne.io.read_raw"):
        prepared(tmp_path, [entry(file="rec.vhdr")])
    (tmp_path / "rec.xyz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"rec.xyz' cannot be read by mne.io.read_raw"):
        prepared(tmp_path, [entry(file="rec.xyz")])


@pytest.mark.parametrize("name", ["rec.eeg", "rec.vmrk"])
def test_a_pipe_in_place_of_a_file_is_named(tmp_path, name):
    """Reading it would never end."""
    raw, _ = continuous(tmp_path)
    write_brainvision(tmp_path, raw)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}' is no recording: it is a device or a pipe"):
        prepared(tmp_path, [entry(file="rec.vhdr")])


# BIDS.


def bids_tree(tmp_path, subjects=("01", "02"), runs=("01",), **options):
    """A small BIDS data set of simulated MEG, written by mne-bids."""
    import mne
    import mne_bids

    root, raws = tmp_path / "bids", {}
    for subject in subjects:
        for run in runs:
            raw = simulated_raw(int(subject) + 10 * int(run), kind="mag", unit=1e-12, **options)
            raw.info["line_freq"] = 50
            path = tmp_path / f"sub{subject}{run}_meg.fif"
            raw.set_annotations(mne.Annotations(onsets(), 0.5, ["image"] * N))
            raw.save(path, overwrite=True, verbose="error")
            target = mne_bids.BIDSPath(root=root, subject=subject, session="a", task="see", run=run, datatype="meg")
            raw = mne.io.read_raw_fif(path, verbose="error")
            mne_bids.write_raw_bids(raw, target, overwrite=True, verbose="error")
            table = next((root / f"sub-{subject}").rglob(f"*run-{run}_events.tsv"))
            write_events(table)
            raws[subject, run] = raw.load_data(verbose="error")
    return root, raws


@pytest.fixture(scope="module")
def bids_root(tmp_path_factory):
    """The parent of a BIDS data set of one subject, which tests leave as it is."""
    pytest.importorskip("mne_bids")
    place = tmp_path_factory.mktemp("one")
    bids_tree(place, ("01",))
    return place


def bids_entry(subject="01", run="01", **changes):
    return {
        "file": "bids", "kind": "bids", "subject": f"sub-{subject}", "session": "ses-a", "run": f"run-{run}",
        "task": "see", "image_column": "stim_file", "keep": {"trial_type": ["image"]}, **CUT,
    } | changes  # fmt: skip


def test_bids_epochs_are_those_of_mne(tmp_path):
    pytest.importorskip("mne_bids")
    _, raws = bids_tree(tmp_path)
    recordings = [bids_entry(subject, low_pass=30.0, decimate_to=100.0) for subject in ("01", "02")]
    folder = prepared(tmp_path, recordings, "meg", expect={"n_rows": 2 * N, "n_chans": 4, "n_subjects": 2})
    values, rows = stored(folder, "meg")
    for i, (subject, run) in enumerate(raws):
        raw = raws[subject, run].copy().filter(None, 30.0, verbose="error")
        epochs = mne_epochs(raw, onsets(), -0.1, 0.4).decimate(5, verbose="error")
        own = values[i * N : (i + 1) * N]
        np.testing.assert_allclose(own, epochs.get_data().astype(np.float32), rtol=1e-5, atol=1e-18)
        assert {row["subject"] for row in rows[i * N : (i + 1) * N]} == {f"sub-{subject}"}
    assert rows[0]["session"] == "ses-a" and rows[0]["run"] == "run-01"
    facts = read_metadata(folder)
    assert facts["unit"] == "T" and facts["preprocessing"]["decimate_to"] == 100.0


def test_bids_entities_can_differ_from_the_labels(tmp_path):
    pytest.importorskip("mne_bids")
    bids_tree(tmp_path, ("02",))
    changes = {
        "session": "",
        "run": "",
        "bids_subject": "02",
        "bids_session": "a",
        "bids_run": "01",
        "datatype": "meg",
    }
    _, rows = stored(prepared(tmp_path, [bids_entry("07", **changes)], "meg"), "meg")
    assert {row["subject"] for row in rows} == {"sub-07"} and {row["session"] for row in rows} == {""}


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"task": "sea"}, r"has no task 'sea'; it has 'see'\. Did you mean 'see'\?"),
     ({"bids_subject": "x9"}, r"has no subject 'x9'; it has '01'\."),
     ({"session": "ses-b"}, r"has no session 'b'; it has 'a'\."),
     ({"bids_run": "02"}, r"has no run '02'; it has '01'\."),
     ({"datatype": "eeg"}, r"has no datatype 'eeg'; it has 'meg'\.")],
)  # fmt: skip
def test_what_a_bids_data_set_does_not_have_is_named(bids_root, changes, said):
    with pytest.raises(DataError, match=said):
        prepared(bids_root, [bids_entry(**changes)], "meg")


def test_a_bids_recording_without_events_is_named(tmp_path):
    pytest.importorskip("mne_bids")
    root, _ = bids_tree(tmp_path, ("01",))
    next(root.rglob("*_events.tsv")).unlink()
    with pytest.raises(DataError, match=r"no events\.tsv of 'sub-01_ses-a_task-see_run-01_meg'"):
        prepared(tmp_path, [bids_entry()], "meg")


@pytest.mark.parametrize(("table", "name"), [("events", "onset"), ("events", "duration"), ("channels", "name")])
def test_columns_that_bids_asks_for_are_named(tmp_path, table, name):
    pytest.importorskip("mne_bids")
    root, _ = bids_tree(tmp_path, ("01",))
    path = next(root.rglob(f"*_{table}.tsv"))
    text = path.read_text()
    path.write_text(text.replace(name, "x" + name, 1))
    with pytest.raises(
        DataError, match=rf"_{table}\.tsv' has no column '{name}', which BIDS asks for; it has .*'x{name}'"
    ):
        prepared(tmp_path, [bids_entry()], "meg")
    path.write_text(text.replace("\tgood", "\tbad").replace("\t", ","))  # mne-bids would know of no bad channel
    with pytest.raises(DataError, match=rf"_{table}\.tsv' has no column .*,.*'\. Tabs separate columns\."):
        prepared(tmp_path, [bids_entry()], "meg")


def test_recordings_of_a_bids_data_set_are_called_by_their_own_names(tmp_path):
    pytest.importorskip("mne_bids")
    root, _ = bids_tree(tmp_path)
    recordings = [bids_entry("01"), bids_entry("02", picks=["A", "B"])]
    with pytest.raises(
        DataError, match="'sub-02_ses-a_task-see_run-01_meg' has other channels than 'sub-01_ses-a_task"
    ):
        prepared(tmp_path, recordings, "meg")
    table = next((root / "sub-02").rglob("*_events.tsv"))
    table.write_text(table.read_text().replace("im05", "nowhere"))
    with pytest.raises(DataError, match="'sub-02_ses-a_task-see_run-01_meg', row 10 shows 'nowhere"):
        prepared(tmp_path, [bids_entry("01"), bids_entry("02")], "meg")


def test_a_pipe_in_a_bids_data_set_is_named(tmp_path):
    pytest.importorskip("mne_bids")
    root, _ = bids_tree(tmp_path, ("01",))
    table = next(root.rglob("*_events.tsv"))
    table.unlink()
    os.mkfifo(table)
    with pytest.raises(DataError, match=r"_events\.tsv' is no recording: it is a device or a pipe"):
        prepared(tmp_path, [bids_entry()], "meg")


def test_bids_errors_are_named(tmp_path, monkeypatch):
    pytest.importorskip("mne_bids")
    root, _ = bids_tree(tmp_path, ("01",))
    cases = [
        ({"task": "rest"}, "has no task 'rest'; it has 'see'"),
        ({"bids_subject": "99"}, "has no subject '99'"),
        ({"task": None}, "of kind 'bids' need 'task'"),
        ({"bids_run": 1}, "'bids_run' must be text, but got 1. Write names that look like numbers in quotes"),
        ({"file": "nowhere"}, "There is no BIDS data set '.*nowhere'"),
        ({"events": "x.tsv"}, "do not use 'events'"),
        ({"image_column": "image"}, "_events.tsv' has no column 'image'"),
        ({"bids_session": "a/b"}, "cannot be read"),
    ]
    for changes, message in cases:
        with pytest.raises(DataError, match=message):
            prepared(tmp_path, [bids_entry(**changes)], "meg")
    channels = next(root.rglob("*_channels.tsv"))
    text = channels.read_text()
    assert "\tgood" in text
    channels.write_text(text.replace("\tgood", "\tbad", 1))
    with pytest.raises(DataError, match=r"channels marked bad: A. Interpolate them or leave them out by 'picks'"):
        prepared(tmp_path, [bids_entry()], "meg")
    folder = prepared(tmp_path, [bids_entry(picks=["B", "C", "D"])], "meg")
    assert read_metadata(folder)["ch_names"] == ["B", "C", "D"]
    channels.write_text(text)
    next(root.rglob("*_events.tsv")).unlink()
    with pytest.raises(DataError, match="sub-01_ses-a_task-see_run-01"):
        prepared(tmp_path, [bids_entry()], "meg", folder="other")
    monkeypatch.setitem(__import__("sys").modules, "mne_bids", None)
    with pytest.raises(DataError, match=r'pip install "neural_clip\[bids\]"'):
        prepared(tmp_path, [bids_entry()], "meg", folder="other")


# Real recordings.


def real_entry(real_data, name, **changes):
    path = real_data / "eeg_raw" / name
    if not path.exists():
        pytest.skip(f"no {name} among the real recordings")
    return entry(file=str(path), tmin=-0.05, tmax=0.1, **changes)


@pytest.mark.parametrize(
    ("name", "sfreq", "settings"),
    [
        ("mne-python_brainvision/test.vhdr", 1000.0, {"low_pass": 40.0, "decimate_to": 250.0}),
        ("mne-python_biosemi/test.edf", 512.0, {"low_pass": 40.0, "decimate_to": 128.0, "baseline": [None, 0]}),
        ("mne-python_biosemi/test_bdf_stim_channel.bdf", 500.0, {"baseline": [None, 0]}),
    ],
)
def test_real_recordings_with_invented_events(tmp_path, real_data, name, sfreq, settings):
    import mne

    recording = real_entry(real_data, name, **settings)
    raw = mne.io.read_raw(recording["file"], preload=True, verbose="error").pick("eeg")
    recording["picks"] = [ch for ch in raw.ch_names if ch not in raw.info["bads"]][:8]
    times = np.linspace(0.3, raw.n_times / sfreq - 0.3, N)
    write_events(tmp_path / "events.tsv", times=times)
    # Some of these files are short recordings of an open amplifier, so their unit is not judged.
    folder = prepared(tmp_path, [recording], unit="V as mne reads them")
    values, _ = stored(folder)
    raw.pick(recording["picks"])
    if "low_pass" in settings:
        raw.filter(None, settings["low_pass"], verbose="error")
    onset = int(np.floor(times[4] * sfreq + 0.5))
    factor = round(sfreq / settings.get("decimate_to", sfreq))
    steps = np.arange(np.ceil(-0.05 * sfreq / factor - 1e-4), np.floor(0.1 * sfreq / factor + 1e-4) + 1)
    expected = raw.get_data()[:, onset + factor * steps.astype(int)]
    if "baseline" in settings:
        first = int(np.ceil(-0.05 * sfreq - 1e-4))
        expected = expected - raw.get_data()[:, onset + first : onset + 1].mean(axis=1, keepdims=True)
    np.testing.assert_allclose(values[4], expected, rtol=1e-4, atol=1e-9)
    assert read_metadata(folder)["sfreq"] == sfreq / factor


def test_a_real_ctf_recording_can_be_cut(tmp_path, real_data):
    path = real_data / "ctf" / "testdata_ctf_short_discontinuous.ds"
    if not path.exists():
        pytest.skip("no CTF recording among the real recordings")
    write_events(tmp_path / "events.tsv", times=np.linspace(0.2, 1.7, N))
    recording = entry(file=str(path), tmin=-0.05, tmax=0.1, picks=["mag"])
    folder = prepared(tmp_path, [recording], "meg")
    assert read_metadata(folder)["n_chans"] > 200


def test_an_incomplete_real_ctf_recording_is_named(tmp_path, real_data):
    path = real_data / "ctf" / "catch-alp-good-f.ds"
    if not path.exists():
        pytest.skip("no incomplete CTF recording among the real recordings")
    write_events(tmp_path / "events.tsv")
    with pytest.raises(DataError, match=r"catch-alp-good-f.ds' cannot be read"):
        prepared(tmp_path, [entry(file=str(path))], "meg")
