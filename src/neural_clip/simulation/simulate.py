"""Write simulated twins of the corpora in their raw formats, a folder each with a `SIMULATED.json`."""

from __future__ import annotations

import json
import pkgutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from neural_clip.errors import DataError
from neural_clip.files.reading import read_json
from neural_clip.files.whole import moved_aside, only_writer, place_of, restore, whole_folder
from neural_clip.prepared.known_corpora import TWINS
from neural_clip.simulation.options import SimulateOptions
from neural_clip.simulation.presets import TwinPreset

STAMP = "SIMULATED.json"
# What decides the content of a corpus; the rest of SIMULATED.json follows from it.
_IDENTITY = ("modality", "preset", "seed", "sizes", "dials", "calibration", "tiny_clip_sha256", "other_counts")


def _identity(preset: TwinPreset, name: str, seed: int) -> dict:
    """Entries of `SIMULATED.json` that must agree for a corpus to be kept, as JSON would give them back."""
    from neural_clip.simulation.generative import simulated_stamp

    stamp = json.loads(json.dumps(simulated_stamp(preset, name, seed, ceiling={})))
    return {entry: stamp.get(entry) for entry in _IDENTITY}


def _is_finished(folder: Path, identity: dict) -> bool:
    """Whether the folder holds this very corpus; raises when it holds something else."""
    path = folder / STAMP
    if moved_aside(folder, STAMP):
        with only_writer(place_of(folder)):
            restore(folder, STAMP)
    if not folder.exists():
        return False
    if not path.is_file():
        raise DataError(f"{folder} exists and holds no {STAMP}, so it is no simulated corpus. Name another folder.")
    found = read_json(path)
    if not isinstance(found, dict):
        raise DataError(f"'{path}' is damaged: it holds no object.")
    different = [name for name in _IDENTITY if found.get(name) != identity[name]]
    if different:
        raise DataError(
            f"{folder} holds another simulated corpus: {', '.join(different)} differ from what was asked. "
            "Remove it, give --overwrite, or name another folder."
        )
    return True


def simulate(
    output_dir: str | Path,
    preset: TwinPreset,
    options: SimulateOptions | None = None,
    **changes: Any,
) -> dict[str, Path]:
    """Write simulated corpora.

    Args:
        output_dir (`str` or `Path`): Parent of the corpus folders.
        preset (`TwinPreset`): Sizes and dials, see [`presets.get_preset`].
        options ([`SimulateOptions`], *optional*): Which corpora, and their seed.
        **changes: Options by name, in place of those of `options`.

    Returns:
        `dict[str, Path]`: Raw folder of each corpus, by modality or, of further corpora of one, by name.

    Raises:
        DataError: If a corpus is unknown or a folder is in the way.
    """
    options = replace(options or SimulateOptions(), **changes)
    preset = options.dialled(preset)
    output_dir, folders, todo = Path(output_dir), {}, []
    for name in options.corpora:  # all folders are looked at before the first minute is spent
        folders[name] = folder = output_dir / TWINS[name].name
        try:
            finished = _is_finished(folder, _identity(preset, name, options.seed))
        except DataError:
            if not (options.overwrite and (folder / STAMP).is_file()):
                raise
            finished = False
        if finished:
            print(f"{folder}: kept, the same simulated corpus is there", file=sys.stderr)
        else:
            todo.append(name)
    for name in todo:
        _write(name, folders[name], preset, options.seed, options.overwrite)
    return folders


def _write(name: str, folder: Path, preset: TwinPreset, seed: int, overwrite: bool) -> None:
    """Write one corpus aside, then move it to its place."""
    start = time.monotonic()
    print(f"{folder}: simulating {name}, preset {preset.name}, seed {seed}", file=sys.stderr)
    with whole_folder(folder, holds=STAMP, what="simulated corpus", overwrite=overwrite) as aside:
        pkgutil.resolve_name(TWINS[name].twin)(aside, preset, seed)
    print(f"{folder}: done in {time.monotonic() - start:.0f} s", file=sys.stderr)
