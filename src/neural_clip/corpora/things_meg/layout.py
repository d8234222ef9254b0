"""The files of THINGS-MEG (OpenNeuro ds004212) but signals and images: layout, version, events, tables of attributes.

Events were counted on the real metadata of version 3.0.0; `facts.py` holds the counts.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from neural_clip.corpora.things_meg.facts import CorpusFacts
from neural_clip.errors import DataError
from neural_clip.files import reading
from neural_clip.files.numbers import number

if TYPE_CHECKING:
    import pandas as pd


EVENT_COLUMNS = ["onset", "duration", "trial_type", "things_category_nr", "value", "sample"]
TRIAL_COLUMNS = ["subject", "session", "run", "trial_type", "value", "category", "sample"]
ATTRIBUTE_COLUMNS = [
    "trial_type", "things_image_nr", "things_category_nr", "session_nr", "run_nr", "image_path",
]  # fmt: skip
TRIAL_TYPES = ("exp", "test", "catch")
MIN_VERSION = (2, 0, 0)  # events come from the optical sensor since then
POINTER_BYTES = 1024  # a git-annex pointer is one line of text
RUN_NAME = re.compile(r"sub-BIGMEG([0-9]+)_ses-([0-9]+)_task-main_run-([0-9]+)_(meg\.ds|events\.tsv)")
HOW_TO_GET = "`datalad get` in its folder, or `openneuro download` (ds004212)"


@dataclass(frozen=True)
class Run:
    """One recording and its events."""

    subject: int
    session: int
    run: int
    recording: Path
    events: Path


def check_version(raw_dir: Path, *, required: bool) -> str | None:
    """Version of the data set by its `DatasetDOI`.

    Raises:
        DataError: If it is older than 2.0.0, whose events were not those of the optical sensor, or not stated.
    """
    path = raw_dir / "dataset_description.json"
    if not path.exists() and not path.is_symlink():
        if required:
            raise DataError(f"'{raw_dir}' is no THINGS-MEG folder: it has no dataset_description.json.")
        return None
    check_downloaded(path)
    about = reading.read_json(path)
    if not isinstance(about, dict):
        raise DataError(f"'{path}' should hold a JSON object, but holds {type(about).__name__}.")
    doi = str(about.get("DatasetDOI", ""))
    found = re.search(r"ds004212\.v([0-9]+)\.([0-9]+)\.([0-9]+)", doi)
    if found is None or tuple(map(int, found.groups())) < MIN_VERSION:
        raise DataError(
            f"'{path}': DatasetDOI is '{doi}', but version 2.0.0 or later of ds004212 is needed. Earlier events come "
            "from triggers, not from the optical sensor."
        )
    return ".".join(found.groups())


def check_downloaded(path: Path, how_to_get: str = HOW_TO_GET) -> None:
    """Raise a `DataError` if a file is missing, a dangling link, a git-annex pointer, or a folder."""
    if path.is_dir():
        raise DataError(f"'{path}' is a folder; expected a file.")
    if not path.is_file():
        state = " (a link to a file that is not there)" if path.is_symlink() else ""
        raise DataError(f"not downloaded: '{path}'{state}; get it with {how_to_get}.")
    try:
        if path.stat().st_size < POINTER_BYTES and b"/annex/objects/" in path.read_bytes():
            raise DataError(f"not downloaded: '{path}' (a git-annex pointer); get it with {how_to_get}.")
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}.") from error


def is_downloaded(path: Path) -> bool:
    """Whether a file is there with its content."""
    try:
        check_downloaded(path)
    except DataError:
        return False
    return True


def read_text(path: Path, how_to_get: str = HOW_TO_GET, what: str = "text") -> str:
    """Text of a file.

    Raises:
        DataError: If it is missing, not downloaded, or no UTF-8 text.
    """
    check_downloaded(path, how_to_get)
    return reading.read_text(path, what)


def recording_files(recording: Path) -> list[Path]:
    """Header and samples of a `.ds` folder: `.res4`, `.meg4` and, beyond 2 GB, `.1_meg4`, `.2_meg4` and so on."""
    stem = recording.name.removesuffix(".ds")
    files = [recording / f"{stem}.res4", recording / f"{stem}.meg4"]
    while (further := recording / f"{stem}.{len(files) - 1}_meg4").exists() or further.is_symlink():
        files.append(further)
    return files


def find_runs(
    raw_dir: Path, subjects: Sequence[int], sessions: Sequence[int], facts: CorpusFacts, *, allow_partial: bool
) -> tuple[list[Run], list[Path]]:
    """All runs of the chosen subjects and sessions, in order of recording.

    Hidden files (`._*`, `.DS_Store`) are ignored.

    Args:
        raw_dir (`Path`): BIDS root.
        subjects, sessions (`Sequence[int]`): Numbers to read.
        facts (`CorpusFacts`): How many runs a session has.
        allow_partial (`bool`): Leave out what is missing or not downloaded.

    Returns:
        `tuple[list[Run], list[Path]]`: The runs, and the files for want of which others were left out.

    Raises:
        DataError: If a run has no events or, unless `allow_partial`, a subject, session or run is missing; also if
            none is left.
    """
    files = _files_by_run(raw_dir)
    runs: list[Run] = []
    lacking: list[Path] = []
    for subject in subjects:
        for session in sessions:
            keys = sorted(key for key in files if key[:2] == (subject, session))
            expected = [(subject, session, run) for run in range(1, facts.n_runs + 1)]
            if set(keys) - set(expected) or (keys != expected and not allow_partial):
                raise DataError(
                    f"'{raw_dir}/sub-BIGMEG{subject}/ses-{session:02d}/meg' holds {len(keys)} runs, expected "
                    f"{facts.n_runs}. Present are subjects {sorted({key[0] for key in files})}; choose what you have "
                    "with --subjects and --sessions, or add --allow-partial."
                )
            for key in expected:
                run = _run(raw_dir, key, files.get(key, set()))
                missing = _first_missing(run) if allow_partial else None
                if missing:
                    lacking.append(missing)
                else:
                    runs.append(run)
    if not runs:
        raise DataError(f"None of the {len(lacking)} recordings is downloaded, first '{lacking[0]}'.")
    return runs, lacking


def _files_by_run(raw_dir: Path) -> dict[tuple[int, int, int], set[str]]:
    """Kinds of files (`meg.ds`, `events.tsv`) of each subject, session and run; hidden files do not match."""
    files: dict[tuple[int, int, int], set[str]] = {}
    for path in sorted(raw_dir.glob("sub-BIGMEG*/ses-*/meg/*")):
        match = RUN_NAME.fullmatch(path.name)
        if match:
            key = (int(match[1]), int(match[2]), int(match[3]))
            if path.parent != _run_stem(raw_dir, key).parent:
                raise DataError(f"'{path}' lies in the folder of another subject or session than its name says.")
            files.setdefault(key, set()).add(match[4])
    if not files:
        raise DataError(
            f"'{raw_dir}' holds no runs: expected sub-BIGMEG1/ses-01/meg/sub-BIGMEG1_ses-01_task-main_run-01_meg.ds"
        )
    return files


def _run_stem(raw_dir: Path, key: tuple[int, int, int]) -> Path:
    """Path of the files of a run up to `_meg.ds`."""
    subject, session, run = key
    folder = raw_dir / f"sub-BIGMEG{subject}" / f"ses-{session:02d}" / "meg"
    return folder / f"sub-BIGMEG{subject}_ses-{session:02d}_task-main_run-{run:02d}"


def _run(raw_dir: Path, key: tuple[int, int, int], kinds: set[str]) -> Run:
    stem = _run_stem(raw_dir, key)
    if kinds and "events.tsv" not in kinds:
        raise DataError(f"'{stem}_events.tsv' is missing; a recording without events cannot be used.")
    return Run(*key, recording=stem.with_name(f"{stem.name}_meg.ds"), events=stem.with_name(f"{stem.name}_events.tsv"))


def _first_missing(run: Run) -> Path | None:
    """First file of a run that is not downloaded."""
    files = [run.events, *recording_files(run.recording)]
    return next((path for path in files if not path.is_dir() and not is_downloaded(path)), None)


def run_trials(runs: Iterable[Run], facts: CorpusFacts) -> pd.DataFrame:
    """Events of all runs.

    Args:
        runs (`Iterable[Run]`): From [`find_runs`].
        facts (`CorpusFacts`): Rate in which the column `sample` counts, and trials of a run.

    Returns:
        `pandas.DataFrame`: A row per event with `subject`, `session`, `run`, `trial` (position within the subject's
        recordings that were read, catch trials included), `trial_type`, `value` and `category` (THINGS numbers from 1;
        -1 for catch trials), `sample` (image onset by the optical sensor).

    Raises:
        DataError: If a file has other columns, an unknown trial type, samples that contradict the onsets or do not
            grow, or other counts than a run has.
    """
    import pandas as pd

    rows = [row for run in runs for row in _events(run, facts)]
    trials = pd.DataFrame(rows, columns=TRIAL_COLUMNS)
    trials["trial"] = trials.groupby("subject").cumcount()
    return trials


def _events(run: Run, facts: CorpusFacts) -> list[tuple]:
    """Events of one run as rows of `TRIAL_COLUMNS`; line by line, for 480 files take a library's parser 20 s."""
    lines = read_text(run.events).splitlines()
    if len(lines) < 2 or lines[0].split("\t") != EVENT_COLUMNS:
        raise DataError(
            f"'{run.events}' has the header {''.join(lines[:1])!r} and {max(len(lines) - 1, 0)} rows; expected the "
            f"columns {EVENT_COLUMNS}."
        )
    rows = list(_parsed(run, lines[1:], facts.sfreq))
    for kind in TRIAL_TYPES:
        count = sum(row[3] == kind for row in rows)
        if count not in facts.run_trials(kind):
            allowed = " or ".join(map(str, facts.run_trials(kind)))
            raise DataError(f"'{run.events}' has {count} trials of type '{kind}'; a run of this corpus has {allowed}.")
    return rows


