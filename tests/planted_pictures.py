"""Pictures and responses to them with a known relation, and the way from raw files to scores, at the command line."""

import numpy as np

N_FEATURES = 27  # three by three patches of three colours


def features(concept, number):
    """Colours of the patches of a picture, -0.5 to 0.5: those of its concept, a little changed."""
    base = np.random.default_rng([41, *concept.encode()]).uniform(-0.4, 0.4, N_FEATURES)
    return base + np.random.default_rng([42, number, *concept.encode()]).uniform(-0.1, 0.1, N_FEATURES)


def picture(concept, number):
    """The picture, uint8 `(48, 48, 3)`."""
    patches = (255 * (features(concept, number) + 0.5)).astype(np.uint8).reshape(3, 3, 3)
    return patches.repeat(16, axis=0).repeat(16, axis=1)


def response(concept, number, n_chans, sfreq):
    """What one picture adds to a recording, `(n_chans, n_times)` from onset on: two patterns, one after the other."""
    times = np.arange(int(0.5 * sfreq)) / sfreq
    shown = features(concept, number)
    patterns = np.random.default_rng(43).standard_normal((2, n_chans, N_FEATURES)) @ shown  # (2, n_chans)
    courses = np.exp(-((times - np.array([[0.12], [0.2]])) ** 2) / (2 * 0.03**2))  # (2, n_times)
    return patterns.T @ courses


def recorded(n_chans, n_times, sfreq, events, size, seed):
    """Noise with responses, in units of the noise: `events` are `(sample, concept, number)`."""
    values = np.random.default_rng([44, seed]).standard_normal((n_chans, n_times))
    for sample, concept, number in events:
        added = size * response(concept, number, n_chans, sfreq)
        values[:, sample : sample + added.shape[1]] += added[:, : n_times - sample]
    return values
