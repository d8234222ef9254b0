"""Facts of a prepared data set: defaults of older files, what is kept, and that nobody reads the file past them."""

import ast
import json
from dataclasses import FrozenInstanceError, fields

import pytest

from neural_clip.errors import DataError
from neural_clip.prepared.facts import REQUIRED_KEYS, Facts, checked_metadata
from paths import REPOSITORY
from planted_data import facts_of, write_planted

LEAST = {"corpus": "old", "modality": "meg", "split_protocol": "p", "split_unit": "image", "licence": "none",
         "redistribution": "allowed", "citation": "none", "source": "none"}  # fmt: skip


NAMES = {entry.name for entry in fields(Facts)}


def test_texts_of_whoever_prepares_hold_no_secret_and_no_place_of_the_machine():
    said = {"source": "ftp://me:hidden-word@lab.example/x, copied to /srv/jane/raw", "terms": "/srv/jane/terms.txt",
            "known_defects": ["see '/srv/jane/my notes.txt'"], "preprocessing": {"script": "/srv/jane/clean.py",
            "hub_token": "hf_abcdefghijkl", "band": [0.1, 40]},
            "image_encoder": {"name": "/srv/jane/net", "revision": None, "pooling": "projected"}}  # fmt: skip
    found = checked_metadata(LEAST | said)
    assert found["source"] == "ftp://***@lab.example/x, copied to raw" and found["terms"] == "terms.txt"
    assert found["known_defects"] == ["see 'my notes.txt'"]
    assert found["preprocessing"] == {"script": "clean.py", "hub_token": "***", "band": [0.1, 40]}
    assert found["image_encoder"]["name"] == "net"
    plain = {"source": "THINGS-EEG2 (osf.io/3jk45), doi:10.1016/j.x.2022", "licence": "CC-BY-4.0", "roi": "V1/V2 left",
             "image_encoder": {"name": "openai/clip-vit-large-patch14", "revision": "main"}}  # fmt: skip
    assert checked_metadata(LEAST | plain).items() >= plain.items()


def test_an_older_file_gets_the_defaults(tmp_path):
    (tmp_path / "neural_clip.json").write_text(json.dumps({"format_version": 1, **LEAST, "grid_shapes": {"a": [3]}}))
    facts = Facts.read(tmp_path)
    assert (facts.corpus, facts.modality, facts.simulated, facts.image_encoder) == ("old", "meg", None, None)
    assert facts.category_level is facts.presentation_order is facts.average_repeats is False
    assert facts.scaling == {"method": "none", "fit_scope": "none"} and facts.known_defects == facts.findings == []
    assert facts.extra == {"grid_shapes": {"a": [3]}}
    assert facts.as_dict()["grid_shapes"] == {"a": [3]} and "extra" not in facts.as_dict()


@pytest.mark.parametrize("key", sorted(LEAST))
def test_a_file_without_what_every_data_set_has_is_none(tmp_path, key):
    kept = {name: value for name, value in LEAST.items() if name != key}
    (tmp_path / "neural_clip.json").write_text(json.dumps({"format_version": 1, **kept}))
    with pytest.raises(DataError, match=f"lacks '{key}'"):
        Facts.read(tmp_path)
    assert set(REQUIRED_KEYS) == set(LEAST)


def test_what_is_written_is_what_is_read(tmp_path):
    folder = write_planted(tmp_path / "eeg", "eeg", pixels=False)
    stored = json.loads((folder / "neural_clip.json").read_text())
    assert list(Facts.read(folder).as_dict()) == list(stored) and Facts.read(folder).as_dict() == stored
    first = checked_metadata({**LEAST, "pretty_name": "Old", "modality": "eeg"})
    assert list(first) == [entry.name for entry in fields(Facts) if entry.name != "extra"] + ["pretty_name"]


def test_facts_do_not_change_and_share_nothing():
    one, other = facts_of("eeg"), facts_of("eeg")
    with pytest.raises(FrozenInstanceError):
        one.tmin = 0.0
    assert one.preprocessing is not other.preprocessing


@pytest.mark.parametrize(("tmin", "sfreq", "count"), [(-0.5, 120.0, 60), (0.04, 1000.0, 0), (-0.1, 200.0, 20)])
def test_samples_before_onset(tmin, sfreq, count):
    assert facts_of("eeg", tmin=tmin, sfreq=sfreq).samples_before_onset == count


def facts_by_string(source):
    """Lines that look up a fact in `metadata` by its name, or read the file as a dict."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            value, key = node.value, node.slice.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            value, key = node.func.value, getattr(node.args[0], "value", None) if node.args else None
        else:
            if isinstance(node, ast.ImportFrom) and "read_metadata" in {name.name for name in node.names}:
                lines.append(node.lineno)
            continue
        name = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", None)
        if name == "metadata" and key in NAMES:
            lines.append(node.lineno)
    return lines


def test_nobody_reads_facts_by_string():
    """But for `prepared` itself, and corpora, which hand it keyword facts."""
    faults, seen = [], 0
    for folder in ("src", "studies", "scripts", "benchmarks"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            name = path.relative_to(REPOSITORY).as_posix()
            if not name.startswith(("src/neural_clip/prepared/", "src/neural_clip/corpora/", "studies/tests/")):
                seen += 1
                faults += [f"{name}:{line}" for line in facts_by_string(path.read_text(encoding="utf-8"))]
    assert seen > 100 and not faults, faults


@pytest.mark.parametrize(
    "source",
    ['metadata["tmin"]', 'part.metadata["tmin"]', 'self.metadata.get("tmin")', 'metadata.get("tmin", 0)',
     "from neural_clip.prepared.facts import read_metadata"],
)  # fmt: skip
def test_a_fact_by_string_is_found(source):
    assert facts_by_string(f"x = 1\n{source}") == [2]
    assert (
        facts_by_string('facts.tmin\ncounts["train"]\nmetadata[key]\nmetadata["Name"]\nmetadata.version("numpy")')
        == []
    )


def test_a_space_of_embeddings_that_is_damaged_is_named():
    assert facts_of("eeg", targets=None).target_space is None
    with pytest.raises(DataError, match=r"'targets' in 'neural_clip\.json' is damaged"):
        _ = facts_of("eeg", targets={"space": 3}).target_space
