"""The simulated THINGS-EEG2: formats and design of the real one, same bytes for one seed, and the way to a report."""

import json
import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from folder_contents import contents
from neural_clip.corpora.things_eeg2 import prepare
from neural_clip.prepared.facts import read_metadata
from neural_clip.simulation.presets import get_preset
from neural_clip.simulation.things_eeg2_twin import write
from raw_to_score import scored

TINY = get_preset("tiny")
MINI = replace(TINY, things_eeg2=replace(TINY.things_eeg2, subjects=(1,)))
SIZES = MINI.things_eeg2
TARGET = 99999

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twin") / "things_eeg2"
    write(folder, MINI, 3)
    return folder


def test_one_seed_gives_one_corpus(twin, tmp_path):
    write(tmp_path / "again", MINI, 3)
    write(tmp_path / "other", MINI, 4)
    first, again, other = contents(twin), contents(tmp_path / "again"), contents(tmp_path / "other")
    assert first == again
    unchanged = [name for name in first if first[name] == other.get(name)]
    assert unchanged == ["preprocessed_eeg/info.json"]


def test_raw_files_have_the_form_and_the_design_of_the_real_ones(twin):
    shown = {}
    for session in range(1, 5):
        for part in ("training", "test"):
            path = twin / "raw_data" / "sub-01" / f"ses-{session:02d}" / f"raw_eeg_{part}.npy"
            content = np.load(path, allow_pickle=True).item()
            assert list(content) == ["raw_eeg_data", "ch_names", "ch_types", "sfreq", "highpass", "lowpass"]
            values, names = content["raw_eeg_data"], content["ch_names"]
            assert values.dtype == np.float64 and len(values) == len(names) == 64 and names[-1] == "stim"
            assert 1e-6 < values[:-1].std() < 1e-4  # V
            onsets = np.flatnonzero(values[-1])
            assert set(np.diff(onsets).tolist()) >= {200} and np.diff(onsets).min() == 200
            shown[session, part] = values[-1][onsets].astype(int)
    for (_, part), codes in shown.items():
        counts = Counter(codes[codes != TARGET].tolist())
        test = part == "test"
        assert (codes == TARGET).sum() == (SIZES.test_targets if test else SIZES.train_targets)
        assert sum(counts.values()) == (SIZES.test_shown if test else SIZES.train_shown)
        assert min(counts.values()) == (SIZES.test_repeats if test else SIZES.train_repeats)
        assert len(counts) == (SIZES.n_test_images if test else SIZES.n_concepts * SIZES.images_per_concept // 2)
    for pair in ((1, 2), (3, 4)):
        first, second = ({int(c) for c in shown[n, "training"] if c != TARGET} for n in pair)
        assert not first & second and first | second == set(range(1, 33))


def test_releases_have_the_containers_and_types_of_the_real_ones(twin):
    shapes = {"training": (32, 4), "test": (4, 12)}
    for part, name in (("training", "train"), ("test", "test")):
        path = twin / "preprocessed_data" / "sub-01" / f"preprocessed_eeg_{part}.npy"
        official = np.load(path, allow_pickle=True).item()
        assert path.read_bytes().startswith(b"\x93NUMPY")
        assert official["preprocessed_eeg_data"].shape == (*shapes[part], 17, 100) and len(official["times"]) == 100
        path = twin / "Preprocessed_data_250Hz" / "sub-01" / f"preprocessed_eeg_{part}.npy"
        nice = pickle.loads(path.read_bytes())
        assert path.read_bytes().startswith(b"\x80\x04")
        assert nice["preprocessed_eeg_data"].shape == (*shapes[part], 63, 250) and len(nice["times"]) == 300
        ubp = torch.load(twin / "Preprocessed_data_250Hz_whiten" / "sub-01" / f"{name}.pt", weights_only=False)
        assert ubp["eeg"].dtype == np.float16 and ubp["eeg"].shape == nice["preprocessed_eeg_data"].shape
        assert ubp["session"].shape == ubp["img"].shape == ubp["label"].shape == ubp["text"].shape == shapes[part]
        bridge = np.load(twin / "preprocessed_eeg" / "sub-01" / f"{name}.npy")
        assert bridge.dtype == np.float32 and bridge.shape[1] == (1 if part == "test" else SIZES.images_per_concept)
        # The same values, of which NICE has the repeats in another order.
        order = np.sort(nice["preprocessed_eeg_data"][0, :, 3, 9])
        assert np.allclose(order, np.sort(bridge.reshape(-1, *bridge.shape[2:])[0, :, 3, 9]), atol=1e-5)
        assert np.allclose(order, np.sort(ubp["eeg"][0, :, 3, 9].astype(float)), atol=1e-2)
    info = json.loads((twin / "preprocessed_eeg" / "info.json").read_text())
    assert info["normalization"] == "mvnn" and len(info["times"]) == 300


@pytest.mark.parametrize("route", ["raw", "official", "nice", "ubp", "neurobridge"])
def test_every_route_reads_the_twin(twin, tmp_path, route):
    facts = read_metadata(prepare(twin, tmp_path / "set", route=route))
    assert facts["splits"]["test"] == {"rows": 4 * 12, "images": 4, "concepts": 4}
    assert facts["splits"]["validation"]["concepts"] == 2 and facts["splits"]["train"]["concepts"] == 14
    assert sum(facts["splits"][name]["rows"] for name in ("train", "validation")) == 32 * 4
    assert facts["simulated"]["simulated"] is True and "SIMULATED" in facts["source"]


def test_from_simulated_files_to_a_report(tmp_path):
    """Unseen concepts are decoded above chance from single trials of a person who is trained on."""
    larger = replace(
        SIZES, n_concepts=40, images_per_concept=5, n_test_images=20, test_repeats=4, train_shown=210,
        train_targets=10, test_shown=85, test_targets=5,
    )  # fmt: skip
    write(tmp_path / "raw", replace(TINY, things_eeg2=larger), 0, releases=False)
    score = scored(tmp_path, f"things_eeg2 --raw-dir {tmp_path}/raw")
    assert score["two_way_interval"][0] > 0.5
