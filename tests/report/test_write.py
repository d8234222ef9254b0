"""Reports written from `report.json`."""

import json

import pytest

from neural_clip.errors import DataError
from neural_clip.report.write import read_report, write_report


def test_a_changed_number_changes_the_report(output_dir, tmp_path):
    report = read_report(output_dir)
    report["decoding"]["eeg"]["rows"][0]["two_way"] = 0.123456
    (tmp_path / "report.json").write_text(json.dumps(report))
    text = write_report(tmp_path, pictures=False).read_text()
    assert "0.123 [" in text and "Pictures were not asked for." in text


def test_missing_files_are_named(output_dir, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        write_report(tmp_path / "report.json")
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(DataError, match="no readable report"):
        write_report(tmp_path)
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(DataError, match="lacks"):
        write_report(tmp_path)
    (tmp_path / "report.json").write_text((output_dir / "report.json").read_text())
    assert "embeddings.npz is not beside" in write_report(tmp_path).read_text()
