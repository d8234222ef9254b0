"""The tiny CLIP that ships with the package."""

from __future__ import annotations

from pathlib import Path

from neural_clip.image_tower_files import TINY_CLIP

TINY_CLIP_DIR = Path(__file__).parent / "tiny_clip_model"
"""Folder of a `transformers.CLIPModel`, trained on simulated images by `scripts/train_tiny_clip.py`."""

__all__ = ["TINY_CLIP", "TINY_CLIP_DIR"]
