"""Simulated twin of THINGS-fMRI, written in the formats of the real single-trial betas.

As in the real design, a session shows a new image of each concept and all test images, whose concepts are among them;
betas are small numbers of arbitrary unit. The published folders of three test images are the first word of their
concept, as in the real files.

```
betas_csv/sub-01_{ResponseData.h5,StimulusMetadata.csv,VoxelMetadata.csv}     as pandas writes them
betas_vol/sub-01/ses-things01/sub-01_ses-things01_run-01_{betas.nii.gz,conditions.tsv}     with catch trials
brainmasks/sub-01_space-T1w_brainmask.nii.gz
images/object_images/<concept>/<file>.jpg
```
"""

from __future__ import annotations

import csv
import gzip
import json
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neural_clip.corpora.things_fmri.facts import VISUAL, Trial
from neural_clip.errors import check_value
from neural_clip.simulation.images import CONCEPTS, ImageSpec, render
from neural_clip.simulation.presets import ThingsFmriPreset, TwinPreset
from neural_clip.simulation.things_images import FMRI_INDEX as CORPUS_INDEX
from neural_clip.simulation.things_images import ThingsImages, concept_of

N_WRONG_FOLDERS = 3
BETA_RMS = 0.1  # of the published betas, which are of z-scored runs
VOXEL_MM = 2.0
_ATLAS = (
    "V1 MST V6 V2 V3 V4 V8 4 3b FEF PEF 55b V3A RSC POS2 V7 IPS1 FFC V3B LO1 LO2 PIT MT A1 PSL SFL PCV STV 7Pm 7m "
    "POS1 23d v23ab d23ab 31pv 5m 5mv 23c 5L 24dd 24dv 7AL SCEF 6ma 7Am 7Pl 7PC LIPv VIP MIP 1 2 3a 6d 6mp 6v p24pr "
    "33pr a24pr p32pr a24 d32 8BM p32 10r 47m 8Av 8Ad 9m 8BL 9p 10d 8C 44 45 47l a47r 6r IFJa IFJp IFSp IFSa p9-|46v "
    "46 a9-|46v 9-46d 9a 10v a10p 10pp 11l 13l OFC 47s LIPd 6a i6-8 s6-8 43 OP4 OP1 OP2-3 52 RI PFcm PoI2 TA2 FOP4 "
    "MI Pir AVI AAIC FOP1 FOP3 FOP2 PFt AIP EC PreS H ProS PeEc STGa PBelt A5 PHA1 PHA3 STSda STSdp STSvp TGd TE1a "
    "TE1p TE2a TF TE2p PHT PH TPOJ1 TPOJ2 TPOJ3 DVT PGp IP2 IP1 IP0 PFop PF PFm PGi PGs V6A VMV1 VMV3 PHA2 V4t FST "
    "V3CD LO3 VMV2 31pd 31a VVC 25 s32 pOFC PoI1 Ig FOP5 p10p p47r TGv MBelt LBelt A4 STSva TE1m PI a32pr p24"
)
ATLAS = [f"glasser-{name}".replace("|", "\n") for name in _ATLAS.split()]
"""The 180 areas in the order of the published columns; two names hold a line break."""
MEASURES = (
    "voxel_id", "subject_id", "voxel_x", "voxel_y", "voxel_z", "nc_singletrial", "nc_testset",
    "splithalf_uncorrected", "splithalf_corrected", "prf-eccentricity", "prf-polarangle", "prf-rsquared", "prf-size",
)  # fmt: skip


@dataclass(frozen=True)
class Stimulus:
    """An image: what it shows, and its file, which begins with the concept."""

    spec: ImageSpec
    file: str
    concept: str
    folder: str


