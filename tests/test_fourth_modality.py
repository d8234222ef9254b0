"""ECoG as a fourth modality, added to a copy of the package by the edits that CONTRIBUTING.md lists and no others."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from custom_raw import TERMS, N, save_epochs, save_pictures, write_manifest
from folder_contents import contents
from paths import REPOSITORY

pytestmark = pytest.mark.slow

MODULE = '''"""The ECoG encoder: f = g∘a, one alignment layer a per subject and a network g shared by all."""

from typing import Any, ClassVar

import torch
from transformers.utils.generic import can_return_tuple

from .configuration_neural_clip import EcogConfig
from .modeling_parallel import EncoderOutput
from .modeling_sensors import SensorPreTrainedModel
from .modeling_temporal_spatial import LinearNet, TemporalSpatialNet


class EcogEncoder(SensorPreTrainedModel):
    """ECoG recordings to one vector each."""

    config_class = EcogConfig
    _auto_class: Any = "AutoModel"
    base_model_prefix = "encoders.ecog"
    main_input_name = "ecog_values"
    networks: ClassVar[dict[str, Any]] = {"linear": LinearNet, "temporal_spatial": TemporalSpatialNet}

    @can_return_tuple
    def forward(
        self, ecog_values: torch.Tensor, subject_ids: torch.Tensor | None = None,
        output_hidden_states: bool | None = None, output_attentions: bool | None = None,
    ) -> EncoderOutput:
        """Encode a batch."""
        return self.encode(ecog_values, subject_ids, output_hidden_states)


__all__ = ["EcogEncoder"]
'''
CONFIG = '''class EcogConfig(SensorConfig):
    """Configuration of [`EcogEncoder`]; the arguments are those of [`SensorConfig`]."""

    model_type = "neural_clip_ecog"
    _auto_class = "AutoConfig"
    base_config_key = "ecog_config"


'''
GET = '''    def get_ecog_features(self, ecog_values: Any, subject_ids: Any = None) -> torch.Tensor:
        """Embed ECoG recordings; see [`~NeuralClipModel.get_eeg_features`]."""
        return self.features("ecog", ecog_values, subject_ids)

'''
# By file: what is found there once, and what is written behind it (before it where the first sign is ^).
EDITS = {
    "modalities.py": [
        ("sensors=False),\n", '        Modality("ecog", "ECoG", "V", sensors=True, channel_types=("ecog",)),\n'),
    ],
    "configuration_neural_clip.py": [
        ("^MODALITY_CONFIGS: dict", CONFIG),
        ('"fmri": FmriConfig', ', "ecog": EcogConfig'),
        ("    fmri_config: dict | FmriConfig | None = None\n", "    ecog_config: dict | EcogConfig | None = None\n"),
    ],
    "modeling_neural_clip.py": [
        ("^from .modeling_eeg import EegEncoder\n", "from .modeling_ecog import EcogEncoder\n"),
        ('"fmri": FmriEncoder', ', "ecog": EcogEncoder'),
        ("^    def get_image_features(", GET),
        ("        fmri_values: torch.Tensor | None = None,\n", "        ecog_values: torch.Tensor | None = None,\n"),
        ('"fmri": fmri_values', ', "ecog": ecog_values'),
    ],
    "processing_neural_clip.py": [
        ("        fmri: Any = None,\n", "        ecog: Any = None,\n"),
        ('"fmri": fmri', ', "ecog": ecog'),
    ],
}  # fmt: skip
RUN = """
import sys, time
import neural_clip
from neural_clip.commands.main import main
assert neural_clip.__file__.startswith(sys.argv[1]), neural_clip.__file__
for line in open(sys.argv[2]).read().splitlines():
    print("$", line, flush=True)
    main(line.split())
    print("seconds", time.process_time(), flush=True)
