"""Leave each person out in turn: train on the others, test on the one whom the model has never seen.

Each fold is a run of its own (`run.py`) that trains on the others' recordings, is chosen by their validation
recordings, and sends the recordings of the person who was left out through the average subject:

```
<output_dir>/data/doctor.json         what the doctor found
             <person>/checkpoint      trained on all others
             <person>/evaluation      report.json, report.html and pictures
             <person>/run.json        what these were made from
             people.json, people.md, people.html
```

A fold that stands there whole is kept if it was made from the same data, recipe and options.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from neural_clip.errors import DataError, check_option
from neural_clip.evaluation.options import EvaluateOptions
from neural_clip.evaluation.outputs import REPORT_FILE, read_report
from neural_clip.evaluation.people import rows_over_people
from neural_clip.evaluation.protocols import PROTOCOLS
from neural_clip.files.places import command_line
from neural_clip.files.privacy import shared_place
from neural_clip.files.record import check_takes_files, sealed
from neural_clip.files.whole import check_apart, only_writer, place_of, told, write_whole
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.report.page import write_page
from neural_clip.report.people import people_text
from neural_clip.workflow.options import LeaveOutOptions, RunOptions
from neural_clip.workflow.record import RUN_FILE, begin, check_folder, remove_replaced
from neural_clip.workflow.run import Workflow, how_to_go_on
from neural_clip.workflow.sources import Source, open_sources
from neural_clip.workflow.steps import Step, run_steps

PROTOCOL = "leave-one-person-out"
PEOPLE_FILE = "people.json"
FORMAT_VERSION = 1


def leave_one_person_out(
    source: str | Path,
    output_dir: str | Path,
    options: LeaveOutOptions | None = None,
    *,
    command: str = "",
    **changes: Any,
) -> dict:
    """Train once without each person, and score each by the model that never saw that person.

    Args:
        source (`str` or `Path`): Prepared data set of EEG or MEG (folder or Hub name) whose images are embedded.
        output_dir (`str` or `Path`): Folder of everything: a new one, an empty one, or that of an earlier call, which
            goes on where it was interrupted.
        options ([`LeaveOutOptions`], *optional*): Who is left out, and what is trained.
        command (`str`): Command line for the records.
        **changes: Options by name, in place of those of `options`.

    Returns:
        `dict`: What `people.json` holds: each person's scores, their means and intervals over people, and those of the
        baselines, which are fitted without the person too.

    Raises:
        DataError: If the data set, the recipe or an option cannot be used, nobody would be left to train on, the
            folder holds something else, or a fold in it was made from something else.
    """
    options, output_dir = replace(options or LeaveOutOptions(), **changes), Path(output_dir)
    (found,) = open_sources([source], output_dir)
    _check_source(found)
    people = _people(found.facts, options)
    _check_output(output_dir, found.facts)
    check_apart(output_dir, found.inputs)
    folds = {person: _fold(found, output_dir, person, options, command) for person in people}
    whole = Workflow([found], output_dir, RunOptions(num_proc=options.num_proc), command)
    for fold in folds.values():
        check_folder(fold.output_dir)
        fold.check()
        _check_scoring(fold)
    with only_writer(output_dir / PEOPLE_FILE):
        for (
            fold
        ) in folds.values():  # all of them first, so that a fold of something else is told before a night of work
            with only_writer(fold.output_dir / RUN_FILE):
                begin(fold.output_dir, fold.made_from(), overwrite=options.overwrite)
        steps = [Step("examine the data (doctor)", whole.examine, whole.is_examined)]
        for person, fold in folds.items():
            steps += [replace(step, name=f"without {person}: {step.name}") for step in fold.steps()[-3:]]
        run_steps(steps, how_to_go_on(options.overwrite))
        record = _record(folds, found, output_dir)
        write_whole(output_dir / PEOPLE_FILE, json.dumps(record, indent=2, allow_nan=False) + "\n")
        write_whole(output_dir / "people.md", people_text(record))
        write_page(output_dir / "people.md")
        for fold in folds.values():
            remove_replaced(fold.output_dir)
    return record


def _check_source(source: Source) -> None:
    """Raise for manifests, images without embeddings, and voxels, which have no average subject."""
    if source.manifest is not None:
        prepare = command_line("neural-clip", "prepare", "custom", source.given, "--output-dir", "FOLDER")
        raise DataError(f"'{source.given}' is a manifest. Prepare it first: {prepare}.")
    if not source.is_embedded:
        embed = command_line("neural-clip", "embed-images", source.folder)
        raise DataError(f"The images of '{source.given}' have no embeddings; run {embed}.")
    if not MODALITIES[source.modality].sensors:
        raise DataError(
            f"'{source.given}' holds {source.modality}: voxels of two people do not correspond, so nobody can be "
            "scored who was not trained on. `neural-clip adapt` fits a new person."
        )


def _people(facts: Facts, options: LeaveOutOptions) -> list[str]:
    """Who is left out in turn."""
    tested = [name for name in facts.subjects if facts.subject_splits[name].get("test")]
    for name in options.subjects or ():
        check_option("subjects", name, tested)
    return list(dict.fromkeys(options.subjects or tested))


def _check_scoring(fold: Workflow) -> None:
    """Raise where the person could not be scored, such as for want of templates."""
    from neural_clip.evaluation.by_person import person_galleries
    from neural_clip.evaluation.scope import scored_parts

    person_galleries(scored_parts(fold.opened(), fold.scored()), fold.scored())


def _check_output(output_dir: Path, facts: Facts) -> None:
    """Raise where the folder holds something else than folds."""
    check_takes_files(output_dir)
    with told(place_of(output_dir), of_any_kind=True):
        lying = sorted(path.name for path in output_dir.iterdir()) if output_dir.is_dir() else []
    ours = {*facts.subjects, "data", "people"}
    if foreign := [name for name in lying if not name.startswith(".") and name.partition(".")[0] not in ours]:
        raise DataError(
            f"'{output_dir}' holds '{foreign[0]}', which `neural-clip leave-one-person-out` does not make. Choose "
            "another folder."
        )


def _fold(source: Source, output_dir: Path, person: str, options: LeaveOutOptions, command: str) -> Workflow:
    """The run that trains on all others."""
    from neural_clip.training.model import trained_subjects

    run = RunOptions(
        recipe=options.recipe, seed=options.seed, epochs=options.epochs, overwrite=options.overwrite,
        num_proc=options.num_proc, streaming=options.streaming,
    )  # fmt: skip
    scoring = EvaluateOptions(
        protocol=PROTOCOL, subject="average", subjects=[person], baselines=options.baselines, controls=False,
        templates=options.templates, streaming=options.streaming,
    )  # fmt: skip
    fold = Workflow([source], output_dir / person, run, command, scoring=scoring)
    wanted = (fold.recipe().model.get(source.modality) or {}).get("subjects")
    others = [name for name in trained_subjects(source.facts, source.modality, wanted) if name != person]
    if not others:
        raise DataError(
            f"'{source.given}' has training recordings of {person} alone; nobody else is left to train on."
        )
    return replace(fold, trained={source.modality: others})


def _record(folds: dict[str, Workflow], source: Source, output_dir: Path) -> dict:
    """What all folds found."""
    reports = {person: read_report(fold.evaluation) for person, fold in folds.items()}
    (first, *_) = reports.values()
    modality = source.modality
    people = {
        person: {
            "trained_on": folds[person].trained[modality],
            "report": f"{person}/evaluation/{REPORT_FILE}", "sha256": report["sha256"],
            "weights": report["checkpoints"][0]["sha256"], "chosen_by": report["checkpoints"][0]["chosen_by"],
        }
        for person, report in reports.items()
    }  # fmt: skip
    facts = source.facts
    return sealed({
        "format_version": FORMAT_VERSION, "protocol": PROTOCOL, "meaning": PROTOCOLS[PROTOCOL].meaning,
        "simulated": bool(facts.simulated), "modality": modality,
        "data": {"folder": shared_place(source.folder, output_dir), "corpus": facts.corpus,
                 "fingerprint": facts.fingerprint, "subjects": facts.subjects},
        "conditions": {person: report["protocol"]["conditions"][modality] for person, report in reports.items()},
        "people": people,
        "rows": rows_over_people({name: each["protocol"]["by_person"][modality] for name, each in reports.items()}),
        "not_computed": {
            row["method"]: row["not_computed"]
            for report in reports.values()
            for row in report["decoding"][modality]["rows"]
            if "not_computed" in row
        },
        "published": first["protocol"]["published"],
    })  # fmt: skip
