"""Score a checkpoint: decoding, encoding and conversion on the test splits of prepared data sets.

```
neural-clip evaluate --checkpoint outputs/demo/checkpoint --data eeg=data/eeg meg=data/meg fmri=data/fmri \
    --output-dir outputs/demo
```

* Decoding: recording -> images. The gallery holds every test image of that corpus once.
* Encoding, as arXiv 2411.09723: image -> nearest test recording; the image *behind* that recording is compared with
  the query by their image embeddings.
* Conversion: recording of one modality -> nearest test recording of another; again the image behind it is compared
  with the image behind the query. Normalised: divided by the decoding score of the target modality.

Every score is one of `image_retrieval`; intervals resample images, p-values shuffle them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.errors import DataError, run
from neural_clip.image_encoder import check_same_encoder, configured_encoder, model_encoder
from neural_clip.protocols import PROTOCOLS, check_protocol, conversion_entries, decoding_entries
from neural_clip.recording_embeddings import (
    IMAGE_MEAN,
    SINGLE_TRIAL,
    SUBJECT_MEAN,
    EmbeddedSplit,
    aggregate,
    embed_split,
)
from neural_clip.scoring import score_record
from neural_clip.whole_files import write_whole

if TYPE_CHECKING:
    import pandas as pd

    from neural_clip.audits import AuditData
    from neural_clip.baselines import BaselineSplit
    from neural_clip.modeling_neural_clip import NeuralClipModel

MODALITIES = ("eeg", "meg", "fmri")
REPORT_FILE, EMBEDDINGS_FILE = "report.json", "embeddings.npz"
FORMAT_VERSION = 1
MODEL_ROW = "neural_clip"
PICTURE_HITS = 5  # images shown beside a query, as in the paper's figures
NEAREST_KEPT = 50  # recordings looked through for five different images: several show the same one


def decoding_rows(data: EmbeddedSplit, embeds: np.ndarray, method: str, seed: int) -> list[dict]:
    """Scores of one method at each level of aggregation that differs from the one before."""
    classes = data.gallery_concepts if all(data.gallery_concepts) else None
    rows: list[dict] = []
    for level in (SINGLE_TRIAL,) if data.category_level else (SINGLE_TRIAL, IMAGE_MEAN, SUBJECT_MEAN):
        queries, people, image_ids = aggregate(embeds, data.subjects, data.image_ids, level)
        if rows and len(queries) == rows[-1]["n_queries"]:
            continue  # every image was shown once to each subject (or there is one subject): the same numbers
        record, per_query = score_record(
            queries, data.gallery_embeds, image_ids, data.gallery_ids,
            seed=seed, classes=classes, by_recording=data.category_level, groups=people,
        )  # fmt: skip
        record["subjects"] = {
            str(person): {
                "n_queries": int((people == person).sum()),
                **{name: float(per_query[name][people == person].mean()) for name in ("two_way", "top1", "top5")},
            }
            for person in np.unique(people)
        }
        rows.append({"method": method, "aggregation": level, **record})
    return rows


def encoding_record(data: EmbeddedSplit, seed: int) -> dict:
    """Image -> nearest recording -> image behind it, scored against the query image (arXiv 2411.09723)."""
    from neural_clip.image_retrieval import nearest_rows

    nearest = data.columns[nearest_rows(data.gallery_embeds, data.embeds)[:, 0]]  # (n_images,), columns of the gallery
    record = _behind(data.gallery_embeds[nearest], data.gallery_ids, data, seed, by_recording=False, groups=None)
    hits = nearest == np.arange(len(nearest))
    shares = np.bincount(data.columns, minlength=len(nearest)) / len(data.columns)
    return {
        **record,
        "top1": float(hits.mean()),
        "chance_top1": float(shares.mean()),
        "n_recordings": len(data.columns),
        "category_level": data.category_level,
    }


def conversion_record(source: EmbeddedSplit, target: EmbeddedSplit, denominator: float, split: str, seed: int) -> dict:
    """Recording of one modality -> nearest recording of another -> image behind it, against the query's image.

    Args:
        source, target (`EmbeddedSplit`): Queries and gallery.
        denominator (`float`): Single-trial decoding 2-way score of the target modality.
        split (`str`): Split of all of them.
        seed (`int`): Seed of resampling and shuffling.
    """
    from neural_clip.image_retrieval import nearest_rows

    nearest = target.columns[nearest_rows(source.embeds, target.embeds)[:, 0]]  # (n_source,)
    coarse = source.category_level or target.category_level
    found = target.gallery_embeds[nearest]
    record = _behind(found, source.image_ids, source, seed, by_recording=source.category_level, groups=source.subjects)
    interval = record["two_way_interval"]
    return {
        "source": source.modality,
        "target": target.modality,
        **record,
        "normalised": record["two_way"] / denominator,
        "normalised_interval": interval and [end / denominator for end in interval],
        "numerator": f"conversion 2-way, {source.modality} queries to {target.modality} recordings, {split} splits",
        "denominator": f"decoding 2-way of {target.modality} by {MODEL_ROW}, {SINGLE_TRIAL}, {split} split",
        "denominator_two_way": denominator,
        "n_recordings": len(target.columns),
        "category_level": coarse,
    }


def _behind(
    found: np.ndarray,
    image_ids: np.ndarray,
    queries: EmbeddedSplit,
    seed: int,
    *,
    by_recording: bool,
    groups: np.ndarray | None,
) -> dict:
    """2-way scores of the images behind retrieved recordings; top-k of that detour has no meaning of its own."""
    record, _ = score_record(
        found,
        queries.gallery_embeds,
        image_ids,
        queries.gallery_ids,
        seed=seed,
        by_recording=by_recording,
        groups=groups,
    )
    kept = ("two_way", "n_queries", "gallery_size", "n_unique_images", "resampled_unit", "chance_two_way")
    return {name: value for name, value in record.items() if name.startswith(kept)}


def baseline_rows(data: EmbeddedSplit, splits: Sequence[BaselineSplit], seed: int) -> list[dict]:
    """Ridge baselines on the same recordings and gallery; one that cannot be computed says why."""
    from threadpoolctl import threadpool_limits

    from neural_clip.baselines import per_subject_ridge, pooled_whitened_ridge

    rows: list[dict] = []
    for name, fit in (("per-subject ridge", per_subject_ridge), ("pooled whitened ridge", pooled_whitened_ridge)):
        started = time.monotonic()
        try:
            # one thread: where cores are shared, the threads of a small decomposition wait for one another far longer
            # than they work, and the sums do not depend on the machine
            with threadpool_limits(limits=1, user_api="blas"):
                predictions, chosen = fit(*splits)
        except DataError as error:
            rows.append({"method": name, "aggregation": SINGLE_TRIAL, "not_computed": str(error)})
            continue
        rows += [{**row, "fit": chosen} for row in decoding_rows(data, predictions, name, seed)]
        print(f"{data.modality}: {name} in {time.monotonic() - started:.1f} s", file=sys.stderr)
    return rows


def _audit_data(data: EmbeddedSplit, splits: Sequence[BaselineSplit], split: str) -> AuditData:
    """What the controls look at: raw recordings, and when they were shown where that is known."""
    from neural_clip.audits import AuditData
    from neural_clip.data import load_recordings

    times = None
    if data.metadata.get("presentation_order"):
        columns = ["subject", "session", "run", "trial"]
        tables = {
            name: load_recordings(data.folder, source).select_columns(columns).to_pandas()
            for name, source in (("train", "train"), ("test", split))
        }
        times = {name: (_stretches(table, tables), table["trial"].to_numpy()) for name, table in tables.items()}
    train, validation, scored = splits
    return AuditData(data, train, validation, scored, times)


def _stretches(table: pd.DataFrame, tables: dict[str, pd.DataFrame]) -> np.ndarray:
    """Names of what trials are numbered within: sessions, or runs where numbers begin anew with each."""
    keys = ["subject", "session"]
    if any(other.duplicated([*keys, "trial"]).any() for other in tables.values()):
        keys.append("run")
    return table[keys].agg("/".join, axis=1).to_numpy()


def _baseline_split(data: EmbeddedSplit, split: str) -> BaselineSplit:
    """Recordings of one split with the embeddings of their images."""
    from neural_clip.baselines import BaselineSplit
    from neural_clip.data import load_image_table, load_recordings, recording_array

    recordings, images = load_recordings(data.folder, split), load_image_table(data.folder)
    image_ids = np.array(recordings["image_id"][:])
    targets = images.embeds[images.rows_of(image_ids.tolist())]
    return BaselineSplit(
        recording_array(recordings, data.modality), np.array(recordings["subject"][:]), image_ids, targets
    )


def evaluate_checkpoint(
    checkpoint: str | Path,
    data: Sequence[str | Path],
    output_dir: str | Path,
    *,
    split: str = "test",
    baselines: bool = True,
    audits: bool = True,
    understand: int | None = None,
    protocol: str = "strict",
    seed: int = 0,
    batch_size: int = 64,
    device: str = "cpu",
    command: str = "",
) -> dict:
    """Score a checkpoint and write `report.json` and `embeddings.npz`.

    Args:
        checkpoint (`str` or `Path`): Folder or Hub name of a [`NeuralClipModel`].
        data (`Sequence[str]`): Prepared data sets, at most one a modality.
        output_dir (`str` or `Path`): Made if missing; files of earlier evaluations are replaced.
        split (`str`, defaults to `"test"`): Split that is scored.
        baselines (`bool`, defaults to `True`): Also fit ridge regressions.
        audits (`bool`, defaults to `True`): Also run the controls of `audits.py`.
        understand (`int`, *optional*): Also write `<output_dir>/understanding` (see [`understand`]), with maps over so
            many recordings; needs captum.
        protocol (`str`, defaults to `"strict"`): Key of `protocols.PROTOCOLS`: which scores the report puts first.
        seed (`int`, defaults to 0): Seed of intervals, p-values and sampled scores; nothing else is random.
        batch_size (`int`, defaults to 64): Recordings a forward pass.
        device (`str`, defaults to `"cpu"`): Where the model computes.
        command (`str`): Command line for the record.

    Returns:
        `dict`: What `report.json` holds.

    Raises:
        DataError: If the checkpoint cannot be read, a data set does not fit it, a modality is given twice, or image
            encoders differ, among the data sets or from the one that the checkpoint was trained on.
    """
    from neural_clip.audits import audit
    from neural_clip.reporting import PAPER
    from neural_clip.understanding import require_captum
    from neural_clip.understanding import understand as analyse

    if understand is not None:
        require_captum()  # before an hour is spent
    _check_data(data)
    check_protocol(protocol, [str(folder) for folder in data])
    model = _load_model(checkpoint)
    _check_encoder(model, checkpoint, data)
    splits = {}
    for folder in data:
        part = embed_split(model, str(folder), split, batch_size=batch_size, device=device)
        splits[part.modality] = part
    splits = {modality: splits[modality] for modality in MODALITIES if modality in splits}
    report = _header(checkpoint, splits, split, seed, command)
    report |= {"decoding": {}, "encoding": {}, "conversion": [], "audits": {}}
    report["protocol"] = {"name": protocol, "meaning": PROTOCOLS[protocol].meaning, "decoding": {}, "conversion": {}}
    for modality, part in splits.items():
        rows = decoding_rows(part, part.embeds, MODEL_ROW, seed)
        names = ("train", "validation", split) if baselines or audits else ()
        recordings = [_baseline_split(part, name) for name in names]
        rows += baseline_rows(part, recordings, seed) if baselines else []
        ceiling = (part.metadata.get("simulated") or {}).get("ceiling")
        report["decoding"][modality] = {"rows": rows, "ceiling": ceiling, "paper": PAPER["decoding"][modality]}
        report["protocol"]["decoding"][modality] = decoding_entries(protocol, part, rows[0])
        report["encoding"][modality] = {**encoding_record(part, seed), "paper": PAPER["encoding"][modality]}
        if audits:
            report["audits"][modality] = audit(_audit_data(part, recordings, split), seed)
    for source in splits.values():
        for target in splits.values():
            if source is not target:
                denominator = report["decoding"][target.modality]["rows"][0]["two_way"]
                record = conversion_record(source, target, denominator, split, seed)
                record["paper"] = PAPER["conversion"][f"{source.modality}->{target.modality}"]
                report["conversion"].append(record)
                single = report["decoding"][target.modality]["rows"][0]["two_way_permutation"]
                entries = conversion_entries(protocol, record, single)
                report["protocol"]["conversion"][f"{source.modality}->{target.modality}"] = entries
    if understand is not None:
        report["understanding"] = analyse(
            model, splits, Path(output_dir) / "understanding",
            split=split, seed=seed, device=device, max_recordings=understand,
        )  # fmt: skip
    _write_outputs(Path(output_dir), report, splits)
    return report


def _check_data(data: Sequence[str | Path]) -> None:
    """Raise where a modality is given twice or the image encoders differ."""
    from neural_clip.data import load_metadata

    found: dict[str, str] = {}
    encoders: dict[str, object] = {}
    for folder in data:
        metadata = load_metadata(folder)
        if metadata["modality"] in found:
            raise DataError(
                f"'{found[metadata['modality']]}' and '{folder}' both hold {metadata['modality']}; give one."
            )
        found[metadata["modality"]] = str(folder)
        encoders[str(folder)] = metadata.get("image_encoder")
    (first, encoder), *others = encoders.items()
    for folder, other in others:
        if other != encoder:
            raise DataError(
                f"The images of '{first}' and '{folder}' were embedded by different encoders, {encoder} and {other}; "
                f"their spaces cannot be compared."
            )


def _check_encoder(model: NeuralClipModel, checkpoint: str | Path, data: Sequence[str | Path]) -> None:
    """Raise where images were embedded by another encoder than the one whose space the model was trained on."""
    from neural_clip.data import load_metadata

    expected = model_encoder(model.config)
    if expected is None:  # a model that was not made from data sets names none
        return
    for folder in data:
        if encoder := load_metadata(folder)["image_encoder"]:
            check_same_encoder(expected, f"The checkpoint '{checkpoint}'", configured_encoder(encoder), f"'{folder}'")


def _load_model(checkpoint: str | Path) -> NeuralClipModel:
    """Model in evaluation mode."""
    from neural_clip.modeling_neural_clip import NeuralClipModel

    try:
        return NeuralClipModel.from_pretrained(str(checkpoint)).eval()
    except (OSError, ValueError) as error:
        raise DataError(f"'{checkpoint}' is no readable checkpoint of a NeuralClipModel: {error}") from error


def _header(checkpoint: str | Path, splits: dict[str, EmbeddedSplit], split: str, seed: int, command: str) -> dict:
    """What was scored, by what, on what."""
    kept = ("corpus", "fingerprint", "category_level", "block_confounded", "average_repeats", "split_protocol",
            "split_unit", "image_encoder", "simulated", "subjects", "licence", "known_defects")  # fmt: skip
    data = {
        modality: {
            "folder": part.folder,
            **{key: part.metadata.get(key) for key in kept},
            "n_rows": len(part.image_ids),
        }
        for modality, part in splits.items()
    }
    return {
        "format_version": FORMAT_VERSION,
        "simulated": any(part.metadata.get("simulated") for part in splits.values()),
        "simulated_modalities": [name for name, part in splits.items() if part.metadata.get("simulated")],
        "category_level": any(part.category_level for part in splits.values()),
        "checkpoint": {"path": str(checkpoint), "sha256": _weights_sha256(Path(checkpoint))},
        "split": split,
        "seed": seed,
        "command": command,
        "versions": {name: _version(name) for name in ("neural_clip", "torch", "transformers", "datasets", "numpy")},
        "data": data,
    }


def _version(package: str) -> str | None:
    """Installed version, or nothing where the package is only on the path."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _weights_sha256(checkpoint: Path) -> str | None:
    """SHA-256 over the safetensors files of a local checkpoint, in order of their names."""
    files = sorted(checkpoint.glob("*.safetensors")) if checkpoint.is_dir() else []
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(2**20), b""):
                digest.update(chunk)
    return digest.hexdigest() if files else None