"""
LOAD = """
import sys
import mne, numpy as np, transformers
import neural_clip
from neural_clip.gallery.neural_gallery import NeuralGallery
model = transformers.AutoModel.from_pretrained(sys.argv[1])
processor = transformers.AutoProcessor.from_pretrained(sys.argv[1])
assert model.config.modalities == ["eeg", "ecog"] and type(model.encoders["ecog"]).__name__ == "EcogEncoder"
epochs = mne.read_epochs(sys.argv[2], verbose="error")
inputs = processor(ecog=epochs, subject="sub-01")
found = model(**inputs).neural_embeds.detach().numpy()
hits = NeuralGallery.load_from_disk(sys.argv[3], sys.argv[1]).decode(epochs, "sub-01", modality="ecog")
assert found.shape == (len(epochs), model.config.projection_dim) and len(hits) == len(epochs)
assert neural_clip.EcogConfig.model_type == "neural_clip_ecog"
"""


def add_ecog(package):
    """Make the edits in a copy of the package."""
    (package / "modeling_ecog.py").write_text(MODULE, encoding="utf-8")
    for name, edits in EDITS.items():
        text = (package / name).read_text(encoding="utf-8")
        for place, more in edits:
            before, place = place.startswith("^"), place.removeprefix("^")
            assert text.count(place) == 1, f"{name}: {place!r} occurs {text.count(place)} times"
            text = text.replace(place, more + place if before else place + more)
        (package / name).write_text(text, encoding="utf-8")


def lay_out(folder):
    """Epochs of two people by EEG and ECoG, pictures, manifests, and a recipe; returns the command lines."""
    images = [f"{'cats' if i % 2 else 'dogs'}/im{i:02d}" for i in range(N)]
    save_pictures(folder / "stimuli")
    lines = []
    for name, kind, people in (("eeg", "eeg", (1, 2)), ("ecog", "ecog", (1, 2)), ("new", "ecog", (3,))):
        for person in people:
            save_epochs(folder / f"{kind}{person}-epo.fif", person, kinds=kind, images=images)
        manifest = write_manifest(folder, {
            "name": f"mine_{kind}", "modality": kind, **TERMS, "scaling": "train",
            "recordings": [{"file": f"{kind}{person}-epo.fif", "subject": f"sub-0{person}"} for person in people],
            "defaults": {"kind": "epochs", "image_column": "picture", "run_column": "block", "tmin": 0, "tmax": 0.2},
            "images": {"folder": "stimuli", "concept": "folder"},
            "splits": {"by": "image", "validation": 0.2, "test": 0.25},
        })  # fmt: skip
        manifest = manifest.rename(folder / f"{name}.yaml")
        lines += [f"prepare custom {manifest} --output-dir {folder}/{name}",
                  f"embed-images {folder}/{name} --model neural_clip/tiny-clip"]  # fmt: skip
    small = {"encoder_type": "temporal_spatial", "hidden_size": 8, "temporal_kernel_size": 5, "n_windows": 4}
    training = {"output_dir": f"{folder}/run", "num_train_epochs": 1, "seed": 0, "use_cpu": True, "disable_tqdm": True}
    recipe = {"data": {"eeg": f"{folder}/eeg"}, "model": {"eeg": small, "ecog": small}, "training": training}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    data = f"--data eeg={folder}/eeg ecog={folder}/ecog"
    search = f"--gallery {folder}/stimuli --checkpoint {folder}/run"
    return [
        *lines,
        f"doctor {folder}/ecog",
        f"train {folder}/recipe.yaml {data} --closed-form",
        f"evaluate --checkpoint {folder}/run {data} --output-dir {folder}/report --baselines ridge --understand 8",
        f"report {folder}/report",
        f"gallery build {folder}/ecog --recordings --checkpoint {folder}/run --output-dir {folder}/gallery",
        f"gallery build {folder}/stimuli --checkpoint {folder}/run --output-dir {folder}/pictures",
        f"embed-recordings {folder}/ecog --checkpoint {folder}/run --output-file {folder}/vectors.parquet",
        f"decode {folder}/ecog1-epo.fif --modality ecog --subject sub-01 {search}",
        f"decode {folder}/ecog {search}",
        f"encode {folder}/stimuli/cats/im01.png --gallery {folder}/gallery --checkpoint {folder}/run",
        f"convert {folder}/eeg --to ecog --gallery {folder}/gallery --checkpoint {folder}/run",
        f"adapt --checkpoint {folder}/run --data ecog={folder}/new --output-dir {folder}/adapted --epochs 1",
    ]


def second_python(package, *words):
    environment = os.environ | {"PYTHONPATH": str(package.parent)}
    done = subprocess.run(
        [sys.executable, *map(str, words)], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_a_fourth_modality_needs_the_listed_files_only(tmp_path):
    ours = REPOSITORY / "src" / "neural_clip"
    package = tmp_path / "src" / "neural_clip"
    shutil.copytree(ours, package, ignore=shutil.ignore_patterns("__pycache__"))
    add_ecog(package)
    mine, theirs = contents(ours), contents(package)
    changed = {str(name) for name in theirs if "__pycache__" not in str(name) and theirs[name] != mine.get(name)}
    assert changed == {"modeling_ecog.py", *EDITS}
    row = re.search(r"^\| a modality \|.*$", (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.M)
    assert set(re.findall(r"`(\w+\.py|modeling_<name>\.py)`", row[0])) == {"modeling_<name>.py", *EDITS}
    folder = tmp_path / "work"
    folder.mkdir()
    lines = lay_out(folder)
    (tmp_path / "lines").write_text("\n".join(lines))
    told = second_python(package, "-c", RUN, package, tmp_path / "lines")
    print(told)
    assert told.count("ECoG") > 3
    for page in ("report/report.md", "report/report.html", "run/README.md"):
        assert "ECoG" in (folder / page).read_text(encoding="utf-8")
    second_python(package, "-c", LOAD, folder / "run", folder / "ecog1-epo.fif", folder / "pictures")
