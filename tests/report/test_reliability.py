"""The picture of confidence: every bin is drawn where its numbers are."""

import numpy as np
from matplotlib import pyplot

from neural_clip.report.reliability import STYLES, draw_reliability


def record(method, *bins):
    return {
        "method": method,
        "bins": [dict(zip(("confidence", "right", "n_queries"), each, strict=True)) for each in bins],
    }


def test_bins_are_drawn_where_the_numbers_are():
    figure, axes = pyplot.subplots()
    records = [record("a", (0.1, 0.2, 30), (0.5, 0.4, 10)), record("b", (0.9, 0.7, 5))]
    draw_reliability(axes, records, "EEG simulated: right as often as stated?")
    dots = axes.collections
    assert [np.asarray(each.get_offsets()).tolist() for each in dots] == [[[0.1, 0.2], [0.5, 0.4]], [[0.9, 0.7]]]
    assert dots[0].get_sizes()[0] == 3 * dots[0].get_sizes()[1]
    diagonal = axes.lines[0].get_xydata()
    assert np.array_equal(diagonal[:, 0], diagonal[:, 1])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["as often as stated", "a", "b"]
    assert axes.get_title() == "EEG simulated: right as often as stated?"
    assert len({colour for colour, _ in STYLES}) == len({marker for _, marker in STYLES}) == len(STYLES)
    pyplot.close(figure)
