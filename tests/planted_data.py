"""Small prepared data sets with a planted linear signal, and a model that knows it, for the evaluation's tests."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import torch

from neural_clip.evaluation import checkpoints
from neural_clip.gallery.embedding import EmbeddedSplit
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.integrity import fingerprint
from neural_clip.prepared.reader import ImageTable, PreparedSet, Split
from neural_clip.prepared.writer import write_prepared
from neural_clip.simulation.images import render, sample_specs

WIDTH = 16
COUNTS = {"train": 40, "validation": 12, "test": 24}
SHAPES = {"eeg": (6, 10), "meg": (8, 7), "fmri": None}
ENCODER = {"name": "planted", "revision": "0", "pooling": "projected"}
READY = ENCODER | {"pooling": "precomputed"}  # embeddings that no model can make


def voxels(subject):
    return 50 + 7 * subject


def planted_maps(modality, n_subjects, seed=0):
    """One matrix a subject from embedding to recording; sensors share most of it."""
    rng = np.random.default_rng([seed, ["eeg", "meg", "fmri"].index(modality)])
    if modality == "fmri":
        return [rng.standard_normal((WIDTH, voxels(subject))) for subject in range(n_subjects)]
    size = int(np.prod(SHAPES[modality]))
    shared = rng.standard_normal((WIDTH, size))
    return [shared + 0.3 * rng.standard_normal((WIDTH, size)) for _ in range(n_subjects)]


def plant(patch, model_of):
    """Have checkpoints of all names be what `model_of` gives for the name, without a processor."""
    patch.setattr(checkpoints, "load_model", model_of)
    patch.setattr(checkpoints, "check_prepared_alike", lambda checkpoint, data: None)


def write_planted(folder, modality, *, n_subjects=2, repeats=2, noise=1.0, seed=0, pixels=True, shuffled=False,
                  encoder=ENCODER, counts=COUNTS, simulated=True, n_unseen=0, places=False,
                  corpus="planted"):  # fmt: skip
    """Write a prepared data set whose recordings are `embedding @ map + noise`; returns the folder.

    The last `n_unseen` subjects are for testing alone, with all images. With `places`, voxels lie anywhere in MNI152.
    """
    rng = np.random.default_rng([seed, 7])
    specs = sample_specs(sum(counts.values()), rng)
    embeds = rng.standard_normal((len(specs), WIDTH)).astype(np.float32)
    images = []
    for number, spec in enumerate(specs):
        row = {
            "image_id": f"{modality}{number:03d}",
            "concept": spec.category_name,
            "categories": [spec.category_name],
        }
        row["image_embeds"] = embeds[number]
        images.append(row | ({"image": render(spec)} if pixels else {}))
    splits = np.repeat(list(counts), list(counts.values()))
    maps = planted_maps(modality, n_subjects)
    answers = rng.permutation(len(specs)) if shuffled else np.arange(len(specs))

    def recordings():
        for subject in range(n_subjects):
            for number in range(len(specs)):
                for _ in range(repeats):
                    values = embeds[answers[number]] @ maps[subject]
                    values = values + noise * rng.standard_normal(values.shape)
                    if modality != "fmri":
                        values = values.reshape(SHAPES[modality])
                    split = "test" if subject >= n_subjects - n_unseen else splits[number]
                    yield {"subject": f"sub-{subject + 1:02d}", "image_id": images[number]["image_id"],
                           "split": split, modality: values}  # fmt: skip

    metadata = {
        "corpus": corpus, "modality": modality, "split_protocol": "planted",
        "split_unit": "subject" if n_unseen else "image",
        "licence": "none", "redistribution": "allowed", "citation": "none", "source": "planted",
        "image_encoder": encoder,
        "simulated": {"preset": "planted", "seed": seed, "ceiling": {"two_way": 0.99, "what it knows": "all"}}
        if simulated else None,
    }  # fmt: skip
    if modality != "fmri":
        metadata |= {"sfreq": 100.0, "tmin": 0.0, "ch_names": [f"C{i}" for i in range(SHAPES[modality][0])]}
    located = {}
    if places:
        metadata["places_space"] = "MNI152"
        located = {f"sub-{i + 1:02d}": rng.uniform(-70, 70, (part.shape[1], 3)) for i, part in enumerate(maps)}
    return write_prepared(folder, metadata, recordings(), images, places=located)


def older(folder):
    """Make a prepared data set what earlier versions wrote: its files are not listed; returns the folder."""
    path = Path(folder) / "neural_clip.json"
    facts = json.loads(path.read_text())
    del facts["files"], facts["fingerprint_version"]
    path.write_text(json.dumps(facts | {"fingerprint": fingerprint(folder, 1)}))
    return folder


class FeatureMethods:
    """The methods of a model that the evaluation asks for features, all from one."""

    closed_forms: ClassVar = {}

    def each_features(self, modality, values, subject_ids):
        return {"network": self.features(modality, values, subject_ids)}

    def get_eeg_features(self, eeg_values, subject_ids):
        return self.features("eeg", eeg_values, subject_ids)

    def get_meg_features(self, meg_values, subject_ids):
        return self.features("meg", meg_values, subject_ids)

    def get_fmri_features(self, fmri_values, subject_ids):
        return self.features("fmri", fmri_values, subject_ids)


class PlantedModel(FeatureMethods):
    """Stands in for a trained model: inverts the planted maps."""

    def __init__(self, modalities, n_subjects=2):
        self.config = SimpleNamespace()
        for modality in ("eeg", "meg", "fmri"):
            config = None
            if modality in modalities:
                subjects = [f"sub-{subject + 1:02d}" for subject in range(n_subjects)]
                config = SimpleNamespace(subjects=subjects, n_voxels=None)
            setattr(self.config, f"{modality}_config", config)
        self.inverses = {m: [np.linalg.pinv(a) for a in planted_maps(m, n_subjects)] for m in modalities}
        # the last, which -1 finds: the average subject, who is the mean of all
        for modality in set(modalities) - {"fmri"}:
            self.inverses[modality].append(np.linalg.pinv(np.mean(planted_maps(modality, n_subjects), axis=0)))

    def to(self, device):
        return self

    def eval(self):
        return self

    def features(self, modality, values, subject_ids):
        rows = []
        for row, subject in zip(values.numpy().reshape(len(values), -1), subject_ids.tolist(), strict=True):
            inverse = self.inverses[modality][subject]
            rows.append(row[: len(inverse)] @ inverse)
        return torch.tensor(np.array(rows), dtype=torch.float32)


def facts_of(modality, **changes):
    """Facts of a data set that lies nowhere."""
    named = dict.fromkeys(("corpus", "split_protocol", "split_unit", "licence", "citation", "source"), "planted")
    return Facts(**named | {"modality": modality, "redistribution": "allowed"} | changes)


def split_of(values, subjects, image_ids, targets, modality="eeg", *, name="test", concepts=None, folder="planted",
             **facts):  # fmt: skip
    """A split in memory: recordings, whose they are, what was shown, and its embedding; `concepts` by image id."""
    ids, first = np.unique(image_ids, return_index=True)
    named = [(concepts or {}).get(image_id, "") for image_id in ids]
    images = ImageTable(ids.tolist(), np.asarray(targets)[first], named, [[] for _ in ids])
    return Split(PreparedSet(str(folder), Path(folder), facts_of(modality, **facts), images), name, values,
                 np.asarray(subjects), np.asarray(image_ids))  # fmt: skip


def embedded(part, embeds):
    """A split in the space of the images."""
    return EmbeddedSplit(**part.as_fields(), embeds=embeds)
