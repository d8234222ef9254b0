"""Preparing each corpus against reading its files: MB/s and peak memory of both, and their ratio.

    python benchmarks/corpora.py                            # simulates the tiny corpora in a temporary folder
    python benchmarks/corpora.py --raw-dir outputs/demo/raw # simulated corpora that are there
    python benchmarks/corpora.py --corpora things_meg --raw-dir /data --num-proc 2 -- --images-dir /data/things/images

MB are those of the uncompressed recordings. The floor reads the same files (and decompresses those of NSD) in the same
run, right before and after the preparation, each in a process of its own; the files are in the memory of the system by
then, so the floor is that of the processor, not of the disk. A preparation filters (MEG), standardises, checks,
examines for leaks, hashes and writes what it reads: the ratio tells how much of its time is not reading.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

# corpus -> files that hold the recordings, below its raw folder
RECORDINGS = {
    "imagenet_eeg": "eeg_14_70_std.pth",
    "things_meg": "sub-*/ses-*/meg/*.ds/*meg4",
    "things_eeg2": "raw_data/sub-*/ses-*/raw_eeg_*.npy",
    "things_eeg1": "sub-*/eeg/*_eeg.eeg",
    "alljoined": "raw_eeg/sub-*/session_*/block_*/*.edf",
    "things_fmri": "betas_csv/sub-*_ResponseData.h5",
    "nsd": "nsddata_betas/ppdata/*/*/*/betas_session*.nii.gz",
}
# Runs in a process of its own and prints seconds, MB and the peak of its memory in MB.
MEASURE = """
import gzip, importlib, json, resource, sys, time
task, paths, arguments = json.loads(sys.argv[1])
size = 0
if task == "floor":
    begin = time.perf_counter()
    for path in paths:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
            while chunk := file.read(2**20):
                size += len(chunk)
else:
    import datasets, mne, nibabel, pandas, scipy.signal, torch
    prepare = importlib.import_module("neural_clip.corpora." + task).main
    begin = time.perf_counter()
    prepare(arguments)
seconds = time.perf_counter() - begin
peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print("RESULT", json.dumps([seconds, size / 1e6, peak / 1e3]))
"""


def measure(task: str, paths: list[Path], arguments: list[str]) -> tuple[float, float, float]:
    """Seconds, MB and peak MB of one task in a process of its own."""
    order = json.dumps([task, [str(path) for path in paths], arguments])
    done = subprocess.run([sys.executable, "-c", MEASURE, order], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if done.returncode or not lines:
        raise SystemExit(f"{task} failed:\n{done.stderr[-2000:]}")
    return tuple(json.loads(lines[0].removeprefix("RESULT")))


def compare(name: str, raw_dir: Path, num_proc: int, options: list[str]) -> str:
    """One line about a corpus."""
    paths = sorted(raw_dir.glob(RECORDINGS[name]))
    if not paths:
        raise SystemExit(f"'{raw_dir}' has no {RECORDINGS[name]}.")
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--raw-dir", str(raw_dir), "--output-dir", f"{folder}/set", "--num-proc", str(num_proc), *options]
        measure("floor", paths, [])  # brings the files into memory
        floors = [measure("floor", paths, [])]
        seconds, _, peak = measure(name, paths, arguments)
        floors.append(measure("floor", paths, []))
    floor_seconds = sum(floor[0] for floor in floors) / 2
    size, floor_peak = floors[0][1], max(floor[2] for floor in floors)
    return (
        f"{name:<13} {size:8.0f} MB   prepare {size / seconds:7.1f} MB/s, peak {peak:6.0f} MB   "
        f"floor {size / floor_seconds:7.1f} MB/s, peak {floor_peak:4.0f} MB   ratio {floor_seconds / seconds:.3f}"
    )


def main() -> None:
    """Print a line a corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw-dir", type=Path, help="folder with a folder a corpus; simulated if not given")
    parser.add_argument("--corpora", nargs="+", choices=RECORDINGS, default=list(RECORDINGS))
    parser.add_argument("--num-proc", type=int, default=1, help="processes that prepare (default: 1)")
    parser.add_argument("options", nargs="*", help="after --: further options of the corpus program")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        raw_dir = arguments.raw_dir
        if raw_dir is None:
            from neural_clip.simulation.presets import get_preset
            from neural_clip.simulation.simulate import simulate

            raw_dir = Path(folder)
            simulate(raw_dir, get_preset("tiny"))
        for name in arguments.corpora:
            print(compare(name, raw_dir / name, arguments.num_proc, arguments.options), flush=True)


if __name__ == "__main__":
    main()
