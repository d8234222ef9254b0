"""Score checkpoints: decoding, encoding and conversion on the test splits of prepared data sets.

What the three tasks are stands in `tasks.py`; intervals resample images, p-values shuffle them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.errors import DataError
from neural_clip.evaluation.baseline_rows import baseline_rows, content_of, parts_of, small
from neural_clip.evaluation.baseline_units import fit_elsewhere
from neural_clip.evaluation.by_person import ByPerson, person_galleries
from neural_clip.evaluation.checkpoints import (
    check_names,
    encodes,
    fitting_models,
    open_data,
)
from neural_clip.evaluation.finished_parts import PARTS_DIR, FinishedParts
from neural_clip.evaluation.options import EvaluateOptions
from neural_clip.evaluation.outputs import REPORT_FILE, header, model_digest, write_outputs
from neural_clip.evaluation.people import Gallery
from neural_clip.evaluation.processes import embed_together, joined, once_a_machine
from neural_clip.evaluation.protocols import PROTOCOLS, check_protocol, conversion_entries, decoding_entries
from neural_clip.evaluation.scope import fitted_splits, left_out_of, other_images, scored_parts
from neural_clip.evaluation.seen import (
    check_seen,
    check_unseen_people,
    chosen_by,
    known_people,
    seen_by_closed_form,
    seen_in_training,
)
from neural_clip.files.kept import deciding_versions
from neural_clip.files.record import check_takes_files
from neural_clip.files.whole import only_writer, whole_folder
from neural_clip.gallery.embedding import PARTS, Embedded, EmbeddedSplit
from neural_clip.gallery.fit import called_by, interpolation_of
from neural_clip.parallel import n_processes
from neural_clip.prepared.modalities import kind_of
from neural_clip.prepared.reader import PreparedSet, Split
from neural_clip.retrieval.scoring import compare_methods

if TYPE_CHECKING:
    from neural_clip.evaluation.same_pictures import SamePictures
    from neural_clip.evaluation.tasks import Contributions
    from neural_clip.modeling_neural_clip import NeuralClipModel


COMPARED = ("two_way", "top1")  # decoding scores whose differences are reported


def evaluate_checkpoints(
    checkpoints: Mapping[str, str | Path],
    data: Sequence[str | Path | PreparedSet],
    output_dir: str | Path,
    options: EvaluateOptions | None = None,
    *,
    command: str = "",
    **changes: Any,
) -> dict:
    """Score checkpoints and write `report.json` and `embeddings.npz` (the latter of the first checkpoint).

    Args:
        checkpoints (`Mapping[str, str or Path]`): Names in the report, and folders or Hub names of
            [`NeuralClipModel`]s. The first must have an encoder for every data set, others for one or more.
        data (`Sequence[str or Path or PreparedSet]`): Prepared data sets. Several of one modality are of different
            corpora; each is scored by itself and called `modality.corpus` in the report.
        output_dir (`str` or `Path`): Made if missing; the files of an earlier evaluation stay until all new ones are
            written, and other files stay.
        options ([`EvaluateOptions`], *optional*): What is scored, and how.
        command (`str`): Command line for the record.
        **changes: Options by name, in place of those of `options`.

    Returns:
        `dict`: What `report.json` holds. Where a launcher started several processes, each embeds a share of the
        recordings; the first goes on alone, and the others return an empty one.

    Raises:
        DataError: If an option is not allowed, there is no checkpoint, one cannot be read or has the name of a
            baseline, a data set does not fit it, two of one modality are of the same corpus, or image encoders
            differ, among the data
            sets or from the one that a checkpoint was trained on; if `output_dir` is a file, a data set or in one, or
            a checkpoint, or another process writes there.
    """
    from neural_clip.evaluation.understanding.attribution import require_captum
    from neural_clip.targets.encoder import usable_device

    options = replace(options or EvaluateOptions(), **changes)
    if options.understand is not None:
        require_captum()  # before an hour is spent
        if options.subject is not None:
            raise DataError("'understand' shows each subject's own layer; leave it out with 'subject'.")
        if options.montage is not None:
            raise DataError("'understand' shows the channels that were recorded; leave it out with 'montage'.")
    usable_device(options.device)
    check_names(checkpoints)
    opened = open_data(data, options.streaming)
    output_dir = Path(output_dir)
    check_takes_files(output_dir)
    with joined() as is_first:
        if not is_first:
            _embedded(checkpoints, opened, options, FinishedParts())
            return {}
        with only_writer(output_dir / REPORT_FILE):  # as `report` does
            return _evaluated(checkpoints, opened, output_dir, options, command)
    return {}  # another process than the first, where something went wrong


def _evaluated(
    checkpoints: Mapping[str, str | Path], opened: dict[str, PreparedSet], output_dir: Path, options: EvaluateOptions,
    command: str,
) -> dict:  # fmt: skip
    """Score checkpoints and write what was found."""
    from neural_clip.evaluation.same_pictures import same_pictures
    from neural_clip.evaluation.understanding.run import UNDERSTANDING_FILE
    from neural_clip.evaluation.understanding.run import understand as analyse

    kept = FinishedParts(output_dir / PARTS_DIR, {"versions": deciding_versions()})
    models, parts, galleries, embedded = _embedded(checkpoints, opened, options, kept)
    by_person = ByPerson.of(models, parts, galleries, options)
    first, splits = next(iter(embedded.items()))
    unseen = {
        modality: sorted(
            set(part.subjects.tolist())
            - set(known_people(getattr(models[first].config, f"{part.modality}_config"), part.data))
        )
        for modality, part in splits.items()
    }
    montages = {
        name: {
            modality: made.as_dict()
            for modality, part in parts.items()
            if modality in embedded[name]
            and (made := interpolation_of(model.config, part.data, options.montage)) is not None
        }
        for name, model in models.items()
    }
    head = header(checkpoints, embedded, options, unseen, montages, command, output_dir)
    for modality, part in parts.items():
        seen = {name: seen_in_training(path, part.data, part.name) for name, path in checkpoints.items()}
        head["data"][modality]["seen_in_training"] = {name: found for name, found in seen.items() if found is not None}
        if fitted := seen_by_closed_form(models[first], part, options.subject):
            head["data"][modality]["seen_by_closed_form"] = fitted
    for entry in head["checkpoints"]:
        entry["chosen_by"] = chosen_by(checkpoints[entry["name"]])
    same = {name: same_pictures(checkpoints[name], models[name], splits, options) for name, splits in embedded.items()}
    report = Report(
        head, embedded, options.protocol,
        training_images(parts) if len({kind_of(name) for name in splits}) > 1 else None,
        {name: model.config for name, model in models.items()}, kept, by_person, same,
    )  # fmt: skip
    if options.wanted_baselines and n_processes(options.num_proc) > 1:
        fit_elsewhere(parts, options.wanted_baselines, options.protocol, kept, options.num_proc)
        report.fitted_elsewhere = True
    for modality, part in parts.items():
        report.add_modality(modality, part, baselines=options.wanted_baselines, controls=options.controls)
    for source in splits:
        for target in splits:
            if kind_of(source) != kind_of(target):
                report.add_conversion(source, target)
    found = report.as_dict()
    if options.understand is not None:
        output_dir.mkdir(parents=True, exist_ok=True)
        place, what = output_dir / "understanding", "analysis of what was learned"
        with whole_folder(place, holds=UNDERSTANDING_FILE, what=what, overwrite=True) as partial:
            found["understanding"] = analyse(
                models[first], {name: part.of_its_images() for name, part in splits.items()}, partial,
                seed=options.seed, device=options.device, max_recordings=options.understand,
            )  # fmt: skip
    write_outputs(output_dir, found, splits)
    kept.remove()
    return found


def _embedded(
    checkpoints: Mapping[str, str | Path],
    opened: dict[str, PreparedSet],
    options: EvaluateOptions,
    kept: FinishedParts,
) -> tuple[dict[str, NeuralClipModel], dict[str, Split], dict[str, list[Gallery]], Embedded]:
    """Checkpoints by name, what is scored and searched by modality, and the recordings in the space of each."""
    check_protocol(options.protocol, list(opened.values()), options.split, options.gallery)
    models, opened = fitting_models(checkpoints, opened, options)
    once_a_machine(lambda: [data_set.verify() for data_set in opened.values() if not data_set.streaming])
    parts = scored_parts(opened, options)
    for name, path in checkpoints.items():
        for part in parts.values():
            check_seen(options.protocol, path, part.data, seen_in_training(path, part.data, part.name))
            if (config := getattr(models[name].config, f"{part.modality}_config", None)) is not None:
                check_unseen_people(options.protocol, path, known_people(config, part.data), part.subjects.tolist())
    galleries = person_galleries(parts, options)
    embedded: Embedded = {}
    for name, model in models.items():
        own = kept.of(model=model_digest(checkpoints[name]))
        embedded[name] = {
            modality: _one_embedded(model, part, options, own)
            for modality, part in parts.items()
            if encodes(model, part.data, options)
        }
    return models, parts, galleries, embedded


def _one_embedded(model: NeuralClipModel, part: Split, options: EvaluateOptions, kept: FinishedParts) -> EmbeddedSplit:
    """Recordings in the space of a checkpoint, from their part where they are finished."""
    asked: dict[str, Any] = {
        "subject": options.subject, "batch_size": options.batch_size, "device": options.device,
        "montage": options.montage,
    }  # fmt: skip

    # what a name of the Hub stands for may change
    kept = FinishedParts() if kept.key["model"] is None else kept.of(**content_of(part), **asked)
    return embed_together(model, part, kept, **asked)


@dataclass
class Report:
    """What an evaluation finds, task by task; `as_dict` is what `report.json` holds.

    Args:
        header (`dict`): What was scored, by what and on what.
        embedded (`Embedded`): Recordings in the space of each checkpoint, the first the one that is reported.
        protocol (`str`): Key of `PROTOCOLS`.
        bank (`np.ndarray` of shape `(n_images, projection_dim)`, *optional*): Images for conversion through them;
            `None` where all recordings are of one kind.
        configs (`dict[str, NeuralClipConfig]`): Of each checkpoint, with its temperatures.
        parts ([`FinishedParts`]): Where baselines and controls are kept when they are finished.
        by_person ([`ByPerson`], *optional*): What the protocol scores person by person.
        same (`dict`): Of each checkpoint, recordings of the same pictures by source and target.
        fitted_elsewhere (`bool`): Whether other processes have fitted the baselines.

    The other fields are filled by [`~Report.add_modality`] and [`~Report.add_conversion`].
    """

    header: dict
    embedded: Embedded
    protocol: str
    bank: np.ndarray | None
    configs: Mapping[str, Any]
    parts: FinishedParts = field(default_factory=FinishedParts)
    by_person: ByPerson | None = None
    same: Mapping[str, Mapping[tuple[str, str], SamePictures]] = field(default_factory=dict)
    fitted_elsewhere: bool = False
    decoding: dict[str, dict] = field(default_factory=dict)
    encoding: dict[str, dict] = field(default_factory=dict)
    conversion: list[dict] = field(default_factory=list)
    comparisons: list[dict] = field(default_factory=list)
    controls: dict[str, list[dict]] = field(default_factory=dict)
    decoding_entries: dict[str, list[dict]] = field(default_factory=dict)
    conversion_entries: dict[str, list[dict]] = field(default_factory=dict)
    confidence: dict[str, list[dict]] = field(default_factory=dict)

    def as_dict(self) -> dict:
        """As `report.json` holds it."""
        names = ("decoding", "confidence", "encoding", "conversion", "comparisons", "controls")
        tasks = {name: getattr(self, name) for name in names}
        entries = {"decoding": self.decoding_entries, "conversion": self.conversion_entries}
        protocol = {"name": self.protocol, "meaning": PROTOCOLS[self.protocol].meaning, **entries}
        if self.by_person is not None:
            protocol |= self.by_person.as_dict()
        return {**self.header, **tasks, "protocol": protocol}

    @property
    def seed(self) -> int:
        """Of intervals, p-values and sampled scores."""
        return self.header["seed"]

    def add_modality(self, modality: str, part: Split, *, baselines: Sequence[str], controls: bool) -> None:
        """Decoding and encoding of one modality, with baselines and controls, which read recordings by blocks."""
        from neural_clip.evaluation.controls import ControlData, presentation_times, run_controls, tell_cost

        left_out = left_out_of(part, self.protocol)
        splits = fitted_splits(part, left_out) if baselines or controls else []
        held = [small(split) for split in splits]
        if controls:
            times = presentation_times(splits[0], part) if len(splits[0]) else None
            train, validation, scored = held
            looked_at = ControlData(self._first(modality), train, validation, scored, times)
            tell_cost(looked_at)
        self._add_decoding(modality, held, baselines, left_out)
        self._add_confidence(modality)
        self._add_encoding(modality)
        if controls:
            own = parts_of(self.parts, part, left_out).of(embedded=_digest(looked_at.scored), seed=self.seed)
            self.controls[modality] = run_controls(looked_at, self.seed, own)

    def _add_decoding(
        self, modality: str, recordings: Sequence[Split], baselines: Sequence[str], left_out: Sequence[str]
    ) -> None:
        """Rows of every checkpoint and baseline, what the protocol makes of them, and their differences."""
        from neural_clip.evaluation.paper_figures import paper_figures
        from neural_clip.evaluation.tasks import decoding_rows

        rows: list[dict] = []
        contributions: dict[str, Contributions] = {}
        entries: list[dict] = []
        for name, splits in self._with(modality).items():
            part = splits[modality]
            scored, contributions[name] = decoding_rows(part, part.embeds, name, self.seed)
            rows += scored
            for number, beside in enumerate(PARTS[: part.parts.shape[1]]):
                method = f"{name}, {beside}"
                scored_alone, contributions[method] = decoding_rows(part, part.parts[:, number], method, self.seed)
                rows += [{**row, "part_of": name} for row in scored_alone]
            entries += [{"method": name, **entry} for entry in decoding_entries(self.protocol, part, scored[0])]
        part, predictions = self._first(modality), dict[str, Mapping[str, np.ndarray]]()
        if baselines:
            fitted = [found.from_onset() for found in recordings]
            kept = parts_of(self.parts, recordings[-1], left_out)
            scored, theirs, predictions = baseline_rows(
                part, fitted, self.seed, baselines, kept, said=not self.fitted_elsewhere
            )
            rows += scored
            contributions |= theirs
        if self.by_person is not None:
            self.by_person.add(modality, self._with(modality), predictions, self.seed)
        ceiling = (part.facts.simulated or {}).get("ceiling")
        paper = paper_figures("decoding", part)
        self.decoding[modality] = {"rows": rows, "ceiling": ceiling, "paper": paper}
        self.decoding_entries[modality] = entries
        self._compare("decoding", [modality], contributions, _units(part), COMPARED)

    def _add_confidence(self, modality: str) -> None:
        """How well every checkpoint knows when its first hit is right."""
        from neural_clip.evaluation.tasks import confidence_record
        from neural_clip.gallery.confidence import Temperatures

        layer = self.header["data"][modality].get("subject")  # the average subject's, or each one's own
        self.confidence[modality] = []
        for name, splits in self._with(modality).items():
            part = splits[modality]
            config = getattr(self.configs[name], f"{part.modality}_config")
            called = part.called_as_in(called_by(config, part.data)).subjects.tolist()
            subjects = [layer] * len(part) if layer else called
            temperatures = Temperatures.of(self.configs[name], [part.modality] * len(part), subjects)
            self.confidence[modality].append(confidence_record(part, temperatures, name, self.seed))

    def _add_encoding(self, modality: str) -> None:
        """Encoding by every checkpoint, and their differences."""
        from neural_clip.evaluation.paper_figures import paper_figures
        from neural_clip.evaluation.tasks import encoding_record

        rows, contributions = [], {}
        for name, splits in self._with(modality).items():
            record, contributions[name] = encoding_record(splits[modality], self.seed)
            rows.append({"method": name, **record})
        self.encoding[modality] = {"rows": rows, "paper": paper_figures("encoding", self._first(modality))}
        images = self._first(modality).shown_ids.tolist()
        self._compare("encoding", [modality], contributions, images, ("two_way",))

    def add_conversion(self, source: str, target: str) -> None:
        """Conversion of one pair by every checkpoint that has both, and their differences."""
        from neural_clip.evaluation.paper_figures import paper_figures
        from neural_clip.evaluation.tasks import conversion_record

        pair, paper = f"{source}->{target}", paper_figures("conversion", self._first(source), self._first(target))
        contributions, entries = {}, []
        for name, splits in self._with(source, target).items():
            decoded, seen = (
                next(row for row in self.decoding[modality]["rows"] if row["method"] == name)  # single trials
                for modality in (target, source)
            )
            record, contributions[name] = conversion_record(
                splits[source], splits[target], decoded["two_way"], self.seed, method=name,
                source_two_way=seen["two_way"], bank=self.bank, same=self.same.get(name, {}).get((source, target)),
            )  # fmt: skip
            self.conversion.append({"method": name, **record, "paper": paper})
            found = conversion_entries(self.protocol, record, decoded["two_way_permutation"])
            entries += [{"method": name, **entry} for entry in found]
        self.conversion_entries[pair] = entries
        units = _units(self._first(source))
        self._compare("conversion", [source, target], contributions, units, ("two_way",))

    def _compare(
        self,
        task: str,
        modalities: list[str],
        contributions: dict[str, Contributions],
        units: Sequence,
        names: Sequence[str],
    ) -> None:
        """Differences of the first checkpoint to all other methods."""
        found = compare_methods(contributions, units, names, self.seed)
        self.comparisons += [{"task": task, "modalities": modalities, **record} for record in found]

    def _first(self, modality: str) -> EmbeddedSplit:
        """Recordings in the space of the first checkpoint."""
        return next(iter(self.embedded.values()))[modality]

    def _with(self, *modalities: str) -> Embedded:
        """Checkpoints that have these modalities."""
        return {name: splits for name, splits in self.embedded.items() if set(modalities) <= set(splits)}


def training_images(parts: Mapping[str, Split]) -> np.ndarray:
    """Embeddings of the images of the training splits of all data sets, each once, `(n_images, projection_dim)`."""
    found = [part.data.images.of(other_images(part, "train")).embeds for part in parts.values()]
    return np.unique(np.concatenate(found), axis=0)


def _units(queries: EmbeddedSplit) -> Sequence:
    """What is resampled of recordings as queries: images, or recordings at category level."""
    return range(len(queries.image_ids)) if queries.category_level else queries.image_ids.tolist()


def _digest(scored: EmbeddedSplit) -> str:
    """SHA-256 of what is scored and searched: embeddings, and whether more images are searched than were shown."""
    digest = hashlib.sha256(json.dumps([scored.searched is None, *scored.gallery_ids.tolist()]).encode())
    for array in (scored.embeds, scored.gallery_embeds):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
