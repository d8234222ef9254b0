"""Options of `prepare` for the Natural Scenes Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_clip.options import Options, option
from neural_clip.prepared.splits import check_fraction

N_SESSIONS = 37
"""The sessions that were public until August 2023, and those of the paper."""
DEFAULT_ROI = "nsdgeneral"
ANNOTATIONS_DIR = "nsddata_stimuli/stimuli/nsd/annotations"
"""Where readers of NSD look for COCO's `instances_*.json`, below the raw folder."""


@dataclass(frozen=True, kw_only=True)
class NsdOptions(Options):
    """Options of `prepare`; here is what the help of a field leaves out.

    Args:
        n_sessions (`int`, *optional*): Sessions to use, from the first on. Default 37, as in arXiv 2411.09723: 24,980
            and 2,770 trials of 8,859 unshared and 982 shared images for every subject. A simulated corpus uses all of
            its own.
        average_repeats (`bool`): One row an image, the mean of its presentations (the paper's convention), or one
            row a presentation. `n_repeats` tells how many; with 37 sessions test images have one to three.
        session_zscore (`str`): `"train_only"` z-scores each voxel within each session with mean and standard
            deviation of the training trials, which removes drift between sessions; neither shared nor validation
            images take part in the fit. `"none"` leaves percent signal change.
        roi (`str`): Region by the name of its file in `func1pt8mm/roi`, such as `"nsdgeneral"`, `"streams"`,
            `"prf-visualrois"`, `"Kastner2015"` or `"lh.floc-faces"`; or the path of a NIfTI-1 file on the same grid,
            in which `{subject}` stands for `subj01` and so on.
        betas_format (`str`): `"nifti"`, `"hdf5"` or `"auto"`, which prefers NIfTI. Both give the same numbers; only
            NIfTI has checksums.
        annotations_dir (`str` or `Path`, *optional*): Folder of COCO's `instances_train2017.json` and
            `instances_val2017.json`, for `categories`. Default `nsddata_stimuli/stimuli/nsd/annotations` if it exists;
            without it, categories are empty.
        allow_partial (`bool`): Take the sessions that there are where some are missing, and subjects without
            `responses.tsv`; the data set is marked as partial. Trials keep their numbers.
    """

    subjects: Sequence[str] | None = option(None, "such as sub-01 sub-05; default all with betas", nargs="+")
    n_sessions: int | None = option(
        None, f"sessions from the first on; default {N_SESSIONS}, all of a simulated corpus", type=int, least=1
    )
    average_repeats: bool = option(True, "one row an image, or one a trial")
    session_zscore: str = option("train_only", "fitted on training trials, or none", choices=("train_only", "none"))
    roi: str = option(DEFAULT_ROI, "name of a file in func1pt8mm/roi, or a path with {subject} for subj01, ...")
    roi_values: Sequence[int] | None = option(
        None, "values that mark wanted voxels; default all above 0", type=int, nargs="+"
    )
    validation_fraction: float = option(0.1, "share of the unshared images", type=float)
    seed: int = option(0, "seed of the choice of validation images", type=int, least=0)
    betas_format: str = option("auto", "auto prefers nifti", choices=("auto", "nifti", "hdf5"))
    annotations_dir: str | Path | None = option(None, f"COCO instances; default RAW_DIR/{ANNOTATIONS_DIR}", type=Path)
    allow_partial: bool = option(False, "take the sessions that are there; the set is marked as partial")
    num_proc: int = option(1, "parts (subjects, or sessions) written at a time", type=int, metavar="N", least=1)
    overwrite: bool = option(False, "replace an existing output folder")

    def __post_init__(self) -> None:
        """Check what can be checked before files are read."""
        super().__post_init__()
        check_fraction("validation_fraction", self.validation_fraction)
