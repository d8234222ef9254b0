"""Recordings whose channels have several rates or one name twice, with gaps, in several parts, or in another unit."""

import struct

import numpy as np
import pytest

from continuous_raw import simulated_raw, write_brainvision
from custom_raw import TERMS, rng, save_epochs, write_manifest
from edf_files import annotations, write_edf
from neural_clip.commands.main import main
from neural_clip.corpora.custom.continuous import read_continuous
from neural_clip.corpora.custom.edf import channels_to_read
from neural_clip.corpora.custom.epochs import fif_parts, read_epochs
from neural_clip.corpora.custom.manifest import Recording
from neural_clip.errors import DataError, run

RECORDS = 20  # seconds
SUFFIXES = (".edf", ".bdf")


def noise(rate, seed=0):
    return rng(seed, rate).normal(scale=20, size=rate * RECORDS).round().astype(int)


def read(path, **changes):
    """Values of one window a second, in V."""
    table = path.with_name("events.tsv")
    table.write_text("onset\timage_id\n" + "".join(f"{second}\tim{second}\n" for second in range(1, RECORDS - 1)))
    entry = Recording(
        **{"file": path.name, "kind": "continuous", "subject": "sub-01", "events": "events.tsv", "tmin": 0.0,
           "tmax": 0.5} | changes
    )  # fmt: skip
    trials = read_continuous(entry, "eeg", path, path.parent)
    return trials.values("V"), trials


