"""Headsets of fewer channels than the model's: files, prepared data sets, galleries and reports, at a shell too."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import mne
import numpy as np
import pyarrow.parquet as pq
import pytest

import alljoined_raw
import things_eeg2_raw
from continuous_raw import simulated_raw
from custom_raw import write_manifest
from edf_files import write_edf
from neural_clip import EegConfig, NeuralClipConfig, NeuralClipModel, NeuralClipProcessor
from neural_clip.commands import main as cli
from neural_clip.corpora.alljoined import prepare as prepare_alljoined
from neural_clip.corpora.custom.build import prepare
from neural_clip.corpora.things_eeg2 import prepare as prepare_eeg2
from neural_clip.corpus_inputs import CorpusInputs, common_inputs
from neural_clip.errors import DataError
from neural_clip.gallery.embedder import Embedder
from neural_clip.gallery.fit import check_preparation, interpolation_of
from neural_clip.gallery.neural_gallery import NeuralGallery
from neural_clip.preparation import Preparation
from neural_clip.prepared.reader import PreparedSet
from neural_clip.queries.opening import open_recordings
from neural_clip.queries.options import RecordingOptions
from neural_clip.targets.embed_images import embed_images
from neural_clip.targets.encoder import ImageEncoder
from neural_clip.targets.identity import identity_of
from neural_clip.targets.tiny_clip import TINY_CLIP
from recorded_lab import SFREQ, manifests, write_raw
from second_process import python
from several_corpora import FIRST, SECOND, write_sensors

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
    assert (
        made["interpolated"] == LACKING and NeuralGallery.load_from_disk(gallery.save_to_disk(tmp_path / "g")).montage
    )
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


ROUTES = {
    "flat": "the release whitened each session by a matrix of its own",
    "official": "official scaled each session by statistics of its own",
    "mvnn": "each session was whitened by a matrix of its own",
}


@pytest.fixture(scope="module")
def whitened(tmp_path_factory):
    """Sets whose channels were whitened together: by two releases, and by `prepare`."""
    root = tmp_path_factory.mktemp("whitened")
    alljoined_raw.build_flat(root / "flat_raw")
    things_eeg2_raw.build(root / "official_raw", "official")
    things_eeg2_raw.build(root / "mvnn_raw", "raw")
    made = {
        "flat": prepare_alljoined(root / "flat_raw", root / "flat", route="flat"),
        "official": prepare_eeg2(root / "official_raw", root / "official", route="official"),
        "mvnn": prepare_eeg2(root / "mvnn_raw", root / "mvnn"),
    }
    return {name: PreparedSet.open(folder) for name, folder in made.items()}


def trained_on(folder, data, ch_names, preparation):
    """A checkpoint as if it were trained on a set like this one of other channels."""
    shape = {key: getattr(data.facts, key) for key in ("n_times", "sfreq", "tmin", "subjects")}
    settings = EegConfig(n_chans=len(ch_names), ch_names=ch_names, encoder_type="linear", **shape)
    config = NeuralClipConfig(eeg_config=settings, projection_dim=8)
    NeuralClipModel(config).save_pretrained(folder)
    NeuralClipProcessor.from_config(config, None, {"eeg": preparation}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ROUTES)
def test_whitened_sets_are_refused(whitened, tmp_path, name):
    """Whether the checkpoint was trained on the like, or nobody knows what it was trained on, or it was not."""
    data, told = whitened[name], f"cannot be interpolated: {ROUTES[name]}"
    others = [*data.facts.ch_names[:-1], "Fpz"]
    for number, preparation in enumerate((data.preparation, None, Preparation(unit="V", scaling="none"))):
        place = trained_on(tmp_path / str(number), data, others, preparation)
        config = NeuralClipConfig.from_pretrained(place)
        with pytest.raises(DataError, match=told):
            interpolation_of(config, data, "interpolate")
        words = ["embed-recordings", data.folder, "--checkpoint", place, "--output-file", tmp_path / "v.parquet"]
        with pytest.raises(DataError, match=r"cannot be interpolated|were prepared differently"):
            cli.main([*map(str, words), "--montage", "interpolate"])
        assert not (tmp_path / "v.parquet").exists()
    assert interpolation_of(trained_on_same(tmp_path, data), data, "interpolate") is None


def trained_on_same(root, data):
    """A configuration of the very channels."""
    return NeuralClipConfig.from_pretrained(
        trained_on(root / "same", data, data.facts.ch_names, data.preparation)
    )  # fmt: skip


@pytest.mark.parametrize("name", ROUTES)
def test_channels_of_a_model_of_whitened_sets_are_not_interpolated(whitened, tmp_path, name):
    """Of arrays, files and data sets of other channels, whatever these went through."""
    data, told = whitened[name], f"cannot be interpolated: {ROUTES[name]}.*`--scaling train_std`"
    names = data.facts.ch_names
    place = trained_on(tmp_path / "model", data, [*names[:-1], "Fpz"], data.preparation)
    processor = NeuralClipProcessor.from_pretrained(place)
    said = {"ch_names": names, "subject": data.facts.subjects[0], "montage": "interpolate"}
    with pytest.raises(ValueError, match=told):
        processor(eeg=data.split("test").values([0]), **said)
    np.save(tmp_path / "a.npy", data.split("test").values([0]))
    words = ["decode", tmp_path / "a.npy", "--gallery", tmp_path, "--checkpoint", place, "--subject", said["subject"]]
    with pytest.raises(DataError, match=told):
        cli.main([*map(str, words), "--montage", "interpolate", "--ch-names", *names])
    known = replace(data.facts, preparation=None, scaling={})
    with pytest.raises(DataError, match=rf"in its channels: it lacks 'Fpz'.*{told}"):
        check_preparation(processor, PreparedSet(data.name, data.folder, known), "The model")
    same = processor(eeg=data.split("test").values([0]), **said | {"ch_names": [*names[:-1], "Fpz"]})
    assert same["eeg_values"].shape[1] == len(names)  # nothing is interpolated


def test_uploads_are_interpolated_when_asked(cap, tmp_path):
    from neural_clip.app.uploads import open_upload

    np.save(tmp_path / "a.npy", np.zeros((2, 8, cap.data["eight"].facts.n_times)))
    said = {"subject": "sub-01", "unit": "", "session": ""}
    file = open_upload(tmp_path / "a.npy", None, cap.embedder, montage="interpolate", ch_names=EIGHT, **said)
    assert file.made.interpolated == tuple(LACKING)
    assert open_upload(tmp_path / "a.npy", None, cap.embedder, montage="", ch_names=[], **said).made is None


def test_one_corpus_of_a_model_of_several_fixes_the_channels(tmp_path):
    """Prepared sets and arrays of fewer electrodes, for people of one corpus of a network that several share."""
    raw = Preparation(unit="V", scaling="none")
    shapes = {shape["corpus"]: {key: shape[key] for key in shape if key != "corpus"} for shape in (FIRST, SECOND)}
    corpora = {name: CorpusInputs(n_chans=len(one["ch_names"]), **one) for name, one in shapes.items()}
    shape = common_inputs(corpora).as_dict() | {"corpora": {name: each.as_dict() for name, each in corpora.items()}}
    people = ["first/sub-01", "first/sub-02", "second/sub-01"]
    config = NeuralClipConfig(eeg_config=EegConfig(**shape, subjects=people, encoder_type="linear"), projection_dim=16)
    processor = NeuralClipProcessor.from_config(config)
    for group in processor.groups("eeg"):
        group["preparation"] = raw.as_dict()
    embedder = Embedder(NeuralClipModel(config).eval(), processor)
    fewer = FIRST | {"ch_names": [name for name in FIRST["ch_names"] if name != "O1"]}
    data = PreparedSet.open(write_sensors(tmp_path / "set", fewer, preparation=raw.as_dict()))
    made = embedder.interpolation(data, "interpolate")
    assert made.interpolated == ("O1",) and list(made.ch_names) == FIRST["ch_names"]
    part = data.split("test").named_for(people)
    found = embedder.embed_split(part, montage="interpolate")
    whole = made.applied(
        np.asarray(data.split("test").values())[:, [fewer["ch_names"].index(n) for n in made.recorded]]
    )
    for person in people[:2]:
        rows = part.subjects == person
        by_hand = embedder.embed_recordings(whole[rows], person, "eeg", unit="prepared")[1]
        np.testing.assert_allclose(found[rows], by_hand, atol=1e-5)
    with pytest.raises(DataError, match=r"in its channels: it lacks 'O1'.* by 'montage' \(interpolate\)"):
        embedder.embed_split(part)
    third = PreparedSet.open(write_sensors(tmp_path / "third", fewer | {"corpus": "third"}))
    with pytest.raises(DataError, match=r"'corpus'.*'first'.*'third'"):
        embedder.interpolation(third, "interpolate")
