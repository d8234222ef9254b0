"""Options of [`simulate`] and of `neural-clip simulate`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from neural_clip.errors import DataError, check_value
from neural_clip.options import Options, option
from neural_clip.prepared.known_corpora import CORPUS_OF, TWINS
from neural_clip.simulation.presets import N_LATENTS, TwinPreset


@dataclass(frozen=True, kw_only=True)
class SimulateOptions(Options):
    """Options of [`simulate`]; here is what the help of a field leaves out.

    Args:
        shared_tuning (`float`, *optional*): The correlation of two people's tuning at the same place; it replaces
            `subject_deviation` of [`Dials`], which is the square root of what it leaves to 1.
        tuning_dimension (`float`, *optional*): See `Dials.tuning_dimension`.
    """

    seed: int = option(0, "same seed, same bytes", type=int, least=0)
    corpora: Sequence[str] = option(tuple(CORPUS_OF), "which of them", choices=tuple(TWINS), nargs="+")
    shared_tuning: float | None = option(
        None,
        "fMRI: share of voxels' tuning that people have in common by place, 0 to 1; by default the preset's",
        type=float,
    )
    tuning_dimension: float | None = option(
        None, f"fMRI: effective dimensions of voxels' tuning, 1 to {N_LATENTS}; by default about 20", type=float
    )
    overwrite: bool = option(False, "replace simulated corpora that differ")

    def __post_init__(self) -> None:
        """Check the dials of fMRI."""
        super().__post_init__()
        for name, least, most in (("shared_tuning", 0, 1), ("tuning_dimension", 1, N_LATENTS)):
            value = getattr(self, name)
            if value is None:
                continue
            check_value(name, value, least <= value <= most, f"{least} to {most}")
            if not any(TWINS[corpus].modality == "fmri" for corpus in self.corpora):
                raise DataError(f"The {name!r} parameter is of fMRI, but simulated are {', '.join(self.corpora)}.")

    def dialled(self, preset: TwinPreset) -> TwinPreset:
        """A preset with the dials that were given."""
        dials = preset.fmri.dials
        if self.shared_tuning is not None:
            dials = replace(dials, subject_deviation=math.sqrt(1 - self.shared_tuning))
        if self.tuning_dimension is not None:
            dials = replace(dials, tuning_dimension=self.tuning_dimension)
        return replace(
            preset, fmri=replace(preset.fmri, dials=dials), things_fmri=replace(preset.things_fmri, dials=dials)
        )
