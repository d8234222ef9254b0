"""Pushing, against a Hub on this machine: what arrives, what stays, and what must never become public."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from folder_contents import contents
from loopback_hub import LoopbackHub
from neural_clip.commands.push import main
from neural_clip.errors import DataError, run
from neural_clip.files.record import PREDICTIONS_FILE, record_files, sealed
from neural_clip.files.whole import link_or_copy, sha256_of
from neural_clip.prepared.facts import read_metadata, verify_prepared
from neural_clip.publishing.model_card import write_model_card
from neural_clip.publishing.push import push
from neural_clip.terms import check_terms
from toy_sets import write_toy_set

REPO = "lab/set"
CODE = {  # as a checkpoint names and holds it: files that import further ones
    "configuration_x.py": b"class C:\n    pass\n",
    "modeling_x.py": b"from .configuration_x import C\n\n\ndef f():\n    from .layers import L\n",
    "layers.py": b"import math\n",
    "processing_x.py": b"from .configuration_x import C\n",
}
AUTO_MAP = {"AutoConfig": "configuration_x.C", "AutoModel": "modeling_x.M"}
DEEP = '{"a":' * 3000 + "1" + "}" * 3000


@pytest.fixture
def hub(monkeypatch):
    """A Hub that the client of this process talks to."""
    with LoopbackHub() as served:
        served.stand_in(monkeypatch)
        yield served


def make_set(folder, redistribution="allowed", n=9, **changes):
    rng = np.random.default_rng(0)
    images = [{"image_id": f"im{i}", "concept": f"c{i}", "image_embeds": rng.standard_normal(4)} for i in range(n)]
    changes = {"image_encoder": {"name": "e", "revision": "1", "pooling": "precomputed"}} | changes
    values = rng.standard_normal((n, 5))
    return write_toy_set(folder, images, values, 2, shard_rows=2, redistribution=redistribution, **changes)


def make_checkpoint(folder, terms=("allowed", "allowed"), listed=True):
    folder.mkdir(parents=True)
    data = {m: {"corpus": m[::-1], "redistribution": t} for m, t in zip(("eeg", "fmri"), terms, strict=True)}
    for facts in data.values():
        if facts["redistribution"] is None:
            del facts["redistribution"]
    contents = {
        "config.json": json.dumps({"auto_map": AUTO_MAP}).encode(), "model.safetensors": bytes(range(256)),
        "processor_config.json": json.dumps({"auto_map": {"AutoProcessor": "processing_x.P"}}).encode(),
        "training.json": json.dumps({"data": data}).encode(),
        "README.md": b"---\nlicense: apache-2.0\n---\n# Card\n",
    } | CODE  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    if listed:
        names = contents.keys() - {"README.md", "training.json"}
        contents["training.json"] = relist(folder, record_files(folder, names))
    return contents


def relist(folder, files, record="training.json"):
    """Put a list of files into a record; returns what it holds then."""
    content = json.dumps(json.loads((folder / record).read_text()) | {"files": files}).encode()
    (folder / record).write_bytes(content)
    return content


def as_sent(folder, repo=REPO):
    """Contents of a data set, whose card names the repository once it is there."""
    found = contents(folder)
    assert found["README.md"].count(b'("<this folder>"') == 3
    return found | {"README.md": found["README.md"].replace(b'"<this folder>"', f'"{repo}"'.encode())}


def litter(folder):
    """Files that are no part of a data set or checkpoint."""
    for name in (".env", ".token.json", "README.md.partial", "training_args.bin", "optimizer.pt", ".cache/x.json",
                 "diary.docx", "diary.py", "checkpoint-3/config.json", "checkpoint-3/model.safetensors"):  # fmt: skip
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"secret")


def replace(folder, by):
    """Put a folder in place of another, as `train --overwrite` and `prepare --overwrite` do."""
    folder.rename(folder.with_name("gone"))
    by.rename(folder)
    shutil.rmtree(folder.with_name("gone"))


def refused(folder, message, **options):
    with pytest.raises(DataError, match=message):
        push(folder, REPO, **options)


def test_data_set_arrives_whole_and_private(tmp_path, hub, capsys):
    folder = make_set(tmp_path / "set")
    expected = as_sent(folder)
    assert {"README.md", "neural_clip.json", "scaling.npz", "images/images-00000.parquet"} < expected.keys()
    assert len([name for name in expected if name.startswith("data/sub-01/train")]) == 3
    litter(folder)
    assert main([str(folder), "--repo", REPO]) == f"{hub.endpoint}/datasets/{REPO}"
    repository = hub.repositories["dataset", REPO]
    assert repository["files"] == expected | {".gitattributes": b""}
    assert repository["private"] is True
    assert repository["messages"] == ["Upload set, made by neural_clip"]
    (created,) = hub.created
    assert created.get("visibility") == "private" or created.get("private") is True
    assert f"{hub.endpoint}/datasets/{REPO} (private)" in capsys.readouterr().out


def test_a_link_that_leads_to_itself_is_no_checkpoint(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataError, match=r"loop' is neither a prepared data set"):
        push(tmp_path / "loop", "lab/model")


def test_checkpoint_arrives_whole_and_private(tmp_path, hub):
    folder = tmp_path / "checkpoint"
    expected = make_checkpoint(folder)
    litter(folder)
    assert push(folder, "lab/model", message="first") == f"{hub.endpoint}/lab/model"
    repository = hub.repositories["model", "lab/model"]
    assert repository["files"] == expected | {".gitattributes": b""}
    assert repository["private"] is True and repository["messages"] == ["first"]


@pytest.mark.parametrize("listed", [True, False])
def test_predictions_of_recordings_stay_here(tmp_path, hub, capsys, listed):
    folder = tmp_path / "checkpoint"
    expected = make_checkpoint(folder, listed=listed)
    (folder / PREDICTIONS_FILE).write_bytes(b"what was recorded, in part")
    if listed:
        record = json.loads((folder / "training.json").read_text())
        record["local_files"] = record_files(folder, [PREDICTIONS_FILE])
        expected["training.json"] = json.dumps(record).encode()
        (folder / "training.json").write_bytes(expected["training.json"])
    push(folder, "lab/model")
    assert hub.repositories["model", "lab/model"]["files"] == expected | {".gitattributes": b""}
    assert f"these stay here: {PREDICTIONS_FILE}." in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["set", "checkpoint"])
def test_what_is_sent_is_what_the_record_lists(tmp_path, hub, capsys, kind):
    folder = tmp_path / "folder"
    expected = as_sent(make_set(folder)) if kind == "set" else make_checkpoint(folder)
    litter(folder)
    for name in ("diary.json", "answers.txt", "notes.csv"):  # called as files of a data set or checkpoint are
        (folder / name).write_text("secret")
    push(folder, REPO)
    (repository,) = hub.repositories.values()
    assert repository["files"] == expected | {".gitattributes": b""}
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: not among the files")]
    assert len(told) == 1 and "stay here: .cache/, .env, .token.json, README.md.partial, answers.txt and" in told[0]


@pytest.mark.parametrize("public", [False, True])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "processor_config.json", "layers.py"])
def test_files_that_the_record_was_not_written_for_are_not_sent(tmp_path, hub, name, public):
    folder = tmp_path / "model"
    make_checkpoint(folder)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1] + b" ")
    refused(folder, rf"{name}' is not the file that training\.json was written for", public=public)
    (folder / name).unlink()
    refused(folder, rf"{name}' is missing, which training\.json lists", public=public)
    assert hub.requests == []


def test_a_record_without_a_list_goes_with_its_weights_into_private_repositories_alone(tmp_path, hub):
    folder = tmp_path / "model"
    expected = make_checkpoint(folder, listed=False)
    litter(folder)
    refused(folder, "must not become public: its training.json is of an earlier version", public=True)
    assert hub.requests == []
    push(folder, REPO)
    assert hub.repositories["model", REPO]["files"] == expected | {".gitattributes": b""}


@pytest.mark.parametrize("name", [".env", "training_args.bin", "optimizer.pt", "checkpoint-3", "diary.docx"])
def test_a_record_that_lists_what_is_no_file_of_a_checkpoint_is_damaged(tmp_path, hub, name):
    folder = tmp_path / "model"
    make_checkpoint(folder)
    litter(folder)
    files = json.loads((folder / "training.json").read_text())["files"]
    (folder / name).is_file() or (folder / name).rename(folder / "moved")
    (folder / name).exists() or (folder / name).write_text("x")
    relist(folder, files | record_files(folder, [name]))
    refused(folder, rf"'files' name '{name}', which is no file of a model")
    assert hub.requests == []


@pytest.mark.parametrize(
    "name", ["../x.json", "/etc/passwd", "data/sub-01/../../x.json", ".cache/x.json", "a/b/c.json", "data/x.parquet",
             "data/sub-01/diary.docx"],
)  # fmt: skip
def test_a_data_set_that_lists_what_is_none_of_its_files_is_damaged(tmp_path, hub, name):
    folder = make_set(tmp_path / "set")
    files = json.loads((folder / "neural_clip.json").read_text())["files"]
    relist(folder, files | {name: {"bytes": 1, "sha256": "0" * 64}}, "neural_clip.json")
    refused(folder, "which is no file of a dataset|'files' should be names below the folder")
    relist(folder, [name], "neural_clip.json")
    refused(folder, "'files' should be")
    assert hub.requests == []


def test_code_that_the_record_does_not_list_is_not_sent(tmp_path, hub):
    folder = tmp_path / "model"
    make_checkpoint(folder)
    relist(folder, record_files(folder, ["config.json", "model.safetensors", "processor_config.json"]))
    refused(folder, r"configuration_x\.py' is code that loads the model, but training\.json does not list it")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [("set", "images/images-00000.parquet"), ("set", "data/sub-01"), ("checkpoint", "model.safetensors"),
     ("checkpoint", "README.md")],
)  # fmt: skip
def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path, hub, kind, name):
    folder = tmp_path / "folder"
    make_set(folder) if kind == "set" else make_checkpoint(folder)
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    refused(folder, rf"'{folder}/{name}.*' is a link that leads out of the folder")
    assert hub.requests == []


def test_what_may_be_public_is_when_asked(tmp_path, hub, capsys):
    main([str(make_set(tmp_path / "set")), "--repo", REPO, "--public", "--revision-message", "here it is"])
    assert hub.repositories["dataset", REPO]["private"] is False
    assert hub.repositories["dataset", REPO]["messages"] == ["here it is"]
    assert "(public)" in capsys.readouterr().out
    make_checkpoint(tmp_path / "model")
    push(tmp_path / "model", "lab/model", public=True)
    assert hub.repositories["model", "lab/model"]["private"] is False


def test_a_set_whose_statistics_are_lost_stays_here(tmp_path, hub):
    folder = make_set(tmp_path / "set")
    facts = json.loads((folder / "neural_clip.json").read_text())
    facts["scaling"]["statistics"] = "0" * 64  # as if there had been some
    (folder / "neural_clip.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match=r"finds errors.*'scaling\.safetensors' is missing"):
        push(folder, REPO)
    assert not hub.created


def test_a_second_push_leaves_nothing_of_the_first(tmp_path, hub):
    push(make_set(tmp_path / "many" / "set"), REPO)
    fewer = make_set(tmp_path / "few" / "set", n=6)
    push(fewer, REPO)
    files = hub.repositories["dataset", REPO]["files"]
    assert files == as_sent(fewer) | {".gitattributes": b""}
    arrived = tmp_path / "arrived"
    for name, content in files.items():
        (arrived / name).parent.mkdir(parents=True, exist_ok=True)
        (arrived / name).write_bytes(content)
    assert verify_prepared(arrived) == read_metadata(fewer)
    assert len(hub.created) == 1


@pytest.mark.parametrize("make", ["set", "checkpoint", "checkpoint of unknown terms", "checkpoint without record"])
def test_forbidden_data_asks_the_hub_nothing_when_public(tmp_path, hub, capsys, make):
    folder = tmp_path / "folder"
    if make == "set":
        make_set(folder, "forbidden")
    else:
        make_checkpoint(folder, ("allowed", None if "unknown" in make else "forbidden"))
    if "without" in make:
        (folder / "training.json").unlink()
    with pytest.raises(SystemExit) as stop:
        run(main, [str(folder), "--repo", REPO, "--public"])
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert f"'{folder}' must not become public" in shown
    assert ("is not recorded" if "unknown" in make or "without" in make else "is forbidden") in shown
    assert hub.requests == []


@pytest.mark.parametrize("kind", ["dataset", "model"])
@pytest.mark.parametrize("public", [False, True])
def test_forbidden_data_stays_out_of_a_repository_that_is_public(tmp_path, hub, kind, public):
    folder = tmp_path / "folder"
    if kind == "dataset":
        make_set(folder, "forbidden")
    else:
        make_checkpoint(folder, ("forbidden", "allowed"))
    hub.add(kind, REPO, private=False)
    with pytest.raises(DataError, match="must not become public"):
        push(folder, REPO, public=public)
    assert hub.repositories[kind, REPO]["files"] == {".gitattributes": b""}
    assert all(method == "GET" for method, _ in hub.requests)


def test_forbidden_data_goes_into_private_repositories(tmp_path, hub):
    folder = make_set(tmp_path / "set", "forbidden")
    push(folder, REPO)
    assert hub.repositories["dataset", REPO]["private"] is True
    push(folder, REPO)
    assert hub.repositories["dataset", REPO]["files"].keys() > {"README.md", "neural_clip.json"}


def test_visibility_of_a_repository_is_as_said(tmp_path, hub):
    folder = make_set(tmp_path / "set")
    hub.add("dataset", REPO, private=False)
    with pytest.raises(DataError, match=r"exists and is public\. If that is meant, add --public"):
        push(folder, REPO)
    push(folder, REPO, public=True)
    hub.add("dataset", "lab/closed", private=True)
    with pytest.raises(DataError, match=r"exists and is private\. If that is meant, leave --public away"):
        push(folder, "lab/closed", public=True)


def test_repositories_of_something_else_are_left_alone(tmp_path, hub):
    hub.add("dataset", REPO, private=True, files={"data/train.csv": b"a,b", "README.md": b"mine"})
    with pytest.raises(DataError, match=r"exists and holds something else \(data/train.csv"):
        push(make_set(tmp_path / "set"), REPO)
    assert hub.repositories["dataset", REPO]["files"]["data/train.csv"] == b"a,b"


def test_changed_and_leaking_sets_are_not_sent(tmp_path, hub, monkeypatch):
    from neural_clip.prepared.doctor import inspect as doctor

    folder, examine = make_set(tmp_path / "set"), doctor.inspect
    found = [SimpleNamespace(check="overlap", severity="warning", message="little", consequence="")]
    monkeypatch.setattr(doctor, "inspect", lambda folder: found)
    found.append(SimpleNamespace(check="image overlap", severity="error", message="3 images.", consequence="useless"))
    with pytest.raises(DataError, match=r"`neural-clip doctor` finds errors. image overlap: 3 images"):
        push(folder, REPO)
    monkeypatch.setattr(doctor, "inspect", examine)
    path = folder / "images" / "images-00000.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"X")
    with pytest.raises(DataError, match="is not the file that was written"):
        push(folder, REPO)
    assert hub.repositories == {} and all(method == "GET" for method, _ in hub.requests)
    path.write_bytes(whole)
    found.pop()
    monkeypatch.setattr(doctor, "inspect", lambda folder: found)
    push(folder, REPO)  # a warning does not hinder


@pytest.mark.parametrize("kind", ["set", "checkpoint"])
@pytest.mark.parametrize("moment", ["", "preupload/main", "commit/main"])
def test_a_folder_that_is_replaced_while_it_is_sent_arrives_as_it_was_checked(tmp_path, hub, kind, moment):
    folder, other = tmp_path / "folder", tmp_path / "other"
    expected = as_sent(make_set(folder)) if kind == "set" else make_checkpoint(folder)
    make_set(other, "forbidden", n=12) if kind == "set" else make_checkpoint(other, ("forbidden", "forbidden"))
    (other / "README.md").write_text("another card")
    hub.meanwhile[moment] = lambda: replace(folder, other)
    push(folder, REPO, public=True)
    (repository,) = hub.repositories.values()
    assert hub.meanwhile == {} and not other.exists()
    assert repository["files"] == expected | {".gitattributes": b""}
    assert os.listdir(tmp_path) == ["folder"]  # no links are left


@pytest.mark.parametrize("kind", ["set", "checkpoint"])
@pytest.mark.parametrize("n_linked", [1, 3, 5])
def test_a_folder_that_is_replaced_while_it_is_looked_at_is_not_sent(tmp_path, hub, monkeypatch, kind, n_linked):
    from neural_clip.publishing import push as module

    folder, other, linked = tmp_path / "folder", tmp_path / "other", []
    make_set(folder) if kind == "set" else make_checkpoint(folder)
    make_set(other, "forbidden", n=12) if kind == "set" else make_checkpoint(other, ("forbidden", "forbidden"))
    (other / ("neural_clip.json" if kind == "set" else "model.safetensors")).write_bytes(b"{}")

    def link(source, target):
        linked.append(source)
        if len(linked) == n_linked:
            replace(folder, other)
        return link_or_copy(source, target)

    monkeypatch.setattr(module, "link_or_copy", link)
    refused(folder, ".")
    assert len(linked) >= n_linked and hub.repositories == {}
    assert os.listdir(tmp_path) == ["folder"]


def test_a_folder_beside_which_nothing_can_be_written_is_sent(tmp_path, hub, monkeypatch):
    folder = tmp_path / "model"
    expected = make_checkpoint(folder)
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write everywhere
    push(folder, REPO)
    assert hub.repositories["model", REPO]["files"] == expected | {".gitattributes": b""}


@pytest.mark.parametrize("missing", ["README.md", "config.json", "model.safetensors"])
def test_incomplete_checkpoints_are_not_sent(tmp_path, hub, missing):
    make_checkpoint(tmp_path / "model", listed=False)
    (tmp_path / "model" / missing).unlink()
    with pytest.raises(DataError, match=rf"it lacks {missing}\.$"):
        push(tmp_path / "model", REPO)
    assert hub.requests == []


@pytest.mark.parametrize("missing", sorted(CODE))
def test_checkpoints_without_their_code_are_not_sent(tmp_path, hub, missing):
    folder = tmp_path / "model"
    make_checkpoint(folder, listed=False)
    (folder / missing).unlink()
    with pytest.raises(DataError, match=rf"needs the code file '{missing}', which is not beside it.*save_pretrained"):
        push(folder, REPO)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{}", r"config\.json' does not say in 'auto_map' what AutoConfig loads.*save_pretrained"),
        ("config.json", '{"auto_map": {"AutoConfig": "configuration_x.C"}}', "what AutoModel loads"),
        ("config.json", '{"auto_map": {"AutoConfig": "configuration_x.C", "AutoModel": null}}', "what AutoModel"),
        ("config.json", '{"auto_map": {"AutoConfig": "configuration_x.C", "AutoModel": "a/b--modeling_x.M"}}',
         r"needs the code file 'a/b--modeling_x\.py'"),
        ("config.json", "[]", r"config\.json' is damaged"),
        ("config.json", '{"auto_map": 3}', r"config\.json' is damaged"),
        ("processor_config.json", "{}", r"processor_config\.json' does not say .* what AutoProcessor loads"),
        ("processor_config.json", "{", r"processor_config\.json' is no readable JSON file"),
        ("config.json", DEEP, r"config\.json' is no readable JSON file: it is nested more than 50 deep"),
        ("processor_config.json", DEEP, r"processor_config\.json' is no readable JSON file: it is nested more than"),
    ],
)  # fmt: skip
def test_checkpoints_that_name_no_code_are_not_sent(tmp_path, hub, name, content, message):
    folder = tmp_path / "model"
    make_checkpoint(folder, listed=False)
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=message):
        push(folder, REPO)
    assert hub.requests == []


def test_damaged_records_are_not_sent(tmp_path, hub):
    make_checkpoint(tmp_path / "model")
    for content in ("{", "[]", "{}", '{"data": {"eeg": 1}}'):
        (tmp_path / "model" / "training.json").write_text(content)
        with pytest.raises(DataError, match=r"training\.json' is damaged"):
            push(tmp_path / "model", REPO)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["set", "a/b/c", "lab/", "lab/se t", "../set", "lab/set.git"])
def test_names_that_are_none_are_refused(tmp_path, hub, name):
    with pytest.raises(DataError, match=r"'repo' parameter.*Give ORG/NAME"):
        push(make_set(tmp_path / "set"), name)
    assert hub.requests == []


def test_offline_and_out_of_reach_are_told_at_once(tmp_path, hub, monkeypatch):
    from huggingface_hub import constants

    folder = make_set(tmp_path / "set")
    start = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
            push(folder, REPO)
    hub.__exit__()  # nobody listens there any more
    with pytest.raises(DataError, match=r"'lab/set' cannot be pushed to .*refused.*Check the network.*hf auth login"):
        push(folder, REPO)
    assert time.monotonic() - start < 5


def test_a_hub_that_never_answers_is_given_up(tmp_path, monkeypatch):
    import socket

    from huggingface_hub import constants

    from neural_clip.publishing import hub

    assert hub.HUB_TIMEOUT <= 10
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(hub, "HUB_TIMEOUT", 0.3)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        folder = make_set(tmp_path / "set")
        hang_up = threading.Timer(20, silent.close)  # so that a client without patience fails this test and not hangs
        hang_up.start()
        start = time.monotonic()
        with pytest.raises(DataError, match=r"cannot be pushed to \(.*[Tt]im"):
            push(folder, REPO)
        hang_up.cancel()
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("status", [401, 403, 500])
def test_refusal_by_the_hub_is_one_sentence(tmp_path, hub, status):
    hub.denied = status
    with pytest.raises(DataError, match=rf"cannot be pushed to \(.*{status}.*hf auth login"):
        push(make_set(tmp_path / "set"), REPO)


def test_terms():
    check_terms("x", {"a": "allowed", "b": "allowed"})
    for terms, said in (
        ({"a": "allowed", "b": "forbidden"}, "redistribution of b is forbidden"),
        ({"a": None, "b": "allowed"}, "redistribution of a is not recorded"),
        ({"a": "forbidden", "b": "perhaps"}, "of a is forbidden and redistribution of b is not recorded"),
    ):
        with pytest.raises(DataError, match=said):
            check_terms("x", terms)


def record_of(folder, **changes):
    """A record that a card is made of, whose files are those of a folder."""
    facts = {"corpus": "mine", "subjects": ["a"], "splits": {}, "split_protocol": "p", "fingerprint": "f" * 64}
    data = {"eeg": facts | {"redistribution": "allowed", "licence": "cc-by-nc-4.0"}}
    record = {"data": data, "simulated": [], "steps": 1, "epochs": 1.0, "seed": 0, "best_validation_two_way": None}
    record |= {"image_encoder": {"name": "e", "projection_dim": 4}, "recipe": {"model": {}}, "command": "c"}
    files = record_files(folder, {path.name for path in folder.iterdir()} - {"README.md", "training.json"})
    (folder / "training.json").write_text(json.dumps(record | {"files": files} | changes))


def report_of(folder, target, **repository):
    row = {"method": "m", "aggregation": "single trial", "two_way": 0.71234, "two_way_interval": [0.6, 0.8]}
    row |= {"chance_two_way": 0.5, "gallery_size": 24, "top1": 0.125, "top5": 0.25}
    report = {"checkpoints": [{"name": "m", "sha256": sha256_of(folder.glob("model*.safetensors"))}], "split": "test"}
    report |= {"decoding": {"eeg": {"rows": [row | {"method": "ridge"}, row]}}, "simulated_modalities": []}
    report["data"] = {"eeg": {"corpus": "mine", **repository}}
    target.mkdir(exist_ok=True)
    (target / "report.json").write_text(json.dumps(sealed(report)))
    return target


def test_the_card_names_the_repository_and_tells_the_scores_of_a_report(tmp_path, hub):
    import yaml
    from huggingface_hub import ModelCard, parse_eval_result_entries

    folder = tmp_path / "model"
    make_checkpoint(folder)
    record_of(folder)
    write_model_card(folder)
    before = contents(folder)
    assert 'from_pretrained("model", trust' in before["README.md"].decode()
    main([str(folder), "--repo", REPO, "--public"])
    files = hub.repositories["model", REPO]["files"]
    text = files["README.md"].decode()
    assert f"\n# {REPO}\n" in text and text.count(f'from_pretrained("{REPO}", trust') == 2 and '"model"' not in text
    assert "license: cc-by-nc-4.0" in text and "model-index" not in text
    report = report_of(folder, tmp_path / "report", repository={"name": "lab/set", "revision": "0" * 40})
    main([str(folder), "--repo", REPO, "--public", "--scores", str(report)])
    card = ModelCard(files["README.md"].decode())
    assert {(each.metric_type, each.metric_value) for each in card.data.eval_results} == {
        ("two_way", 0.71234), ("top1", 0.125), ("top5", 0.25),
    }  # fmt: skip
    assert card.data.model_name == REPO and "| EEG | 0.7123 (0.6000 to 0.8000) | 0.50 | 24 images" in card.text
    entries = parse_eval_result_entries(yaml.safe_load(files[".eval_results/neural_clip.yaml"]))
    assert {(each.task_id, each.value) for each in entries} == {("two_way", 0.71234), ("top1", 0.125), ("top5", 0.25)}
    assert {(each.dataset_id, each.dataset_revision) for each in entries} == {("lab/set", "0" * 40)}
    assert contents(folder) == before  # here the card stays as it was
    report_of(folder, report)  # of a set that lies nowhere on the Hub
    push(folder, REPO, public=True, scores=report)
    assert ".eval_results/neural_clip.yaml" not in files and b"0.7123" in files["README.md"]


def test_a_report_of_other_weights_is_not_told_of(tmp_path, hub):
    folder = tmp_path / "model"
    make_checkpoint(folder)
    record_of(folder)
    write_model_card(folder)
    report = report_of(folder, tmp_path / "report")
    (folder / "model.safetensors").write_bytes(b"others")
    record_of(folder)
    refused(folder, r"report\.json' does not tell of '.*model': its first checkpoint has other weights", scores=report)
    changed = json.loads((report / "report.json").read_text()) | {"split": "train"}
    (report / "report.json").write_text(json.dumps(changed))
    refused(folder, "was changed since it was written", scores=report)
    (report / "report.json").write_text("{}")
    refused(folder, "is no report of `neural-clip evaluate`", scores=report)
    refused(folder, r"nowhere' is missing|no such|not there|nowhere", scores=tmp_path / "nowhere")
    refused(make_set(tmp_path / "set"), "has other weights|is no report", scores=report)
    assert hub.created == []


@pytest.mark.slow
def test_program_in_a_process_of_its_own(tmp_path):
    folder = make_set(tmp_path / "set")
    command = [
        sys.executable,
        "-c",
        "from neural_clip.errors import run; from neural_clip.commands.push import main; run(main)",
    ]
    with LoopbackHub() as served:
        surroundings = os.environ | {"HF_ENDPOINT": served.endpoint, "HF_HUB_OFFLINE": "0"}
        command += [str(folder), "--repo", REPO]
        options = {"capture_output": True, "text": True, "timeout": 120, "stdin": subprocess.DEVNULL}
        done = subprocess.run(command, env=surroundings, **options)
        assert done.returncode == 0, done.stderr
        assert served.repositories["dataset", REPO]["files"] == as_sent(folder) | {".gitattributes": b""}
        assert f"{served.endpoint}/datasets/{REPO} (private)" in done.stdout
    offline = subprocess.run(command, **options)
    assert offline.returncode == 2 and offline.stderr.startswith("error: 'lab/set' cannot be reached: HF_HUB_OFFLINE")