def _parsed(run: Run, lines: Sequence[str], sfreq: float) -> Iterator[tuple]:
    """Rows of a table of events after checks of each."""
    previous = -1
    for row, line in enumerate(lines, 1):
        fields = dict(zip(EVENT_COLUMNS, line.split("\t"), strict=False))
        kind = fields.get("trial_type")
        if kind not in TRIAL_TYPES:
            raise DataError(
                f"'{run.events}', row {row}: allowed trial types are 'exp', 'test' and 'catch', but got {kind!r}."
            )
        try:
            onset, sample = number(fields["onset"]), int(number(fields["sample"]))
            value = -1 if kind == "catch" else int(number(fields["value"]))
            category = -1 if kind == "catch" else int(number(fields["things_category_nr"]))
        except (KeyError, ValueError, OverflowError) as error:
            raise DataError(
                f"'{run.events}', row {row}: '{line}' lacks an onset, a sample or the number of its image and concept."
            ) from error
        if not abs(onset * sfreq - sample) <= 1:
            raise DataError(f"'{run.events}', row {row}: onset {onset} s is not sample {sample} at {sfreq:g} Hz.")
        if sample <= previous:
            raise DataError(
                f"'{run.events}', row {row}: sample {sample} comes after {previous}; the rows were reordered."
            )
        previous = sample
        yield run.subject, run.session, run.run, kind, value, category, sample


