"""A checkpoint of all modalities with random weights, whose processor knows what the rows went through."""

import torch

from neural_clip import EegConfig, FmriConfig, MegConfig, NeuralClipConfig, NeuralClipModel, NeuralClipProcessor
from neural_clip.targets.encoder import ImageEncoder
from neural_clip.targets.identity import identity_of
from neural_clip.targets.tiny_clip import TINY_CLIP
from planted_data import SHAPES, voxels

SUBJECTS = ["sub-01", "sub-02"]


def save_checkpoint(folder, data, seed=0):
    """A model of all modalities and its processor, which knows what the rows went through."""
    torch.manual_seed(seed)
    sensors = {
        m: {"n_chans": SHAPES[m][0], "n_times": SHAPES[m][1], "sfreq": 100.0, "tmin": 0.0,
            "ch_names": [f"C{i}" for i in range(SHAPES[m][0])], "subjects": SUBJECTS, "encoder_type": "linear"}
        for m in ("eeg", "meg")
    }  # fmt: skip
    size = {name: voxels(number) for number, name in enumerate(SUBJECTS)}
    identity = identity_of(data["eeg"].facts)
    config = NeuralClipConfig(
        eeg_config=EegConfig(**sensors["eeg"]), meg_config=MegConfig(**sensors["meg"]),
        fmri_config=FmriConfig(subjects=SUBJECTS, n_voxels=size, alignment_size=8, hidden_size=8),
        **identity.as_config(),
    )  # fmt: skip
    model = NeuralClipModel(config)
    model.save_pretrained(folder)
    pixels = ImageEncoder(TINY_CLIP, device="cpu").processor
    NeuralClipProcessor.from_config(
        config, pixels, {name: opened.preparation for name, opened in data.items()},
        {name: opened.statistics for name, opened in data.items()},
    ).save_pretrained(folder)  # fmt: skip
    return folder
