"""Tables, pictures and text say what `report.json` says."""

import re

import numpy as np
from PIL import Image

from neural_clip.commands.report import main
from neural_clip.evaluation.outputs import read_report
from neural_clip.gallery import panels as pictures
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.report import tables as report_tables
from neural_clip.report import text as reporting
from neural_clip.report.tables import print_tables
from neural_clip.report.write import write_report
from planted_reports import cells, make_report


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
        low, high = (f"{100 * end:.1f}" for end in direct["top1_interval"])
        assert got[2:4] == [f"{100 * direct['top1']:.1f} [{low}, {high}]", f"{100 * direct['top5']:.1f}"]
        assert got[5] == "-"  # images as queries have no class scores
        assert got[6].startswith(f"{direct['two_way']:.3f} [") and got[8:] == [str(direct["n_queries"]), "12 images"]
    for part in report["conversion"]:
        label = f"{MODALITIES[part['source']].title} -> {MODALITIES[part['target']].title} simulated"
        got = cells(text, label, "neural_clip (ours)")
        assert got[2].startswith(f"{part['two_way']:.3f} [") and got[4].startswith(f"{part['normalised']:.3f} [")
        assert got[5] == f"{part['paper']['two_way']:.3f} ({part['paper']['normalised']:.3f})"
        for way in part["ways"]:
            got = cells(text, label, "neural_clip (ours)", way["via"])
            assert got[3].startswith(f"{way['two_way']:.3f} [")
            assert got[6].startswith(f"{way['normalised_by_weaker']:.3f} [")
            assert got[7] == f"{MODALITIES[part['weaker']].title} ({part['weaker_two_way']:.3f})"
        assert f"the mean of the {part['n_bank_images']} images of all training splits" in text
    for part in report["comparisons"]:
        low, high = part["interval"]
        label = report_tables.label(report, *part["modalities"])
        names = {"two_way": "2-way", "top1": "top-1"}
        got = cells(text, label, part["task"], names[part["score"]], "neural_clip (ours)", part["other"])
        assert got[5] == f"{part['difference']:+.3f} [{low:+.3f}, {high:+.3f}]" and got[6] == report_tables.p_value(
            part["p"]
        )


def test_a_conversion_without_training_images_says_so(output_dir):
    report = read_report(output_dir)
    for part in report["conversion"]:
        part["n_bank_images"] = 0
    text = reporting.markdown(report, {})
    assert "the mean of training images, which are not at hand, weighted" in text and "the 0 images" not in text


def test_confidence_is_told_with_its_error_and_with_who_has_none(output_dir, capsys):
    report, text = read_report(output_dir), (output_dir / "report.md").read_text()
    (found,) = report["confidence"]["eeg"]
    assert (found["n_queries"], found["n_left_out"], found["n_bins"]) == (24, 24, 1)
    section = text.split("## Confidence")[1].split("\n## ")[0]
    got = cells(section, "EEG simulated", "neural_clip (ours)")
    low, high = found["ece_interval"]
    assert got[2:4] == [f"{100 * found[name]:.1f}" for name in ("right", "mean_confidence")]
    assert got[4:6] == [f"{found['ece']:.3f} [{low:.3f}, {high:.3f}]", f"{found['ece_by_chance']:.3f}"]
    assert got[6:] == ["1", "24", "12"]
    assert "24 recordings have none. The checkpoint has no temperature for the EEG of 'sub-02'" in section
    assert "fMRI simulated, neural_clip (ours): no confidence. The checkpoint has no temperature" in section
    assert "1706.04599" in section and "takes for granted that the image that was seen is in the gallery" in section
    told = f"expected calibration error {found['ece']:.3f}"
    assert (
        f"right as often as stated? neural_clip (ours): mean confidence {got[3]} %, right {got[2]} %, {told}"
        in section
    )
    with Image.open(output_dir / "pictures" / "confidence_eeg.png") as picture:
        assert min(picture.size) > 300
    page = (output_dir / "report.html").read_text()
    assert f"{told}" in page and "confidence_eeg.png" not in page  # inside, with its words
    print_tables(report)
    assert "Confidence of SIMULATED recordings: expected calibration error (ECE)" in capsys.readouterr().out
    del report["confidence"]  # of before
    assert "## Confidence" not in reporting.markdown(report, {})


def test_a_report_of_before_has_one_way_of_conversion(output_dir):
    report = read_report(output_dir)
    assert "## Conversion by three ways" in reporting.markdown(report, {})
    for part in report["conversion"]:
        for name in ("ways", "weaker", "weaker_two_way", "n_bank_images", "n_bank_scored"):
            del part[name]
    text = reporting.markdown(report, {})
    assert "## Conversion by three ways" not in text and "## Table 2" in text


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
    named = report["data"]
    images = {m: pictures._images_of(None, named[m], output_dir)[0] for m in galleries}
    pictures._load_pixels(rows, galleries, images, {m: named[m]["folder"] for m in galleries})
    assert all(galleries[row.source].pixels[row.query].shape == (64, 64, 3) for row in rows)
    with Image.open(output_dir / "pictures" / "decoding.png") as image:
        assert image.width > 600 and image.height > 600


def test_the_command_reads_a_report_and_redraws(output_dir, tmp_path, capsys):
    before = (output_dir / "pictures" / "encoding.png").read_bytes()
    (output_dir / "report.md").unlink()
    assert main([str(output_dir / "report.json")]) == output_dir / "report.md"
    assert (output_dir / "report.md").is_file()
    assert (output_dir / "pictures" / "encoding.png").read_bytes() == before
    assert "Table 1" in capsys.readouterr().out
    assert not list(output_dir.rglob("*.partial"))


def test_what_recordings_were_reduced_to_is_told(output_dir):
    report = read_report(output_dir)
    assert "reduced to" not in reporting.markdown(report, {})
    methods = {"per-subject ridge": {"reduced_to": "271 channels x 80 temporal components"},
               "closed form": {"reduced_to": "271 channels x 80 temporal components"},
               "ridge, random alignment": {"rows_fitted": "at most 30,000 of each ridge"}}  # fmt: skip
    for row in report["decoding"]["eeg"]["rows"]:
        if row["method"] in methods:
            row["fit"] = row["fit"] | methods[row["method"]]
    text = reporting.markdown(report, {})
    assert (
        "EEG simulated: fitted on recordings reduced to 271 channels x 80 temporal components: per-subject ridge, "
        "closed form." in text
    )
    assert "EEG simulated: fitted on a part of the rows, at most 30,000 of each ridge: ridge, random" in text


def test_the_papers_figures_stand_beside_its_corpora_alone(tmp_path):
    folder = make_report(tmp_path, modalities=("eeg",), pixels=False, corpus="things_eeg2")
    report = read_report(folder)
    assert [report[task]["eeg"]["paper"] for task in ("decoding", "encoding")] == [None, None]
    text = write_report(folder).read_text()
    table, rest = text.split("## Table 1")[1].split("## Encoding")
    assert "| the paper |" not in table and "The paper's figures" not in rest
