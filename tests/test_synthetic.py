"""Synthetic corpora of real widths at a toy number of rows, and untrained checkpoints for them."""

import json
import sys

import numpy as np
import pytest

from neural_clip.prepared.reader import PreparedSet
from neural_clip.training.checkpoint import read_checkpoint
from paths import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import synthetic

SIZES = {
    "things_meg": ("meg", 4, 24_648, (271, 281)), "nsd": ("fmri", 8, 30_000, (12_000,)),
    "imagenet_eeg": ("eeg", 6, 1_994, (128, 440)), "things_eeg2": ("eeg", 10, 82_160, (63, 250)),
}  # fmt: skip


@pytest.mark.parametrize("corpus", SIZES)
def test_plans_have_the_size_of_the_corpora(corpus):
    modality, n_subjects, n_rows, shape = SIZES[corpus]
    plan = synthetic.PLANS[corpus]
    assert (plan.modality, plan.n_subjects, plan.n_rows, plan.shape_of(0)) == (modality, n_subjects, n_rows, shape)
    assert plan.of_size(2, 700).n_subjects == 2 and plan.of_size(None, 700).n_rows == pytest.approx(700, abs=350)


def test_a_set_and_its_untrained_checkpoint(tmp_path, capsys):
    """Rows are those of the plan, the signal is linear in the embeddings, and the set says that it is simulated."""
    folder = tmp_path / "nsd"
    synthetic.main(["nsd", "--output-dir", str(folder), "--subjects", "1", "--rows", "120", "--averaged"])
    assert json.loads(capsys.readouterr().out)["rows_of_each"] == 120
    data = PreparedSet.open(folder).verify()
    train, test = data.split("train"), data.split("test")
    assert data.facts.simulated and "(simulated)" in data.facts.corpus
    assert (len(train), len(data.split("validation")), len(test)) == (97, 11, 12)
    values, others = np.stack(train.values()), np.stack(test.values())
    assert values.shape == (97, 12_000) and values.std() == pytest.approx(1.03, abs=0.05)
    kernel, cross = values @ values.T, others @ values.T
    found = cross @ np.linalg.solve(kernel + 0.1 * np.trace(kernel) * np.eye(97), train.targets)
    right = (found * test.targets).sum(1)
    wrong = (found * np.roll(test.targets, 1, axis=0)).sum(1)
    assert (right > wrong).mean() > 0.8

    checkpoint = tmp_path / "untrained"
    synthetic.main(["checkpoint", "--data", f"fmri={folder}", "--output-dir", str(checkpoint)])
    model, _, record = read_checkpoint(checkpoint)
    assert model.config.fmri_config.n_voxels == {"sub-01": 12_000} and record["steps"] == 0
    assert model.config.eeg_config is None


@pytest.mark.parametrize("corpus", ["things_meg", "imagenet_eeg", "things_eeg2"])
def test_recordings_of_sensors_have_a_row_for_each_showing(corpus):
    plan = synthetic.PLANS[corpus].of_size(2, 100)
    rows = [row for _, row in zip(range(70), plan.recordings(1), strict=False)]  # more than a block
    assert all(row[plan.modality].shape == plan.shape and row["subject"] == "sub-02" for row in rows)
    assert len({(row["session"], row["trial"]) for row in rows}) == len(rows)
    smooth = rows[0][plan.modality]
    assert np.corrcoef(smooth[:, 1:].ravel(), smooth[:, :-1].ravel())[0, 1] > 0.8
