"""What was shown to a subject of THINGS-fMRI, trial by trial, as both releases of the betas tell it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from neural_clip.corpora.declared import path_inside
from neural_clip.corpora.things_fmri.facts import KINDS, CorpusFacts, Trial, check_trials
from neural_clip.corpora.things_fmri.layout import delimiter, table_file, volume_files
from neural_clip.errors import DataError
from neural_clip.files.tables import read_columns, whole_number

COLUMNS = ("trial_type", "session", "run", "subject_id", "trial_id", "stimulus", "concept")
CATCH = re.compile(r"catch\d+\.\w+")  # catch trials show no object, so their images are in no folder of a concept
STEM = re.compile(r"[^/\\]+_\d+[a-z]*")  # `hula_hoop_16s`


def table_trials(raw_dir: Path, subject: int, facts: CorpusFacts) -> tuple[list[Trial], Path]:
    """Trials of `StimulusMetadata.csv`, whose row i is column i of the betas; and the file.

    Raises:
        DataError: If the file is absent, damaged, of another subject or in another order, or a row contradicts itself
            or the published counts.
    """
    path, trials = table_file(raw_dir, subject, "stimuli"), []
    last = (0, 0, -1)
    for line, cells in read_columns(path, COLUMNS, delimiter(path)):
        kind, *_, file, folder = cells
        numbers = zip(COLUMNS[1:5], cells[1:5], strict=True)
        session, run, of, trial_id = (whole_number(path, line, name, text) for name, text in numbers)
        if of != subject:
            raise DataError(f"'{path}': line {line} is of subject {of}, not of {subject}. Is it another one's file?")
        if kind not in KINDS:
            raise DataError(f"'{path}': line {line} is a {kind!r} trial; allowed are 'train' and 'test'.")
        anew = () if last[:2] == (session, run) else (0, 1)
        if trial_id not in (last[2] + 1, *anew):
            raise DataError(
                f"'{path}': line {line} is trial {trial_id}, but trial {last[2] + 1} should follow. Row i belongs to "
                "column i of the betas, so rows must not be sorted or left out."
            )
        last = session, run, trial_id
        trials.append(_trial(path, line, session, run, kind, file, folder))
    check_trials(path, trials, facts)
    return trials, path


def volume_trials(raw_dir: Path, subject: int, facts: CorpusFacts) -> tuple[list[Trial], dict[int, dict], list[Path]]:
    """Trials of `conditions.tsv` of all runs, without catch trials.

    Returns:
        `tuple`: Trials; by session and run the file of betas and the places of its volumes that are kept, of how
        many; and the files of conditions.

    Raises:
        DataError: If a file is absent or damaged, or the images contradict the published counts.
    """
    shown: list[tuple[Path, int, int, int, str]] = []
    runs: dict[int, dict] = {}
    tables = []
    for session in range(1, facts.n_sessions + 1):
        n_catch, runs[session] = 0, {}
        for run in range(1, facts.n_runs + 1):
            betas, path = volume_files(raw_dir, subject, session, run)
            names = [(line, cells[0]) for line, cells in read_columns(path, ["image_filename"], delimiter(path))]
            kept = [place for place, (_, name) in enumerate(names) if not CATCH.fullmatch(name)]
            shown += [(path, names[place][0], session, run, names[place][1]) for place in kept]
            runs[session][run] = (betas, kept, len(names))
            n_catch += len(names) - len(kept)
            tables.append(path)
        if n_catch != facts.n_catch:
            raise DataError(
                f"The conditions of session {session} in '{tables[-1].parent}' have {n_catch} catch trials; "
                f"THINGS-fMRI has {facts.n_catch} a session."
            )
    times = Counter(name for *_, name in shown)
    trials = []
    for path, line, session, run, name in shown:
        folder, _, file = name.rpartition("/")
        kind = "test" if times[name] > 1 else "train"
        trials.append(_trial(path, line, session, run, kind, file, folder))
    check_trials(tables[0].parent.parent, trials, facts)
    return trials, runs, tables


def _trial(path: Path, line: int, session: int, run: int, kind: str, file: str, folder: str) -> Trial:
    """A trial, of whose image the file name and the concept must agree.

    The published folder of three test images is the first word of their concept (`hula` of `hula_hoop_16s.jpg`).
    """
    path_inside(path.parent, file, path)
    trial = Trial(session, run, kind, file.rpartition(".")[0], file, folder)
    if not STEM.fullmatch(trial.image_id):
        raise DataError(f"'{path}': line {line} names the image {file!r}; allowed are names like 'hula_hoop_16s.jpg'.")
    if folder != trial.concept and not (folder and trial.concept.startswith(f"{folder}_")):
        raise DataError(
            f"'{path}': line {line} says that {file!r} is of {folder!r}; by its name it is of {trial.concept!r}. Were "
            "rows or columns mixed up?"
        )
    return trial
