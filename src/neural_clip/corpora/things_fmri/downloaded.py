"""What of THINGS-fMRI is there, of a download that is not complete: people, and of volumes their sessions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neural_clip.corpora.things_fmri.facts import CorpusFacts
from neural_clip.corpora.things_fmri.layout import (
    FILES,
    brain_mask_file,
    find_table_file,
    name_of,
    volume_places,
)
from neural_clip.corpora.things_fmri.options import ThingsFmriOptions
from neural_clip.corpora.things_meg.layout import is_downloaded


def downloaded_sessions(
    raw_dir: Path, subjects: Sequence[int], sessions: Sequence[int], facts: CorpusFacts, options: ThingsFmriOptions
) -> tuple[dict[int, list[int]], list[Path]]:
    """Sessions that can be read of each subject; somebody of whom there is none is left out.

    Args:
        raw_dir (`Path`): The folder.
        subjects, sessions (`Sequence[int]`): Those that are asked for.
        facts (`CorpusFacts`): Of the corpus.
        options ([`ThingsFmriOptions`]): Route and regions.

    Returns:
        `tuple`: Sessions by subject, and the files that are absent or pointers of git-annex. Where nobody can be read,
        all are given, and their reader says what is wrong.
    """
    found: dict[int, list[int]] = {}
    lacking: list[Path] = []
    for subject in subjects:
        shared, betas = _tables(raw_dir, subject) if options.route == "table" else _volumes(
            raw_dir, subject, sessions, facts, with_regions=tuple(options.roi) != ("brain",)
        )  # fmt: skip
        absent = [path for path in shared if not is_downloaded(path)]
        of_session = {session: [path for path in betas.get(session, []) if not is_downloaded(path)]
                      for session in sessions}  # fmt: skip
        lacking += [*absent, *(path for paths in of_session.values() for path in paths)]
        if not absent and (own := [session for session, paths in of_session.items() if not paths]):
            found[subject] = own
    return (found, lacking) if found else ({subject: list(sessions) for subject in subjects}, [])


def _tables(raw_dir: Path, subject: int) -> tuple[list[Path], dict[int, list[Path]]]:
    """Files that all sessions need; tables have none of a session."""
    usual = {kind: raw_dir / "betas_csv" / f"{name_of(subject)}_{names[0]}" for kind, names in FILES.items()}
    return [find_table_file(raw_dir, subject, kind) or path for kind, path in usual.items()], {}


def _volumes(
    raw_dir: Path, subject: int, sessions: Sequence[int], facts: CorpusFacts, *, with_regions: bool
) -> tuple[list[Path], dict[int, list[Path]]]:
    """The mask, the lists of all runs and the table of regions, which all sessions need; and betas by session."""
    name, runs = name_of(subject), range(1, facts.n_runs + 1)
    shared = [brain_mask_file(raw_dir, subject) or raw_dir / "brainmasks" / f"{name}_space-T1w_brainmask.nii.gz"]
    if with_regions:
        table = find_table_file(raw_dir, subject, "voxels")
        shared.append(table or raw_dir / "betas_csv" / f"{name}_{FILES['voxels'][0]}")
    places = {
        session: [volume_places(raw_dir, subject, session, run) for run in runs]
        for session in range(1, facts.n_sessions + 1)
    }
    shared += [conditions for files in places.values() for _, conditions in files]
    return shared, {session: [betas for betas, _ in places[session]] for session in sessions}
