"""Reports written from `report.json`."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from neural_clip.errors import DataError
from neural_clip.evaluation.outputs import read_report
from neural_clip.files.privacy import found_place
from neural_clip.files.whole import only_writer, sha256_of
from neural_clip.gallery import panels
from neural_clip.report.write import write_report
from planted_data import write_planted
from planted_reports import make_report


def test_a_changed_number_changes_the_report(output_dir, tmp_path):
    report = read_report(output_dir)
    report["decoding"]["eeg"]["rows"][0]["two_way"] = 0.123456
    (tmp_path / "report.json").write_text(json.dumps(report))
    with pytest.raises(DataError, match=r"report\.json' was changed since it was written"):
        write_report(tmp_path, pictures=False)
    del report["sha256"]  # as an earlier version wrote it
    (tmp_path / "report.json").write_text(json.dumps(report))
    text = write_report(tmp_path, pictures=False).read_text()
    assert "0.123 [" in text and "Pictures were not asked for." in text


def test_the_layout_of_the_file_does_not_matter(output_dir, tmp_path):
    report = json.loads((output_dir / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps(dict(reversed(report.items())), indent=1))
    assert read_report(tmp_path) == read_report(output_dir)


def damaged(report, rng):
    """A report of which one entry, at any depth, is gone or of another type."""
    place, steps = report, []
    while isinstance(place, dict | list) and len(place) and (len(steps) < 2 or rng.random() < 0.8):
        keys = list(place) if isinstance(place, dict) else range(len(place))
        parent, key = place, keys[int(rng.integers(len(keys)))]
        place = parent[key]
        steps.append(key)
    values = [None, True, -1, 10**30, "x", [], {}, [None], {"x": None}]
    if rng.random() < 0.3:
        del parent[key]
    else:
        parent[key] = values[int(rng.integers(len(values)))]
    return steps


def test_reports_without_a_digest_are_drawn_or_named(output_dir, tmp_path):
    """Of an earlier version nothing tells whether they were changed; but each ends in a sentence or in a report."""
    rng = np.random.default_rng(0)
    path = tmp_path / "report.json"
    outcomes = {"written": 0, "refused": 0}
    for _ in range(60):
        report = json.loads((output_dir / "report.json").read_text())
        del report["sha256"]
        steps = damaged(report, rng)
        path.write_text(json.dumps(report))
        try:
            write_report(tmp_path, pictures=False)
            outcomes["written"] += 1
        except DataError as error:
            assert str(path) in str(error) or str(tmp_path) in str(error), steps
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 5


def test_embeddings_of_another_evaluation_are_not_drawn(output_dir, tmp_path):
    shutil.copytree(output_dir, tmp_path / "out")
    place = tmp_path / "out" / "embeddings.npz"
    with np.load(place) as file:
        arrays = dict(file)
    arrays["eeg_decoding_hits"] = arrays["eeg_decoding_hits"][::-1]
    np.savez(place, **arrays)
    text = write_report(tmp_path / "out").read_text()
    assert "No pictures: embeddings.npz belongs to another evaluation" in text and "/decoding.png" not in text
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    del report["embeddings"], report["sha256"]
    (tmp_path / "out" / "report.json").write_text(json.dumps(report))
    assert "does not tell which embeddings.npz belongs to it" in write_report(tmp_path / "out").read_text()


def test_images_of_a_set_that_was_prepared_again_are_not_drawn(tmp_path):
    folder = make_report(tmp_path, modalities=("eeg",))
    shutil.rmtree(tmp_path / "eeg")
    write_planted(tmp_path / "eeg", "eeg", seed=5, counts={"train": 20, "validation": 8, "test": 12})
    assert "was prepared again since" in write_report(folder).read_text()
    for path in (tmp_path / "eeg" / "images").glob("*.parquet"):
        path.write_bytes(path.read_bytes()[:-9])
    assert "No pictures" in write_report(folder).read_text()


def test_an_image_that_cannot_be_read_changes_no_picture(output_dir, tmp_path, monkeypatch):
    """Also where it is the last that is read, and only the last picture shows it."""
    folder = shutil.copytree(output_dir, tmp_path / "out")
    shutil.rmtree(folder / "pictures")
    report, read, calls = read_report(folder), panels.stored_pictures, []

    def failing(images, rows, folder):
        calls.append(rows)
        if len(calls) == last:
            raise DataError("an image cannot be read")
        return read(images, rows, folder)

    monkeypatch.setattr(panels, "stored_pictures", failing)
    last = 0
    assert len(panels.draw_panels(report, output_dir, {})[0]) == 3
    last = len(calls)
    calls.clear()
    with pytest.raises(DataError, match="an image cannot be read"):
        panels.draw_panels(
            report, folder, {m: found_place(part["folder"], output_dir) for m, part in report["data"].items()}
        )
    assert last > 10 and not (folder / "pictures").exists()


def test_pictures_are_drawn_beside_those_of_a_notebook(output_dir, tmp_path):
    """The backend that somebody chose stays, and their figures too."""
    shutil.copytree(output_dir, tmp_path / "out")
    code = (
        "import sys, matplotlib\nmatplotlib.use('svg')\nfrom matplotlib import pyplot\npyplot.figure(7)\n"
        "from neural_clip.report.write import write_report\nwrite_report(sys.argv[1])\n"
        "print(matplotlib.get_backend(), pyplot.get_fignums())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[-2] == "svg [7]"


def test_a_report_far_from_its_data_says_the_same_of_them(tmp_path):
    """Its data set and checkpoint are gone, or on another machine; what it says of them is its own."""
    folder = make_report(tmp_path, modalities=("eeg",))
    here = write_report(folder).read_text().splitlines()
    (tmp_path / "eeg").rename(tmp_path / "moved")
    away = write_report(folder).read_text().splitlines()
    lost = [line for line in here if line not in away]
    assert lost and all(line.startswith(("![", "Rows of images: left")) for line in lost)
    (added,) = [line for line in away if line not in here]
    assert re.search(r"^No pictures: .*EEG \(there is no folder .*eeg here\)\. Say where the data sets lie", added)
    assert write_report(folder, data={"eeg": tmp_path / "moved"}).read_text().splitlines() == here


def test_a_checkpoint_that_is_not_here_is_not_called_the_same(output_dir, tmp_path):
    report = json.loads((output_dir / "report.json").read_text())
    report["checkpoints"][0] |= {"path": "elsewhere", "sha256": "0" * 64}
    del report["sha256"]
    (tmp_path / "report.json").write_text(json.dumps(report))
    text = write_report(tmp_path, pictures=False).read_text()
    assert "`elsewhere`, SHA-256 of the weights `0000" in text
    assert "There is no folder of this name here, so its weights were not compared" in text


def test_one_evaluation_at_a_time_is_written(output_dir, tmp_path):
    shutil.copytree(output_dir, tmp_path / "out")
    script = "import sys; from neural_clip.commands.main import entry; sys.argv[1:] = ['report', sys.argv[1]]; entry()"
    with only_writer(tmp_path / "out" / "report.json"):
        found = subprocess.run([sys.executable, "-c", script, tmp_path / "out"], capture_output=True, text=True)
    assert found.returncode == 2 and f"Another process is writing '{tmp_path / 'out' / 'report.json'}'" in found.stderr


def test_what_was_learned_by_another_evaluation_is_not_shown(output_dir, tmp_path):
    report = json.loads((output_dir / "report.json").read_text())
    del report["sha256"]
    report["understanding"] = {"pictures": {"A map": "map.svg"}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    place = tmp_path / "understanding"
    place.mkdir()
    (place / "map.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (place / "understanding.json").write_text(json.dumps(report["understanding"]))
    assert "![A map](understanding/map.svg)" in write_report(tmp_path, pictures=False).read_text()
    (place / "understanding.json").write_text(json.dumps({"pictures": {}}))
    text = write_report(tmp_path, pictures=False).read_text()
    assert "understanding.json' is not that of this evaluation" in text and "map.svg" not in text


def test_weights_that_were_replaced_since_are_told(output_dir, tmp_path):
    report = json.loads((output_dir / "report.json").read_text())
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "model.safetensors").write_bytes(b"new")
    report["checkpoints"][0] |= {"path": str(tmp_path / "checkpoint"), "sha256": sha256_of([Path(__file__)])}
    del report["sha256"]
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert "A folder of this name holds other weights now" in write_report(tmp_path, pictures=False).read_text()


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