def write(raw_dir: str | Path, preset: TwinPreset, seed: int) -> None:
    """Write the simulated corpus.

    Args:
        raw_dir (`str` or `Path`): Folder to make.
        preset (`TwinPreset`): Sizes and dials; the part `things_fmri` is used.
        seed (`int`): Equal seeds give equal bytes.

    Raises:
        DataError: If the preset asks for more concepts than there are, or for more test images than concepts.
    """
    from tqdm import tqdm

    from neural_clip.simulation.ceiling import compute
    from neural_clip.simulation.generative import simulated_stamp
    from neural_clip.simulation.voxel_model import VoxelModel

    raw_dir, sizes = Path(raw_dir), preset.things_fmri
    check_value("n_concepts", sizes.n_concepts, sizes.n_concepts <= len(CONCEPTS), f"up to {len(CONCEPTS)}")
    check_value("n_test_images", sizes.n_test_images, sizes.n_test_images < sizes.n_concepts, "less than concepts")
    raw_dir.mkdir(parents=True, exist_ok=True)
    stimuli = make_stimuli(ThingsImages(preset, seed))
    latents = {kind: _write_images(raw_dir, own, sizes.image_size) for kind, own in stimuli.items()}
    model = VoxelModel(sizes, seed)
    for index in tqdm(range(sizes.n_subjects), desc="simulated THINGS-fMRI", unit="person"):
        trials, numbers = make_trials(sizes, stimuli, np.random.default_rng([seed, CORPUS_INDEX, index, 0]))
        _write_subject(raw_dir, sizes, seed, index, model, trials, numbers, latents)
    stamp = simulated_stamp(preset, "things_fmri", seed, compute("fmri", model, sizes, latents["test"], seed))
    (raw_dir / "SIMULATED.json").write_text(json.dumps(stamp, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def make_stimuli(images: ThingsImages) -> dict[str, list[Stimulus]]:
    """Training images by concept and session, and test images, of some of these concepts."""
    wrong = {name: concept_of(name).split("_")[0] for name in images.fmri["test"][:N_WRONG_FOLDERS]}
    return {
        kind: [
            Stimulus(images.spec(name), f"{name}.jpg", concept_of(name), wrong.get(name, concept_of(name)))
            for name in names
        ]
        for kind, names in images.fmri.items()
    }


def _write_images(raw_dir: Path, stimuli: Sequence[Stimulus], size: int) -> np.ndarray:
    """Folders of concepts with JPEG files; returns the latents of the images."""
    from PIL import Image

    from neural_clip.simulation.latent_space import image_embeds, latents

    pictures = [render(stimulus.spec, size) for stimulus in stimuli]
    for stimulus, picture in zip(stimuli, pictures, strict=True):
        path = raw_dir / "images" / "object_images" / stimulus.concept / stimulus.file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, quality=95, subsampling=0)
    return latents(image_embeds(np.stack(pictures)))


def make_trials(
    sizes: ThingsFmriPreset, stimuli: dict[str, list[Stimulus]], rng: np.random.Generator
) -> tuple[list[Trial | None], list[tuple[str, int]]]:
    """Trials of a subject in order, catch trials as `None`; and kind and number of the image of each other one."""
    trials: list[Trial | None] = []
    numbers = []
    exemplars = np.stack([rng.permutation(sizes.n_sessions) for _ in range(sizes.n_concepts)])
    for session in range(1, sizes.n_sessions + 1):
        shown = [("train", c * sizes.n_sessions + int(own[session - 1])) for c, own in enumerate(exemplars)]
        shown += [("test", number) for number in range(sizes.n_test_images)] + [("catch", 0)] * sizes.n_catch
        for run, places in enumerate(np.array_split(rng.permutation(len(shown)), sizes.n_runs), 1):
            for kind, number in (shown[place] for place in places):
                if kind == "catch":
                    trials.append(None)
                    continue
                one = stimuli[kind][number]
                trials.append(Trial(session, run, kind, one.file.rpartition(".")[0], one.file, one.folder))
                numbers.append((kind, number))
    return trials, numbers


def _write_subject(
    raw_dir: Path, sizes: ThingsFmriPreset, seed: int, index: int, model, trials: Sequence[Trial | None],
    numbers: Sequence[tuple[str, int]], latents: dict[str, np.ndarray],
) -> None:  # fmt: skip
    """Tables, volumes and mask of a subject."""
    from scipy.ndimage import binary_dilation

    region, name = model.mask(index), f"sub-{sizes.subjects[index]:02d}"
    brain = binary_dilation(region)
    seen = np.stack([latents[kind][number] for kind, number in numbers])
    per_session = len(trials) // sizes.n_sessions  # catch trials included
    betas = []
    for session in range(sizes.n_sessions):
        rng = np.random.default_rng([seed, CORPUS_INDEX, index, 1, session])
        own = trials[session * per_session : (session + 1) * per_session]
        values = rng.normal(0, 1, (per_session, int(brain.sum()))).astype(np.float32) * BETA_RMS
        shown = seen[session * sizes.session_trials : (session + 1) * sizes.session_trials]
        inside = model.signal(index, shown, rng)[0] + model.noise(index, len(shown), rng)
        scale = BETA_RMS / (model.noise_scale * model.scale)
        values[np.ix_([trial is not None for trial in own], region[brain])] = inside * scale
        betas.append(values.astype(np.float64))
        _write_volumes(raw_dir / "betas_vol" / name, name, session + 1, own, values, brain, sizes.n_runs)
    kept = np.concatenate(betas)[[trial is not None for trial in trials]]
    folder = raw_dir / "betas_csv"
    folder.mkdir(exist_ok=True)
    write_frame(folder / f"{name}_ResponseData.h5", kept.T)
    shown_trials = [trial for trial in trials if trial is not None]
    _write_stimuli(folder / f"{name}_StimulusMetadata.csv", sizes.subjects[index], shown_trials)
    ceilings = _noise_ceilings(kept, shown_trials)
    _write_voxels(folder / f"{name}_VoxelMetadata.csv", sizes.subjects[index], brain, region, ceilings)
    path = raw_dir / "brainmasks" / f"{name}_space-T1w_brainmask.nii.gz"
    _write_nifti(path, brain.shape, [brain], "u1")


def _write_volumes(
    folder: Path, name: str, session: int, trials: Sequence[Trial | None], values: np.ndarray, brain: np.ndarray,
    n_runs: int,
) -> None:  # fmt: skip
    """Betas and images of each run, catch trials included."""
    first = 0
    for run, own in enumerate(np.array_split(np.arange(len(trials)), n_runs), 1):
        stem = folder / f"ses-things{session:02d}" / f"{name}_ses-things{session:02d}_run-{run:02d}"
        some = trials[first : first + len(own)]
        first += len(own)
        blocks = (_volume(brain, values[number]) for number in own)
        _write_nifti(stem.with_name(f"{stem.name}_betas.nii.gz"), (*brain.shape, len(own)), blocks, "<f8")
        with stem.with_name(f"{stem.name}_conditions.tsv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(["", "image_filename"])
            for row, trial in enumerate(some):
                shown = f"{trial.folder}/{trial.file}" if trial else f"catch{row + 1:03d}.jpg"
                writer.writerow([row, shown])


def _volume(brain: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A volume of the voxels of the brain, 0 elsewhere."""
    volume = np.zeros(brain.shape)
    volume[brain] = values
    return volume


def _write_nifti(path: Path, shape: tuple[int, ...], blocks: Iterable[np.ndarray], dtype: str) -> None:
    """Gzipped NIfTI-1 file from blocks whose Fortran order follows each other, without a time stamp."""
    from nibabel import Nifti1Header

    header = Nifti1Header()
    header.set_data_dtype(np.dtype(dtype))
    header.set_data_shape(shape)
    header.set_zooms((VOXEL_MM,) * 3 + (1.0,) * (len(shape) - 3))
    header.set_sform(np.diag([VOXEL_MM] * 3 + [1.0]), code=1)
    header.set_slope_inter(1, 0)
    header["magic"], header["vox_offset"] = b"n+1", 352
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as stream:
        stream.write(header.binaryblock + b"\0" * 4)  # no extensions
        for block in blocks:
            stream.write(np.asarray(block, dtype).tobytes(order="F"))


def write_frame(path: Path, betas: np.ndarray) -> None:
    """Betas `(n_voxels, n_trials)` as `DataFrame.to_hdf(path, key="ResponseData")` of pandas writes them.

    The frame has the columns `voxel_id` and 0, 1, ...; labels that are no text are pickled by PyTables.
    """
    import h5py

    n_voxels, n_trials = betas.shape
    group_marks = {"CLASS": "GROUP", "VERSION": "1.0"}
    with h5py.File(path, "w") as file:
        _mark(file, group_marks | {"PYTABLES_FORMAT_VERSION": "2.1"})
        group = file.create_group("ResponseData")
        varieties = {f"{name}_variety": "regular" for name in ("axis0", "axis1", "block0_items", "block1_items")}
        _mark(group, group_marks | varieties | {"encoding": "UTF-8", "errors": "strict", "pandas_type": "frame"})
        group.attrs["nblocks"], group.attrs["ndim"] = np.int64(2), np.int64(2)
        numbers = list(range(n_trials))
        _labels(group, "axis0", ["voxel_id", *numbers])
        _array(group, "axis1", np.arange(n_voxels), "integer")
        _array(group, "block0_values", betas)
        _labels(group, "block0_items", numbers)
        _array(group, "block1_values", np.arange(n_voxels)[:, None])
        _array(group, "block1_items", np.array([b"voxel_id"]), "string")


def _mark(node, marks: dict[str, str]) -> None:
    """Attributes of text as PyTables stores them: UTF-8 of a fixed length."""
    import h5py

    for name, text in marks.items():
        node.attrs.create(name, text.encode(), dtype=h5py.string_dtype("utf-8", len(text)))


def _array(group, name: str, values: np.ndarray, kind: str | None = None) -> None:
    """An array as PyTables stores it; `kind` is that of labels."""
    dataset = group.create_dataset(name, data=values, track_times=False)
    _mark(dataset, {"CLASS": "ARRAY", "FLAVOR": "numpy", "VERSION": "2.4"} | ({"kind": kind} if kind else {}))
    dataset.attrs["transposed"] = np.uint8(1)
    if kind:
        dataset.attrs["name"] = np.bytes_(b"N.")  # None, pickled


def _labels(group, name: str, labels: list) -> None:
    """Labels of several types as PyTables stores them: one pickle."""
    import h5py

    objects = np.empty(len(labels), dtype=object)
    objects[:] = labels
    dataset = group.create_dataset(name, (1,), dtype=h5py.vlen_dtype(np.uint8), track_times=False)
    dataset[0] = np.frombuffer(pickle.dumps(objects, protocol=4), np.uint8)
    _mark(dataset, {"CLASS": "VLARRAY", "PSEUDOATOM": "object", "VERSION": "1.4", "kind": "object"})
    dataset.attrs["name"], dataset.attrs["transposed"] = np.bytes_(b"N."), np.uint8(1)


def _write_stimuli(path: Path, subject: int, trials: Sequence[Trial]) -> None:
    """`StimulusMetadata.csv`: row i is column i of the betas."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial_type", "session", "run", "subject_id", "trial_id", "stimulus", "concept"])
        for number, trial in enumerate(trials):
            writer.writerow([trial.kind, trial.session, trial.run, subject, number, trial.file, trial.folder])


def _noise_ceilings(betas: np.ndarray, trials: Sequence[Trial]) -> np.ndarray:
    """Noise ceilings of single trials and of the mean of the repeats, `(2, n_voxels)`, in percent, of the test images.

    Source: `thingsmri/anc.py` of ViCCo-Group/THINGS-data, after Allen et al. 2022, doi:10.1038/s41593-021-00962-x.
    """
    places: dict[str, list[int]] = {}
    for number, trial in enumerate(trials):
        if trial.kind == "test":
            places.setdefault(trial.image_id, []).append(number)
    values = betas[np.array(list(places.values())).T]  # (n_repeats, n_images, n_voxels)
    scaled = (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)
    noise = scaled.var(0, ddof=1).mean(0)
    signal = np.maximum(1 - noise, 0) / noise
    return np.stack([100 * signal / (signal + 1 / n) for n in (1, len(values))])


def _write_voxels(path: Path, subject: int, brain: np.ndarray, region: np.ndarray, ceilings: np.ndarray) -> None:
    """`VoxelMetadata.csv`: all voxels of the brain in C order, with regions from back to front.

    What nothing reads is 0: reliabilities, receptive fields, and areas of the atlas but for the first, which is V1.
    """
    places, inside = np.argwhere(brain), region[brain]
    order = np.flatnonzero(inside)[np.argsort(places[inside][:, 1], kind="stable")]
    area = np.full(len(places), -1)
    for number, own in enumerate(np.array_split(order, len(VISUAL))):
        area[own] = number
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*MEASURES, *VISUAL, *ATLAS])
        for voxel, place in enumerate(places.tolist()):
            told = [voxel, subject, *place, *(repr(float(value)) for value in ceilings[:, voxel])]
            told += [0.0] * (len(MEASURES) - len(told))
            flags = [int(area[voxel] == number) for number in range(len(VISUAL))]
            writer.writerow([*told, *flags, flags[0], *[0] * (len(ATLAS) - 1)])
