"""The card of a prepared data set holds every fact, and what `load_dataset` reads."""

import jinja2
import pytest
import yaml
from hypothesis import example, given, settings

from hostile_names import hostile_names, renamed, structure
from neural_clip.markup import one_line
from neural_clip.preparation import Preparation
from neural_clip.prepared.card import card_text

ROWS = {"train": {"rows": 700, "images": 5, "concepts": 3}, "validation": {"rows": 200, "images": 2, "concepts": 2}}
FACTS = {
    "corpus": "my_corpus", "modality": "eeg", "subjects": ["sub-01", "02"], "simulated": {"preset": "demo"},
    "partial": {"images": {"found": 10, "declared": 11}, "runs": {"found": 3, "declared": 4}},
    "category_level": True, "block_confounded": True, "redistribution": "forbidden", "split_unit": "run",
    "split_protocol": 'by hand: # "x"', "splits": ROWS | {"test": {"rows": 101, "images": 4, "concepts": 1}},
    "subject_splits": {"sub-01": {"train": 700, "test": 100}, "02": {"validation": 200, "test": 1}}, "unit": "V",
    "n_chans": 3, "n_times": 5, "sfreq": 100.0, "tmin": -0.1, "average_repeats": True, "n_voxels": None, "roi": None,
    "preprocessing": {"low": 0.5, "order": ["a", "b"]}, "scaling": {"method": "none", "fit_scope": "whole"},
    "declared": {"trials": 20, "people": 2}, "known_defects": ["one channel is flat", "{{ facts.licence }}"],
    "image_encoder": {"name": "a: net", "revision": None, "pooling": "mean of patches", "projection_dim": 4},
    "findings": [{"severity": "warning", "check": "labels", "message": "Two agree.", "consequence": "Scores rise."}],
    "licence": "special: 'mine'", "terms": "For research.", "source": "a shelf", "citation": "Nobody 2020",
    "fingerprint": "ab" * 32, "pretty_name": "Mine: #1",
}  # fmt: skip
EXPECTED = (
    "# Mine: #1 (simulated)", "**Simulated recordings.**",
    "whole: images 10 of 11; runs 3 of 4.", "**Category level.**",
    "**Block design.**", "**Redistribution is forbidden**", 'load_dataset("<this folder>", "sub-01", split="train")',
    'by hand: # "x" (disjoint by run)', "| train | 700 | 5 | 3 |", "| validation | 200 | 2 | 2 |",
    "| test | 101 | 4 | 1 |", "| sub-01 | 700 | 0 | 100 |", "| 02 | 0 | 200 | 1 |", "- modality: EEG, unit: V",
    "- 3 channels x 5 samples at 100.0 Hz, first sample at -0.1 s from onset", "- repeats of an image were averaged",
    "- preprocessing: low = 0.5", "- preprocessing: order = ['a', 'b']", "- scaling: method = none",
    "- scaling: fit_scope = whole", "- checked against: trials 20, people 2", "- one channel is flat",
    "- {{ facts.licence }}", "name a: net, revision None, pooling mean of patches, projection_dim 4",
    "- warning: labels: Two agree. Scores rise.", "Licence: special: 'mine'", "Redistribution: forbidden",
    "Nobody was recorded: the subjects are simulated. Left out when", "names, birthdays, experimenters, dates",
    "Terms: For research.", "Source: a shelf", "Please cite: Nobody 2020", f"(SHA-256): `{'ab' * 32}`",
)  # fmt: skip


@pytest.fixture
def strict(monkeypatch):
    """A name that the template misspells raises, instead of leaving a gap."""
    monkeypatch.setattr(jinja2, "Template", jinja2.Environment(undefined=jinja2.StrictUndefined).from_string)


def test_every_fact_stands_in_the_card(strict):
    lines = card_text(FACTS).splitlines()
    assert [text for text in EXPECTED if not any(text in line for line in lines)] == []
    with pytest.raises(jinja2.UndefinedError, match="citation"):
        card_text({key: value for key, value in FACTS.items() if key != "citation"})


