"""A small THINGS-fMRI in the formats of its releases, written by hand for the tests of its reader: two people, three
sessions of two runs, eight concepts, four test images, of which one lies in a wrong folder.
"""

import json
import pickle

import h5py
import nibabel
import numpy as np
import pandas as pd
from PIL import Image
from scipy.stats import zscore

SUBJECTS, N_SESSIONS, N_RUNS, N_CATCH = (1, 2), 3, 2, 2
CONCEPTS = ["aardvark", "bow1", "dog", "hula_hoop", "ice_cream", "ping-pong_table", "t-shirt", "umbrella"]
TEST = {"hula_hoop_16s": "hula", "bow1_14s": "bow1", "dog_13s": "dog", "t-shirt_15s": "t-shirt"}  # folder of each
GRIDS = {1: (4, 3, 5), 2: (3, 5, 4)}
N_BRAIN = {1: 37, 2: 31}
PER_SESSION = len(CONCEPTS) + len(TEST)
N_TRIALS = N_SESSIONS * PER_SESSION
SIZES = {
    "subjects": list(SUBJECTS), "n_sessions": N_SESSIONS, "n_runs": N_RUNS, "n_concepts": len(CONCEPTS),
    "n_test_images": len(TEST), "n_catch": N_CATCH,
}  # fmt: skip
AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2.0, 0, -126], [0, 0, 2.0, -72], [0, 0, 0, 1]])
# Voxels (by number modulo 10) of each region; the others of the published columns are empty.
REGIONS = {"V1": (0, 1), "V2": (2,), "hV4": (3,), "LO1 (prf)": (4,), "lFFA": (5,), "rFFA": (6,), "IT": (6, 7)}
COLUMNS = [
    "V1", "V2", "V3", "hV4", "VO1", "VO2", "LO1 (prf)", "LO2 (prf)", "TO1", "TO2", "V3b", "V3a", "lEBA", "rEBA",
    "lFFA", "rFFA", "lOFA", "rOFA", "lSTS", "rSTS", "lPPA", "rPPA", "lRSC", "rRSC", "lTOS", "rTOS", "lLOC", "rLOC",
    "IT",
]  # fmt: skip
ATLAS = {"glasser-V1": (0, 1, 8), "glasser-p9-\n46v": (9,), "glasser-a9-\n46v": (), "glasser-9-46d": (2,)}


def shown(subject):
    """Trials in order: session, run, `"train"`, `"test"` or `"catch"`, image (a stem), folder."""
    rng = np.random.default_rng([3, subject])
    exemplars = np.stack([rng.permutation(N_SESSIONS) for _ in CONCEPTS])
    trials = []
    for session in range(1, N_SESSIONS + 1):
        own = [("train", f"{c}_{exemplars[k, session - 1] + 1:02d}b", c) for k, c in enumerate(CONCEPTS)]
        own += [("test", image, folder) for image, folder in TEST.items()]
        own += [("catch", f"catch{number:03d}", "") for number in range(N_CATCH)]
        order = rng.permutation(len(own))
        for run, some in enumerate(np.array_split(order, N_RUNS), 1):
            trials += [(session, run, *own[place]) for place in some]
    return trials


def brain(subject):
    """Mask of the brain."""
    grid = GRIDS[subject]
    mask = np.zeros(np.prod(grid), np.uint8)
    mask[np.random.default_rng([5, subject]).permutation(mask.size)[: N_BRAIN[subject]]] = 1
    return mask.reshape(grid)


def betas(subject):
    """Betas `(n_trials with catch trials, n_voxels)`, float64: a pattern for each image, and noise."""
    trials = shown(subject)
    names = sorted({image for *_, image, _ in trials})
    rng = np.random.default_rng([7, subject])
    patterns = dict(zip(names, rng.normal(size=(len(names), N_BRAIN[subject])), strict=True))
    noise = rng.normal(size=(len(trials), N_BRAIN[subject])) * np.geomspace(0.1, 30.0, N_BRAIN[subject])
    return 0.05 * (np.stack([patterns[image] for *_, image, _ in trials]) + noise)


def noise_ceilings(subject):
    """As `thingsmri/anc.py` computes them, of single trials and of the mean of all repeats."""
    trials, values = shown(subject), betas(subject)
    data = np.array([[values[n] for n, trial in enumerate(trials) if trial[3] == image] for image in TEST])
    data = data.transpose(2, 1, 0)  # (voxel, repeat, image)
    normalized = zscore(data, axis=-1)
    noisesd = np.sqrt(np.mean(np.var(normalized, axis=-2, ddof=1), axis=-1))
    ncsnr = np.sqrt(np.clip(1 - noisesd**2, 0, None)) / noisesd
    return [100 * ncsnr**2 / (ncsnr**2 + 1 / n) for n in (1, N_SESSIONS)]


