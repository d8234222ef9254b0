"""Model, processor, data set and metric go to a Hub on this machine and come back the same, without the package."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from loopback_hub import LoopbackHub
from neural_clip import NeuralClipProcessor
from neural_clip.publishing.push import push
from paths import REPOSITORY
from small_models import seeded_model
from toy_sets import write_toy_set

METRIC = REPOSITORY / "metrics" / "image_retrieval"
PROGRAM = """
import hashlib, json, sys
sys.modules["neural_clip"] = None
import evaluate, numpy as np, torch
from datasets import load_dataset
from huggingface_hub import HfApi, snapshot_download
from transformers import AutoModel, AutoProcessor

def digest(tensor):
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


model = AutoModel.from_pretrained("lab/model", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("lab/model", trust_remote_code=True)
inputs = processor(eeg=np.load(sys.argv[1]), subject="sub-02")
rows = load_dataset("lab/set", "all", split="train")
metric = evaluate.load(snapshot_download("lab/image_retrieval", repo_type="space") + "/image_retrieval.py")
refused = ""
try:
    model.push_to_hub("lab/copy", private=False)
except ValueError as error:
    refused = str(error)
for part in (model, processor):
    part.push_to_hub("lab/copy")
print(json.dumps({
    "weights": {name: digest(tensor) for name, tensor in model.state_dict().items()},
    "inputs": digest(inputs["eeg_values"]),
    "rows": [[row["subject"], row["image_id"], row["fmri"]] for row in rows],
    "metric": metric.compute(predictions=np.eye(3).tolist(), references=np.eye(3).tolist())["two_way"],
    "listed": HfApi().list_repo_files("lab/model"),
    "refused": refused,
}))
"""


def digest(tensor):
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


@pytest.mark.slow
def test_what_was_pushed_comes_back_the_same_where_the_package_is_not_installed(tmp_path, monkeypatch):
    model = seeded_model(("temporal_spatial", "temporal_spatial"))
    for modality, term in (("eeg", "allowed"), ("meg", "allowed"), ("fmri", "forbidden")):
        entry = {"corpus": f"c{modality}", "redistribution": term, "licence": "cc0-1.0"}
        getattr(model.config, f"{modality}_config").trained_on = [entry]
    processor = NeuralClipProcessor.from_config(model.config)
    values = np.random.default_rng(0).standard_normal((3, 5, 100)).astype(np.float32)
    np.save(tmp_path / "values.npy", values)
    images = [{"image_id": f"im{i}", "concept": "c", "image_embeds": np.eye(8)[i]} for i in range(8)]
    made_by = {"name": "e", "revision": "1", "pooling": "precomputed"}
    folder = write_toy_set(tmp_path / "set", images, values.reshape(-1, 5)[:8], 2, image_encoder=made_by)
    with LoopbackHub() as hub:
        hub.stand_in(monkeypatch)
        model.push_to_hub("lab/model")
        processor.push_to_hub("lab/model")
        push(folder, "lab/set")
        files = {path.name: path.read_bytes() for path in METRIC.iterdir() if path.is_file()}
        hub.add("space", "lab/image_retrieval", private=False, files=files)
        surroundings = os.environ | {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "hf"),
        }
        surroundings |= {"HF_DATASETS_OFFLINE": "0", "HF_MODULES_CACHE": str(tmp_path / "modules")}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "values.npy")], env=surroundings, capture_output=True,
            text=True, timeout=300, cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["weights"] == {name: digest(tensor) for name, tensor in model.state_dict().items()}
    assert found["inputs"] == digest(processor(eeg=values, subject="sub-02")["eeg_values"])
    assert found["metric"] == 1.0
    sent = hub.repositories["model", "lab/model"]
    assert sorted(found["listed"]) == sorted(sent["files"])
    assert "redistribution of cfmri (fmri) is forbidden" in found["refused"]
    copied = hub.repositories["model", "lab/copy"]
    assert copied["private"] is True and copied["files"].keys() == sent["files"].keys()
    assert all(
        copied["files"][name] == sent["files"][name]
        for name in sent["files"]
        if name.endswith((".py", ".safetensors"))
    )
    from datasets import load_dataset

    rows = load_dataset(str(folder), "all", split="train", cache_dir=str(tmp_path / "cache"))
    assert found["rows"] == [[row["subject"], row["image_id"], row["fmri"]] for row in rows] and len(rows) > 0
