"""Prepare public real recordings with `neural-clip prepare custom`.

```bash
python studies/real_recordings.py --data-dir $NEURAL_CLIP_REAL_DATA --output-dir outputs/real
```

makes these prepared data sets, and the manifest of each (`<output-dir>/converted/<name>/manifest.yaml`):

- `digit69`: fMRI patterns of 100 handwritten digits; targets are coarse pixels, 14 x 14.
- `digit69_mobilenet`: the same patterns; targets are MobileNetV2 embeddings.
- `digit69_fold0` to `digit69_fold9`, `digit69_mobilenet_fold0` ...: the same, each with ten other digits as its test.
- `n170`: EEG of four electrodes while faces and houses were shown; category level.
- `haxby`: fMRI of one slice while faces and houses were shown; category level.

`docs/studies/real_recordings.md` says where the recordings come from. Every rule below (amplitude limit, held-out
recordings and runs) was fixed before any model was trained.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from neural_clip.corpora.custom.build import prepare
from neural_clip.errors import DataError, run

DIGITS = "digit69_fmri/digit69_28x28.mat"
N_TRAIN_DIGITS = 90  # the published split: 90 to train on, 10 to test on
N_FOLDS = 10  # of as many digits each; which, is drawn with seed 0
DIGIT_LISTS = ("fmri", "stim", "label")  # each ends in Trn or Test
MOBILENET = "mobilenet_v2"
HAXBY = "haxby_fmri/mvpa2/data"
N170 = "n170_eeg/examples/data/visual-N170"
FACE_HOUSE_EMBEDDINGS = "n170_eeg/face_house_mobilenetv2.npz"
MUSE_CHANNELS = ("TP9", "AF7", "AF8", "TP10")
MUSE_SFREQ = 256.0  # Hz
MARKERS = {1: "house", 2: "face"}  # inferred from later code of the source; certain is only that they differ
BAND = (1.0, 30.0)  # Hz; band, window and limit are those of the source's own N170 example
WINDOW = (-0.1, 0.8)  # s from onset; also the baseline's end: mean of the samples before onset is subtracted
AMPLITUDE_LIMIT = 75e-6  # V, peak to peak
MIN_MARKERS = 20  # fewer than in 15 s of the task: the marker stream had broken off
MAX_REJECTED = 0.5  # share of epochs above the limit that makes a file noise


@dataclass(frozen=True)
class MuseFile:
    """One CSV file that can be used."""

    path: Path
    subject: str
    session: str


def digit69(data_dir: Path, work: Path, target: str, fold: int | None = None) -> dict:
    """Manifest of the digit patterns.

    Args:
        target (`str`): `"pixels"` or `"mobilenet"`.
        fold (`int`, *optional*): Which of [`N_FOLDS`] is the test; by default the published split.
    """
    import scipy.io

    path = data_dir / DIGITS
    arrays = scipy.io.loadmat(path)
    if fold is not None:
        path = work / "digits.mat"
        arrays = _divided(arrays, fold)
        scipy.io.savemat(path, arrays, do_compression=True)
    flat = np.concatenate([arrays["stimTrn"], arrays["stimTest"]])
    images = flat.reshape(-1, 28, 28).transpose(0, 2, 1)  # MATLAB stores by column
    if target == "pixels":
        # Means of 2 x 2 pixels: what survives is the coarse shape, which is what such patterns are known to carry.
        vectors = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(len(images), -1) / 255.0
        name = "block means of 2 x 2 pixels"
    else:
        vectors, name = _mobilenet(data_dir, images), "MobileNetV2 (1.0, 224)"
    np.savez(work / "embeddings.npz", embeds=vectors.astype(np.float32))
    shared = {"file": str(path), "kind": "patterns", "subject": "sub-01"}
    return {
        "name": "digit69" if target == "pixels" else "digit69_mobilenet",
        "modality": "fmri",
        "roi": "early visual cortex, as published",
        "recordings": [
            {**shared, "run": "run-01", "data_key": "fmriTrn", "first_image": 0},
            {**shared, "run": "run-02", "data_key": "fmriTest", "first_image": N_TRAIN_DIGITS, "split": "test"},
        ],
        "images": {
            "file": str(path), "keys": ["stimTrn", "stimTest"], "shape": [28, 28], "order": "F",
            "concept_keys": ["labelTrn", "labelTest"], "concept_names": {1: "six", 2: "nine"},
        },
        "embeddings": {"file": str(work / "embeddings.npz"), "ids_key": None, "name": name, "centre": "train"},
        "splits": {"by": "image", "validation": 0.1, "seed": 0},
        "scaling": "train",
        "licence": "none stated by the source; for local tests only",
        "redistribution": "forbidden",
        "source": "github.com/ChangdeDu/DGMM, commit 684daf6e, digit69_28x28.mat",
        "citation": "van Gerven, M. A. J., de Lange, F. P., Heskes, T. (2010). Neural decoding with hierarchical "
        "generative models. Neural Computation 22(12), 3127-3142.",
        "known_defects": ["the runs are not told apart by the source; run-01 and run-02 here are its two lists"],
    }  # fmt: skip


def _divided(arrays: dict, fold: int) -> dict:
    """The lists of the source divided anew: what lies in a fold is the test."""
    whole = {name: np.concatenate([arrays[f"{name}Trn"], arrays[f"{name}Test"]]) for name in DIGIT_LISTS}
    n_digits = len(whole["label"])
    inside = np.random.default_rng(0).permutation(n_digits) % N_FOLDS == fold
    parts = {"Trn": ~inside, "Test": inside}
    return {name + part: whole[name][rows] for name in DIGIT_LISTS for part, rows in parts.items()}


def _mobilenet(data_dir: Path, images: np.ndarray) -> np.ndarray:
    """MobileNetV2 embeddings of grey images `(n, height, width)` uint8; `(n, 1280)`."""
    import torch

    folder = data_dir / MOBILENET
    spec = importlib.util.spec_from_file_location("torch_encoder", folder / "torch_encoder.py")
    if spec is None or spec.loader is None or not (folder / "torch_encoder.py").is_file():
        raise DataError(f"There is no image encoder '{folder / 'torch_encoder.py'}'.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TFLiteMobileNet(folder / "tf2_mobilenet_v2_1.0_224_ptq.float.npz").eval()
    pixels = torch.from_numpy(np.repeat(images[:, None].astype(np.float32), 3, axis=1))
    pixels = torch.nn.functional.interpolate(pixels, size=(224, 224), mode="bilinear", align_corners=False)
    with torch.inference_mode():
        return torch.cat([model(batch)[0] for batch in pixels.split(10)]).numpy()


def haxby(data_dir: Path, work: Path) -> dict:
    """Manifest of the face and house blocks of one slice of one subject of Haxby 2001.

    One row is one volume, 5 s after the moment it stands for (about the lag of the haemodynamic peak). Rows of a
    block are correlated, so whole runs are held out: 11 and 12 to test on, 9 and 10 for validation.
    """
    folder = data_dir / HAXBY
    splits = {9: "validation", 10: "validation", 11: "test", 12: "test"}
    recordings = []
    for number in range(1, 13):
        bold = folder / f"haxby2001/sub001/BOLD/task001_run{number:03d}"
        entry = {"file": str(bold / "bold_1slice.nii.gz"), "events": str(bold / "bold_events.tsv")}
        recordings.append({**entry, "run": f"run-{number:02d}", "split": splits.get(number, "train")})
    return {
        "name": "haxby_faces_houses",
        "modality": "fmri",
        "category_level": True,
        "block_design": True,
        "unit": "z of the run",
        "roi": "one axial slice, voxels inside the published mask",
        "recordings": recordings,
        "defaults": {
            "kind": "series", "subject": "sub-01", "session": "ses-01", "mask": str(folder / "mask.nii.gz"),
            "t_r": 2.5, "image_column": "trial_type", "keep": {"trial_type": ["face", "house"]}, "block_step": 2.5,
            "window": [5.0, 7.5], "detrend": "linear", "standardise": "run",
        },
        "embeddings": _face_house_embeddings(data_dir),
        "splits": {"by": "run", "validation": None},
        "licence": "CC-BY-SA-3.0",
        "redistribution": "allowed",
        "source": "github.com/PyMVPA/PyMVPA, commit 20f0335f, mvpa2/data/haxby2001",
        "citation": "Haxby, J. V. et al. (2001). Distributed and overlapping representations of faces and objects in "
        "ventral temporal cortex. Science 293, 2425-2430.",
        "known_defects": [
            "the order of images inside a block is unknown: only the category is",
            "one axial slice of one subject",
            "volumes of a block are correlated; detrending and z-scores use the whole run a volume is in",
        ],
    }  # fmt: skip


def _face_house_embeddings(data_dir: Path) -> dict:
    return {
        "file": str(data_dir / FACE_HOUSE_EMBEDDINGS), "ids_key": "files", "vectors_key": "embeds",
        "name": "MobileNetV2 (1.0, 224)", "pooling": "global average", "concept": "folder",
        "concept_names": {"faces": "face", "houses": "house"}, "centre": "train",
    }  # fmt: skip


def n170(data_dir: Path, work: Path) -> dict:
    """Manifest of the Muse EEG, after each usable CSV file became an `mne.Epochs` file in `work`.

    Held-out recordings: of each subject's recordings in order of session and time, the last is for testing and, if
    there are three or more, the one before for validation; a single recording is for training.
    """
    files, skipped = _muse_files(data_dir / N170)
    recordings: list[dict] = []
    for file in files:
        name = f"{file.subject}_{file.session}_{file.path.stem}-epo.fif"
        reason = _write_epochs(file, work / name)
        if reason is not None:
            skipped.append(f"{file.path.relative_to(data_dir / N170)}: {reason}")
            continue
        number = 1 + sum((r["subject"], r["session"]) == (file.subject, file.session) for r in recordings)
        entry = {"file": name, "kind": "epochs", "subject": file.subject, "session": file.session}
        recordings.append(entry | {"run": f"run-{number:02d}"})
    _hold_out_last(recordings)
    for line in skipped:
        print(f"n170: skipped {line}")
    print(f"n170: {len(recordings)} recordings used, {len(skipped)} skipped")
    return {
        "name": "n170_faces_houses",
        "modality": "eeg",
        "category_level": True,
        "recordings": recordings,
        "defaults": {"image_column": "category", "picks": list(MUSE_CHANNELS)},
        "embeddings": _face_house_embeddings(data_dir),
        "splits": {"by": "recording", "validation": None},
        "scaling": "train",
        "preprocessing": {
            "band_hz": list(BAND), "window_s": list(WINDOW), "baseline": "mean before onset",
            "rejected_above_volt_peak_to_peak": AMPLITUDE_LIMIT,
        },
        "licence": "BSD-3-Clause",
        "redistribution": "allowed",
        "source": "github.com/NeuroTechX/EEG-ExPy, commit 543e3a8f, examples/data/visual-N170 (recordings); stimuli: "
        "commit 1a5b3874, eegnb/stimuli/visual/face_house (Haxby 2001, CC BY-SA 3.0)",
        "citation": "EEG-ExPy, NeuroTechX; stimuli: Haxby, J. V. et al. (2001). Science 293, 2425-2430.",
        "known_defects": [
            "no image identity per trial, only the category",
            "which of the two markers means face is inferred from later code of the source, not certain",
            "stimuli follow each other after 0.5 to 0.6 s, so the end of a window overlaps the next response",
            *(f"skipped {line}" for line in skipped),
        ],
    }  # fmt: skip


def _hold_out_last(recordings: list[dict]) -> None:
    """Set the split of each recording by the rule that `n170` states."""
    for subject in {entry["subject"] for entry in recordings}:
        own = [entry for entry in recordings if entry["subject"] == subject]
        for entry in own:
            entry["split"] = "train"
        if len(own) > 1:
            own[-1]["split"] = "test"
        if len(own) > 2:
            own[-2]["split"] = "validation"


def _muse_files(folder: Path) -> tuple[list[MuseFile], list[str]]:
    """Files with the Muse's channels, without duplicates, and what was skipped and why."""
    files: list[MuseFile] = []
    skipped: list[str] = []
    seen: dict[str, Path] = {}
    paths = sorted(folder.rglob("*.csv"))
    if not paths:
        raise DataError(f"There are no recordings below '{folder}'.")
    sites = sorted({path.relative_to(folder).parts[:2] for path in paths})
    for path in paths:
        name = path.relative_to(folder)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with path.open(encoding="utf-8") as file:
            columns = file.readline().strip().split(",")
        if digest in seen:
            skipped.append(f"{name}: same bytes as {seen[digest]}")
        elif not {*MUSE_CHANNELS, "Marker0"} <= set(columns):
            skipped.append(f"{name}: another device, columns {', '.join(columns)}")
        else:
            seen[digest] = name
            site = sites.index(name.parts[:2])
            number = int(name.parts[2].removeprefix("subject"))
            subject = f"sub-{number:04d}" if site == 0 else f"sub-{site}{number:03d}"
            files.append(MuseFile(path, subject, f"ses-{int(name.parts[3].removeprefix('session')):02d}"))
    return files, skipped


