"""Scores as their definitions read, one pair at a time."""

import numpy as np


def cosine(one, other):
    """Cosine of two vectors."""
    return float(one @ other) / float(np.linalg.norm(one) * np.linalg.norm(other))


def slow_ranks(values):
    return [sum(other < own for other in values) + (1 + sum(other == own for other in values)) / 2 for own in values]


def slow_spearman(first, second):
    first, second = slow_ranks(first), slow_ranks(second)
    middle = (len(first) + 1) / 2
    products = [(a - middle) * (b - middle) for a, b in zip(first, second, strict=True)]
    squares = [sum((rank - middle) ** 2 for rank in side) for side in (first, second)]
    return sum(products) / (squares[0] * squares[1]) ** 0.5


def slow_ceiling(distances):
    n = len(distances[0])
    pairs = [[float(matrix[i, j]) for i in range(n) for j in range(i + 1, n)] for matrix in distances]
    ranks = [slow_ranks(subject) for subject in pairs]
    lower, upper = [], []
    for number, own in enumerate(pairs):
        others = [subject for other, subject in enumerate(ranks) if other != number]
        lower.append(slow_spearman(own, [sum(column) for column in zip(*others, strict=True)]))
        upper.append(slow_spearman(own, [sum(column) for column in zip(*ranks, strict=True)]))
    return sum(lower) / len(lower), sum(upper) / len(upper)
