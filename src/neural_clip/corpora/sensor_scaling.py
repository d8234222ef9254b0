"""How epochs of EEG are scaled by the training epochs of their session, or of their person."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from neural_clip.corpora.things_eeg2.whitening import whitening_matrix
from neural_clip.errors import DataError
from neural_clip.preparation import Preparation

METHODS = ("mvnn", "train_std", "none")
SCALINGS = {  # scope of the fit, unit, description
    "mvnn": ("train", "z", "multivariate noise normalisation: channels multiplied by the inverse square root of the "
             "Ledoit-Wolf covariance within training epochs, per {}"),
    "train_std": ("train", "z", "by root mean square of the training epochs, per {} and channel"),
    "none": ("per epoch baseline", "V", "per epoch and channel: minus mean of the samples up to onset"),
}  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """What epochs are multiplied by: a matrix of channels, one factor for each channel, or 1.

    Args:
        matrix (`numpy.ndarray` of shape `(n_chans, n_chans)`, *optional*): Of `"mvnn"`.
        rms (`numpy.ndarray` of shape `(n_chans,)`, *optional*): Of `"train_std"`.
    """

    matrix: np.ndarray | None = None
    rms: np.ndarray | None = None

    def of(self, epoch: np.ndarray) -> np.ndarray:
        """An epoch `(n_chans, n_times)`, scaled, float32."""
        if self.matrix is not None:
            epoch = self.matrix @ epoch
        elif self.rms is not None:
            epoch = 1 / self.rms[:, None] * epoch
        return epoch.astype(np.float32)


def fitted_scale(
    method: str, training: Callable[[], Iterable[np.ndarray]], ch_names: Sequence[str], where: str
) -> Scale:
    """What the epochs of a session or person are scaled by.

    Args:
        method (`str`): Of `METHODS`.
        training (`Callable`): Gives the training epochs, in V.
        ch_names (`Sequence[str]`): Their channels, for messages.
        where (`str`): Whose they are, for messages.

    Raises:
        DataError: If there are no training epochs, or a channel is flat in all of them.
    """
    if method == "mvnn":
        return Scale(matrix=whitening_matrix(training(), where))
    if method == "none":
        return Scale()
    power = [np.square(epoch).mean(axis=1) for epoch in training()]
    if not power:
        raise DataError(f"{where} has no training epochs to fit the scaling on; choose scaling 'none'.")
    rms = np.sqrt(np.mean(power, axis=0))  # (n_chans,)
    if not (rms > 0).all():
        raise DataError(f"{where}: channel {ch_names[int(rms.argmin())]} is flat in all training epochs.")
    return Scale(rms=rms)


def scaling_facts(method: str, preparation: Preparation, scope: str) -> dict:
    """`unit`, `scaling` and `preparation` for `neural_clip.json`.

    Args:
        method (`str`): Of `METHODS`.
        preparation (`Preparation`): Before scaling.
        scope (`str`): Whose training epochs it is fitted on: `"session"` or `"subject"`.
    """
    fit_scope, unit, description = SCALINGS[method]
    if method == "none" and not isinstance(preparation.baseline, list):  # nothing was subtracted here
        fit_scope, description = "none", "none: V, as released"
    if method == "train_std":
        preparation = replace(preparation, scaling="rms", scope=scope)
    elif method == "mvnn":
        obstacle = f"each {scope} was whitened by a matrix of its own (multivariate noise normalisation)"
        preparation = replace(preparation, scaling="unknown", obstacle=obstacle)
    scaling = {"method": method, "fit_scope": fit_scope, "description": description.format(scope)}
    return {"unit": unit, "scaling": scaling, "preparation": preparation.as_dict()}
