"""Data sets with local signals, and what `understand` makes of them."""

import nibabel
import numpy as np
import pytest

from local_signals import LinearModel, planted_mask, write_local
from neural_clip.evaluation.understanding.run import understand
from neural_clip.gallery.embedding import embed_split
from neural_clip.prepared.facts import read_metadata
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.writer import save_metadata


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Folders, model and embedded test splits of all three modalities; the first fMRI subject has a mask."""
    root, folders, weights = tmp_path_factory.mktemp("local"), {}, {}
    for modality in ("eeg", "meg", "fmri"):
        folders[modality], found = write_local(root / modality, modality, simulated=modality != "fmri")
        weights |= found
    inside, affine = planted_mask()
    (folders["fmri"] / "masks").mkdir()
    nibabel.save(nibabel.Nifti1Image(inside.astype(np.uint8), affine), folders["fmri"] / "masks" / "sub-01.nii.gz")
    save_metadata(folders["fmri"], read_metadata(folders["fmri"]))  # lists the mask
    model = LinearModel(weights)
    parts = {modality: PreparedSet.open(folder).split("test") for modality, folder in folders.items()}
    return folders, model, {modality: embed_split(model, part) for modality, part in parts.items()}


@pytest.fixture(scope="module")
def understood(planted, tmp_path_factory):
    """Result of a run over all three, and its folder."""
    _, model, splits = planted
    output_dir = tmp_path_factory.mktemp("understood")
    return understand(model, splits, output_dir, progress=False, max_recordings=20), output_dir
