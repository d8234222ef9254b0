"""Everything in the simulated THINGS-MEG corpus but the recordings: images, lists, sidecars and tables.

Fields, types and spellings are those of the real metadata of OpenNeuro ds004212, version 3.0.0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neural_clip.simulation.ctf import CtfChannel
from neural_clip.simulation.images import BACKGROUNDS, COLOURS, SHAPES, TEXTURES, ImageSpec
from neural_clip.simulation.presets import MegPreset

SEXES = "MMFF"  # of the four real participants; BIDS wants the column, the simulation has no sexes
COORDINATES = {  # the real sidecars say cm and hold metres; copied with that defect
    "MEGCoordinateSystem": "CTF", "MEGCoordinateUnits": "cm",
    "HeadCoilCoordinates": {"NAS": [0.0, 0.1, 0.0], "LPA": [-0.077, 0.0, 0.0], "RPA": [0.077, 0.0, 0.0]},
    "HeadCoilCoordinateSystem": "CTF", "HeadCoilCoordinateUnits": "cm",
}  # fmt: skip
CSV_COLUMNS = [
    "trial_type", "image_nr", "category_nr", "exemplar_nr", "test_image_nr", "things_category_nr", "things_image_nr",
    "things_exemplar_nr", "image_path", "onset", "image_on", "image_off", "responded", "key_id", "key_time", "RT",
    "session_nr", "run_nr",
]  # fmt: skip
EVENT_DICTIONARY = {
    "onset": ("Event onset", "Onset in seconds measured with a simulated optical sensor"),
    "duration": ("Event duration", "Time in seconds that the image stays on"),
    "trial_type": ("Event categorization", "exp, test (repeated) or catch (artificial image)"),
    "things_category_nr": ("THINGS category number", "Concept, counted from 1"),
    "value": ("THINGS image number", "Image, counted from 1"),
    "sample": ("Event onset in samples", "Onset in samples of the recording"),
}
UNCATEGORISED = ("ring", "crescent", "hourglass")
DOUBLY_CATEGORISED = ("cross", "heart")
SCREEN_LEAD_S = 0.0125  # image_on of the table (stimulus computer) before the optical sensor; value of the simulation


@dataclass(frozen=True)
class Stimulus:
    """One image of the simulated THINGS database.

    Args:
        spec (`ImageSpec`): What it shows.
        file (`str`): File name, `<concept>_<exemplar><letter>.jpg`.
        value, category, exemplar (`int`): Numbers of image, concept and image within its concept, from 1 as in THINGS.
        kind (`str`): `"exp"`, `"test"` or `"unshown"`.
    """

    spec: ImageSpec
    file: str
    value: int
    category: int
    exemplar: int
    kind: str


@dataclass(frozen=True)
class Trial:
    """One presentation.

    Args:
        stimulus (`int`): Index of the image, -1 for catch trials.
        kind (`str`): `"exp"`, `"test"` or `"catch"`.
        session, run (`int`): Numbers from 1.
        sample (`int`): Image onset in samples of the run.
    """

    stimulus: int
    kind: str
    session: int
    run: int
    sample: int


def write_images(folder: Path, stimuli: Sequence[Stimulus], pictures: Sequence[np.ndarray]) -> None:
    """Write the JPEG tree and the list of its files in THINGS order."""
    from PIL import Image

    for stimulus, picture in zip(stimuli, pictures, strict=True):
        path = folder / "object_images" / stimulus.spec.concept / stimulus.file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, quality=95, subsampling=0)
    lines = [f"images/{stimulus.spec.concept}/{stimulus.file}\n" for stimulus in stimuli]
    (folder / "image_paths.csv").write_text("".join(lines), encoding="utf-8")


def category_names() -> list[str]:
    """The 27 columns of the simulated category matrix."""
    return [*SHAPES, *TEXTURES, *COLOURS, *BACKGROUNDS[1:]]


def concept_categories(spec: ImageSpec) -> list[str]:
    """Categories of a concept by a rule of the simulation: mostly its shape, of some shapes none or also the texture.

    The real matrix has concepts without a category (559 of 1,854) and with several (302), too.
    """
    shape = SHAPES[spec.shape]
    if shape in UNCATEGORISED:
        return []
    return [shape, TEXTURES[spec.texture]] if shape in DOUBLY_CATEGORISED else [shape]


def write_category_matrix(path: Path, stimuli: Sequence[Stimulus]) -> None:
    """Write a header, then a row of 0 and 1 per concept in THINGS order."""
    names = category_names()
    specs = {stimulus.category: stimulus.spec for stimulus in stimuli}
    lines = ["\t".join(names)]
    for category in sorted(specs):
        chosen = concept_categories(specs[category])
        lines.append("\t".join(str(int(name in chosen)) for name in names))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_top_level(raw_dir: Path, meg: MegPreset) -> None:
    """Write description, participants and event dictionary."""
    description = {
        "Name": "THINGS-MEG (SIMULATED twin)", "BIDSVersion": "1.21", "License": "CC0",
        "Authors": ["neural_clip.simulation: no person was recorded"],
        "DatasetDOI": "doi:10.18112/openneuro.ds004212.v3.0.0",  # the version whose layout is simulated
    }  # fmt: skip
    events = {name: {"LongName": title, "Description": text} for name, (title, text) in EVENT_DICTIONARY.items()}
    rows = ["participant_id\tsex"] + [f"sub-BIGMEG{s}\t{SEXES[i % 4]}" for i, s in enumerate(meg.subjects)]
    (raw_dir / "dataset_description.json").write_text(json.dumps(description, indent=4), encoding="utf-8")
    (raw_dir / "task-main_events.json").write_text(json.dumps(events, indent=2), encoding="utf-8")
    (raw_dir / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    note = "SIMULATED recordings in the layout of THINGS-MEG, written by neural_clip.simulation. See SIMULATED.json.\n"
    (raw_dir / "README").write_text(note, encoding="utf-8")


def write_sidecars(
    folder: Path, stem: str, meg: MegPreset, trials: Sequence[Trial], channels: Sequence[CtfChannel],
    stimuli: Sequence[Stimulus], n_times: int,
) -> None:  # fmt: skip
    """Write events.tsv, channels.tsv, meg.json and coordsystem.json of a run."""
    lines = ["onset\tduration\ttrial_type\tthings_category_nr\tvalue\tsample"]
    for trial in trials:
        numbers = ["N/A", "N/A"]
        if trial.stimulus >= 0:  # as pandas writes columns with missing values: 1760.0
            stimulus = stimuli[trial.stimulus]
            numbers = [str(float(stimulus.category)), str(float(stimulus.value))]
        fields = [repr(trial.sample / meg.sfreq), str(meg.image_duration_s), trial.kind, *numbers, str(trial.sample)]
        lines.append("\t".join(fields))
    (folder / f"{stem}_events.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / f"{stem}_channels.tsv").write_text(_channel_table(channels, meg.sfreq), encoding="utf-8")
    facts = json.dumps(_recording_facts(channels, meg.sfreq, n_times), indent=4)
    (folder / f"{stem}_meg.json").write_text(facts, encoding="utf-8")
    (folder / f"{stem}_coordsystem.json").write_text(json.dumps(COORDINATES), encoding="utf-8")


def _channel_table(channels: Sequence[CtfChannel], sfreq: float) -> str:
    """Text of channels.tsv; gradiometers are OTHER there, as in the real corpus."""
    kinds = {
        "clock": ("MISC", "V", "Miscellaneous"), "adc": ("MISC", "V", "Miscellaneous"),
        "stim": ("MISC", "V", "Miscellaneous"), "ref_mag": ("MEGREFMAG", "T", "Magnetometer Reference"),
        "ref_grad": ("MEGREFGRADAXIAL", "T", "Axial Gradiometer Reference"),
        "meg": ("OTHER", "T", "Other type of channel"),
    }  # fmt: skip
    lines = ["name\ttype\tunits\tlow_cutoff\thigh_cutoff\tdescription\tsampling_frequency\tstatus"]
    for channel in channels:
        kind, unit, words = kinds[channel.kind]
        lines.append(f"{channel.name}\t{kind}\t{unit}\t0.0\t{sfreq / 2}\t{words}\t{sfreq}\tgood")
    return "\n".join(lines) + "\n"


def _recording_facts(channels: Sequence[CtfChannel], sfreq: float, n_times: int) -> dict:
    """Content of meg.json."""
    kinds = [channel.kind for channel in channels]
    return {
        "TaskName": "main", "Manufacturer": "CTF", "PowerLineFrequency": 60, "SamplingFrequency": sfreq,
        "SoftwareFilters": "n/a", "RecordingDuration": (n_times - 1) / sfreq, "RecordingType": "continuous",
        "DewarPosition": "n/a", "DigitizedLandmarks": False, "DigitizedHeadPoints": False,
        "MEGChannelCount": kinds.count("meg"), "MEGREFChannelCount": kinds.count("ref_mag") + kinds.count("ref_grad"),
        "EEGChannelCount": 0, "EOGChannelCount": 0, "ECGChannelCount": 0, "EMGChannelCount": 0,
        "MiscChannelCount": sum(kinds.count(kind) for kind in ("clock", "adc", "stim")), "TriggerChannelCount": 0,
    }  # fmt: skip


def write_scans(raw_dir: Path, subject: int, meg: MegPreset) -> None:
    """Write the lists of the recordings of each session."""
    for session in range(1, meg.n_sessions + 1):
        stem = f"sub-BIGMEG{subject}_ses-{session:02d}"
        names = [f"meg/{stem}_task-main_run-{run:02d}_meg.ds" for run in range(1, meg.n_runs + 1)]
        lines = ["filename\tacq_time"] + [f"{name}\t2019-06-13T00:00:00" for name in names]
        path = raw_dir / f"sub-BIGMEG{subject}" / f"ses-{session:02d}" / f"{stem}_scans.tsv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def attribute_rows(
    meg: MegPreset, trials: Sequence[Trial], stimuli: Sequence[Stimulus], rng: np.random.Generator
) -> list[dict[str, object]]:
    """Rows of `sample_attributes_P{k}.csv`, one a trial in order of presentation; `None` where a field is missing."""
    of_kind = {kind: [i for i, s in enumerate(stimuli) if s.kind == kind] for kind in ("exp", "test")}
    order = {kind: {index: number for number, index in enumerate(found, 1)} for kind, found in of_kind.items()}
    rows = []
    for trial in trials:
        onset = trial.sample / meg.sfreq
        row: dict[str, object] = dict.fromkeys(CSV_COLUMNS)
        row |= {"trial_type": trial.kind, "onset": round(onset, 4), "image_on": round(onset - SCREEN_LEAD_S, 4)}
        row |= {"image_off": round(onset - SCREEN_LEAD_S + meg.image_duration_s, 4)}
        row |= {"responded": int(trial.kind == "catch"), "session_nr": trial.session, "run_nr": trial.run}
        if trial.kind == "catch":
            reaction = round(float(rng.uniform(0.4, 0.8)), 4)  # s
            row |= {"image_path": "images_catch_meg/catch_001.jpg", "key_id": 66}
            row |= {"key_time": round(onset + reaction, 4), "RT": reaction}
        else:
            stimulus = stimuli[trial.stimulus]
            folder = f"images_meg/{stimulus.spec.concept}" if trial.kind == "exp" else "images_test_meg"
            row |= {"image_nr": order["exp"].get(trial.stimulus), "test_image_nr": order["test"].get(trial.stimulus)}
            row |= {"category_nr": stimulus.category, "things_category_nr": stimulus.category}
            row |= {"exemplar_nr": stimulus.exemplar, "things_exemplar_nr": stimulus.exemplar}
            row |= {"things_image_nr": stimulus.value, "image_path": f"{folder}/{stimulus.file}"}
        rows.append(row)
    return rows


def write_table(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Write comma-separated values, empty where a field is missing."""
    lines = [",".join(CSV_COLUMNS)]
    lines += [",".join("" if row[name] is None else str(row[name]) for name in CSV_COLUMNS) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
