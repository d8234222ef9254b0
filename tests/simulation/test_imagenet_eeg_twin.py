"""The simulated ImageNetEEG corpus: format of the release, known signal inside, same bytes for one seed."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import f_oneway

from folder_contents import contents
from neural_clip.corpora.imagenet_eeg import build as imagenet_eeg
from neural_clip.corpora.imagenet_eeg.options import IMAGE_DIR
from neural_clip.errors import DataError
from neural_clip.simulation import imagenet_eeg_twin
from neural_clip.simulation.presets import get_preset

PRESET = get_preset("tiny")
TWIN = imagenet_eeg_twin


def load(raw_dir, name):
    return torch.load(raw_dir / f"{name}.pth", weights_only=True)


def test_one_seed_gives_the_same_bytes(raw_dir, tmp_path):
    imagenet_eeg_twin.write(tmp_path / "other place", PRESET, seed=3)
    assert contents(raw_dir) == contents(tmp_path / "other place")
    imagenet_eeg_twin.write(tmp_path / "other seed", PRESET, seed=4)
    changed, same = contents(tmp_path / "other seed"), contents(raw_dir)
    for name in ("eeg_14_70_std.pth", "block_splits_by_image_all.pth", "SIMULATED.json"):
        assert changed[name] != same[name]


def test_presets_of_the_demos_size_write_one_band(tmp_path):
    preset = replace(get_preset("realistic"), eeg=replace(PRESET.eeg, images_per_class=3, n_chans=2))
    imagenet_eeg_twin.write(tmp_path, preset, seed=3)
    assert {path.name for path in tmp_path.glob("eeg_[0-9]*_std.pth")} == {"eeg_14_70_std.pth"}
    assert json.loads((tmp_path / "SIMULATED.json").read_text())["preset"] == "realistic"


def test_files_look_like_the_release(raw_dir):
    raw = load(raw_dir, "eeg_signals_raw_with_mean_std")
    assert set(raw) == {"dataset", "labels", "images", "means", "stddevs"}
    assert raw["labels"] != sorted(raw["labels"]) and len(raw["images"]) == 48
    for name in ("eeg_5_95_std", "eeg_14_70_std", "eeg_55_95_std"):
        content = load(raw_dir, name)
        assert set(content) == {"dataset", "labels", "images"} and content["images"] == raw["images"]
        for trial, other in zip(content["dataset"], raw["dataset"], strict=True):
            assert set(trial) == {"eeg", "image", "label", "subject"}
            assert trial["eeg"].dtype == torch.float32 and trial["eeg"].shape == other["eeg"].shape
            assert trial["eeg"].shape[0] == 16 and 491 <= trial["eeg"].shape[1] <= 530
            assert [trial[key] for key in ("image", "label", "subject")] == [
                other[key] for key in ("image", "label", "subject")
            ]
            assert content["images"][trial["image"]].split("_")[0] == content["labels"][trial["label"]]
    subjects = [trial["subject"] for trial in raw["dataset"]]
    assert len(subjects) == PRESET.eeg.n_trials == 95 and len({len(t["eeg"][0]) for t in raw["dataset"]}) > 10
    changes = sum(a != b for a, b in pairwise(subjects))
    assert changes == 1, "trials should be grouped by subject"


def test_splits_are_six_and_image_disjoint(raw_dir):
    trials = load(raw_dir, "eeg_14_70_std")["dataset"]
    splits = load(raw_dir, "block_splits_by_image_all")["splits"]
    assert len(splits) == 6
    for split in splits:
        assert sorted(i for part in split.values() for i in part) == list(range(95))
        images = [{trials[i]["image"] for i in split[name]} for name in ("train", "val", "test")]
        assert sum(map(len, images)) == len(set.union(*images)) == 48


def test_standardised_files_are_band_passed(raw_dir):
    content = load(raw_dir, "eeg_14_70_std")
    values = torch.cat([trial["eeg"] for trial in content["dataset"] if trial["subject"] == 1], dim=1).numpy()
    np.testing.assert_allclose(values.mean(1), 0, atol=1e-3)
    np.testing.assert_allclose(values.std(1), 1, atol=1e-3)
    trials = np.stack([trial["eeg"][:, :480].numpy() for trial in content["dataset"]])
    power = (np.abs(np.fft.rfft(trials * np.hanning(480))) ** 2).mean((0, 1))
    frequencies = np.fft.rfftfreq(480, 1e-3)
    inside = power[(frequencies > 16) & (frequencies < 65)].mean()
    assert power[frequencies < 8].mean() < 0.05 * inside and power[frequencies > 100].mean() < 0.05 * inside


def test_recordings_follow_the_clean_signal(tmp_path, monkeypatch):
    """With little noise and no jitter, every trial is the model's response to the image that the file names."""
    from neural_clip.simulation import generative, latent_space

    monkeypatch.setattr(generative, "calibrated_scale", lambda *_: 0.1)
    quiet = replace(PRESET.eeg.dials, latency_jitter_s=0, gain_jitter=0, induced=0, artefact_rate=0)
    sizes = replace(PRESET.eeg, dials=quiet)
    imagenet_eeg_twin.write(tmp_path / "raw", replace(PRESET, eeg=sizes), seed=3)
    content = load(tmp_path / "raw", "eeg_signals_raw_with_mean_std")
    folder = tmp_path / "raw" / IMAGE_DIR
    pixels = [np.asarray(Image.open(folder / name.split("_")[0] / f"{name}.JPEG")) for name in content["images"]]
    z = latent_space.latents(latent_space.image_embeds(pixels))
    model = generative.SensorModel(sizes, seed=3)
    for index, subject in enumerate(sizes.subjects):
        trials = [trial for trial in content["dataset"] if trial["subject"] == subject]
        recorded = np.stack([trial["eeg"][:, :480].numpy() for trial in trials])
        clean, _ = model.signal(index, z[[trial["image"] for trial in trials]], np.random.default_rng(0), n_times=480)
        # what is particular to an image: without the response that all images share
        recorded = (recorded - recorded.mean(0)).reshape(len(trials), -1)
        clean = (clean - clean.mean(0)).reshape(len(trials), -1)
        similarity = np.corrcoef(recorded, clean)[: len(trials), len(trials) :]
        assert np.diag(similarity).min() > 0.8
        assert (similarity.argmax(1) == np.arange(len(trials))).all()


