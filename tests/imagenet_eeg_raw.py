"""A small ImageNetEEG in the format of the release, written by hand for the tests of its builder."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from neural_clip.corpora.imagenet_eeg.options import IMAGE_DIR

N_CHANS, N_IMAGES, SUBJECTS = 3, 12, (4, 1)
LABELS = ["n03888257", "n02389026"]
NAMES = [f"{LABELS[i % 2]}_{100 + i}" for i in range(N_IMAGES)]
SPLIT_OF_IMAGE = ["train"] * 6 + ["val"] * 2 + ["test"] * 4


def build(folder: Path, change=None, splits_change=None, counts_change=None, stamped=True) -> Path:
    """Write a corpus; the callbacks damage it before it is saved."""
    rng = np.random.default_rng(0)
    trials = [
        {
            "eeg": torch.from_numpy(rng.standard_normal((N_CHANS, 491 + (7 * i) % 40), dtype=np.float32)),
            "image": i, "label": i % 2, "subject": subject,
        }
        for subject in SUBJECTS
        for i in range(N_IMAGES)
    ]  # fmt: skip
    del trials[5]  # image 5 of subject 4: missing as trials are in the real release
    content = {"dataset": trials, "labels": LABELS, "images": NAMES}
    split = {part: [] for part in ("train", "val", "test")}
    for i, trial in enumerate(trials):
        split[SPLIT_OF_IMAGE[trial["image"]]].append(i)
    splits = {"splits": [split]}
    if change:
        change(content)
    if splits_change:
        splits_change(splits)
    folder.mkdir(parents=True)
    for name in ("eeg_14_70_std.pth", "eeg_signals_raw_with_mean_std.pth"):
        torch.save(content, folder / name)
    torch.save(splits, folder / "block_splits_by_image_all.pth")
    for i, name in enumerate(NAMES):
        path = folder / IMAGE_DIR / name.split("_")[0] / f"{name}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 20 * i, np.uint8)).save(path)
    counts = {"trials": 23, "images": N_IMAGES, "classes": 2, "subjects": 2, "n_chans": N_CHANS}
    if counts_change:
        counts |= counts_change
    if stamped:
        stamp = {"simulated": True, "counts": counts, "category_names": dict.fromkeys(LABELS, "round thing")}
        (folder / "SIMULATED.json").write_text(json.dumps(stamp))
    return folder
