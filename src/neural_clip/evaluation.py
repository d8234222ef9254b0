"""Score checkpoints: decoding, encoding and conversion on the test splits of prepared data sets.

```
neural-clip evaluate --checkpoint outputs/demo/checkpoint --data eeg=data/eeg meg=data/meg fmri=data/fmri \
    --output-dir outputs/demo
neural-clip evaluate --checkpoint outputs/new old=outputs/earlier --data meg=data/meg --output-dir outputs/compared
```

With several checkpoints the first is the one that the report is about: it must have an encoder for every data set, the
controls and pictures are its own, and the others are compared with it, query by query. What the three tasks are stands
in `retrieval_tasks`; intervals resample images, p-values shuffle them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.errors import DataError, run
from neural_clip.image_encoder import check_same_encoder, configured_encoder, model_encoder
from neural_clip.protocols import PROTOCOLS, check_protocol, conversion_entries, decoding_entries
from neural_clip.recording_embeddings import SINGLE_TRIAL, EmbeddedSplit, embed_split
from neural_clip.scoring import compare_methods
from neural_clip.whole_files import sha256_of, write_whole

if TYPE_CHECKING:
    from neural_clip.baselines import BaselineSplit
    from neural_clip.modeling_neural_clip import NeuralClipModel
    from neural_clip.retrieval_tasks import Contributions

MODALITIES = ("eeg", "meg", "fmri")
REPORT_FILE, EMBEDDINGS_FILE = "report.json", "embeddings.npz"
FIRST_NAME = "neural_clip"  # of the first checkpoint, unless it is given another
COMPARED = ("two_way", "top1")  # decoding scores whose differences are reported
Embedded = dict[str, dict[str, EmbeddedSplit]]  # checkpoint -> modality -> recordings in its space


def evaluate_checkpoints(
    checkpoints: Mapping[str, str | Path],
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
    """Score checkpoints and write `report.json` and `embeddings.npz` (the latter of the first checkpoint).

    Args:
        checkpoints (`Mapping[str, str or Path]`): Names in the report, and folders or Hub names of
            [`NeuralClipModel`]s. The first must have an encoder for every data set, others for one or more.
        data (`Sequence[str]`): Prepared data sets, at most one a modality.
        output_dir (`str` or `Path`): Made if missing; files of earlier evaluations are replaced.
        split (`str`, defaults to `"test"`): Split that is scored.
        baselines (`bool`, defaults to `True`): Also fit linear baselines.
        audits (`bool`, defaults to `True`): Also run the controls of `audits.py` for the first checkpoint.
        understand (`int`, *optional*): Also write `<output_dir>/understanding` of the first checkpoint (see
            [`understand`]), with maps over so many recordings; needs captum.
        protocol (`str`, defaults to `"strict"`): Key of `protocols.PROTOCOLS`: which scores the report puts first.
        seed (`int`, defaults to 0): Seed of intervals, p-values and sampled scores; nothing else is random.
        batch_size (`int`, defaults to 64): Recordings a forward pass.
        device (`str`, defaults to `"cpu"`): Where the model computes.
        command (`str`): Command line for the record.

    Returns:
        `dict`: What `report.json` holds.

    Raises:
        DataError: If there is no checkpoint, one cannot be read or has the name of a baseline, a data set does not fit
            it, a modality is given twice, or image encoders differ, among the data sets or from the one that a
            checkpoint was trained on.
    """
    from neural_clip.audits import AuditData, audit, presentation_times
    from neural_clip.baselines import read_split
    from neural_clip.understanding import require_captum
    from neural_clip.understanding import understand as analyse

    if understand is not None:
        require_captum()  # before an hour is spent
    _check_names(checkpoints)
    modalities = _check_data(data)
    check_protocol(protocol, [str(folder) for folder in data])
    models = {
        name: _fitting_model(path, modalities, first=not n) for n, (name, path) in enumerate(checkpoints.items())
    }
    embedded: Embedded = {}
    for name, model in models.items():
        covered = [m for m in modalities if getattr(model.config, f"{m}_config", None) is not None]
        embedded[name] = {
            m: embed_split(model, modalities[m], split, batch_size=batch_size, device=device) for m in covered
        }
    first, splits = next(iter(embedded.items()))
    report = _header(checkpoints, embedded, split, seed, command)
    report["protocol"] = {"name": protocol, "meaning": PROTOCOLS[protocol].meaning, "decoding": {}, "conversion": {}}
    for modality, part in splits.items():
        names = ("train", "validation", split) if baselines or audits else ()
        recordings = [read_split(part.folder, name) for name in names]
        _add_decoding(report, modality, embedded, recordings if baselines else [], seed)
        _add_encoding(report, modality, embedded, seed)
        if audits:
            train, validation, scored = recordings
            looked_at = AuditData(part, train, validation, scored, presentation_times(part, split))
            report["audits"][modality] = audit(looked_at, seed)
    for source in splits:
        for target in splits:
            if source != target:
                _add_conversion(report, source, target, embedded, seed)
    if understand is not None:
        report["understanding"] = analyse(
            models[first], splits, Path(output_dir) / "understanding",
            split=split, seed=seed, device=device, max_recordings=understand,
        )  # fmt: skip
    _write_outputs(Path(output_dir), report, splits)
    return report


def _add_decoding(
    report: dict, modality: str, embedded: Embedded, recordings: Sequence[BaselineSplit], seed: int
) -> None:
    """Rows of every checkpoint and baseline, what the protocol makes of them, and their differences."""
    from neural_clip.paper_figures import PAPER
    from neural_clip.retrieval_tasks import decoding_rows

    metadata = next(iter(embedded.values()))[modality].metadata
    if metadata["tmin"] is not None:  # sensors
        recordings = [part.from_onset(metadata["tmin"], metadata["sfreq"]) for part in recordings]
    rows: list[dict] = []
    contributions: dict[str, Contributions] = {}
    entries: list[dict] = []
    for name, splits in _with(modality, embedded):
        part = splits[modality]
        scored, contributions[name] = decoding_rows(part, part.embeds, name, seed)
        rows += scored
        entries += [
            {"method": name, **entry} for entry in decoding_entries(report["protocol"]["name"], part, scored[0])
        ]
    part = next(iter(embedded.values()))[modality]
    if recordings:
        scored, theirs = baseline_rows(part, recordings, seed)
        rows += scored
        contributions |= theirs
    ceiling = (part.metadata.get("simulated") or {}).get("ceiling")
    report["decoding"][modality] = {"rows": rows, "ceiling": ceiling, "paper": PAPER["decoding"][modality]}
    report["protocol"]["decoding"][modality] = entries
    _add_comparisons(report, "decoding", [modality], contributions, _units(part), COMPARED, seed)


def _add_encoding(report: dict, modality: str, embedded: Embedded, seed: int) -> None:
    """Encoding by every checkpoint, and their differences."""
    from neural_clip.paper_figures import PAPER
    from neural_clip.retrieval_tasks import encoding_record

    rows, contributions = [], {}
    for name, splits in _with(modality, embedded):
        record, contributions[name] = encoding_record(splits[modality], seed)
        rows.append({"method": name, **record})
    report["encoding"][modality] = {"rows": rows, "paper": PAPER["encoding"][modality]}
    images = next(iter(embedded.values()))[modality].gallery_ids.tolist()
    _add_comparisons(report, "encoding", [modality], contributions, images, ("two_way",), seed)


def _add_conversion(report: dict, source: str, target: str, embedded: Embedded, seed: int) -> None:
    """Conversion of one pair by every checkpoint that has both, and their differences."""
    from neural_clip.paper_figures import PAPER
    from neural_clip.retrieval_tasks import conversion_record

    pair = f"{source}->{target}"
    contributions, entries = {}, []
    for name, splits in _with(target, dict(_with(source, embedded))):
        decoded = _single_trials(report, target, name)
        record, contributions[name] = conversion_record(
            splits[source], splits[target], decoded["two_way"], seed, method=name, split=report["split"]
        )
        report["conversion"].append({"method": name, **record, "paper": PAPER["conversion"][pair]})
        found = conversion_entries(report["protocol"]["name"], record, decoded["two_way_permutation"])
        entries += [{"method": name, **entry} for entry in found]
    report["protocol"]["conversion"][pair] = entries
    queries = next(iter(embedded.values()))[source]
    _add_comparisons(report, "conversion", [source, target], contributions, _units(queries), ("two_way",), seed)


def _add_comparisons(
    report: dict, task: str, modalities: list[str], contributions: dict[str, Contributions],
    units: Sequence, names: Sequence[str], seed: int,
) -> None:  # fmt: skip
    """Differences of the first checkpoint to all other methods."""
    found = compare_methods(contributions, units, names, seed)
    report["comparisons"] += [{"task": task, "modalities": modalities, **record} for record in found]


def _units(queries: EmbeddedSplit) -> Sequence:
    """What is resampled of recordings as queries: images, or recordings at category level."""
    return range(len(queries.image_ids)) if queries.category_level else queries.image_ids.tolist()


def _with(modality: str, embedded: Embedded) -> list[tuple[str, dict[str, EmbeddedSplit]]]:
    """Checkpoints that have this modality."""
    return [(name, splits) for name, splits in embedded.items() if modality in splits]


def _single_trials(report: dict, modality: str, method: str) -> dict:
    """Decoding scores of single trials by one method."""
    return next(row for row in report["decoding"][modality]["rows"] if row["method"] == method)


def _check_names(checkpoints: Mapping[str, str | Path]) -> None:
    """Raise where there is no checkpoint, or one has the name of a baseline."""
    from neural_clip.baselines import BASELINES

    if not checkpoints:
        raise DataError("Invalid value for the 'checkpoints' parameter. Allowed is one or more, but got none.")
    for name, path in checkpoints.items():
        if name in dict(BASELINES):
            raise DataError(f"'{path}' is called '{name}', which is the name of a baseline; name it otherwise.")


def _check_data(data: Sequence[str | Path]) -> dict[str, str]:
    """Folders by modality; raise where a modality is given twice or the image encoders differ."""
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
    return {modality: found[modality] for modality in MODALITIES if modality in found}


def _fitting_model(checkpoint: str | Path, folders: dict[str, str], *, first: bool) -> NeuralClipModel:
    """A checkpoint's model, which has an encoder for all data sets (the first) or one at least, in the same space."""
    from neural_clip.data import load_metadata

    model = _load_model(checkpoint)
    absent = [modality for modality in folders if getattr(model.config, f"{modality}_config", None) is None]
    if absent and (first or len(absent) == len(folders)):
        raise DataError(
            f"'{folders[absent[0]]}' holds {absent[0]} recordings, but the model '{checkpoint}' has no {absent[0]} "
            "encoder" + ("." if len(folders) == 1 else ", and the first checkpoint needs one for every data set.")
        )
    expected = model_encoder(model.config)
    if expected is not None:  # a model that was not made from data sets names none
        for modality, folder in folders.items():
            if modality not in absent and (encoder := load_metadata(folder)["image_encoder"]):
                name = f"The checkpoint '{checkpoint}'"
                check_same_encoder(expected, name, configured_encoder(encoder), f"'{folder}'")
    return model


