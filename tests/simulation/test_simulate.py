"""`neural-clip simulate`: whole folders or none, kept when nothing changed. Writers are replaced by a stub."""

import json
import sys
import types
from dataclasses import replace

import pytest

from neural_clip.commands.simulate import main
from neural_clip.errors import DataError
from neural_clip.prepared.known_corpora import TWINS
from neural_clip.simulation import generative, simulate
from neural_clip.simulation.presets import get_preset

pytestmark = pytest.mark.filterwarnings("ignore:calibration.json has no")


@pytest.fixture
def writer(monkeypatch):
    """A module that counts its calls and fails on demand."""
    stub = types.ModuleType("stub_writer")
    stub.calls, stub.fail = [], False

    def write(raw_dir, preset, seed):
        raw_dir.mkdir(parents=True, exist_ok=True)
        (raw_dir / "data.bin").write_bytes(bytes([seed]))
        if stub.fail:
            raise OSError("disk full")
        stub.calls.append((raw_dir.name, preset.name, seed))
        part = next(name for name, corpus in TWINS.items() if corpus.name == raw_dir.name.split(".")[0])
        stamp = generative.simulated_stamp(preset, part, seed, {"two_way": 0.9})
        (raw_dir / "SIMULATED.json").write_text(json.dumps(stamp))

    stub.write = write
    monkeypatch.setitem(sys.modules, "stub_writer", stub)
    corpora = {name: replace(corpus, twin="stub_writer.write") for name, corpus in TWINS.items()}
    monkeypatch.setattr(simulate, "TWINS", corpora)
    monkeypatch.setattr(generative, "tiny_clip_sha256", lambda: "0" * 64)
    return stub


def test_all_corpora_are_written_once_and_kept(tmp_path, writer):
    arguments = ["--preset", "tiny", "--output-dir", str(tmp_path / "twins"), "--seed", "3"]
    folders = main(arguments)
    assert {path.name for path in (tmp_path / "twins").iterdir()} == {"imagenet_eeg", "things_meg", "nsd"}
    assert folders["meg"] == tmp_path / "twins" / "things_meg"
    assert all(call[1:] == ("tiny", 3) for call in writer.calls) and len(writer.calls) == 3
    main(arguments)
    assert len(writer.calls) == 3


def test_a_further_corpus_of_a_modality_is_written_when_it_is_asked_for(tmp_path, writer):
    words = ["--preset", "tiny", "--output-dir", str(tmp_path), "--corpora", "things_eeg2", "eeg"]
    folders = main(words)
    assert folders == {"things_eeg2": tmp_path / "things_eeg2", "eeg": tmp_path / "imagenet_eeg"}
    stamps = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/SIMULATED.json")}
    assert {stamp["modality"] for stamp in stamps.values()} == {"eeg"}
    assert stamps["things_eeg2"]["sizes"]["n_concepts"] == get_preset("tiny").things_eeg2.n_concepts
    main(words)
    assert len(writer.calls) == 2


def test_another_seed_or_dial_is_refused_unless_overwrite(tmp_path, writer):
    tiny = get_preset("tiny")
    simulate.simulate(tmp_path, tiny, seed=0, corpora=["eeg"])
    with pytest.raises(DataError, match="seed differ"):
        simulate.simulate(tmp_path, tiny, seed=1, corpora=["eeg"])
    harder = replace(tiny, eeg=replace(tiny.eeg, dials=replace(tiny.eeg.dials, induced=0.0)))
    with pytest.raises(DataError, match="dials differ"):
        simulate.simulate(tmp_path, harder, seed=0, corpora=["eeg"])
    simulate.simulate(tmp_path, tiny, seed=1, corpora=["eeg"], overwrite=True)
    assert (tmp_path / "imagenet_eeg" / "data.bin").read_bytes() == b"\x01"


def test_a_failed_writer_leaves_no_corpus_and_the_next_run_succeeds(tmp_path, writer):
    writer.fail = True
    with pytest.raises(OSError, match="disk full"):
        simulate.simulate(tmp_path, get_preset("tiny"), seed=0, corpora=["fmri"])
    assert not (tmp_path / "nsd").exists()
    writer.fail = False
    simulate.simulate(tmp_path, get_preset("tiny"), seed=0, corpora=["fmri"])
    assert [path.name for path in tmp_path.iterdir()] == ["nsd"]


def test_a_corpus_that_a_killed_run_moved_aside_comes_back(tmp_path, writer):
    tiny = get_preset("tiny")
    simulate.simulate(tmp_path, tiny, seed=0, corpora=["fmri"])
    (tmp_path / "nsd").rename(tmp_path / "nsd.replaced")  # where it is between the two renames that replace it
    simulate.simulate(tmp_path, tiny, seed=0, corpora=["fmri"])
    assert [path.name for path in tmp_path.iterdir()] == ["nsd"] and len(writer.calls) == 1


@pytest.mark.parametrize("content", ["[]", "3", "{", "[" * 100_000], ids=["list", "number", "cut", "deep"])
def test_a_damaged_stamp_is_named(tmp_path, writer, content):
    (tmp_path / "nsd").mkdir()
    (tmp_path / "nsd" / "SIMULATED.json").write_text(content)
    with pytest.raises(DataError, match=r"nsd/SIMULATED\.json' is (damaged|no readable JSON)"):
        simulate.simulate(tmp_path, get_preset("tiny"), seed=0, corpora=["fmri"])


def test_foreign_folders_are_never_touched(tmp_path, writer):
    (tmp_path / "nsd").mkdir()
    (tmp_path / "nsd" / "betas.nii.gz").write_bytes(b"real")
    for overwrite in (False, True):
        with pytest.raises(DataError, match=r"no SIMULATED\.json"):
            simulate.simulate(tmp_path, get_preset("tiny"), seed=0, corpora=["eeg", "fmri"], overwrite=overwrite)
    assert not writer.calls and (tmp_path / "nsd" / "betas.nii.gz").read_bytes() == b"real"


def test_unknown_corpus_is_named(tmp_path):
    with pytest.raises(DataError, match=r"'eeg', 'meg', 'fmri', 'things_eeg2' and 'things_fmri', but got 'ecog'"):
        simulate.simulate(tmp_path, get_preset("tiny"), seed=0, corpora=["ecog"])