def read_attributes(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Table of a subject's trials, checked for columns and trial types.

    Raises:
        DataError: If it is not downloaded, no table, lacks a column or has an unknown trial type.
    """
    import pandas as pd

    try:
        table = pd.read_csv(io.StringIO(read_text(path, what="table of comma-separated values")))
    except (pd.errors.ParserError, ValueError, OverflowError) as error:
        raise DataError(f"'{path}' is no table of comma-separated values: {error}.") from error
    missing = [name for name in columns if name not in table]
    if missing:
        raise DataError(f"'{path}' lacks the columns {missing}; it has {list(table.columns)}.")
    unknown = set(table.trial_type) - set(TRIAL_TYPES)
    if unknown:
        raise DataError(
            f"'{path}': allowed trial types are 'exp', 'test' and 'catch', but got {sorted(map(str, unknown))}."
        )
    return table


def attribute_trials(raw_dir: Path, subject: int) -> pd.DataFrame:
    """Trials of the derivative by `sourcedata/sample_attributes_P{k}.csv`; columns as in [`run_trials`].

    Raises:
        DataError: If the file is missing, lacks a column or a number, or its rows are not in the order of recording.
    """
    import pandas as pd

    path = attribute_path(raw_dir, subject)
    table = read_attributes(path, ATTRIBUTE_COLUMNS)
    shown = table.trial_type != "catch"
    numbers = ["things_image_nr", "things_category_nr"]
    table[numbers] = table[numbers].where(shown, -1)
    for name in [*numbers, "session_nr", "run_nr"]:
        values = pd.to_numeric(table[name], errors="coerce")
        bad = ~(values % 1 == 0)  # also true for NaN
        if bad.any():
            row = int(bad.argmax())
            raise DataError(f"'{path}', row {row + 1}: {name} is '{table[name][row]}'; expected a whole number.")
        table[name] = values.astype(int)
    if (1000 * table.session_nr + table.run_nr).diff().min() < 0:
        raise DataError(f"'{path}': sessions and runs are not in the order of recording. The table was reordered.")
    return pd.DataFrame({
        "subject": subject, "session": table.session_nr, "run": table.run_nr, "trial_type": table.trial_type,
        "value": table.things_image_nr, "category": table.things_category_nr, "sample": -1, "trial": range(len(table)),
    })  # fmt: skip


def attribute_path(raw_dir: Path, subject: int) -> Path:
    """Table of a subject's trials."""
    return raw_dir / "sourcedata" / f"sample_attributes_P{subject}.csv"


def session_events(raw_dir: Path, subject: int, session: int, facts: CorpusFacts) -> pd.DataFrame | None:
    """Events of a whole session as in [`run_trials`], `None` where files of it are not there."""
    runs = [_run(raw_dir, (subject, session, run), set()) for run in range(1, facts.n_runs + 1)]
    return run_trials(runs, facts) if all(is_downloaded(run.events) for run in runs) else None


def check_agreement(raw_dir: Path, subjects: Sequence[int], sessions: Sequence[int], facts: CorpusFacts) -> None:
    """Compare the table of each subject with the events of that subject's sessions, row by row.

    Both list the same presentations in the same order, so a table that was reordered, or swapped with that of another
    subject, shows. Sessions for which one of the two is not there are passed over.

    Raises:
        DataError: If they disagree.
    """
    for subject in subjects:
        path = attribute_path(raw_dir, subject)
        if not is_downloaded(path):
            continue
        table = attribute_trials(raw_dir, subject)
        for session in sessions:
            events = session_events(raw_dir, subject, session, facts)
            if events is None:
                continue
            columns = ["trial_type", "value", "category"]
            left = list(table.loc[table.session == session, columns].itertuples(index=False, name=None))
            right = list(events[columns].itertuples(index=False, name=None))
            wrong = [row for row, (one, other) in enumerate(zip(left, right, strict=False), 1) if one != other]
            if wrong or len(left) != len(right):
                raise DataError(
                    f"'{path}' has {len(left)} rows of session {session}, and the events of "
                    f"sub-BIGMEG{subject}/ses-{session:02d} have {len(right)}; {len(wrong)} differ"
                    + (f", first row {wrong[0]}" if wrong else "")
                    + ". One of them was reordered or belongs to another subject or version."
                )
