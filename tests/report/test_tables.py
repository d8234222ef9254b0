"""Tables of a report: what their rows say and leave out."""

import re

from neural_clip.evaluation.baselines.rows import BASELINES
from neural_clip.evaluation.outputs import read_report
from neural_clip.report import tables as report_tables
from neural_clip.report.tables import print_tables
from neural_clip.report.write import write_report
from planted_reports import cells, make_report


def test_no_p_value_is_called_zero():
    assert [report_tables.p_value(value) for value in (0.0005, 1 / 1001, 0.001, 0.0126, 1.0)] == [
        "<0.001", "<0.001", "0.001", "0.013", "1.000"
    ]  # fmt: skip


def test_every_line_of_results_says_simulated(output_dir, capsys):
    report = read_report(output_dir)
    print_tables(report, output_dir)
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if re.match(r"(EEG|fMRI) [^,]*  ", line) and "the paper" not in line]
    assert len(rows) == 2 * (3 + len(BASELINES)) + 2 + 2 + 2 + 1  # the last: confidence of EEG
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
    assert "--data" not in text.partition("No pictures")[2].partition("\n")[0]  # no other place has any
    assert "Table 2" not in text + out  # one modality converts into nothing
    assert "ceiling" not in out.split("Encoding")[0]


def test_top_5_of_a_gallery_of_five_is_left_out(output_dir):
    report = read_report(output_dir)
    report["decoding"]["eeg"]["rows"][0]["gallery_size"] = 5
    assert cells(report_tables.as_markdown(report_tables.decoding_table(report)), "EEG simulated", "chance")[3] == "-"

    def text():
        return report_tables.as_markdown(report_tables.protocol_table(report))

    entries = report["protocol"]["decoding"]["eeg"]
    assert any(entry["label"] == "top-5" for entry in entries)
    assert not any("EEG" in line and "top-5" in line for line in text().splitlines()) and "top-1" in text()
    report["decoding"]["eeg"]["rows"][0]["gallery_size"] = 6
    assert any("EEG" in line and "top-5" in line for line in text().splitlines())
