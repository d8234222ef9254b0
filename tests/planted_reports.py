"""Reports of evaluations of planted data, and cells of their tables."""

import pytest

from neural_clip.evaluation import run as evaluation
from planted_data import PlantedModel, plant, write_planted

PAPER_CORPORA = {"eeg": "imagenet_eeg", "meg": "things_meg", "fmri": "nsd"}


def make_report(root, *, modalities=("eeg", "fmri"), **options):
    counts = {"train": 20, "validation": 8, "test": 12}
    folders = [
        write_planted(root / m, m, noise=6.0, seed=i, counts=counts, **({"corpus": PAPER_CORPORA[m]} | options))
        for i, m in enumerate(modalities)
    ]
    patch = pytest.MonkeyPatch()
    plant(patch, lambda checkpoint: calibrated(modalities))
    evaluation.evaluate_checkpoints({"neural_clip": "planted"}, folders, root / "out", command="test")
    patch.undo()
    return root / "out"


def calibrated(modalities):
    """The planted model with temperatures for the first subject of EEG alone."""
    model = PlantedModel(modalities)
    if "eeg" in modalities:
        model.config.eeg_config.confidence_temperature = {"sub-01": 12.0}
    return model


def cells(text, *starts):
    """Cells of the first Markdown row that starts so."""
    for line in text.splitlines():
        found = [cell.strip() for cell in line.strip("|").split("|")]
        if tuple(found[: len(starts)]) == starts:
            return found
    raise AssertionError(f"no row {starts}")
