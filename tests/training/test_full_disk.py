"""Training and adapting on a disk that fills up: one sentence, and nothing that was good is lost."""

import json
import re

import pytest

from paths import REPOSITORY
from planted_data import READY, write_planted
from small_disk import run_on_small_disk

# Runs a command over an older checkpoint with some bytes left on the disk, and once more when there is space again.
FILLS = """
import contextlib, io, json, os, shutil, sys
from pathlib import Path
from folder_contents import contents
from neural_clip.commands.main import main
from neural_clip.errors import run
from neural_clip.files.record import check_record

disk, older, *words = sys.argv[1:]
disk = Path(disk)

def end():
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            run(main, [*words, "--output-dir", str(disk / "out"), "--overwrite"])
            return 0, ""
        except SystemExit as stop:
            return stop.code, said.getvalue().rpartition("error: ")[2].strip()  # behind a bar of progress

shutil.copytree(older, disk / "out")
before, found = contents(disk / "out"), []
for left in (0, 60_000, 150_000, 400_000):
    space = os.statvfs(disk)
    (disk / "ballast").write_bytes(bytes(max(space.f_bavail * space.f_bsize - left, 0)))
    code, said = end()
    (disk / "ballast").unlink()
    names = sorted(path.name for path in disk.iterdir())
    found.append({"left": left, "code": code, "said": said, "same": contents(disk / "out") == before, "names": names})
    shutil.rmtree(disk / "out.partial", ignore_errors=True)
code, _ = end()
found.append({"code": code, "whole": bool(check_record(disk / "out")), "new": contents(disk / "out") != before})
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "adapt"])
def test_a_full_disk_is_told_and_keeps_the_older_checkpoint(finished_run, tmp_path, monkeypatch, command):
    recipe, finished = finished_run
    if command == "train":
        words = ["train", recipe, "--seed", "9"]
    else:
        data = write_planted(tmp_path / "three", "eeg", n_subjects=3, pixels=False, encoder=READY)
        words = ["adapt", "--checkpoint", finished, "--data", f"eeg={data}", "--epochs", "2"]
    disk = tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests"))
    done = run_on_small_disk(disk, "8m", FILLS, finished, *words)
    assert done.returncode == 0, done.stderr[-4000:]
    *full, again = json.loads(done.stdout.splitlines()[-1])
    assert again == {"code": 0, "whole": True, "new": True}
    ends = [each for each in full if each["code"] != 0]
    assert len(ends) >= 2, full
    for each in ends:
        assert each["code"] == 2 and each["same"], each
        told = r"cannot be written: no space is left on the device\. What was there before is unchanged\."
        assert re.fullmatch(rf"'{disk}/out[^']*' {told}", each["said"]), each
        assert set(each["names"]) <= {"out", "out.partial"}, each
