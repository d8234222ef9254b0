"""Every help and every refusal of an option in a real process, without the packages that take seconds to load."""

import os
import re
import subprocess
import sys

import pytest

from neural_clip.commands.main import ACTIONS, COMMANDS, main
from neural_clip.prepared.known_corpora import CORPORA
from paths import REPOSITORY

HEAVY = {"torch", "transformers", "datasets", "accelerate", "evaluate", "mne", "pandas", "scipy", "sklearn",
         "matplotlib", "pyarrow", "PIL", "h5py", "nibabel", "gradio"}  # fmt: skip
RUN = """
import atexit, runpy, sys
heavy = set(sys.argv.pop(1).split(","))
atexit.register(lambda: print("loaded:", *sorted(heavy & set(sys.modules)), file=sys.stderr))
sys.argv.pop(0)
if sys.argv[0].endswith(".py"):
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    from neural_clip.commands.main import entry
    entry()
"""
COMMAND_LINES = [[name] for name in COMMANDS if name not in ACTIONS]
COMMAND_LINES += [["prepare", name] for name in (*CORPORA, "custom")]
COMMAND_LINES += [["gallery", name] for name in ("build", "info")]
SCRIPTS = ("alljoined", "imagenet_eeg", "nsd", "things_eeg1", "things_eeg2", "things_fmri", "things_meg")
PROGRAMS = [["train.py"], *[[f"dataset_scripts/{name}.py"] for name in SCRIPTS]]


def run(words, *, heavy=HEAVY):
    """Exit code, stdout, lines of stderr, and what was loaded of the heavy packages."""
    program = words if words[0].endswith(".py") else ["neural-clip", *words]
    done = subprocess.run(
        [sys.executable, "-c", RUN, ",".join(heavy), *program], cwd=REPOSITORY, capture_output=True, text=True,
        timeout=120, env={**os.environ, "COLUMNS": "100"},
    )  # fmt: skip
    *lines, loaded = done.stderr.splitlines()
    return done.returncode, done.stdout, lines, loaded.removeprefix("loaded:").split()


@pytest.mark.parametrize("words", [*COMMAND_LINES, *PROGRAMS], ids=" ".join)
def test_help_loads_nothing_heavy(words):
    code, shown, lines, loaded = run([*words, "--help"])
    assert (code, lines, loaded) == (0, [], [])
    name = words[0].rpartition("/")[2] if words[0].endswith(".py") else " ".join(["neural-clip", *words])
    assert shown.startswith(f"usage: {name} ") and "Options of" not in shown
    assert shown.split("\n\n")[1].strip(), "it has no description"


def test_an_option_is_a_switch_in_all_commands_or_in_none(monkeypatch, capsys):
    """And the image encoder is called alike."""
    monkeypatch.setenv("COLUMNS", "200")
    switches, valued, of_encoders = set(), set(), set()
    for words in COMMAND_LINES:
        if words == ["train"]:  # its settings are those of a recipe
            continue
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        shown = capsys.readouterr().out
        for name, value, told in re.findall(r"^  (--[\w-]+)(?:, --no-[\w-]+)?( \S+)?(.*)", shown, re.M):
            (valued if value else switches).add(name)
            of_encoders |= {name} if "image encoder" in told else set()
    assert {"--overwrite", "--pictures"} <= switches and {"--images-dir", "--model"} <= valued
    assert not switches & valued and of_encoders == {"--model"}


