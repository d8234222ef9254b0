"""The tiny CLIP that ships with the package."""

from __future__ import annotations

from pathlib import Path

TINY_CLIP = "neural_clip/tiny-clip"  # the tiny CLIP shipped in this package, made for the simulated images
TINY_CLIP_DIR = Path(__file__).parent / "tiny_clip_model"
"""Folder of a `transformers.CLIPModel`, trained on simulated images by `scripts/train_tiny_clip.py`."""