def baseline_rows(
    data: EmbeddedSplit, splits: Sequence[BaselineSplit], seed: int
) -> tuple[list[dict], dict[str, Contributions]]:
    """Scores of the linear baselines on the same recordings and gallery, and the contributions of single trials.

    One that cannot be computed says why.
    """
    from neural_clip.baselines import BASELINES
    from neural_clip.retrieval_tasks import decoding_rows

    rows: list[dict] = []
    contributions: dict[str, Contributions] = {}
    for name, fit in BASELINES:
        started = time.monotonic()
        try:
            predictions, chosen = fit(*splits)
        except DataError as error:
            rows.append({"method": name, "aggregation": SINGLE_TRIAL, "not_computed": str(error)})
            continue
        scored, contributions[name] = decoding_rows(data, predictions, name, seed)
        rows += [{**row, "fit": chosen} for row in scored]
        print(f"{data.modality}: {name} in {time.monotonic() - started:.1f} s", file=sys.stderr)
    return rows, contributions


def _load_model(checkpoint: str | Path) -> NeuralClipModel:
    """Model in evaluation mode."""
    from neural_clip.modeling_neural_clip import NeuralClipModel

    try:
        return NeuralClipModel.from_pretrained(str(checkpoint)).eval()
    except (ImportError, OSError, ValueError) as error:
        raise DataError(f"'{checkpoint}' is no readable checkpoint of a NeuralClipModel: {error}") from error


