"""Natural Scenes Dataset: from a local copy to a prepared data set.

Eight people saw up to 10,000 images three times each during 7 T fMRI; 1,000 images are shared by all, the others were
shown to one person alone (Allen et al. 2022, doi:10.1038/s41593-021-00962-x). The prepared set holds betas of single
trials (fithrf_GLMdenoise_RR, 1.8 mm) in the voxels of `nsdgeneral`. The shared images are everybody's test split.
NSD's terms forbid redistribution: what this module writes stays with those who signed them.
"""

from __future__ import annotations

import argparse
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from neural_clip.corpora.nsd_betas import available_sessions, read_mask, read_session
from neural_clip.corpora.nsd_design import (
    Design,
    check_responses,
    check_stim_info,
    coco_categories,
    read_design,
    read_stim_info,
)
from neural_clip.corpora.stamp import read_stamp
from neural_clip.errors import DataError

__all__ = ["main", "prepare"]

N_SESSIONS = 37
"""The sessions that were public until August 2023, and those of the paper."""
TRIALS_PER_SESSION = 750
N_STIMULI, STIMULUS_SIZE = 73000, 425
STIMULI_FILE = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
ANNOTATIONS_DIR = "nsddata_stimuli/stimuli/nsd/annotations"
"""Where readers of NSD look for COCO's `instances_*.json`, below the raw folder."""
NSDGENERAL_VOXELS = {1: 15724, 2: 14278, 3: 15226, 4: 13153, 5: 13039, 6: 17907, 7: 12682, 8: 14386}
GRIDS = {1: (81, 104, 83), 2: (82, 106, 84), 5: (79, 97, 78), 7: (78, 95, 81)}
"""1.8 mm volumes of the subjects with 40 sessions (NSD data manual, "Technical notes")."""


@dataclass
class _Corpus:
    """What was read and checked before the first beta."""

    raw_dir: Path
    stamp: dict | None
    design: Design
    subjects: list[int]
    n_sessions: int
    trials_per_session: int
    sessions: dict[int, dict[int, Path]]
    masks: dict[int, np.ndarray]
    runs: dict[int, list[str]] = field(default_factory=dict)
    categories: dict[int, list[str]] = field(default_factory=dict)
    validation: set[str] = field(default_factory=set)
    defects: list[str] = field(default_factory=list)

    @property
    def n_trials(self) -> int:
        """Trials of one subject."""
        return self.n_sessions * self.trials_per_session

    def image_ids(self, subject: int) -> list[str]:
        """Image of every trial of a subject."""
        return [_image_id(i) for i in self.design.nsd_ids(subject, self.n_trials)]


