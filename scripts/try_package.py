"""Build the sdist and the wheel, compare what they hold with what is tracked, and try the wheel where nothing else is.

    python scripts/try_package.py

The wheel is installed into an environment of its own, which borrows the dependencies of this one. There the commands
run from raw files to a data set with embeddings, so that every kind of data file is read at least once.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BUILD = "from setuptools import build_meta; import sys; build_meta.build_{}(sys.argv[1])"
BESIDE = {"CITATION.cff", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml"}  # of the package, in an sdist
MADE = {"PKG-INFO", "setup.cfg"}  # by setuptools
IMPORT = "import neural_clip; print(neural_clip.__file__)"
COMMANDS = (
    "neural-clip --version",
    "python -m neural_clip train --help",
    "neural-clip simulate --preset tiny --corpora fmri --output-dir raw",
    "neural-clip prepare nsd --raw-dir raw/nsd --output-dir set",
    "neural-clip embed-images set --model neural_clip/tiny-clip",
    "neural-clip train base --data fmri=set --output-dir trained --epochs 1 --min-steps 0",
    "neural-clip demo --preset tiny --epochs 1 --output-dir demo",
)
METRIC = """
import evaluate
from neural_clip.retrieval import METRIC

metric = evaluate.load(METRIC)
assert metric.compute(predictions=[[1.0, 0.0], [0.0, 1.0]], references=[[1.0, 0.0], [0.0, 1.0]])["top1"] == 1.0
"""
BLOCK = re.compile(r"```python\n(.*?)```\n+```\n(.*?)```", re.DOTALL)  # code of README.md and what it prints
SAMPLE_SECONDS = 60  # of a processor, however many share it


def run(*command: str | Path, folder: Path) -> str:
    """Standard output of a command, or the end of this program with all that it said."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=surroundings, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"error: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def check(what: str, found: set[str], expected: set[str]) -> None:
    """End this program unless two lists of files are the same."""
    if found != expected:
        lacks, more = sorted(expected - found), sorted(found - expected)
        sys.exit(f"error: {what} lacks {lacks or 'nothing'} and should not hold {more or 'nothing'}")
    print(f"{what}: {len(found)} files, as they should be")


def build(kind: str, source: Path, target: Path) -> Path:
    """Build in a folder that holds nothing but what it is built of."""
    run(sys.executable, "-c", BUILD.format(kind), target, folder=source)
    return max(target.iterdir(), key=lambda path: path.stat().st_mtime_ns)


def members(wheel: Path) -> set[str]:
    """Files of the package in a wheel."""
    with zipfile.ZipFile(wheel) as file:
        return {name for name in file.namelist() if ".dist-info/" not in name}


def main() -> None:
    """Build, compare and try."""
    tracked = set(run("git", "ls-files", folder=REPOSITORY).splitlines())
    tracked |= set(run("git", "ls-files", "--others", "--exclude-standard", folder=REPOSITORY).splitlines())
    tracked = {name for name in tracked if (REPOSITORY / name).is_file()}
    package = {name.removeprefix("src/") for name in tracked if name.startswith("src/neural_clip/")}
    with tempfile.TemporaryDirectory() as place:
        source, built, work = (Path(place, name) for name in ("source", "built", "work"))
        for folder in (built, work):
            folder.mkdir()
        for name in tracked:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
        sdist = build("sdist", source, built)
        with tarfile.open(sdist) as file:
            file.extractall(work, filter="data")
        unpacked = next(work.iterdir())
        held = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
        expected = {f"src/{name}" for name in package} | (BESIDE & tracked) | MADE
        check(sdist.name, {name for name in held if ".egg-info/" not in name}, expected)
        wheel = build("wheel", unpacked, built)  # from the sdist, as `pip install` of it does
        check(wheel.name, members(wheel), package)
        try_wheel(wheel, Path(place, "environment"), work)


def try_wheel(wheel: Path, environment: Path, work: Path) -> None:
    """Install a wheel beside borrowed dependencies and run commands from raw files on."""
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=work).strip())
    # plain paths: files of the form `.pth` in them, such as that of an editable install, are not followed
    borrowed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (own / "borrowed.pth").write_text("\n".join(borrowed) + "\n", encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, "--force-reinstall", "--ignore-installed", wheel, folder=work)
    place = run(python, "-c", IMPORT, folder=work).strip()
    if not Path(place).is_relative_to(environment):
        sys.exit(f"error: not the installed package was tried, but '{place}'")
    try_sample(python, work)
    run(python, "-c", METRIC, folder=work)
    for command in COMMANDS:
        program, *words = command.split()
        run(environment / "bin" / program, *words, folder=work)
        print(f"$ {command}")


def try_sample(python: Path, work: Path) -> None:
    """Run the first code of README.md in an empty folder, within a minute of one processor and without a cache."""
    place = work / "sample"
    place.mkdir()
    code, printed = BLOCK.search((REPOSITORY / "README.md").read_text(encoding="utf-8")).groups()  # type: ignore[union-attr]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = run("env", f"HF_HOME={place / 'cache'}", "HF_HUB_OFFLINE=1", python, "-c", code, folder=place)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    left = {path.name for path in place.iterdir()}
    if shown != printed or left != {"hits.png"} or seconds > SAMPLE_SECONDS:
        sys.exit(f"error: the sample took {seconds:.0f} s, left {sorted(left)} and printed:\n{shown}")
    print(f"the first code of README.md took {seconds:.0f} s")


if __name__ == "__main__":
    main()
