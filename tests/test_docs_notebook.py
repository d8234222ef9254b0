"""The notebook of the tutorials: what its script writes, and what a run of it prints today."""

import json

import pytest
from PIL import Image

import make_notebook


def stored():
    return json.loads(make_notebook.NOTEBOOK.read_text("utf-8"))


def texts(cells):
    """What cells print or show as text, without pictures."""
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return ["".join(output.get("text") or output["data"].get("text/plain", "")) for output in outputs]


def test_the_notebook_is_the_one_of_the_script():
    found, made = stored(), make_notebook.notebook()
    assert len(found["cells"]) == 10
    assert ["".join(cell["source"]) for cell in found["cells"]] == [cell["source"] for cell in made["cells"]]
    assert found["metadata"] == make_notebook.METADATA and made["nbformat"] == found["nbformat"] == 4
    assert [cell["execution_count"] for cell in found["cells"][1:]] == list(range(1, 10))
    assert make_notebook.NOTEBOOK.stat().st_size < 500_000


def test_the_notebook_says_that_it_is_simulated_and_ends_in_a_picture():
    cells = stored()["cells"]
    assert "**Everything here is simulated**" in "".join(cells[0]["source"])
    assert sum("SIMULATED" in text for text in texts(cells)) == 3
    assert "image/png" in cells[-1]["outputs"][0]["data"]


@pytest.mark.slow
def test_a_run_of_the_notebook_prints_what_is_stored(tmp_path):
    assert texts(make_notebook.executed(tmp_path)["cells"]) == texts(stored()["cells"])
    assert Image.open(tmp_path / "hits.png").width > 200
