"""The files of THINGS-MEG (OpenNeuro ds004212) but the signals: layout, events, stimuli, categories, and their checks.

Facts below were counted on the real metadata of version 3.0.0 and are checked against every real folder; a simulated
twin (`SIMULATED.json`) states its own.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from neural_clip.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "BROKEN_SENSOR", "MEG_NAME", "N_CHANS", "RAW_SFREQ", "Run", "Stimuli", "attribute_trials", "check_downloaded",
    "check_recording", "check_version", "find_runs", "run_trials",
]  # fmt: skip

SUBJECTS = (1, 2, 3, 4)
N_SESSIONS, N_RUNS = 12, 10
TRIALS_PER_SESSION = {"exp": 1854, "test": 200, "catch": 200}
N_CONCEPTS = 1854
RAW_SFREQ = 1200.0  # Hz
N_CHANS = 271  # 272 gradiometers but the malfunctioning one
BROKEN_SENSOR = "MRO11-1609"
MEG_NAME = re.compile(r"M[LRZ][CFOPT]\d\d-1609")  # channels.tsv calls these OTHER, so names decide
EVENT_COLUMNS = ["onset", "duration", "trial_type", "things_category_nr", "value", "sample"]
TRIAL_COLUMNS = ["subject", "session", "run", "trial_type", "value", "category", "sample"]
MIN_VERSION = (2, 0, 0)  # events come from the optical sensor since then
POINTER_BYTES = 1024  # a git-annex pointer is one line of text
MEG4_HEADER_BYTES = 8
RUN_NAME = re.compile(r"sub-BIGMEG(\d+)_ses-(\d+)_task-main_run-(\d+)_(meg\.ds|events\.tsv)")


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
    if not path.is_file():
        if required:
            raise DataError(f"'{raw_dir}' is no THINGS-MEG folder: it has no dataset_description.json.")
        return None
    check_downloaded(path)
    try:
        doi = str(json.loads(path.read_text(encoding="utf-8")).get("DatasetDOI", ""))
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise DataError(f"'{path}' is no JSON object: {error}.") from error
    found = re.search(r"ds004212\.v(\d+)\.(\d+)\.(\d+)", doi)
    if found is None or tuple(map(int, found.groups())) < MIN_VERSION:
        raise DataError(
            f"'{path}': DatasetDOI is '{doi}', but version 2.0.0 or later of ds004212 is needed. Earlier events come "
            "from triggers, not from the optical sensor."
        )
    return ".".join(found.groups())


def check_downloaded(path: Path) -> None:
    """Raise a `DataError` if a file is missing, a dangling link or a git-annex pointer."""
    hint = "get it with `datalad get` in its folder or `openneuro download` (ds004212)"
    if path.is_dir():
        return
    if not path.is_file():
        state = "is a link to a file that was not downloaded" if path.is_symlink() else "was not downloaded"
        raise DataError(f"'{path}' {state}: {hint}.")
    if path.stat().st_size < POINTER_BYTES:
        with path.open("rb") as file:
            if b"/annex/objects/" in file.read(POINTER_BYTES):
                raise DataError(f"'{path}' was not downloaded (it is a git-annex pointer): {hint}.")


def _is_downloaded(path: Path) -> bool:
    try:
        check_downloaded(path)
    except DataError:
        return False
    return True


def find_runs(
    raw_dir: Path, subjects: Sequence[int] | None, sessions: Sequence[int] | None, *, simulated: bool
) -> list[Run]:
    """All runs of the chosen subjects and sessions, in order of recording.

    Hidden files (`._*`, `.DS_Store`) are ignored.

    Args:
        raw_dir (`Path`): BIDS root.
        subjects, sessions (`Sequence[int]`, *optional*): Numbers to read; all if not given.
        simulated (`bool`): Whether the folder states its own counts.

    Raises:
        DataError: If a subject, session or run that was asked for (by default all) or an events file is missing.
    """
    files: dict[tuple[int, int, int], dict[str, Path]] = {}
    for path in sorted(raw_dir.glob("sub-BIGMEG*/ses-*/meg/*")):
        match = RUN_NAME.fullmatch(path.name)  # hidden files do not match
        if match:
            key = (int(match[1]), int(match[2]), int(match[3]))
            files.setdefault(key, {})[match[4]] = path
    if not files:
        raise DataError(
            f"'{raw_dir}' holds no runs: expected sub-BIGMEG1/ses-01/meg/sub-BIGMEG1_ses-01_task-main_run-01_meg.ds"
        )
    present = sorted({key[0] for key in files})
    wanted = list(subjects or (present if simulated else SUBJECTS))
    known_sessions = sorted({key[1] for key in files}) if simulated else range(1, N_SESSIONS + 1)
    runs = []
    for subject in wanted:
        for session in sessions or known_sessions:
            keys = sorted(key for key in files if key[:2] == (subject, session))
            if not keys or (not simulated and len(keys) != N_RUNS):
                expected = "at least one" if simulated else f"{N_RUNS}"
                raise DataError(
                    f"'{raw_dir}/sub-BIGMEG{subject}/ses-{session:02d}/meg' holds {len(keys)} runs, expected "
                    f"{expected}. Present are subjects {present}; choose what you have with --subjects and --sessions."
                )
            runs += [_run(raw_dir, key, files[key]) for key in keys]
    return runs


def _run(raw_dir: Path, key: tuple[int, int, int], paths: dict[str, Path]) -> Run:
    folder = raw_dir / f"sub-BIGMEG{key[0]}" / f"ses-{key[1]:02d}" / "meg"
    stem = f"sub-BIGMEG{key[0]}_ses-{key[1]:02d}_task-main_run-{key[2]:02d}"
    events = paths.get("events.tsv")
    if events is None:
        raise DataError(f"'{folder / stem}_events.tsv' is missing; a recording without events cannot be used.")
    return Run(*key, recording=paths.get("meg.ds", folder / f"{stem}_meg.ds"), events=events)


def run_trials(runs: Iterable[Run], *, sfreq: float, simulated: bool) -> pd.DataFrame:
    """Events of all runs.

    Args:
        runs (`Iterable[Run]`): From [`find_runs`].
        sfreq (`float`): Rate in which the column `sample` counts, in Hz.
        simulated (`bool`): If not, the counts of every session are compared with those of the real corpus.

    Returns:
        `pandas.DataFrame`: A row per event with `subject`, `session`, `run`, `trial` (position within the subject's
        recordings, catch trials included), `trial_type`, `value` and `category` (THINGS numbers from 1; -1 for catch
        trials), `sample` (image onset by the optical sensor).

    Raises:
        DataError: If a file has other columns, an unknown trial type, onsets that contradict the samples, or a session
            has other counts than the real corpus.
    """
    import pandas as pd

    rows = [row for run in runs for row in _events(run, sfreq)]
    trials = pd.DataFrame(rows, columns=TRIAL_COLUMNS)
    trials["trial"] = trials.groupby("subject").cumcount()
    if not simulated:
        counts = trials.groupby(["subject", "session"]).trial_type.value_counts().unstack(fill_value=0)
        for (subject, session), row in counts.iterrows():
            if row.to_dict() != TRIALS_PER_SESSION:
                raise DataError(
                    f"sub-BIGMEG{subject}/ses-{session:02d} has {row.to_dict()} events, but the "
                    f"corpus has {TRIALS_PER_SESSION}."
                )
    return trials


def _events(run: Run, sfreq: float) -> Iterator[tuple]:
    """Events of one run as rows of `TRIAL_COLUMNS`; line by line, for 480 files take a library's parser 20 s."""
    check_downloaded(run.events)
    try:
        header, *lines = run.events.read_text(encoding="utf-8").splitlines()
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"'{run.events}' is no table: {error}.") from error
    if header.split("\t") != EVENT_COLUMNS or not lines:
        raise DataError(
            f"'{run.events}' has the header {header!r} and {len(lines)} rows; expected the columns {EVENT_COLUMNS}."
        )
    for number, line in enumerate(lines, 1):
        fields = dict(zip(EVENT_COLUMNS, line.split("\t"), strict=False))
        kind = fields.get("trial_type")
        if kind not in TRIALS_PER_SESSION:
            raise DataError(
                f"'{run.events}', row {number}: allowed trial types are 'exp', 'test' and 'catch', but got {kind!r}."
            )
        try:
            onset, sample = float(fields["onset"]), int(float(fields["sample"]))
            value = -1 if kind == "catch" else int(float(fields["value"]))
            category = -1 if kind == "catch" else int(float(fields["things_category_nr"]))
        except (KeyError, ValueError, OverflowError) as error:
            raise DataError(
                f"'{run.events}', row {number}: '{line}' lacks an onset, a sample or the number of its image "
                "and concept."
            ) from error
        if not abs(onset * sfreq - sample) <= 1:
            raise DataError(f"'{run.events}', row {number}: onset {onset} s is not sample {sample} at {sfreq:g} Hz.")
        yield run.subject, run.session, run.run, kind, value, category, sample


