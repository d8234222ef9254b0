"""From raw files to the model: what the processor makes of recordings is what `prepare` made of the same files."""

import warnings
from dataclasses import replace

import mne
import nibabel
import numpy as np
import pandas as pd
import pytest
import torch

import imagenet_eeg_raw
import nsd_raw
from continuous_raw import simulated_raw
from custom_raw import TERMS, eeg_manifest, patterns, prepared, rng, series_manifest
from neural_clip import EegConfig, FmriConfig, MegConfig, NeuralClipConfig, NeuralClipModel, NeuralClipProcessor
from neural_clip.corpora.imagenet_eeg import prepare as prepare_imagenet_eeg
from neural_clip.corpora.nsd import prepare as prepare_nsd
from neural_clip.corpora.things_meg import prepare as prepare_things_meg
from neural_clip.errors import DataError
from neural_clip.gallery.fit import check_preparation
from neural_clip.prepared.reader import PreparedSet
from neural_clip.simulation.presets import get_preset
from neural_clip.simulation.things_meg_twin import write as write_things_meg

pytestmark = pytest.mark.numerical


def ready(folder):
    """An open set, and a processor and a model of its shape, saved and loaded."""
    data = PreparedSet.open(folder)
    facts = data.facts
    kind = {"eeg": EegConfig, "meg": MegConfig, "fmri": FmriConfig}[facts.modality]
    keys = ("n_voxels",) if facts.modality == "fmri" else ("n_chans", "n_times", "sfreq", "tmin", "ch_names")
    config = NeuralClipConfig(
        **{f"{facts.modality}_config": kind(subjects=facts.subjects, **{key: getattr(facts, key) for key in keys})}
    )
    processor = NeuralClipProcessor.from_config(
        config, preparations={facts.modality: data.preparation}, statistics={facts.modality: data.statistics}
    )
    processor.save_pretrained(folder / "processor")
    torch.manual_seed(0)
    return data, NeuralClipProcessor.from_pretrained(folder / "processor"), NeuralClipModel(config).eval()


def check_same(data, processor, model, raw, split, rows, **given):
    """Raw recordings and the prepared rows must give the same values, and the same embeddings to 1e-4 in cosine."""
    modality = data.facts.modality
    part = data.split(split)
    stored = [part.values([row])[0] for row in rows]
    names = part.subjects[rows].tolist()
    wanted = processor(**{modality: stored if modality == "fmri" else np.stack(stored)}, subject=names)
    found = processor(**{modality: raw}, subject=names, **given)
    assert found["subject_ids"].tolist() == wanted["subject_ids"].tolist()
    scale = float(wanted[f"{modality}_values"].std())
    np.testing.assert_allclose(found[f"{modality}_values"], wanted[f"{modality}_values"], atol=1e-4 * scale, rtol=1e-4)
    features = getattr(model, f"get_{modality}_features")
    with torch.no_grad():
        cosines = torch.nn.functional.cosine_similarity(features(**found), features(**wanted))
    assert cosines.min() > 1 - 1e-4


def rows_of(data, split):
    """Trial, session and run of the rows of a split, in their order."""
    return data.split(split).labels("trial", "session", "run", "image_id")