def windows(values, rate):
    """The same windows, cut by hand."""
    return np.stack([values[second * rate : second * rate + rate // 2 + 1] for second in range(1, RECORDS - 1)])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_channels_of_several_rates_are_not_filled_up(tmp_path, suffix):
    path, slow, fast = tmp_path / f"rec{suffix}", noise(64), noise(128)
    write_edf(path, [("Fz", slow), ("Cz", slow[::-1]), ("Resp", fast)], RECORDS)
    for picks in (None, ["eeg"], ["Fz", "Resp"]):
        with pytest.raises(DataError, match=r"rec.*different rates: 'Fz' has 64 Hz, 'Resp' has 128 Hz.*by 'picks'"):
            read(path, picks=picks)
    values, trials = read(path, picks=["Cz", "Fz"])
    assert trials.facts["sfreq"] == 64 and trials.facts["ch_names"] == ["Cz", "Fz"]
    np.testing.assert_allclose(values[:, 1], windows(slow, 64) * 1e-6, rtol=1e-3, atol=1e-9)
    values, trials = read(path, picks=["Resp"])
    assert trials.facts["sfreq"] == 128
    np.testing.assert_allclose(values[:, 0], windows(fast, 128) * 1e-6, rtol=1e-3, atol=1e-9)


def test_annotations_have_no_rate(tmp_path):
    path, fast = tmp_path / "rec.edf", noise(128)
    write_edf(path, [("Fz", fast), ("EDF Annotations", annotations(range(RECORDS)))], RECORDS, marked="EDF+C")
    np.testing.assert_allclose(read(path)[0][:, 0], windows(fast, 128) * 1e-6, rtol=1e-3, atol=1e-9)


def test_marks_are_kept_where_channels_are_chosen_by_rate(tmp_path):
    path = tmp_path / "rec.edf"
    notes = annotations(range(RECORDS), [(3.2, 0.1, "BAD_blink")])
    write_edf(path, [("Fz", noise(64)), ("EDF Annotations", notes), ("Resp", noise(128))], RECORDS, marked="EDF+C")
    with pytest.raises(DataError, match="1 of 18 events overlap segments marked bad"):
        read(path, picks=["Fz"])


def test_gaps_between_records_are_refused(tmp_path):
    path, onsets = tmp_path / "rec.edf", list(range(RECORDS))
    whole = [("Fz", noise(128)), ("EDF Annotations", annotations(onsets))]
    write_edf(path, whole, RECORDS, marked="EDF+D")
    np.testing.assert_allclose(read(path)[0][:, 0], windows(noise(128), 128) * 1e-6, rtol=1e-3, atol=1e-9)
    cut = [
        ("Fz", noise(128)),
        ("EDF Annotations", annotations([*onsets[:12], *(40 + onset for onset in onsets[12:])])),
    ]
    write_edf(path, cut, RECORDS, marked="EDF+D")
    with pytest.raises(DataError, match=r"rec\.edf' is interrupted: its record 13 begins at 52 s.* ends at 12 s"):
        read(path)
    write_edf(path, cut[:1], RECORDS, marked="EDF+D")
    with pytest.raises(DataError, match="does not tell when its records begin"):
        read(path)


@pytest.mark.parametrize(("version", "count"), [("1.25", "<I"), ("2.20", "<H")])
def test_channels_of_gdf(tmp_path, version, count):
    head = f"GDF {version}".encode().ljust(252, b"\0") + struct.pack(count, 3).ljust(4, b"\0")
    labels = b"".join(label.ljust(16, b"\0") for label in (b"Fz", b"Cz", b"Resp"))
    (tmp_path / "rec.gdf").write_bytes(head + labels + bytes(200 * 3) + struct.pack("<3i", 64, 64, 128))
    assert channels_to_read(tmp_path / "rec.gdf", ["Cz", "Fz"]) == ["Cz", "Fz"]
    with pytest.raises(DataError, match="'Fz' has 64 samples a record, 'Resp' has 128 samples a record"):
        channels_to_read(tmp_path / "rec.gdf", None)
    (tmp_path / "rec.gdf").write_bytes(head + labels + bytes(200 * 3) + struct.pack("<3i", 64, 64, 64))
    assert channels_to_read(tmp_path / "rec.gdf", None) is None


@pytest.mark.parametrize("place", [104, 120])
def test_channels_without_a_scale_are_refused(tmp_path, place):
    """Instead of it, mne makes one up."""
    path = tmp_path / "rec.edf"
    write_edf(path, [("-", noise(128)), ("Cz", noise(128, 1))], RECORDS)
    content = bytearray(path.read_bytes())
    for first in (0, 16):  # the least and the largest value of the first of two signals
        content[256 + 2 * place + first : 264 + 2 * place + first] = b"0       "
    path.write_bytes(content)
    for picks in (None, ["-"], ["Cz", "-"]):
        with pytest.raises(DataError, match=r"rec\.edf': channel '-' has no scale.*'picks'"):
            read(path, picks=picks)
    np.testing.assert_allclose(read(path, picks=["Cz"])[0][:, 0], windows(noise(128, 1), 128) * 1e-6, rtol=1e-3)


def test_a_damaged_header_is_called_so(tmp_path):
    path = tmp_path / "rec.edf"
    write_edf(path, [("Fz", noise(128))], RECORDS)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"rec\.edf' cannot be read.*damaged or truncated"):
        read(path)


@pytest.mark.parametrize("unit", ["", "nV"])
def test_a_unit_that_mne_does_not_know_is_noticed(tmp_path, unit):
    write_edf(tmp_path / "rec.edf", [("Fz", noise(128)), ("Cz", noise(128, 1))], RECORDS, unit=unit)
    with pytest.raises(
        DataError, match=r"'rec\.edf': the unit is V, .* that of '(Fz|Cz)', is .* plausible are .*'unit'"
    ):
        read(tmp_path / "rec.edf")


def test_one_name_twice_matters_only_where_it_is_picked(tmp_path):
    path = tmp_path / "rec.edf"
    write_edf(path, [("Fz", noise(128)), ("Fz", noise(128, 1)), ("Cz", noise(128, 2))], RECORDS)
    for picks in (None, ["Fz"], ["Fz-0"], ["Cz", "Fz-1"]):
        with pytest.raises(DataError, match=r"rec\.edf': the channel names are not unique: Fz\. Leave .* 'picks'"):
            read(path, picks=picks)
    expected = windows(noise(128, 2), 128) * 1e-6
    np.testing.assert_allclose(read(path, picks=["Cz"])[0][:, 0], expected, rtol=1e-3, atol=1e-9)
    write_edf(path, [("Fz", noise(64)), ("Fz", noise(128, 1)), ("Cz", noise(128, 2))], RECORDS)
    with pytest.raises(DataError, match="not unique: Fz"):
        read(path)
    np.testing.assert_allclose(read(path, picks=["Cz"])[0][:, 0], expected, rtol=1e-3, atol=1e-9)
    raw = simulated_raw(names=("A", "B", "C"), seconds=RECORDS)
    write_brainvision(tmp_path, raw, ["A", "B", "B"])
    with pytest.raises(DataError, match=r"rec\.vhdr': the channel names are not unique: B"):
        read(tmp_path / "rec.vhdr", picks=["A"])


def test_a_channel_that_is_not_there_is_named_with_the_nearest(tmp_path):
    write_edf(tmp_path / "rec.edf", [("Fz", noise(128)), ("Cz", noise(128, 1))], RECORDS)
    with pytest.raises(DataError, match=r"no channel 'FZ'.* Did you mean 'Fz'\?"):
        read(tmp_path / "rec.edf", picks=["FZ"])


# Recordings in several parts.


@pytest.fixture
def parts(tmp_path):
    """A FIF recording of more than 4 MB in parts of 2 MB, by both ways to name them."""
    raw = simulated_raw(seconds=RECORDS * 20)
    raw.save(tmp_path / "a_raw.fif", split_size="2MB", verbose="error")
    raw.save(tmp_path / "sub-01_meg.fif", split_size="2MB", split_naming="bids", verbose="error")
    return raw, tmp_path / "a_raw.fif", tmp_path / "sub-01_split-01_meg.fif"


def test_parts_are_read_as_one(parts):
    raw, *firsts = parts
    for first in firsts:
        assert len(fif_parts(first)) == len(list(first.parent.glob(first.name[:3] + "*.fif"))) > 2
        values, trials = read(first, tmax=0.1)
        expected = np.stack([raw.get_data(start=500 * s, stop=500 * s + 51) for s in range(1, RECORDS - 1)])
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-9)
        assert set(trials.files) >= set(fif_parts(first))


def test_a_part_that_is_missing_or_not_the_first_is_named(parts):
    _, *firsts = parts
    for first in firsts:
        _, second, third, *_ = fif_parts(first)
        with pytest.raises(DataError, match=rf"{second.name}' is not the first part of its recording"):
            read(second)
        third.unlink()
        with pytest.raises(DataError, match=rf"several parts, of which '.*{third.name}' is missing") as caught:
            read(first)
        assert "damaged" not in str(caught.value)


def test_parts_of_epochs(tmp_path):
    import mne

    save_epochs(tmp_path / "whole-epo.fif", names=[f"E{i}" for i in range(60)], n=300)
    epochs = mne.read_epochs(tmp_path / "whole-epo.fif", verbose="error")
    epochs.save(tmp_path / "a-epo.fif", split_size="1.2MB", verbose="error")
    entry = Recording(file="a-epo.fif", kind="epochs", subject="sub-01", image_column="picture")
    trials = read_epochs(entry, "eeg", tmp_path / "a-epo.fif")
    np.testing.assert_allclose(trials.values("V"), epochs.get_data(copy=False), rtol=1e-5, atol=1e-12)
    second = fif_parts(tmp_path / "a-epo.fif")[1]
    with pytest.raises(DataError, match="is not the first part"):
        read_epochs(entry, "eeg", second)
    second.unlink()
    with pytest.raises(DataError, match=rf"several parts, of which '.*{second.name}' is missing"):
        read_epochs(entry, "eeg", tmp_path / "a-epo.fif")


# Pauses.


@pytest.mark.parametrize("word", ["New Segment/", "boundary", "EDGE boundary", "BAD boundary", "BAD_ACQ_SKIP"])
def test_windows_across_a_pause_are_bad(tmp_path, word):
    import mne

    raw = simulated_raw(seconds=RECORDS)
    raw.set_annotations(mne.Annotations([0.0, 5.2], [0.0, 0.0], [word, word]))
    raw.save(tmp_path / "a_raw.fif", verbose="error")
    with pytest.raises(DataError, match=r"the windows of 1 of 18 events overlap segments marked bad, or pauses.* 5 s"):
        read(tmp_path / "a_raw.fif")
    values, trials = read(tmp_path / "a_raw.fif", bad_segments="drop")
    assert len(values) == 17 and trials.dropped == 1 and "im5" not in trials.shown


def test_a_pause_at_the_edge_of_a_window_is_none_in_it(tmp_path):
    raw = simulated_raw(seconds=RECORDS)
    write_brainvision(tmp_path, raw)
    marks = tmp_path / "rec.vmrk"
    for sample, whole in ((2501, True), (2502, False), (2751, False), (2752, True)):  # from 1: the windows at 5 s
        lines = marks.read_text().splitlines()[:6]
        marks.write_text("\n".join([*lines, f"Mk2=New Segment,,{sample},1,0,20200101000000000000", ""]))
        _, trials = read(tmp_path / "rec.vhdr", bad_segments="drop")
        assert ("im5" in trials.shown) == whole, sample


def test_bids_recordings_in_parts(tmp_path):
    mne_bids = pytest.importorskip("mne_bids")
    import mne

    from neural_clip.corpora.custom.continuous import read_bids

    root = tmp_path / "bi[ds] 1,*"  # no pattern, but a name
    target = mne_bids.BIDSPath(root=root, subject="01", task="see", datatype="meg")
    raw = simulated_raw(kind="mag", unit=1e-12, seconds=400)
    raw.info["line_freq"] = 50
    raw.save(tmp_path / "x_raw.fif", verbose="error")
    mne_bids.write_raw_bids(mne.io.read_raw_fif(tmp_path / "x_raw.fif", verbose="error"), target, verbose="error")
    place = next(root.rglob("*_meg.fif"))
    raw.save(place, split_size="2MB", split_naming="bids", overwrite=True, verbose="error")
    place.unlink(missing_ok=True)
    events = place.with_name("sub-01_task-see_events.tsv")
    events.write_text("onset\tduration\timage_id\n" + "".join(f"{second}\t0\tim\n" for second in range(1, 300, 50)))
    entry = Recording(file=root.name, kind="bids", subject="sub-01", task="see", tmin=0.0, tmax=0.1)
    values = read_bids(entry, "meg", root).values("T")
    expected = np.stack([raw.get_data(start=500 * second, stop=500 * second + 51) for second in range(1, 300, 50)])
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-18)
    next(root.rglob("*split-02*.fif")).unlink()
    with pytest.raises(DataError, match=r"several parts, of which '.*split-02_meg\.fif' is missing"):
        read_bids(entry, "meg", root)
    next(root.rglob("*split-01*.fif")).rename(tmp_path / "sub-01_task-see_split-01_meg.fif")


