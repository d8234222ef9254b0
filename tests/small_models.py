"""Models of all modalities at a size that runs in milliseconds, with random weights."""

import torch

from neural_clip import EegConfig, FmriConfig, MegConfig, NeuralClipConfig, NeuralClipModel

SUBJECTS = ["sub-01", "sub-02", "sub-03"]
VOXELS = {"sub-01": 20, "sub-02": 31, "sub-03": 25}
TOWER = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TOWER |= {"image_size": 16, "patch_size": 8, "projection_dim": 12}


def small_config(encoder_types=("temporal_spatial", "temporal_spatial"), **changes):
    """All three modalities at a size that runs in milliseconds."""
    sensor = {"n_chans": 5, "subjects": SUBJECTS, "hidden_size": 4, "temporal_kernel_size": 5, "n_windows": 4}
    count = 3 if encoder_types[2:] == ("in parallel",) else 1
    return NeuralClipConfig(
        eeg_config=EegConfig(
            n_times=100, sfreq=250.0, encoder_type=encoder_types[0], stft_nperseg=20, num_networks=count, **sensor
        ),
        meg_config=MegConfig(n_times=90, encoder_type=encoder_types[1], num_networks=count, **sensor),
        fmri_config=FmriConfig(
            subjects=SUBJECTS, n_voxels=VOXELS, alignment_size=8, hidden_size=8, num_networks=count
        ),
        **({"projection_dim": 12} | changes),
    )


def small_batch(modality, subject_ids, seed=0):
    """Random recordings of the given subjects; fMRI rows end in zeros."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor(subject_ids)
    if modality != "fmri":
        values = torch.randn(len(ids), 5, {"eeg": 100, "meg": 90}[modality], generator=generator)
    else:
        values = torch.randn(len(ids), 31, generator=generator)
        for row, subject in enumerate(subject_ids):
            values[row, VOXELS[SUBJECTS[subject]] :] = 0
    return {f"{modality}_values": values, "subject_ids": ids}


ENCODER_TYPES = [
    ("temporal_spatial", "temporal_spatial"),
    ("spectrogram_cnn", "temporal_cnn"),
    ("linear", "linear"),
    ("temporal_spatial", "temporal_spatial", "in parallel"),
]


def seeded_model(encoder_types):
    torch.manual_seed(0)
    model = NeuralClipModel(small_config(encoder_types)).eval()
    with torch.no_grad():  # identity alignment hides which subject's layer was used
        for index, (name, parameter) in enumerate(model.named_parameters()):
            if "alignment" in name:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    return model
