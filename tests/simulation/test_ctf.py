"""The CTF writer, read back by MNE and compared with a real recording."""

import tempfile
from pathlib import Path

import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from neural_clip.errors import DataError
from neural_clip.simulation import ctf
from neural_clip.simulation.ctf import CtfChannel, HeadCoils, quantisation_step, write_ds

SFREQ = 1200.0
SENSORS = ["MLC11-1609", "MLF21-1609", "MRO11-1609", "MRT12-1609", "MZC01-1609"]


def sensor_normals():
    normals = np.random.default_rng(0).normal(size=(len(SENSORS), 3))
    normals[:, 2] = np.abs(normals[:, 2])
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def channels():
    meg = [
        CtfChannel(name, "meg", tuple((0.12 * normal).tolist()), tuple(normal.tolist()))
        for name, normal in zip(SENSORS, sensor_normals(), strict=True)
    ]
    return [
        CtfChannel("SCLK01-177", "clock"),
        CtfChannel("BG1-1609", "ref_mag", (0.0, 0.05, 0.3), (0.0, 0.0, 1.0)),
        CtfChannel("G11-1609", "ref_grad", (0.05, 0.0, 0.3), (0.0, 0.0, 1.0)),
        *meg,
        CtfChannel("UADC016-2104", "adc"),
        CtfChannel("UPPT001", "stim"),
    ]


def recording(n_times):
    rng = np.random.default_rng(1)
    data = np.zeros((5 + len(SENSORS), n_times))
    data[0] = np.arange(1, n_times + 1) / SFREQ
    data[1:-2] = 1e-12 * rng.standard_normal((2 + len(SENSORS), n_times)) + 3e-10  # T, with an offset
    data[-2] = rng.normal(size=n_times)  # V
    data[-1, 100:110], data[-1, 700:710] = 64, 32
    return data


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    data = recording(2501)  # not a whole number of blocks
    shift = (0.003, -0.001, 0.002)
    path = write_ds(
        tmp_path_factory.mktemp("ctf") / "run.ds",
        data,
        channels(),
        SFREQ,
        trial_samples=1200,
        coils=HeadCoils(shift=shift),
        subject="BIGMEG1",
    )
    return path, data, shift


def test_mne_reads_what_was_written(written):
    path, data, _ = written
    raw = mne.io.read_raw_ctf(path, preload=True, verbose="ERROR")
    assert raw.ch_names == [channel.name for channel in channels()]
    assert raw.info["sfreq"] == SFREQ
    assert raw.get_channel_types() == ["misc", "ref_meg", "ref_meg", *["mag"] * len(SENSORS), "misc", "stim"]
    assert raw.n_times == data.shape[1]  # zeros that fill the last block are cut off
    steps = np.array([quantisation_step(channel) for channel in channels()])
    assert (np.abs(raw.get_data() - data).max(axis=1) <= 0.5 * steps * (1 + 1e-6)).all()
    assert raw.info["meas_date"].year == 2019 and raw.info["subject_info"]["his_id"] == "BIGMEG1"


def test_steps_of_sensors_are_far_below_their_noise():
    steps = {channel.kind: quantisation_step(channel) for channel in channels()}
    assert steps["meg"] < 1e-15 and steps["ref_mag"] < 2e-14  # T; system noise is 5e-15 T per square root Hz
    assert steps["stim"] == 1


def test_triggers_survive(written):
    events = mne.find_events(mne.io.read_raw_ctf(written[0], verbose="ERROR"), "UPPT001", verbose="ERROR")
    assert events[:, [0, 2]].tolist() == [[100, 64], [700, 32]]


