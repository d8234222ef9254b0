"""The attack (`tests/attack`) sees each kind of fault: planted readers and writers that do wrong are counted."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attack.cases import Attack
from attack.damage import GUARDS
from attack.kills import Kills, Writer
from attack.run import REPOSITORY
from attack.targets import Target
from neural_clip.errors import DataError
from neural_clip.files.whole import whole_folder, write_whole

MB = 2**20


def write_source(folder, seed):
    (folder / "note").mkdir()
    (folder / "note" / "facts.npy.json").write_text(json.dumps({"values": list(range(40 + seed)), "name": "facts"}))


def undamaged():
    try:
        return json.loads(Path("note/facts.npy.json").read_text())["values"] == list(range(40))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def strict():
    if not undamaged():
        raise DataError("'note/facts.npy.json' is damaged.")
    return {"values": "all"}


def planted(wrong):
    """A reader that is right for undamaged input, and otherwise does what it must not."""

    def run():
        return {"values": "all"} if undamaged() else wrong()

    return run


def nameless():
    raise DataError("Something is wrong.")


def quoting():
    raise DataError("Invalid value for the 'values' parameter of 'sub-01'.")


def leave_output():
    Path("out").mkdir()
    raise DataError("'note/facts.npy.json' is damaged.")


def remove_input():
    shutil.rmtree("note")
    raise DataError("'note/facts.npy.json' is damaged.")


def eat_memory():
    held = bytearray(os.urandom(MB)) * 400
    time.sleep(0.5)
    return {"values": len(held)}


@pytest.fixture(scope="module", autouse=True)
def imported():
    import datasets  # noqa: F401  # once, not in each forked process


def attack(tmp_path, run, guard="sealed", first=0, count=4, hang_s=20.0):
    targets = [Target("planted", "note", {"note/*": guard}, run)]
    (tmp_path / "work").mkdir()
    made = Attack(
        targets,
        3,
        tmp_path / "work",
        tmp_path / "kept",
        sources={"note": write_source},
        memory=150 * MB,
        hang_s=hang_s,
    )
    made.make()
    return made.run(first, count, time.monotonic() + 100, workers=2)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: {}["absent"], "KeyError at test_attack.py"),
        (lambda: ctypes.string_at(0), "died by signal SIGSEGV"),
        (lambda: os._exit(3), "ended without an answer"),
        (lambda: time.sleep(60), "hung"),
        (eat_memory, " GB"),
        (lambda: {"values": "others"}, "other values without a word: ['values']"),
        (lambda: {"values": "not finite"}, "results that are not finite"),
        (nameless, "names no file"),
        (quoting, "names no file"),
        (leave_output, "left ['out']"),
        (remove_input, "changed ['note'"),
    ],
    ids=[
        "traceback",
        "signal",
        "exit",
        "hang",
        "memory",
        "silent",
        "not finite",
        "nameless",
        "a parameter alone",
        "output",
        "input",
    ],
)
def test_each_kind_of_fault_is_counted_and_its_input_kept(tmp_path, capsys, wrong, words):
    found = attack(tmp_path, planted(wrong), hang_s=1.0 if words == "hung" else 20.0)
    assert found["inputs"] == 4 and found["fault"] >= 1 and found["fault"] + found["right"] == 4
    assert words in capsys.readouterr().out
    kept = [json.loads(path.read_text()) for path in (tmp_path / "kept").glob("3-*/case.json")]
    assert len(kept) == found["fault"] and all(words in entry["why"] for entry in kept)


def test_a_reader_that_names_the_file_has_no_fault(tmp_path, capsys):
    found = attack(tmp_path, strict)
    assert found["error"] >= 2 and found["error"] + found["right"] == 4 and not found["fault"]
    assert "fault" not in capsys.readouterr().out


def test_other_values_are_no_fault_where_nothing_could_tell(tmp_path):
    found = attack(tmp_path, planted(lambda: {"values": "others"}), guard="text", count=20)
    assert found["other"] >= 5 and found["fault"] >= 1  # a file that is gone is told everywhere
    assert GUARDS["text"] == {"missing"}


def test_a_case_is_the_same_when_a_run_goes_on_from_its_number(tmp_path, capsys):
    for name, first, count in (("whole", 0, 5), ("rest", 2, 3)):
        (tmp_path / name).mkdir()
        attack(tmp_path / name, planted(nameless), first=first, count=count)
    lines = [
        sorted(line for line in capsys.readouterr().out.splitlines() if int(line.split(":")[0].split("-")[1]) >= 2)
    ]
    assert len(lines[0]) % 2 == 0 and lines[0][::2] == lines[0][1::2] and lines[0]


def test_only_what_the_cases_read_is_made_and_they_stay_the_same(tmp_path):
    sources = {"note": write_source, "other": write_source}
    targets = [Target(f"of {name}", name, {"note/*": "sealed"}, planted(nameless)) for name in sources]
    kept, made = [], []
    for first, count in ((3, 3), (3, 1), (4, 1), (5, 1)):
        work = tmp_path / f"{first}-{count}"
        work.mkdir()
        found = Attack(targets, 3, work, work / "kept", sources=sources)
        found.make(first, count)
        found.run(first, count, time.monotonic() + 100, workers=2)
        cases = [json.loads(path.read_text()) for path in sorted((work / "kept").glob("3-*/case.json"))]
        kept.append([case | {"peak": None} for case in cases])
        made.append({path.name for path in (work / "sources").iterdir()})
    assert made[0] == {"note_0", "note_1", "other_0", "other_1"}
    assert {frozenset(names) for names in made[1:]} == {frozenset({f"{name}_0", f"{name}_1"}) for name in sources}
    assert kept[0] and [case for cases in kept[1:] for case in cases] == kept[0]


# ---------------------------------------------------------------------------------------------------------- writers


def fill(folder):
    for name in "abc":
        (folder / name).write_text(name * 50)


def whole():
    with whole_folder("out", holds="a", what="thing", overwrite=True) as folder:
        fill(folder)


def in_place():
    Path("out").mkdir(exist_ok=True)
    fill(Path("out"))


def removing_first():
    shutil.rmtree("out")
    whole()


def counting():
    """Its result depends on what an earlier run left."""
    count = len(list(Path().glob("tries-*")))
    Path(f"tries-{count}").touch()
    Path("out").mkdir(exist_ok=True)
    write_whole(Path("out/a"), str(count))


def old():
    Path("out").mkdir()
    Path("out/a").write_text("old")


@pytest.mark.parametrize(
    ("run", "before", "words"),
    [
        (whole, None, ""),
        (whole, old, ""),
        (in_place, old, "neither the old nor the new"),
        (removing_first, old, "the old is gone"),
        (counting, old, "run again, other bytes: ['a']"),
    ],
)
def test_a_kill_shows_what_is_lost(tmp_path, capsys, run, before, words):
    (tmp_path / "kills").mkdir()
    kills = Kills(
        [Writer("planted", "note", run, before=before)], 5, tmp_path / "kills", tmp_path, {"note": write_source}
    )
    found = kills.run(0, 10, time.monotonic() + 100)
    assert found["kills"] >= 5 and bool(found["lost"]) == bool(words)
    assert words in capsys.readouterr().out


@pytest.mark.slow
def test_a_short_attack_ends_with_its_figures(tmp_path):
    command = [
        sys.executable,
        "-m",
        "attack.run",
        "--inputs",
        "12",
        "--kills",
        "3",
        "--only",
        "prepare custom",
        "--kept",
        str(tmp_path),
    ]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": "tests"}, cwd=REPOSITORY, capture_output=True, text=True
    )
    last = done.stdout.splitlines()[-1]
    assert last.startswith("inputs 12, errors ") and "; kills " in last and last.endswith("lost 0"), (
        done.stdout + done.stderr
    )
    assert done.returncode == int("faults 0;" not in last)