def _write_epochs(file: MuseFile, target: Path) -> str | None:
    """Write one file's epochs, or tell why it is of no use."""
    import mne
    import pandas

    table = pandas.read_csv(file.path)
    samples = np.flatnonzero(table["Marker0"].isin(list(MARKERS)).to_numpy())
    if len(samples) < MIN_MARKERS:
        return f"{len(samples)} markers, fewer than {MIN_MARKERS}"
    rate = (len(table) - 1) / (table["timestamps"].iloc[-1] - table["timestamps"].iloc[0])
    if abs(rate / MUSE_SFREQ - 1) > 0.01:
        return f"{rate:.1f} samples a second instead of {MUSE_SFREQ:g}: samples were lost"
    volts = table[list(MUSE_CHANNELS)].to_numpy().T * 1e-6  # the files are in microvolt
    if not np.isfinite(volts).all():
        return "values that are not finite"
    info = mne.create_info(list(MUSE_CHANNELS), MUSE_SFREQ, "eeg", verbose="error")
    raw = mne.io.RawArray(volts, info, verbose="error").filter(*BAND, verbose="error")
    codes = table["Marker0"].to_numpy()[samples].astype(int)
    events = np.column_stack([samples, np.zeros_like(samples), codes])
    metadata = pandas.DataFrame({"category": [MARKERS[code] for code in codes]})
    epochs = mne.Epochs(
        raw, events, tmin=WINDOW[0], tmax=WINDOW[1], baseline=(None, 0), metadata=metadata,
        reject={"eeg": AMPLITUDE_LIMIT}, preload=True, verbose="error",
    )  # fmt: skip
    rejected = 1 - len(epochs) / len(events)
    if rejected > MAX_REJECTED:
        return f"noise: {rejected:.0%} of {len(events)} epochs exceed {AMPLITUDE_LIMIT * 1e6:g} microvolt"
    epochs.save(target, overwrite=True, verbose="error")
    return None