def test_positions_and_orientations(written):
    path, _, shift = written
    info = mne.io.read_raw_ctf(path, verbose="ERROR").info
    for name, normal in zip(SENSORS, sensor_normals(), strict=True):
        place = info["chs"][info["ch_names"].index(name)]["loc"]
        # MNE's device frame of CTF systems lies 190 mm above the dewar's origin, the standard head 270 mm below it
        assert_allclose(place[:3], 0.12 * normal + [0, 0, -0.08], atol=1e-9)
        assert_allclose(place[9:], normal, atol=1e-9)
    # the head moved by `shift` in dewar axes, which lie 45 degrees off the head's
    turned = [(shift[0] - shift[1]) / np.sqrt(2), (shift[0] + shift[1]) / np.sqrt(2), shift[2]]
    assert_allclose(info["dev_head_t"]["trans"][:3, 3], [-turned[0], -turned[1], 0.08 - turned[2]], atol=1e-6)
    assert_allclose(info["dev_head_t"]["trans"][:3, :3], np.eye(3), atol=1e-5)
    fiducials = {int(point["ident"]): point["r"] for point in info["dig"]}
    assert_allclose(fiducials[2], [0, 0.10, 0], atol=1e-6)  # nasion


def test_compensation_is_present_and_zero(written):
    info = mne.io.read_raw_ctf(written[0], verbose="ERROR").info
    (compensation,) = info["comps"]
    assert compensation["data"]["row_names"] == SENSORS
    assert compensation["data"]["col_names"] == ["BG1-1609", "G11-1609"]
    assert not compensation["data"]["data"].any()


def test_equal_data_are_equal_bytes(tmp_path):
    folders = [
        write_ds(tmp_path / name / "a.ds", recording(900), channels(), SFREQ, trial_samples=300) for name in "xy"
    ]
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert contents[0] == contents[1]
    assert set(contents[0]) == {"a.res4", "a.meg4", "a.hc", "BadChannels", "bad.segments", "ClassFile.cls"}


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 60), st.integers(1, 25), st.integers(0, 2**31 - 1))
def test_any_length_and_block_come_back(n_times, trial_samples, seed):
    counts = np.random.default_rng(seed).integers(-(2**31) + 1, 2**31, n_times)
    clock = np.arange(1, n_times + 1) / SFREQ
    listed = [CtfChannel("SCLK01-177", "clock"), CtfChannel("UPPT001", "stim")]
    with tempfile.TemporaryDirectory() as folder:
        data = np.stack([clock, counts.astype(float)])
        path = write_ds(Path(folder) / "a.ds", data, listed, SFREQ, trial_samples=trial_samples)
        raw = mne.io.read_raw_ctf(path, verbose="ERROR")
        assert_array_equal(raw.get_data()[1], counts)


def test_our_layout_reads_the_real_header(real_data):
    path = real_data / "ctf" / "testdata_ctf_short_discontinuous.ds" / "testdata_ctf_short_discontinuous.res4"
    content = path.read_bytes()
    header = np.frombuffer(content, ctf._HEADER, 1)[0]
    assert header["head"] == b"MEG42RS" and header["date"] == b"29-Apr-2013" and header["time"] == b"09:36"
    assert (header["n_times"], header["n_chans"], header["n_trials"]) == (1201, 356, 2)
    assert header["sfreq"] == SFREQ and header["duration"] == 2402 / SFREQ
    start = ctf.HEADER_BYTES + int(header["description_bytes"]) + 2  # no filters
    names = np.frombuffer(content, "S32", 356, start)
    records = np.frombuffer(content, ctf._CHANNEL, 356, start + 32 * 356)
    by_name = {name.split(b"\x00")[0].decode(): record for name, record in zip(names, records, strict=True)}
    assert by_name["SCLK01-177"]["type_index"] == ctf._KINDS["clock"][0]
    for kind, name in {"meg": "MLC11-4304", "ref_mag": "BG1-4304", "ref_grad": "G11-4304", "stim": "UPPT001",
                       "clock": "SCLK01-177", "adc": "UADC001-4302"}.items():  # fmt: skip
        type_index, gain, q_gain, n_coils, turns, area = ctf._KINDS[kind]
        record = by_name[name]
        assert record["type_index"] == type_index and record["q_gain"] == pytest.approx(q_gain)
        assert abs(record["proper_gain"]) == pytest.approx(gain, rel=0.05)
        if kind in ctf.MEG_KINDS:
            assert record["n_coils"] == n_coils and record["coils"]["turns"][0] == turns
            assert record["coils"]["area"][0] == pytest.approx(area, rel=0.01)
    outward = [r for n, r in by_name.items() if n.startswith("M") and r["proper_gain"] < 0]
    inward = [r for n, r in by_name.items() if n.startswith("M") and r["proper_gain"] > 0]
    for sign, group in ((1, outward), (-1, inward)):  # positive gain: the normal points into the head
        for record in group:
            assert sign * (record["coils"]["position"][0] - [0, 0, -27]) @ record["coils"]["normal"][0] > 0