def test_loaded_packages_are_noticed(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import json, csv")
    assert run([str(program)], heavy={"json", "csv", "torch"}) == (0, "", [], ["csv", "json"])


BAD = [
    (["simulate", "--preset", "tni"], "argument --preset: invalid choice: 'tni'", "Did you mean 'tiny'?"),
    (["doctor", "--jsn", "x"], "There is no option '--jsn'.", "Did you mean '--json'?"),
    (["embed-images", "x", "--batch-size", "many"], "argument --batch-size: Allowed is a whole number", "'many'"),
    (["adapt", "--chekpoint", "x"], "There is no option '--chekpoint'.", "Did you mean '--checkpoint'?"),
    (["evaluate", "--checkpoint", "x", "--data", "eeg=x", "--output-dir", "x", "--split", "tset"],
     "argument --split: invalid choice: 'tset'. Allowed values are 'train', 'validation' and 'test'.",
     "Did you mean 'test'?"),
    (["evaluate", "--checkpoint", "x", "--data", "eeg=x", "--output-dir", "x", "--batch-size", "0"],
     "'--batch-size' parameter. Allowed is 1 and more", "got 0"),
    (["simulate", "--output-dir", "x", "--seed", "-1"], "'--seed' parameter. Allowed is 0 and more", "got -1"),
    (["adapt", "--checkpoint", "x", "--data", "eeg=x", "--output-dir", "x", "--epochs", "0"],
     "'--epochs' parameter. Allowed is 1 and more", "got 0"),
    (["report", "x", "--no-picture"], "There is no option '--no-picture'.", "Did you mean '--no-pictures'?"),
    (["run", "x", "--output-dir", "y", "--epoch", "2"], "There is no option '--epoch'.", "Did you mean '--epochs'?"),
    (["run", "x", "--output-dir", "y", "--seed", "-1"], "'--seed' parameter. Allowed is 0 and more", "got -1"),
    (["run", "--output-dir", "y"], "required: SOURCE", ""),
    (["demo", "--epochs", "two"], "argument --epochs: Allowed is a whole number", "'two'"),
    (["push", "x", "--repository", "a/b"], "There is no option '--repository'.", "Did you mean '--repo'?"),
    (["prepare", "nsd", "--raw-dir", "x", "--outputdir", "y"], "no option '--outputdir'.", "'--output-dir'?"),
    (["prepare", "imagenet_eeg", "--raw-dir", "x", "--output-dir", "y", "--variant", "rwa"],
     "argument --variant: invalid choice: 'rwa'", "Did you mean 'raw'?"),
    (["prepare", "things_meg", "--raw-dir", "x", "--output-dir", "y", "--subjects", "first"],
     "argument --subjects: subjects are given like", "'first'"),
    (["prepare", "custom", "x"], "required: --output-dir", ""),
    (["train", "dmo"], "'dmo' is no file, and no recipe of this package", "Did you mean 'demo'?"),
    (["train", "demo", "--resum"], "'--resum' has no value.", "Did you mean 'resume'?"),
    (["train", "demo", "--data", "egg=x"], "Allowed are eeg=FOLDER, meg=FOLDER and fmri=FOLDER", "'egg=x'"),
    (["train.py", "demo", "--data.egg", "x"], "Unknown key 'egg' in the recipe's 'data' section.", "Did you mean"),
    (["train.py", "--data", "eeg=x", "base"], "Allowed are eeg=FOLDER, meg=FOLDER and fmri=FOLDER", "'base'"),
    (["train", "--seed", "1", "base"], "Unexpected argument 'base'; a recipe comes first", ""),
    (["train"], "Give data sets by `--data MODALITY=FOLDER ...`, or a recipe.", "`neural-clip train --help` explains"),
    (["train.py"], "Give data sets by `--data ", ""),
    (["train", "base", "--data", "data/mine"], "Allowed is MODALITY=FOLDER", "but got 'data/mine' instead"),
    (["train", "--seed", "1"], "'data' section is empty", "`--data eeg=FOLDER`"),
    (["train", "--min-steps", "-1", "--data", "eeg=x"], "'min_steps' parameter. Allowed is a whole number", "got -1"),
    (["train", "demo", "--dat", "eeg=x", "meg=y"], "Unexpected argument 'meg=y'", ""),
    (["decode", "x", "--gallery", "y", "--checkpoint", "z", "--calibrate", "cls"],
     "argument --calibrate: invalid choice: 'cls'. Allowed values are 'csls'.", "Did you mean 'csls'?"),
    (["decode", "x", "--galery", "y"], "There is no option '--galery'.", "Did you mean '--gallery'?"),
    (["decode", "x", "--gallery", "y", "--checkpoint", "z", "--top-k", "0"],
     "'--top-k' parameter. Allowed is 1 and more", "got 0"),
    (["decode", "x", "--gallery", "y", "--checkpoint", "z", "--rows", "-1"],
     "'--rows' parameter. Allowed is 0 and more", "got -1"),
    (["convert", "x", "--gallery", "y", "--checkpoint", "z"], "required: --to", ""),
    (["convert", "x", "--gallery", "y", "--checkpoint", "z", "--to", "mge"], "invalid choice: 'mge'", "'meg'?"),
    (["encode", "x", "--checkpoint", "z"], "required: --gallery", ""),
    (["search", "--gallery", "y", "--checkpoint", "z"], "required: TEXT", ""),
    (["gallery", "build", "x", "--checkpoint", "z", "--output-dir", "y", "--dtype", "float61"],
     "argument --dtype: invalid choice: 'float61'", "Did you mean 'float16'?"),
    (["gallery", "inof"], "Invalid value for the 'action' parameter", "Did you mean 'info'?"),
    (["embed-recordings", "x", "--checkpoint", "z"], "required: --output-file", ""),
    (["evalute"], "but got 'evalute' instead.", "Did you mean 'evaluate'?"),
    (["prepare", "nds"], "but got 'nds' instead.", "Did you mean 'nsd'?"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "told", "hint"), BAD, ids=[" ".join(words) for words, *_ in BAD])
def test_refusals_are_one_line_and_load_nothing_heavy(words, told, hint):
    code, shown, lines, loaded = run(words)
    assert (code, shown, loaded) == (2, "", [])
    (line,) = lines
    assert line.startswith("error: ") and told in line and hint in line


OLD = [
    (["evaluate", "--checkpoint", "x", "--data", "eeg=gone", "--output-dir", "x", "--no-audits"],
     "'--no-audits' is an old spelling; write '--no-controls'."),
    (["evaluate", "--checkpoint", "x", "--data", "eeg=gone", "--output_dir", "x"],
     "'--output_dir' is an old spelling; write '--output-dir'."),
    (["push", "gone", "--repo", "a/b", "--revision-message", "x"],
     "'--revision-message' is an old spelling; write '--message'."),
    (["prepare", "imagenet_eeg", "--raw-dir", "gone", "--output-dir", "x", "--image-dir", "y"],
     "'--image-dir' is an old spelling; write '--images-dir'."),
    (["dataset_scripts/things_meg.py", "--raw-dir", "gone", "--output-dir", "x", "--split", "large"],
     "'--split' is an old spelling; write '--split-protocol'."),
    (["train", "gone", "--overwrite", "true"],
     "'--overwrite true' is an old spelling; write '--overwrite'."),
    (["train.py", "gone", "--resume", "true"],
     "'--resume true' is an old spelling; write '--resume'."),
]  # fmt: skip


@pytest.mark.parametrize(("words", "told"), OLD, ids=[" ".join(words) for words, _ in OLD])
def test_old_spellings_warn_in_one_line_and_go_on(words, told):
    """Each goes on to a file that is not there."""
    code, _, lines, _ = run(words)
    assert code == 2
    assert lines[0] == f"warning: {told}"
    assert lines[-1].startswith("error: ") and "option" not in lines[-1] and "gone" in lines[-1]