# Files of another kind.


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.edf", "it is no EDF, BDF or GDF file.* b'hello"),
        ("x_raw.fif", "it is no FIF file.* b'hello"),
        ("x.vhdr", "is no header of BrainVision: it begins with 'hello"),
        ("x.set", "Unknown mat file type"),
        ("x.xyz", "cannot be read by mne.io.read_raw: Unsupported file type"),
    ],
)
def test_recordings_that_are_something_else_say_so(tmp_path, name, message):
    (tmp_path / name).write_text("hello" * 400)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / name)
    assert "Is it damaged" not in str(caught.value)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="is empty: it has 0 bytes"):
        read(tmp_path / name)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match="There is no recording"):
        read(tmp_path / name)


def test_epochs_given_as_a_continuous_recording_and_back(tmp_path):
    save_epochs(tmp_path / "a-epo.fif")
    simulated_raw(seconds=5).save(tmp_path / "a_raw.fif", verbose="error")
    with pytest.raises(DataError, match=r"cannot be read by mne\.io\.read_raw: No raw data in .*fif\.$"):
        read(tmp_path / "a-epo.fif")
    entry = Recording(file="a_raw.fif", kind="epochs", subject="sub-01", image_column="picture")
    with pytest.raises(DataError, match=r"cannot be read as mne\.Epochs: Could not find event data\.$"):
        read_epochs(entry, "eeg", tmp_path / "a_raw.fif")


