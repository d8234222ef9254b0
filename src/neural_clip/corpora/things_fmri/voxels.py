"""The voxels of a subject of THINGS-fMRI: places, regions and noise ceilings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neural_clip.corpora.nsd.betas import read_mask
from neural_clip.corpora.things_fmri.facts import VISUAL, CorpusFacts
from neural_clip.corpora.things_fmri.layout import delimiter
from neural_clip.errors import DataError, did_you_mean
from neural_clip.files.numbers import number
from neural_clip.files.tables import read_columns, read_header, whole_number

CEILINGS = ("nc_singletrial", "nc_testset")
PLACES = ("voxel_x", "voxel_y", "voxel_z")
ATLAS = "glasser-"  # how the names of the 180 areas of that atlas begin
TOLERANCE = 0.1  # percent, by which the two noise ceilings may contradict each other
MOST_CONTRADICTING = 0.1  # of the voxels
N_COMPARED = 200  # voxels whose noise ceiling is computed anew, the best half at most
LEAST_COMPARED = 2.0  # percent; of lower ceilings nothing follows
LEAST_SHARE = 0.2  # of the published ceiling; betas of other trials give about none


@dataclass(frozen=True)
class Voxels:
    """Voxels that are taken, in the C order of the volume.

    Args:
        rows (`np.ndarray` of shape `(n_voxels,)`): Their places among all voxels of the brain.
        places (`np.ndarray` of shape `(n_voxels, 3)`): Indices in the volume.
        n_brain (`int`): Voxels of the brain.
        ceilings (`np.ndarray` of shape `(2, n_voxels)`, *optional*): Noise ceilings of single trials and of the mean
            of the test trials, in percent; NaN where none is told.
        mask_path (`Path`, *optional*): The brain mask.
        brain (`np.ndarray` of shape `(X, Y, Z)`, bool, *optional*): Its content.
        contradicting (`int`): Voxels whose two noise ceilings do not follow from each other.
        absent (`tuple[str, ...]`): Columns of `visual` that the table lacks, where `visual` was asked for.
        compared (`bool`): Whether noise ceilings were high enough to tell the order of the betas.
    """

    rows: np.ndarray
    places: np.ndarray
    n_brain: int
    ceilings: np.ndarray | None
    mask_path: Path | None
    brain: np.ndarray | None
    contradicting: int = 0
    absent: tuple[str, ...] = ()
    compared: bool = True

    @property
    def mask(self) -> np.ndarray:
        """The voxels that are taken, bool of the shape of the volume, or as small as holds them."""
        shape = self.places.max(axis=0) + 1 if self.brain is None else self.brain.shape
        mask = np.zeros(shape, bool)
        mask[tuple(self.places.T)] = True
        return mask


def read_voxels(
    table: Path | None, mask_path: Path | None, subject: int, facts: CorpusFacts, roi: Sequence[str], least: float
) -> Voxels:
    """Voxels of some regions, with a noise ceiling of the test set that is high enough.

    Args:
        table (`Path`, *optional*): `VoxelMetadata.csv`.
        mask_path (`Path`, *optional*): Mask of the brain.
        subject (`int`): Number.
        facts (`CorpusFacts`): Of the corpus.
        roi (`Sequence[str]`): Regions; their union is taken.
        least (`float`): Least noise ceiling, in percent.

    Raises:
        DataError: If a file is damaged, of another subject or contradicts the other, a region is unknown or has no
            voxel, or no voxel is left.
    """
    brain = None if mask_path is None else read_mask(mask_path)
    if table is None:
        if tuple(roi) != ("brain",) or least > 0 or brain is None:
            raise DataError(
                f"There is no VoxelMetadata.csv of sub-{subject:02d}, which tells regions and noise ceilings; without "
                "it, only --roi brain is possible, without --min-noise-ceiling."
            )
        places = np.argwhere(brain)
        return Voxels(np.arange(len(places)), places, len(places), None, mask_path, brain)
    header = read_header(table, delimiter(table))
    regions = _region_columns(header, roi)
    columns = list(dict.fromkeys(column for own in regions.values() for column in own))
    places, ceilings, flags = _read_table(table, subject, columns)
    inside = flags.any(axis=1) if regions else np.ones(len(places), bool)
    if brain is not None and not np.array_equal(np.argwhere(brain), places):
        raise DataError(
            f"'{mask_path}' marks {int(brain.sum())} voxels, '{table}' lists {len(places)}, and they are not the same "
            "in the same order. Do they belong to the same subject?"
        )
    for name, own in regions.items():
        if not flags[:, [columns.index(column) for column in own]].any():
            raise DataError(
                f"No voxel of sub-{subject:02d} is in {name!r}, by '{table}'. Choose regions that all people have by "
                "the 'roi' parameter, or other people by the 'subjects' parameter."
            )
    contradicting = _check_ceilings(table, ceilings, facts.n_sessions)
    with np.errstate(invalid="ignore"):
        rows = np.flatnonzero(inside & (ceilings[1] >= least if least > 0 else True))
    if not len(rows):
        raise DataError(
            f"No voxel of sub-{subject:02d} is left: {int(inside.sum())} are in {', '.join(roi)}, and none of "
            f"them has a noise ceiling of {least:g} % in '{table}'."
        )
    absent = tuple(name for name in VISUAL if "visual" in regions and name not in header)
    return Voxels(rows, places[rows], len(places), ceilings[:, rows], mask_path, brain, contradicting, absent)


def _region_columns(header: Sequence[str], roi: Sequence[str]) -> dict[str, list[str]]:
    """Columns of each region, as the file writes them; nothing for all voxels."""
    atlas = [name for name in header if name.startswith(ATLAS)]
    known: dict[str, list[str]] = {"visual": [name for name in VISUAL if name in header], "brain": []}
    for name in [*known["visual"], *atlas]:  # two names of the atlas hold a line break
        known["".join(name.removesuffix(" (prf)").split())] = [name]
        known[name] = [name]
        if name[0] == "r" and f"l{name[1:]}" in header:
            known[name[1:]] = [f"l{name[1:]}", name]
    for name in roi:
        if name not in known:
            listed = ", ".join(repr(key) for key in known if "(" not in key and not key.startswith(ATLAS))
            example = f", and {len(atlas)} names like {atlas[0]!r}" if atlas else ""
            raise DataError(
                f"Invalid value for the 'roi' parameter. Allowed values are {listed}{example}, but got {name!r} "
                f"instead.{did_you_mean(name, known)}"
            )
    return {} if "brain" in roi else {name: known[name] for name in roi}


def _read_table(table: Path, subject: int, columns: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places `(n, 3)`, noise ceilings `(2, n)` and whether voxels are in the columns' regions `(n, n_columns)`."""
    places: list[list[int]] = []
    ceilings, inside = [], bytearray()
    names = ["voxel_id", "subject_id", *PLACES, *CEILINGS, *columns]
    for line, cells in read_columns(table, names, delimiter(table)):
        voxel, of, *place = (
            whole_number(table, line, name, text) for name, text in zip(names[:5], cells, strict=False)
        )
        if of != subject:
            raise DataError(f"'{table}': line {line} is of subject {of}, not of {subject}. Is it another one's file?")
        if voxel != len(places):
            raise DataError(
                f"'{table}': line {line} is of voxel {voxel}, but voxel {len(places)} should follow. Row i belongs to "
                "row i of the betas."
            )
        flags = cells[7:]
        if wrong := [(name, flag) for name, flag in zip(names[7:], flags, strict=True) if flag not in FLAGS]:
            raise DataError(f"'{table}': line {line} has {wrong[0][1]!r} as {wrong[0][0]!r}; allowed are 0 and 1.")
        places.append(place)
        ceilings.append([_ceiling(table, line, *named) for named in zip(CEILINGS, cells[5:7], strict=True)])
        inside += bytes(FLAGS[flag] for flag in flags)
    found = np.array(places, dtype=np.int64).reshape(-1, 3)
    if not len(found):
        raise DataError(f"'{table}' lists no voxel.")
    _check_order(table, found)
    flagged = np.array(inside, dtype=bool).reshape(len(found), len(columns))
    return found, np.array(ceilings, dtype=np.float64).T, flagged


FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True}


def _ceiling(table: Path, line: int, name: str, text: str) -> float:
    """A noise ceiling in percent; NaN where the cell is empty."""
    if text.strip().lower() in ("", "nan"):
        return np.nan
    try:
        if 0 <= (value := number(text)) <= 100 + 1e-6:  # rounded
            return min(value, 100.0)
    except ValueError:
        pass
    raise DataError(f"'{table}': line {line} has {text!r} as {name}; allowed are 0 to 100, in percent.")


def _check_order(table: Path, places: np.ndarray) -> None:
    """Require places in the C order of a volume, each once."""
    if places.min() < 0 or places.max() >= 1 << 15:
        raise DataError(f"'{table}' has voxels at {places.min()} to {places.max()}; allowed are indices of a volume.")
    x, y, z = places.T
    order = (x << 32) + (y << 16) + z
    if (wrong := np.flatnonzero(np.diff(order) <= 0)).size:
        raise DataError(
            f"'{table}': voxel {wrong[0] + 1} at {places[wrong[0] + 1].tolist()} follows {places[wrong[0]].tolist()}; "
            "voxels should be in the C order of the volume, each once. Were rows or columns mixed up?"
        )


def _check_ceilings(table: Path, ceilings: np.ndarray, n_repeats: int) -> int:
    """How many pairs of noise ceilings do not follow from each other; a `DataError` where many do not or none is told.

    With q = nc_singletrial / (100 - nc_singletrial), the ceiling of a mean of n is 100 q / (q + 1 / n).
    """
    if np.isnan(ceilings).all(axis=1).any():
        raise DataError(
            f"'{table}' tells no noise ceilings, by which betas and trials are compared. Is it incomplete?"
        )
    single, mean = np.minimum(ceilings, 100 - 1e-9)
    ratio = single / (100 - single)
    with np.errstate(invalid="ignore"):
        wrong = np.abs(100 * n_repeats * ratio / (1 + n_repeats * ratio) - mean) > TOLERANCE
    if wrong.mean() > MOST_CONTRADICTING:
        voxel = int(wrong.argmax())
        raise DataError(
            f"The noise ceilings of {int(wrong.sum())} of {wrong.size} voxels in '{table}' contradict each other, "
            f"such as {ceilings[0, voxel]:.4g} % of single trials and {ceilings[1, voxel]:.4g} % of their mean over "
            f"{n_repeats} (voxel {voxel}). Were columns mixed up?"
        )
    return int(wrong.sum())


