"""Reading NSD's betas: a session of real size against the floor of the same machine, as a ratio, and peak memory.

    python benchmarks/nsd_betas.py --folder /tmp            # NIfTI and HDF5, one session of 81 x 104 x 83 x 750
    python benchmarks/nsd_betas.py --folder /tmp --prepare  # and a whole subject, all of whose sessions are that file

The data are made here: int16 noise that is smooth in space, with a standard deviation of 2 % x 300 inside an
ellipsoid of 39 % of the volume, and 0 outside. The speed of decompression depends on what gzip -1 leaves of it, which
is printed; real files, whose noise and empty space are others, may shrink more or less. The mask marks 15,724 voxels
at the back of the ellipsoid.

Floors: the same .nii.gz through Python's `gzip` in reads of 1 MB, and through `gzip -dc`; for HDF5, the chunks of the
wanted voxels alone, by `read_direct_chunk`. Every measurement is a process of its own; kinds take turns, and medians
of three are printed. `read_session` also verifies the list of all 699,192 chunks, of which the floor knows nothing.
Needs about 2 GB of disk and of memory while it runs, and Linux.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

GRID, N_TRIALS, N_VOXELS = (81, 104, 83), 750, 15724  # subj01, one session, nsdgeneral
SCALE = 300
SESSION_BYTES = int(np.prod(GRID)) * N_TRIALS * 2
RUNS = 3
MEGABYTE = 10**6


def brain_and_mask() -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid of 39 % of the volume, and the voxels of it with the largest distance from the front."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in GRID), indexing="ij")
    brain = x**2 + y**2 + z**2 < 0.835
    depth = np.where(brain, y + 0.3 * np.abs(x), np.inf)
    mask = np.zeros(GRID, bool)
    mask.ravel()[np.argsort(depth.ravel(), kind="stable")[:N_VOXELS]] = True
    return brain, mask


def volumes(brain: np.ndarray, seed: int = 0):
    """Int16 volumes, one a trial."""
    from scipy.ndimage import uniform_filter

    rng = np.random.default_rng(seed)
    for _ in range(N_TRIALS):
        noise = uniform_filter(rng.standard_normal(GRID, dtype=np.float32), 2)
        noise *= 2 * SCALE * 8**0.5  # the mean of 8 voxels has a standard deviation of 1 / sqrt(8)
        yield np.where(brain, noise, 0).astype("<i2")


def write_nifti(path: Path, arrays, shape: tuple[int, ...]) -> None:
    """Stream int16 volumes into a gzipped NIfTI-1 file."""
    from nibabel import Nifti1Header

    header = Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    header.set_slope_inter(1, 0)
    header["magic"], header["vox_offset"] = b"n+1", 352
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.binaryblock + b"\0" * 4)
        for values in arrays:
            file.write(values.astype("<i2").tobytes(order="F"))


def write_hdf5(path: Path, brain: np.ndarray) -> None:
    """The same values as MATLAB lays them: (trial, Z, Y, X) for h5py, one chunk a voxel."""
    import h5py

    series = np.empty((N_TRIALS, *GRID[::-1]), "<i2")
    for trial, values in enumerate(volumes(brain)):
        series[trial] = values.T
    with h5py.File(path, "w") as file:
        betas = file.create_dataset("betas", series.shape, "<i2", chunks=(N_TRIALS, 1, 1, 1))
        for z in range(GRID[2]):
            betas[:, z] = series[:, z]


def write_corpus(raw_dir: Path, betas: Path, mask: np.ndarray, n_sessions: int) -> None:
    """A subject with as many images as in NSD, all of whose sessions are links to one file."""
    import h5py
    from scipy.io import savemat

    n_shared, n_images = 1000, 10000
    rng = np.random.default_rng(0)
    ids = np.arange(1, n_images + 1)
    order = rng.permutation(np.repeat(ids, 3))
    experiment = raw_dir / "nsddata/experiments/nsd"
    ppdata = raw_dir / "nsddata/ppdata/subj01"
    sessions = raw_dir / "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"
    stimuli = raw_dir / "nsddata_stimuli/stimuli/nsd"
    for folder in (experiment, ppdata / "func1pt8mm/roi", ppdata / "behav", sessions, stimuli):
        folder.mkdir(parents=True)
    tables = {"masterordering": order[None], "subjectim": np.tile(ids, (8, 1)), "sharedix": ids[None, :n_shared]}
    savemat(experiment / "nsd_expdesign.mat", tables)
    lines = [",cocoId,cocoSplit,cropBox,nsdId,shared1000,subject1_rep0,subject1_rep1,subject1_rep2"]
    for i, trials in enumerate(np.argsort(order, kind="stable").reshape(n_images, 3) + 1):
        lines.append(f'{i},{i},train2017,"(0, 0, 0, 0)",{i},{i < n_shared},{",".join(map(str, trials))}')
    (experiment / "nsd_stim_info_merged.csv").write_text("\n".join(lines) + "\n")
    lines = ["SUBJECT\tSESSION\tRUN\tTRIAL\t73KID\t10KID"]
    lines += [f"1\t{t // N_TRIALS + 1}\t1\t{t}\t{i}\t{i}" for t, i in enumerate(order)]
    (ppdata / "behav/responses.tsv").write_text("\n".join(lines) + "\n")
    write_nifti(ppdata / "func1pt8mm/roi/nsdgeneral.nii.gz", [mask], GRID)
    with h5py.File(stimuli / "nsd_stimuli.hdf5", "w") as file:
        file["imgBrick"] = rng.integers(0, 256, (n_images, 8, 8, 3), dtype=np.uint8)
    for session in range(1, n_sessions + 1):
        (sessions / f"betas_session{session:02d}.nii.gz").hardlink_to(betas)
    stamp = {
        "simulated": True,
        "n_sessions": n_sessions,
        "trials_per_session": N_TRIALS,
        "n_voxels": {"sub-01": N_VOXELS},
    }
    (raw_dir / "SIMULATED.json").write_text(json.dumps(stamp))


def prepare_subject(path: Path, mask: np.ndarray) -> None:
    """The whole builder; `path` is the raw folder."""
    from neural_clip.corpora.nsd.build import prepare

    prepare(path, path.with_name("prepared"))


def floor_gzip(path: Path, mask: np.ndarray) -> None:
    """Python's gzip in reads of 1 MB."""
    with gzip.open(path, "rb") as file:
        while file.read(2**20):
            pass


