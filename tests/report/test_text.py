"""Tables, pictures and text say what `report.json` says."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from neural_clip.commands.report import main
from neural_clip.errors import DataError
from neural_clip.evaluation import checkpoints
from neural_clip.evaluation import run as evaluation
from neural_clip.evaluation.baselines.linear import BASELINES
from neural_clip.gallery import panels as pictures
from neural_clip.gallery.neural_gallery import NeuralGallery
from neural_clip.report import tables as report_tables
from neural_clip.report import text as reporting
from neural_clip.report.tables import print_tables
from neural_clip.report.write import read_report, write_report
from planted_data import PlantedModel, write_planted


def make_report(root, *, modalities=("eeg", "fmri"), **options):
    counts = {"train": 20, "validation": 8, "test": 12}
    folders = [
        write_planted(root / m, m, noise=6.0, seed=i, counts=counts, **options) for i, m in enumerate(modalities)
    ]
    patch = pytest.MonkeyPatch()
    patch.setattr(checkpoints, "load_model", lambda checkpoint: PlantedModel(modalities))
    evaluation.evaluate_checkpoints({"neural_clip": "planted"}, folders, root / "out", command="test")
    patch.undo()
    return root / "out"


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory):
    """A written evaluation of two simulated modalities, with pictures."""
    folder = make_report(tmp_path_factory.mktemp("report"))
    write_report(folder / "report.json")
    return folder


def cells(text, *starts):
    """Cells of the first Markdown row that starts so."""
    for line in text.splitlines():
        found = [cell.strip() for cell in line.strip("|").split("|")]
        if tuple(found[: len(starts)]) == starts:
            return found
    raise AssertionError(f"no row {starts}")


def test_numbers_of_the_report_equal_the_json(output_dir):
    report, text = read_report(output_dir), (output_dir / "report.md").read_text()
    names = {"neural_clip": "neural_clip (ours)"}
    decoding = text.split("## Table 1")[1]
    for modality, label in (("eeg", "EEG simulated"), ("fmri", "fMRI simulated")):
        for row in report["decoding"][modality]["rows"]:
            if row["aggregation"] == "single trial" and "not_computed" not in row:
                got = cells(decoding, label, names.get(row["method"], row["method"]))
                tops = [row[name] for name in ("top1", "top5", "class_top1", "class_top5")]
                assert got[2:6] == [f"{100 * value:.1f}" for value in tops]
                low, high = row["two_way_interval"]
                assert got[6] == f"{row['two_way']:.3f} [{low:.3f}, {high:.3f}]"
                assert got[7] == report_tables.p_value(row["two_way_p"])
        (part,) = report["encoding"][modality]["rows"]
        got = next(
            [c.strip() for c in line.strip("|").split("|")]
            for line in text.split("## Encoding")[1].splitlines()
            if line.startswith(f"| {label}")
        )
        assert got[2].startswith(f"{part['two_way']:.3f} [") and got[4].startswith(f"{100 * part['same_image']:.1f} (")
        direct = part["direct"]
        got = cells(text, f"image -> {label}")
        assert got[2:4] == [f"{100 * direct[name]:.1f}" for name in ("top1", "top5")]
        assert got[5].startswith(f"{direct['two_way']:.3f} [") and got[7:] == [str(direct["n_queries"]), "12 images"]
    for part in report["conversion"]:
        label = f"{report_tables.NAMES[part['source']]} -> {report_tables.NAMES[part['target']]} simulated"
        got = cells(text, label, "neural_clip (ours)")
        assert got[2].startswith(f"{part['two_way']:.3f} [") and got[4].startswith(f"{part['normalised']:.3f} [")
        assert got[5] == f"{part['paper']['two_way']:.3f} ({part['paper']['normalised']:.3f})"
    for part in report["comparisons"]:
        low, high = part["interval"]
        label = report_tables.label(report, *part["modalities"])
        names = {"two_way": "2-way", "top1": "top-1"}
        got = cells(text, label, part["task"], names[part["score"]], "neural_clip (ours)", part["other"])
        assert got[5] == f"{part['difference']:+.3f} [{low:+.3f}, {high:+.3f}]" and got[6] == report_tables.p_value(
            part["p"]
        )


def test_no_p_value_is_called_zero():
    assert [report_tables.p_value(value) for value in (0.0005, 1 / 1001, 0.001, 0.0126, 1.0)] == [
        "<0.001", "<0.001", "0.001", "0.013", "1.000"
    ]  # fmt: skip


def test_a_changed_number_changes_the_report(output_dir, tmp_path):
    report = read_report(output_dir)
    report["decoding"]["eeg"]["rows"][0]["two_way"] = 0.123456
    (tmp_path / "report.json").write_text(json.dumps(report))
    text = write_report(tmp_path, pictures=False).read_text()
    assert "0.123 [" in text and "Pictures were not asked for." in text


def test_every_line_of_results_says_simulated(output_dir, capsys):
    report = read_report(output_dir)
    print_tables(report, output_dir)
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if re.match(r"(EEG|fMRI) ", line) and "the paper" not in line]
    assert len(rows) == 2 * (3 + len(BASELINES)) + 2 + 2 + 2
    assert all("simulated" in row for row in rows)
    assert max(map(len, out.splitlines())) <= 110 or str(output_dir) in max(out.splitlines(), key=len)
    for name in ("report.md", "report.json", "embeddings.npz", "pictures/decoding.png", "pictures/conversion.png"):
        assert str(output_dir / name) in out
    markdown = (output_dir / "report.md").read_text()
    results = [line for line in markdown.splitlines() if re.match(r"\| (EEG|fMRI) ", line) and "the paper" not in line]
    assert results and all("simulated" in row for row in results)
    assert "SIMULATED recordings" in markdown and "no ranks" in markdown


def test_recorded_data_are_not_called_simulated(tmp_path, capsys):
    folder = make_report(tmp_path, modalities=("eeg",), simulated=False, pixels=False)
    text = write_report(folder).read_text()
    print_tables(read_report(folder))
    out = capsys.readouterr().out
    assert "SIMULATED" not in text + out and "EEG simulated" not in text + out
    assert "No pictures" in text and "has no pixels" in text  # embeddings only
    assert "Table 2" not in text + out  # one modality converts into nothing
    assert "ceiling" not in out.split("Encoding")[0]


def test_category_level_is_said_in_every_row(output_dir, capsys):
    report = read_report(output_dir)
    report["data"]["eeg"]["category_level"] = report["category_level"] = True
    text = reporting.markdown(report, {})
    print_tables(report)
    out = capsys.readouterr().out
    for line in (text + out).splitlines():
        if re.match(r"(\| )?EEG ", line) and "the paper" not in line and "fMRI" not in line:
            assert "(category level)" in line
    assert "Category level:" in text and "Category level:" in out
    assert cells(text, "EEG -> fMRI simulated (category level)")


def test_top_5_of_a_gallery_of_five_is_left_out(output_dir):
    report = read_report(output_dir)
    report["decoding"]["eeg"]["rows"][0]["gallery_size"] = 5
    assert cells(report_tables.as_markdown(report_tables.decoding_table(report)), "EEG simulated", "chance")[3] == "-"


def test_a_baseline_that_was_not_computed_says_why(output_dir):
    report = read_report(output_dir)
    report["decoding"]["eeg"]["rows"][3] = {
        "method": "per-subject ridge", "aggregation": "single trial", "not_computed": "too many rows"
    }  # fmt: skip
    text = reporting.markdown(report, {})
    assert "per-subject ridge was not computed. too many rows" in text
    assert "not computed" in cells(text, "EEG simulated", "per-subject ridge")


def test_pictures_show_the_right_images(output_dir):
    report = read_report(output_dir)
    with np.load(output_dir / "embeddings.npz") as file:
        arrays = dict(file)
    galleries = {m: pictures._shown(arrays, m) for m in ("eeg", "fmri")}
    rows = pictures._decoding_rows(arrays, galleries)
    assert len(rows) == 6
    for row in rows:
        embeds, gallery = arrays[f"{row.source}_embeds"], arrays[f"{row.source}_gallery_embeds"]
        query = next(
            q
            for q in np.flatnonzero(galleries[row.source].columns == row.query)
            if f"2-way {arrays[f'{row.source}_decoding_scores'][q]:.2f}" in row.title
            and arrays[f"{row.source}_decoding_hits"][q].tolist() == row.hits
        )
        cosines = embeds[query] @ (gallery / np.linalg.norm(gallery, axis=1, keepdims=True)).T
        assert row.hits == np.argsort(-cosines)[:5].tolist()
    conversions = pictures._conversion_rows(arrays, galleries)
    assert {(row.source, row.target) for row in conversions} == {("eeg", "fmri"), ("fmri", "eeg")}
    pictures._load_pixels(rows, galleries, report)
    assert all(galleries[row.source].pixels[row.query].shape == (64, 64, 3) for row in rows)
    with Image.open(output_dir / "pictures" / "decoding.png") as image:
        assert image.width > 600 and image.height > 600


def test_frames_tell_same_image_same_concept_and_neither():
    concepts = np.array(["cat", "cat", "dog", ""])
    gallery = NeuralGallery("image", np.eye(4), np.array(list("abcd")), concepts, [[], [], ["pet"], ["pet"]])
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


def test_the_command_reads_a_report_and_redraws(output_dir, tmp_path, capsys):
    before = (output_dir / "pictures" / "encoding.png").read_bytes()
    (output_dir / "report.md").unlink()
    assert main([str(output_dir / "report.json")]) == output_dir / "report.md"
    assert (output_dir / "report.md").is_file()
    assert (output_dir / "pictures" / "encoding.png").read_bytes() == before
    assert "Table 1" in capsys.readouterr().out
    assert not list(output_dir.rglob("*.partial"))


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
