"""Where the picture of an answer may be written."""

import pytest

from neural_clip.errors import DataError
from neural_clip.queries.answers import check_figure


def test_a_picture_is_never_written_over_or_into_what_is_read(tmp_path):
    photo = tmp_path / "photos" / "a.png"
    photo.parent.mkdir()
    photo.write_text("mine")
    check_figure(tmp_path / "b.png", [photo, photo.parent])
    for place, message in (
        (photo, "which is read"),
        (photo.parent / "b.png", "which is read"),
        (tmp_path / "b.jpg", "Allowed values are '.png', '.pdf' and '.svg', but got '.jpg'"),
        (tmp_path / "b", "but got ''"),
    ):
        with pytest.raises(DataError, match=message):
            check_figure(place, [photo, photo.parent])
    (tmp_path / "c.png").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        check_figure(tmp_path / "c.png", [])
    assert photo.read_text() == "mine"