def prepare(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    subjects: Sequence[str] | None = None,
    n_sessions: int | None = None,
    average_repeats: bool = True,
    session_zscore: str = "train_only",
    validation_fraction: float = 0.1,
    seed: int = 0,
    betas_format: str = "auto",
    annotations_dir: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Turn a local copy of NSD into a prepared data set folder.

    Args:
        raw_dir (`str` or `Path`): Root of the copy, with `nsddata`, `nsddata_betas` and `nsddata_stimuli`.
        output_dir (`str` or `Path`): Folder to write.
        subjects (`Sequence[str]`, *optional*): Such as `["sub-01", "sub-05"]`; default all with betas.
        n_sessions (`int`, *optional*): Sessions to use, from the first on. Default 37, as in arXiv 2411.09723; a
            simulated corpus uses all of its own.
        average_repeats (`bool`): One row an image, the mean of its presentations (the paper's convention), or one
            row a presentation. `n_repeats` tells how many; with 37 sessions test images have one to three.
        session_zscore (`str`): `"train_only"` z-scores each voxel within each session with mean and standard
            deviation of the training trials, which removes drift between sessions; `"none"` leaves percent signal
            change.
        validation_fraction (`float`): Share of each subject's unshared images that form the validation split.
        seed (`int`): Seed of the choice of validation images.
        betas_format (`str`): `"nifti"`, `"hdf5"` or `"auto"`, which prefers NIfTI.
        annotations_dir (`str` or `Path`, *optional*): Folder of COCO's `instances_train2017.json` and
            `instances_val2017.json`, for `categories`. Default `nsddata_stimuli/stimuli/nsd/annotations` if it exists;
            without it, categories are empty.
        overwrite (`bool`): Replace an existing `output_dir`.

    Returns:
        `Path`: The folder. Recordings are float32, as long as the subject's nsdgeneral, in C order of its mask.

    Raises:
        DataError: If a file is absent or damaged, or files contradict each other or the published counts.

    Memory: one session of masked betas, and, when averaging, one vector for each image that will be shown again.
    """
    from neural_clip.corpora.prepared import write_prepared

    if session_zscore not in ("train_only", "none"):
        raise DataError(
            "Invalid value for the 'session_zscore' parameter. Allowed values are 'train_only' and 'none', "
            f"but got '{session_zscore}' instead."
        )
    corpus = _open(Path(raw_dir), subjects, n_sessions, betas_format)
    _choose_validation(corpus, validation_fraction, seed)
    stim_info = read_stim_info(corpus.raw_dir)
    for subject in corpus.subjects:
        check_stim_info(corpus.raw_dir, stim_info, corpus.design, subject)
    _read_behaviour(corpus)
    _read_categories(corpus, stim_info, annotations_dir)
    parameters = {
        "n_sessions": corpus.n_sessions, "session_zscore": session_zscore, "betas": "fithrf_GLMdenoise_RR",
        "validation_fraction": validation_fraction, "validation_seed": seed, "betas_format": betas_format,
    }  # fmt: skip
    return write_prepared(
        output_dir,
        _metadata(corpus, average_repeats, session_zscore, parameters),
        _recordings(corpus, average_repeats, session_zscore),
        _images(corpus),
        overwrite=overwrite,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `prepare`."""
    parser = argparse.ArgumentParser(prog="nsd", description="Prepare the Natural Scenes Dataset from a local copy.")
    parser.add_argument("--raw-dir", type=Path, required=True, help="folder with nsddata, nsddata_betas, ...")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write")
    parser.add_argument("--subjects", nargs="+", help="such as sub-01 sub-05; default all with betas")
    parser.add_argument("--n-sessions", type=int, help=f"default {N_SESSIONS}; all of a simulated corpus")
    parser.add_argument("--average-repeats", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--session-zscore", choices=("train_only", "none"), default="train_only")
    parser.add_argument("--validation-fraction", type=float, default=0.1, help="share of the unshared images")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of validation images")
    parser.add_argument("--betas-format", choices=("auto", "nifti", "hdf5"), default="auto")
    parser.add_argument("--annotations-dir", type=Path, help=f"COCO instances; default RAW_DIR/{ANNOTATIONS_DIR}")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output folder")
    arguments = vars(parser.parse_args(argv))
    print(prepare(arguments.pop("raw_dir"), arguments.pop("output_dir"), **arguments))


def _image_id(nsd_id: int) -> str:
    """Name of an image from its 0-based nsdId."""
    return f"nsd-{nsd_id:05d}"


def _open(raw_dir: Path, subjects: Sequence[str] | None, n_sessions: int | None, betas_format: str) -> _Corpus:
    """Find subjects and sessions, read design and masks, and check their sizes."""
    stamp = read_stamp(raw_dir)
    numbers = _find_subjects(raw_dir, subjects)
    if n_sessions is None:
        n_sessions = stamp["n_sessions"] if stamp else N_SESSIONS
    if n_sessions < 1:
        raise DataError(f"Invalid value for the 'n_sessions' parameter. It must be 1 or more, but got {n_sessions}.")
    sessions = {}
    for subject in numbers:
        found = available_sessions(raw_dir, subject, betas_format)
        absent = [number for number in range(1, n_sessions + 1) if number not in found]
        if absent:
            raise DataError(
                f"Subject sub-{subject:02d} lacks the betas of session {absent[0]}; {n_sessions} sessions are asked "
                f"for and {len(found)} are in '{raw_dir}'. Choose fewer with the 'n_sessions' parameter "
                "(--n-sessions), or other subjects (3, 4, 6 and 8 have fewer than 37)."
            )
        sessions[subject] = {number: found[number] for number in range(1, n_sessions + 1)}
    masks = {s: read_mask(_ppdata(raw_dir, s) / "func1pt8mm" / "roi" / "nsdgeneral.nii.gz") for s in numbers}
    _check_masks(masks, stamp)
    design = read_design(raw_dir, numbers, official=not stamp)
    per_session = stamp["trials_per_session"] if stamp else TRIALS_PER_SESSION
    return _Corpus(raw_dir, stamp, design, numbers, n_sessions, per_session, sessions, masks)


def _ppdata(raw_dir: Path, subject: int) -> Path:
    """Folder of a subject's masks and behaviour."""
    return raw_dir / "nsddata" / "ppdata" / f"subj{subject:02d}"


def _find_subjects(raw_dir: Path, subjects: Sequence[str] | None) -> list[int]:
    """Numbers of the asked-for subjects, 1 to 8."""
    folders = sorted((raw_dir / "nsddata_betas" / "ppdata").glob("subj0[1-8]"))
    available = [f"sub-{folder.name[-2:]}" for folder in folders]
    if not available:
        raise DataError(f"'{raw_dir}' has no folder nsddata_betas/ppdata/subj01 to subj08; is it a copy of NSD?")
    for subject in subjects or []:
        if subject not in available:
            raise DataError(
                f"Invalid value for the 'subjects' parameter. Allowed values are {', '.join(available)}, "
                f"but got '{subject}' instead."
            )
    return sorted({int(re.sub(r"\D", "", subject)) for subject in subjects or available})


def _check_masks(masks: dict[int, np.ndarray], stamp: dict | None) -> None:
    """Compare sizes with the published (or the simulated corpus' own) ones."""
    for subject, mask in masks.items():
        expected = stamp["n_voxels"][f"sub-{subject:02d}"] if stamp else NSDGENERAL_VOXELS[subject]
        if int(mask.sum()) != expected:
            raise DataError(
                f"nsdgeneral of subj{subject:02d} should mark {expected} voxels with values above 0, but marks "
                f"{int(mask.sum())}. Is it another subject's or another resolution's?"
            )
        grid = None if stamp else GRIDS.get(subject)
        if grid and mask.shape != grid:
            raise DataError(f"nsdgeneral of subj{subject:02d} should have shape {grid}, but has {mask.shape}.")


def _choose_validation(corpus: _Corpus, fraction: float, seed: int) -> None:
    """Take validation images from each subject's own, so that the choice does not depend on who else is prepared."""
    from neural_clip.corpora.prepared import validation_split

    shared = corpus.design.shared(corpus.n_trials)
    for subject in corpus.subjects:
        unshared = [i for i, is_shared in zip(corpus.image_ids(subject), shared, strict=True) if not is_shared]
        corpus.validation |= validation_split(unshared, fraction, seed)


def _read_behaviour(corpus: _Corpus) -> None:
    """Cross-check responses.tsv and take the runs from it; say so where it is absent."""
    for subject in corpus.subjects:
        path = _ppdata(corpus.raw_dir, subject) / "behav" / "responses.tsv"
        if path.is_file():
            corpus.runs[subject] = check_responses(
                path, subject, corpus.design, corpus.n_sessions, corpus.trials_per_session
            )
        else:
            message = f"responses.tsv of subj{subject:02d} is absent: trial order not cross-checked, runs unknown"
            warnings.warn(f"{message} ('{path}').", stacklevel=3)
            corpus.defects.append(message)
            corpus.runs[subject] = [""] * corpus.n_trials


def _read_categories(corpus: _Corpus, stim_info: list[dict[str, str]], annotations_dir: str | Path | None) -> None:
    """COCO categories of all images, or a remark that they are unknown."""
    folder = Path(annotations_dir) if annotations_dir else corpus.raw_dir / ANNOTATIONS_DIR
    if annotations_dir or folder.is_dir():
        corpus.categories = coco_categories(folder, stim_info, _shown(corpus))
    else:
        corpus.defects.append("categories are empty: no COCO annotations were given")


def _shown(corpus: _Corpus) -> list[int]:
    """0-based nsdIds of all images that were shown, sorted."""
    parts = [corpus.design.nsd_ids(subject, corpus.n_trials) for subject in corpus.subjects]
    return np.unique(np.concatenate(parts)).tolist()


def _recordings(corpus: _Corpus, average_repeats: bool, session_zscore: str) -> Iterator[dict]:
    """Rows for `write_prepared`, subject by subject."""
    from tqdm import tqdm

    total = len(corpus.subjects) * corpus.n_sessions
    with tqdm(total=total, desc="NSD", unit="session") as progress:
        for subject in corpus.subjects:
            trials = _trials(corpus, subject, session_zscore, progress)
            yield from _averages(trials, corpus.image_ids(subject)) if average_repeats else trials


def _trials(corpus: _Corpus, subject: int, session_zscore: str, progress) -> Iterator[dict]:
    """One row a presentation."""
    image_ids, shared = corpus.image_ids(subject), corpus.design.shared(corpus.n_trials)
    splits = [
        "test" if is_shared else "validation" if image_id in corpus.validation else "train"
        for image_id, is_shared in zip(image_ids, shared, strict=True)
    ]
    for session, path in corpus.sessions[subject].items():
        first = (session - 1) * corpus.trials_per_session
        betas = read_session(path, corpus.masks[subject], corpus.trials_per_session)  # (n_trials, n_voxels)
        if session_zscore == "train_only":
            here = splits[first : first + corpus.trials_per_session]
            betas = _zscore(path, betas, np.array([split == "train" for split in here]))
        for row, values in enumerate(betas):
            trial = first + row
            yield {
                "subject": f"sub-{subject:02d}", "session": f"ses-{session:02d}", "run": corpus.runs[subject][trial],
                "trial": trial, "image_id": image_ids[trial], "n_repeats": 1, "split": splits[trial], "fmri": values,
            }  # fmt: skip
        progress.update()


def _zscore(path: Path, betas: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Z-score voxels with statistics of the training trials; voxels that never vary become 0."""
    if train.sum() < 2:
        raise DataError(f"'{path}' has {train.sum()} training trials, too few for the 'session_zscore' parameter.")
    mean = betas[train].mean(0, dtype=np.float64)
    std = betas[train].std(0, dtype=np.float64)
    constant = std == 0
    if constant.any():
        warnings.warn(f"{constant.sum()} voxels of '{path}' are constant; they are set to 0.", stacklevel=2)
    zscores = (betas - mean) / np.where(constant, 1.0, std)
    zscores[:, constant] = 0.0
    return zscores.astype(np.float32)


def _averages(trials: Iterator[dict], image_ids: list[str]) -> Iterator[dict]:
    """One row an image: the mean of its presentations, given out at the last of them."""
    left = Counter(image_ids)
    pending: dict[str, dict] = {}
    for trial in trials:
        image_id = trial["image_id"]
        if image_id in pending:
            row = pending[image_id]
            row["fmri"] = row["fmri"] + trial["fmri"]
            row["n_repeats"] += 1
            row["session"] = row["session"] if row["session"] == trial["session"] else ""
            row["run"] = ""
        else:
            # a copy, as a view would keep the whole session in memory
            row = pending[image_id] = {**trial, "fmri": trial["fmri"].copy()}
        left[image_id] -= 1
        if left[image_id] == 0:
            del pending[image_id]
            row["fmri"] = row["fmri"] / np.float32(row["n_repeats"])
            yield row


def _images(corpus: _Corpus) -> Iterator[dict]:
    """Image rows for `write_prepared`; the file of all stimuli (40 GB) is read image by image, in its own order."""
    import h5py

    path = corpus.raw_dir / STIMULI_FILE
    try:
        with h5py.File(path, "r") as file:
            bricks = file["imgBrick"]
            _check_stimuli(path, bricks, corpus)
            for nsd_id in _shown(corpus):
                categories = corpus.categories.get(nsd_id, [])
                yield {
                    "image_id": _image_id(nsd_id), "image": bricks[nsd_id],
                    "concept": categories[0] if categories else "", "categories": categories,
                }  # fmt: skip
    except (OSError, KeyError, RuntimeError) as error:
        raise DataError(f"'{path}' cannot be read; the copy may be incomplete: {error}") from error


def _check_stimuli(path: Path, bricks, corpus: _Corpus) -> None:
    """Require (N, height, width, 3) of uint8 that holds every image."""
    expected = None if corpus.stamp else (N_STIMULI, STIMULUS_SIZE, STIMULUS_SIZE, 3)
    last = max(_shown(corpus))
    right = bricks.shape == expected if expected else bricks.ndim == 4 and bricks.shape[3] == 3
    if not right or bricks.dtype != np.uint8 or bricks.shape[0] <= last:
        raise DataError(
            f"'{path}': imgBrick should be uint8 of shape {expected or f'(more than {last}, height, width, 3)'}, "
            f"but is {bricks.dtype} of shape {bricks.shape}."
        )


def _metadata(corpus: _Corpus, average_repeats: bool, session_zscore: str, parameters: dict) -> dict:
    """Everything that neural_clip.json tells and that is not counted while writing."""
    zscored = session_zscore == "train_only"
    return {
        "format_version": 1, "corpus": "nsd", "modality": "fmri", "simulated": corpus.stamp,
        "ch_names": None, "n_chans": None, "n_times": None, "sfreq": None, "tmin": None,
        "unit": "z" if zscored else "percent signal change",
        "n_voxels": {f"sub-{s:02d}": int(mask.sum()) for s, mask in corpus.masks.items()}, "roi": "nsdgeneral",
        "grid_shapes": {f"sub-{s:02d}": list(mask.shape) for s, mask in corpus.masks.items()},
        "voxel_order": "C order of the NIfTI mask, numpy.argwhere(nsdgeneral > 0)",
        "split_protocol": f"test: shared images; validation: {parameters['validation_fraction']:g} of the unshared "
        f"images; {corpus.n_sessions} sessions",
        "split_unit": "image",
        "scaling": {"method": "z-score per voxel and session", "fit_scope": "train"} if zscored
        else {"method": "none", "fit_scope": "none"},
        "preprocessing": {**parameters, "average_repeats": average_repeats},
        "category_level": False, "block_confounded": False, "average_repeats": average_repeats, "image_encoder": None,
        "licence": "NSD Terms and Conditions: research and education only; no redistribution of the data or parts of "
        "them; no re-identification; cite the paper and acknowledge NSF IIS-1822683 and IIS-1822929.",
        # holds for simulated copies too: a stamp file must not be able to open the way for real data
        "redistribution": "forbidden",
        "citation": "Allen et al. 2022, A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial "
        "intelligence, Nature Neuroscience, doi:10.1038/s41593-021-00962-x",
        "source": "https://naturalscenesdataset.org", "known_defects": corpus.defects,
    }  # fmt: skip
