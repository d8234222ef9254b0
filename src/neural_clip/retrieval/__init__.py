"""Scores of image retrieval: every formula, once; its intervals; the metric for `evaluate.load`. Flat: it travels."""

from pathlib import Path

METRIC = str(Path(__file__).with_name("image_retrieval.py"))
"""What `evaluate.load` takes wherever the package is installed: `evaluate.load(neural_clip.retrieval.METRIC)`."""
