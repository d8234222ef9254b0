"""Continuous recordings: where events are found, which filters are lacking, and what is refused."""

from pathlib import Path

import mne
import numpy as np
import pytest

from continuous_raw import simulated_raw, write_brainvision
from edf_files import annotations, write_edf
from neural_clip.errors import DataError
from neural_clip.gallery.embedder import Embedder
from neural_clip.preparation import Preparation
from neural_clip.queries.continuous import lacking_filters, reach_of
from neural_clip.queries.opening import open_recordings
from neural_clip.queries.options import RecordingOptions
from neural_clip.queries.recorded import BLOCK

SPEC = {"n_times": 50, "sfreq": 100.0, "tmin": -0.1}


@pytest.fixture(scope="module")
def embedder(lab):
    return Embedder.of(lab.checkpoint)


def vectors(embedder, path, **said):
    return open_recordings(path, embedder, RecordingOptions(**{"subject": "sub-01"} | said)).embedded(embedder)[0]


@pytest.fixture(scope="module")
def expected(lab, embedder):
    """Vectors by a table of events."""
    table = {"events": lab.root / "events.tsv", "keep": ("trial_type=image",)}
    return {name: vectors(embedder, lab.root / file, **table)
            for name, file in (("eeg", "rec.edf"), ("meg", "rec_raw.fif"))}  # fmt: skip


def times():
    return 1 + 1.3 * np.arange(20)


def test_annotations_of_every_format_cut_like_a_table(lab, embedder, expected, tmp_path):
    values = np.round(simulated_raw(1, sfreq=200.0).get_data() * 1e6).astype(int)
    texts = [(f"{onset:.4f}", 0.5, "image") for onset in times()] + [("2.9", 0.1, "press"), ("29", 0.5, "BAD_end")]
    marks = annotations([float(n) for n in range(30)], texts, width=600)
    signals = [*zip("ABCD", values, strict=True), ("EDF Annotations", marks)]
    write_edf(tmp_path / "a.edf", signals, 30, marked="EDF+C")
    raw = mne.io.read_raw_edf(tmp_path / "a.edf", preload=True, verbose="error")
    raw.crop(0.5).save(tmp_path / "a_raw.fif", verbose="error")  # its first sample is not the first of the recording
    for name in ("a.edf", "a_raw.fif"):
        found = vectors(embedder, tmp_path / name, keep=("trial_type=image",), modality="eeg")
        tolerance = 1e-5 if name == "a.edf" else 0.05  # the filter of a shorter recording begins elsewhere
        np.testing.assert_allclose(found, expected["eeg"], atol=tolerance)


def test_brainvision_with_a_table(lab, embedder, expected, tmp_path):
    write_brainvision(tmp_path, mne.io.read_raw_edf(lab.root / "rec.edf", preload=True, verbose="error"))
    found = vectors(embedder, tmp_path / "rec.vhdr", events=lab.root / "events.tsv", keep=("trial_type=image",))
    np.testing.assert_allclose(found, expected["eeg"], atol=1e-4)


def test_triggers_cut_like_a_table_and_each_event_is_named(lab, embedder, expected):
    file = open_recordings(lab.root / "rec_raw.fif", embedder, RecordingOptions(subject="sub-01", keep=("value=5",)))
    assert file.names[:2] == ["1 (1.000 s, 5)", "2 (2.300 s, 5)"] and len(file.names) == 20
    np.testing.assert_allclose(file.embedded(embedder)[0], expected["meg"], atol=1e-6)


@pytest.mark.parametrize("way", ["file", "root"])
def test_bids_finds_events_subject_and_session(lab, embedder, expected, tmp_path, way):
    mne_bids = pytest.importorskip("mne_bids")
    raw = mne.io.read_raw_fif(lab.root / "rec_raw.fif", verbose="error")
    raw.info["line_freq"] = 50
    raw.set_annotations(mne.Annotations(times(), 0.5, ["image"] * 20))
    place = mne_bids.BIDSPath(root=tmp_path, subject="01", session="a", task="see", run="01", datatype="meg")
    mne_bids.write_raw_bids(raw, place, overwrite=True, verbose="error")
    given = {"session": "a", "task": "see", "run": "01", "modality": "meg"} if way == "root" else {"subject": None}
    path = tmp_path if way == "root" else Path(place.find_matching_sidecar(suffix="meg", extension=".fif"))
    found = vectors(embedder, path, keep=("trial_type=image",), **given)
    np.testing.assert_allclose(found, expected["meg"], atol=1e-6)
    if way == "root":
        with pytest.raises(DataError, match=r"has no task 'sea'; it has 'see'. Did you mean 'see'"):
            vectors(embedder, tmp_path, **given | {"task": "sea"})
        events = lab.root / "events.tsv"
        with pytest.raises(DataError, match=r"has no task 'sea'; it has 'see'"):
            vectors(embedder, tmp_path, **given | {"task": "sea"}, events=events, keep=("trial_type=image",))
        with pytest.raises(DataError, match=r"Say which recording by --subject, --task.* Its tasks are 'see'\."):
            vectors(embedder, tmp_path, session="a")
    else:
        with pytest.raises(DataError, match="There is no recording"):
            vectors(embedder, tmp_path / "sub-02" / "meg" / "sub-02_task-see_meg.fif")
        wrong = path.with_name(path.name.replace("task-see", "task-sea"))
        with pytest.raises(DataError, match=f"There is no recording .*Did you mean '{path.name}'"):
            vectors(embedder, wrong)


