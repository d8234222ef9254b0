"""A small NSD in the layout of the real files, written by hand for the tests of its builder."""

import csv
import json
from pathlib import Path

import h5py
import nibabel
import numpy as np
from scipy.io import savemat

SUBJECTS, N_SHARED, N_UNSHARED, N_SESSIONS, PER_SESSION = (1, 5), 3, 9, 2, 14
N_IMAGES, N_STIMULI = N_SHARED + N_UNSHARED, N_SHARED + 2 * N_UNSHARED
GRIDS = {1: (4, 3, 5), 5: (3, 5, 4)}
EXPERIMENT = "nsddata/experiments/nsd"


def build(root: Path) -> Path:
    """Write a corpus: two subjects, two sessions, NIfTI betas, masks, tables and stimuli."""
    rng = np.random.default_rng(1)
    ids = rng.permutation(N_STIMULI) + 1  # 1-based
    shared = np.sort(ids[:N_SHARED])
    lists = np.zeros((8, N_IMAGES))
    lists[:, :N_SHARED] = shared
    for own, subject in zip(np.split(ids[N_SHARED:], 2), SUBJECTS, strict=True):
        lists[subject - 1, N_SHARED:] = own
    order = rng.permutation(np.repeat(np.arange(1, N_IMAGES + 1), 3))
    folder = root / EXPERIMENT
    folder.mkdir(parents=True)
    savemat(
        folder / "nsd_expdesign.mat", {"masterordering": order[None], "subjectim": lists, "sharedix": shared[None]}
    )
    write_stim_info(folder / "nsd_stim_info_merged.csv", order, lists, shared)
    for subject in SUBJECTS:
        write_subject(root, subject, lists[subject - 1, order - 1].astype(int), order, rng)
    (root / "nsddata_stimuli/stimuli/nsd").mkdir(parents=True)
    with h5py.File(root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", "w") as file:
        pixels = np.broadcast_to(np.arange(N_STIMULI, dtype=np.uint8)[:, None, None, None], (N_STIMULI, 6, 6, 3))
        file.create_dataset("imgBrick", data=pixels)
    stamp = {
        "simulated": True, "n_sessions": N_SESSIONS, "trials_per_session": PER_SESSION,
        "n_voxels": {"sub-01": 17, "sub-05": 11},
    }  # fmt: skip
    (root / "SIMULATED.json").write_text(json.dumps(stamp))
    return root


def write_stim_info(path, order, lists, shared):
    """The stimulus table: 0-based nsdId, 1-based trials."""
    names = [f"subject{s}_rep{r}" for s in range(1, 9) for r in range(3)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "cocoId", "cocoSplit", "cropBox", "nsdId", "shared1000", *names])
        for i in range(N_STIMULI):
            trials = []
            for subject in range(1, 9):
                hits = np.flatnonzero(lists[subject - 1, order - 1] == i + 1) + 1 if subject in SUBJECTS else []
                trials += [*hits, 0, 0, 0][:3]
            split = "val2017" if i == 4 else "train2017"
            writer.writerow([i, 500 + i, split, (0, 0, 0.1, 0.1), i, i + 1 in shared, *trials])


def write_subject(root, subject, image_ids, order, rng):
    """Mask, betas and behaviour of one subject."""
    ppdata = root / f"nsddata/ppdata/subj{subject:02d}"
    shape, n_voxels = GRIDS[subject], {1: 17, 5: 11}[subject]
    mask = np.repeat([1, 0, -1], [n_voxels, 10, np.prod(shape) - n_voxels - 10])
    (ppdata / "func1pt8mm/roi").mkdir(parents=True)
    mask = rng.permutation(mask).reshape(shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), ppdata / "func1pt8mm/roi/nsdgeneral.nii.gz")
    for session in range(1, N_SESSIONS + 1):
        path = betas_path(root, subject, session)
        path.parent.mkdir(parents=True, exist_ok=True)
        betas = rng.integers(-900, 900, (*shape, PER_SESSION)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(betas, np.eye(4)), path)
    (ppdata / "behav").mkdir()
    with (ppdata / "behav/responses.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["SUBJECT", "SESSION", "RUN", "TRIAL", "73KID", "10KID", "RT"])
        for t in range(N_SESSIONS * PER_SESSION):
            row = t % PER_SESSION
            writer.writerow([subject, t // PER_SESSION + 1, row // 7 + 1, row % 7 + 1, image_ids[t], order[t], "NaN"])


def betas_path(root, subject, session, suffix=".nii.gz"):
    folder = root / f"nsddata_betas/ppdata/subj{subject:02d}/func1pt8mm/betas_fithrf_GLMdenoise_RR"
    return folder / f"betas_session{session:02d}{suffix}"


def to_hdf5(root, subject, keep=False):
    """Write a subject's betas as MATLAB does: h5py sees the axes reversed."""
    for session in range(1, N_SESSIONS + 1):
        path = betas_path(root, subject, session)
        values = np.asanyarray(nibabel.load(path).dataobj)  # (X, Y, Z, trial)
        with h5py.File(betas_path(root, subject, session, ".hdf5"), "w") as file:
            file.create_dataset("betas", data=values.transpose(3, 2, 1, 0), chunks=(PER_SESSION, 1, 1, 1))
        if not keep:
            path.unlink()


def region_path(root, subject, name="nsdgeneral"):
    return root / f"nsddata/ppdata/subj{subject:02d}/func1pt8mm/roi/{name}.nii.gz"


def responses_path(root, subject):
    return root / f"nsddata/ppdata/subj{subject:02d}/behav/responses.tsv"


def transform_path(root, subject):
    return root / f"nsddata/ppdata/subj{subject:02d}/transforms/MNI-to-func1pt8.nii.gz"


def write_transform(root, subject, coordinates=None):
    """Where the voxels lie in the MNI template, as NSD tells it; returns the positions, 1-based decimals."""
    if coordinates is None:
        grid = np.stack(np.meshgrid(*map(np.arange, GRIDS[subject]), indexing="ij"), -1)
        noise = np.random.default_rng(subject).uniform(-0.5, 0.5, grid.shape)
        coordinates = (80 + 1.8 * grid * [-1, 1, 1] + noise).astype(np.float32)
    path = transform_path(root, subject)
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.asarray(coordinates, np.float32), np.eye(4)), path)
    return coordinates
