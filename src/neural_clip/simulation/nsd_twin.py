"""Simulated Natural Scenes Dataset: the known generative model in the files and folders of the real one.

Written are design, behaviour and stimulus tables, the stimuli, nsdgeneral masks, transforms that place the voxels in
MNI152, betas of every session as NIfTI (and, but for the full preset, of the first subject as HDF5 too), COCO
annotations of the procedural images, and SIMULATED.json. Subjects keep their real numbers; lists of subjects that are
not simulated hold 0 instead of ids.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neural_clip.simulation.presets import FmriPreset, TwinPreset

_N_NSD_SUBJECTS = 8
_N_RUNS = 12
_SCALE = 300  # stored integers per percent signal change
_VOXEL_MM = 1.8
# People share tuning at the same fraction of their volumes. A cube in MNI space stands for the volume of everybody, so
# that distances there are what the tuning goes by: its left, hind, lower corner and its edge, in mm.
_MNI_CORNER, _MNI_EDGE = np.array([-75.0, -105.0, -60.0]), 150.0
# In the template's array, counted from 1, whose first axis runs to the left.
_MNI_ORIGIN = np.array([91.0, 127.0, 73.0])
_NO_PLACE = 9999.0
_BATCH = 200  # images rendered, stored and embedded at a time
_COCO_ASPECT = 1.25  # width over height of the pretended COCO original, cut to a square on both sides
_COCO_HEIGHT = 512
_DECOY_EVERY = 4  # every so many images have a second object, outside the crop
_EXPERIMENT = "nsddata/experiments/nsd"
_STIMULI = "nsddata_stimuli/stimuli/nsd"
_RESPONSES = (
    "SUBJECT", "SESSION", "RUN", "TRIAL", "73KID", "10KID", "TIME", "ISOLD", "ISCORRECT", "RT", "CHANGEMIND",
    "MEMORYRECENT", "MEMORYFIRST", "ISOLDCURRENT", "ISCORRECTCURRENT", "TOTAL1", "TOTAL2", "BUTTON", "MISSINGDATA",
)  # fmt: skip


@dataclass(frozen=True)
class _Plan:
    """Order of images; all numbers 1-based as in the files, but for `latents`, which is indexed by 0-based nsdId."""

    order: np.ndarray
    lists: np.ndarray
    shared: np.ndarray
    latents: np.ndarray
    specs: list

    def ids(self, number: int) -> np.ndarray:
        """1-based image ids of all planned trials of a subject (1 to 8)."""
        return self.lists[number - 1, self.order - 1]


def write(raw_dir: str | Path, preset: TwinPreset, seed: int) -> None:
    """Write a simulated NSD.

    Args:
        raw_dir (`str` or `Path`): Folder to fill; made if it does not exist.
        preset (`TwinPreset`): Sizes and dials; its `fmri` part counts.
        seed (`int`): Same seed, same bytes.

    Betas are int16, percent signal change x 300, as in the real files.
    """
    from neural_clip.simulation import ceiling
    from neural_clip.simulation.generative import simulated_stamp
    from neural_clip.simulation.voxel_model import VoxelModel

    raw_dir, sizes = Path(raw_dir), preset.fmri
    raw_dir.mkdir(parents=True, exist_ok=True)
    plan = _plan(raw_dir / _STIMULI, sizes, seed)
    _write_design(raw_dir / _EXPERIMENT / "nsd_expdesign.mat", plan)
    _write_stim_info(raw_dir / _EXPERIMENT / "nsd_stim_info_merged.csv", plan, sizes)
    _write_annotations(raw_dir / _STIMULI / "annotations", plan)
    model = VoxelModel(sizes, seed)
    for subject, number in enumerate(sizes.subjects):
        ppdata = raw_dir / "nsddata" / "ppdata" / f"subj{number:02d}"
        _write_responses(ppdata / "behav" / "responses.tsv", plan, sizes, number)
        mask = model.mask(subject)
        region = np.where(mask, 1, np.where(_brain(mask), 0, -1))  # -1 beyond the brain
        _write_nifti(ppdata / "func1pt8mm" / "roi" / "nsdgeneral.nii.gz", mask.shape, [region])
        coordinates = _mni_coordinates(model.centres(subject).reshape(*mask.shape, 3), _brain(mask))
        path = ppdata / "transforms" / "MNI-to-func1pt8.nii.gz"
        _write_nifti(path, coordinates.shape, [coordinates], "<f4")
        _write_betas(raw_dir, plan, model, sizes, subject, seed, with_hdf5=subject == 0 and preset.name != "full")
    test = plan.latents[plan.shared - 1]
    stamp = simulated_stamp(
        preset, "fmri", seed, ceiling.compute("fmri", model, sizes, test, seed),
        n_sessions=sizes.n_sessions, trials_per_session=sizes.trials_per_session,
        n_voxels={f"sub-{number:02d}": n for number, n in zip(sizes.subjects, sizes.n_voxels, strict=True)},
    )  # fmt: skip
    (raw_dir / "SIMULATED.json").write_text(json.dumps(stamp, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _plan(folder: Path, sizes: FmriPreset, seed: int) -> _Plan:
    """Draw images and their order, and write the stimuli; every image occurs in the recorded part if there is room."""
    rng = np.random.default_rng([seed, 102])
    n_total = sizes.n_shared + sizes.n_subjects * sizes.n_unshared
    ids = rng.permutation(np.arange(1, n_total + 1))
    shared = np.sort(ids[: sizes.n_shared])
    lists = np.zeros((_N_NSD_SUBJECTS, sizes.n_images), np.int64)
    lists[:, : sizes.n_shared] = shared
    for number, own in zip(sizes.subjects, np.split(ids[sizes.n_shared :], sizes.n_subjects), strict=True):
        lists[number - 1, sizes.n_shared :] = own
    positions = np.arange(1, sizes.n_images + 1)
    first = rng.permutation(positions)[: sizes.n_trials]
    repeats = np.repeat(positions, sizes.max_repeats - 1)
    later = rng.permutation(np.concatenate([repeats, np.setdiff1d(positions, first)]))
    n_recorded = sizes.n_trials - len(first)
    order = np.concatenate([rng.permutation(np.concatenate([first, later[:n_recorded]])), later[n_recorded:]])
    specs, latents = _write_stimuli(folder / "nsd_stimuli.hdf5", n_total, sizes.image_size, rng)
    return _Plan(order, lists, shared, latents, specs)


def _write_stimuli(path: Path, n_total: int, size: int, rng: np.random.Generator) -> tuple[list, np.ndarray]:
    """`imgBrick`, (n, size, size, 3) uint8; return specifications and latents."""
    import h5py

    from neural_clip.simulation.images import render, sample_specs
    from neural_clip.simulation.latent_space import image_embeds, latents

    specs, embeds = sample_specs(n_total, rng), []
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        bricks = file.create_dataset(
            "imgBrick", (n_total, size, size, 3), "u1", chunks=(1, size, size, 3), compression="gzip",
            compression_opts=1, track_times=False,
        )  # fmt: skip
        for start in range(0, n_total, _BATCH):
            pixels = np.stack([render(spec, size) for spec in specs[start : start + _BATCH]])
            bricks[start : start + len(pixels)] = pixels
            embeds.append(image_embeds(pixels))
    return specs, latents(np.concatenate(embeds))


def _write_design(path: Path, plan: _Plan) -> None:
    """`nsd_expdesign.mat`, MATLAB 5, with the date in its header replaced."""
    from scipy.io import savemat

    buffer = io.BytesIO()
    savemat(
        buffer,
        {"masterordering": plan.order[None].astype(float), "subjectim": plan.lists.astype(float),
         "sharedix": plan.shared[None].astype(float)},
    )  # fmt: skip
    content = bytearray(buffer.getvalue())
    content[:116] = b"MATLAB 5.0 MAT-file, simulated by neural_clip".ljust(116)  # the text part of the header
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _coco(plan: _Plan) -> list[tuple[int, str]]:
    """COCO id and split of every image; ids rise with nsdId, one image in eight is of val2017."""
    return [(1000 + 7 * i, "val2017" if i % 8 == 5 else "train2017") for i in range(len(plan.specs))]


def _crop() -> float:
    """Share of the COCO original's width that is cut from either side."""
    return (1 - 1 / _COCO_ASPECT) / 2


