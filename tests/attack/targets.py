"""What reads the damaged inputs: commands and functions of the package, and what each of them must notice."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Results = dict[str, object]
TOLD = "told in words"
MANIFEST = {"manifest.yaml": "text", "*.tsv": "text", "*.csv": "text", "*.png": "summed", "*.npz": "summed"}
CHECKPOINT = {
    "trained/model.safetensors": "sealed",
    "trained/config.json": "sealed",
    "trained/processor_config.json": "sealed",
    "trained/training.json": "text",
    "trained/validation_predictions.safetensors": "kept here",
}


def files_of(folder: str) -> dict[str, str]:
    """How the files of a prepared set are guarded: pages of rows by checksums, footers by their digests elsewhere."""
    named = {"*.parquet": "sealed", "*.safetensors": "sealed", "README.md": "text", "neural_clip.json": "text"}
    return {f"{folder}/{name}": guard for name, guard in named.items()}


def of_checkpoint(folder: str, recorded: bool = True) -> dict[str, str]:
    """How the files of a checkpoint are guarded: by its record, where it was trained by a command."""
    found = {"model.safetensors": "bare", "config.json": "text", "processor_config.json": "text"}
    return {f"{folder}/{name}": "sealed" if recorded else guard for name, guard in found.items()}


class Refused(Exception):
    """A command ended with an exit code and a sentence, as argparse and the doctor do."""


class Target(NamedTuple):
    """A reader.

    Args:
        name (`str`): For the log.
        source (`str`): Of `sources.SOURCES`.
        guards (`dict[str, str]`): Files that are damaged, by pattern, and how well each is guarded (`damage.GUARDS`).
        run (`Callable`): Reads the input in the current folder and returns what it found there.
        weight (`float`): How often it is drawn.
        refusals (`tuple[type, ...]`): Errors that are sentences besides `DataError`.
    """

    name: str
    source: str
    guards: dict[str, str]
    run: Callable[[], Results]
    weight: float = 1.0
    refusals: tuple[type[Exception], ...] = ()


def command(line: str) -> str:
    """Run a command of `neural-clip`, given as at a shell; returns what it printed."""
    from neural_clip.commands.main import main

    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(line.split())
    except SystemExit as stop:
        if stop.code not in (0, None):
            raise Refused(f"exit code {stop.code}: {err.getvalue()} {out.getvalue()}") from stop
    return out.getvalue()


def contents(folder: str | Path) -> Results:
    """What a folder holds: a digest of each file, each entry of JSON by its place.

    Left out are pages, locks, and what an evaluation that was killed keeps for the next.
    """
    found: Results = {}
    for path in sorted(Path(folder).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if "unfinished" in path.parts or not path.is_file():  # a folder, or a link whose other end was renamed
            continue
        if path.suffix == ".json":
            found |= dict(leaves(json.loads(path.read_text()), name))
        elif path.suffix == ".npz":
            found |= {f"{name}/{key}": digest(value) for key, value in np.load(path).items()}
        elif path.suffix not in (".md", ".html", ".writing"):  # the last is a lock
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def leaves(tree: object, place: str):
    """Entries of nested dictionaries and lists by their place."""
    if isinstance(tree, dict | list) and tree:
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, f"{place}/{key}")
    else:
        yield place, repr(tree)


def digest(values: np.ndarray) -> str:
    """Digest of an array, which is finite."""
    values = np.ascontiguousarray(values)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return "not finite"
    return hashlib.sha256(f"{values.dtype.kind} {values.shape}".encode() + values.tobytes()).hexdigest()


def differing(state: Results, expected: Results) -> list[str]:
    """Entries that differ from what is expected, which may be anything (`None`), and that nobody tells."""
    keys = sorted(key for key in {**state, **expected} if expected.get(key, "?") is not None)
    return [key for key in keys if state.get(key) not in (expected.get(key, "?"), TOLD)]


def prepare(arguments: str) -> Callable[[], Results]:
    """A corpus, prepared."""

    def run() -> Results:
        command(f"prepare {arguments} --output-dir out")
        return contents("out")

    return run


def read_set(folder: str, streaming: bool = False) -> Callable[[], Results]:
    """All that a prepared set holds, read as training does."""

    def run() -> Results:
        from neural_clip.prepared.reader import PreparedSet, padded

        data = PreparedSet.open(folder, streaming)
        found: Results = {
            "ids": data.images.image_ids,
            "embeds": digest(data.images.embeds),
            "preparation": repr(data.preparation),
        }
        found |= {f"statistics {name}": digest(values) for name, values in data.statistics.items()}
        for subject in data.facts.subjects:
            if (places := data.voxel_places(subject)) is not None:
                found[f"places {subject}"] = digest(places)
        for name in data.facts.splits:
            part = data.split(name)
            found |= {
                f"{name} values": digest(
                    padded(part.values()).view(np.int32)
                ),  # as bits: `train` and `evaluate` look for NaN
                f"{name} subjects": list(part.subjects),
                f"{name} shown": list(part.image_ids),
            }
        return found

    return run


def doctor(folder: str) -> Callable[[], Results]:
    """The full check of a prepared set."""

    def run() -> Results:
        return {"findings": command(f"doctor {folder} --json")}

    return run


def train(options: str, out: str, recipe: str = "recipe.yaml") -> Callable[[], Results]:
    """An epoch or two; the weights are the result."""

    def run() -> Results:
        command(f"train {recipe} {options}")
        return {name: value for name, value in contents(out).items() if name == "model.safetensors"}

    return run


def adapt(options: str) -> Callable[[], Results]:
    """A layer for the third person; the predictions of those whom the checkpoint knows are carried over."""

    def run() -> Results:
        command(f"adapt --checkpoint trained {options} --output-dir out --epochs 1")
        return {name: value for name, value in contents("out").items() if name.endswith(".safetensors")}

    return run


def into(line: str) -> Callable[[], Results]:
    """What a command writes into a folder `out`."""

    def run() -> Results:
        command(line)
        return contents("out")

    return run


def evaluate(options: str) -> Callable[[], Results]:
    """Scores of a checkpoint."""
    return into(f"evaluate {options} --output-dir out --baselines none --no-pictures")


def run_whole() -> Results:
    """From a manifest to scores: data, weights and report; the steps before one that fails stay, for the next run."""
    command("run manifest.yaml --recipe recipe.yaml --model neural_clip/tiny-clip --output-dir begun")
    found = contents("begun")
    return {
        name: found[name] for name in found if "/report.json/" in name or name.endswith((".parquet", ".safetensors"))
    }


def report() -> Results:
    """Text and tables of an evaluation; where it has no pictures, the text says why."""
    printed = command("report report")
    text = Path("report/report.md").read_text()
    tables = [line for line in printed.splitlines() if ": " not in line or "report/" not in line]  # no list of files
    return {"tables": tables, "text": TOLD if "No pictures: " in text else text}


def embed_images() -> Results:
    """Images, embedded anew."""
    command("embed-images set_fmri --overwrite")
    listed = json.loads(Path("set_fmri/neural_clip.json").read_text())["files"]  # others were put there and stay
    found = contents("set_fmri")
    return {name: value for name, value in found.items() if name in listed or name.startswith("neural_clip.json")}


def pretrained() -> Results:
    """Model and processor as users of transformers load them."""
    import torch

    from neural_clip import NeuralClipModel, NeuralClipProcessor

    model = NeuralClipModel.from_pretrained("trained").eval()
    processor = NeuralClipProcessor.from_pretrained("trained")
    inputs = processor(eeg=np.linspace(-1, 1, 60, dtype=np.float32).reshape(1, 6, 10), subject="sub-01")
    with torch.no_grad():
        return {"embeds": digest(model.get_eeg_features(**inputs).numpy())}


def search() -> Results:
    """A saved gallery, opened for its checkpoint and searched."""
    from neural_clip import NeuralGallery

    gallery = NeuralGallery.load_from_disk("gallery", "trained")
    rows, cosines = gallery.search(gallery.vectors[:3], 4)
    behind = repr(gallery.rows.remove_columns("vector")[:])
    return {"vectors": digest(gallery.vectors), "behind": behind, "rows": digest(rows), "cosines": digest(cosines)}


def gallery_info() -> Results:
    """What a saved gallery tells of itself."""
    return {"facts": command("gallery info gallery --json")}


def decoded(recordings: str, options: str) -> Callable[[], Results]:
    """A file of recordings of the person whom the checkpoint knows, decoded among the pictures that were shown."""

    def run() -> Results:
        where = "--gallery stimuli --checkpoint checkpoint --subject sub-01"
        printed = command(f"decode {recordings} {options} {where} --json")
        return {"queries": repr(json.loads(printed)["queries"])}

    return run


def answered(line: str) -> Callable[[], Results]:
    """What a verb of the command line finds."""

    def run() -> Results:
        return {"queries": repr(json.loads(command(f"{line} --json"))["queries"])}

    return run


@cache
def sample_embedder() -> Any:
    """The checkpoint that ships, of all modalities."""
    from neural_clip.gallery.embedder import Embedder
    from neural_clip.sample import CHECKPOINT

    return Embedder.of(CHECKPOINT)


def uploads(modality: str, *names: str) -> Callable[[], Results]:
    """Files as visitors of the page upload them; values that are no finite numbers are refused by the processor."""

    def run() -> Results:
        from neural_clip.app.uploads import open_upload

        found: Results = {}
        for name in names:
            file = open_upload(Path(name), None, sample_embedder(), modality=modality)
            recordings = file.read(0, len(file.names))
            of_mne = hasattr(recordings, "info")
            values = recordings.get_data() if of_mne else np.asarray(getattr(recordings, "dataobj", recordings))
            fits = np.issubdtype(values.dtype, np.number) and np.isfinite(values).all()
            found[name] = digest(values) if fits else TOLD
        return found

    return run


def _custom(name: str, guards: dict[str, str]) -> Target:
    return Target(f"prepare custom {name}", name, MANIFEST | guards, prepare("custom manifest.yaml"))


def _eeg2(route: str, files: str, more: dict[str, str] | None = None) -> Target:
    named = {files: "summed" if route == "ubp" else "bare", "*.jpg": "bare", "*image_metadata.npy": "bare"}
    guards = {f"eeg2/{route}/*{name}": guard for name, guard in (named | {"*.json": "text"} | (more or {})).items()}
    options = f"things_eeg2 --raw-dir eeg2/{route} --route {route}"
    return Target(f"prepare things_eeg2 {route}", "things_eeg2", guards, prepare(options), 0.5)


def _alljoined(route: str, files: dict[str, str]) -> Target:
    guards = {f"aj/{route}/{name}": guard for name, guard in (files | {"*.json": "text"}).items()}
    run = prepare(f"alljoined --raw-dir aj/{route} --route {route}")
    return Target(f"prepare alljoined {route}", "alljoined", guards, run, 0.5)


def _fmri(route: str) -> Target:
    """Betas carry no checksum in HDF5, so that a bit that flipped in them is another beta."""
    tables = {"*VoxelMetadata.csv": "text", "*StimulusMetadata.csv": "text", "*ResponseData.h5": "bare"}
    if route == "volume":
        tables = {"betas_csv/*VoxelMetadata.csv": "note", "betas_vol/*.nii.gz": "summed", "*_conditions.tsv": "text"}
    named = tables | {"brainmasks/*": "summed" if route == "volume" else "optional", "*.jpg": "bare", "*.json": "text"}
    guards = {f"things_fmri/{name}": guard for name, guard in named.items()}
    options = f"things_fmri --raw-dir things_fmri --route {route}"
    return Target(f"prepare things_fmri {route}", "things_fmri", guards, prepare(options))


NSD = {
    **dict.fromkeys(("*.mat", "*.hdf5"), "bare"),
    "*.nii.gz": "summed",
    "*/transforms/*.nii.gz": "optional",
    **dict.fromkeys(("*.csv", "*.tsv", "*.json"), "text"),
}
IMAGENET = {"*.pth": "summed", "*.JPEG": "bare", "*.json": "text"}
TWIN = {"*.jpg": "bare", **dict.fromkeys(("*.csv", "*.tsv", "*.json"), "text")}
EEG1 = {"*.eeg": "bare", "*.jpg": "bare", **dict.fromkeys(("*.vhdr", "*.vmrk", "*.tsv", "*.json"), "text")}
THINGS = "things_meg --raw-dir things --route"
REPORT = {"report/report.json": "text", "report/embeddings.npz": "summed"}
TWO = files_of("first") | files_of("second")
BOTH = files_of("set_eeg") | files_of("set_fmri")  # that the recipe names
ASKED = {"asked/*.png": "summed", "asked/*.jpg": "bare", "asked/*.webp": "bare"}
PRETRAINED = {"trained/*.json": "text", "trained/*.safetensors": "bare"}
TARGETS = [
    _custom("epochs", {"*.fif": "bare"}),
    _custom("npz", {}),
    _custom("npy", {"*.npy": "bare"}),
    _custom("mat", {"*.mat": "bare"}),
    _custom("mat_73", {"*.mat": "bare"}),
    _custom("series", {"*.nii": "bare", "*.nii.gz": "summed"}),
    _custom("places", {"*.npy": "bare", "*.nii.gz": "summed"}),
    _custom("fif", {"*.fif": "bare"}),
    _custom("brainvision", {"*.eeg": "bare", "*.vhdr": "text", "*.vmrk": "text"}),
    _custom("edf", {"*.edf": "bare"}),
    _custom("bdf", {"*.bdf": "bare"}),
    _custom("ctf", {"rec.ds/*": "bare"}),
    _custom("bids", {"bids/*.fif": "bare", "bids/*.json": "text"}),
    Target("prepare nsd", "nsd", NSD, prepare("nsd --raw-dir nsd"), 2),
    Target("prepare imagenet_eeg", "imagenet_eeg", IMAGENET, prepare("imagenet_eeg --raw-dir imagenet"), 2),
    Target("prepare things_meg", "things_meg", {"*.ds/*": "bare"} | TWIN, prepare(f"{THINGS} raw")),
    Target(
        "prepare things_meg derivative",
        "things_meg",
        {"*.fif": "bare"} | TWIN | {"*/dataset_description.json": "note"},
        prepare(f"{THINGS} derivative"),
    ),
    _eeg2("raw", "raw_*.npy"),
    _eeg2("bids", "*.bdf", {"*.tsv": "text"}),
    _eeg2("official", "prep*.npy"),
    _eeg2("nice", "prep*.npy"),
    _eeg2("ubp", "t*.pt"),
    _eeg2("neurobridge", "t*.npy"),
    Target("prepare things_eeg1", "things_eeg1", EEG1, prepare("things_eeg1 --raw-dir eeg1")),
    _alljoined("raw", {"*.edf": "bare", "*.jpg": "bare"}),
    _alljoined("flat", {"*.npy": "bare", "*experiment_metadata.parquet": "bare", "*.jpg": "bare"}),
    _alljoined("alljoined1", {"*.parquet": "bare", "*.hdf5": "bare"}),
    _fmri("table"),
    _fmri("volume"),
    Target("read EEG set", "trained", files_of("set_eeg"), read_set("set_eeg"), 2),
    Target("read fMRI set", "trained", files_of("set_fmri"), read_set("set_fmri"), 2),
    Target("read own set", "trained", files_of("set_own"), read_set("set_own")),
    Target("stream EEG set", "trained", files_of("set_eeg"), read_set("set_eeg", streaming=True)),
    Target("stream fMRI set", "trained", files_of("set_fmri"), read_set("set_fmri", streaming=True)),
    Target("doctor", "trained", files_of("set_own"), doctor("set_own"), 2),
    Target("train", "trained", {"recipe.yaml": "text"} | BOTH, train("--output-dir out", "out"), 2),
    Target("train --resume", "interrupted", {"trained*/checkpoint-2/*": "sealed"}, train("--resume", "trained")),
    Target(
        "train --streaming",
        "corpora",
        {"alone.yaml": "text"} | files_of("first"),
        train("--streaming --output-dir out", "out", "alone.yaml"),
        0.5,
    ),
    Target(
        "train --folds",
        "corpora",
        {"folds.yaml": "text"} | files_of("shown"),
        train("--folds 2 --output-dir out", "out", "folds.yaml"),
        0.5,
    ),
    Target(
        "train several corpora",
        "corpora",
        {"both.yaml": "text"} | TWO,
        train("--data eeg=first eeg=second --output-dir out", "out", "both.yaml"),
        0.5,
    ),
    Target("adapt", "trained", files_of("set_eeg") | CHECKPOINT, adapt("--data eeg=set_eeg")),
    Target(
        "adapt --prior places",
        "trained",
        files_of("set_third") | files_of("set_fmri") | CHECKPOINT,
        adapt("--data fmri=set_third --known fmri=set_fmri --prior places"),
        0.5,
    ),
    Target(
        "evaluate",
        "trained",
        BOTH | CHECKPOINT,
        evaluate("--checkpoint trained --data eeg=set_eeg fmri=set_fmri --subjects sub-01 sub-02"),
        2,
    ),
    Target(
        "evaluate several corpora",
        "corpora",
        of_checkpoint("both") | TWO,
        evaluate("--checkpoint both --data eeg=first eeg=second"),
    ),
    Target(
        "evaluate --templates",
        "corpora",
        files_of("shown") | files_of("others"),
        evaluate("--checkpoint folds --data eeg=shown --protocol things-eeg2-200 --templates others"),
    ),
    Target(
        "evaluate --montage",
        "corpora",
        of_checkpoint("alone") | files_of("cap"),
        evaluate("--checkpoint alone --data eeg=cap --montage interpolate"),
        0.5,
    ),
    Target(
        "embed-recordings",
        "recorded",
        of_checkpoint("checkpoint", recorded=False) | files_of("sets/fmri"),
        into("embed-recordings sets/fmri --checkpoint checkpoint --output-file out/fmri.parquet"),
    ),
    Target(
        "embed-recordings --montage",
        "corpora",
        of_checkpoint("alone") | files_of("cap"),
        into("embed-recordings cap --checkpoint alone --montage interpolate --output-file out/eeg.parquet"),
        0.5,
    ),
    Target(
        "gallery build",
        "recorded",
        {"stimuli/*.png": "optional"} | of_checkpoint("checkpoint", recorded=False),
        into("gallery build stimuli --checkpoint checkpoint --output-dir out"),
    ),
    Target(
        "gallery build --recordings",
        "recorded",
        files_of("sets/meg"),
        into("gallery build sets/meg --recordings --checkpoint checkpoint --output-dir out"),
        0.5,
    ),
    Target(
        "encode",
        "recorded",
        ASKED | files_of("sets/eeg"),
        answered(
            "encode asked/picture0.png asked/picture1.jpg asked/picture2.webp --gallery sets/eeg "
            "--checkpoint checkpoint"
        ),
    ),
    Target(
        "convert",
        "recorded",
        {"betas.nii.gz": "summed", "mask.nii.gz": "summed"} | files_of("sets/meg"),
        answered(
            "convert betas.nii.gz --mask mask.nii.gz --subject sub-01 --to meg --gallery sets/meg "
            "--checkpoint checkpoint"
        ),
    ),
    Target(
        "search",
        "recorded",
        of_checkpoint("checkpoint", recorded=False) | files_of("sets/eeg"),
        answered("search square --gallery sets/eeg --checkpoint checkpoint"),
        0.5,
    ),
    Target(
        "run",
        "manifested",
        {"manifest.yaml": "text", "recipe.yaml": "text", "*.png": "summed", "*.fif": "bare"},
        run_whole,
        0.3,
    ),
    Target("report", "trained", REPORT | BOTH, report, 2),
    Target("search a gallery", "gallery", {"gallery/*": "sealed"}, search),
    Target("gallery info", "gallery", {"gallery/*": "sealed"}, gallery_info, 0.5),
    Target(
        "decode EDF",
        "recorded",
        {"rec.edf": "bare", "events.tsv": "text"},
        decoded("rec.edf", "--events events.tsv --keep trial_type=image"),
        0.5,
    ),
    Target("decode FIF", "recorded", {"rec_raw.fif": "bare"}, decoded("rec_raw.fif", "--keep value=5"), 0.5),
    Target(
        "decode NIfTI",
        "recorded",
        {"betas.nii.gz": "summed", "mask.nii.gz": "summed"},
        decoded("betas.nii.gz", "--mask mask.nii.gz"),
        0.5,
    ),
    Target("upload epochs", "epochs", {"*.fif": "bare"}, uploads("eeg", "1-epo.fif", "2-epo.fif")),
    Target("upload an array", "npy", {"*.npy": "bare"}, uploads("fmri", "betas.npy")),
    Target("upload volumes", "series", {"*.nii": "bare", "*.nii.gz": "summed"}, uploads("fmri", "run3.nii")),
    Target("embed-images", "trained", files_of("set_fmri"), embed_images, 0.5),
    Target("from_pretrained", "trained", PRETRAINED, pretrained, 1, (ValueError, OSError)),
]
