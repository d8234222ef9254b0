"""Pictures of what the embeddings hold: bands, slices, scales and tables."""

import numpy as np
import pytest

from captured_figures import captured
from neural_clip.evaluation.understanding import (
    pictures as understanding_pictures,
)
from neural_clip.evaluation.understanding.pictures import (
    draw_similarity,
    draw_slices,
    draw_time_course,
    scale_of,
    write_csv,
)
from neural_clip.evaluation.understanding.voxels import SLICES

pytestmark = pytest.mark.numerical


def test_the_ceiling_is_drawn_as_a_band_where_there_is_one(monkeypatch, tmp_path):
    figures = captured(monkeypatch, understanding_pictures)
    value = {"spearman": 0.2, "interval": [0.1, 0.3], "p": 0.5, "group": 0, "subjects": []}
    records = [
        value | {"label": "a", "noise_ceiling": {"lower": 0.4, "upper": 0.6}},
        value | {"label": "b", "noise_ceiling": {"not_computed": "One subject; at least 2 are needed."}},
    ]
    draw_similarity(records, "Title", tmp_path / "x")
    (band,) = figures[0].axes[0].patches
    assert (band.get_x(), band.get_width()) == (pytest.approx(0.4), pytest.approx(0.2))
    assert band.get_y() < 0 < band.get_y() + band.get_height() < 1
    assert "No ceiling: One subject" in figures[0].get_supxlabel().replace("\n", " ")


def test_bands_of_time_courses_lie_inside_the_axes(monkeypatch, tmp_path):
    figures = captured(monkeypatch, understanding_pictures)
    curve = {"label": "a", "intact": 1.0, "mean": np.array([0.1, 0.2]), "low": np.array([-5.0, 0.1])}
    curve["high"] = np.array([0.3, 4.0])
    draw_time_course(np.array([0.0, 0.1, 0.2]), [curve], ("Title", "Note"), tmp_path / "x")
    low, high = figures[0].axes[0].get_ylim()
    assert low < -5 and high > 4
    (band,) = figures[0].axes[0].collections
    assert band.get_paths()[0].contains_points([(50, -4), (50, 1), (150, 3), (150, 0)]).tolist() == [1, 0, 1, 0]


def test_slices_of_a_mask_of_real_size_are_drawn(tmp_path, monkeypatch):
    figures = captured(monkeypatch, understanding_pictures)
    x, y, z = np.indices((81, 104, 83)) - np.array([40, 30, 40])[:, None, None, None]
    shell = np.abs(np.sqrt((x / 35) ** 2 + (y / 28) ** 2 + (z / 30) ** 2) - 0.95) < 0.05
    volume = np.where(shell, x / 40.0, 0)
    draw_slices(volume, shell, np.diag([1.8, 1.8, 1.8, 1]), ("Title", "Note"), tmp_path / "x")
    axes = [axes for axes in figures[0].axes if axes.images]
    assert len(axes) == 3 * SLICES and all(
        np.isfinite(np.ma.filled(a.images[0].get_array(), np.nan)).any() for a in axes
    )
    assert all(a.images[0].get_array().shape[1] < 75 for a in axes)  # cropped
    limits = {a.images[0].get_clim() for a in axes}
    assert len(limits) == 1 and limits.pop() == pytest.approx((-825, 825), rel=0.1)  # 10⁻³
    assert axes[0].get_title().startswith("z = ") and [text.get_text() for text in axes[0].texts] == list("LRPA")
    scales = {round(float(np.diff(a.get_xlim())[0]), 6) for a in axes}
    assert len(scales) == 1  # one scale in all planes


def test_tables_and_scales(tmp_path):
    write_csv(tmp_path / "x.csv", {"a": np.array([0.1234567, 2.0]), "b": ["x,y", None]})
    assert (tmp_path / "x.csv").read_text() == 'a,b\n0.123457,"x,y"\n2,\n'
    with pytest.raises(ValueError, match="zip"):
        write_csv(tmp_path / "y.csv", {"a": [1], "b": [1, 2]})
    assert not (tmp_path / "y.csv").exists()
    assert scale_of(np.array([-0.02, 0.01])) == (pytest.approx(1e3), " / 10⁻³")
    assert scale_of(np.array([2e-5])) == (pytest.approx(1e6), " / 10⁻⁶")
    assert scale_of(np.array([3.0])) == scale_of(np.zeros(2)) == (1.0, "")
