"""Models and data sets that do not fit each other."""

import json
import re
import shutil

import numpy as np
import pytest

from neural_clip import NeuralClipConfig, NeuralClipProcessor
from neural_clip.commands.evaluate import main
from neural_clip.errors import DataError
from neural_clip.evaluation.run import evaluate_checkpoints
from neural_clip.preparation import Preparation, Statistics
from planted_data import ENCODER, write_planted
from saved_models import save_model

pytestmark = pytest.mark.numerical


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subjects": ["sub-01"]}, "subject 'sub-02'"),
        ({"n_chans": 7}, "n_chans is 6, but the model expects 7"),
        ({"n_times": 12}, "n_times is 10, but the model expects 12"),
        ({"sfreq": 250.0}, "sfreq is 100.0, but the model expects 250.0"),
        ({"ch_names": [f"C{5 - i}" for i in range(6)]}, "in its channels: its channel 1 is .C0. instead of .C5."),
    ],
)
def test_a_data_set_that_does_not_fit_the_model_raises(folders, tmp_path, changes, message):
    checkpoint = save_model(tmp_path / "model", **changes)
    with pytest.raises(DataError, match=message):
        evaluate_checkpoints({"neural_clip": checkpoint}, [folders["eeg"]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("key", "value"), [("name", "other"), ("revision", "1"), ("pooling", "cls")])
def test_embeddings_of_another_encoder_than_the_models_raise(folders, tmp_path, key, value):
    """The widths agree, so that nothing but the record tells the two spaces apart."""
    named = {"vision_model_name": "planted", "vision_revision": "0", "image_pooling": "projected"}
    checkpoint = save_model(tmp_path / "model")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | named))
    arguments = ["--checkpoint", str(checkpoint), "--output-dir", str(tmp_path / "out"), "--baselines=none"]
    main([*arguments, "--no-pictures", "--data", f"eeg={folders['eeg']}"])
    folder = write_planted(tmp_path / "again", "eeg", encoder=ENCODER | {key: value})
    with pytest.raises(DataError) as caught:
        main([*arguments, "--data", f"eeg={folder}"])
    for part in (f"The checkpoint '{checkpoint}'", f"'{folder}'", "'planted'", repr(value), f"differ in '{key}'"):
        assert part in str(caught.value)


def test_rows_that_went_through_something_else_raise(folders, tmp_path):
    """Other numbers of the same method are what new days and subjects have; another method is not."""
    checkpoint = save_model(tmp_path / "model")
    config = NeuralClipConfig.from_pretrained(checkpoint)
    trained = {"unit": "V", "scaling": "z-score", "scope": "subject", "baseline": None, "bands": [[0.1, 40.0]],
               "spatial_filters": []}  # fmt: skip
    arrays = Statistics("sub-01", "", np.zeros(6), np.ones(6)).arrays()
    NeuralClipProcessor.from_config(
        config, None, {"eeg": Preparation(**trained)}, {"eeg": arrays}
    ).save_pretrained(checkpoint)  # fmt: skip

    def evaluate(name, changes):
        folder = shutil.copytree(folders["eeg"], tmp_path / name)
        facts = json.loads((folder / "neural_clip.json").read_text())
        facts["preparation"] = None if changes is None else Preparation(**trained | changes).as_dict()
        (folder / "neural_clip.json").write_text(json.dumps(facts))
        return evaluate_checkpoints(
            {"neural_clip": checkpoint}, [folder], tmp_path / f"{name}-out", baselines=False, controls=False
        )

    evaluate("same", {"unit": "uV"})
    evaluate("unknown", None)
    for name, changes, message in [
        (
            "unscaled",
            {"scaling": "none", "scope": None},
            "the unit is V instead of z; the scaling is none instead of z-score",
        ),
        ("sessions", {"scope": "session"}, "the scaling is fitted to each session instead of subject"),
        ("others", {"scaling": "unknown", "scope": None}, "the scaling is unknown instead of z-score"),
        ("band", {"bands": [[1.0, 40.0]]}, "the pass band is 1 to 40 Hz instead of 0.1 to 40 Hz"),
        ("baseline", {"baseline": [-0.1, 0.0]}, "the baseline is -0.1 to 0 s instead of none"),
        ("filters", {"spatial_filters": ["Maxwell filter"]}, "the spatial filters are Maxwell filter instead of none"),
    ]:
        told = f"'{checkpoint}' does not fit '.*{name}', whose recordings were prepared differently: "
        with pytest.raises(DataError, match=f"{told}{re.escape(message)}[.] Prepare the data set as"):
            evaluate(name, changes)
        assert not (tmp_path / f"{name}-out").exists()
