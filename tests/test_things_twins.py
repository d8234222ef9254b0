"""Simulated twins of THINGS-EEG2 and THINGS-MEG, from raw files to protocols, by the command line."""

import json

import pytest
import yaml

from neural_clip.commands import main as cli
from neural_clip.errors import DataError
from neural_clip.prepared.reader import PreparedSet
from neural_clip.targets.tiny_clip import TINY_CLIP

MODEL = {"hidden_size": 8, "temporal_kernel_size": 3, "n_windows": 5, "dropout": 0.1}
RECIPE = {
    "data": {"eeg": "x"}, "model": {"eeg": MODEL, "meg": MODEL},
    "training": {"output_dir": "x", "num_train_epochs": 1, "per_device_train_batch_size": 16, "learning_rate": 0.003,
                 "seed": 5, "use_cpu": True, "disable_tqdm": True},
}  # fmt: skip
QUICK = ["--baselines", "identity", "--no-controls", "--no-pictures"]


@pytest.mark.slow
def test_twins_go_through_their_protocols(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    cli.main(["simulate", "--preset", "tiny", "--corpora", "meg", "things_eeg2", "--output-dir", "raw"])
    for corpus, folder in (("things_meg", "meg"), ("things_eeg2", "eeg")):
        cli.main(["prepare", corpus, "--raw-dir", f"raw/{corpus}", "--output-dir", folder])
        cli.main(["embed-images", folder, "--model", TINY_CLIP])
        table = PreparedSet.open(folder).images
        assert [name.rpartition("_")[0] for name in table.image_ids] == table.concepts  # one key in both corpora
    cli.main(["train", "recipe.yaml", "--data", "eeg=eeg", "meg=meg", "--output-dir", "pooled"])
    stimuli = json.loads((tmp_path / "pooled" / "training.json").read_text())["stimuli"]
    tested = {
        concept
        for folder in ("eeg", "meg")
        for concept in PreparedSet.open(folder).split("test").labels("concept")["concept"]
    }
    assert not tested & {concept for entry in stimuli for concept in entry["concepts"]}
    assert sum(entry["left_out"]["rows"] for entry in stimuli) > 0
    for modality, protocol, n_images in (("eeg", "things-eeg2-200", 4), ("meg", "things-meg-200", 6)):
        words = ["evaluate", "--checkpoint", "pooled", "--data", f"{modality}={modality}", *QUICK]
        words += ["--output-dir", f"scored-{modality}", "--protocol", protocol]
        words += ["--templates", "meg"] if modality == "eeg" else []
        report = cli.main(words)
        told = f"2 of 2 people, simulated, {n_images} images"
        assert f"Protocol {protocol}: {report['data'][modality]['corpus']}, {told}" in capsys.readouterr().out
        rows = report["protocol"]["by_person"][modality]
        assert {row["queries"] for row in rows} == {
            "single recordings",
            f"mean of {12 if modality == 'eeg' else 2} recordings",
        }
        assert {row["gallery"] for row in rows} == {"exact images"} | (
            {"concept templates"} if modality == "eeg" else set()
        )
        assert all(row["chance_top1"] == 1 / n_images and len(row["people"]) == 2 for row in rows)
    with pytest.raises(DataError, match="6 of 6 of 'meg' occur in training or validation"):
        cli.main([
            "evaluate", "--checkpoint", "pooled", "--data", "meg=meg", *QUICK, "--output-dir", "zero",
            "--protocol", "things-meg-200-zero-shot",
        ])  # fmt: skip
    record = cli.main([
        "leave-one-person-out", "eeg", "--output-dir", "unseen", "--recipe", "recipe.yaml", "--subjects", "sub-01",
        "--baselines", "identity",
    ])  # fmt: skip
    assert record["people"]["sub-01"]["trained_on"] == ["sub-02"]
    assert "SIMULATED recordings, 4 images" in capsys.readouterr().out
