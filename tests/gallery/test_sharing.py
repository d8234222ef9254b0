"""Galleries on a Hub on this machine: the same bits, private by default, and never public against their terms."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from datasets import load_dataset
from hypothesis import HealthCheck, given, settings
from PIL import Image

from checkpoints_of_galleries import save_checkpoint
from folder_contents import contents
from hostile_names import hostile_names, structure
from loopback_hub import LoopbackHub
from neural_clip import NeuralGallery
from neural_clip.commands.push import main
from neural_clip.errors import DataError
from neural_clip.files.record import sealed
from neural_clip.gallery.card import card_text
from neural_clip.gallery.embedder import CheckpointIdentity
from neural_clip.markup import one_line
from neural_clip.prepared.facts import Facts
from neural_clip.targets.identity import EncoderIdentity
from second_process import python

REPO = "lab/signals"


@pytest.fixture
def hub(monkeypatch):
    """A Hub that the client of this process talks to."""
    with LoopbackHub() as served:
        served.stand_in(monkeypatch)
        yield served


@pytest.fixture(scope="module")
def saved(signals, tmp_path_factory):
    """A gallery of recordings on disk."""
    return signals.save_to_disk(tmp_path_factory.mktemp("shared") / "signals")


def with_terms(gallery, redistribution, modality="eeg"):
    """The same gallery, of data with other terms."""
    entries = [entry | {"redistribution": redistribution} for entry in gallery.terms[modality]]
    return replace(gallery, terms=dict(gallery.terms) | {modality: entries})


def test_a_gallery_comes_back_the_same_and_private(hub, saved, signals, world, tmp_path):
    address = signals.push_to_hub(REPO)
    assert address == f"{hub.endpoint}/datasets/{REPO}"
    repository = hub.repositories["dataset", REPO]
    assert repository["private"] is True and repository["messages"] == ["Upload gallery"]
    sent = {name: content for name, content in repository["files"].items() if name != ".gitattributes"}
    own = contents(saved)
    assert own.keys() == sent.keys()
    assert own["README.md"].count(b'"<this folder>"') == 1
    named = own["README.md"].replace(b'"<this folder>"', f'"{REPO}"'.encode())
    for name in ("data-00000-of-00001.arrow", "state.json", "dataset_info.json"):
        assert sent[name] == own[name]
    assert sent["README.md"] == named
    assert str(world.root).encode() not in b"".join(sent.values())
    found = NeuralGallery.from_pretrained(REPO, world.checkpoint, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(found.vectors, signals.vectors)
    assert found.vectors.dtype == signals.vectors.dtype and found.terms == signals.terms
    assert found.checkpoint == signals.checkpoint and found.encoder == signals.encoder
    part = world.data["meg"].split("test")
    ours, theirs = (one.convert(part, to="fmri") for one in (signals, found))
    np.testing.assert_array_equal(ours.rows, theirs.rows)
    np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_another_process_loads_it_from_the_hub(hub, saved, signals, tmp_path):
    main([str(saved), "--repo", REPO])
    code = (
        "import sys\nfrom huggingface_hub import constants\n"
        "constants.HF_HUB_OFFLINE, constants.ENDPOINT = False, sys.argv[1]\n"
        "constants.HUGGINGFACE_CO_URL_TEMPLATE = sys.argv[1] + constants.HUGGINGFACE_CO_URL_TEMPLATE[22:]\n"
        "from neural_clip import NeuralGallery\n"
        "gallery = NeuralGallery.from_pretrained(sys.argv[2], cache_dir=sys.argv[3])\n"
        "import hashlib\nprint(repr(gallery), hashlib.sha256(gallery.vectors.tobytes()).hexdigest())\n"
    )
    done = python("-c", code, hub.endpoint, REPO, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{signals!r} {hashlib.sha256(signals.vectors.tobytes()).hexdigest()}"


def test_load_dataset_reads_a_pushed_gallery(hub, signals, tmp_path):
    """As any data set, by the configuration in its card."""
    signals.push_to_hub(REPO)
    for name in ("README.md", "data-00000-of-00001.arrow"):
        (tmp_path / name).write_bytes(hub.repositories["dataset", REPO]["files"][name])
    rows = load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names == signals.rows.column_names and len(rows) == len(signals)


def test_the_command_pushes_what_the_gallery_wrote_and_nothing_else(hub, saved, tmp_path, capsys):
    folder = shutil.copytree(saved, tmp_path / "signals")
    for name in (".env", "notes.txt", "cache-1.arrow", "training_args.bin"):
        (folder / name).write_bytes(b"secret")
    assert main([str(folder), "--repo", REPO]) == f"{hub.endpoint}/datasets/{REPO}"
    assert hub.repositories["dataset", REPO]["files"].keys() == {".gitattributes", *contents(saved)}
    captured = capsys.readouterr()
    assert "not among the files of this gallery" in captured.err and "notes.txt" in captured.err
    assert f"{hub.endpoint}/datasets/{REPO} (private)" in captured.out
    with pytest.raises(DataError, match="does not tell of"):
        report = tmp_path / "report.json"
        report.write_text(json.dumps({"checkpoints": [{"name": "x", "sha256": "1"}], "decoding": {}}))
        main([str(folder), "--repo", REPO, "--scores", str(report)])


@pytest.mark.parametrize("redistribution", ["forbidden", None])
def test_terms_of_recordings_keep_a_gallery_private(hub, signals, tmp_path, redistribution):
    closed = with_terms(signals, redistribution)
    with pytest.raises(DataError, match=r"This NeuralGallery must not become public: redistribution of .* \(eeg\) is"):
        closed.push_to_hub(REPO, private=False)
    assert hub.created == []
    hub.add("dataset", "lab/open", private=False)
    with pytest.raises(DataError, match=r"'lab/open' is a public repository"):
        closed.push_to_hub("lab/open")
    assert set(hub.repositories["dataset", "lab/open"]["files"]) == {".gitattributes"}
    # saved, loaded and joined, the terms are still there
    loaded = NeuralGallery.load_from_disk(closed.save_to_disk(tmp_path / "closed"))
    joined = signals.add(loaded)
    for kept in (loaded, joined, loaded.filter(modality="eeg"), loaded.mean_recordings()):
        with pytest.raises(DataError, match="must not become public"):
            kept.push_to_hub(REPO, private=False)
    with pytest.raises(DataError, match="must not become public"):
        main([str(tmp_path / "closed"), "--repo", REPO, "--public"])
    assert hub.created == []
    assert loaded.filter(modality="fmri").push_to_hub(REPO, private=False)
    assert hub.repositories["dataset", REPO]["private"] is False


def test_a_gallery_of_before_terms_were_kept_stays_private(hub, saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "old")
    path = folder / "gallery.json"
    content = json.loads(path.read_text())
    del content["terms"]
    path.write_text(json.dumps(sealed(content)))
    (folder / "README.md").write_text("---\nlicense: other\n---\n# Old\n")
    for public in (lambda: main([str(folder), "--repo", REPO, "--public"]),
                   lambda: NeuralGallery.load_from_disk(folder).push_to_hub(REPO, private=False)):  # fmt: skip
        with pytest.raises(DataError, match=r"must not become public: redistribution of .* is not recorded"):
            public()
    assert main([str(folder), "--repo", REPO])


def test_terms_come_from_the_data(signals, images, world):
    facts = Facts.read(world.folders["fmri"])
    (entry,) = signals.terms["fmri"]
    stated = {name: getattr(facts, name) for name in ("corpus", "redistribution", "licence", "terms")}
    assert entry == stated | {"subjects": ["sub-01", "sub-02"], "simulated": bool(facts.simulated)}
    assert images.terms["image"][0]["corpus"] == Facts.read(world.folders["eeg"]).corpus
    part = world.data["eeg"].split("test", subjects=["sub-02"])
    assert NeuralGallery.of_recordings(part, np.eye(len(part), 4)).terms["eeg"][0]["subjects"] == ["sub-02"]
    assert NeuralGallery.of_images(part).terms.keys() == {"image"}
    other = world.data["eeg"].split("test", subjects=["sub-01"])
    both = NeuralGallery.from_recordings(world.checkpoint, [part, other])
    (entry,) = both.terms["eeg"]  # of one data set, whatever its parts
    assert entry["subjects"] == ["sub-01", "sub-02"]
    unknown = NeuralGallery.of_arrays("eeg", np.eye(3), list("abc"))
    with pytest.raises(DataError, match="not recorded"):
        unknown.push_to_hub(REPO, private=False)


def test_the_card_warns_of_people_only_where_some_were_recorded(signals, tmp_path):
    """With simulated and recorded ones in one gallery it warns."""

    def card(**simulated):
        terms = {name: [entry | {"simulated": simulated[name]} for entry in signals.terms[name]] for name in simulated}
        folder = replace(signals, terms=terms).save_to_disk(tmp_path / str(sum(simulated.values())))
        return (folder / "README.md").read_text()

    assert "may find out by it that this\nperson took part" not in card(eeg=True, fmri=True)
    assert "may find out by it that this\nperson took part" in card(eeg=True, fmri=False)
    assert "may find out by it that this\nperson took part" in card(eeg=False, fmri=False)


def test_some_of_the_people_are_named_alone(signals, world, tmp_path):
    kept = signals.filter(subject="sub-02")
    assert {entry["subjects"][0] for entries in kept.terms.values() for entry in entries} == {"sub-02"}
    card = (kept.save_to_disk(tmp_path / "kept") / "README.md").read_text()
    assert "sub-02" in card and "sub-01" not in card and "sub-01" not in (tmp_path / "kept/gallery.json").read_text()
    means = signals.mean_recordings()
    assert means.filter(modality="eeg").terms["eeg"] == signals.terms["eeg"]  # of all
    entry = {name: value for name, value in kept.terms["eeg"][0].items() if name != "subjects"}
    assert entry.items() <= signals.terms["eeg"][0].items()


def test_pictures_of_ones_own_may_become_public(hub, world, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (8, 8), "red" if folder == "a" else "blue").save(tmp_path / folder / "dog.png")
    files = [tmp_path / "a" / "dog.png", tmp_path / "b" / "dog.png", Image.new("RGB", (8, 8), "green")]
    gallery = NeuralGallery.from_images(world.checkpoint, files)
    assert gallery.image_ids.tolist() == ["a/dog.png", "b/dog.png", "000002"]
    gallery.push_to_hub("dogs", private=False, token="hf_of_the_lab")
    repository = hub.repositories["dataset", "lab/dogs"]
    assert repository["private"] is False
    assert str(tmp_path).encode() not in b"".join(repository["files"].values())
    card = repository["files"]["README.md"].decode()
    assert "whoever made the gallery public answers for them" in card and "1 rows bring theirs" in card
    assert "| images | 3 | 3 | - |" in card
    found = NeuralGallery.from_pretrained("lab/dogs", cache_dir=tmp_path / "cache", pictures=tmp_path)
    shown = found.for_model(world.checkpoint).decode(world.data["eeg"].split("test"), top_k=3)[0]
    assert all(hit.image is not None for hit in shown)


def test_the_card_says_what_the_gallery_holds(saved, signals, world):
    card = (saved / "README.md").read_text()
    for text in (
        "# Gallery of EEG and fMRI recordings", signals.checkpoint.sha256, signals.encoder.name,
        'NeuralGallery.from_pretrained("<this folder>", model="CHECKPOINT")', "path: data-*.arrow",
        f"| EEG | {len(signals.filter(modality='eeg'))} |", "subjects sub-01, sub-02",
    ):  # fmt: skip
        assert text in card, text
    closed = with_terms(signals, "forbidden")
    assert "Redistribution is forbidden" not in card
    assert "**Redistribution is forbidden**" in card_text(closed.rows, closed.encoder, closed.checkpoint, closed.terms)


def test_damage_and_other_models_are_refused(hub, saved, signals, world, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "gallery")
    path = folder / "data-00000-of-00001.arrow"
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(DataError, match=r"gallery/data-00000-of-00001\.arrow' is not the file that was written"):
        main([str(folder), "--repo", REPO])
    assert hub.created == []
    signals.push_to_hub(REPO)
    other = save_checkpoint(tmp_path / "other", world.data, seed=9)
    with pytest.raises(DataError, match=r"Recordings of two checkpoints are not comparable"):
        NeuralGallery.from_pretrained(REPO, other, cache_dir=tmp_path / "cache")
    hub.repositories["dataset", REPO]["files"]["data-00000-of-00001.arrow"] = path.read_bytes()
    hub.repositories["dataset", REPO]["messages"].append("changed")
    with pytest.raises(DataError, match=r"data-00000-of-00001\.arrow' is not the file that was written"):
        NeuralGallery.from_pretrained(REPO, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "message"),
    [("lab/nothing", "is neither a folder here nor a gallery that the Hub gives"), ("nowhere", "no name on the Hub"),
     ("../x/y", "no name on the Hub"), ("lab/other", "'lab/other' on the Hub is no gallery")],
)  # fmt: skip
def test_what_is_no_gallery_is_told(hub, tmp_path, name, message):
    hub.add("dataset", "lab/other", private=True, files={"README.md": b"# Other"})
    with pytest.raises(DataError, match=message):
        NeuralGallery.from_pretrained(name, cache_dir=tmp_path)


def test_a_repository_of_something_else_is_not_written(hub, saved):
    hub.add("dataset", REPO, private=True, files={"neural_clip.json": b"{}"})
    with pytest.raises(DataError, match="exists and holds something else"):
        main([str(saved), "--repo", REPO])


def test_a_branch_is_made(hub, signals, tmp_path):
    signals.push_to_hub(REPO)
    signals.filter(modality="eeg").push_to_hub(REPO, revision="eeg")
    files = hub.repositories["dataset", REPO]
    assert files["branches"]["eeg"]["gallery.json"] != files["files"]["gallery.json"]
    for branch, expected in (("eeg", ["eeg"]), (None, ["eeg", "fmri"])):
        found = NeuralGallery.from_pretrained(REPO, revision=branch, cache_dir=tmp_path)
        assert found.modalities == expected


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=hostile_names.filter(one_line))
def test_names_are_text_in_the_card_whatever_they_hold(name):
    rows = NeuralGallery.of_arrays("eeg", np.eye(3), list("abc"), subject="s").rows

    def card(name):
        entry = {"corpus": name, "redistribution": "allowed", "licence": name, "terms": name, "subjects": [name, "b"]}
        encoder = EncoderIdentity(name, name, "projected", 3)
        return card_text(rows, encoder, CheckpointIdentity(name, "0" * 64), {"eeg": [entry]})

    (plain, _), (found, text) = (structure(card(each).split("---\n", 2)[2]) for each in ("name", name))
    assert found == plain and text.count(one_line(name)) >= 6