def _header(checkpoints: Mapping[str, str | Path], embedded: Embedded, split: str, seed: int, command: str) -> dict:
    """What was scored, by what, on what; the scores are still to come."""
    from neural_clip.reporting import FORMAT_VERSION

    kept = ("corpus", "fingerprint", "category_level", "block_confounded", "average_repeats", "split_protocol",
            "split_unit", "image_encoder", "simulated", "subjects", "licence", "known_defects")  # fmt: skip
    splits = next(iter(embedded.values()))
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
        "checkpoints": [
            {
                "name": name,
                "path": str(path),
                "sha256": sha256_of(Path(path).glob("*.safetensors")),
                "modalities": [*embedded[name]],
            }
            for name, path in checkpoints.items()
        ],
        "split": split,
        "seed": seed,
        "command": command,
        "versions": {name: _version(name) for name in ("neural_clip", "torch", "transformers", "datasets", "numpy")},
        "data": data,
        "decoding": {},
        "encoding": {},
        "conversion": [],
        "comparisons": [],
        "audits": {},
    }


def _version(package: str) -> str | None:
    """Installed version, or nothing where the package is only on the path."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _write_outputs(output_dir: Path, report: dict, splits: dict[str, EmbeddedSplit]) -> None:
    """Write both files aside, then rename."""
    from neural_clip.retrieval_tasks import picture_hits

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
    parser.add_argument(
        "--checkpoint", nargs="+", required=True, metavar="[NAME=]PATH",
        help="folders or Hub names of NeuralClipModels, with names for the tables; others are compared with the first",
    )  # fmt: skip
    parser.add_argument("--data", nargs="+", required=True, metavar="MODALITY=FOLDER", help="prepared data sets")
    parser.add_argument("--output-dir", required=True, help="folder for report.json, report.md and pictures")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default="strict", help="which scores the report puts first (default: strict)"
    )
    parser.add_argument("--no-baselines", action="store_true", help="leave the linear baselines out")
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


def named_checkpoints(arguments: Sequence[str]) -> dict[str, str]:
    """Names and places of `[NAME=]PATH` arguments.

    Without a name, the first is called `neural_clip` and others as their folder.

    Raises:
        DataError: If two have one name, or a name or place is empty.
    """
    found: dict[str, str] = {}
    for number, argument in enumerate(arguments):
        name, separator, path = argument.partition("=")
        if not separator or "/" in name:  # a path that has an equals sign in it
            name, path = FIRST_NAME if number == 0 else Path(argument).name, argument
        if not name.strip() or not path:
            raise DataError(
                f"Invalid value for the '--checkpoint' parameter. Allowed is [NAME=]PATH, got '{argument}'."
            )
        if name in found:
            raise DataError(f"'{found[name]}' and '{path}' are both called '{name}'; name them as NAME=PATH.")
        found[name] = path
    return found


def main(argv: Sequence[str] | None = None) -> dict:
    """Run `neural-clip evaluate`; returns the report."""
    from neural_clip.data import folder_of
    from neural_clip.report_tables import print_tables
    from neural_clip.reporting import write_report

    arguments = _parser().parse_args(argv)
    shown = shlex.join(["neural-clip", "evaluate", *(sys.argv[1:] if argv is None else argv)])
    report = evaluate_checkpoints(
        named_checkpoints(arguments.checkpoint),
        [folder_of(argument) for argument in arguments.data],
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
