"""Options of [`adapt`] and of `neural-clip adapt`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from neural_clip.errors import DataError, check_value
from neural_clip.options import Options, option
from neural_clip.prepared.known_corpora import CORPORA

PRIORS = ("none", "places")
WITHOUT = (
    "`neural-clip evaluate --subject average` scores EEG and MEG of new subjects without any fit; fMRI has no average "
    "subject, because the voxels of two subjects do not correspond."
)


@dataclass(frozen=True, kw_only=True)
class AdaptOptions(Options):
    """Options of [`adapt`]; here is what the help of a field leaves out.

    Defaults were chosen on validation recordings of one left-out subject of the simulated EEG.

    Args:
        learning_rate (`float`): Of AdamW without weight decay, falling as a cosine to zero.
        batch_size (`int`): Recordings a step; their images are one another's negatives.
        seed (`int`): Of the order of batches, the recordings drawn and the noise behind the start of fMRI layers.
        streaming (`bool`): As in [`EvaluateOptions`]; the new checkpoint is the same.
    """

    subjects: Sequence[str] | None = option(
        None, "such as sub-01 sub-02; default all not known yet", nargs="+", metavar="SUBJECT"
    )
    epochs: int = option(30, "of which the best by validation is kept", type=int, least=1)
    learning_rate: float = option(3e-3, "at the start; it falls as a cosine", type=float, metavar="RATE")
    batch_size: int = option(32, "recordings a step", type=int, least=2)
    train_fraction: float = option(
        1.0, "share of each subject's training recordings that is used, drawn at random", type=float,
        metavar="SHARE", apart="amount",
    )  # fmt: skip
    minutes: float | None = option(
        None, "the first training recordings of each subject that fit into so many minutes of trials; a random choice "
        "where the data set does not know the order of presentation", type=float, metavar="MINUTES", apart="amount",
    )  # fmt: skip
    seconds_per_trial: float | None = option(
        None, f"from one onset to the next, known for {', '.join(CORPORA)}", type=float, metavar="SECONDS"
    )
    images: int | None = option(
        None, "images of each subject, drawn at random from both splits: four fifths for training, the others for "
        "validation", type=int, least=4, apart="amount",
    )  # fmt: skip
    prior: str = option(
        "none", "what to blend with the closed form of a new fMRI subject where a rehearsal says that it helps: the "
        "tuning of known subjects, carried over by the places of voxels", choices=PRIORS,
    )  # fmt: skip
    closed_form: bool = option(True, "a closed form beside the network, as far as validation says that it helps")
    seed: int = option(0, "of the order of batches and of what is drawn", type=int, least=0)
    streaming: bool = option(
        False, "read recordings from their Parquet files, here or on the Hub, without copies of them"
    )
    overwrite: bool = option(False, "replace a checkpoint in the output folder")

    def __post_init__(self) -> None:
        """Check the ranges, and that one option alone says how much is used."""
        amounts = {"minutes": None, "images": None, "train_fraction": 1.0}
        for name in amounts:
            if getattr(self, name) == 0:
                raise DataError(f"{name!r} is 0, but adapting learns from recordings of the new subjects. {WITHOUT}")
        super().__post_init__()
        asked = {name: getattr(self, name) for name, unused in amounts.items() if getattr(self, name) != unused}
        if len(asked) > 1:
            names = " and ".join(map(repr, asked))
            raise DataError(f"{names} exclude one another, but got {' and '.join(map(str, asked.values()))}.")
        if self.prior != "none" and not self.closed_form:
            raise DataError("'prior' is blended with the closed form, but 'closed_form' is off.")
        fraction = self.train_fraction
        check_value("train_fraction", fraction, 0 < fraction <= 1, "above 0 and at most 1")
        for name in ("learning_rate", "minutes", "seconds_per_trial"):
            value = getattr(self, name)
            check_value(name, value, value is None or 0 < value < math.inf, "a number above 0")

    @property
    def settings(self) -> dict[str, float | str | None]:
        """What the record of a checkpoint tells, under the names that `Trainer` has for them."""
        return {
            "num_train_epochs": self.epochs, "learning_rate": self.learning_rate,
            "per_device_train_batch_size": self.batch_size, "train_fraction": self.train_fraction,
            "minutes": self.minutes, "images": self.images, "seconds_per_trial": self.seconds_per_trial,
            "prior": self.prior, "seed": self.seed,
        }  # fmt: skip
