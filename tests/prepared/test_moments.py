"""Moments of parts that are merged equal those of the whole, also where the mean is large beside the spread."""

import numpy as np

from neural_clip.prepared.moments import Moments


def of(values):
    mean = values.mean(axis=0)
    return Moments(len(values), mean, ((values - mean) ** 2).sum(axis=0))


def test_merged_parts_equal_the_whole():
    values = np.random.default_rng(0).normal(1e6, 0.01, (60, 4)).round(12)
    total = of(values[:1])
    for first, last in ((1, 2), (2, 30), (30, 31), (31, 60)):
        total = total.merged(of(values[first:last]))
    exact = values.astype(np.longdouble)
    assert total.count == 60
    np.testing.assert_allclose(total.mean, exact.mean(axis=0).astype(float), rtol=1e-14)
    np.testing.assert_allclose(total.std, exact.std(axis=0).astype(float), rtol=1e-6)
