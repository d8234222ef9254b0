"""Where the files of a local copy of the Natural Scenes Dataset lie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from neural_clip.errors import DataError, check_option, check_value

BETAS_DIR = "func1pt8mm/betas_fithrf_GLMdenoise_RR"
STIMULI_FILE = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
_SUFFIXES = {"nifti": ".nii.gz", "hdf5": ".hdf5"}


def find_subjects(raw_dir: Path, subjects: Sequence[str] | None) -> list[int]:
    """Numbers of the asked-for subjects, 1 to 8; default all that have a folder of betas.

    Raises:
        DataError: If there is none, or one that was asked for is absent.
    """
    folders = sorted((raw_dir / "nsddata_betas" / "ppdata").glob("subj0[1-8]"))
    available = [f"sub-{folder.name[-2:]}" for folder in folders]
    if not available:
        raise DataError(f"'{raw_dir}' has no folder nsddata_betas/ppdata/subj01 to subj08; is it a copy of NSD?")
    for subject in subjects or []:
        check_option("subjects", subject, available)
    return sorted({int(re.sub(r"\D", "", subject)) for subject in subjects or available})


def available_sessions(raw_dir: Path, subject: int, betas_format: str = "auto") -> dict[int, Path]:
    """Files of betas of a subject by session, counted from 1."""
    folder = raw_dir / "nsddata_betas" / "ppdata" / f"subj{subject:02d}" / BETAS_DIR
    found: dict[int, Path] = {}
    for name, suffix in _SUFFIXES.items():
        if betas_format in ("auto", name):
            for path in sorted(folder.glob(f"betas_session[0-9][0-9]{suffix}")):
                found.setdefault(int(path.name[len("betas_session") : -len(suffix)]), path)
    return dict(sorted(found.items()))


def region_file(raw_dir: Path, subject: int, roi: str, n_subjects: int) -> Path:
    """File of a region of a subject: one of NSD's own by name, or any other by its path.

    Args:
        raw_dir (`Path`): Root of the corpus.
        subject (`int`): 1 to 8.
        roi (`str`): Such as `nsdgeneral`, or a path that ends in `.nii` or `.nii.gz`; `{subject}` in it stands for
            `subj01` and so on.
        n_subjects (`int`): How many subjects the region is wanted for.

    Raises:
        DataError: If one path is to serve several subjects, or the name is empty.
    """
    if not roi.endswith((".nii", ".nii.gz")):
        allowed = "a name such as 'nsdgeneral' or 'prf-visualrois', or a path that ends in .nii or .nii.gz"
        check_value("roi", roi, bool(roi) and not {"/", "\\"} & set(roi), allowed)
        return _ppdata(raw_dir, subject) / "func1pt8mm" / "roi" / f"{roi}.nii.gz"
    if n_subjects > 1 and "{subject}" not in roi:
        raise DataError(
            "Invalid value for the 'roi' parameter. A file holds the region of one subject: name one with the "
            "'subjects' parameter (--subjects), or write {subject} for subj01, ... in the path, but got "
            f"{roi!r} for {n_subjects} subjects."
        )
    return Path(roi.replace("{subject}", f"subj{subject:02d}"))


def responses_file(raw_dir: Path, subject: int) -> Path:
    """Behavioural record of a subject."""
    return _ppdata(raw_dir, subject) / "behav" / "responses.tsv"


def places_file(raw_dir: Path, subject: int) -> Path:
    """For each voxel of the 1.8 mm volume, where it lies in MNI space; NSD names such files `SOURCE-to-TARGET`, where
    the volume of the target says where in the source each of its voxels is to be looked up.
    """
    return _ppdata(raw_dir, subject) / "transforms" / "MNI-to-func1pt8.nii.gz"


def _ppdata(raw_dir: Path, subject: int) -> Path:
    """Folder of a subject's regions and behaviour."""
    return raw_dir / "nsddata" / "ppdata" / f"subj{subject:02d}"
