"""Prepared data sets of the size of real corpora, simulated, and untrained checkpoints for them.

    python benchmarks/synthetic.py things_meg --output-dir data/meg --subjects 1          # 4 people x 24,648 rows
    python benchmarks/synthetic.py nsd --output-dir data/nsd --subjects 2 --averaged      # one row an image
    python benchmarks/synthetic.py imagenet_eeg --output-dir data/eeg --rows 400          # of each person
    python benchmarks/synthetic.py checkpoint --data meg=data/meg --output-dir checkpoints/untrained

Rows, people and widths are those of the corpora unless `--subjects` and `--rows` name fewer. Images have latent
vectors, of which their embeddings are a linear map with noise. Recordings are another linear map of the same vectors,
partly common to all people, in noise that is smooth over time and correlated over channels. So the scores say that a
program finds a linear signal, and nothing of brains. `checkpoint` builds the model of the recipe `base` as training
would, and saves it without a step.

A set takes 4 bytes a number: 7.5 GB a person of THINGS-MEG, 1.4 to 2.2 GB one of NSD.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

WIDTH, N_LATENT = 768, 48  # of the embeddings, and of what images differ in
N_FACTORS = 8  # that noise has in common over channels or voxels
BLOCK = 64  # recordings that are made at a time
VALIDATION = 0.1  # of the training images
SESSION_ROWS = 750
ENCODER = {"name": "made for a benchmark", "revision": "0", "pooling": "precomputed"}


@dataclass(frozen=True)
class Plan:
    """What a corpus holds.

    Args:
        modality (`str`): Of the recordings.
        n_subjects (`int`): People.
        images, repeats (`dict[str, int]`): Of each person: images in `"train"` (of which some are taken for
            validation) and `"test"`, and how often each is shown.
        shape (`tuple[int, ...]`): `(n_chans, n_times)`; least and most voxels of fMRI.
        own_images (`bool`): Whether training images are shown to one person only.
        sfreq, tmin (`float`): In Hz and s.
        smooth (`float`): Deviation in samples of the kernel that noise and signal are smoothed by.
        signal (`float`): Its deviation, where that of the noise is 1.
        seed (`int`): Of everything random.
    """

    modality: str
    n_subjects: int
    images: dict[str, int]
    repeats: dict[str, int]
    shape: tuple[int, ...]
    own_images: bool = False
    sfreq: float = 0.0
    tmin: float = 0.0
    smooth: float = 0.0
    signal: float = 0.1
    seed: int = 0

    @property
    def n_rows(self) -> int:
        """Of each person."""
        return sum(count * self.repeats[split] for split, count in self.images.items())

    def of_size(self, n_subjects: int | None, n_rows: int | None) -> Plan:
        """Fewer people, and so many rows of each, in the same proportions."""
        share = (n_rows or self.n_rows) / self.n_rows
        images = {split: max(round(count * share), 4) for split, count in self.images.items()}
        return replace(self, n_subjects=n_subjects or self.n_subjects, images=images)

    def shape_of(self, subject: int) -> tuple[int, ...]:
        """Of one recording."""
        if self.modality != "fmri":
            return self.shape
        return (int(np.linspace(self.shape[0], self.shape[1], 8)[subject % 8]),)

    def ids(self, subject: int) -> dict[str, list[str]]:
        """Images of each split that a person sees."""
        whose = f"p{subject + 1}-" if self.own_images else ""
        train = [f"train-{whose}{number:05d}" for number in range(self.images["train"])]
        n_validation = max(round(VALIDATION * len(train)), 2)
        test = [f"test-{number:05d}" for number in range(self.images["test"])]
        return {"train": train[n_validation:], "validation": train[:n_validation], "test": test}

    @cached_property
    def all_ids(self) -> list[str]:
        """Images of all people, each once."""
        found = [self.ids(subject) for subject in range(self.n_subjects if self.own_images else 1)]
        return sorted({name for ids in found for names in ids.values() for name in names})

    @cached_property
    def latent(self) -> np.ndarray:
        """What images differ in, `(n_images, N_LATENT)`."""
        return self._rng(1).standard_normal((len(self.all_ids), N_LATENT), dtype=np.float32)

    def _rng(self, *what: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *what])

    def image_rows(self) -> Iterator[dict]:
        """Rows of the image table."""
        rng = self._rng(2)
        directions = rng.standard_normal((N_LATENT, WIDTH), dtype=np.float32)
        for start in range(0, len(self.all_ids), BLOCK):
            embeds = self.latent[start : start + BLOCK] @ directions
            embeds += 2 * rng.standard_normal(embeds.shape, dtype=np.float32)
            embeds /= np.linalg.norm(embeds, axis=1, keepdims=True)
            for name, row in zip(self.all_ids[start : start + BLOCK], embeds, strict=True):
                yield {"image_id": name, "concept": f"concept {int(name[-5:]) // 12}", "categories": [],
                       "image_embeds": row}  # fmt: skip

    @cached_property
    def smoothing(self) -> np.ndarray:
        """Kernels over time, `(n_times, n_times)`, each of unit length."""
        times = np.arange(self.shape[1])
        kernels = np.exp(-(((times[:, None] - times) / self.smooth) ** 2) / 2)
        return (kernels / np.linalg.norm(kernels, axis=0)).astype(np.float32)

    def _smoothed(self, values: np.ndarray) -> np.ndarray:
        return values @ self.smoothing if self.smooth else values

    def _map(self, subject: int) -> np.ndarray:
        """From latent vectors to recordings, `(N_LATENT, n_features)`."""
        shape = (N_LATENT, *self.shape_of(subject))
        found = self._rng(3, subject).standard_normal(shape, dtype=np.float32)
        if self.modality != "fmri":  # channels of people correspond
            found = 0.8 * self._rng(4).standard_normal(shape, dtype=np.float32) + 0.6 * found
        return (self._smoothed(found) * np.float32(self.signal / N_LATENT**0.5)).reshape(N_LATENT, -1)

    def recordings(self, subject: int) -> Iterator[dict]:
        """Rows of a person, in the order in which they were shown."""
        rng, shape = self._rng(5, subject), self.shape_of(subject)
        shown = [(name, split) for split, names in self.ids(subject).items()
                 for name in names for _ in range(self.repeats["test" if split == "test" else "train"])]  # fmt: skip
        order = rng.permutation(len(shown))
        columns = {name: number for number, name in enumerate(self.all_ids)}
        weights = self._map(subject)
        factors = rng.standard_normal((shape[0], N_FACTORS), dtype=np.float32) / N_FACTORS**0.5
        for start in range(0, len(order), BLOCK):
            block = [shown[number] for number in order[start : start + BLOCK]]
            common = rng.standard_normal((len(block), N_FACTORS, *shape[1:]), dtype=np.float32)
            common = np.einsum("cf,nf...->nc...", factors, common, optimize=True)
            values = self._smoothed(0.8 * rng.standard_normal((len(block), *shape), dtype=np.float32) + 0.6 * common)
            values += (self.latent[[columns[name] for name, _ in block]] @ weights).reshape(values.shape)
            for number, (name, split) in enumerate(block, start=start):
                yield {"subject": f"sub-{subject + 1:02d}", "image_id": name, "split": split,
                       "session": f"ses-{number // SESSION_ROWS + 1:02d}", "trial": number % SESSION_ROWS,
                       self.modality: values[number - start]}  # fmt: skip


PLANS = {
    "things_meg": Plan("meg", 4, {"train": 22_248, "test": 200}, {"train": 1, "test": 12}, (271, 281), False, 200.0,
                       -0.4, 2.0),
    "nsd": Plan("fmri", 8, {"train": 9_000, "test": 1_000}, {"train": 3, "test": 3}, (12_000, 18_000), True,
                signal=0.15),
    "imagenet_eeg": Plan("eeg", 6, {"train": 1_794, "test": 200}, {"train": 1, "test": 1}, (128, 440), False, 1000.0,
                         0.02, 8.0),
    "things_eeg2": Plan("eeg", 10, {"train": 16_540, "test": 200}, {"train": 4, "test": 80}, (63, 250), False, 250.0,
                        -0.2, 2.0),
}  # fmt: skip


def recordings_of(plan: Plan, subject: int) -> Iterator[dict]:
    """Rows of a person, by a copy of the plan: parts are told apart by their pickles, which hold what was computed."""
    return replace(plan).recordings(subject)


def write_data(corpus: str, plan: Plan, output_dir: Path, num_proc: int = 1) -> Path:
    """Write a prepared set; people who are finished are kept when it is interrupted."""
    from neural_clip.prepared.parts import Part
    from neural_clip.prepared.writer import write_prepared

    made = "made for a benchmark"
    metadata: dict[str, object] = {
        **dict.fromkeys(("split_protocol", "licence", "citation", "source"), made), "corpus": f"{corpus} (simulated)",
        "modality": plan.modality, "split_unit": "image", "redistribution": "allowed", "image_encoder": ENCODER,
        "presentation_order": True, "average_repeats": set(plan.repeats.values()) == {1},
        "simulated": {"preset": "benchmark", "seed": plan.seed},
    }  # fmt: skip
    if plan.modality != "fmri":
        names = [f"C{number}" for number in range(plan.shape[0])]
        metadata |= {"sfreq": plan.sfreq, "tmin": plan.tmin, "ch_names": names}
    parts = [Part(f"sub-{subject + 1:02d}", partial(recordings_of, plan, subject), n_rows=plan.n_rows)
             for subject in range(plan.n_subjects)]  # fmt: skip
    return write_prepared(output_dir, metadata, parts, plan.image_rows(), num_proc=num_proc)


def write_untrained(data: Sequence[str], output_dir: Path) -> Path:
    """Save the untrained model of the recipe `base` for prepared sets, `MODALITY=FOLDER` each."""
    from neural_clip.files.whole import whole_folder
    from neural_clip.prepared.reader import PreparedSet
    from neural_clip.processing_neural_clip import NeuralClipProcessor
    from neural_clip.targets.identity import common_image_encoder
    from neural_clip.training.checkpoint import write_checkpoint
    from neural_clip.training.model import build_model, model_config
    from neural_clip.training.recipe import find_recipe, read_recipe
    from neural_clip.training.record import recorded_facts

    words = [word for entry in data for word in (f"--data.{entry.split('=', 1)[0]}", entry.split("=", 1)[1])]
    given = {entry.split("=", 1)[0] for entry in data}
    recipe = read_recipe([str(find_recipe("base")), *words])
    opened = {name: PreparedSet.open(str(folder)) for name, folder in recipe.data.items() if name in given}
    facts = {name: found.facts for name, found in opened.items()}
    config = model_config(recipe, facts)
    model = build_model(config, None, recipe.training_arguments.seed)
    processor = NeuralClipProcessor.from_config(
        config, None, {name: found.preparation for name, found in opened.items()},
        {name: found.statistics for name, found in opened.items()},
    )  # fmt: skip
    record = {"seed": recipe.training_arguments.seed, "steps": 0, "epochs": 0.0, "best_validation_two_way": None,
              "command": "benchmarks/synthetic.py checkpoint", "recipe": recipe.as_dict(), "untrained": True,
              "data": {name: recorded_facts(found, found.subjects) for name, found in facts.items()},
              "simulated": list(facts), "image_encoder": common_image_encoder(facts)}  # fmt: skip
    with whole_folder(output_dir, holds="training.json", what="checkpoint") as folder:
        write_checkpoint(folder, output_dir.name, model, processor, record)
    return output_dir


def main(argv: Sequence[str] | None = None) -> None:
    """Write what is asked for, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    for name, plan in PLANS.items():
        corpus = what.add_parser(name, help=f"{plan.n_subjects} people, {plan.n_rows:,} rows each")
        corpus.add_argument("--output-dir", type=Path, required=True)
        corpus.add_argument("--subjects", type=int, help=f"people; default {plan.n_subjects}")
        corpus.add_argument("--rows", type=int, help=f"of each person; default {plan.n_rows}")
        corpus.add_argument("--averaged", action="store_true", help="one row an image and person")
        corpus.add_argument("--num-proc", type=int, default=1, help="processes, one a person")
    checkpoint = what.add_parser("checkpoint", help="the untrained model of the recipe `base`")
    checkpoint.add_argument("--data", nargs="+", required=True, metavar="MODALITY=FOLDER")
    checkpoint.add_argument("--output-dir", type=Path, required=True)
    given = parser.parse_args(argv)
    if given.what == "checkpoint":
        print(json.dumps({"checkpoint": str(write_untrained(given.data, given.output_dir))}))
        return
    plan = PLANS[given.what]
    if given.averaged:
        plan = replace(plan, repeats=dict.fromkeys(plan.repeats, 1), signal=plan.signal * plan.repeats["train"] ** 0.5)
    plan = plan.of_size(given.subjects, given.rows)
    folder = write_data(given.what, plan, given.output_dir, given.num_proc)
    print(json.dumps({"data": str(folder), "subjects": plan.n_subjects, "rows_of_each": plan.n_rows}))


if __name__ == "__main__":
    main()