def test_what_is_not_so_is_not_said(strict):
    absent = dict.fromkeys(("simulated", "partial", "unit", "declared", "image_encoder", "terms", "roi"))
    absent |= dict.fromkeys(("category_level", "block_confounded", "average_repeats"), False)
    absent |= {"redistribution": "allowed", "known_defects": [], "findings": [], "preprocessing": {}}
    card = card_text(FACTS | absent | {"modality": "fmri", "n_voxels": {"sub-01": 4, "02": 7}})
    assert "\n> " not in card and "## What" not in card and "defects" not in card and "Terms" not in card
    assert "- voxels: sub-01 4, 02 7; region: not stated\n" in card and "channels" not in card
    assert "unit: not stated" in card and "embeddings: none yet; run `neural-clip embed-images" in card
    assert "\n\n\n" not in card and card.endswith("`\n")


def test_rows_whose_form_no_other_recording_can_be_given_say_so():
    """With the way out where it was the scaling."""
    told = {}
    for name, changes in {
        "whitened": {"scaling": "unknown", "obstacle": "each session was whitened"}, "known": {"scaling": "none"},
        "runs": {"scaling": "none", "obstacle": "time series were standardised"},
    }.items():  # fmt: skip
        lines = card_text(FACTS | {"preparation": Preparation(**changes).as_dict()}).splitlines()
        told[name] = [line for line in lines if "takes no recordings as they were recorded" in line]
    assert [len(lines) for lines in told.values()] == [1, 0, 1] and "takes no" not in card_text(FACTS)
    assert "each session was whitened. Prepare from raw files" in told["whitened"][0]
    assert "--scaling train_std" in told["whitened"][0] and "train_std" not in told["runs"][0]


def test_front_matter_is_what_load_dataset_and_the_hub_read():
    about = {"description": f"fingerprint {'ab' * 32}"}
    files = {
        "all": {"train": "data/*/train-*.parquet", "validation": "data/*/validation-*.parquet",
                "test": "data/*/test-*.parquet"},
        "sub-01": {"train": "data/sub-01/train-*.parquet", "test": "data/sub-01/test-*.parquet"},
        "02": {"validation": "data/02/validation-*.parquet", "test": "data/02/test-*.parquet"},
        "images": {"images": "images/images-*.parquet"},
    }  # fmt: skip
    configs = [
        {"config_name": name, **({"default": True} if name == "all" else {}), **about,
         "data_files": [{"split": split, "path": path} for split, path in paths.items()]}
        for name, paths in files.items()
    ]  # fmt: skip
    assert yaml.safe_load(card_text(FACTS).split("---\n")[1]) == {
        "pretty_name": "Mine: #1 (simulated)", "license": "other", "license_name": "my-corpus-terms",
        "tags": ["neural-clip", "eeg", "brain-decoding", "simulated"], "size_categories": ["1K<n<10K"],
        "configs": configs,
    }  # fmt: skip
    known = yaml.safe_load(card_text(FACTS | {"licence": "CC0-1.0"}).split("---\n")[1])
    assert known["license"] == "cc0-1.0" and "license_name" not in known


NAMES = (
    "my_corpus",
    "sub-01",
    "one channel is flat",
    "a: net",
    "Mine: #1",
    "a shelf",
    "special: 'mine'",
    "V",
    "order",
)


@settings(deadline=None, max_examples=20)
@given(name=hostile_names.filter(one_line))
@example(name="![x](/etc/passwd)")
def test_names_are_text_in_the_card_whatever_they_hold(name):
    def card(name):
        front, body = card_text(renamed(FACTS, dict.fromkeys(NAMES, name))).removeprefix("---\n").split("\n---\n\n", 1)
        return yaml.safe_load(front)["configs"][1]["config_name"], *structure(body)

    (_, plain, _), (read, found, text) = card("name"), card(name)
    assert "\u202e" not in card_text(FACTS | {"corpus": "a\u202eb", "pretty_name": None}).split("\n---\n")[0]
    assert read == name and found == plain and text.count(one_line(name)) >= len(NAMES) - 2