def floor_gzip_program(path: Path, mask: np.ndarray) -> None:
    """The gzip program."""
    subprocess.run(["gzip", "-dc", str(path)], stdout=subprocess.DEVNULL, check=True)


def floor_chunks(path: Path, mask: np.ndarray) -> None:
    """The wanted chunks of the HDF5 file alone."""
    import h5py

    with h5py.File(path, "r") as file:
        betas = file["betas"].id
        for x, y, z in np.argwhere(mask):
            betas.read_direct_chunk((0, z, y, x))


def ours(path: Path, mask: np.ndarray) -> None:
    """What the builder does."""
    from neural_clip.corpora.nsd.betas import read_session

    assert read_session(path, mask, N_TRIALS).shape == (N_TRIALS, N_VOXELS)


KINDS = {
    "read_session": ours,
    "Python's gzip": floor_gzip,
    "gzip -dc": floor_gzip_program,
    "direct chunks": floor_chunks,
    "prepare": prepare_subject,
    "nothing": lambda path, mask: None,
}


def measure(kind: str, path: Path) -> dict:
    """Run one kind in this process; its seconds and its peak memory in bytes (Linux)."""
    import h5py  # noqa: F401  loaded beforehand, as importing is no reading
    import nibabel  # noqa: F401

    import neural_clip.corpora.nsd.betas  # noqa: F401

    mask = np.load(path.with_name("mask.npy"))
    start = time.perf_counter()
    KINDS[kind](path, mask)
    seconds = time.perf_counter() - start
    # of this program alone: `ru_maxrss` of the resource module starts from the peak of the process that called it
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"seconds": seconds, "peak": 1024 * int(peak.split()[1])}