SETS: dict[str, Callable[[Path, Path], dict]] = {
    "digit69": lambda data_dir, work: digit69(data_dir, work, "pixels"),
    "digit69_mobilenet": lambda data_dir, work: digit69(data_dir, work, "mobilenet"),
    "n170": n170,
    "haxby": haxby,
}
FOLDS = {
    f"{name}_fold{fold}": partial(digit69, target=target, fold=fold)
    for name, target in (("digit69", "pixels"), ("digit69_mobilenet", "mobilenet"))
    for fold in range(N_FOLDS)
}


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the chosen sets."""
    import yaml

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder that holds digit69_fmri, n170_eeg, ...")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for the prepared data sets")
    parser.add_argument("--sets", nargs="+", choices=[*SETS, *FOLDS], default=list(SETS),
                        metavar="NAME", help=f"{', '.join(SETS)} (default: these), {', '.join(FOLDS)}")  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace older prepared data sets")
    arguments = parser.parse_args(argv)
    if not arguments.data_dir.is_dir():
        raise DataError(f"There is no folder '{arguments.data_dir}' of real recordings.")
    for name in arguments.sets:
        work = (arguments.output_dir / "converted" / name).absolute()
        work.mkdir(parents=True, exist_ok=True)
        manifest = (SETS | FOLDS)[name](arguments.data_dir.absolute(), work)
        text = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=110)
        (work / "manifest.yaml").write_text(text, encoding="utf-8")
        folder = prepare(work / "manifest.yaml", arguments.output_dir / name, overwrite=arguments.overwrite)
        facts = json.loads((folder / "neural_clip.json").read_text(encoding="utf-8"))
        print(f"{name}: " + ", ".join(f"{split} {count['rows']}" for split, count in facts["splits"].items()))


if __name__ == "__main__":
    run(main)
