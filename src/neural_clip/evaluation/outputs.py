"""What an evaluation writes: `report.json` and `embeddings.npz`.

`report.json` is renamed last and holds the digests of itself and of the embeddings, so that no one takes parts of two
evaluations for one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neural_clip.errors import DataError
from neural_clip.evaluation.options import EvaluateOptions
from neural_clip.evaluation.scope import other_images
from neural_clip.files.kept import version_of
from neural_clip.files.privacy import shared_place, shared_text
from neural_clip.files.reading import read_json
from neural_clip.files.record import LOADED, sealed
from neural_clip.files.whole import sha256_of, told, whole_file
from neural_clip.gallery.embedding import Embedded, EmbeddedSplit
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.splits import SPLITS

REPORT_FILE, EMBEDDINGS_FILE = "report.json", "embeddings.npz"
WEIGHTS = "model*.safetensors"
MADE_OF_IT = ("report.md", "report.html", "pictures/*.png")  # by `neural-clip report`
TABLES = {"format_version", "decoding", "encoding", "conversion", "data"}


def header(
    checkpoints: Mapping[str, str | Path],
    embedded: Embedded,
    options: EvaluateOptions,
    unseen: Mapping[str, list[str]],
    montages: Mapping[str, dict],
    command: str,
    output_dir: Path,
) -> dict:
    """What was scored, by what, on what.

    `unseen` are the subjects of each modality whom the model does not know, `montages` the interpolated channels of
    each checkpoint by modality.
    """
    kept = ("corpus", "fingerprint", "category_level", "block_confounded", "average_repeats", "split_protocol",
            "split_unit", "image_encoder", "simulated", "subjects", "licence", "known_defects")  # fmt: skip
    splits = next(iter(embedded.values()))
    data = {
        modality: {
            "folder": shared_place(part.data.name, output_dir),
            **_repository(part.data),
            **{key: getattr(part.facts, key) for key in kept},
            "n_rows": len(part.image_ids),
            **_asked(part, options, unseen.get(modality, []), output_dir),
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
                "sha256": sha256_of(Path(path).glob(WEIGHTS)),
                "modalities": [*embedded[name]],
                **({"montage": montages[name]} if montages[name] else {}),
            }
            for name, path in checkpoints.items()
        ],
        "split": options.split,
        "seed": options.seed,
        "command": shared_text(command),
        "versions": {name: version_of(name) for name in ("neural_clip", "torch", "transformers", "datasets", "numpy")},
        "data": data,
    }


def model_digest(checkpoint: str | Path) -> str | None:
    """Digest of the files that loading reads in a folder; `None` of a name on the Hub."""
    return sha256_of({path for pattern in LOADED for path in Path(checkpoint).glob(pattern)})


def _repository(data: PreparedSet) -> dict:
    """Name and revision on the Hub of a data set that was fetched from there."""
    fetched = data.folder.parent.name == "snapshots" and not Path(data.name).is_dir()
    return {"repository": {"name": str(data.name), "revision": data.folder.name}} if fetched else {}


def _asked(part: EmbeddedSplit, options: EvaluateOptions, unseen: list[str], output_dir: Path) -> dict:
    """What differs from scoring all subjects by their own layers, among the images that were shown."""
    asked: dict = {}
    if options.subjects is not None:
        asked["scored_subjects"] = sorted(set(part.subjects.tolist()))
    if options.subject is not None:
        asked |= {"subject": options.subject, "unseen_subjects": unseen}
    if own := sorted({*(part.facts.scaling or {}).get("fitted_on_own_rows", [])} & set(part.subjects.tolist())):
        asked["scaled_by_own_rows"] = own
    if part.searched is not None:
        trained = np.isin(part.gallery_ids, other_images(part, "train"))
        asked["gallery"] = {
            **_gallery_of(str(options.gallery), output_dir), "images": len(part.gallery_ids),
            "shown": len(part.shown_ids), "trained": int(trained.sum()),
        }  # fmt: skip
    return asked


def _gallery_of(gallery: str, output_dir: Path) -> dict:
    """What is searched, by its name, and which data set it is where it is another one."""
    if gallery in ("all", *SPLITS):
        return {"name": gallery}
    facts = PreparedSet.open(gallery).facts
    return {
        "name": shared_place(gallery, output_dir), "corpus": facts.corpus, "simulated": facts.simulated,
        "fingerprint": facts.fingerprint,
    }  # fmt: skip


def write_outputs(output_dir: Path, report: dict, splits: dict[str, EmbeddedSplit]) -> None:
    """Write both files aside, then rename them; what was made of an earlier evaluation is removed.

    `report` gets the digests of the embeddings (`embeddings`) and of itself (`sha256`).
    """
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
    with told(output_dir, of_any_kind=True):
        output_dir.mkdir(parents=True, exist_ok=True)
    # the last is renamed first
    with whole_file(output_dir / REPORT_FILE) as numbers, whole_file(output_dir / EMBEDDINGS_FILE) as embeddings:
        with embeddings.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        report["embeddings"] = {"file": EMBEDDINGS_FILE, "sha256": sha256_of([embeddings])}
        report["sha256"] = sealed(report)["sha256"]
        numbers.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        for path in (path for pattern in MADE_OF_IT for path in output_dir.glob(pattern)):
            path.unlink()


def read_report(path: str | Path) -> dict:
    """Read `report.json`; one without a digest (of an earlier version) is looked at no further.

    Args:
        path (`str` or `Path`): The file, or its folder.

    Raises:
        DataError: If the file is missing, damaged or no report, or was changed since it was written.
    """
    path = Path(path)
    path = path / REPORT_FILE if path.is_dir() else path
    report = read_json(path, "report", " `neural-clip evaluate` writes it.")
    missing = TABLES - set(report) if isinstance(report, dict) else TABLES
    if missing:
        raise DataError(f"'{path}' is no report of `neural-clip evaluate`: it lacks {sorted(missing)}.")
    if report["format_version"] != FORMAT_VERSION:
        raise DataError(
            f"'{path}' has format {report['format_version']!r}, but this version reads format {FORMAT_VERSION}; "
            "run `neural-clip evaluate` again."
        )
    if "sha256" in report and report != sealed(report):
        raise DataError(
            f"'{path}' was changed since it was written, or is damaged: its digest differs. Run `neural-clip "
            "evaluate` again."
        )
    return {"controls": report.pop("audits", {})} | report  # what version 0.1 called them


def why_not_of(report: dict, path: Path) -> str:
    """Why these embeddings are not those that a report was made with; empty where they are."""
    if not path.is_file():
        return f"{path.name} is not beside the report."
    if not isinstance(report.get("embeddings"), dict):
        return f"the report does not tell which {path.name} belongs to it; run `neural-clip evaluate` again."
    if report["embeddings"].get("sha256") != sha256_of([path]):
        return f"{path.name} belongs to another evaluation, or is damaged; run `neural-clip evaluate` again."
    return ""


FORMAT_VERSION = 2  # of report.json