def noise_ceiling(betas: np.ndarray, n: int) -> np.ndarray:
    """Noise ceiling of the mean of n presentations, in percent.

    Args:
        betas (`np.ndarray` of shape `(n_repeats, n_images, n_voxels)`): Responses to images that were shown again.
        n (`int`): How many presentations are averaged.

    Source: `thingsmri/anc.py` of ViCCo-Group/THINGS-data, after Allen et al. 2022, doi:10.1038/s41593-021-00962-x.
    """
    spread = betas.std(axis=1, keepdims=True)
    scaled = (betas - betas.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, np.nan)
    noise = scaled.var(axis=0, ddof=1).mean(axis=0)
    signal = np.maximum(1 - noise, 0) / noise
    return 100 * signal / (signal + 1 / n)


def check_against_ceilings(where: str, betas: np.ndarray, told: np.ndarray) -> bool:
    """Refuse betas whose own noise ceilings have nothing to do with those that are told.

    That is so where the trials or voxels are in another order, or the betas are another person's.

    Args:
        where (`str`): The files, for the message.
        betas (`np.ndarray` of shape `(n_repeats, n_images, n_voxels)`): Of the voxels with the highest ceilings.
        told (`np.ndarray` of shape `(n_voxels,)`): Their noise ceilings of single trials, in percent.

    Returns:
        `bool`: Whether any ceiling is high enough to tell.

    Raises:
        DataError: If those of most voxels are less than a fifth of what is told, and this is high enough to tell.
    """
    found = np.nan_to_num(noise_ceiling(betas, 1))
    high = np.nan_to_num(told) >= LEAST_COMPARED
    if high.any() and np.median(found[high] / told[high]) < LEAST_SHARE:
        raise DataError(
            f"{where} do not belong together: by the betas of the test images, the median noise ceiling of "
            f"{int(high.sum())} voxels is {np.median(found[high]):.3g} % of single trials, by the table of voxels it "
            f"is {np.median(told[high]):.3g} %. Are trials or voxels in another order, or is one of the files another "
            "person's?"
        )
    return bool(high.any())
