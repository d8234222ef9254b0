"""Prepare, embed, examine, train, evaluate and report: one command from recordings to a page of scores.

The steps are the functions of the other commands. What each makes lies in the folder of the run:

```
<output_dir>/data/<modality>  prepared data set of a manifest
             data/doctor.json what the doctor found
             checkpoint       the trained model
             evaluation       report.json, report.html and pictures
             run.json         what these were made from
```

A step whose output is there and whole is left out, so that a run that was interrupted goes on. `record.py` sees to it
that outputs were made from what is given now.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neural_clip.errors import DataError
from neural_clip.evaluation.options import EvaluateOptions
from neural_clip.evaluation.outputs import EMBEDDINGS_FILE, REPORT_FILE, WEIGHTS, read_report, why_not_of
from neural_clip.files.places import command_line
from neural_clip.files.privacy import shared_place, shared_value
from neural_clip.files.reading import read_json
from neural_clip.files.record import RECORD_FILE, check_record
from neural_clip.files.whole import check_apart, only_writer, sha256_of, write_whole
from neural_clip.gallery.searched import check_gallery
from neural_clip.image_tower_files import weights_digest
from neural_clip.prepared.facts import verify_prepared
from neural_clip.prepared.modalities import MODALITIES, kind_of
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.several import by_key
from neural_clip.prepared.splits import SPLITS
from neural_clip.targets.embed_images import default_model
from neural_clip.workflow.options import RunOptions
from neural_clip.workflow.record import ANEW, RUN_FILE, MadeFrom, begin, check_folder, remove_replaced, write_record
from neural_clip.workflow.sources import Source, open_sources, put_back
from neural_clip.workflow.steps import Step, run_steps

if TYPE_CHECKING:
    from neural_clip.training.recipe import Recipe


def run_workflow(
    sources: Sequence[str | Path],
    output_dir: str | Path,
    options: RunOptions | None = None,
    *,
    command: str = "",
    **changes: Any,
) -> Path:
    """Go from recordings to a page of scores; goes on where an earlier run in the folder was interrupted.

    Args:
        sources (sequence of `str` or `Path`): Manifests of `neural-clip prepare custom`, one a modality, or prepared
            data sets; those of one modality are of different corpora. Images of a prepared data set without
            embeddings are embedded in its own folder.
        output_dir (`str` or `Path`): Folder of everything: a new one, an empty one, or that of an earlier run.
        options ([`RunOptions`], *optional*): What is trained, and how.
        command (`str`): Command line for the record of the evaluation.
        **changes: Options by name, in place of those of `options`.

    Returns:
        `Path`: The folder.

    Raises:
        DataError: If a source, recipe or option cannot be used, the image encoder is not to be had, the folder holds
            something else or a run that was made from something else, or a step fails.
    """
    options, output_dir = replace(options or RunOptions(), **changes), Path(output_dir)
    check_folder(output_dir)
    workflow = Workflow(open_sources(sources, output_dir), output_dir, options, command)
    workflow.check()
    with only_writer(output_dir / RUN_FILE):
        begin(output_dir, workflow.made_from(), overwrite=options.overwrite)
        run_steps(workflow.steps(), how_to_go_on(options.overwrite))
        remove_replaced(output_dir)
    return output_dir


def how_to_go_on(overwrite: bool) -> str:
    """What is said where a step stops."""
    without = " without `--overwrite`" if overwrite else ""
    return f"What is whole stays; the same command{without} goes on from there."


@dataclass(frozen=True)
class Workflow:
    """The steps of a run, and what their outputs are made from.

    Args:
        sources (`list[Source]`): Of one modality one, or prepared data sets of different corpora.
        output_dir (`Path`): Folder of the run.
        options ([`RunOptions`]): What is trained, and how.
        command (`str`): Command line for the record of the evaluation.
        trained (`dict[str, list[str]]`): Whom to train on by modality, where that is not left to the recipe.
        scoring ([`EvaluateOptions`], *optional*): How to score, where that is not left to the data.
    """

    sources: list[Source]
    output_dir: Path
    options: RunOptions
    command: str
    trained: dict[str, list[str]] = field(default_factory=dict)
    scoring: EvaluateOptions | None = None

    @property
    def checkpoint(self) -> Path:
        """Folder of the trained model."""
        return self.output_dir / "checkpoint"

    @property
    def evaluation(self) -> Path:
        """Folder of the report."""
        return self.output_dir / "evaluation"

    def opened(self) -> dict[str, PreparedSet]:
        """Data sets by what reports call them."""
        return by_key(PreparedSet.open(source.folder, self.options.streaming) for source in self.sources)

    def scored(self) -> EvaluateOptions:
        """Options of the evaluation: subjects who are trained on, or the average subject where none of them is tested.

        Raises:
            DataError: If it is fMRI, or of several corpora, for which there is no average subject.
        """
        from neural_clip.training.model import encoder_settings

        if self.scoring is not None:
            return self.scoring
        options = EvaluateOptions(gallery=self.options.gallery, streaming=self.options.streaming)
        settings = self.recipe().model
        facts = {key: opened.facts for key, opened in self.opened().items()}
        tested = {name for found in facts.values() for name, rows in found.subject_splits.items() if rows.get("test")}
        known: set[str] = set()
        for modality in {source.modality for source in self.sources}:
            sets = [found for key, found in facts.items() if kind_of(key) == modality]
            known |= set(encoder_settings(sets, modality, settings.get(modality) or {})["subjects"])
        if tested <= known:
            return options
        if tested & known:
            return replace(options, subjects=sorted(tested & known))
        if not all(MODALITIES[source.modality].sensors and not source.several for source in self.sources):
            raise DataError(
                f"The test subjects {sorted(tested)} are not trained on, so they cannot be scored: fMRI, and several "
                "corpora of one modality, have no average subject."
            )
        return replace(options, subject="average")

    def steps(self) -> list[Step]:
        """All steps; nothing is prepared where no manifest is given."""
        steps = [
            Step("prepare", self.prepare, self.is_prepared),
            Step("embed images", self.embed, self.is_embedded),
            Step("examine the data (doctor)", self.examine, self.is_examined),
            Step("train", self.train, self.is_trained),
            Step("evaluate", self.evaluate, self.is_evaluated),
            Step("report", self.report, lambda: (self.evaluation / "report.html").is_file()),
        ]
        return steps[not any(source.manifest for source in self.sources) :]

    def check(self) -> None:
        """Raise, before time is spent, where a step could not be done as it is asked for."""
        for source in self.sources:
            check_apart(self.output_dir, source.inputs)
        recipe = self.recipe()
        if self.options.gallery is not None:
            check_gallery(self.options.gallery)
        self._check_named_model()
        if any(map(self._needs_encoder, self.sources)):
            from neural_clip.targets.encoder import TargetEncoder

            TargetEncoder([self.model])
        with recipe.told_where():
            _ = recipe.training_arguments  # reading them checks the settings

    def _needs_encoder(self, source: Source) -> bool:
        """Whether images are to be embedded."""
        try:
            return not source.brings_embeddings and (self.options.overwrite or not source.is_embedded)
        except DataError:
            return True  # the step that reads the damaged data set says what is wrong

    def _check_named_model(self) -> None:
        """Raise where the named image encoder is not the one of embeddings that are there."""
        for source in (found for found in self.sources if self.options.model and found.brings_embeddings):
            encoder = None if source.manifest else (source.facts.image_encoder or {}).get("name")
            folder = Path(self.model).expanduser()
            if encoder != (folder.resolve().name if folder.is_dir() else self.model):
                made = f"of {encoder!r} already" if encoder else "already"
                again = command_line("neural-clip", "embed-images", source.folder, "--overwrite")
                raise DataError(
                    f"The images of '{source.given}' have embeddings {made}. Leave out `--model`"
                    + ("." if source.manifest else f", or run {again}.")
                )

    @property
    def model(self) -> str:
        """The image encoder of images that have no embeddings."""
        simulated = all(not source.manifest and source.facts.simulated for source in self.sources)
        return self.options.model or default_model(simulated)

    def recipe(self, *, resume: bool = False) -> Recipe:
        """The recipe of the training, as `neural-clip train` reads it."""
        from neural_clip.training.recipe import read_recipe

        words = [self.options.recipe, "--data", *(f"{source.modality}={source.folder}" for source in self.sources)]
        words += ["--output-dir", json.dumps(str(self.checkpoint), ensure_ascii=False)]  # as YAML reads it
        for name in ("seed", "epochs", "folds"):
            value = getattr(self.options, name)
            words += [] if value is None else [f"--{name}", str(value)]
        words += ["--streaming", "true"] if self.options.streaming else []
        for modality, subjects in self.trained.items():
            words += [f"--model.{modality}.subjects", json.dumps(subjects)]
        return read_recipe([*words, "--resume", str(resume).lower(), "--overwrite", "false"])

    def made_from(self) -> MadeFrom:
        """What decides each output, beside the outputs before it."""
        data: dict[str, Any] = {name: value for source in self.sources for name, value in source.made_from().items()}
        if any(source.manifest and not source.brings_embeddings for source in self.sources):
            folder, data["the image encoder"] = Path(self.model).expanduser(), self.model
            if folder.is_dir():  # wherever it lies
                data["the image encoder"] = folder.resolve().name
                data["the weights of the image encoder"] = weights_digest(folder)
        return {
            "data": data, "checkpoint": dict(self._settings()),
            "evaluation": self._gallery() | self._scoring(),
        }  # fmt: skip

    def _gallery(self) -> dict[str, Any]:
        """What is searched, where that was asked for."""
        name = self.options.gallery
        if name in (None, "all", *SPLITS):
            return {} if name is None else {"the gallery": name}
        place = shared_place(name, self.output_dir)
        return {"the gallery": place, "the data set of the gallery": PreparedSet.open(name).facts.fingerprint}

    def _scoring(self) -> dict[str, Any]:
        """How it is scored, where that was asked for."""
        if self.scoring is None:
            return {}
        names = ("protocol", "subject", "subjects", "baselines", "controls")
        found: dict[str, Any] = {f"the option {name!r}": json.dumps(getattr(self.scoring, name)) for name in names}
        if (templates := self.scoring.templates) is not None:
            found["the data set of templates"] = PreparedSet.open(templates).facts.fingerprint
        return found

    def _settings(self) -> Iterator[tuple[str, Any]]:
        """Settings of the recipe that decide the checkpoint."""
        left_out = {"data", "output_dir", "resume", "overwrite"}
        left_out |= set(MODALITIES) - {source.modality for source in self.sources}
        for section, value in shared_value(self.recipe().as_dict()).items():
            if section == "streaming":
                yield section, None  # with and without, the weights are the same
            elif section not in left_out:
                kept = {k: v for k, v in value.items() if k not in left_out} if isinstance(value, dict) else value
                yield from _leaves(kept, section)

    # The steps.

    def is_prepared(self) -> bool:
        """Whether all manifests have become data sets whose files are those that were written."""
        for source in self.sources:
            put_back(source.folder)
            if source.manifest and source.is_there:
                verify_prepared(source.folder)
        return all(source.is_there for source in self.sources)

    def prepare(self) -> None:
        """Make the data sets of manifests."""
        from neural_clip.corpora.custom import prepare

        for source in self.sources:
            if not source.is_there:
                prepare(source.given, source.folder, num_proc=self.options.num_proc)

    def is_embedded(self) -> bool:
        """Whether all images have embeddings."""
        return all(source.is_embedded for source in self.sources)

    def embed(self) -> None:
        """Embed images; the data sets are other ones then, and the record says which."""
        from neural_clip.targets.embed_images import embed_images

        for source in self.sources:
            if not source.is_embedded:
                embed_images(source.folder, self.model, num_proc=self.options.num_proc)
        write_record(self.output_dir, self.made_from())

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the data sets."""
        return {source.key: source.facts.fingerprint for source in self.sources}

    @property
    def findings(self) -> Path:
        """What the doctor found."""
        return self.output_dir / "data" / "doctor.json"

    def is_examined(self) -> bool:
        """Whether the doctor looked at these very data sets and found no error."""
        try:
            found = read_json(self.findings)
            return {name: part["fingerprint"] for name, part in found.items()} == self.fingerprints
        except (DataError, AttributeError, KeyError, TypeError):
            return False

    def examine(self) -> None:
        """Have the doctor examine the data sets; a `DataError` where scores would be wrong."""
        from neural_clip.prepared.doctor.findings import counts_of, in_words
        from neural_clip.prepared.doctor.inspect import inspect

        told = {}
        for source in self.sources:
            findings = inspect(PreparedSet.open(source.folder).folder, num_proc=self.options.num_proc)
            print(in_words(source.folder, findings))
            if counts_of(findings)["error"]:
                raise DataError(f"'{source.folder}' has errors, so its scores would be wrong. They are listed above.")
            told[source.key] = {
                "folder": shared_value(source.folder), "fingerprint": self.fingerprints[source.key],
                "findings": [asdict(finding) for finding in findings],
            }  # fmt: skip
        self.findings.parent.mkdir(exist_ok=True)
        write_whole(self.findings, json.dumps(told, indent=2, ensure_ascii=False) + "\n")

    def is_trained(self) -> bool:
        """Whether the checkpoint is there; a `DataError` where it is damaged or was trained on other data sets."""
        if not (self.checkpoint / RECORD_FILE).is_file():
            return False
        data = (check_record(self.checkpoint) or {}).get("data", {})
        if {name: part.get("fingerprint") for name, part in data.items()} != self.fingerprints:
            raise DataError(f"'{self.checkpoint}' was trained on other data sets than those that stand here. {ANEW}")
        return True

    def train(self) -> None:
        """Train, from the last state of an interrupted training on if there is one."""
        from neural_clip.evaluation.scope import scored_parts
        from neural_clip.training.run import train
        from neural_clip.training.run_folder import RunFolder

        scored_parts(self.opened(), self.scored())
        recipe = self.recipe(resume=bool(RunFolder(self.checkpoint).interrupted()))
        with recipe.told_where():
            train(recipe)

    def is_evaluated(self) -> bool:
        """Whether the report is whole and about this checkpoint and these data sets."""
        try:
            report = read_report(self.evaluation)
        except DataError:
            return False
        weights = sha256_of(self.checkpoint.glob(WEIGHTS))
        scored = {name: part["fingerprint"] for name, part in report["data"].items()}
        is_ours = [part["sha256"] for part in report["checkpoints"]] == [weights] and scored == self.fingerprints
        return is_ours and not why_not_of(report, self.evaluation / EMBEDDINGS_FILE)

    def evaluate(self) -> None:
        """Score the checkpoint and the baselines."""
        from neural_clip.evaluation.run import evaluate_checkpoints

        folders = [source.folder for source in self.sources]
        evaluate_checkpoints(
            {"neural_clip": self.checkpoint}, folders, self.evaluation, self.scored(), command=self.command,
            num_proc=self.options.num_proc,
        )  # fmt: skip

    def report(self) -> None:
        """Write text, page and pictures."""
        from neural_clip.report.write import write_report

        data: dict[str, str | Path | PreparedSet] = {source.key: source.folder for source in self.sources}
        write_report(self.evaluation / REPORT_FILE, data=data)


def _leaves(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """Single values of nested settings by their dotted names; those that are not set are left out."""
    if isinstance(value, dict):
        inner = [(f"{name}.{key}" if name else str(key), item) for key, item in value.items()]
        return [leaf for key, item in inner for leaf in _leaves(item, key)]
    if value is None:
        return []
    return [(name, value if isinstance(value, str | int | float | bool) else json.dumps(value))]