@pytest.mark.parametrize(
    ("bands", "rate", "highpass", "lowpass", "lacking"),
    [
        ([[0.0, 30.0]], "decimated", 0.0, 100.0, (None, 30.0)),
        ([[0.1, 30.0]], "decimated", 0.0, 100.0, (0.1, 30.0)),
        ([[0.1, 30.0]], "decimated", 0.1, 30.0, (None, None)),
        ([[0.0, 50.0]], "resampled", 0.0, 100.0, (None, None)),  # goes with the rate
        ([[0.5, 40.0]], "resampled", 0.0, 100.0, (0.5, 40.0)),
        ([[0.0, 50.0]], None, 0.0, 50.0, (None, None)),
        ([[0.0, 30.0], [1.0, 30.0]], None, 1.0, 30.0, (None, None)),  # it has one of the bands
        (None, None, 0.0, 100.0, (None, None)),
    ],
)
def test_filters_that_a_recording_lacks(bands, rate, highpass, lowpass, lacking):
    info = {"highpass": highpass, "lowpass": lowpass, "sfreq": 200.0}
    assert lacking_filters(Preparation(bands=bands, rate=rate), SPEC, info) == lacking


def test_a_window_reaches_as_far_as_the_baseline():
    assert reach_of(SPEC, Preparation(baseline=None), 200.0) == (-20, 78)
    assert reach_of(SPEC, Preparation(baseline=[-0.3, 0.0]), 200.0) == (-60, 78)
    assert reach_of(SPEC, Preparation(baseline=[-0.1, 0.6]), 200.0) == (-20, 120)


def changed_edf(lab, path, names="ABCD", rate=1):
    values = np.round(simulated_raw(1, sfreq=200.0).get_data() * 1e6).astype(int)[: len(names), ::rate]
    write_edf(path, list(zip(names, values, strict=True)), 30)
    return path


def test_recordings_that_do_not_fit_are_told(lab, embedder, tmp_path):
    said = {"events": lab.root / "events.tsv", "keep": ("trial_type=image",)}
    with pytest.raises(DataError, match=r"lacks 1 of the model's 4 channels: 'D'; it has A, B, C, X"):
        vectors(embedder, changed_edf(lab, tmp_path / "montage.edf", "ABCX"), **said)
    with pytest.raises(DataError, match=r"have 50 Hz; the model needs 100 Hz"):
        vectors(embedder, changed_edf(lab, tmp_path / "slow.edf", rate=4), **said)
    with pytest.raises(DataError, match="events reach beyond its ends"):
        (tmp_path / "late.tsv").write_text("onset\n1\n29.9\n")
        vectors(embedder, lab.root / "rec.edf", events=tmp_path / "late.tsv")
    with pytest.raises(DataError, match="holds no recordings, but 'cov'"):
        covariance = mne.make_ad_hoc_cov(mne.io.read_raw_edf(lab.root / "rec.edf", verbose="error").info)
        covariance.save(tmp_path / "a-cov.fif", verbose="error")
        vectors(embedder, tmp_path / "a-cov.fif")
    with pytest.raises(DataError, match="'unit' is 'uV', but mne holds V"):
        vectors(embedder, lab.root / "rec.edf", unit="uV", **said)
    raw = mne.io.read_raw_fif(lab.root / "rec_raw.fif", preload=True, verbose="error")
    raw.set_annotations(mne.Annotations([2.2], [0.5], ["BAD_jump"]))
    raw.save(tmp_path / "bad_raw.fif", verbose="error")
    with pytest.raises(DataError, match="the windows of 1 of 20 events overlap segments marked bad"):
        vectors(embedder, tmp_path / "bad_raw.fif", keep=("value=5",))
    assert len(vectors(embedder, tmp_path / "bad_raw.fif", keep=("value=5",), bad_segments="drop")) == 19


def test_a_recording_is_read_some_windows_at_a_time(lab, embedder, tmp_path):
    """Without a filter nothing but the windows of a block is loaded; vectors are those of all at once."""
    raw = mne.io.read_raw_fif(lab.root / "rec_raw.fif", preload=True, verbose="error")
    raw.filter(0.5, None, verbose="error").save(tmp_path / "filtered_raw.fif", verbose="error")
    onsets = 0.3 + 0.05 * np.arange(560)
    (tmp_path / "many.tsv").write_text("onset\n" + "".join(f"{onset:.3f}\n" for onset in onsets))
    options = RecordingOptions(subject="sub-01", events=tmp_path / "many.tsv")
    file = open_recordings(tmp_path / "filtered_raw.fif", embedder, options)
    sizes = [len(block) for block in file.blocks()]
    assert sizes == [BLOCK, BLOCK, 560 - 2 * BLOCK]
    whole = embedder.embed_recordings(file.read(0, 560), "sub-01", "meg")[1]
    assert np.array_equal(file.embedded(embedder)[0], whole)