def attribute_trials(raw_dir: Path, subject: int) -> pd.DataFrame:
    """Trials of the derivative by `sourcedata/sample_attributes_P{k}.csv`; columns as in [`run_trials`].

    Raises:
        DataError: If the file is missing or lacks a column.
    """
    import pandas as pd

    path = attribute_path(raw_dir, subject)
    check_downloaded(path)
    table = pd.read_csv(path)
    needed = ["trial_type", "things_image_nr", "things_category_nr", "session_nr", "run_nr", "image_path"]
    missing = [name for name in needed if name not in table]
    if missing:
        raise DataError(f"'{path}' lacks the columns {missing}; it has {list(table.columns)}.")
    unknown = set(table.trial_type) - set(TRIALS_PER_SESSION)
    if unknown:
        raise DataError(
            f"'{path}': allowed trial types are 'exp', 'test' and 'catch', but got {sorted(map(str, unknown))}."
        )
    shown = table.trial_type != "catch"
    if table.loc[shown, ["things_image_nr", "things_category_nr"]].isna().any(axis=None):
        raise DataError(f"'{path}' has exp or test rows without a THINGS number.")
    return pd.DataFrame({
        "subject": subject, "session": table.session_nr.astype(int), "run": table.run_nr.astype(int),
        "trial_type": table.trial_type, "value": table.things_image_nr.where(shown, -1).astype(int),
        "category": table.things_category_nr.where(shown, -1).astype(int), "sample": -1, "trial": range(len(table)),
    })  # fmt: skip


