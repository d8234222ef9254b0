"""Python blocks of the pages: each runs here or in the test that is named, or cannot run without a network."""

import shutil

import numpy as np
import pytest

from neural_clip import load_sample
from paths import REPOSITORY
from tutorial_blocks import blocks_of

HERE = ("docs/data_sets.md", "docs/evaluation.md", "metrics/image_retrieval/README.md")
ELSEWHERE = {
    "README.md": "scripts/try_package.py runs it from a wheel, and compares what it prints",
    "docs/bring_your_own_recordings.md": "tests/corpora/custom/test_docs.py",
    "docs/galleries.md": "tests/gallery/test_docs.py",
    "docs/checkpoints.md": "tests/test_docs_guarantees.py, tests/test_modeling_neural_clip.py",
    "docs/training.md": "tests/evaluation/test_validation_predictions.py",
    "docs/scale.md": "needs a cluster of machines; tests/test_parallel.py starts one on this machine",
    "docs/hub.md": "sends to the Hub; tests/test_pushing.py does so against one on this machine",
    "model_cards/demo.md": "names a repository on the Hub; tests/publishing/test_model_card.py loads such a copy",
}


def code_of(page):
    return [text for language, _, text in blocks_of(REPOSITORY / page) if language == "python"]


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the pages name."""
    folder = shutil.copytree(load_sample("meg").data, tmp_path / "data" / "things_meg")
    (subject,) = {path.name for path in (folder / "data").iterdir()}
    (tmp_path / "metrics").symlink_to(REPOSITORY / "metrics")
    monkeypatch.chdir(tmp_path)
    vectors = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
    return {"subject": subject, "neural_embeds": vectors[0], "image_embeds": vectors[1], "image_ids": list("abcdef")}


@pytest.mark.parametrize("page", HERE)
def test_blocks_of_a_page_run(page, names):
    assert code_of(page)
    for number, block in enumerate(code_of(page)):
        exec(compile(block.replace("sub-02", names["subject"]), f"{page}, block {number}", "exec"), names)
    if page == "docs/data_sets.md":
        assert len(names["recordings"]) == 40 and "image" in names["images"].features


def test_no_page_is_forgotten():
    pages = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("m*/**/*.md")]
    found = {path.relative_to(REPOSITORY).as_posix() for path in pages}
    found = {name for name in found if "tutorials/" not in name and code_of(name)}
    assert found == {*HERE, *ELSEWHERE}


def test_named_tests_are_there():
    for reason in ELSEWHERE.values():
        named = [word.strip(",;()") for word in reason.split() if word.startswith(("tests/", "scripts/"))]
        assert named and all((REPOSITORY / name).is_file() for name in named)
