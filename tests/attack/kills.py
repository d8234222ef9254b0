"""Commands that write, killed at numbered moments: before a file operation in their folder, or after some time.

What was there stays whole or the new is whole, and the same command, run again, ends as if nothing had happened: byte
for byte, but for entries of records that differ between two undisturbed runs, such as times.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attack.child import Child, alone
from attack.sources import SOURCES
from attack.targets import Refused, command, contents, differing, read_set
from neural_clip.prepared.known_corpora import TWINS

# Audit events of operations that change a folder (https://docs.python.org/3/library/audit_events.html)
CHANGES = {
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "shutil.rmtree",
    "shutil.copyfile",
}


# Entries of records that say by which words the command was given (`--resume` is another word), and their digest.
WORDS = re.compile(r"training_args\.bin|/(command|resume|overwrite)$|training\.json/sha256$")


class Writer(NamedTuple):
    """A command that writes.

    Args:
        name (`str`): For the log.
        source (`str`): Of `sources.SOURCES`.
        run (`Callable`): The command, in the current folder.
        out (`str`): What it makes.
        before (`Callable`, *optional*): Makes what lies there before.
        again (`tuple[Callable, ...]`): How to run it once more where the same command is refused, because the new is
            there already or because it asks how to go on.
        read (`Callable`, *optional*): Reads `out`; a `DataError` must name what lies beside it.
        by_file (`bool`): Whether each file is whole by itself, not the folder.
        midway (`str`): Pattern of entries that later steps of the command write anew; they are compared at its end.
    """

    name: str
    source: str
    run: Callable[[], object]
    out: str = "out"
    before: Callable[[], object] | None = None
    again: tuple[Callable[[], object], ...] = ()
    read: Callable[[], object] | None = None
    by_file: bool = False
    midway: str = r"\Z"


def line(text: str) -> Callable[[], object]:
    """A command of `neural-clip`, given as at a shell."""
    return lambda: command(text)


TWIN_SIZES = {
    "meg": {"n_concepts": 6, "n_test_images": 2, "n_sessions": 1, "n_runs": 1, "n_chans": 4},
    "eeg": {"n_classes": 2, "images_per_class": 4, "n_chans": 4},
    "fmri": {"n_shared": 4, "n_unshared": 8, "n_sessions": 1, "trials_per_session": 12, "grid_shapes": ((9, 8, 7),),
             "n_voxels": (80,)},
    "things_eeg2": {},
    "things_fmri": {"grid_shapes": ((9, 8, 7),), "n_voxels": (80,)},
}  # fmt: skip


def simulated(name: str) -> Callable[[], None]:
    """A very small twin of a corpus."""

    def run() -> None:
        from neural_clip.simulation.presets import get_preset
        from neural_clip.simulation.simulate import simulate

        tiny = get_preset("tiny")
        small = replace(getattr(tiny, name), subjects=(1,), **TWIN_SIZES[name])
        simulate("out", replace(tiny, **{name: small}), corpora=[name])

    return run


def saved(modality: str = "eeg") -> None:
    """A part of a gallery, written in place of what may be there."""
    from neural_clip import NeuralGallery

    NeuralGallery.load_from_disk("gallery").filter(modality=modality).save_to_disk("out", overwrite=True)


CUSTOM = "prepare custom manifest.yaml --output-dir out"
IMAGENET = "prepare imagenet_eeg --raw-dir imagenet --output-dir out"
TRAIN = "train recipe.yaml --output-dir out"
ADAPT = "adapt --checkpoint trained --data eeg=set_eeg --output-dir out --epochs 2"
PRIOR = (
    "adapt --checkpoint trained --data fmri=set_third --known fmri=set_fmri --prior places --output-dir out --epochs 1"
)
RUN = "run manifest.yaml --output-dir out --recipe recipe.yaml --model neural_clip/tiny-clip"
LEAVE_OUT = "leave-one-person-out set_eeg --output-dir out --recipe recipe.yaml --epochs 1 --baselines identity"
BUILD = "gallery build set_fmri --recordings --checkpoint trained --output-dir out"
EMBED = "embed-recordings set_fmri --checkpoint trained --output-file out/fmri.parquet --overwrite"
EVALUATE = (
    "evaluate --checkpoint trained --data eeg=set_eeg --output-dir out --baselines none --no-controls "
    "--subjects sub-01"
)
BASELINES = (
    "evaluate --checkpoint trained --data eeg=set_eeg --output-dir out --no-controls --no-pictures --num-proc 2 "
    "--baselines ridge identity random --subjects sub-01 sub-02"
)
EVALUATE_ALL = "evaluate --checkpoint trained --data fmri=set_fmri --output-dir out --subjects sub-01"
WRITERS = [
    Writer("prepare custom", "series", line(CUSTOM), read=read_set("out")),
    Writer("prepare custom over another", "epochs", line(f"{CUSTOM} --overwrite"),
           before=line(f"{CUSTOM} --subjects sub-01")),
    Writer("prepare nsd", "nsd", line("prepare nsd --raw-dir nsd --output-dir out")),
    Writer("prepare imagenet_eeg over another", "imagenet_eeg", line(f"{IMAGENET} --overwrite"),
           before=line(f"{IMAGENET} --subjects sub-01 --allow-partial")),
    Writer("prepare imagenet_eeg in two processes", "imagenet_eeg", line(f"{IMAGENET} --num-proc 2")),
    Writer("prepare things_meg", "things_meg", line("prepare things_meg --raw-dir things --output-dir out")),
    Writer("prepare things_eeg2", "things_eeg2", line("prepare things_eeg2 --raw-dir eeg2/raw --output-dir out")),
    Writer("prepare things_eeg1", "things_eeg1", line("prepare things_eeg1 --raw-dir eeg1 --output-dir out")),
    Writer("prepare alljoined", "alljoined",
           line("prepare alljoined --raw-dir aj/flat --route flat --output-dir out")),
    Writer("prepare things_fmri", "things_fmri", line("prepare things_fmri --raw-dir things_fmri --output-dir out")),
    *(Writer(f"simulate {name}", "npz", simulated(name), f"out/{TWINS[name].name}") for name in TWIN_SIZES),
    Writer("embed-images", "trained", line("embed-images set_fmri --overwrite"), "set_fmri",
           read=read_set("set_fmri")),
    Writer("embed-images in two processes", "trained", line("embed-images set_fmri --overwrite --num-proc 2"),
           "set_fmri", read=read_set("set_fmri")),
    Writer("train", "trained", line(TRAIN), again=(line(f"{TRAIN} --resume"), line(f"{TRAIN} --overwrite"))),
    Writer("train by folds", "unsplit", line(TRAIN), again=(line(f"{TRAIN} --resume"), line(f"{TRAIN} --overwrite"))),
    Writer("train over another", "trained", line(f"{TRAIN} --overwrite --seed 7"),
           before=lambda: shutil.copytree("trained", "out"), again=(line(f"{TRAIN} --resume --seed 7"),)),
    Writer("train again from the start", "trained", line(TRAIN), again=(line(f"{TRAIN} --overwrite"),)),
    Writer("adapt", "trained", line(ADAPT)),
    Writer("adapt with a prior", "trained", line(PRIOR)),
    Writer("adapt over another", "trained", line(f"{ADAPT} --overwrite"), before=line(f"{ADAPT} --seed 3")),
    Writer("evaluate", "trained", line(EVALUATE), before=line(f"{EVALUATE} --split validation"), by_file=True),
    Writer("evaluate baselines in two processes", "trained", line(BASELINES), by_file=True),
    Writer("evaluate with baselines and controls", "trained", line(EVALUATE_ALL), by_file=True),
    Writer("save a gallery", "gallery", saved),
    Writer("save a gallery over another", "gallery", saved, before=lambda: saved("fmri")),
    Writer("gallery build", "trained", line(BUILD)),
    Writer("gallery build over another", "trained", line(f"{BUILD} --overwrite"),
           before=line(f"{BUILD} --subjects sub-01")),
    Writer("embed-recordings over another", "trained", line(EMBED), before=line(f"{EMBED} --dtype float16"),
           by_file=True),
    Writer("run", "manifested", line(RUN), by_file=True, midway=r"run\.json/|data/"),
    Writer("leave-one-person-out", "trained", line(LEAVE_OUT), by_file=True),
    Writer("report", "trained", line("report report"), "report", by_file=True),
]  # fmt: skip


def killing(run: Callable[[], object], moment: int | None) -> Callable[[], dict]:
    """Run a command and count its operations in the current folder; die before the one of that number."""

    def work() -> dict:
        root, count = str(Path().resolve()), 0

        def hook(event: str, arguments: tuple) -> None:
            nonlocal count
            writes = event == "open" and not isinstance(arguments[0], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if (writes or event in CHANGES) and os.path.abspath(os.fsdecode(arguments[0])).startswith(root):
                if count == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1

        sys.addaudithook(hook)
        run()
        return {"outcome": "right", "operations": count}

    return work


def reading(read: Callable[[], object]) -> Callable[[], dict]:
    """Read what a kill left."""
    from neural_clip.errors import DataError

    def work() -> dict:
        try:
            read()
        except (DataError, Refused) as error:
            return {"outcome": "error", "why": str(error)}
        return {"outcome": "right"}

    return work


class Kills:
    """Undisturbed results of the writers, and kills by number."""

    def __init__(self, writers: list[Writer], seed: int, work: Path, folder: Path, sources=SOURCES) -> None:
        self.writers, self.seed, self.work, self.folder, self.sources = writers, seed, work, folder, sources
        self.expected: dict[str, dict] = {}
        self.old: dict[str, dict] = {}
        self.operations: dict[str, int] = {}
        self.seconds: dict[str, float] = {}

    def learn(self, writer: Writer) -> None:
        """Run a writer twice without a kill."""
        source, start = self.folder / f"{writer.source}_0", self.work / f"before {writer.name}"
        if not source.exists():
            source.mkdir(parents=True)
            alone(partial(self.sources[writer.source], source, 0), source, f"source {writer.source}")
        shutil.copytree(source, start, symlinks=True)
        if writer.before:
            alone(writer.before, start, f"what lies before {writer.name}")
        self.old[writer.name] = contents(start / writer.out) if (start / writer.out).exists() else {}
        found = []
        for _ in range(2):
            folder = shutil.copytree(start, self.work / "undisturbed", symlinks=True)
            began = time.monotonic()
            self.operations[writer.name] = alone(killing(writer.run, None), folder, writer.name)["operations"]
            self.seconds[writer.name] = time.monotonic() - began
            found.append(contents(folder / writer.out))
            shutil.rmtree(folder)
        first, second = found
        expected = {key: value if value == second.get(key) else None for key, value in (first | second).items()}
        self.expected[writer.name] = expected | dict.fromkeys(filter(WORDS.search, expected))

    def kill(self, number: int) -> tuple[bool, str | None, str]:
        """Kill a writer; whether it died, what was lost, and how it was killed."""
        rng = np.random.default_rng([self.seed, 1, number])
        writer = self.writers[number % len(self.writers)]
        if writer.name not in self.expected:
            self.learn(writer)
        folder = shutil.copytree(self.work / f"before {writer.name}", self.work / f"kill{number}", symlinks=True)
        moment = None if rng.random() < 0.3 else int(rng.integers(self.operations[writer.name]))
        after = float(rng.uniform(0, self.seconds[writer.name]))
        way = f"{writer.name}, " + (
            f"after {after:.2f} s"
            if moment is None
            else f"before operation {moment} of {self.operations[writer.name]}"
        )
        child = Child(killing(writer.run, moment), folder, hang_s=60)
        died = child.wait(after if moment is None else None)
        try:
            lost = self._lost(writer, folder) if died else child.result().get("why")
        finally:
            for path in self.work.glob(f"kill{number}*"):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        return died, lost, way

    def _lost(self, writer: Writer, folder: Path) -> str | None:
        """What is not as it should be after a kill, and after the command is run again."""
        out, old, new = folder / writer.out, self.old[writer.name], self.expected[writer.name]
        if out.exists():
            try:
                state = contents(out)
            except ValueError as error:
                return f"a file is not whole: {error}"
            if writer.by_file:
                mixed = [
                    key
                    for key, value in state.items()
                    if value not in (old.get(key, "?"), new.get(key, "?"))
                    and new.get(key, "?") is not None
                    and not re.search(r"[.-]partial", key)  # what was being written, and finished pieces of it
                    and not re.match(writer.midway, key)
                ]
                if mixed:
                    return f"neither the old nor the new: {mixed[:4]}"
            elif not same(state, new) and state != old:
                return f"neither the old nor the new: {differing(state, new)[:4]}"
        elif old and not any(same(contents(path), old) for path in folder.glob(f"{writer.out}*") if path.is_dir()):
            return f"the old is gone; there are {sorted(path.name for path in folder.iterdir())}"
        if writer.read:
            found = self._once(reading(writer.read), folder)
            beside = f"{writer.out}.replaced"
            if old and found["outcome"] != "right" and not out.exists() and beside not in found.get("why", ""):
                return f"a reader does not say that the old lies in {beside}: {found}"
        return self._again(writer, folder, new)

    def _again(self, writer: Writer, folder: Path, new: dict) -> str | None:
        """Run it again, as it is told where it is refused."""
        tried = []
        for run in (writer.run, *writer.again):
            found = self._once(reading(run), folder)
            if found["outcome"] == "fault":
                return f"run again: {found['why']} {found.get('trace', '')[-600:]}"
            tried.append(found.get("why", ""))
            if found["outcome"] == "right" or same(contents(folder / writer.out), new):
                break
        else:
            return f"it cannot be run again: {tried}"
        state = contents(folder / writer.out)
        if not same(state, new):
            return f"run again, other bytes: {differing(state, new)[:6]}"
        left = [path.name for path in folder.rglob("*") if path.suffix in (".partial", ".replaced")]
        return f"leaves {left}" if left else None

    @staticmethod
    def _once(work: Callable[[], dict], folder: Path) -> dict:
        child = Child(work, folder, hang_s=60)
        child.wait()
        return child.result()

    def run(self, first: int, count: int, until: float) -> Counter:
        """Kill one after the other."""
        counts: Counter = Counter()
        number = first
        while number < first + count and time.monotonic() < until:
            died, lost, way = self.kill(number)
            counts.update(kills=int(died), lost=int(bool(lost)))
            if lost:
                print(f"lost {self.seed}-{number}: {way} | {lost}", flush=True)
            number += 1
        counts["next"] = number
        return counts


def same(state: dict, expected: dict) -> bool:
    """Whether all is as expected."""
    return not differing(state, expected)