def test_a_ctf_folder_without_samples_is_incomplete(tmp_path):
    (tmp_path / "a.ds").mkdir()
    (tmp_path / "a.ds" / "a.res4").write_bytes(b"MEG42RS")
    with pytest.raises(
        DataError, match=r"a\.ds' cannot be read: the CTF recording is incomplete, it has no \.meg4 file"
    ):
        read(tmp_path / "a.ds")


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capsys):
    write_edf(tmp_path / "rec.edf", [("Fz", noise(64)), ("Resp", noise(128))], RECORDS)
    (tmp_path / "events.tsv").write_text("onset\timage_id\n1\ta\n")
    np.savez(tmp_path / "e.npz", ids=np.array(["a"]), embeds=np.ones((1, 3)))
    entry = {
        "file": "rec.edf",
        "kind": "continuous",
        "subject": "sub-01",
        "events": "events.tsv",
        "tmin": 0,
        "tmax": 1,
    }
    manifest = {"name": "mine", "modality": "eeg", "recordings": [entry], "splits": {"test": 0.3}, **TERMS,
                "embeddings": {"file": "e.npz", "name": "net"}}  # fmt: skip
    path = write_manifest(tmp_path, manifest)
    with pytest.raises(SystemExit) as caught:
        run(main, ["prepare", "custom", str(path), "--output-dir", str(tmp_path / "set")])
    assert caught.value.code == 2 and not (tmp_path / "set").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "'Fz' has 64 Hz, 'Resp' has 128 Hz" in line
