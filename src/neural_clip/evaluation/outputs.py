"""What an evaluation writes: `report.json` and `embeddings.npz`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from neural_clip.evaluation.embedding import Embedded, EmbeddedSplit
from neural_clip.evaluation.options import EvaluateOptions
from neural_clip.files.privacy import shared_place, shared_text
from neural_clip.files.whole import sha256_of, whole_file, write_whole

REPORT_FILE, EMBEDDINGS_FILE = "report.json", "embeddings.npz"


def header(
    checkpoints: Mapping[str, str | Path],
    embedded: Embedded,
    options: EvaluateOptions,
    unseen: Mapping[str, list[str]],
    command: str,
    output_dir: Path,
) -> dict:
    """What was scored, by what, on what; `unseen` are the subjects of each modality whom the model does not know."""
    kept = ("corpus", "fingerprint", "category_level", "block_confounded", "average_repeats", "split_protocol",
            "split_unit", "image_encoder", "simulated", "subjects", "licence", "known_defects")  # fmt: skip
    splits = next(iter(embedded.values()))
    data = {
        modality: {
            "folder": shared_place(part.data.name, output_dir),
            **{key: getattr(part.facts, key) for key in kept},
            "n_rows": len(part.image_ids),
            **_asked(part, options, unseen.get(modality, [])),
        }
        for modality, part in splits.items()
    }
    return {
        "format_version": FORMAT_VERSION,
        "simulated": any(part.facts.simulated for part in splits.values()),
        "simulated_modalities": [name for name, part in splits.items() if part.facts.simulated],
        "category_level": any(part.category_level for part in splits.values()),
        "checkpoints": [
            {
                "name": name,
                "path": shared_place(path, output_dir),
                "sha256": sha256_of(Path(path).glob("model*.safetensors")),
                "modalities": [*embedded[name]],
            }
            for name, path in checkpoints.items()
        ],
        "split": options.split,
        "seed": options.seed,
        "command": shared_text(command),
        "versions": {name: _version(name) for name in ("neural_clip", "torch", "transformers", "datasets", "numpy")},
        "data": data,
    }


def _asked(part: EmbeddedSplit, options: EvaluateOptions, unseen: list[str]) -> dict:
    """What differs from scoring all subjects by their own layers, among the images that were shown."""
    asked: dict = {}
    if options.subjects is not None:
        asked["scored_subjects"] = sorted(set(part.subjects.tolist()))
    if options.subject is not None:
        asked |= {"subject": options.subject, "unseen_subjects": unseen}
    if own := sorted({*(part.facts.scaling or {}).get("fitted_on_own_rows", [])} & set(part.subjects.tolist())):
        asked["scaled_by_own_rows"] = own
    if part.searched is not None:
        asked["gallery"] = {"name": options.gallery, "images": len(part.gallery_ids), "shown": len(part.shown_ids)}
    return asked


def _version(package: str) -> str | None:
    """Installed version, or nothing where the package is only on the path."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_outputs(output_dir: Path, report: dict, splits: dict[str, EmbeddedSplit]) -> None:
    """Write both files aside, then rename."""
    from neural_clip.evaluation.tasks import picture_hits

    arrays = picture_hits(splits)
    for name, part in splits.items():
        arrays |= {
            f"{name}_embeds": part.embeds,
            f"{name}_subjects": part.subjects,
            f"{name}_image_ids": part.image_ids,
            f"{name}_gallery_ids": part.gallery_ids,
            f"{name}_gallery_embeds": part.gallery_embeds,
            f"{name}_gallery_concepts": np.array(part.gallery_concepts, dtype=str),
            f"{name}_gallery_categories": np.array([json.dumps(c) for c in part.gallery_categories], dtype=str),
        }
    output_dir.mkdir(parents=True, exist_ok=True)
    with whole_file(output_dir / EMBEDDINGS_FILE) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    write_whole(output_dir / REPORT_FILE, json.dumps(report, indent=2, allow_nan=False) + "\n")


FORMAT_VERSION = 2  # of report.json
