"""Small models with random weights, on disk."""

import torch

from neural_clip.configuration_neural_clip import EegConfig, NeuralClipConfig
from neural_clip.modeling_neural_clip import NeuralClipModel
from planted_data import SHAPES, WIDTH


def save_model(path, seed=0, **changes):
    """Save a model of planted EEG; `changes` are of its EEG configuration."""
    torch.manual_seed(seed)
    config = {"n_chans": SHAPES["eeg"][0], "n_times": SHAPES["eeg"][1], "sfreq": 100.0,
              "subjects": ["sub-01", "sub-02"], "hidden_size": 8, "temporal_kernel_size": 3,
              "n_windows": 2} | changes  # fmt: skip
    model = NeuralClipModel(NeuralClipConfig(eeg_config=EegConfig(**config), projection_dim=WIDTH))
    model.save_pretrained(path)
    return path