def _write_stim_info(path: Path, plan: _Plan, sizes: FmriPreset) -> None:
    """`nsd_stim_info_merged.csv`: 0-based image ids, 1-based trial numbers, 0 for "not shown"."""
    numbers = range(1, _N_NSD_SUBJECTS + 1)
    names = [f"subject{s}_rep{r}" for s in numbers for r in range(3)]
    header = ["cocoId", "cocoSplit", "cropBox", "loss", "nsdId", "flagged", "BOLD5000", "shared1000"]
    trials = np.zeros((len(plan.specs), len(names)), np.int64)
    for number in sizes.subjects:
        seen: dict[int, int] = {}
        for trial, image in enumerate(plan.ids(number).tolist(), start=1):
            repeat = seen[image] = seen.get(image, -1) + 1
            trials[image - 1, 3 * (number - 1) + repeat] = trial
    shared, crop = set(plan.shared.tolist()), (0, 0, round(_crop(), 6), round(_crop(), 6))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["", *header, *(f"subject{s}" for s in numbers), *names])
        for i, (coco_id, split) in enumerate(_coco(plan)):
            shown = [int(trials[i, 3 * (s - 1)] > 0) for s in numbers]
            flags = [False, False, i + 1 in shared]
            writer.writerow([i, coco_id, split, crop, 0.0, i, *flags, *shown, *trials[i].tolist()])


