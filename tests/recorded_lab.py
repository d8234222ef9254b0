"""A small laboratory: raw files of EEG, MEG and fMRI, the data sets prepared from them, and a checkpoint of these."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from continuous_raw import simulated_raw
from custom_raw import TERMS, rng, write_manifest
from edf_files import write_edf
from neural_clip import EegConfig, FmriConfig, MegConfig, NeuralClipConfig, NeuralClipModel, NeuralClipProcessor
from neural_clip.corpora.custom.build import prepare
from neural_clip.prepared.reader import PreparedSet
from neural_clip.targets.embed_images import embed_images
from neural_clip.targets.encoder import ImageEncoder
from neural_clip.targets.identity import identity_of
from neural_clip.targets.tiny_clip import TINY_CLIP

N = 20  # images, each shown once to each person
SFREQ = 200.0  # Hz, of the raw files
SPLITS = {"validation": 0.2, "test": 0.3}


def onsets():
    return 1 + 1.3 * np.arange(N)  # at samples


def write_raw(root):
    """`rec.edf`, `rec_raw.fif` with triggers, `betas.nii.gz` with a mask, tables of events, and pictures."""
    import mne
    import nibabel

    (root / "stimuli").mkdir()
    for number in range(N):
        pixels = rng(number).integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(root / f"stimuli/im{number:02d}.png")
    lines = ["onset\tduration\ttrial_type\tstim_file"]
    for number, onset in enumerate(onsets()):
        lines += [f"{onset:.4f}\t0.5\timage\tim{number:02d}.png", f"{onset + 0.6:.4f}\t0\tpress\tn/a"]
    (root / "events.tsv").write_text("\n".join(lines) + "\n")
    values = np.round(simulated_raw(1, sfreq=SFREQ).get_data() * 1e6).astype(int)
    write_edf(root / "rec.edf", list(zip("ABCD", values, strict=True)), 30)
    names = [f"MEG{number}" for number in range(4)]
    raw = simulated_raw(2, names, "mag", sfreq=SFREQ, unit=1e-13)
    triggers = np.zeros((1, raw.n_times))
    for onset in onsets():
        triggers[0, round(onset * SFREQ) : round(onset * SFREQ) + 10] = 5
        triggers[0, round((onset + 0.6) * SFREQ) : round((onset + 0.6) * SFREQ) + 10] = 9
    info = mne.create_info(["STI 014"], SFREQ, "stim", verbose="error")
    raw.add_channels([mne.io.RawArray(triggers, info, verbose="error")], force_update_info=True)
    raw.save(root / "rec_raw.fif", overwrite=True, verbose="error")
    mask, affine = rng(9).random((3, 4, 2)) > 0.5, np.diag([2.0, 2.0, 2.0, 1.0])
    betas = rng(3).normal(size=(3, 4, 2, N)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), affine), root / "mask.nii.gz")
    nibabel.save(nibabel.Nifti1Image(betas, affine), root / "betas.nii.gz")
    (root / "shown.csv").write_text("image_id\n" + "".join(f"im{number:02d}.png\n" for number in range(N)))


def manifests():
    """By modality."""
    cut = {
        "kind": "continuous", "subject": "sub-01", "events": "events.tsv", "image_column": "stim_file", "tmin": -0.1,
        "keep": {"trial_type": ["image"]}, "tmax": 0.4,
    }  # fmt: skip
    recordings = {
        "eeg": cut | {"file": "rec.edf", "low_pass": 30.0, "decimate_to": 100.0, "baseline": [None, 0.0]},
        "meg": cut | {"file": "rec_raw.fif", "high_pass": 0.5, "resample": 80.0},
        "fmri": {"file": "betas.nii.gz", "kind": "patterns", "subject": "sub-01", "events": "shown.csv",
                 "mask": "mask.nii.gz"},
    }  # fmt: skip
    shared = {"images": {"folder": "stimuli"}, "splits": SPLITS, "scaling": "train", **TERMS}
    return {
        name: {"name": name, "modality": name, "recordings": [entry], **shared}
        | ({"unit": "percent signal change", "roi": "all"} if name == "fmri" else {})
        for name, entry in recordings.items()
    }


def save_model(folder, data, seed=0):
    """A checkpoint of all three modalities with random weights."""
    torch.manual_seed(seed)
    keys = ("n_chans", "n_times", "sfreq", "tmin", "ch_names")
    sensors = {
        name: {key: getattr(data[name].facts, key) for key in keys}
        | {"subjects": ["sub-01"], "encoder_type": "linear"}
        for name in ("eeg", "meg")
    }
    sizes = dict(data["fmri"].facts.n_voxels)
    config = NeuralClipConfig(
        eeg_config=EegConfig(**sensors["eeg"]), meg_config=MegConfig(**sensors["meg"]),
        fmri_config=FmriConfig(subjects=["sub-01"], n_voxels=sizes, alignment_size=8, hidden_size=8),
        **identity_of(data["eeg"].facts).as_config(),
    )  # fmt: skip
    NeuralClipModel(config).save_pretrained(folder)
    NeuralClipProcessor.from_config(
        config, ImageEncoder(TINY_CLIP, device="cpu").processor,
        {name: opened.preparation for name, opened in data.items()},
        {name: opened.statistics for name, opened in data.items()},
    ).save_pretrained(folder)  # fmt: skip
    return folder


def make_lab(root):
    """Raw files in `root`, prepared data sets by modality, and a checkpoint of all three."""
    root = Path(root)
    write_raw(root)
    sets = {}
    for name, content in manifests().items():
        sets[name] = prepare(write_manifest(root, content), root / "sets" / name)
        embed_images(sets[name], TINY_CLIP)
    data = {name: PreparedSet.open(folder) for name, folder in sets.items()}
    return SimpleNamespace(root=root, sets=sets, data=data, checkpoint=save_model(root / "checkpoint", data))
