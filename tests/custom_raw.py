"""Recordings and manifests for `prepare custom`, small and simulated, written the way people keep theirs."""

import numpy as np
import yaml

from neural_clip.corpora.custom.build import prepare

N = 12  # images, and rows a file
TERMS = {"licence": "CC0-1.0", "redistribution": "allowed", "source": "made up", "citation": "nobody"}


def rng(*seed):
    return np.random.default_rng(seed)


def write_manifest(folder, content):
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def prepared(folder, content, **options):
    return prepare(write_manifest(folder, content), folder / "set", **options)


def patterns(tmp_path, modality="fmri", **changes):
    """Manifest of one `.npz` with N patterns, 5 voxels each, and N pictures."""
    shape = (N, 5) if modality == "fmri" else (N, 2, 4)
    arrays = {
        "betas": 3 + rng(0).normal(size=shape), "shown": np.arange(N)[::-1] + 1,
        "pictures": rng(1).integers(0, 255, (N, 6, 6), dtype=np.uint8),
    }  # fmt: skip
    np.savez(tmp_path / "p.npz", **arrays)
    entry = {"file": "p.npz", "kind": "patterns", "subject": "sub-01", "data_key": "betas", "image_key": "shown"}
    extra = {} if modality == "fmri" else {"sfreq": 100.0, "tmin": 0.0, "ch_names": ["A", "B"]}
    manifest = {
        "name": "mine", "modality": modality, "recordings": [entry | {"index_base": 1}],
        "images": {"file": "p.npz", "keys": ["pictures"]}, "splits": {"validation": 0.25, "test": 0.25}, **TERMS,
        "scaling": "none",
    }  # fmt: skip
    return manifest | extra | changes, arrays


def save_epochs(path, seed=0, names=("A", "B", "C"), kinds="eeg", n=N, sfreq=100.0, metadata=True, images=None):
    import mne
    import pandas

    info = mne.create_info(list(names), sfreq, kinds, verbose="error")
    data = rng(seed).normal(size=(n, len(names), 51)) * 1e-6
    events = np.column_stack([np.arange(n) * 100, np.zeros(n, int), np.ones(n, int)])
    table = pandas.DataFrame({"picture": images or [f"im{i:02d}" for i in range(n)], "block": np.arange(n) // 4})
    epochs = mne.EpochsArray(data, info, events, tmin=-0.1, metadata=table if metadata else None, verbose="error")
    epochs.save(path, overwrite=True, verbose="error")
    return data


def save_pictures(folder, n=N):
    from PIL import Image

    for i in range(n):
        target = folder / ("cats" if i % 2 else "dogs") / f"im{i:02d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng(i).integers(0, 255, (5, 5, 3), dtype=np.uint8)).save(target)


def eeg_manifest(tmp_path, **changes):
    """Two subjects' Epochs files and a folder of pictures."""
    names = [f"{'cats' if i % 2 else 'dogs'}/im{i:02d}" for i in range(N)]
    data = {s: save_epochs(tmp_path / f"{s}-epo.fif", s, images=names) for s in (1, 2)}
    save_pictures(tmp_path / "stimuli")
    manifest = {
        "name": "mine", "modality": "eeg", **TERMS,
        "recordings": [{"file": f"{s}-epo.fif", "subject": f"sub-0{s}"} for s in (1, 2)],
        "defaults": {"kind": "epochs", "image_column": "picture", "run_column": "block", "tmin": 0, "tmax": 0.2},
        "images": {"folder": "stimuli", "concept": "folder", "concept_names": {"cats": "cat"}},
        "splits": {"by": "image", "validation": 0.2, "test": 0.25}, "scaling": "none",
    }  # fmt: skip
    return manifest | changes, data


def write_series(tmp_path, n_runs=4, t_r=2.0, n_volumes=40):
    """NIfTI runs with a mask; events alternate between two categories."""
    import nibabel

    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    mask = rng(9).random((3, 4, 2)) > 0.4
    nibabel.Nifti1Image(mask.astype(np.uint8), affine).to_filename(tmp_path / "mask.nii.gz")
    volumes = {}
    for number in range(n_runs):
        data = 100 + rng(number).normal(size=(3, 4, 2, n_volumes)).astype(np.float32)
        image = nibabel.Nifti1Image(data, affine)
        image.header.set_zooms((3, 3, 3, t_r))
        image.header.set_xyzt_units("mm", "sec")
        image.to_filename(tmp_path / f"run{number}.nii.gz")
        rows = ["onset\tduration\ttrial_type"]
        rows += [f"{8 + 16 * i}\t8\t{'face' if i % 2 else 'house'}" for i in range(4)] + ["2\t1\trest"]
        (tmp_path / f"run{number}.tsv").write_text("\n".join(rows) + "\n")
        volumes[number] = data
    return volumes, mask


def series_manifest(tmp_path, **changes):
    volumes, mask = write_series(tmp_path)
    np.savez(
        tmp_path / "e.npz",
        names=np.array(["faces/a.jpg", "faces/b.jpg", "houses/c.jpg"]),
        vectors=np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 2]]),
    )
    manifest = {
        "name": "mine", "modality": "fmri", "category_level": True, **TERMS,
        "recordings": [
            {"file": f"run{i}.nii.gz", "events": f"run{i}.tsv", "run": f"run-0{i}"} for i in range(4)
        ],
        "defaults": {
            "kind": "series", "subject": "sub-01", "mask": "mask.nii.gz", "image_column": "trial_type",
            "keep": {"trial_type": ["face", "house"]},
        },
        "embeddings": {
            "file": "e.npz", "ids_key": "names", "vectors_key": "vectors", "name": "net", "concept": "folder",
            "concept_names": {"faces": "face", "houses": "house"},
        },
        "splits": {"by": "run", "test": ["sub-01/run-03"], "validation": 0.25, "seed": 0}, "scaling": "none",
    }  # fmt: skip
    return manifest | changes, volumes, mask