def picture_hits(splits: dict[str, EmbeddedSplit]) -> dict[str, np.ndarray]:
    """First five hits and the 2-way score of every query, for the panels of retrieved images.

    Returns:
        `dict`: For each modality `<m>_decoding_hits` (positions in the gallery), `<m>_encoding_hits` and, for pairs,
        `<source>_to_<target>_hits`: rows of the nearest recordings, the first of each image, -1 where there are no
        five; and `..._scores` for each.
    """
    from neural_clip.image_retrieval import nearest_rows, score_queries

    arrays = {}
    for name, part in splits.items():
        tasks = {
            f"{name}_decoding": (part.embeds, part.image_ids, part.gallery_embeds, np.arange(len(part.gallery_ids)))
        }
        tasks[f"{name}_encoding"] = (part.gallery_embeds, part.gallery_ids, part.embeds, part.columns)
        for other, target in splits.items():
            if other != name:
                tasks[f"{name}_to_{other}"] = (part.embeds, part.image_ids, target.embeds, target.columns)
        for task, (queries, image_ids, searched, columns) in tasks.items():
            rows = nearest_rows(queries, searched, NEAREST_KEPT)
            arrays[f"{task}_hits"] = _distinct(rows, columns)
            pool = splits[task.rsplit("_to_", 1)[1]] if "_to_" in task else part
            found = queries if searched is part.gallery_embeds else pool.gallery_embeds[columns[rows[:, 0]]]
            scores = score_queries(found, part.gallery_embeds, list(image_ids), list(part.gallery_ids))
            arrays[f"{task}_scores"] = scores["two_way"]
    return arrays


