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

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neural_clip.errors import DataError
from neural_clip.evaluation.checkpoints import check_data, check_names, fitting_model
from neural_clip.evaluation.embedding import SINGLE_TRIAL, Embedded, EmbeddedSplit, embed_split
from neural_clip.evaluation.outputs import header, write_outputs
from neural_clip.evaluation.protocols import PROTOCOLS, check_protocol, conversion_entries, decoding_entries
from neural_clip.retrieval.scoring import compare_methods

if TYPE_CHECKING:
    from neural_clip.evaluation.tasks import Contributions
    from neural_clip.prepared.reader import BaselineSplit


COMPARED = ("two_way", "top1")  # decoding scores whose differences are reported


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
    from neural_clip.evaluation.controls import AuditData, audit, presentation_times
    from neural_clip.evaluation.understanding.attribution import require_captum
    from neural_clip.evaluation.understanding.run import understand as analyse
    from neural_clip.prepared.reader import read_split

    if understand is not None:
        require_captum()  # before an hour is spent
    check_names(checkpoints)
    modalities = check_data(data)
    check_protocol(protocol, [str(folder) for folder in data])
    models = {name: fitting_model(path, modalities, first=not n) for n, (name, path) in enumerate(checkpoints.items())}
    embedded: Embedded = {}
    for name, model in models.items():
        covered = [m for m in modalities if getattr(model.config, f"{m}_config", None) is not None]
        embedded[name] = {
            m: embed_split(model, modalities[m], split, batch_size=batch_size, device=device) for m in covered
        }
    first, splits = next(iter(embedded.items()))
    report = header(checkpoints, embedded, split, seed, command)
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
    write_outputs(Path(output_dir), report, splits)
    return report


def _add_decoding(
    report: dict, modality: str, embedded: Embedded, recordings: Sequence[BaselineSplit], seed: int
) -> None:
    """Rows of every checkpoint and baseline, what the protocol makes of them, and their differences."""
    from neural_clip.evaluation.paper_figures import PAPER
    from neural_clip.evaluation.tasks import decoding_rows

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
    from neural_clip.evaluation.paper_figures import PAPER
    from neural_clip.evaluation.tasks import encoding_record

    rows, contributions = [], {}
    for name, splits in _with(modality, embedded):
        record, contributions[name] = encoding_record(splits[modality], seed)
        rows.append({"method": name, **record})
    report["encoding"][modality] = {"rows": rows, "paper": PAPER["encoding"][modality]}
    images = next(iter(embedded.values()))[modality].gallery_ids.tolist()
    _add_comparisons(report, "encoding", [modality], contributions, images, ("two_way",), seed)


def _add_conversion(report: dict, source: str, target: str, embedded: Embedded, seed: int) -> None:
    """Conversion of one pair by every checkpoint that has both, and their differences."""
    from neural_clip.evaluation.paper_figures import PAPER
    from neural_clip.evaluation.tasks import conversion_record

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


def baseline_rows(
    data: EmbeddedSplit, splits: Sequence[BaselineSplit], seed: int
) -> tuple[list[dict], dict[str, Contributions]]:
    """Scores of the linear baselines on the same recordings and gallery, and the contributions of single trials.

    One that cannot be computed says why.
    """
    from neural_clip.evaluation.baselines.linear import BASELINES
    from neural_clip.evaluation.tasks import decoding_rows

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
