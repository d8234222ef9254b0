"""The table of corpora names what exists."""

import pkgutil

import pytest

from neural_clip.prepared.known_corpora import CORPORA, CORPUS_OF, TWINS
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.simulation.presets import get_preset


def test_each_modality_has_the_first_of_its_corpora():
    first = {name: next(one for one in CORPORA.values() if one.modality == name) for name in MODALITIES}
    assert first == CORPUS_OF
    assert all(name == corpus.name for name, corpus in CORPORA.items())


def test_every_twin_has_a_part_of_the_presets():
    assert list(TWINS.values()) == [corpus for corpus in CORPORA.values() if corpus.twin]
    assert {*CORPUS_OF, "things_eeg2", "things_fmri"} == set(TWINS)
    for name, corpus in TWINS.items():
        assert getattr(get_preset("tiny"), name).modality == corpus.modality


@pytest.mark.parametrize("corpus", CORPORA.values(), ids=lambda corpus: corpus.name)
def test_dotted_names_are_functions_of_that_corpus(corpus):
    prepare = pkgutil.resolve_name(corpus.prepare)
    assert callable(prepare) and prepare.__module__ == f"neural_clip.corpora.{corpus.name}.build"
    if corpus.twin:
        write = pkgutil.resolve_name(corpus.twin)
        assert callable(write) and write.__module__ == f"neural_clip.simulation.{corpus.name}_twin"
