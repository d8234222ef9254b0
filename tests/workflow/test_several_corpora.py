"""`neural-clip run` with several corpora of one modality."""

import json

import pytest
import yaml

from neural_clip.commands import main as cli
from neural_clip.errors import DataError
from several_corpora import COUNTS, FIRST, SECOND, write_sensors

RECIPE = {
    "data": {"eeg": "x"},
    "model": {"eeg": {"hidden_size": 8, "temporal_kernel_size": 3, "n_windows": 2, "num_networks": 1}},
    "training": {"output_dir": "x", "num_train_epochs": 1, "per_device_train_batch_size": 32, "learning_rate": 0.003,
                 "seed": 5, "use_cpu": True, "disable_tqdm": True},
}  # fmt: skip
RUN = ["run", "a", "b", "--output-dir", "out", "--recipe", "recipe.yaml"]


@pytest.fixture
def work(tmp_path, monkeypatch):
    write_sensors(tmp_path / "a", FIRST)
    write_sensors(tmp_path / "b", SECOND, numbers=range(100, 100 + sum(COUNTS.values())), seed=1)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_two_corpora_go_from_data_sets_to_a_page_and_on(work, capsys):
    cli.main(RUN)
    capsys.readouterr()
    report = json.loads((work / "out" / "evaluation" / "report.json").read_text())
    assert [*report["decoding"]] == ["eeg.first", "eeg.second"]
    assert report["data"]["eeg.second"]["subjects"] == ["second/sub-01", "second/sub-02"]
    assert [*json.loads((work / "out" / "data" / "doctor.json").read_text())] == ["eeg.first", "eeg.second"]
    page = (work / "out" / "evaluation" / "report.html").read_text()
    assert "EEG first simulated" in page and "EEG second simulated" in page
    assert (work / "out" / "evaluation" / "pictures" / "summary_eeg.second.png").is_file()
    cli.main(RUN)
    said = capsys.readouterr().err
    assert said.count("(done before)") == 5 and "evaluate\n" not in said
    write_sensors(work / "other", SECOND, numbers=range(200, 200 + sum(COUNTS.values())), seed=2)
    with pytest.raises(DataError, match=r"made from something else: the eeg\.second data set has changed"):
        cli.main(["run", "a", "other", *RUN[3:]])


def test_what_cannot_be_told_apart_is_refused(work):
    write_sensors(work / "same", SECOND | {"corpus": "first"}, n_subjects=1)
    with pytest.raises(DataError, match="'a' and 'same' both hold eeg of the corpus 'first'"):
        cli.main(["run", "a", "same", *RUN[3:]])
    with pytest.raises(DataError, match="'a' and 'a' both hold eeg of the corpus 'first'"):
        cli.main(["run", "a", "a", *RUN[3:]])
    assert not (work / "out").exists()
