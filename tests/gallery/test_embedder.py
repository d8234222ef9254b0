"""Checkpoints that are not those that were written: nothing is embedded by them."""

import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import neural_clip.sample
from folder_contents import contents
from neural_clip.commands import main as cli
from neural_clip.errors import DataError
from neural_clip.files.record import RECORD_FILE
from neural_clip.gallery import embedder
from neural_clip.gallery.embedder import Embedder

SAMPLE = next(iter(neural_clip.sample.__path__))
COMMANDS = (
    "decode {}/eeg --gallery {}/meg --checkpoint checkpoint",
    "encode a.png --gallery {}/eeg --checkpoint checkpoint",
    "convert {}/eeg --to meg --gallery {}/meg --checkpoint checkpoint",
    "search square --gallery {}/eeg --checkpoint checkpoint",
    "gallery build {}/eeg --checkpoint checkpoint --output-dir gallery",
    "gallery build {}/eeg --recordings --checkpoint checkpoint --output-dir gallery",
    "embed-recordings {}/eeg --checkpoint checkpoint --output-file rows.parquet",
)


def change_weights(folder, change):
    path = folder / "model.safetensors"
    with safe_open(path, "pt") as file:
        about = file.metadata()
    tensors = load_file(path)
    change(tensors["projections.eeg.bias"])
    save_file(tensors, path, about)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the sample's checkpoint in the working directory."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(f"{SAMPLE}/checkpoint", tmp_path / "checkpoint")


def test_no_command_embeds_by_weights_of_another_record(folder):
    change_weights(folder, lambda bias: bias.add_(1))
    before = contents(folder.parent)
    for command in COMMANDS:
        with pytest.raises(DataError, match=r"model\.safetensors' is not the file that training\.json was written"):
            cli.main(command.format(SAMPLE, SAMPLE).split())
    assert contents(folder.parent) == before


def test_nothing_is_embedded_by_weights_that_are_not_finite(folder):
    change_weights(folder, lambda bias: bias.fill_(float("nan")))
    (folder / RECORD_FILE).unlink()
    with pytest.raises(DataError, match=r"'checkpoint' are not finite: 'projections\.eeg\.bias' holds NaN"):
        Embedder.of("checkpoint")


def test_large_weights_are_finite_though_their_sum_is_not():
    large = torch.full((4,), 3e38)
    assert not large.sum().isfinite() and embedder._is_finite(large)
    assert embedder._is_finite(torch.full((3000,), 60000.0, dtype=torch.float16))
    for bad in (float("nan"), float("inf"), float("-inf")):
        assert not embedder._is_finite(torch.tensor([1.0, bad, -bad]))
