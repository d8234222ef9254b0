"""Scores of image retrieval: every formula, once; its intervals; the metric for `evaluate.load`. Flat: it travels."""
