"""`docs/guarantees.md`: its calls do what it says, and its tests exist."""

import re
import subprocess
import sys

import mne
import nibabel
import numpy as np
import pytest
import torch

import nsd_raw
from custom_raw import eeg_manifest, prepared
from neural_clip import EegConfig, FmriConfig, NeuralClipConfig, NeuralClipProcessor
from neural_clip.corpora.nsd import prepare as prepare_nsd
from neural_clip.prepared.reader import PreparedSet
from paths import REPOSITORY

PAGE = (REPOSITORY / "docs" / "guarantees.md").read_text(encoding="utf-8")
CALLS = re.findall(r"^\| `(\w*processor\(.+\))` \| (.+?) \|$", PAGE, flags=re.M)
ROWS = re.findall(r"^\| .+ \| .+ \| (`(?:tests|studies)/.+::.+`) \|$", PAGE, flags=re.M)
PROMISES = [promise for row in ROWS for promise in re.findall(r"`([^`]+)`", row)]  # a row may name several tests


def processor_of(data):
    """As training makes it."""
    facts = data.facts
    if facts.modality == "fmri":
        config = NeuralClipConfig(fmri_config=FmriConfig(subjects=facts.subjects, n_voxels=facts.n_voxels))
    else:
        shape = {key: getattr(facts, key) for key in ("n_chans", "n_times", "sfreq", "tmin", "ch_names")}
        config = NeuralClipConfig(eeg_config=EegConfig(subjects=facts.subjects, **shape))
    parts = {facts.modality: data.preparation}, {facts.modality: data.statistics}
    return NeuralClipProcessor.from_config(config, None, *parts), NeuralClipProcessor.from_config(config)


def in_microvolts(epochs):
    return mne.EpochsArray(epochs.get_data() * 1e6, epochs.info, tmin=epochs.tmin, verbose="error")


def with_bad(epochs, name):
    epochs = epochs.copy()
    epochs.info["bads"] = [name]
    return epochs


def moved(mask):
    return nibabel.Nifti1Image(np.asanyarray(mask.dataobj), np.diag([2, 2, 2, 1]) @ mask.affine)


def as_stored(betas):
    return nibabel.Nifti1Image(np.round(betas.get_fdata() * 300).astype(np.int16), betas.affine)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the calls of the page name, and the prepared rows by modality."""
    from datasets import concatenate_datasets

    folder = tmp_path_factory.mktemp("epochs")
    manifest, _ = eeg_manifest(folder, scaling="train")
    data = PreparedSet.open(prepared(folder, manifest))
    splits = [data.split(split, ["sub-02"]).recordings for split in ("train", "validation", "test")]
    rows = concatenate_datasets(splits).sort("trial").with_format("numpy")
    epochs = mne.read_epochs(folder / "2-epo.fif", verbose="error")
    processor, old_processor = processor_of(data)

    raw = nsd_raw.build(tmp_path_factory.mktemp("nsd") / "raw")
    scans = PreparedSet.open(prepare_nsd(raw, raw.parent / "set", average_repeats=False))
    part = scans.split("test", ["sub-05"])
    table = part.labels("trial", "session")
    used = np.flatnonzero(table.session == "ses-02")
    stored = nibabel.load(nsd_raw.betas_path(raw, 5, 2))
    volumes = np.asanyarray(stored.dataobj)[..., table.trial[used].to_numpy() - nsd_raw.PER_SESSION]
    return {
        "processor": processor, "old_processor": old_processor, "rows": rows, "epochs": epochs,
        "fmri_processor": processor_of(scans)[0], "mask": nibabel.load(scans.folder / "masks" / "sub-05.nii.gz"),
        "betas": nibabel.Nifti1Image((volumes / 300).astype(np.float32), stored.affine),
        "expected": {"eeg": np.stack(rows["eeg"][:]), "fmri": np.stack([part.values([i])[0] for i in used])},
        "np": np, "torch": torch, "mne": mne, "in_microvolts": in_microvolts, "with_bad": with_bad, "moved": moved,
        "as_stored": as_stored,
    }  # fmt: skip


@pytest.mark.parametrize(("call", "outcome"), CALLS, ids=[call for call, _ in CALLS])
def test_what_the_page_says_happens(names, call, outcome):
    with mne.use_log_level("error"):
        if outcome.startswith("refused: "):
            with pytest.raises(ValueError, match=re.escape(outcome.removeprefix("refused: "))):
                eval(call, names)
            return
        found = eval(call, names)
    modality = "fmri" if "fmri_values" in found else "eeg"
    if outcome == "one recording":
        assert len(found[f"{modality}_values"]) == 1
        return
    assert outcome == "the prepared rows"
    expected = names["expected"][modality]
    np.testing.assert_allclose(found[f"{modality}_values"], expected, rtol=1e-4, atol=1e-4)


def test_the_page_has_calls_and_promises():
    assert len(CALLS) == PAGE.count("processor(") > 40
    listed = PAGE.split("## Promises")[1].split("\n## The common tests")[0].count("::")
    assert sum(promise.count("::") for promise in PROMISES) == listed > 100


@pytest.mark.slow
def test_every_promise_has_its_test():
    files = sorted({promise.split("::")[0] for promise in PROMISES})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    known = set(listed) | {line.split("[")[0] for line in listed}
    assert [promise for promise in PROMISES if promise not in known] == []
