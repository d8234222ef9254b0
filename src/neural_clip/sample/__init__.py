"""The sample that ships: SIMULATED recordings of one subject a modality, their images, and a small checkpoint."""

from neural_clip.sample.load import CHECKPOINT, FOLDERS, Sample, load_sample

__all__ = ["CHECKPOINT", "FOLDERS", "Sample", "load_sample"]