def attribute_path(raw_dir: Path, subject: int) -> Path:
    """Table of a subject's trials."""
    return raw_dir / "sourcedata" / f"sample_attributes_P{subject}.csv"


@dataclass(frozen=True)
class Stimuli:
    """What the THINGS numbers stand for.

    Args:
        files (`dict[int, str]`): File name (`"coat_rack_13s.jpg"`) by THINGS image number, from 1.
        folder (`Path`): Folder with one folder of images per concept.
        categories (`list[list[str]]`): Categories by THINGS concept number minus 1; `["none"]` where there is none.
    """

    files: dict[int, str]
    folder: Path
    categories: list[list[str]]

    @classmethod
    def read(cls, raw_dir: Path, images_dir: Path | None, subjects: Sequence[int], *, simulated: bool) -> Stimuli:
        """Find file names (in `image_paths.csv` and the subjects' tables, which must agree), images and categories."""
        folder, paths_file = _image_folder(raw_dir, images_dir)
        files = _listed_files(paths_file) if paths_file else {}
        for subject in subjects:
            path = attribute_path(raw_dir, subject)
            if files and not _is_downloaded(path):
                continue  # the list of all images is enough
            if not path.exists() and not path.is_symlink():
                raise DataError(
                    f"The names of the images are unknown: neither '{path}' nor image_paths.csv (in or beside "
                    f"'{folder}') was found. The first is part of ds004212 (sourcedata), the second of the THINGS "
                    "database."
                )
            _merge_files(files, path)
        return cls(files, folder, _read_categories(raw_dir / "sourcedata" / "category_mat_manual.tsv", simulated))

    def describe(self, value: int, category: int) -> dict:
        """Image row of a THINGS image number: `image_id`, `concept`, `categories` and the path of the image."""
        if value not in self.files:
            raise DataError(f"THINGS image number {value} has no file name; numbers 1 to {max(self.files)} are known.")
        if not 1 <= category <= len(self.categories):
            raise DataError(f"THINGS concept number {category} is unknown; allowed are 1 to {len(self.categories)}.")
        file = self.files[value]
        image_id = file.rsplit(".", 1)[0]
        concept = image_id.rsplit("_", 1)[0]  # names hold underscores: coat_rack_13s
        return {
            "image_id": image_id, "concept": concept, "categories": self.categories[category - 1],
            "image": self.folder / concept / file,
        }  # fmt: skip


