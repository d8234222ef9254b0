"""Valid inputs of every kind that the package reads, as small as they can be; all recordings are simulated."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from attack.targets import command
from continuous_raw import simulated_raw, write_brainvision
from custom_raw import TERMS, eeg_manifest, patterns, rng, series_manifest, write_manifest
from edf_files import write_edf
from recorded_lab import make_lab

N_EVENTS = 20
COUNTS = {"train": 20, "validation": 8, "test": 12}
MODEL = {
    "eeg": {"hidden_size": 8, "temporal_kernel_size": 3, "n_windows": 5, "dropout": 0.1},
    "fmri": {"alignment_size": 16, "num_hidden_layers": 0, "dropout": 0.1},
}
TRAINING = {
    "output_dir": "trained", "num_train_epochs": 2, "per_device_train_batch_size": 32, "learning_rate": 0.003,
    "seed": 5, "use_cpu": True, "disable_tqdm": True, "save_total_limit": 2,
}  # fmt: skip


def epochs(folder: Path, seed: int) -> None:
    """Files of `mne.Epochs` and a folder of pictures."""
    write_manifest(folder, eeg_manifest(folder)[0])


def npz(folder: Path, seed: int) -> None:
    """Patterns, what was shown, and pictures in one `.npz`."""
    write_manifest(folder, patterns(folder)[0])


def npy(folder: Path, seed: int) -> None:
    """Patterns as `.npy`, what was shown as CSV."""
    manifest, arrays = patterns(folder)
    np.save(folder / "betas.npy", arrays["betas"])
    (folder / "shown.csv").write_text(
        "image_id,age\n" + "".join(f"image-{i:05d},{i}\n" for i in range(len(arrays["betas"])))
    )
    manifest["recordings"] = [{"file": "betas.npy", "kind": "patterns", "subject": "sub-01", "events": "shown.csv"}]
    write_manifest(folder, manifest)


def mat(folder: Path, seed: int) -> None:
    """Patterns of EEG in a MAT-file, compressed."""
    import scipy.io

    manifest, arrays = patterns(folder, "eeg", unit="z")
    scipy.io.savemat(folder / "betas.mat", {key: arrays[key] for key in ("betas", "shown")}, do_compression=True)
    manifest["recordings"][0]["file"] = "betas.mat"
    write_manifest(folder, manifest)


def mat_73(folder: Path, seed: int) -> None:
    """The same as MATLAB 7.3 writes it: HDF5."""
    import h5py

    manifest, arrays = patterns(folder, "eeg", unit="z")
    with h5py.File(folder / "betas.mat", "w") as file:
        for key in ("betas", "shown"):
            file.create_dataset(key, data=arrays[key].T)
    manifest["recordings"][0]["file"] = "betas.mat"
    write_manifest(folder, manifest)


def series(folder: Path, seed: int) -> None:
    """Runs of fMRI as NIfTI, compressed and not, with events and a mask."""
    import nibabel

    manifest = series_manifest(folder)[0]
    for number in (1, 3):
        nibabel.save(nibabel.load(folder / f"run{number}.nii.gz"), folder / f"run{number}.nii")
        (folder / f"run{number}.nii.gz").unlink()
        manifest["recordings"][number]["file"] = f"run{number}.nii"
    write_manifest(folder, manifest)


def places(folder: Path, seed: int) -> None:
    """Patterns of two people whose voxels have places: of one as `.npy`, of the other as a volume within a mask."""
    import nibabel

    manifest, arrays = patterns(folder)
    mask, affine = np.zeros((2, 2, 2), np.uint8), np.diag([2.0, 2.0, 2.0, 1.0])
    mask.ravel()[:5] = 1
    np.save(folder / "places.npy", rng(20 + seed).uniform(-70, 70, (5, 3)))
    volume = rng(30 + seed).uniform(-70, 70, (2, 2, 2, 3)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, affine), folder / "places.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask, affine), folder / "mask.nii.gz")
    betas = np.zeros((2, 2, 2, len(arrays["betas"])), np.float32)
    betas[mask > 0] = arrays["betas"].T + 1
    nibabel.save(nibabel.Nifti1Image(betas, affine), folder / "betas.nii.gz")
    (folder / "shown.csv").write_text("image_id\n" + "".join(f"image-{i - 1:05d}\n" for i in arrays["shown"]))
    second = {"file": "betas.nii.gz", "kind": "patterns", "subject": "sub-02", "events": "shown.csv"}
    manifest["recordings"].append(second | {"mask": "mask.nii.gz"})
    manifest["places"] = {"space": "MNI152", "files": {"sub-01": "places.npy", "sub-02": "places.nii.gz"}}
    write_manifest(folder, manifest)


def _continuous(folder: Path, file: str) -> None:
    """Manifest and events of one continuous recording."""
    names = [f"im{i:02d}" for i in range(N_EVENTS)]
    lines = ["onset\tduration\ttrial_type\tstim_file"]
    for i, name in enumerate(names):
        lines += [f"{1 + 1.3 * i:.4f}\t0.5\timage\t{name}", f"{1.6 + 1.3 * i:.4f}\t0\tpress\tn/a"]
    (folder / "events.tsv").write_text("\n".join(lines) + "\n")
    np.savez(folder / "vectors.npz", ids=np.array(names), embeds=1 + rng(5).normal(size=(N_EVENTS, 3)))
    recording = {
        "file": file, "kind": "continuous", "subject": "sub-01", "events": "events.tsv", "image_column": "stim_file",
        "keep": {"trial_type": ["image"]}, "tmin": -0.1, "tmax": 0.4,
    }  # fmt: skip
    manifest = {
        "name": "mine", "modality": "eeg", "recordings": [recording], **TERMS, "scaling": "none",
        "embeddings": {"file": "vectors.npz", "name": "net"}, "splits": {"validation": 0.2, "test": 0.2},
    }  # fmt: skip
    write_manifest(folder, manifest)


def fif(folder: Path, seed: int) -> None:
    """A continuous recording of mne."""
    simulated_raw(sfreq=100.0).save(folder / "rec_raw.fif", overwrite=True, verbose="error")
    _continuous(folder, "rec_raw.fif")


def brainvision(folder: Path, seed: int) -> None:
    """A recording of BrainVision: header, markers, samples."""
    write_brainvision(folder, simulated_raw(sfreq=100.0))
    _continuous(folder, "rec.vhdr")


def edf(folder: Path, seed: int, name: str = "rec.edf") -> None:
    """A recording in EDF."""
    values = np.round(simulated_raw(sfreq=100.0).get_data() * 1e6).astype(int)
    write_edf(folder / name, list(zip("ABCD", values, strict=True)), 30)
    _continuous(folder, name)


def bdf(folder: Path, seed: int) -> None:
    """A recording in BDF."""
    edf(folder, seed, "rec.bdf")


def ctf(folder: Path, seed: int) -> None:
    """A recording of CTF: a folder of files."""
    from neural_clip.simulation.ctf import CtfChannel, write_ds

    up = (0.0, 0.0, 1.0)
    channels = [CtfChannel("SCLK01-177", "clock"), CtfChannel("BG1-1609", "ref_mag", (0.0, 0.05, 0.3), up)]
    channels += [CtfChannel("G11-1609", "ref_grad", (0.05, 0.0, 0.3), up)]
    channels += [CtfChannel(f"MLC1{i}-1609", "meg", (0.01 * i, 0.0, 0.1), up) for i in range(4)]
    values = simulated_raw(sfreq=100.0, unit=1e-12, names=list("ABCDEF")).get_data()
    write_ds(folder / "rec.ds", np.vstack([np.arange(1, 3001) / 100, values]), channels, 100.0, trial_samples=500)
    _continuous(folder, "rec.ds")
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
    write_manifest(folder, manifest | {"modality": "meg"})


def bids(folder: Path, seed: int) -> None:
    """MEG as BIDS."""
    import mne
    import mne_bids

    (folder / "events").mkdir()
    _continuous(folder, "bids")
    raw = simulated_raw(sfreq=100.0, kind="mag", unit=1e-12)
    raw.info["line_freq"] = 50
    raw.set_annotations(mne.Annotations(np.arange(1, 21), 0.5, ["image"] * 20))
    raw.save(folder / "see_meg.fif", overwrite=True, verbose="error")
    path = mne_bids.BIDSPath(root=folder / "bids", subject="01", session="a", task="see", run="01", datatype="meg")
    mne_bids.write_raw_bids(
        mne.io.read_raw_fif(folder / "see_meg.fif", verbose="error"), path, overwrite=True, verbose="error"
    )
    (folder / "events.tsv").rename(next((folder / "bids").rglob("*_events.tsv")))
    (folder / "see_meg.fif").unlink()
    (folder / "events").rmdir()
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
    changes = {"kind": "bids", "session": "ses-a", "run": "run-01", "task": "see"}
    recording = {key: value for key, value in manifest["recordings"][0].items() if key != "events"} | changes
    write_manifest(folder, manifest | {"modality": "meg", "recordings": [recording]})


def nsd(folder: Path, seed: int) -> None:
    """NSD with betas as NIfTI of one person, and HDF5 of the other."""
    import nsd_raw

    nsd_raw.build(folder / "nsd")
    for subject in nsd_raw.SUBJECTS:
        nsd_raw.write_transform(folder / "nsd", subject)
    nsd_raw.to_hdf5(folder / "nsd", 5)


def imagenet_eeg(folder: Path, seed: int) -> None:
    """ImageNetEEG."""
    import imagenet_eeg_raw

    imagenet_eeg_raw.build(folder / "imagenet")


def things_meg(folder: Path, seed: int) -> None:
    """THINGS-MEG, raw and epochs of the derivative."""
    from neural_clip.simulation.presets import get_preset
    from neural_clip.simulation.things_meg_twin import write

    tiny = get_preset("tiny")
    sizes = {"subjects": (1,), "n_concepts": 6, "n_test_images": 2, "n_catch_per_session": 2, "n_sessions": 2}
    sizes |= {"n_runs": 1, "n_chans": 4, "soa_s": (1.25, 1.70)}
    write(folder / "things", replace(tiny, meg=replace(tiny.meg, **sizes)), 3 + seed)


def things_eeg2(folder: Path, seed: int) -> None:
    """THINGS-EEG2 of one person, as each route reads it."""
    import things_eeg2_raw

    for route in things_eeg2_raw.WRITERS:
        things_eeg2_raw.build(folder / "eeg2" / route, route, subjects=(1,))


def things_eeg1(folder: Path, seed: int) -> None:
    """THINGS-EEG1 of two people."""
    import things_eeg1_raw

    things_eeg1_raw.build(folder / "eeg1", people=(2, 3))


def alljoined(folder: Path, seed: int) -> None:
    """Alljoined-1.6M of one person, recordings and what was preprocessed of them, and Alljoined1."""
    import alljoined_raw

    for route, build in alljoined_raw.BUILDERS.items():
        build(folder / "aj" / route, **({} if route == "alljoined1" else {"subjects": (8,)}))


def things_fmri(folder: Path, seed: int) -> None:
    """THINGS-fMRI, tables and volumes."""
    import things_fmri_raw

    things_fmri_raw.build(folder / "things_fmri")


def sets(folder: Path, seed: int) -> None:
    """Prepared sets: EEG of three people, the third unknown to the checkpoint; fMRI of two, of three; EEG scaled by
    statistics.
    """
    from planted_data import write_planted

    write_planted(folder / "set_eeg", "eeg", n_subjects=3, noise=4.0, seed=seed, counts=COUNTS, repeats=1)
    write_planted(folder / "set_fmri", "fmri", noise=4.0, seed=10 + seed, counts=COUNTS, repeats=1, places=True)
    write_planted(
        folder / "set_third", "fmri", n_subjects=3, noise=4.0, seed=20 + seed, counts=COUNTS, repeats=1, places=True
    )
    (folder / "own").mkdir()
    write_manifest(folder / "own", eeg_manifest(folder / "own", scaling="train")[0])
    command("prepare custom own/manifest.yaml --output-dir set_own")
    command("embed-images set_own --model neural_clip/tiny-clip")
    shutil.rmtree(folder / "own")


def _recipe(folder: Path, seed: int) -> None:
    """Prepared sets and a recipe; paths are relative."""
    sets(folder, seed)
    known = MODEL | {"eeg": MODEL["eeg"] | {"subjects": ["sub-01", "sub-02"]}}
    recipe = {"data": {"eeg": "set_eeg", "fmri": "set_fmri"}, "model": known, "training": TRAINING}
    recipe["closed_form"] = True
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def unsplit(folder: Path, seed: int) -> None:
    """A prepared set without a validation split, and a recipe that cross-validates."""
    from planted_data import READY, write_planted

    counts = {"train": 20, "test": 12}
    write_planted(folder / "set_eeg", "eeg", seed=seed, counts=counts, repeats=1, pixels=False, encoder=READY)
    recipe = {"data": {"eeg": "set_eeg"}, "model": {"eeg": MODEL["eeg"]}, "training": TRAINING}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"folds": 2, "closed_form": True}))


def trained(folder: Path, seed: int) -> None:
    """A checkpoint of the recipe, and its evaluation with pictures."""
    _recipe(folder, seed)
    command("train recipe.yaml")
    command(
        "evaluate --checkpoint trained --data eeg=set_eeg fmri=set_fmri --output-dir report --baselines none "
        "--subjects sub-01 sub-02"
    )


def gallery(folder: Path, seed: int) -> None:
    """A saved gallery of recordings of the checkpoint."""
    from neural_clip import NeuralGallery
    from neural_clip.prepared.reader import PreparedSet

    trained(folder, seed)
    part = PreparedSet.open("set_eeg").split("test", subjects=["sub-01", "sub-02"])
    NeuralGallery.from_recordings("trained", [part, "set_fmri"]).save_to_disk("gallery")


def recorded(folder: Path, seed: int) -> None:
    """Raw files of EEG, MEG and fMRI, with a checkpoint of the sets prepared from them, and pictures as queries."""
    from PIL import Image

    make_lab(folder)
    (folder / "asked").mkdir()
    for number, suffix in enumerate(("png", "jpg", "webp")):
        Image.open(folder / f"stimuli/im{number:02d}.png").save(folder / f"asked/picture{number}.{suffix}")


def manifested(folder: Path, seed: int) -> None:
    """Files of `mne.Epochs`, their manifest, and a recipe for a run from one to the other end."""
    write_manifest(folder, eeg_manifest(folder, scaling="train")[0])
    recipe = {"data": {"eeg": "x"}, "model": MODEL, "training": TRAINING | {"num_train_epochs": 1}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def corpora(folder: Path, seed: int) -> None:
    """EEG of two corpora, and what is read with options: a set without validation recordings, one that lacks a
    channel, one of other images of the test concepts; a checkpoint of both corpora, and one of the first.
    """
    from neural_clip.preparation import Preparation
    from several_corpora import FIRST, SECOND, write_sensors
    from things_sets import images_of, write_things

    without = FIRST | {"ch_names": [name for name in FIRST["ch_names"] if name != "Cz"]}
    for number, (name, shape) in enumerate({"first": FIRST, "second": SECOND, "cap": without}.items()):
        stated = Preparation(unit="V", scaling="none").as_dict()  # so that channels can be interpolated
        write_sensors(folder / name, shape, seed=10 * number + seed, repeats=1, preparation=stated)
    concepts = [f"new{n}" for n in range(4)]
    shown = {"train": images_of([f"seen{n}" for n in range(8)], "01b"), "test": images_of(concepts, "05s")}
    write_things(folder / "shown", "things_eeg2", "eeg", shown, seed=seed)
    others = {"train": images_of(concepts, "01b", "02b"), "test": ["seen0_09s"]}
    write_things(folder / "others", "things_meg", "meg", others, seed=30 + seed)
    for name, data in {"both": ["first", "second"], "alone": ["first"], "folds": ["shown"]}.items():
        recipe = {"data": {"eeg": data}, "model": {"eeg": MODEL["eeg"]}, "training": TRAINING | {"output_dir": name}}
        recipe["training"] |= {"num_train_epochs": 1}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    command("train both.yaml")
    command("train alone.yaml")
    command("train folds.yaml --folds 2")


def interrupted(folder: Path, seed: int) -> None:
    """A training that was killed before it wrote its second checkpoint."""
    _recipe(folder, seed)

    def hook(event: str, arguments: tuple) -> None:
        if event in ("open", "os.mkdir") and "checkpoint-4" in str(arguments[0]):
            os.kill(os.getpid(), signal.SIGKILL)

    if (pid := os.fork()) == 0:
        sys.addaudithook(hook)
        command("train recipe.yaml")
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


SOURCES: dict[str, Callable[[Path, int], None]] = {
    source.__name__: source
    for source in (
        *(epochs, npz, npy, mat, mat_73, series, places, fif, brainvision, edf, bdf, ctf, bids),
        *(nsd, imagenet_eeg, things_meg, things_eeg2, things_fmri, things_eeg1, alljoined),
        *(trained, unsplit, gallery, recorded, interrupted, manifested, corpora),
    )
}