def test_block_drift_gives_blocks_away(tmp_path):
    """With the dial up, the mean of a raw trial tells its class; in the default it does not."""

    def separation(drift, folder):
        dials = replace(PRESET.eeg.dials, block_drift=drift, artefact_rate=0)
        imagenet_eeg_twin.write(folder, replace(PRESET, eeg=replace(PRESET.eeg, dials=dials)), seed=1)
        trials = [t for t in load(folder, "eeg_signals_raw_with_mean_std")["dataset"] if t["subject"] == 1]
        means = np.stack([trial["eeg"].mean(1).numpy() for trial in trials])
        labels = np.array([trial["label"] for trial in trials])
        within = np.mean([means[labels == label].var(0).mean() for label in set(labels)])
        return np.var([means[labels == label].mean(0) for label in set(labels)], axis=0).mean() / within

    assert separation(2.0, tmp_path / "drift") > 5 * separation(0.0, tmp_path / "none")


def test_stamp_and_prepare(raw_dir, tmp_path):
    stamp = json.loads((raw_dir / "SIMULATED.json").read_text())
    assert stamp["simulated"] is True and stamp["preset"] == "tiny" and stamp["seed"] == 3 and stamp["ceiling"]
    facts = json.loads((imagenet_eeg.prepare(raw_dir, tmp_path / "out") / "neural_clip.json").read_text())
    assert facts["simulated"] == stamp and facts["subjects"] == ["sub-01", "sub-02"]
    assert sum(split["rows"] for split in facts["splits"].values()) == 95
    assert [split["images"] for split in facts["splits"].values()] == [32, 8, 8]


def test_too_many_classes_are_refused(tmp_path):
    preset = replace(PRESET, eeg=replace(PRESET.eeg, n_classes=41))
    with pytest.raises(DataError, match="'n_classes'"):
        imagenet_eeg_twin.write(tmp_path / "raw", preset, seed=0)


@pytest.mark.parametrize(("block_drift", "leaks"), [(0.0, False), (1.0, True)])
def test_noise_level_tells_the_class_only_in_the_block_design(block_drift, leaks, tmp_path):
    """Without any response to images, slow changes of the noise may follow the class only if blocks are asked for."""
    dials = replace(PRESET.eeg.dials, evoked=0.0, induced=0.0, nonstationarity=1.0, block_drift=block_drift)
    preset = replace(PRESET, eeg=replace(PRESET.eeg, dials=dials))
    imagenet_eeg_twin.write(tmp_path / "raw", preset, seed=1)
    trials = load(tmp_path / "raw", "eeg_signals_raw_with_mean_std")["dataset"]
    p_values = []
    for subject in (1, 2):
        rows = [trial for trial in trials if trial["subject"] == subject]
        power = np.array([np.log(trial["eeg"].diff(dim=1).var().item()) for trial in rows])
        labels = np.array([trial["label"] for trial in rows])
        p_values.append(f_oneway(*[power[labels == label] for label in np.unique(labels)]).pvalue)
    assert (min(p_values) < 1e-3) if leaks else (min(p_values) > 0.005)
