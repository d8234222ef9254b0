"""The console command `neural-clip`: finds the program behind each subcommand and hands the arguments on.

Programs are imported only when called, so that `neural-clip --help` answers at once.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from neural_clip.commands.interruption import told_how_to_go_on
from neural_clip.errors import DataError, check_option, run
from neural_clip.files.privacy import no_secrets_told
from neural_clip.prepared.known_corpora import CORPORA

# name at the shell -> (module with `main(argv)`, one line of help); those of `ACTIONS` take a word first
COMMANDS = {
    "simulate": ("neural_clip.commands.simulate", "write simulated twins of the corpora in their raw formats"),
    "prepare": ("neural_clip.commands.prepare", "turn a raw corpus folder into a data set for `load_dataset`"),
    "doctor": ("neural_clip.commands.doctor", "examine a prepared data set for leaks and defects"),
    "embed-images": ("neural_clip.commands.embed_images", "add CLIP embeddings of the images to a prepared data set"),
    "train": ("neural_clip.commands.train", "train a model from a recipe"),
    "adapt": ("neural_clip.commands.adapt", "fit alignment layers for new subjects"),
    "evaluate": ("neural_clip.commands.evaluate", "score decoding, encoding and conversion on the test splits"),
    "report": ("neural_clip.commands.report", "write text, page and pictures from report.json"),
    "decode": ("neural_clip.commands.decode", "find the images that recordings look like"),
    "encode": ("neural_clip.commands.encode", "find the recordings that answer to images"),
    "convert": ("neural_clip.commands.convert", "find recordings of another modality that answer to recordings"),
    "search": ("neural_clip.commands.search", "find images or recordings that answer to words"),
    "gallery": ("neural_clip.commands.gallery", "embed what is searched once and save it, or tell what is saved"),
    "embed-recordings": ("neural_clip.commands.embed_recordings", "write vectors of all recordings as Parquet"),
    "run": ("neural_clip.commands.run", "run everything, from a manifest or data sets to a page of scores"),
    "leave-one-person-out": (
        "neural_clip.commands.leave_one_person_out",
        "train without each person in turn, and test on that person",
    ),
    "demo": ("neural_clip.commands.demo", "run everything, from raw files to scores, on simulated recordings"),
    "app": ("neural_clip.commands.app", "open a page on which a checkpoint is tried"),
    "push": (
        "neural_clip.commands.push",
        "send a data set, a checkpoint or a gallery to the Hub, private unless you say otherwise",
    ),
}
PREPARES = {name: corpus.title for name, corpus in CORPORA.items()}
PREPARES["custom"] = "your own recordings with images or ready-made embeddings"
# commands whose first argument says what they do: what stands for it, its name in messages, and all of them
ACTIONS = {
    "prepare": ("CORPUS", "corpus", PREPARES),
    "gallery": (
        "ACTION", "action",
        {"build": "embed images or recordings and save them", "info": "tell what a saved gallery holds"},
    ),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> object:
    """Run one subcommand.

    Args:
        argv (`Sequence[str]`, *optional*): Arguments without the program's name; `sys.argv[1:]` by default.

    Returns:
        `object`: Whatever the subcommand's `main` returns; `None` after help or version.

    Raises:
        DataError: If the command or the corpus does not exist; the nearest name is suggested.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_listing("neural-clip", "COMMAND", {name: text for name, (_, text) in COMMANDS.items()}))
        return None
    if arguments[0] in ("-V", "--version"):
        print(f"neural-clip {version('neural_clip')}")
        return None
    name, *rest = arguments
    check_option("command", name, COMMANDS)
    program, action = f"neural-clip {name}", []
    if name in ACTIONS:
        placeholder, parameter, known = ACTIONS[name]
        if not rest or rest[0] in ("-h", "--help"):
            print(_listing(program, placeholder, known))
            return None
        given, *rest = rest
        action = [given if given.startswith("-") else given.replace("-", "_")]
        check_option(parameter, action[0], known)
        program = f"{program} {action[0]}"
    before = sys.argv
    sys.argv = [program, *rest]  # argparse reads the program's name there
    try:
        with no_secrets_told(rest), told_how_to_go_on(name):
            return importlib.import_module(COMMANDS[name][0]).main(*action, rest)
    finally:
        sys.argv = before


def entry() -> None:
    """Console entry point: `main`, with bad input shown as one line on stderr and exit code 2."""
    run(_typed)


def _typed(argv: Sequence[str] | None) -> object:
    """As [`main`]; messages call options as they are typed."""
    try:
        return main(argv)
    except DataError as error:
        from neural_clip.commands.options import as_typed

        error.args = (as_typed(str(error)),)
        raise


def _listing(program: str, placeholder: str, table: Mapping[str, str]) -> str:
    """Return the help text of a table of commands."""
    width = max(map(len, table)) + 2
    rows = "\n".join(f"  {name:<{width}}{text}" for name, text in table.items())
    return (
        f"usage: {program} {placeholder} [options]\n\n{rows}\n\n"
        f"'{program} {placeholder} --help' explains the options of each."
        + ("\n'neural-clip --version' prints the version." if program == "neural-clip" else "")
    )


if __name__ == "__main__":
    entry()