def _distinct(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Of each query's recordings the first of every image, `(n_queries, 5)`, filled with -1."""
    distinct = np.full((len(rows), PICTURE_HITS), -1)
    for query, nearest in enumerate(rows):
        _, first = np.unique(columns[nearest], return_index=True)
        kept = nearest[np.sort(first)][:PICTURE_HITS]
        distinct[query, : len(kept)] = kept
    return distinct


def _write_outputs(output_dir: Path, report: dict, splits: dict[str, EmbeddedSplit]) -> None:
    """Write both files aside, then rename."""
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
    partial = output_dir / f"{EMBEDDINGS_FILE}.partial"
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    os.replace(partial, output_dir / EMBEDDINGS_FILE)
    write_whole(output_dir / REPORT_FILE, json.dumps(report, indent=2, allow_nan=False) + "\n")


def _parser() -> argparse.ArgumentParser:
    """Arguments of `neural-clip evaluate`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="folder or Hub name of a NeuralClipModel")
    parser.add_argument("--data", nargs="+", required=True, metavar="MODALITY=FOLDER", help="prepared data sets")
    parser.add_argument("--output-dir", required=True, help="folder for report.json, report.md and pictures")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default="strict", help="which scores the report puts first (default: strict)"
    )
    parser.add_argument("--no-baselines", action="store_true", help="leave ridge regression out")
    parser.add_argument("--no-audits", action="store_true", help="leave the controls beside the scores out")
    parser.add_argument(
        "--understand", nargs="?", type=int, const=64, metavar="N",
        help="also show what was learned: similarity, time, sensor and voxel maps over N recordings (default: 64)",
    )  # fmt: skip
    parser.add_argument("--no-pictures", action="store_true", help="leave the panels of retrieved images out")
    parser.add_argument("--seed", type=int, default=0, help="of intervals and p-values (default: 0)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    return parser


def _data_folders(arguments: Sequence[str]) -> list[str]:
    """Folders of `MODALITY=FOLDER` arguments, each holding what it is said to hold."""
    from neural_clip.data import load_metadata

    folders = []
    for argument in arguments:
        modality, separator, folder = argument.partition("=")
        if not separator or modality not in MODALITIES:
            raise DataError(
                f"Invalid value for the '--data' parameter. Allowed are eeg=FOLDER, meg=FOLDER and fmri=FOLDER, "
                f"but got '{argument}' instead."
            )
        found = load_metadata(folder)["modality"]
        if found != modality:
            raise DataError(f"'{argument}' says {modality}, but the data set holds {found} recordings.")
        folders.append(folder)
    return folders


def main(argv: Sequence[str] | None = None) -> dict:
    """Run `neural-clip evaluate`; returns the report."""
    from neural_clip.reporting import print_tables, write_report

    arguments = _parser().parse_args(argv)
    shown = " ".join(["neural-clip evaluate", *(sys.argv[1:] if argv is None else argv)])
    report = evaluate_checkpoint(
        arguments.checkpoint,
        _data_folders(arguments.data),
        arguments.output_dir,
        split=arguments.split,
        baselines=not arguments.no_baselines,
        audits=not arguments.no_audits,
        understand=arguments.understand,
        protocol=arguments.protocol,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        device=arguments.device,
        command=shown,
    )
    path = write_report(Path(arguments.output_dir) / REPORT_FILE, pictures=not arguments.no_pictures)
    print_tables(report, path.parent)
    return report


if __name__ == "__main__":
    run(main)
