"""Compare single choices with recipe `demo`: objectives, augmentations, alignment layers, spatial attention.

    python scripts/compare_choices.py --data eeg=FOLDER meg=FOLDER fmri=FOLDER --seeds 0 1

Each choice changes one thing about `configs/demo.yaml` and is trained by the package's own trainer, one modality at a
time. What the package does not hold, because it did not earn its place, is defined here. Scores are those of single
recordings of the **validation** split, the mean over the last three epochs, so that no epoch is chosen by them; the
test split is never read. Results are written after each run, the page from them at the end; a run that stands in the
results already, with the same data, recipe and code, is kept.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata as package_metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from compare_recipes import REPOSITORY, commit, digest, digest_files, source_states
from neural_clip.data import JointDataset, RecordingDataset, folder_of, load_metadata
from neural_clip.errors import DataError, run
from neural_clip.image_retrieval import retrieval_scores
from neural_clip.losses import clip_loss, positive_mask, regression_loss
from neural_clip.modeling_sensors import rows_by_subject
from neural_clip.recipes import read_recipe
from neural_clip.report_tables import NAMES
from neural_clip.training import NeuralClipTrainer, build_model, embed_recordings, model_config
from neural_clip.whole_files import write_whole

RECIPE = REPOSITORY / "configs" / "demo.yaml"
LAST_EPOCHS = 3
SENSORS = ("eeg", "meg")
EVERYWHERE = (*SENSORS, "fmri")
PACKAGES = ("neural_clip", "torch", "transformers", "datasets", "numpy")
ABOUT = "validation split of simulated recordings, single trials, mean over the last three epochs"


# Objectives: of L2-normalised embeddings (batch_size, projection_dim), image ids (batch_size,) and the log scale.


def targets_of(image_ids: torch.Tensor) -> torch.Tensor:
    """Uniform over the recordings of the same image, `(batch_size, batch_size)`; rows sum to 1."""
    positives = positive_mask(image_ids, len(image_ids), image_ids.device).float()
    return positives / positives.sum(dim=1, keepdim=True)


def both_ways(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy against symmetric or one-sided targets in both directions, their mean in nats."""
    return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets.T)) / 2


def soft_targets(output: Any, image_ids: torch.Tensor, scale: torch.Tensor, weight: float) -> torch.Tensor:
    """InfoNCE whose targets are in part the softmax of image-image similarity at temperature 0.1.

    Source: the idea is that of Gao et al. 2024 (SoftCLIP, arXiv:2303.17561); weight and temperature are ours.
    """
    alike = torch.softmax(output.image_embeds @ output.image_embeds.T / 0.1, dim=1)
    targets = (1 - weight) * targets_of(image_ids) + weight * alike
    logits = scale.exp() * output.neural_embeds @ output.image_embeds.T
    return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2


