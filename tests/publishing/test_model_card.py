"""Published model cards say what their JSON says."""

import json
import re

import jinja2
import pytest
import yaml
from hypothesis import example, given, settings

from hostile_names import hostile_names, structure
from neural_clip.errors import DataError
from neural_clip.markup import one_line
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.publishing.model_card import model_card, write_model_card
from paths import REPOSITORY

CARDS = sorted((REPOSITORY / "model_cards").glob("*.md"))


def test_there_is_a_card_of_the_demo():
    assert "demo" in {path.stem for path in CARDS}


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_card_is_made_from_its_json(path):
    source = json.loads(path.with_suffix(".json").read_text())
    text = path.read_text()
    assert text == model_card(source["name"], source["training"], source["report"])
    for modality, table in source["report"]["decoding"].items():  # read back, number by number
        (row,) = table["rows"]
        line = next(line for line in text.splitlines() if line.startswith(f"| {MODALITIES[modality].title} |"))
        numbers = [float(number) for number in re.findall(r"\d+\.\d+", line)]
        low, high = row["two_way_interval"]
        expected = [row["two_way"], low, high, row["chance_two_way"], row["top1"], row["top5"]]
        assert numbers == pytest.approx(expected, abs=5e-5)
        assert modality not in source["training"]["simulated"] or line.endswith("| simulated |")
    (index,) = yaml.safe_load(text.split("---\n")[1])["model-index"]  # as the Hub reads scores
    assert index["name"] == source["name"]
    for result, (modality, table) in zip(index["results"], source["report"]["decoding"].items(), strict=True):
        assert result["dataset"]["type"] == source["training"]["data"][modality]["corpus"]
        assert {each["type"]: each["value"] for each in result["metrics"]} == {
            name: table["rows"][0][name] for name in ("two_way", "top1", "top5")
        }


def test_a_card_says_that_alignment_layers_were_not_trained():
    source = json.loads(CARDS[0].with_suffix(".json").read_text())
    said = "alignment layers were left as they were initialised"
    assert said not in model_card("x", source["training"])
    source["training"]["recipe"]["model"]["freeze_alignment"] = True
    assert said in model_card("x", source["training"])


def adaptation(**changes):
    return {
        "subjects": ["sub-8", "sub-9"], "modality": "meg", "checkpoint": "known", "weights": "f" * 64,
        "recordings": {"train": 20, "validation": 3}, "validation_two_way": [0.5, 0.71234, 0.6], "best_epoch": 1,
        "data": {"simulated": True, "corpus": "other", "fingerprint": "e" * 64}, "command": "neural-clip adapt x",
        "minutes": {"train": {"sub-8": 1.04, "sub-9": 2.0}},
    } | changes  # fmt: skip


def test_every_fact_of_the_record_stands_in_the_card(monkeypatch):
    """A name that the template misspells raises, instead of leaving a gap."""
    monkeypatch.setattr(jinja2, "Template", jinja2.Environment(undefined=jinja2.StrictUndefined).from_string)
    source = json.loads(CARDS[0].with_suffix(".json").read_text())
    record = source["training"] | {"adaptations": [adaptation(), adaptation(minutes=None, command="second")]}
    text = model_card("mine", record, source["report"])
    assert yaml.safe_load(text.split("---\n")[1])["tags"] == ["neural_clip", "clip", "eeg", "meg", "fmri", "simulated"]
    expected = [
        "# mine\n", 'AutoModel.from_pretrained("mine", trust_remote_code=True)', record["command"],
        "simulated EEG, MEG and fMRI data",
        f"`{record['image_encoder']['name']}`, {record['image_encoder']['projection_dim']} dimensions",
        f"accuracy {record['best_validation_two_way']:.4f} at step {record['best_step']} of {record['steps']}",
        f"({record['epochs']:g} epochs), seed {record['seed']}.",
        'inputs = processor(eeg=recordings, subject="sub-01")',
        "MEG alignment layers of sub-8, sub-9 were added to `known` (`ffffffffffffffff`)", "fitted to 20 training",
        ", 3.0 minutes of trials, of other (**simulated**), fingerprint `eeeeeeeeeeeeeeee`", "is 0.7123, after 1 of 2",
        "training recordings of other", "neural-clip adapt x", "second",
        '`subject="average"` applies the mean of all layers (not for fMRI)',
    ]  # fmt: skip
    for facts in record["data"].values():
        expected += [f"{facts['corpus']} (**simulated** twin), subjects {', '.join(facts['subjects'])};"]
        expected += [f"{split} {size['rows']} recordings" for split, size in facts["splits"].items()]
        assert f"{facts['corpus']} (**simulated**, nobody was recorded)" in text
        expected += [f"split: {facts['split_protocol']}; fingerprint `{facts['fingerprint'][:16]}`"]
    assert [part for part in expected if part not in text] == []
    assert text.count("## Adaptation") == 1
    with pytest.raises(jinja2.UndefinedError, match="best_step"):
        model_card("mine", {key: value for key, value in record.items() if key != "best_step"})


def test_a_card_of_recorded_fmri_alone():
    record = json.loads(CARDS[0].with_suffix(".json").read_text())["training"]
    text = model_card("mine", record | {"data": {"fmri": record["data"]["fmri"]}, "simulated": []})
    assert "simulated" not in text and '"average"' not in text and "subjects without a layer are refused." in text
    assert "None yet; `neural-clip push --report" in text and "## Adaptation" not in text and "\n\n\n" not in text


@settings(deadline=None, max_examples=25)
@given(name=hostile_names.filter(one_line))
@example(name="x\n```\n![x](/etc/passwd)")
def test_names_are_text_in_the_card_whatever_they_hold(name):
    def card(name):
        facts = {"corpus": name, "subjects": [name, "b"], "splits": {"train": {"rows": 3}}, "split_protocol": name}
        entry = {"modality": "eeg", "subjects": [name], "checkpoint": name, "weights": "0" * 64, "command": name}
        entry |= {"data": facts | {"fingerprint": "f" * 64, "simulated": False}, "recordings": {"train": 3}}
        entry |= {"validation_two_way": [0.5, 0.6], "best_epoch": 1}
        record = {"data": {"eeg": facts | {"fingerprint": "f" * 64}}, "simulated": [], "steps": 1, "epochs": 1.0}
        record |= {"image_encoder": {"name": name, "projection_dim": 4}, "best_validation_two_way": None, "seed": 0}
        record |= {"recipe": {"model": {}}, "command": name, "adaptations": [entry]}
        return structure(model_card(name, record).split("---\n", 2)[2])

    (plain, _), (found, text) = card("name"), card(name)
    assert found == plain and text.count(one_line(name)) >= 4


def test_a_card_without_its_record_is_not_written(tmp_path):
    with pytest.raises(DataError, match=r"has no training\.json"):
        write_model_card(tmp_path)
    (tmp_path / "training.json").write_text("{")
    with pytest.raises(DataError, match=r"training\.json' is damaged"):
        write_model_card(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["training.json"]
