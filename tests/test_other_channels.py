"""Headsets of fewer channels than the model's: files, prepared data sets, galleries and reports, at a shell too."""

import json
import re
from types import SimpleNamespace

import mne
import numpy as np
import pyarrow.parquet as pq
import pytest

from continuous_raw import simulated_raw
from custom_raw import write_manifest
from edf_files import write_edf
from neural_clip import EegConfig, NeuralClipConfig, NeuralClipModel, NeuralClipProcessor
from neural_clip.commands import main as cli
from neural_clip.corpora.custom.build import prepare
from neural_clip.errors import DataError
from neural_clip.gallery.embedder import Embedder
from neural_clip.gallery.neural_gallery import NeuralGallery
from neural_clip.prepared.reader import PreparedSet
from neural_clip.queries.opening import open_recordings
from neural_clip.queries.options import RecordingOptions
from neural_clip.targets.embed_images import embed_images
from neural_clip.targets.encoder import ImageEncoder
from neural_clip.targets.identity import identity_of
from neural_clip.targets.tiny_clip import TINY_CLIP
from recorded_lab import SFREQ, manifests, write_raw
from second_process import python

NAMES = ["Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "P7", "P8"]
EIGHT = ["Fp1", "Fp2", "C3", "C4", "P7", "P8", "O1", "O2"]
LACKING = ["F3", "F4", "P3", "P4"]


@pytest.fixture(scope="module")
def cap(tmp_path_factory):
    """A model of twelve channels; recordings and prepared sets of twelve and of eight of them."""
    root = tmp_path_factory.mktemp("cap")
    write_raw(root)
    raw = simulated_raw(3, NAMES, sfreq=SFREQ)
    raw.save(root / "twelve_raw.fif", verbose="error")
    raw.copy().pick(EIGHT).save(root / "eight_raw.fif", verbose="error")
    data = {}
    for name, picks in (("twelve", NAMES), ("eight", EIGHT)):
        entry = manifests()["eeg"]["recordings"][0] | {"file": "twelve_raw.fif", "picks": picks}
        folder = prepare(write_manifest(root, manifests()["eeg"] | {"recordings": [entry]}), root / name)
        embed_images(folder, TINY_CLIP)
        data[name] = PreparedSet.open(folder)
    facts = data["twelve"].facts
    keys = ("n_chans", "n_times", "sfreq", "tmin", "ch_names")
    settings = EegConfig(**{key: getattr(facts, key) for key in keys}, subjects=["sub-01"], encoder_type="linear")
    config = NeuralClipConfig(eeg_config=settings, **identity_of(facts).as_config())
    NeuralClipModel(config).save_pretrained(root / "model")
    NeuralClipProcessor.from_config(
        config, ImageEncoder(TINY_CLIP, device="cpu").processor, {"eeg": data["twelve"].preparation},
        {"eeg": data["twelve"].statistics},
    ).save_pretrained(root / "model")  # fmt: skip
    return SimpleNamespace(
        root=root, raw=raw, data=data, checkpoint=str(root / "model"), embedder=Embedder.of(root / "model")
    )


def shell(capsys, *words):
    capsys.readouterr()
    cli.main([str(word) for word in words])
    return capsys.readouterr()


def told(cap, **more):
    return RecordingOptions(subject="sub-01", events=cap.root / "events.tsv", keep=("trial_type=image",), **more)


EVENTS = ("--subject", "sub-01", "--keep", "trial_type=image", "--events")


def test_a_recording_of_eight_is_that_of_twelve_whose_others_were_interpolated_before(cap, tmp_path):
    """Interpolation is linear in the channels, so filter, baseline and scaling may come after or before."""
    made = cap.embedder.processor.interpolation("eeg", ch_names=EIGHT)
    whole = mne.io.RawArray(made.applied(cap.raw.get_data(EIGHT)), cap.raw.info, verbose="error")
    whole.save(tmp_path / "whole_raw.fif", verbose="error")
    expected, _ = open_recordings(tmp_path / "whole_raw.fif", cap.embedder, told(cap)).embedded(cap.embedder)
    file = open_recordings(cap.root / "eight_raw.fif", cap.embedder, told(cap, montage="interpolate"))
    np.testing.assert_allclose(file.embedded(cap.embedder)[0], expected, atol=1e-5)
    assert file.made.interpolated == tuple(LACKING)
    with pytest.raises(DataError, match=r"lacks 4 of the model's 12 channels: 'F3'.* by 'montage' \(interpolate\)"):
        open_recordings(cap.root / "eight_raw.fif", cap.embedder, told(cap))


def test_channels_of_a_table_may_have_another_rate_than_the_rest(cap, tmp_path):
    values = np.round(cap.raw.get_data(EIGHT) * 1e6).astype(int)
    slow = np.round(cap.raw.get_data(["F3"])[0, ::2] * 1e6).astype(int)
    signals = [*zip([name.upper() if name.startswith("F") else name for name in EIGHT], values, strict=True)]
    write_edf(tmp_path / "a.edf", [(name, row) for name, row in signals if name != "FP1"] + [("ECG", slow)], 30)
    file = open_recordings(tmp_path / "a.edf", cap.embedder, told(cap, montage="interpolate", modality="eeg"))
    assert file.made.interpolated == ("Fp1", *LACKING)
    assert "FP2" in file.made.recorded and "ECG" not in file.made.recorded  # whatever its capitals


def test_shell_tells_in_text_and_json_what_was_interpolated(cap, capsys):
    words = ["decode", cap.root / "eight_raw.fif", "--gallery", cap.root / "stimuli", "--checkpoint", cap.checkpoint,
             *EVENTS, cap.root / "events.tsv"]  # fmt: skip
    found = shell(capsys, *words, "--montage", "interpolate")
    sentence = "Interpolated by spherical splines: 4 of the model's 12 EEG channels (F3, F4, P3, P4) from 8 recorded"
    assert sentence in found.out
    (made,) = json.loads(shell(capsys, *words, "--montage", "interpolate", "--json").out)["montage"]
    assert made["interpolated"] == LACKING and made["n_from"] == 8 and made["of"].endswith("eight_raw.fif")
    refused = python("-m", "neural_clip", *map(str, words))  # a real shell
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert re.search(r"lacks 4 of the model's 12 channels.* by '--montage' \(interpolate\)", refused.stderr)


def test_arrays_are_named_at_a_shell(cap, capsys, tmp_path):
    part = cap.data["twelve"].split("test")
    np.save(tmp_path / "a.npy", part.values()[:, [NAMES.index(name) for name in EIGHT]])
    words = ["decode", tmp_path / "a.npy", "--gallery", cap.root / "stimuli", "--checkpoint", cap.checkpoint,
             "--subject", "sub-01", "--montage", "interpolate"]  # fmt: skip
    (made,) = json.loads(shell(capsys, *words, "--json", "--ch-names", *EIGHT).out)["montage"]
    assert made["interpolated"] == LACKING
    with pytest.raises(DataError, match="give their names by 'ch_names'"):
        shell(capsys, *words)


def vectors_by_hand(cap):
    """Of the test rows of eight channels."""
    part = cap.data["eight"].split("test")
    made = cap.embedder.processor.interpolation("eeg", ch_names=EIGHT)
    return cap.embedder.embed_recordings(made.applied(part.values()), "sub-01", "eeg", unit="prepared")[1]


def test_prepared_sets_of_other_channels_are_searched_and_searched_for(cap, capsys, tmp_path):
    part = cap.data["eight"].split("test")
    gallery = NeuralGallery.from_recordings(cap.checkpoint, part, montage="interpolate")
    np.testing.assert_allclose(gallery.vectors, vectors_by_hand(cap), atol=1e-5)
    (made,) = gallery.montage
    assert made["interpolated"] == LACKING and NeuralGallery.load(gallery.save_to_disk(tmp_path / "g")).montage
    common = ("--checkpoint", cap.checkpoint, "--montage", "interpolate")
    for verb, place, more in (
        ("decode", cap.root / "eight", ("--gallery", cap.root / "stimuli")),
        ("encode", cap.root / "stimuli" / "im03.png", ("--gallery", cap.root / "eight")),
        ("convert", cap.root / "eight", ("--gallery", cap.root / "eight", "--to", "eeg")),
    ):
        found = shell(capsys, verb, place, *more, *common, "--json")
        print(found)
        told = json.loads(found.out)
        assert [one["interpolated"] for one in told["montage"]] == [LACKING] * len(told["montage"]) and told["montage"]
    build = ("gallery", "build", cap.root / "eight", "--recordings", "--output-dir", tmp_path / "built", *common)
    assert "4 of the model's 12 EEG channels" in shell(capsys, *build).err
    assert "4 of the model's 12 EEG channels" in shell(capsys, "gallery", "info", tmp_path / "built").out
    shell(capsys, "embed-recordings", cap.root / "eight", "--output-file", tmp_path / "v.parquet", *common)
    table = pq.read_table(tmp_path / "v.parquet")
    assert json.loads(table.schema.metadata[b"neural_clip"])["montage"]["interpolated"] == LACKING
    rows = [
        vector
        for vector, split in zip(table["vector"].to_pylist(), table["split"].to_pylist(), strict=True)
        if split == "test"
    ]
    np.testing.assert_allclose(rows, vectors_by_hand(cap), atol=1e-5)
    with pytest.raises(DataError, match=r"in its channels: it lacks 'F3'.* by 'montage' \(interpolate\)"):
        NeuralGallery.from_recordings(cap.checkpoint, part)


def test_evaluation_of_other_channels_tells_it_in_the_report(cap, capsys, tmp_path):
    words = ("evaluate", "--checkpoint", cap.checkpoint, "--data", f"eeg={cap.root / 'eight'}", "--no-controls",
             "--output-dir", tmp_path / "out", "--baselines", "ridge", "--no-pictures")  # fmt: skip
    shell(capsys, *words, "--montage", "interpolate")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["checkpoints"][0]["montage"]["eeg"]["interpolated"] == LACKING
    assert "4 of the model's 12 EEG channels (F3, F4, P3, P4)" in (tmp_path / "out" / "report.md").read_text()
    embeds = np.load(tmp_path / "out" / "embeddings.npz")["eeg_embeds"]
    np.testing.assert_allclose(embeds, vectors_by_hand(cap), atol=1e-5)
    with pytest.raises(DataError, match=r"it lacks 'F3'.* by 'montage' \(interpolate\)"):
        shell(capsys, *words)
    pytest.importorskip("captum")
    with pytest.raises(DataError, match="leave it out with 'montage'"):
        shell(capsys, *words, "--montage", "interpolate", "--understand")


def test_whitened_sets_are_refused(cap):
    from dataclasses import replace

    facts = replace(cap.data["eight"].facts, scaling={"method": "mvnn"})
    data = PreparedSet(cap.data["eight"].name, cap.data["eight"].folder, facts)
    with pytest.raises(DataError, match=r"were whitened together \(mvnn\)"):
        cap.embedder.interpolation(data, "interpolate")


def test_uploads_are_interpolated_when_asked(cap, tmp_path):
    from neural_clip.app.uploads import open_upload

    np.save(tmp_path / "a.npy", np.zeros((2, 8, cap.data["eight"].facts.n_times)))
    said = {"subject": "sub-01", "unit": "", "session": ""}
    file = open_upload(tmp_path / "a.npy", None, cap.embedder, montage="interpolate", ch_names=EIGHT, **said)
    assert file.made.interpolated == tuple(LACKING)
    assert open_upload(tmp_path / "a.npy", None, cap.embedder, montage="", ch_names=[], **said).made is None
