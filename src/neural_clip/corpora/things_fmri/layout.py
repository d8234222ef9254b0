"""Where the files of THINGS-fMRI lie, as figshare (`betas_csv`, `betas_vol`) and OpenNeuro (derivatives) have them."""

from __future__ import annotations

import os
from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.files.reading import existing, read_text

SOURCE = "figshare+ (doi.org/10.25452/figshare.plus.20492835)"
CHOOSE = (
    "Choose other people with the 'subjects' parameter (--subjects), or take those who are there with the "
    "'allow_partial' parameter (--allow-partial)."
)
# Of each kind: what figshare calls it, then what OpenNeuro's copy does (derivatives/ICA-betas of ds004192).
FILES = {
    "responses": ("ResponseData.h5", "voxel-wise-responses.h5"),
    "stimuli": ("StimulusMetadata.csv", "stimulus-metadata.tsv", "stimulus-metadata.csv"),
    "voxels": ("VoxelMetadata.csv", "voxel-metadata.tsv", "voxel-metadata.csv"),
}


def name_of(subject: int) -> str:
    """`"sub-01"`."""
    return f"sub-{subject:02d}"


def table_file(raw_dir: Path, subject: int, kind: str) -> Path:
    """File of the betas of a subject in tables, or of what belongs to them.

    Args:
        raw_dir (`Path`): The folder, that of figshare's unpacked archive or OpenNeuro's derivatives.
        subject (`int`): Number.
        kind (`str`): `"responses"`, `"stimuli"` or `"voxels"`.

    Raises:
        DataError: If there is none; the message says what is there instead.
    """
    found = find_table_file(raw_dir, subject, kind)
    if found is not None:
        return existing(found, "file of THINGS-fMRI")
    _refuse_raw(raw_dir, subject)
    packed = next(iter([*raw_dir.glob("betas_csv.zip"), *raw_dir.glob("*/betas_csv.zip")]), None)
    unpack = f" Unpack '{packed}' first." if packed else ""
    raise DataError(
        f"'{raw_dir}' has no {name_of(subject)}_{FILES[kind][0]}, neither in itself nor in betas_csv; it is part of "
        f"{SOURCE}.{unpack} {CHOOSE}"
    )


def find_table_file(raw_dir: Path, subject: int, kind: str) -> Path | None:
    """The same, or `None` where there is none; links to nothing count."""
    name, (ours, *theirs) = name_of(subject), FILES[kind]
    folders = ("", f"{name}/voxel-metadata", f"derivatives/ICA-betas/{name}/voxel-metadata")
    places = [f"{name}_{ours}", f"betas_csv/{name}_{ours}"]
    places += [f"{folder}/{name}_task-things_{file}".lstrip("/") for folder in folders for file in theirs]
    return next((raw_dir / place for place in places if os.path.lexists(raw_dir / place)), None)


def delimiter(path: Path) -> str:
    """What separates the cells of a table, by its first line: some copies are called `.tsv` and have commas."""
    return "\t" if "\t" in read_text(path, "table").partition("\n")[0] else ","


def volume_places(raw_dir: Path, subject: int, session: int, run: int) -> tuple[Path, Path]:
    """Where the betas of a run and the list of its images are, or should be."""
    name = name_of(subject)
    stem = f"{name}_ses-things{session:02d}_run-{run:02d}"
    folders = [raw_dir / place / name / f"ses-things{session:02d}" for place in ("betas_vol", "")]
    folder = next((folder for folder in folders if os.path.lexists(folder / f"{stem}_conditions.tsv")), folders[0])
    return folder / f"{stem}_betas.nii.gz", folder / f"{stem}_conditions.tsv"


def volume_files(raw_dir: Path, subject: int, session: int, run: int) -> tuple[Path, Path]:
    """Betas of a run and the list of its images.

    Raises:
        DataError: If the list is not there; the betas of sessions that are not read need not be.
    """
    betas, conditions = volume_places(raw_dir, subject, session, run)
    if not os.path.lexists(conditions):
        _refuse_raw(raw_dir, subject)
        raise DataError(
            f"'{conditions}' does not exist. The lists of all runs of a person are needed, also where --sessions "
            f"chooses some: they tell test images from others. They are part of {SOURCE} (betas_vol). {CHOOSE}"
        )
    return betas, existing(conditions, "list of images")


def brain_mask_file(raw_dir: Path, subject: int) -> Path | None:
    """Mask of the brain, whose C order is that of the voxels; `None` where there is none."""
    name = f"{name_of(subject)}_space-T1w_brainmask.nii.gz"
    places = [raw_dir / "brainmasks" / name, raw_dir / name]
    return next((place for place in places if os.path.lexists(place)), None)


def _refuse_raw(raw_dir: Path, subject: int) -> None:
    """Say so where the folder holds the recordings, of which nobody has estimated responses."""
    recordings = next(raw_dir.glob(f"{name_of(subject)}/ses-things*/func/*_bold.nii.gz"), None)
    if recordings is not None:
        raise DataError(
            f"'{raw_dir}' holds the recordings of ds004192 (such as '{recordings.name}'), but no betas. Recordings "
            f"are not read: single-trial betas are needed. They are at {SOURCE}, as tables (betas_csv) and volumes "
            "(betas_vol)."
        )
