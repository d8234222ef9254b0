"""Multivariate noise normalisation: channels are made alike and independent by the covariance within epochs.

Source: Guggenmos, Sterzer & Cichy 2018, doi:10.1016/j.neuroimage.2018.02.044, and the scripts of THINGS-EEG2 (their
choice `epochs`), which mix in the covariance of the test epochs; here it is fitted on training epochs alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from neural_clip.errors import DataError


def epoch_covariance(epoch: np.ndarray) -> np.ndarray:
    """Ledoit-Wolf covariance of the channels over the samples of an epoch, shrunk on standardised channels.

    Args:
        epoch (`np.ndarray` of shape `(n_chans, n_times)`): Any unit.

    Returns:
        `np.ndarray` of shape `(n_chans, n_chans)`: In the unit squared; channels that do not vary count as 1.
    """
    from sklearn.covariance import ledoit_wolf

    scale = epoch.std(axis=1)
    scale = np.where(scale > 0, scale, 1.0)
    standardised = ((epoch - epoch.mean(axis=1, keepdims=True)) / scale[:, None]).T  # (n_times, n_chans)
    return ledoit_wolf(standardised)[0] * np.outer(scale, scale)


def whitening_matrix(epochs: Iterable[np.ndarray], where: str) -> np.ndarray:
    """Inverse square root of the mean covariance of epochs.

    Args:
        epochs (iterable of `np.ndarray` of shape `(n_chans, n_times)`): Training epochs of one session.
        where (`str`): Of what, for the message.

    Returns:
        `np.ndarray` of shape `(n_chans, n_chans)`, symmetric: Multiplies epochs from the left.

    Raises:
        DataError: If there are no epochs, or their covariance cannot be inverted because channels are flat.
    """
    total: np.ndarray | float = 0.0
    count, varies = 0, np.zeros(1, dtype=bool)
    for epoch in epochs:
        total, count, varies = total + epoch_covariance(epoch), count + 1, varies | (np.ptp(epoch, axis=1) > 0)
    if not count:
        raise DataError(f"{where} has no training epochs to fit the whitening on; choose scaling 'none'.")
    if not varies.all():
        raise DataError(f"Channel {int(varies.argmin()) + 1} of {where} is flat, so channels cannot be whitened.")
    return inverse_root(np.asarray(total) / count, where)


def inverse_root(covariance: np.ndarray, where: str) -> np.ndarray:
    """Inverse square root of a covariance `(n_chans, n_chans)`; a `DataError` where it cannot be inverted."""
    values, vectors = np.linalg.eigh(covariance)
    if values[0] <= 1e-10 * values[-1]:
        raise DataError(f"The channels of {where} are not independent, so they cannot be whitened. Is one flat?")
    return (vectors / np.sqrt(values)) @ vectors.T
