"""A checkpoint of all modalities with random weights, and an evaluation compared with searches of galleries."""

import numpy as np
import torch

from neural_clip import (
    EegConfig,
    FmriConfig,
    MegConfig,
    NeuralClipConfig,
    NeuralClipModel,
    NeuralClipProcessor,
    NeuralGallery,
)
from neural_clip.retrieval.scores import retrieval_scores
from neural_clip.targets.encoder import ImageEncoder
from neural_clip.targets.identity import identity_of
from neural_clip.targets.tiny_clip import TINY_CLIP
from planted_data import SHAPES, voxels

SUBJECTS = ["sub-01", "sub-02"]


def save_checkpoint(folder, data, seed=0):
    """A model of all modalities and its processor, which knows what the rows went through."""
    torch.manual_seed(seed)
    sensors = {
        m: {"n_chans": SHAPES[m][0], "n_times": SHAPES[m][1], "sfreq": 100.0, "tmin": 0.0,
            "ch_names": [f"C{i}" for i in range(SHAPES[m][0])], "subjects": SUBJECTS, "encoder_type": "linear"}
        for m in ("eeg", "meg")
    }  # fmt: skip
    size = {name: voxels(number) for number, name in enumerate(SUBJECTS)}
    identity = identity_of(data["eeg"].facts)
    config = NeuralClipConfig(
        eeg_config=EegConfig(**sensors["eeg"]), meg_config=MegConfig(**sensors["meg"]),
        fmri_config=FmriConfig(subjects=SUBJECTS, n_voxels=size, alignment_size=8, hidden_size=8),
        **identity.as_config(),
    )  # fmt: skip
    model = NeuralClipModel(config)
    model.save_pretrained(folder)
    pixels = ImageEncoder(TINY_CLIP, device="cpu").processor
    NeuralClipProcessor.from_config(
        config, pixels, {name: opened.preparation for name, opened in data.items()},
        {name: opened.statistics for name, opened in data.items()},
    ).save_pretrained(folder)  # fmt: skip
    return folder


def compare_with_searches(checkpoint, sets, report):
    """Raise unless an evaluation's scores of the test split are those of searches."""
    parts = {name: data.split("test") for name, data in sets.items()}
    signals = NeuralGallery.from_recordings(checkpoint, list(parts.values()))
    trained = [NeuralGallery.from_images(checkpoint, data.split("train")) for data in sets.values()]
    bank = np.unique(np.concatenate([gallery.vectors for gallery in trained]), axis=0)
    bank = NeuralGallery.of_arrays("image", bank, [str(row) for row in range(len(bank))], trained[0].encoder)
    for name, part in parts.items():
        images = NeuralGallery.from_images(checkpoint, part)
        hits = images.decode(part, top_k=min(5, len(images)))
        row = report["decoding"][name]["rows"][0]
        for k, score in ((1, row["top1"]), (5, row["top5"])):
            found = [
                true in [hit.image_id for hit in ranked[:k]] for true, ranked in zip(part.image_ids, hits, strict=True)
            ]
            assert np.mean(found) == score
        embeds = dict(zip(images.image_ids, images.vectors, strict=True))
        encoded = signals.encode(images, modality=name, top_k=1)
        row = report["encoding"][name]["rows"][0]
        assert behind(encoded, embeds, images.image_ids, images) == row["two_way"]
        same = [hits.image_id == true for hits, true in zip(encoded, images.image_ids, strict=True)]
        assert np.mean(same) == row["same_image"]
        means = signals.filter(modality=name).mean_recordings()
        found = [[hit.image_id for hit in ranked] for ranked in means.encode(images, top_k=min(5, len(means)))]
        for k in (1, 5):
            right = [true in ids[:k] for ids, true in zip(found, images.image_ids, strict=True)]
            assert np.mean(right) == row["direct"][f"top{k}"]
        for record in report["conversion"]:
            if record["source"] != name or record["method"] != report["checkpoints"][0]["name"]:
                continue
            target = NeuralGallery.from_images(checkpoint, parts[record["target"]])
            embeds = dict(zip(target.image_ids, target.vectors, strict=True))
            ways = {way["via"]: way["two_way"] for way in record["ways"]}
            assert list(ways) == ["recordings", "mean recordings", "images"]
            assert ways["recordings"] == record["two_way"]
            for via, score in ways.items():
                converted = signals.convert(part, to=record["target"], via=via, bank=bank, top_k=1)
                assert behind(converted, embeds, part.image_ids, images) == score


def behind(hits, embeds, image_ids, images):
    """2-way score of the images behind the first hits."""
    found = np.stack([embeds[ranked.image_id] for ranked in hits])
    return retrieval_scores(found, images.vectors, list(image_ids), images.image_ids.tolist())["two_way"]
