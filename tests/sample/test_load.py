"""The sample that ships: whole, small, labelled as simulated, and decoded far above chance."""

import json
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch

from make_sample import MAX_BYTES, TERMS, USE, preset
from neural_clip import NeuralClipModel, NeuralClipProcessor, NeuralGallery, load_sample
from neural_clip.errors import DataError
from neural_clip.files.record import check_record
from neural_clip.prepared.facts import Facts, verify_prepared
from neural_clip.sample import CHECKPOINT, FOLDERS
from paths import REPOSITORY
from second_process import python

pytestmark = pytest.mark.numerical
# of 40 recordings: those whose image is the first of 46, and among the first five; 1 and 4 would be chance
FOUND = {"eeg": (30, 36), "meg": (18, 33), "fmri": (22, 32)}
PLACE = re.compile(r"""["'`](?:/(?:tmp|home|work|root|usr|opt|mnt|var)/|~/|\.\./)""")
BLOCK = re.compile(r"```python\n(.*?)```\n+```\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def model():
    return NeuralClipModel.from_pretrained(CHECKPOINT)


@pytest.mark.parametrize("modality", FOLDERS)
def test_the_sample_is_decoded_far_above_chance(model, modality):
    """By the gallery, whose hits are those of cosines that are computed here from the stored embeddings."""
    sample = load_sample(modality)
    shown = sample.recordings["image_id"]
    hits = NeuralGallery.from_images(model, sample.images).decode(sample.recordings, top_k=5)
    names = [[hit.image_id for hit in ranked] for ranked in hits]
    first, among_five = FOUND[modality]
    assert abs(sum(found[0] == name for found, name in zip(names, shown, strict=True)) - first) <= 1
    assert abs(sum(name in found for found, name in zip(names, shown, strict=True)) - among_five) <= 1

    inputs = NeuralClipProcessor.from_pretrained(CHECKPOINT)(**{modality: sample.recordings})
    with torch.no_grad():
        vectors = getattr(model, f"get_{modality}_features")(**inputs).double().numpy()
    images = np.array(sample.images["image_embeds"])
    cosines = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) @ (
        images / np.linalg.norm(images, axis=1, keepdims=True)
    ).T
    best = [sample.images["image_id"][row] for row in cosines.argmax(axis=1)]
    assert sum(found[0] == name for found, name in zip(names, best, strict=True)) >= 39  # pixels are embedded again


def test_the_sample_is_what_its_script_makes_and_says_that_it_is_simulated():
    assert check_record(CHECKPOINT)["simulated"] == ["eeg", "meg", "fmri"]
    for modality, folder in FOLDERS.items():
        verify_prepared(folder)
        facts, expected = Facts.read(folder), asdict(getattr(preset(), modality))
        sizes = facts.simulated["sizes"]
        assert sizes == json.loads(json.dumps({name: expected[name] for name in sizes}))
        assert facts.modality == modality and facts.subjects == ["sub-01"]
        assert {name: getattr(facts, name) for name in TERMS} == TERMS
        assert "**Simulated recordings.**" in (folder / "README.md").read_text(encoding="utf-8")
        assert str(load_sample(modality)).startswith("SIMULATED ")
    card = (CHECKPOINT / "README.md").read_text(encoding="utf-8")
    assert "trained on simulated EEG, MEG and fMRI data" in card and f"\n{USE}\n## Recordings\n" in card


def test_the_code_in_the_card_of_the_sample_runs():
    found: dict = {}
    exec(USE.partition("```python\n")[2].partition("```")[0], found)
    assert found["embeds"].shape == (6, 64)


def test_the_sample_is_small_and_names_no_place_of_the_machine_that_made_it():
    paths = [path for path in CHECKPOINT.parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in paths) <= MAX_BYTES
    for path in paths:
        if path.suffix in (".json", ".md"):
            assert not re.search(
                r"""["'`](?:/(?:tmp|home|work|root|usr|opt|mnt|var)/|~/|\.\./)""", path.read_text(encoding="utf-8")
            ), path


def test_another_modality_is_refused():
    with pytest.raises(DataError, match=r"'modality' parameter. .* but got 'fmr' instead.* Did you mean 'fmri'\?"):
        load_sample("fmr")


@pytest.mark.slow
def test_the_first_code_of_the_readme_prints_what_stands_there(tmp_path):
    """In an empty folder; `scripts/try_package.py` runs it from a wheel."""
    code, printed = BLOCK.search((REPOSITORY / "README.md").read_text(encoding="utf-8")).groups()
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed and all("SIMULATED" in line for line in printed.splitlines())
    assert [path.name for path in tmp_path.iterdir()] == ["hits.png"]
