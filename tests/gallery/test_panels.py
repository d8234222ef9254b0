"""Panels of what was found: their frames and which queries they show."""

import numpy as np
from matplotlib.figure import Figure

from neural_clip.gallery import panels as pictures
from neural_clip.gallery.cells import draw_cell
from neural_clip.gallery.neural_gallery import NeuralGallery


def test_frames_tell_same_image_same_concept_and_neither():
    concepts = np.array(["cat", "cat", "dog", ""])
    gallery = NeuralGallery.of_arrays(
        "image", np.eye(4), list("abcd"), concept=concepts, categories=[[], [], ["pet"], ["pet"]]
    )
    frames = [[pictures.match(gallery, q, gallery, h, True) for h in range(4)] for q in range(4)]
    assert all(frames[i][i] == pictures.SAME_IMAGE for i in range(4))
    assert frames[0][1] == frames[2][3] == pictures.SAME_CONCEPT
    assert frames[0][2] == frames[0][3] == pictures.OTHER
    assert pictures.match(gallery, 3, gallery, 3, False) == pictures.SAME_CONCEPT  # another corpus has other images


def test_queries_are_evenly_spaced_and_of_different_images():
    scores = np.array([0.1, 0.9, 0.5, 0.3, 0.7, 0.2])
    assert pictures.spaced_queries(scores, np.arange(6), 3) == [4, 3, 0]
    assert pictures.spaced_queries(scores, np.array([0, 1, 2, 4, 4, 3]), 3) == [4, 5, 0]
    assert pictures.spaced_queries(np.ones(3), np.zeros(3, int), 3) == [0]


def test_captions_show_the_word_of_a_concept_and_not_its_wordnet_number():
    axes = Figure().subplots()
    for caption in ("0.61 n03590841 striped arrow", "n02106662 German_shepherd", "n02106662_276.png"):
        draw_cell(axes, 0, 0, None, "red", caption)
    drawn = [text.get_text() for text in axes.texts if text.get_text() != "no pixels"]
    assert drawn == ["0.61 striped arrow", "German shepherd", "n02106662 276.png"]
