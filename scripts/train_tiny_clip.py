"""Train the tiny CLIP that embeds the procedural images of the simulated data, and write the folder that is shipped.

The model is a `transformers.CLIPModel` (64 x 64 pixels, patches of 8, projection 64) trained from scratch. Every step
sees fresh renderings of `neural_clip.simulation.images`, so nothing can be learned by heart. The loss is the symmetric
InfoNCE of images and captions (Radford et al. 2021, arXiv:2103.00020) plus a cross-entropy against the prompts of the
40 categories: with captions alone, colour and background solve the task and shapes stay at chance.

Train, evaluate on 4,000 unseen renderings and write the folder (CPU, 7 to 15 minutes on one core):

    python scripts/train_tiny_clip.py --output-dir runs/tiny_clip

writes `runs/tiny_clip/model/` (config, fp16 weights, tokenizer, image processor, evaluation.json, README.md), whole or
not at all, and `runs/tiny_clip/checkpoint.pt`, from which the same command resumes; with `--stop-after 0` it evaluates
and writes the model as it is. Replace the shipped model by copying `model/` over
`src/neural_clip/targets/tiny_clip_model/`.
Another CPU or another number of threads rounds differently and ends with other weights.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import multiprocessing
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch.nn import functional
from tqdm.auto import tqdm
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

from neural_clip.errors import run
from neural_clip.files.whole import whole_file, whole_folder
from neural_clip.simulation import images

PROMPTS = ("a photo of a {}", "an image of a {}", "a picture of a {}", "a {}", "{}")
"""Prompt templates of the category loss; the first is the one of the zero-shot evaluation."""
SPECIAL_TOKENS = ("<pad>", "<unk>", "<mask>", "<s>", "</s>")
"""Their ids are their positions: an end token of id 2 would make CLIP pool the text at the largest id instead."""
TRAIN_STREAM, TEST_STREAM = 0, 1
"""First word of the renderings' seeds: training and evaluation draw from disjoint random streams."""
MAX_BYTES = 4 * 2**20
"""The shipped folder must stay below 4 MiB."""
MEAN, STD = 0.5, 0.5  # of pixels in [0, 1]: maps them to [-1, 1]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, required=True, help="folder of the checkpoint and the model")
    parser.add_argument("--steps", type=int, default=800, help="length of the learning rate schedule")
    parser.add_argument("--stop-after", type=int, default=None, help="stop at this step, evaluate and write the model")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--category-weight", type=float, default=1.0, help="of the category prompts' cross-entropy")
    parser.add_argument("--test-images", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Word-level tokenizer of the captions' vocabulary: `<s> words </s>`, lower case."""
    words = {word for template in PROMPTS for word in template.replace("{}", "").split()}
    words |= {word for names in (images.SHAPES, images.TEXTURES, images.COLOURS, images.BACKGROUNDS) for word in names}
    words |= {"small", "medium", "large", "on", "background", "at", "the"}
    words |= {"top", "middle", "bottom", "left", "centre", "right"}
    vocabulary = {word: index for index, word in enumerate((*SPECIAL_TOKENS, *sorted(words)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    names = dict(zip(("pad_token", "unk_token", "mask_token", "bos_token", "eos_token"), SPECIAL_TOKENS, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=24, **names)


def build_processor() -> CLIPProcessor:
    """Tokenizer and the image pipeline: shorter side to 64, centre crop, [0, 255] to [-1, 1]."""
    side = images.NATIVE_SIZE
    options: dict[str, Any] = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    options |= {"image_mean": [MEAN] * 3, "image_std": [STD] * 3}
    return CLIPProcessor(CLIPImageProcessorPil(**options), build_tokenizer())


def build_model(tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    """Randomly initialised model whose position embeddings start as 2-D sines and cosines."""
    common = {"projection_dim": 64, "hidden_act": "gelu"}
    vision = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}
    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = CLIPConfig(
        vision_config={**vision, **common, "image_size": images.NATIVE_SIZE, "patch_size": 8},
        text_config={**text, **common, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": 24},
        projection_dim=64,
    )
    model = CLIPModel(config)
    positions = model.vision_model.embeddings.position_embedding.weight  # (1 + 64, hidden_size); the first is [CLS]
    with torch.no_grad():
        positions[1:] = 0.5 * sincos_positions(side=8, width=positions.shape[1])
    return model


def sincos_positions(side: int, width: int) -> torch.Tensor:
    """2-D sine-cosine embeddings (side * side, width), row by row (Chen et al. 2021, arXiv:2104.02057)."""
    frequencies = 16.0 ** -(torch.arange(width // 4) / (width // 4)) * (2 * torch.pi / side) * 2
    angles = torch.arange(side)[:, None] * frequencies  # (side, width / 4)
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
    rows, columns = axis[:, None].expand(-1, side, -1), axis[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=-1).reshape(side * side, width)


def render_batch(n: int, seed: Sequence[int]) -> tuple[np.ndarray, list[images.ImageSpec]]:
    """Draw `n` images (n, 3, 64, 64) uint8 and their specifications."""
    specs = images.sample_specs(n, np.random.default_rng(seed))
    return np.stack([images.render(spec).transpose(2, 0, 1) for spec in specs]), specs


def batches(args: argparse.Namespace, first_step: int) -> Iterator[tuple[np.ndarray, list[images.ImageSpec]]]:
    """Fresh training batches, drawn ahead by one worker process; the step number is their seed."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pending = []
        for step in range(first_step, args.steps):
            pending.append(pool.apply_async(render_batch, (args.batch_size, (TRAIN_STREAM, args.seed, step))))
            if len(pending) == 8:
                yield pending.pop(0).get()
        for result in pending:
            yield result.get()


def to_pixel_values(batch: np.ndarray) -> torch.Tensor:
    """What the image processor does to images of 64 x 64: uint8 (n, 3, 64, 64) to float32 in [-1, 1]."""
    return torch.from_numpy(batch).float().div_(255).sub_(MEAN).div_(STD)


def embed_text(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, text: list[str]) -> torch.Tensor:
    """L2-normalised text embeddings (n, 64)."""
    features = model.get_text_features(**tokenizer(text, padding=True, return_tensors="pt")).pooler_output
    return functional.normalize(features, dim=-1)


def compute_loss(model, tokenizer, batch, template: str, category_weight: float) -> dict[str, torch.Tensor]:
    """Caption InfoNCE (both directions, equal captions are positives) and category cross-entropy, in nats."""
    pixels, specs = batch
    image_embeds = functional.normalize(model.get_image_features(to_pixel_values(pixels)).pooler_output, dim=-1)
    captions = [spec.caption for spec in specs]
    texts = captions + [template.format(name) for name in images.CATEGORIES]
    text_embeds = embed_text(model, tokenizer, texts)  # (batch_size + 40, 64)
    logits = model.logit_scale.exp() * image_embeds @ text_embeds.T
    caption_logits, category_logits = logits[:, : len(specs)], logits[:, len(specs) :]
    same = torch.tensor([[a == b for b in captions] for a in captions], dtype=torch.float32)
    targets = same / same.sum(dim=1, keepdim=True)
    directions = (caption_logits, caption_logits.T)  # image to caption, caption to image; `targets` is symmetric
    caption_loss = sum(functional.cross_entropy(direction, targets) for direction in directions) / 2
    labels = torch.tensor([spec.category for spec in specs])
    category_loss = functional.cross_entropy(category_logits, labels)
    accuracy = (category_logits.argmax(dim=1) == labels).float().mean()
    loss = caption_loss + category_weight * category_loss
    return {"loss": loss, "caption": caption_loss, "category": category_loss, "accuracy": accuracy}


class Float32Muon(torch.optim.Optimizer):
    """Muon: momentum whose matrices are orthogonalised, in float32 and for all matrices of one shape at once.

    `torch.optim.Muon` does the same in bfloat16, matrix by matrix, which takes a third of a step's time on a CPU.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon (coefficients); the update has the root mean
    square of AdamW's (0.2), Liu et al. 2025, arXiv:2502.16982, equation 4.
    """

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.02):
        """Take 2-D parameters only."""
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for shape in sorted({tuple(p.shape) for p in group["params"]}):
                params = [p for p in group["params"] if tuple(p.shape) == shape and p.grad is not None]
                for p in params:
                    momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    momentum.lerp_(p.grad, 1 - group["momentum"])
                nesterov = [p.grad.lerp(self.state[p]["momentum"], group["momentum"]) for p in params]
                updates = orthogonalise(torch.stack(nesterov)) * (0.2 * max(shape) ** 0.5 * group["lr"])
                for p, update in zip(params, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update)


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Nearest semi-orthogonal matrices (n, rows, columns), roughly: five quintic Newton-Schulz iterations."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x


def build_optimizers(model: CLIPModel, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices (it learns shapes in fewer steps than AdamW does), AdamW for everything else."""
    matrices: list[torch.Tensor] = []
    others: list[torch.Tensor] = []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "encoder.layers" in name else others).append(parameter)
    adam = torch.optim.AdamW(others, lr=learning_rate / 2, betas=(0.9, 0.98), weight_decay=0.0)
    return [Float32Muon(matrices, lr=learning_rate), adam]


def schedule(step: int, steps: int, warmup: int = 100) -> float:
    """Learning rate factor: linear warm-up, then a cosine to 0.01."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def save_checkpoint(path: Path, model: CLIPModel, optimizers: list, progress: dict) -> None:
    """Write the state of the training aside, then rename it."""
    state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers], **progress}
    with whole_file(path) as aside:
        torch.save(state, aside)


def train(args: argparse.Namespace, model: CLIPModel, tokenizer: PreTrainedTokenizerFast) -> dict:
    """Train from the checkpoint, if there is one, to the last step; returns `{"step", "seconds"}`."""
    optimizers = build_optimizers(model, args.learning_rate)
    base_rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    progress: dict[str, Any] = {"step": 0, "seconds": 0.0}
    checkpoint = args.output_dir / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        progress = {key: state[key] for key in progress}
    last = args.steps if args.stop_after is None else min(args.steps, args.stop_after)
    bar = tqdm(range(progress["step"], last), initial=progress["step"], total=last, mininterval=10)
    templates = np.random.default_rng(args.seed).choice(PROMPTS, size=args.steps)
    start = time.perf_counter() - progress["seconds"]
    averages: dict[str, float] = {}
    for step, batch in zip(bar, batches(args, progress["step"]), strict=False):
        losses = compute_loss(model, tokenizer, batch, str(templates[step]), args.category_weight)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, rate in zip(optimizers, base_rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * schedule(step, args.steps)
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(50))  # a colder softmax than this only memorises
        averages = {key: 0.98 * averages.get(key, value.item()) + 0.02 * value.item() for key, value in losses.items()}
        bar.set_postfix({key: f"{value:.3f}" for key, value in averages.items()}, refresh=False)
        progress = {"step": step + 1, "seconds": time.perf_counter() - start}
        if progress["step"] % 250 == 0 or progress["step"] == last:
            save_checkpoint(checkpoint, model, optimizers, progress)
    return progress


@torch.no_grad()
def evaluate(model_dir: Path, n_images: int, seed: int) -> dict:
    """Zero-shot accuracies of a saved model, in float32 and through its own processor, on unseen renderings."""
    model = CLIPModel.from_pretrained(model_dir, dtype=torch.float32).eval()
    processor = CLIPProcessor.from_pretrained(model_dir)
    pixels, specs = render_batch(n_images, (TEST_STREAM, seed))
    embeds = []
    for start in range(0, n_images, 100):
        chunk = [image.transpose(1, 2, 0) for image in pixels[start : start + 100]]
        inputs = processor.image_processor(chunk, return_tensors="pt")
        embeds.append(model.get_image_features(**inputs).pooler_output)
    raw = torch.cat(embeds)  # (n_images, 64), not normalised
    image_embeds = functional.normalize(raw, dim=-1)
    prompts = embed_text(model, processor.tokenizer, [PROMPTS[0].format(name) for name in images.CATEGORIES])
    predicted = (image_embeds @ prompts.T).argmax(dim=1)
    truth = torch.tensor([spec.category for spec in specs])
    n_textures = len(images.TEXTURES)
    scores = {
        "category": (predicted == truth).float().mean().item(),
        "shape": (predicted // n_textures == truth // n_textures).float().mean().item(),
        "texture": (predicted % n_textures == truth % n_textures).float().mean().item(),
    }
    for kind, names in (("colour", tuple(images.COLOURS)), ("background", images.BACKGROUNDS)):
        scores[kind] = caption_accuracy(model, processor.tokenizer, image_embeds, specs, kind, names)
    variance = torch.linalg.eigvalsh(torch.cov(image_embeds.T))
    return {
        "accuracy": {key: round(value, 4) for key, value in scores.items()},
        "accuracy_by_shape": {
            shape: round((predicted == truth)[truth // n_textures == index].float().mean().item(), 4)
            for index, shape in enumerate(images.SHAPES)
        },
        "n_images": n_images,
        "mean_cosine": round(((image_embeds.sum(0) ** 2).sum().item() - n_images) / (n_images * (n_images - 1)), 4),
        "participation_ratio": round((variance.sum() ** 2 / (variance**2).sum()).item(), 2),
        "n_parameters": sum(p.numel() for p in model.parameters()),
    }


def caption_accuracy(model, tokenizer, image_embeds, specs, kind: str, names: Sequence[str]) -> float:
    """How often the true caption beats those that differ from it in the colour or the background alone."""
    hits = []
    for embed, spec in zip(image_embeds[:1000], specs[:1000], strict=True):  # 6 to 8 captions each
        truth = getattr(spec, kind)
        old = f" {names[truth]} " if kind == "colour" else f" {names[truth]} background"
        captions = [spec.caption.replace(old, old.replace(names[truth], name)) for name in names]
        hits.append(int((embed @ embed_text(model, tokenizer, captions).T).argmax()) == truth)
    return float(np.mean(hits))


def card(facts: dict) -> str:
    """Model card; every number comes from `evaluation.json`."""
    accuracy = facts["accuracy"]
    chance = {"category": 1 / 40, "shape": 1 / 10, "texture": 1 / 4, "colour": 1 / 8, "background": 1 / 6}
    table = "\n".join(f"| {task} | {accuracy[task]:.1%} | {chance[task]:.1%} |" for task in chance)
    shapes = ", ".join(f"{name} {value:.1%}" for name, value in facts["accuracy_by_shape"].items())
    return f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: zero-shot-image-classification
tags: [clip, simulated]
---

# Tiny CLIP for the simulated images of neural_clip

A `transformers.CLIPModel` of {facts["n_parameters"]:,} parameters (64 x 64 pixels, projection 64, stored in float16)
for the procedural images of `neural_clip.simulation.images` and nothing else: it knows no photographs. Its image
embedding drives the simulated brains and stands in for a real CLIP wherever nothing may be downloaded.

Zero-shot accuracy on {facts["n_images"]:,} unseen renderings (prompt "{PROMPTS[0].format("striped star")}"; colour and
background: the true caption against those with another word, first 1,000 images), weights loaded as float32:

| task | accuracy | chance |
|---|---|---|
{table}

Category accuracy by shape: {shapes}.
Mean cosine between embeddings {facts["mean_cosine"]}, participation ratio {facts["participation_ratio"]} of 64.

Trained from scratch on {facts["n_training_images"]:,} renderings, each seen once, in {facts["minutes"]} minutes
({facts["threads"]} CPU threads, seed {facts["seed"]}, torch {facts["torch"]}, transformers {facts["transformers"]}):

    {facts["command"]}

Loss: caption InfoNCE + {facts["category_weight"]} x cross-entropy of the category prompts. The numbers above are
those of `evaluation.json` beside this file, written by the same command.
"""


def write_model(args: argparse.Namespace, model: CLIPModel, progress: dict) -> dict:
    """Save weights, processor, evaluation and card aside, then put the folder in place; returns the facts."""
    target = args.output_dir / "model"
    with whole_folder(target, holds="evaluation.json", what="model of this program", overwrite=True) as aside:
        return _write_model(aside, args, model, progress)


def _write_model(aside: Path, args: argparse.Namespace, model: CLIPModel, progress: dict) -> dict:
    """Fill the folder; returns the facts."""
    copy.deepcopy(model).half().save_pretrained(aside)
    processor = build_processor()  # a used tokenizer would save the padding of its last call
    processor.save_pretrained(aside)
    processor.image_processor.save_pretrained(aside)
    facts = {
        **evaluate(aside, args.test_images, args.seed),
        "n_training_images": progress["step"] * args.batch_size,
        "steps": progress["step"],
        "minutes": round(progress["seconds"] / 60, 1),
        "seed": args.seed,
        "threads": args.threads,
        "category_weight": args.category_weight,
        "command": f"python scripts/{Path(__file__).name} " + command_line(args, progress["step"]),
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
    }
    (aside / "evaluation.json").write_text(json.dumps(facts, indent=2) + "\n")
    (aside / "README.md").write_text(card(facts))
    size = sum(path.stat().st_size for path in aside.iterdir())
    if size > MAX_BYTES:
        raise ValueError(f"The model folder holds {size} bytes, more than the {MAX_BYTES} that may be shipped.")
    return facts


def command_line(args: argparse.Namespace, step: int) -> str:
    """Options that repeat this run; the output folder under its documented name."""
    given = {**vars(args), "output_dir": "runs/tiny_clip", "stop_after": step if step < args.steps else None}
    return " ".join(f"--{key.replace('_', '-')} {value}" for key, value in given.items() if value is not None)


def main(argv: Sequence[str] | None = None) -> None:
    """Train or resume, evaluate and write the model folder."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    progress = train(args, model, tokenizer)
    print(json.dumps(write_model(args, model, progress), indent=2))


if __name__ == "__main__":
    run(main)