def sigmoid_loss(output: Any, image_ids: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """SigLIP: each pair is a yes-or-no question, with bias -10 (Zhai et al. 2023, arXiv:2303.15343, algorithm 1)."""
    logits = scale.exp() * output.neural_embeds @ output.image_embeds.T - 10
    signs = 2 * positive_mask(image_ids, len(image_ids), image_ids.device).float() - 1
    return -functional.logsigmoid(signs * logits).sum() / len(logits)


def with_regression(output: Any, image_ids: torch.Tensor, scale: torch.Tensor, weight: float) -> torch.Tensor:
    """InfoNCE plus a multiple of the squared distance."""
    contrast = clip_loss(output.neural_embeds, output.image_embeds, scale, image_ids)
    return contrast + weight * regression_loss(output.neural_embeds, output.image_embeds)


# Augmentations of a training batch: from values and subject ids to values.


def noisy(values: torch.Tensor, subject_ids: torch.Tensor) -> torch.Tensor:
    """Gaussian noise of half the standard deviation of the batch; the padding of voxels stays zero."""
    return values + 0.5 * values.std() * torch.randn_like(values) * (values != 0)


def shifted(values: torch.Tensor, subject_ids: torch.Tensor, most: int) -> torch.Tensor:
    """Each recording moved in time by up to `most` samples either way, its ends repeated."""
    shifts = torch.randint(-most, most + 1, (len(values), 1), device=values.device)
    times = (torch.arange(values.shape[2], device=values.device) + shifts).clamp(0, values.shape[2] - 1)
    return values.gather(2, times[:, None].expand_as(values))


def without_channels(values: torch.Tensor, subject_ids: torch.Tensor) -> torch.Tensor:
    """A tenth of the sensors or voxels of each recording set to zero."""
    keep = torch.rand(values.shape[:2], device=values.device) >= 0.1
    return values * keep.reshape(*keep.shape, *[1] * (values.ndim - 2))


def partners(subject_ids: torch.Tensor) -> torch.Tensor:
    """For each recording another one of the same person at random, `(batch_size,)`; alone it is its own."""
    order = torch.arange(len(subject_ids), device=subject_ids.device)
    for _, rows in rows_by_subject(subject_ids):
        order[rows] = rows[torch.randperm(len(rows), device=rows.device)]
    return order


# Networks.


class SpatialAttention(nn.Module):
    """Sensors summed with weights that depend on where they are: one map over the head for each output.

    The weights are the softmax over sensors of a learned function of their place, a Fourier series in two dimensions.
    Source: Defossez et al. 2023, doi:10.1038/s42256-023-00714-5, section "Spatial attention" (K = 32 frequencies a
    side); without its dropout of a region.
    """

    def __init__(self, places: torch.Tensor, n_outputs: int, n_frequencies: int = 32) -> None:
        super().__init__()
        flat = azimuthal(places)
        flat = (flat - flat.min(0).values) / (flat.max(0).values - flat.min(0).values)  # 0 to 1
        steps = 2 * math.pi * torch.arange(n_frequencies)
        angles = (flat[:, :1, None] * steps[:, None] + flat[:, 1:, None] * steps[None, :]).flatten(1)
        self.register_buffer("series", torch.cat([angles.cos(), angles.sin()], dim=1))  # (n_chans, 2 K^2)
        self.weight = nn.Parameter(torch.randn(n_outputs, self.series.shape[1]) / n_frequencies)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map `(batch_size, n_chans, n_times)` to `(batch_size, n_outputs, n_times)`."""
        return torch.softmax(self.weight @ self.series.T, dim=1) @ values


def azimuthal(places: torch.Tensor) -> torch.Tensor:
    """Places `(n, 3)` m on a plane `(n, 2)`: distance from the vertex along the sphere, angle kept."""
    centred = places - places.mean(0)
    around = torch.atan2(centred[:, 1], centred[:, 0])
    down = torch.acos((centred[:, 2] / centred.norm(dim=1)).clamp(-1, 1))
    return torch.stack([down * around.cos(), down * around.sin()], dim=1)


def attend(model: Any, modality: str) -> None:
    """Put spatial attention, with as many outputs as there are sensors, in front of the spatial filters."""
    encoder = model.encoders[modality]
    places = torch.tensor(encoder.config.ch_positions)
    encoder.network.spatial = nn.Sequential(SpatialAttention(places, len(places)), encoder.network.spatial)


@dataclass(frozen=True)
class Choice:
    """One change of the recipe.

    Args:
        about (`str`): What it is, for the page.
        modalities (`tuple[str, ...]`): Where it can be made.
        settings (`dict`): Overrides of the recipe's model section; `MODALITY` stands for the encoder's.
        loss, augment, change, mixes, alignment_decay: Objective, augmentation, change of a model that is made, whether
            recordings are mixed (BiMixCo), weight decay of the alignment layers.
    """

    about: str
    modalities: tuple[str, ...] = EVERYWHERE
    settings: dict[str, Any] = field(default_factory=dict)
    loss: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    augment: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    change: Callable[[Any, str], None] | None = None
    mixes: bool = False
    alignment_decay: float | None = None


CHOICES = {
    "demo": Choice("the recipe: symmetric InfoNCE, repeats as positives, learned temperature"),
    "one direction": Choice("recordings to images only", settings={"contrastive_direction": "neural_to_image"}),
    "temperature 0.1": Choice(
        "fixed, not learned", settings={"logit_scale_init_value": math.log(10), "learn_logit_scale": False}
    ),
    "soft targets": Choice(
        "a fifth of the target from image-image similarity",
        loss=partial(soft_targets, weight=0.2),
    ),
    "SigLIP": Choice(
        "pairwise sigmoid, scale starts at 10", settings={"logit_scale_init_value": math.log(10)}, loss=sigmoid_loss
    ),
    "squared distance": Choice("instead of the contrastive loss", settings={"objective": "mse"}),
    "InfoNCE + squared distance": Choice("the sum", loss=partial(with_regression, weight=1.0)),
    "BiMixCo": Choice("recordings of a person mixed, Beta(0.15, 0.15)", mixes=True),
    "noise": Choice("Gaussian, half a standard deviation", augment=noisy),
    "channels dropped": Choice("a tenth of sensors or voxels", augment=without_channels),
    "shift by 10 samples": Choice("in time, either way: 10 ms", ("eeg",), augment=partial(shifted, most=10)),
    "shift by a sample": Choice("in time, either way: 8 ms", ("meg",), augment=partial(shifted, most=1)),
    "alignment decay 0": Choice("no weight decay of the alignment layers (0.1)", alignment_decay=0.0),
    "alignment decay 1": Choice("ten times the weight decay of the alignment layers", alignment_decay=1.0),
    "frozen alignment": Choice("alignment layers stay as they start", settings={"freeze_alignment": True}),
    "random start": Choice(
        "alignment layers start at random (identity)", SENSORS, {"MODALITY": {"alignment_init": "random"}}
    ),
    "subject dropout": Choice(
        "a tenth of recordings through the average layer", SENSORS, {"MODALITY": {"subject_dropout": 0.1}}
    ),
    "spatial attention": Choice("over sensor positions, before the spatial filters", ("meg",), change=attend),
}


class ChoiceTrainer(NeuralClipTrainer):
    """The package's trainer with one choice, and with top-1 beside 2-way in validation."""

    def __init__(self, choice: Choice, *arguments: Any, **kwargs: Any) -> None:
        self.choice = choice
        super().__init__(*arguments, **kwargs)

    def compute_loss(self, model: nn.Module, inputs: dict, *arguments: Any, **kwargs: Any) -> Any:
        """The loss of the choice."""
        (key,) = (name for name in inputs if name.endswith("_values"))
        ids, subjects = inputs["image_ids"], inputs["subject_ids"]
        if self.choice.augment is not None:
            inputs = inputs | {key: self.choice.augment(inputs[key], subjects)}
        if self.choice.mixes:
            share = torch.distributions.Beta(0.15, 0.15).sample((len(ids),)).to(ids.device)
            other = partners(subjects)
            own = share.reshape(-1, *[1] * (inputs[key].ndim - 1))
            inputs = inputs | {key: own * inputs[key] + (1 - own) * inputs[key][other]}
        output = model(**inputs)
        scale = self.model.logit_scale
        if self.choice.mixes:
            targets = targets_of(ids)
            targets = share[:, None] * targets + (1 - share[:, None]) * targets[other]
            return both_ways(output.logits_per_neural, targets)
        return output.loss if self.choice.loss is None else self.choice.loss(output, ids, scale)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Give the alignment layers a weight decay of their own."""
        optimizer = super().create_optimizer(model)
        if self.choice.alignment_decay is not None:
            named = self.model.named_parameters()
            alignment = {id(weight) for name, weight in named if ".alignment." in name}
            for group in list(optimizer.param_groups):
                own = [weight for weight in group["params"] if id(weight) in alignment]
                group["params"] = [weight for weight in group["params"] if id(weight) not in alignment]
                if own and group["weight_decay"]:
                    optimizer.add_param_group(group | {"params": own, "weight_decay": self.choice.alignment_decay})
                else:
                    group["params"] += own
        return optimizer

    def evaluate(self, *arguments: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """2-way and top-1 of the validation split."""
        model: Any = self.model
        model.eval()
        (part,) = self.validation
        names = [part.images.image_ids[row] for row in part.image_rows]
        found = retrieval_scores(embed_recordings(model, part).numpy(), part.images.embeds[part.image_rows], names)
        model.train()
        metrics = {f"{metric_key_prefix}_{key}": float(found[key]) for key in ("two_way", "top1")}
        self.log(metrics)
        return metrics


def train_choice(name: str, modality: str, folder: str, seed: int, epochs: int | None) -> dict:
    """Train with one choice; returns scores, epochs and processor seconds."""
    choice = CHOICES[name]
    metadata = load_metadata(folder)
    with tempfile.TemporaryDirectory() as scratch:
        words = [str(RECIPE), "--data", json.dumps({modality: folder}), "--seed", str(seed), "--output_dir", scratch]
        words += ["--save_strategy", "'no'", "--load_best_model_at_end", "false", "--disable_tqdm", "true"]
        words += ["--model.include_vision_tower", "false"] + ([] if epochs is None else ["--num_train_epochs", epochs])
        recipe = read_recipe([str(word) for word in words])
        settings = dict(choice.settings)
        recipe.model[modality] = {**recipe.model[modality], **settings.pop("MODALITY", {})}
        recipe.model |= settings
        started = time.process_time()
        config = model_config(recipe, {modality: metadata})
        model = build_model(config, None, seed)
        if choice.change is not None:
            choice.change(model, modality)
        parts = {split: RecordingDataset(folder, split, metadata["subjects"]) for split in ("train", "validation")}
        trainer = ChoiceTrainer(
            choice, model=model, args=recipe.training_arguments, recordings=JointDataset([parts["train"]]),
            validation=[parts["validation"]],
        )  # fmt: skip
        trainer.train()
    shown = parts["validation"]
    sizes = {"n_queries": len(shown), "gallery_size": len(set(shown.image_rows.tolist()))}
    history = [entry for entry in trainer.state.log_history if "eval_two_way" in entry]
    scores = {key: statistics.fmean(e[f"eval_{key}"] for e in history[-LAST_EPOCHS:]) for key in ("two_way", "top1")}
    return scores | sizes | {"epochs": len(history), "cpu_seconds": round(time.process_time() - started, 1)}


def table(records: Sequence[dict], modality: str) -> list[str]:
    """Choices of a modality as Markdown, beside what the recipe has with the same seeds."""
    lines = ["| choice | what it is | seeds | 2-way | minus the recipe | top-1 % | minus | processor s |"]
    lines.append("|" + "---|" * 8)
    own = [record for record in records if record["modality"] == modality]
    reference = {record["seed"]: record for record in own if record["choice"] == "demo"}
    for name in CHOICES:
        found = [record for record in own if record["choice"] == name and record["seed"] in reference]
        if not found:
            continue
        mean = {key: statistics.fmean(r[key] for r in found) for key in ("two_way", "top1", "cpu_seconds")}
        gain = {k: [r[k] - reference[r["seed"]][k] for r in found] for k in ("two_way", "top1")}
        shown = [", ".join(f"{value:+.3f}" for value in gain["two_way"]) if name != "demo" else ""]
        shown += [f"{100 * mean['top1']:.1f}", ", ".join(f"{100 * v:+.1f}" for v in gain["top1"])]
        shown[2] = "" if name == "demo" else shown[2]
        cells = [name, CHOICES[name].about, str(len(found)), f"{mean['two_way']:.3f}", *shown]
        lines.append("| " + " | ".join([*cells, f"{mean['cpu_seconds']:.0f}"]) + " |")
    return lines


def page(results: dict) -> str:
    """The page of all choices, as Markdown."""
    records = results["records"]
    lines = ["# Single choices, measured", ""]
    lines += [
        "Nobody was recorded: every number is of **simulated** recordings, twin `realistic` ([twins.md](twins.md))."
    ]
    lines += [
        "Each choice changes one thing about the recipe `demo` and is trained one modality at a time. Scores are of"
    ]
    lines += ["the **validation split**, single trials, mean over the last three epochs; the test split was not read."]
    lines += [
        "Differences are from the recipe with the same seed, one a seed. `python scripts/compare_choices.py` makes"
    ]
    lines += ["the page from `results/validation/choices.json`; no number is typed by hand, and choices that are not"]
    lines += ["options of the package are defined in that script."]
    for modality in EVERYWHERE:
        if any(record["modality"] == modality for record in records):
            sizes = next(record for record in records if record["modality"] == modality)
            lines += ["", f"## {NAMES[modality]}, simulated", ""]
            lines += [f"{sizes['n_queries']} recordings, {sizes['gallery_size']} images; chance .5 and "
                      f"{100 / sizes['gallery_size']:.1f} %.", "", *table(records, modality)]  # fmt: skip
    commits = sorted({str(record["commit"]) for record in records})
    return "\n".join([*lines, "", f"Made at commit {', '.join(commits)}.", ""])


def compare(data: dict[str, str], given: argparse.Namespace) -> None:
    """Train what is not in the results yet; write them after each run, and the page."""
    known = json.loads(given.results.read_text(encoding="utf-8"))["records"] if given.results.is_file() else []
    facts = {modality: load_metadata(folder) for modality, folder in data.items()}
    given.results.parent.mkdir(parents=True, exist_ok=True)
    code = [source_states()["training"], digest_files([RECIPE, Path(__file__)])]
    versions = {name: package_metadata.version(name) for name in PACKAGES}
    for seed in given.seeds:
        for name in given.choices or CHOICES:
            for modality in [m for m in CHOICES[name].modalities if m in data]:
                key = digest([name, modality, seed, facts[modality]["fingerprint"], given.epochs, code])
                if any(record["key"] == key for record in known):
                    continue
                entry = {"choice": name, "modality": modality, "seed": seed, "key": key, "commit": commit()}
                entry |= {"simulated": bool(facts[modality]["simulated"]), "versions": versions}
                entry |= train_choice(name, modality, data[modality], seed, given.epochs)
                same = {"choice": name, "modality": modality, "seed": seed}
                known = [record for record in known if any(record[k] != v for k, v in same.items())] + [entry]
                write_whole(given.results, json.dumps({"about": ABOUT, "records": known}, indent=1) + "\n")
                print(
                    f"{time.strftime('%H:%M:%S')} {modality} {name}, seed {seed}: {entry['two_way']:.4f}", flush=True
                )
    write_whole(given.page, page({"records": known}))
    print(f"results in {given.results}, page in {given.page}")


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, metavar="MODALITY=FOLDER", help="eeg, meg, fmri")
    parser.add_argument("--choices", nargs="+", default=[], metavar="NAME", help="some only (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, help="training epochs, instead of the recipe's")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "results" / "validation" / "choices.json")
    parser.add_argument("--page", type=Path, default=REPOSITORY / "docs" / "choices.md")
    given = parser.parse_args(argv)
    unknown = [name for name in given.choices if name not in CHOICES]
    if unknown:
        raise DataError(
            f"Invalid value for the '--choices' parameter. Allowed are {list(CHOICES)}, but got {unknown}."
        )
    torch.set_num_threads(1)  # as many as the other comparisons take, so that times can be compared
    compare({entry.partition("=")[0]: folder_of(entry) for entry in given.data}, given)


if __name__ == "__main__":
    run(main)
