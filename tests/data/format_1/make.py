"""Write the files beside this one: three tiny data sets, a checkpoint trained on them, and what it answered.

Not run by the tests: it belongs to the code of the commit that README.md names, which wrote the files.

    python make.py OUTPUT_DIR
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from datasets import load_dataset
from neural_clip.corpora.prepared import write_prepared

from neural_clip import NeuralClipModel, NeuralClipProcessor

WIDTH = 8
SUBJECTS = ("sub-01", "sub-02")
SPLITS = {"train": 3, "validation": 2, "test": 2}  # images
SHAPES = {"eeg": (5, 24), "meg": (3, 90), "fmri": None}  # sensors and samples
VOXELS = {"sub-01": 9, "sub-02": 7}
KEPT = ("subject", "session", "run", "trial", "image_id", "concept", "categories", "split", "shape", "sha256")
# "precomputed": the embeddings are random numbers, no tower made them.
ENCODER = {"name": "random", "revision": "1", "pooling": "precomputed"}
MODEL = {
    "eeg": {"encoder_type": "temporal_spatial", "num_networks": 2, "hidden_size": 4, "temporal_kernel_size": 3,
            "n_windows": 4, "n_fine_windows": 8, "readout_size": 4, "alignment_kernel_size": 3, "time_shift": 0.01},
    "meg": {"encoder_type": "temporal_cnn", "hidden_size": 4, "crop_tmin": 0.0, "alignment_init": "random"},
    "fmri": {"alignment_size": 6, "hidden_size": 4, "num_hidden_layers": 1, "linear_path": True},
}  # fmt: skip
TRAINING = {"num_train_epochs": 4, "per_device_train_batch_size": 6, "learning_rate": 0.01, "seed": 1,
            "use_cpu": True, "disable_tqdm": True, "output_dir": "checkpoint"}  # fmt: skip


def images_of(modality, rng):
    """Images with embeddings; those of EEG have pixels too."""
    images = []
    for number, split in enumerate(np.repeat(list(SPLITS), list(SPLITS.values()))):
        image = {"image_id": f"{modality}-{number}", "concept": f"concept {number % 3}", "categories": ["simulated"]}
        image["image_embeds"] = rng.standard_normal(WIDTH).astype(np.float32)
        if modality == "eeg":
            image["image"] = rng.integers(0, 256, (8, 8, 3), np.uint8)
        images.append((split, image))
    return images


def write_data_set(folder, modality):
    """A simulated data set: each person's recordings are a matrix of their own times the embedding, and noise."""
    rng = np.random.default_rng([1, len(modality), ord(modality[0])])
    images = images_of(modality, rng)

    def recordings():
        for subject in SUBJECTS:
            shape = SHAPES[modality] or (VOXELS[subject],)
            matrix = rng.standard_normal((WIDTH, int(np.prod(shape))))
            for trial, (split, image) in enumerate(images):
                values = image["image_embeds"] @ matrix + rng.standard_normal(matrix.shape[1])
                yield {"subject": subject, "session": "ses-01", "run": str(trial % 2), "trial": trial, "split": split,
                       "image_id": image["image_id"], modality: values.reshape(shape).astype(np.float32)}  # fmt: skip

    metadata = {
        "corpus": "format 1", "modality": modality, "split_protocol": "fixed", "split_unit": "image",
        "licence": "Apache-2.0", "redistribution": "allowed", "citation": "none", "source": "random numbers",
        "simulated": {"preset": "format 1", "seed": 1}, "image_encoder": ENCODER,
    }  # fmt: skip
    if modality != "fmri":
        metadata |= {"sfreq": 100.0, "tmin": -0.1 if modality == "meg" else 0.0}
        metadata |= {"ch_names": [f"{modality[0].upper()}{i}" for i in range(SHAPES[modality][0])]}
    write_prepared(folder, metadata, recordings(), [image for _, image in images])
    return [image["image_id"] for split, image in images if split == "test"]


def answers(checkpoint, folder, modality):
    """All rows of a data set with digests of their values, and what the checkpoint makes of the test rows."""
    model = NeuralClipModel.from_pretrained(checkpoint)
    processor = NeuralClipProcessor.from_pretrained(checkpoint)
    rows, outputs = [], {}
    for split in SPLITS:
        recordings = load_dataset(folder, "all", split=split).with_format("numpy")
        for row in recordings:
            values = np.ascontiguousarray(row.pop(modality), dtype="<f4")
            told = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in row.items()}
            told |= {"split": split, "shape": values.shape, "sha256": hashlib.sha256(values.tobytes()).hexdigest()}
            rows.append({name: told[name] for name in KEPT})
    with torch.no_grad():
        inputs = processor(**{modality: list(load_dataset(folder, "all", split="test"))})
        outputs[f"{modality} features"] = getattr(model, f"get_{modality}_features")(**inputs).numpy()
        outputs[f"{modality} neural_embeds"] = model(**inputs).neural_embeds.numpy()
    images = load_dataset(folder, "images", split="images").with_format("numpy")
    outputs |= {f"{modality} image_ids": images["image_id"][:], f"{modality} image_embeds": images["image_embeds"][:]}
    if modality == "eeg":
        outputs["eeg pixels"] = np.stack([np.asarray(image) for image in images.with_format(None)["image"]])
    return rows, outputs


def main(output_dir):
    """Write everything below `output_dir`, which the recipe names by relative paths."""
    train = os.path.relpath(Path(__file__).resolve().parents[3] / "train.py", output_dir)
    Path(output_dir).mkdir(parents=True)
    os.chdir(output_dir)
    for modality in SHAPES:
        write_data_set(modality, modality)
    recipe = {"data": {modality: modality for modality in SHAPES}, "model": MODEL, "training": TRAINING}
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    subprocess.run([sys.executable, train, "recipe.yaml"], check=True)
    for path in (*Path("checkpoint").glob("checkpoint-*"), Path("checkpoint/training_args.bin")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()  # what resuming needs is large
    rows, outputs = {}, {}
    for modality in SHAPES:
        rows[modality], of_modality = answers("checkpoint", modality, modality)
        outputs |= of_modality
    lines = [json.dumps({"modality": modality} | row) for modality in rows for row in rows[modality]]
    Path("rows.jsonl").write_text("\n".join(lines) + "\n")
    np.savez_compressed("answers.npz", **outputs)


if __name__ == "__main__":
    main(sys.argv[1])
