"""Leave each person out in turn: train on all others, test on the person whom the model has never seen.

SOURCE is a prepared data set of EEG or MEG whose images are embedded. For each person a model is trained on the
training recordings of the others, the best by their validation recordings, and the test recordings of the person go
through the average subject; baselines are fitted without the person too. Every fold is a folder of its own. The same
command, given again, goes on where it was interrupted and keeps finished folds, if data, recipe and options are the
same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from neural_clip.commands.options import ClusterOptions, read_options, words_of
from neural_clip.files.places import place_line
from neural_clip.options import option
from neural_clip.parallel import on_cluster
from neural_clip.workflow.options import LeaveOutOptions


@dataclass
class Places:
    """What is read and where it goes."""

    source: str = option(MISSING, "prepared data set", positional=True, metavar="SOURCE")
    output_dir: Path = option(
        MISSING, "folder for a run of each person, and people.json, people.md, people.html", type=Path
    )


def main(argv: Sequence[str] | None = None) -> dict:
    """Run `neural-clip leave-one-person-out`; returns what `people.json` holds."""
    given, options, where = read_options(
        "leave-one-person-out", __doc__, argv, Places, LeaveOutOptions, ClusterOptions
    )
    from neural_clip.files.bars import only_our_bars
    from neural_clip.files.privacy import shared_command
    from neural_clip.report.people import print_people
    from neural_clip.workflow.people import PEOPLE_FILE, leave_one_person_out

    only_our_bars()
    command = shared_command("neural-clip leave-one-person-out", words_of(argv))
    with on_cluster(where.cluster):
        record = leave_one_person_out(given.source, given.output_dir, options, command=command)
    print_people(record)
    for name, text in ((PEOPLE_FILE, "numbers"), ("people.md", "report"), ("people.html", "page")):
        print(place_line(text, given.output_dir / name))
    return record