def _image_folder(raw_dir: Path, images_dir: Path | None) -> tuple[Path, Path | None]:
    """Folder of the concepts' folders, and the list of image paths if there is one."""
    base = images_dir or raw_dir / "images"
    folder = base / "object_images" if (base / "object_images").is_dir() else base
    if not folder.is_dir():
        raise DataError(
            f"'{base}' does not exist. Give the folder of the extracted THINGS images "
            "(object_images/<concept>/<file>.jpg) with --images-dir; the archive and its terms are at osf.io/jum2f."
        )
    for candidate in (base / "image_paths.csv", folder / "image_paths.csv", base.parent / "image_paths.csv"):
        if candidate.is_file():
            return folder, candidate
    return folder, None


def _listed_files(path: Path) -> dict[int, str]:
    """File name by position in THINGS' list, from 1."""
    check_downloaded(path)
    lines = [line.strip().strip('"') for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if lines and not lines[0].lower().endswith((".jpg", ".jpeg")):
        lines = lines[1:]  # a header
    bad = [line for line in lines if not line.lower().endswith((".jpg", ".jpeg"))]
    if bad or not lines:
        raise DataError(
            f"'{path}' must list one .jpg path a line, but has {len(lines)} lines and holds '{(bad or [''])[0]}'."
        )
    return {number: line.rsplit("/", 1)[-1] for number, line in enumerate(lines, 1)}


def _merge_files(files: dict[int, str], path: Path) -> None:
    """Add the file names of a subject's table; two names for one number are an error."""
    import pandas as pd

    check_downloaded(path)
    table = pd.read_csv(path)
    if not {"trial_type", "things_image_nr", "image_path"} <= set(table.columns):
        raise DataError(f"'{path}' lacks trial_type, things_image_nr or image_path; it has {list(table.columns)}.")
    table = table[table.trial_type != "catch"].drop_duplicates(["things_image_nr", "image_path"])
    for value, name in zip(table.things_image_nr, table.image_path, strict=True):
        file = str(name).rsplit("/", 1)[-1]
        known = files.setdefault(int(value), file)
        if known != file:
            raise DataError(f"'{path}': THINGS image number {int(value)} is '{file}', but elsewhere it is '{known}'.")


def _read_categories(path: Path, simulated: bool) -> list[list[str]]:
    """Names of the columns that hold 1, by row; `["none"]` for rows of zeros."""
    check_downloaded(path)
    header, *rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not rows or set(header) <= {"0", "1"} or any(len(row) != len(header) or set(row) - {"0", "1"} for row in rows):
        raise DataError(f"'{path}' must hold a line of category names, then lines of {len(header)} zeros and ones.")
    if not simulated and len(rows) != N_CONCEPTS:
        raise DataError(f"'{path}' has {len(rows)} rows; THINGS has {N_CONCEPTS} concepts.")
    named = [[name for name, flag in zip(header, row, strict=True) if flag == "1"] for row in rows]
    return [names or ["none"] for names in named]


def check_recording(path: Path) -> dict:
    """Check that a `.ds` folder is complete and return header facts.

    Returns:
        `dict`: `sfreq` (Hz), `n_times` (samples of all blocks), `n_chans`.

    Raises:
        DataError: If a file is missing, a git-annex pointer, no CTF file, or truncated; names the file and both sizes.
    """
    stem = path.name[: -len(".ds")]
    header_file, data_file = path / f"{stem}.res4", path / f"{stem}.meg4"
    if not path.is_dir():
        check_downloaded(path)
    for file in (header_file, data_file):
        check_downloaded(file)
    with header_file.open("rb") as stream:
        header = stream.read(1844)  # the fixed part, see simulation/ctf.py
    if len(header) < 1844 or not header.startswith(b"MEG4"):
        raise DataError(
            f"'{header_file}' is no CTF header: it begins with {header[:8]!r} and has {len(header)} of 1844 bytes."
        )
    n_times, n_chans = struct.unpack_from(">ih", header, 1288)
    (sfreq,) = struct.unpack_from(">d", header, 1296)
    (n_blocks,) = struct.unpack_from(">h", header, 1312)
    expected = MEG4_HEADER_BYTES + 4 * n_times * n_chans * n_blocks
    found = data_file.stat().st_size
    if found != expected and not (path / f"{stem}.1_meg4").exists():  # recordings beyond 2 GB go on in a second file
        state = "truncated" if found < expected else "too long"
        raise DataError(
            f"'{data_file}' is {state}: {found} bytes, expected {expected} by its header. Download it again."
        )
    return {"sfreq": sfreq, "n_times": n_times * n_blocks, "n_chans": n_chans}