def _write_annotations(folder: Path, plan: _Plan) -> None:
    """COCO instances of the pretended originals, some with a second object in the part that was cut away."""
    from neural_clip.simulation.images import CATEGORIES, SHAPES

    width = round(_COCO_HEIGHT * _COCO_ASPECT)
    margin = _crop() * width
    categories = [
        {"id": i + 1, "name": name, "supercategory": SHAPES[i // (len(CATEGORIES) // len(SHAPES))]}
        for i, name in enumerate(CATEGORIES)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train2017", "val2017"):
        images: list[dict] = []
        annotations: list[dict] = []
        for i, ((coco_id, own), spec) in enumerate(zip(_coco(plan), plan.specs, strict=True)):
            if own != split:
                continue
            images.append({"id": coco_id, "width": width, "height": _COCO_HEIGHT})
            side = spec.size * _COCO_HEIGHT
            box = [margin + spec.x * _COCO_HEIGHT - side / 2, spec.y * _COCO_HEIGHT - side / 2, side, side]
            objects = [(spec.category, box)]
            if i % _DECOY_EVERY == 0:
                objects.append(((spec.category + 1) % len(CATEGORIES), [0, 0, margin / 2, _COCO_HEIGHT]))
            for category, place in objects:
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": coco_id, "category_id": category + 1, "iscrowd": 0,
                     "bbox": [round(float(x), 2) for x in place], "area": round(float(place[2] * place[3]), 2)}
                )  # fmt: skip
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")


def _run_lengths(n_trials: int) -> list[int]:
    """Trials of the twelve runs; odd runs take what cannot be shared evenly (63 and 62 of 750)."""
    lengths = [n_trials // _N_RUNS] * _N_RUNS
    for run in [*range(0, _N_RUNS, 2), *range(1, _N_RUNS, 2)][: n_trials % _N_RUNS]:
        lengths[run] += 1
    return lengths


def _write_responses(path: Path, plan: _Plan, sizes: FmriPreset, number: int) -> None:
    """`responses.tsv`: 1-based ids; the subject of this simulation never errs."""
    lengths = _run_lengths(sizes.trials_per_session)
    place = [(run, trial) for run, n in enumerate(lengths, 1) for trial in range(1, n + 1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    seen: set[int] = set()
    ids = plan.ids(number)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(_RESPONSES)
        for t in range(sizes.n_trials):
            session, row = divmod(t, sizes.trials_per_session)
            run, trial = place[row]
            old = int(ids[t] in seen)
            seen.add(int(ids[t]))
            time = session + row * 4 / 86400  # days; a trial takes 4 s
            fixed = [old, 1, 800, 0, "NaN", "NaN", old, 1, 1, 0, 1 + old, 0]
            writer.writerow([number, session + 1, run, trial, ids[t], plan.order[t], f"{time:.6f}", *fixed])


def _header(shape: tuple[int, ...], dtype: str) -> bytes:
    """NIfTI-1 header of a volume, up to the first value."""
    from nibabel import Nifti1Header

    header = Nifti1Header()
    header.set_data_dtype(np.dtype(dtype))
    header.set_data_shape(shape)
    header.set_zooms((_VOXEL_MM,) * 3 + (1.0,) * (len(shape) - 3))
    header.set_sform(np.diag([_VOXEL_MM] * 3 + [1.0]), code=1)
    header.set_slope_inter(1, 0)
    header["magic"], header["vox_offset"] = b"n+1", 352
    return header.binaryblock + b"\0" * 4  # no extensions


def _write_nifti(path: Path, shape: tuple[int, ...], blocks, dtype: str = "<i2") -> None:
    """Gzipped NIfTI-1 file from blocks whose Fortran order follows each other, without a time stamp."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as stream:
        stream.write(_header(shape, dtype))
        for block in blocks:
            stream.write(np.asarray(block, dtype).tobytes(order="F"))


def _mni_coordinates(centres: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Where voxels lie in the array of the MNI template, as NSD's transforms say: 1-based, from right to left.

    Args:
        centres (`np.ndarray` of shape `(X, Y, Z, 3)`): As fractions of the volume, whose axes run right, front and up.
        brain (`np.ndarray` of shape `(X, Y, Z)`, bool): Voxels that have a place; the others have the mark for none.
    """
    mm = _MNI_CORNER + _MNI_EDGE * centres
    return np.where(brain[..., None], _MNI_ORIGIN + mm * [-1, 1, 1], _NO_PLACE)


def _brain(mask: np.ndarray) -> np.ndarray:
    """The region and a shell of other voxels around it."""
    from scipy.ndimage import binary_dilation

    return binary_dilation(mask)


def _write_betas(
    raw_dir: Path, plan: _Plan, model, sizes: FmriPreset, subject: int, seed: int, with_hdf5: bool
) -> None:
    """Betas of all sessions of a subject; the voxels around the region hold noise, which no reader should use."""
    number, mask = sizes.subjects[subject], model.mask(subject)
    folder = raw_dir / "nsddata_betas" / "ppdata" / f"subj{number:02d}" / "func1pt8mm" / "betas_fithrf_GLMdenoise_RR"
    shell = _brain(mask) & ~mask
    images = plan.ids(number) - 1
    for session in range(sizes.n_sessions):
        rng = np.random.default_rng([seed, 2, subject, session])
        here = images[session * sizes.trials_per_session : (session + 1) * sizes.trials_per_session]
        values, _ = model.signal(subject, plan.latents[here], rng)
        values = values + model.noise(subject, len(here), rng)
        stored = np.clip(np.rint(values * _SCALE), -32768, 32767).astype(np.int16)
        other = rng.integers(-_SCALE, _SCALE, (len(here), int(shell.sum())), dtype=np.int16)
        shape = (*mask.shape, len(here))
        path = folder / f"betas_session{session + 1:02d}.nii.gz"
        _write_nifti(path, shape, (_volume(mask, shell, *rows) for rows in zip(stored, other, strict=True)))
        if with_hdf5:
            volumes = np.stack([_volume(mask, shell, *rows) for rows in zip(stored, other, strict=True)])
            _write_hdf5(path.with_name(f"betas_session{session + 1:02d}.hdf5"), volumes)


def _volume(mask: np.ndarray, shell: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """One trial's volume, int16 of shape (X, Y, Z)."""
    volume = np.zeros(mask.shape, np.int16)
    volume[mask], volume[shell] = inside, outside
    return volume


def _write_hdf5(path: Path, volumes: np.ndarray) -> None:
    """Betas as MATLAB stores them: (trial, X, Y, Z) in, (trial, Z, Y, X) for h5py, one chunk a voxel as in NSD."""
    import h5py

    with h5py.File(path, "w") as file:
        betas = volumes.transpose(0, 3, 2, 1)
        file.create_dataset("betas", data=betas, chunks=(len(betas), 1, 1, 1), track_times=False)