MINI = replace(
    get_preset("tiny"),
    meg=replace(
        get_preset("tiny").meg, subjects=(1,), n_concepts=8, n_test_images=2, n_catch_per_session=2, n_sessions=2,
        n_runs=1, n_chans=5,
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def meg_twin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw") / "things_meg"
    write_things_meg(folder, MINI, 3, derivative=False)
    return folder


@pytest.mark.parametrize("scaling", ["baseline_zscore", "train_std", "none"])
@pytest.mark.parametrize("preprocessing", ["paper", "published"])
def test_meg_epochs_in_tesla(meg_twin, tmp_path, scaling, preprocessing):
    folder = prepare_things_meg(meg_twin, tmp_path / "set", scaling=scaling, preprocessing=preprocessing)
    data, processor, model = ready(folder)
    assert data.preparation.spatial_filters == []
    low, high, tmin, tmax = (None, 48, -0.5, 1.0) if preprocessing == "paper" else (0.1, 40, -0.1, 1.3)
    split, session = "train", "ses-01"
    table = rows_of(data, split)
    used = table[table.session == session]
    recording = next(meg_twin.rglob(f"*{session}*/meg/*run-01_meg.ds"), None) or next(
        path for path in sorted(meg_twin.rglob("*_meg.ds")) if "ses-01" in path.name
    )
    events = pd.read_csv(str(recording).replace("_meg.ds", "_events.tsv"), sep="\t")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = mne.io.read_raw_ctf(recording, preload=True, verbose="error")
        raw.pick(data.facts.ch_names).apply_function(lambda channel: channel - channel.mean(), verbose="error")
        raw.filter(low, high, verbose="error")
        samples = events["sample"].to_numpy()[used.trial.to_numpy()]
        found = np.column_stack([samples + raw.first_samp, np.zeros_like(samples), np.ones_like(samples)])
        epochs = mne.Epochs(raw, found, tmin=tmin, tmax=tmax, baseline=None, preload=True, verbose="error")
    assert epochs.info["sfreq"] > data.facts.sfreq
    check_same(data, processor, model, epochs, split, used.index.to_numpy())


def louder(content):
    """Microvolts about 10, with offsets, and the statistics of the raw file."""
    for trial in content["dataset"]:
        trial["eeg"] = trial["eeg"] * torch.tensor([[5.0], [10.0], [20.0]]) + 3
    content |= {"means": torch.tensor([[2.0], [3.0], [4.0]]), "stddevs": torch.tensor([[5.0], [9.0], [21.0]])}


@pytest.fixture(scope="module")
def imagenet_eeg(tmp_path_factory):
    return imagenet_eeg_raw.build(tmp_path_factory.mktemp("raw") / "imagenet_eeg", change=louder)


def as_epochs(trials, sfreq=1000.0, names=None):
    """Trials `(n_chans, n_times)` in V as mne keeps them."""
    values = np.stack(trials)
    info = mne.create_info(names or [f"EEG{i:03d}" for i in range(values.shape[1])], sfreq, "eeg", verbose="error")
    return mne.EpochsArray(values, info, tmin=0.0, baseline=None, verbose="error")


@pytest.mark.parametrize("filters", [{}, {"band_pass": (5.0, 95.0)}])
@pytest.mark.parametrize("standardize", ["train", "released", "none"])
def test_eeg_epochs_in_volts(imagenet_eeg, tmp_path, standardize, filters):
    options = {"variant": "raw", "standardize": standardize, **filters}
    folder = prepare_imagenet_eeg(imagenet_eeg, tmp_path / "set", **options)
    data, processor, model = ready(folder)
    trials = torch.load(imagenet_eeg / "eeg_signals_raw_with_mean_std.pth", weights_only=True)["dataset"]
    rows = rows_of(data, "test")
    epochs = as_epochs([trials[i]["eeg"][:, :491].double().numpy() * 1e-6 for i in rows.trial])
    if filters:  # the whole trials are filtered, whose lengths differ
        design = {"order": 2, "ftype": "butter", "output": "sos"}
        parts = [as_epochs([trials[i]["eeg"].double().numpy() * 1e-6]) for i in rows.trial]
        parts = [
            part.filter(*filters["band_pass"], method="iir", iir_params=design, verbose="error") for part in parts
        ]
        epochs = mne.concatenate_epochs([part.crop(0, 0.490) for part in parts], verbose="error")
    check_same(data, processor, model, epochs, "test", rows.index.to_numpy())
    if filters:
        unfiltered = as_epochs([trials[i]["eeg"][:, :491].double().numpy() * 1e-6 for i in rows.trial])
        with pytest.raises(ValueError, match=r"hold 0 to 500 Hz.*filtered to 5 to 95 Hz"):
            processor(eeg=unfiltered, subject=data.split("test").subjects.tolist())
    if standardize != "none":
        with pytest.raises(ValueError, match=r"vary by .* another unit"):
            microvolts = as_epochs(list(epochs.get_data() * 1e6))
            microvolts.info = epochs.info
            processor(eeg=microvolts, subject=data.split("test").subjects.tolist())


def test_files_that_others_scaled_are_refused(tmp_path):
    data, processor, _ = ready(prepare_imagenet_eeg(imagenet_eeg_raw.build(tmp_path / "raw"), tmp_path / "set"))
    epochs = as_epochs([rng(0).normal(size=(3, 500)) * 1e-5])
    with pytest.raises(ValueError, match="scaled before their release, by statistics that nobody stated"):
        processor(eeg=epochs, subject=data.facts.subjects[0])


def test_files_of_epochs(tmp_path):
    manifest, _ = eeg_manifest(tmp_path)
    data, processor, model = ready(prepared(tmp_path, manifest))
    table = rows_of(data, "train")
    rows = np.flatnonzero(data.split("train").subjects == "sub-02")
    epochs = mne.read_epochs(tmp_path / "2-epo.fif", verbose="error")[table.trial[rows].to_numpy()]
    check_same(data, processor, model, epochs, "train", rows)
    check_same(data, processor, model, epochs.get_data() * 1e6, "train", rows, unit="uV", tmin=-0.1)


def test_projectors_that_are_not_applied_stay_so(tmp_path):
    """One rule for files of epochs, continuous recordings and the processor."""
    manifest, values = eeg_manifest(tmp_path)
    for subject in (1, 2):
        path = tmp_path / f"{subject}-epo.fif"
        epochs = mne.read_epochs(path, verbose="error").set_eeg_reference("average", projection=True, verbose="error")
        epochs.save(path, overwrite=True, verbose="error")
    data, processor, model = ready(prepared(tmp_path, manifest))
    table = rows_of(data, "train")
    rows = np.flatnonzero(data.split("train").subjects == "sub-02")
    stored = np.stack([data.split("train").values([row])[0] for row in rows])
    raw = values[2][table.trial[rows].to_numpy()][:, :, 10:31]
    np.testing.assert_allclose(stored, raw, rtol=1e-5, atol=1e-12)  # no average was subtracted
    epochs = mne.read_epochs(tmp_path / "2-epo.fif", proj=False, verbose="error")[table.trial[rows].to_numpy()]
    check_same(data, processor, model, epochs, "train", rows)
    with pytest.raises(ValueError, match=r"'projectors' of the recordings is \['Average EEG reference'\]"):
        processor(eeg=epochs.apply_proj(verbose="error"), subject="sub-02")


def save_embeddings(folder):
    """Vectors of the twenty images that are shown."""
    names = [f"im{i:02d}" for i in range(20)]
    np.savez(folder / "e.npz", ids=np.array(names), embeds=1 + rng(5).normal(size=(20, 3)))


def continuous_set(tmp_path, **cut):
    """A recording of EEG with a table of onsets, prepared; the recording and its onsets."""
    raw = simulated_raw(1, seconds=30.0)
    raw.save(tmp_path / "rec_raw.fif", overwrite=True, verbose="error")
    onsets = np.round(1 + 1.3 * np.arange(20) + rng(7).uniform(0, 0.3, 20), 4)
    lines = ["onset\tstim_file", *(f"{onset}\tim{i:02d}" for i, onset in enumerate(onsets))]
    (tmp_path / "events.tsv").write_text("\n".join(lines) + "\n")
    np.savez(
        tmp_path / "e.npz", ids=np.array([f"im{i:02d}" for i in range(20)]), embeds=1 + rng(5).normal(size=(20, 3))
    )
    entry = {"file": "rec_raw.fif", "kind": "continuous", "subject": "sub-01", "events": "events.tsv"}
    entry |= {"image_column": "stim_file", "tmin": -0.1, "tmax": 0.4, **cut}
    manifest = {
        "name": "mine", "modality": "eeg", "recordings": [entry], "embeddings": {"file": "e.npz", "name": "net"},
        "splits": {"validation": 0.2, "test": 0.2}, **TERMS,
    }  # fmt: skip
    return prepared(tmp_path, manifest), raw, onsets


def cut_epochs(raw, onsets, **options):
    """Epochs of mne at the raw rate."""
    samples = np.floor(onsets * raw.info["sfreq"] + 0.5).astype(int)
    events = np.column_stack([samples + raw.first_samp, np.zeros_like(samples), np.ones_like(samples)])
    options = {"tmin": -0.1, "tmax": 0.4, "baseline": None} | options
    return mne.Epochs(raw, events, preload=True, verbose="error", **options)


@pytest.mark.parametrize(
    "cut",
    [
        {},
        {"low_pass": 30.0, "decimate_to": 100.0, "baseline": [None, 0]},
        {"high_pass": 1.0, "low_pass": 40.0, "baseline": [-0.05, 0.0]},
        {"low_pass": 60.0, "resample": 200.0},
        {"resample": 120.0},
    ],
    ids=lambda cut: "-".join(cut) or "as it is",
)
def test_continuous_recordings(tmp_path, cut):
    folder, raw, onsets = continuous_set(tmp_path, **cut)
    data, processor, model = ready(folder)
    rows = rows_of(data, "train")
    if cut.get("resample"):  # whatever the rate of the file was
        assert data.preparation.bands == [[0.0, min(cut.get("low_pass", np.inf), cut["resample"] / 2)]]
    if cut.get("low_pass"):
        raw = raw.copy().filter(cut.get("high_pass"), cut["low_pass"], verbose="error")
    epochs = cut_epochs(raw, onsets[rows.trial])
    check_same(data, processor, model, epochs, "train", rows.index.to_numpy())
    if cut.get("low_pass"):
        unfiltered = cut_epochs(simulated_raw(1, seconds=30.0), onsets[rows.trial])
        with pytest.raises(ValueError, match="Filter the continuous recording alike"):
            processor(eeg=unfiltered, subject="sub-01")
    if cut.get("baseline") is None:
        with pytest.raises(ValueError, match=r"baseline of .* was subtracted"):
            processor(eeg=cut_epochs(raw, onsets[rows.trial], baseline=(None, 0)), subject="sub-01")


def test_bids_recordings(tmp_path):
    mne_bids = pytest.importorskip("mne_bids", reason="mne-bids is not installed")
    raw = simulated_raw(3, kind="mag", unit=1e-12)
    raw.info["line_freq"] = 50
    raw.save(tmp_path / "rec_meg.fif", overwrite=True, verbose="error")
    target = mne_bids.BIDSPath(root=tmp_path / "bids", subject="01", task="see", run="01", datatype="meg")
    raw = mne.io.read_raw_fif(tmp_path / "rec_meg.fif", verbose="error")
    onsets = np.round(1 + 1.3 * np.arange(20) + rng(7).uniform(0, 0.3, 20), 4)
    raw.set_annotations(mne.Annotations(onsets, 0.5, ["image"] * 20))
    mne_bids.write_raw_bids(raw, target, overwrite=True, verbose="error")
    table = next((tmp_path / "bids").rglob("*_events.tsv"))
    rows = [f"{onset}\t0.5\timage\tim{i:02d}" for i, onset in enumerate(onsets)]
    table.write_text("\n".join(["onset\tduration\ttrial_type\tstim_file", *rows]) + "\n")
    np.savez(
        tmp_path / "e.npz", ids=np.array([f"im{i:02d}" for i in range(20)]), embeds=1 + rng(5).normal(size=(20, 3))
    )
    entry = {"file": "bids", "kind": "bids", "subject": "sub-01", "run": "run-01", "task": "see"}
    entry |= {"image_column": "stim_file", "tmin": -0.1, "tmax": 0.4, "low_pass": 30.0, "decimate_to": 100.0}
    manifest = {
        "name": "mine", "modality": "meg", "recordings": [entry], "embeddings": {"file": "e.npz", "name": "net"},
        "splits": {"validation": 0.2, "test": 0.2}, **TERMS,
    }  # fmt: skip
    data, processor, model = ready(prepared(tmp_path, manifest))
    rows = rows_of(data, "train")
    filtered = raw.load_data(verbose="error").filter(None, 30.0, verbose="error")
    check_same(data, processor, model, cut_epochs(filtered, onsets[rows.trial]), "train", rows.index.to_numpy())


@pytest.mark.parametrize("zscore", ["train_only", "none"])
def test_betas_in_percent(tmp_path, zscore):
    raw = nsd_raw.build(tmp_path / "nsd")
    folder = prepare_nsd(raw, tmp_path / "set", session_zscore=zscore, average_repeats=False)
    data, processor, model = ready(folder)
    table = rows_of(data, "test")
    part = data.split("test")
    rows = np.flatnonzero((part.subjects == "sub-05") & (table.session == "ses-02"))
    stored = nibabel.load(nsd_raw.betas_path(raw, 5, 2))
    volumes = np.asanyarray(stored.dataobj)[..., table.trial[rows].to_numpy() - nsd_raw.PER_SESSION]
    mask = nibabel.load(folder / "masks" / "sub-05.nii.gz")
    given = {"mask": mask} | ({"session": "ses-02"} if zscore == "train_only" else {})
    percent = nibabel.Nifti1Image((volumes / 300).astype(np.float32), stored.affine)
    check_same(data, processor, model, percent, "test", rows, **given)
    check_same(
        data, processor, model, nibabel.Nifti1Image(volumes, stored.affine), "test", rows,
        unit="percent signal change x 300", **given,
    )  # fmt: skip
    turned = [image.as_reoriented(np.array([[0, -1], [1, 1], [2, 1]])) for image in (percent, mask)]
    other = np.roll(np.asanyarray(mask.dataobj).ravel(), 1).reshape(mask.shape)  # as many voxels
    for image, wrong in (turned, (percent, other)):
        with pytest.raises(ValueError, match="'mask' marks other voxels than those of 'sub-05'"):
            processor(fmri=image, subject="sub-05", **given | {"mask": wrong})
    if zscore == "none":
        return
    with pytest.raises(ValueError, match="there are none for 'sub-05' without a 'session'"):
        processor(fmri=percent, subject="sub-05", mask=mask)
    with pytest.raises(ValueError, match=r"none for session 'ses-09' of 'sub-05'.*scaling='fit'"):
        processor(fmri=percent, subject="sub-05", mask=mask, session="ses-09")
    with pytest.raises(ValueError, match="needs 20 recordings of a session at least, but got"):
        processor(fmri=percent, subject="sub-05", mask=mask, session="ses-09", scaling="fit")


def test_sets_of_other_voxels_do_not_fit_a_checkpoint(tmp_path):
    raw = nsd_raw.build(tmp_path / "nsd")
    _, processor, _ = ready(prepare_nsd(raw, tmp_path / "set"))
    region = nsd_raw.region_path(raw, 5)
    image = nibabel.load(region)
    shifted = np.roll(np.asanyarray(image.dataobj).ravel(), 1).reshape(image.shape)  # as many voxels
    nibabel.save(nibabel.Nifti1Image(shifted, image.affine), region)
    other = PreparedSet.open(prepare_nsd(raw, tmp_path / "other"))
    with pytest.raises(DataError, match=r"the model does not fit '.*': the voxels of sub-05 lie in other places"):
        check_preparation(processor, other, "the model")
    check_preparation(processor, PreparedSet.open(tmp_path / "set"), "the model")


def test_masks_of_own_recordings(tmp_path):
    """The places are kept; two masks of a subject that mark other voxels are refused."""
    manifest, _, mask = series_manifest(tmp_path)
    _, processor, _ = ready(prepared(tmp_path, manifest))
    np.testing.assert_array_equal(processor.statistics_of("fmri")["sub-01/voxels"], np.argwhere(mask))
    volumes = nibabel.Nifti1Image(rng(0).random((*mask.shape, 2)), np.eye(4))
    with pytest.raises(ValueError, match="'mask' marks other voxels"):
        processor(fmri=volumes, subject="sub-01", mask=np.flip(mask), unit="prepared")
    np.save(tmp_path / "other.npy", np.flip(mask).copy())
    manifest["recordings"][1]["mask"] = "other.npy"
    with pytest.raises(DataError, match=r"'run1.nii.gz': its mask 'other.npy' marks other voxels than an earlier one"):
        prepared(tmp_path, manifest, overwrite=True)


def test_a_new_session_can_be_fitted(tmp_path):
    """Oracle: z-scores of the trials themselves, by numpy."""
    raw = nsd_raw.build(tmp_path / "nsd")
    _, processor, _ = ready(prepare_nsd(raw, tmp_path / "set"))
    betas = rng(0).normal(2.0, 3.0, size=(25, 11))
    found = processor(fmri=betas, subject="sub-05", session="new", unit="percent signal change", scaling="fit")
    expected = (betas - betas.mean(0)) / betas.std(0)
    np.testing.assert_allclose(found["fmri_values"], expected, rtol=1e-5, atol=1e-6)


def test_arrays_in_another_unit(tmp_path):
    manifest, arrays = patterns(tmp_path, "eeg", unit="uV")
    data, processor, model = ready(prepared(tmp_path, manifest))
    rows = rows_of(data, "train")
    values = arrays["betas"][rows.trial.to_numpy()]
    check_same(data, processor, model, values * 1e-6, "train", rows.index.to_numpy(), unit="V")
    with pytest.raises(ValueError, match="in 'T', but the model's were in 'uV'"):
        processor(eeg=values, subject="sub-01", unit="T")