def build(root):
    """Write both releases, masks and images; returns the folder."""
    (root / "betas_csv").mkdir(parents=True)
    for subject in SUBJECTS:
        write_tables(root / "betas_csv", subject)
        write_volumes(root, subject)
    for image in {image for subject in SUBJECTS for _, _, kind, image, _ in shown(subject) if kind != "catch"}:
        path = root / "images" / "object_images" / image.rsplit("_", 1)[0] / f"{image}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(list(image.encode())).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    (root / "SIMULATED.json").write_text(json.dumps({"simulated": True, "sizes": SIZES}))
    return root


def stimulus_metadata(subject):
    """`StimulusMetadata.csv` as a frame."""
    rows = [trial for trial in shown(subject) if trial[2] != "catch"]
    return pd.DataFrame(
        [(kind, session, run, subject, n, f"{image}.jpg", folder)
         for n, (session, run, kind, image, folder) in enumerate(rows)],
        columns=["trial_type", "session", "run", "subject_id", "trial_id", "stimulus", "concept"],
    )  # fmt: skip


def voxel_metadata(subject):
    """`VoxelMetadata.csv` as a frame, with some areas of the atlas."""
    places = np.argwhere(brain(subject))
    frame = pd.DataFrame({"voxel_id": np.arange(len(places)), "subject_id": subject})
    frame[["voxel_x", "voxel_y", "voxel_z"]] = places
    frame["nc_singletrial"], frame["nc_testset"] = noise_ceilings(subject)
    for name in ("splithalf_uncorrected", "splithalf_corrected", "prf-eccentricity", "prf-size"):
        frame[name] = 0.5
    for name in COLUMNS:
        frame[name] = np.isin(frame.voxel_id % 10, REGIONS.get(name, ())).astype(int)
    for name, digits in ATLAS.items():
        frame[name] = np.isin(frame.voxel_id % 10, digits).astype(int)
    return frame


def write_tables(folder, subject):
    """The three files of a subject."""
    name = f"sub-{subject:02d}"
    keep = [trial[2] != "catch" for trial in shown(subject)]
    write_h5(folder / f"{name}_ResponseData.h5", betas(subject)[keep].T)
    stimulus_metadata(subject).to_csv(folder / f"{name}_StimulusMetadata.csv", index=False)
    voxel_metadata(subject).to_csv(folder / f"{name}_VoxelMetadata.csv", index=False)


def write_h5(path, values, labels=None, ids=None):
    """What pandas makes of a frame with the columns `voxel_id` and 0, 1, ..., as far as it matters to readers."""
    n_voxels, n_trials = values.shape
    with h5py.File(path, "w") as file:
        group = file.create_group("ResponseData")
        group.attrs["pandas_type"], group.attrs["nblocks"] = "frame", 2
        put_labels(group, "axis0", ["voxel_id", *range(n_trials)])
        group["axis1"] = np.arange(n_voxels)
        group["block0_values"] = values
        put_labels(group, "block0_items", list(range(n_trials)) if labels is None else labels)
        group["block1_values"] = (np.arange(n_voxels) if ids is None else ids)[:, None]
        group["block1_items"] = np.array([b"voxel_id"])


def put_labels(group, name, labels):
    """A pickled array of objects, as PyTables stores labels of several types."""
    content = labels if isinstance(labels, bytes) else pickle.dumps(np.array(labels, dtype=object), protocol=5)
    if name in group:
        del group[name]
    group.create_dataset(name, (1,), dtype=h5py.vlen_dtype(np.uint8))[0] = np.frombuffer(content, np.uint8)


def run_stem(root, subject, session, run):
    """Path of a run's files, without their endings."""
    name = f"sub-{subject:02d}"
    return root / "betas_vol" / name / f"ses-things{session:02d}" / f"{name}_ses-things{session:02d}_run-{run:02d}"


def write_volumes(root, subject):
    """Betas and conditions of each run, and the mask."""
    mask, trials, values = brain(subject), shown(subject), betas(subject)
    path = root / "brainmasks" / f"sub-{subject:02d}_space-T1w_brainmask.nii.gz"
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(mask, AFFINE), path)
    for session in range(1, N_SESSIONS + 1):
        for run in range(1, N_RUNS + 1):
            own = [n for n, trial in enumerate(trials) if trial[:2] == (session, run)]
            stem = run_stem(root, subject, session, run)
            stem.parent.mkdir(parents=True, exist_ok=True)
            data = np.zeros((*mask.shape, len(own)))
            data[mask > 0] = values[own].T
            nibabel.save(nibabel.Nifti1Image(data, AFFINE), f"{stem}_betas.nii.gz")
            files = [f"{trials[n][4]}/{trials[n][3]}.jpg".lstrip("/") for n in own]
            pd.DataFrame({"image_filename": files}).to_csv(f"{stem}_conditions.tsv", sep="\t")