def measured(kind: str, path: Path) -> dict:
    """What `measure` gives in a process of its own."""
    command = [sys.executable, __file__, "--measure", kind, "--folder", str(path)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def in_turn(path: Path, kinds: list[str]) -> dict[str, dict]:
    """Medians over processes of their own, kinds taking turns; the first round warms the page cache up."""
    found: dict[str, list[dict]] = {kind: [] for kind in kinds}
    for turn in range(RUNS + 1):
        for kind in kinds:
            run = measured(kind, path)
            if turn:
                found[kind].append(run)
    return {
        kind: {key: statistics.median(run[key] for run in runs) for key in ("seconds", "peak")}
        for kind, runs in found.items()
    }


def report(path: Path, floors: list[str], volume: int) -> None:
    """Print a line a kind, with the speed of `read_session` over that of each floor; `volume` in bytes."""
    size = path.stat().st_size
    print(
        f"{path.name}: {size / MEGABYTE:.0f} MB, {size / SESSION_BYTES:.0%} of the {SESSION_BYTES / MEGABYTE:.0f} MB"
    )
    found = in_turn(path, ["read_session", *floors, "nothing"])
    empty = found.pop("nothing")["peak"]
    for kind, run in found.items():
        ratio = (
            ""
            if kind == "read_session"
            else f", read_session {run['seconds'] / found['read_session']['seconds']:.2f} x"
        )
        print(
            f"  {kind:14} {run['seconds']:7.2f} s {volume / MEGABYTE / run['seconds']:8.1f} MB/s, peak "
            f"{run['peak'] / MEGABYTE:.0f} MB ({(run['peak'] - empty) / MEGABYTE:.0f} above an idle process){ratio}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Read a simulated NSD session of real size, against its floor.")
    parser.add_argument("--folder", type=Path, required=True, help="where to write some GB; removed at the end")
    parser.add_argument("--formats", nargs="+", choices=("nifti", "hdf5"), default=["nifti", "hdf5"])
    parser.add_argument("--prepare", action="store_true", help="also prepare a whole subject from the NIfTI file")
    parser.add_argument("--sessions", type=int, default=37, help="of that subject")
    parser.add_argument("--measure", choices=sorted(KINDS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.folder)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        brain, mask = brain_and_mask()
        np.save(folder / "mask.npy", mask)
        if "nifti" in arguments.formats:
            path = folder / "betas_session01.nii.gz"
            write_nifti(path, volumes(brain), (*GRID, N_TRIALS))
            programs = ["gzip -dc"] if shutil.which("gzip") else []
            report(path, ["Python's gzip", *programs], SESSION_BYTES)
            if arguments.prepare:
                write_corpus(folder / "raw", path, mask, arguments.sessions)
                run = measured("prepare", folder / "raw")
                size = sum(file.stat().st_size for file in (folder / "prepared").rglob("*.parquet"))
                print(
                    f"prepare, {arguments.sessions} sessions, repeats averaged: {run['seconds']:.0f} s, peak "
                    f"{run['peak'] / MEGABYTE:.0f} MB; {size / MEGABYTE:.0f} MB written"
                )
                shutil.rmtree(folder / "raw")
                shutil.rmtree(folder / "prepared")
            path.unlink()
        if "hdf5" in arguments.formats:
            path = folder / "betas_session01.hdf5"
            write_hdf5(path, brain)
            report(path, ["direct chunks"], N_TRIALS * N_VOXELS * 2)


if __name__ == "__main__":
    main()