def test_real_recording_and_ours_have_the_same_structure(real_data, written):
    real = mne.io.read_raw_ctf(
        real_data / "ctf" / "testdata_ctf_short_discontinuous.ds", system_clock="ignore", verbose="ERROR"
    )
    ours = mne.io.read_raw_ctf(written[0], verbose="ERROR")
    types = dict(zip(ours.ch_names, ours.get_channel_types(), strict=True))
    real_types = {name.split("-")[0]: kind for name, kind in zip(real.ch_names, real.get_channel_types(), strict=True)}
    for name in ("MLC11", "BG1", "G11", "SCLK01"):
        (own,) = (kind for full, kind in types.items() if full.split("-")[0] == name)
        assert own == real_types[name]
    assert types["UPPT001"] == real_types["UPPT001"]
    kinds = [{ch["coil_type"] for ch in raw.info["chs"] if ch["ch_name"].startswith("ML")} for raw in (real, ours)]
    assert kinds[0] == kinds[1]
    assert real.info["sfreq"] == ours.info["sfreq"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data[:-1], "does not fit"),
        (lambda data: data[:, :0], "does not fit"),
        (lambda data: np.where(np.arange(len(data))[:, None] == 3, np.nan, data), "MLC11-1609"),
        (lambda data: np.where(np.arange(len(data))[:, None] == 5, 1.0, data), "MRO11-1609"),  # 1 T
    ],
)
def test_bad_data_are_refused_and_leave_nothing(tmp_path, change, words):
    with pytest.raises(DataError, match=words):
        write_ds(tmp_path / "a.ds", change(recording(900)), channels(), SFREQ, trial_samples=300)
    assert not list(tmp_path.iterdir())


def test_bad_parameters_are_refused(tmp_path):
    data = recording(900)
    write_ds(tmp_path / "a.ds", data, channels(), SFREQ, trial_samples=300)
    with pytest.raises(DataError, match="must be a new folder"):
        write_ds(tmp_path / "a.ds", data, channels(), SFREQ, trial_samples=300)
    with pytest.raises(DataError, match=r"ends in '\.ds'"):
        write_ds(tmp_path / "a", data, channels(), SFREQ, trial_samples=300)
    with pytest.raises(DataError, match="trial_samples"):
        write_ds(tmp_path / "b.ds", data, channels(), SFREQ, trial_samples=0)
    with pytest.raises(DataError, match="occur twice"):
        write_ds(tmp_path / "b.ds", data, [*channels()[:-1], channels()[0]], SFREQ, trial_samples=300)
    with pytest.raises(DataError, match="too long"):
        write_ds(tmp_path / "b.ds", np.zeros((10, 40_000)), channels(), SFREQ, trial_samples=1)
    with pytest.raises(DataError, match="Allowed values are 'ref_mag'"):
        CtfChannel("MLC11-1609", "magnetometer")
    with pytest.raises(DataError, match="1 to 15 characters"):
        CtfChannel("MLC11-1609-and-more", "stim")
    with pytest.raises(DataError, match="needs a position"):
        CtfChannel("MLC11-1609", "meg")
