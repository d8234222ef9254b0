"""Where the picture of an answer may be written."""

import pytest

from folder_contents import contents
from neural_clip.commands import main as cli
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


def test_nor_over_pictures_and_images_that_options_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "bank"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_text("mine")
    before = contents(tmp_path)
    for command in (
        "decode eeg --images-dir photos --figure photos/a.png",
        "encode b.png --images-dir photos --figure photos/a.png",
        "search word --images-dir photos --figure photos/b.png",
        "convert eeg --to meg --images-dir photos --figure photos/a.png",
        "convert eeg --to meg --via images --bank bank --figure bank/a.png",
    ):  # fmt: skip
        with pytest.raises(DataError, match=r"lies in '(photos|bank)', which is read"):
            cli.main([*command.split(), "--gallery", "gallery", "--checkpoint", "checkpoint"])
    assert contents(tmp_path) == before
