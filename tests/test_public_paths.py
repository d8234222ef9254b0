"""Every path that users and shipped code import or call, each in a process that has imported nothing before."""

import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from paths import REPOSITORY
from second_process import python

NAMES = ("EegConfig EegEncoder FmriConfig FmriEncoder MegConfig MegEncoder NeuralClipConfig NeuralClipModel "
         "NeuralClipOutput NeuralClipProcessor NeuralGallery load_sample plot_conversion")  # fmt: skip
CORPORA = ("nsd", "things_meg", "imagenet_eeg", "things_eeg2", "things_fmri", "things_eeg1", "alljoined", "custom")
LIGHT = [
    "import neural_clip; assert neural_clip.__version__",
    "from neural_clip.errors import DataError, run; assert issubclass(DataError, Exception) and callable(run)",
    *(f"import neural_clip.corpora.{name}; assert callable(neural_clip.corpora.{name}.prepare)" for name in CORPORA),
    *(f"from neural_clip.corpora.{name} import prepare; assert callable(prepare)" for name in CORPORA),
    *(f"import neural_clip.corpora.{name}.build as b; from neural_clip.corpora.{name} import prepare; "
      "assert prepare is b.prepare" for name in CORPORA),
    "from neural_clip.commands.main import entry; assert callable(entry)",
]  # fmt: skip
HEAVY = [
    f"from neural_clip import {NAMES.replace(' ', ', ')}",
    "from neural_clip.configuration_neural_clip import EegConfig, FmriConfig, MegConfig, NeuralClipConfig",
    "from neural_clip.losses import clip_loss, regression_loss",
    "from neural_clip.modeling_eeg import EegEncoder, SpectrogramCnn",
    "from neural_clip.modeling_meg import MegEncoder, TemporalCnn",
    "from neural_clip.modeling_fmri import FmriEncoder",
    "from neural_clip.modeling_neural_clip import NeuralClipModel, NeuralClipOutput",
    "from neural_clip.modeling_sensors import (BraindecodeNet, EncoderOutput, LinearNet, ParallelNetworks, "
    "ParallelProjections, SensorPreTrainedModel, SideBySide, SubjectConv, SubjectLinear, TemporalFilter, "
    "TemporalSpatialNet)",
    "from neural_clip.processing_neural_clip import NeuralClipProcessor",
    "from neural_clip.training import train; assert callable(train)",
    "import neural_clip.training; assert callable(neural_clip.training.train)",
    "from neural_clip.evaluation import evaluate_checkpoints; assert callable(evaluate_checkpoints)",
    "import neural_clip.evaluation; assert callable(neural_clip.evaluation.evaluate_checkpoints)",
    "import evaluate; assert evaluate.load('metrics/image_retrieval').name == 'image_retrieval'",
    "import evaluate; from neural_clip.retrieval import METRIC; assert evaluate.load(METRIC).name",
]


def succeeds(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def succeeds_with_libraries(code):
    """Where the libraries are imported, and nothing of ours."""
    done = python("-c", code, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("code", LIGHT)
def test_light_paths(code):
    """And without torch, which they do not need."""
    succeeds(f"import sys; {code}; assert 'torch' not in sys.modules")


@pytest.mark.slow
def test_heavy_paths_one_after_another():
    succeeds("\n".join(HEAVY))


@pytest.mark.slow
@pytest.mark.parametrize("code", HEAVY)
def test_heavy_paths(code):
    succeeds_with_libraries(code)


def test_a_path_that_is_gone_is_noticed():
    with pytest.raises(AssertionError, match=r"No module named 'neural_clip\.gone'"):
        succeeds("import neural_clip.gone")


def test_the_console_program_is_the_command_line():
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert set(declared) == {"neural-clip"}
    assert callable(pkgutil.resolve_name(declared["neural-clip"]))
    program = Path(sys.executable).parent / "neural-clip"
    done = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "prepare" in done.stdout


def test_all_public_names_are_tried():
    import neural_clip

    assert set(NAMES.split()) == set(neural_clip.__all__) - {"__version__"}
