"""A small THINGS-EEG2 in the formats of its releases, written by hand for the tests of its reader: two people, four
training concepts of two images, three test images.
"""

import json
import pickle

import numpy as np
import torch
from PIL import Image

from edf_files import write_edf

SUBJECTS, CONCEPTS, A_CONCEPT = (1, 2), ["aardvark", "bow1", "ice_cream", "ping-pong_table"], 2
TEST_CONCEPTS = ["cat", "dog", "emu"]
SIZES = {
    "subjects": list(SUBJECTS), "n_sessions": 4, "n_concepts": 4, "images_per_concept": A_CONCEPT, "n_test_images": 3,
    "train_repeats": 2, "test_repeats": 2, "train_shown": 9, "train_targets": 1, "test_shown": 7, "test_targets": 1,
    "n_train_runs": 2, "sfreq": 1000.0,
}  # fmt: skip
TARGET = 99999
RAW_63 = (
    "Fp1 F3 F7 FT9 FC5 FC1 C3 T7 TP9 CP5 CP1 Pz P3 P7 O1 Oz O2 P4 P8 TP10 CP6 CP2 Cz C4 T8 FT10 FC6 FC2 F4 F8 Fp2 "
    "AF7 AF3 AFz F1 F5 FT7 FC3 FCz C1 C5 TP7 CP3 P1 P5 PO7 PO3 POz PO4 PO8 P6 P2 CPz CP4 TP8 C6 C2 FC4 FT8 F6 F2 AF4 "
    "AF8"
)
FRONT_63 = (
    "Fp1 Fp2 AF7 AF3 AFz AF4 AF8 F7 F5 F3 F1 F2 F4 F6 F8 FT9 FT7 FC5 FC3 FC1 FCz FC2 FC4 FC6 FT8 FT10 T7 C5 C3 C1 "
    "Cz C2 C4 C6 T8 TP9 TP7 CP5 CP3 CP1 CPz CP2 CP4 CP6 TP8 TP10 P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO3 POz PO4 PO8 O1 "
    "Oz O2"
)
POSTERIOR_17 = "Pz P3 P7 O1 Oz O2 P4 P8 P1 P5 PO7 PO3 POz PO4 PO8 P6 P2"
# Concepts (from 0) of sessions 1 to 4 of each person: halves that differ by person and by pair of sessions.
HALVES = {1: [(0, 2), (1, 3), (2, 3), (0, 1)], 2: [(1, 2), (0, 3), (0, 2), (1, 3)]}
GAP, FIRST, N_TIMES = 120, 400, 3000  # samples between onsets, of the first onset, of a file
TRAIN_IDS = [f"{concept}_{n:02d}b" for concept in CONCEPTS for n in (1, 6)]
TEST_IDS = [f"{concept}_09s" for concept in TEST_CONCEPTS]


def shown(subject, session, part):
    """Codes in order of presentation, a target and one surplus image among them."""
    rng = np.random.default_rng([subject, session, part == "test"])
    if part == "test":
        return rng.permutation([1, 2, 3, 1, 2, 3, 2, TARGET])
    codes = [concept * A_CONCEPT + n for concept in HALVES[subject][session - 1] for n in (1, 2)]
    return rng.permutation([*codes, *codes, codes[1], TARGET])


def signal(subject, session, part, run=0):
    """Whole microvolts `(63, N_TIMES)`: noise, with an offset for each channel."""
    rng = np.random.default_rng([7, subject, session, part == "test", run])
    return np.round(10 * rng.standard_normal((63, N_TIMES)) + 100 * np.arange(63)[:, None]).astype(int)


def onsets(codes):
    """Samples of the images of a file."""
    return FIRST + GAP * np.arange(len(codes))


def write_images(folder, name="training_images"):
    """The folders of images and the table of what codes stand for."""
    table = {}
    everything = sorted([*CONCEPTS, *TEST_CONCEPTS])
    of_things = {concept: f"{n:05d}_{concept}" for n, concept in enumerate(everything, 1)}
    for key, concepts, ids, place in (
        ("train", CONCEPTS, TRAIN_IDS, name), ("test", TEST_CONCEPTS, TEST_IDS, "test_images"),
    ):  # fmt: skip
        numbered = [f"{concepts.index(i.rsplit('_', 1)[0]) + 1:05d}_{i.rsplit('_', 1)[0]}" for i in ids]
        table[f"{key}_img_concepts"] = numbered
        table[f"{key}_img_concepts_THINGS"] = [of_things[i.rsplit("_", 1)[0]] for i in ids]
        table[f"{key}_img_files"] = [f"{i}.jpg" for i in ids]
        for n, (where, image_id) in enumerate(zip(numbered, ids, strict=True)):
            path = folder / place / where / f"{image_id}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([n, len(ids)]).integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    save_npy(folder / "image_metadata.npy", table)


def save_npy(path, content):
    """A dict as `np.save` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, content, allow_pickle=True)


def load_npy(path):
    """That dict."""
    return np.load(path, allow_pickle=True).item()


def save_pickle(path, content):
    """A pickle by itself, whatever its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=4))


def load_pickle(path):
    """What it holds."""
    return pickle.loads(path.read_bytes())


def save_pt(path, content):
    """As UBP saves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path, pickle_protocol=5)


def load_pt(path):
    """What it holds."""
    return torch.load(path, weights_only=False)


def raw_content(subject, session, part):
    """What a raw file holds."""
    stim, codes = np.zeros(N_TIMES), shown(subject, session, part)
    stim[onsets(codes)] = codes
    return {
        "raw_eeg_data": np.vstack([signal(subject, session, part) * 1e-6, stim]),
        "ch_names": [*RAW_63.split(), "stim"], "ch_types": ["eeg"] * 63 + ["stim"], "sfreq": 1000, "highpass": 0.01,
        "lowpass": 100.0,
    }  # fmt: skip


def released(subject, part, n_chans, n_times):
    """Values `(n_images, n_repeats, n_chans, n_times)` that are alike to z-scores."""
    rng = np.random.default_rng([11, subject, part == "test", n_chans])
    shape = (3, 8) if part == "test" else (8, 4)
    return rng.standard_normal((*shape, n_chans, n_times))


def sessions_of(subject, part):
    """Sessions of the repeats, counted from 0, `(n_images, n_repeats)`."""
    if part == "test":
        return np.tile(np.repeat(np.arange(4.0), 2), (3, 1))
    of = [[s for s in range(4) if concept in HALVES[subject][s]] for concept in range(4) for _ in range(A_CONCEPT)]
    return np.array([np.repeat(row, 2).astype(float) for row in of])


def write_raw(folder, subject):
    for session in range(1, 5):
        for part in ("training", "test"):
            path = folder / f"sub-{subject:02d}" / f"ses-{session:02d}" / f"raw_eeg_{part}.npy"
            save_npy(path, raw_content(subject, session, part))


def write_bids(folder, subject):
    columns = ["onset", "duration", "sample", "value", "trial_type", "tot_img_number", "img_category", "category_name"]
    for session in range(1, 5):
        stem = f"sub-{subject:02d}_ses-{session:02d}"
        place = folder / f"sub-{subject:02d}" / f"ses-{session:02d}" / "eeg"
        place.mkdir(parents=True, exist_ok=True)
        codes = np.array_split(shown(subject, session, "training"), 2)
        runs = [("training", f"task-train_run-{run + 1:02d}", run, codes[run]) for run in range(2)]
        for part, run, number, own in [*runs, ("test", "task-test", 0, shown(subject, session, "test"))]:
            values = signal(subject, session, part, number)
            write_edf(place / f"{stem}_{run}_eeg.bdf", list(zip(RAW_63.split(), values, strict=True)), 3)
            lines = ["\t".join(columns)]
            for sample, code in zip(onsets(own), own, strict=True):
                ids, concepts = (TEST_IDS, TEST_CONCEPTS) if part == "test" else (TRAIN_IDS, CONCEPTS)
                told = ["target", "n/a", "n/a", "n/a"]
                if code != TARGET:
                    number_of = concepts.index(ids[code - 1].rsplit("_", 1)[0])
                    told = ["image", str(code), str(number_of + 1), f"{number_of + 1:05d}_{concepts[number_of]}"]
                lines.append("\t".join([f"{sample / 1000}", "0.0999", str(sample), str(code % 256), *told]))
            (place / f"{stem}_{run}_events.tsv").write_text("\n".join(lines) + "\n")


def write_official(folder, subject):
    for part in ("training", "test"):
        content = {
            "preprocessed_eeg_data": released(subject, part, 17, 100), "ch_names": POSTERIOR_17.split(),
            "times": np.round(np.arange(100) / 100 - 0.2, 6),
        }  # fmt: skip
        save_npy(folder / f"sub-{subject:02d}" / f"preprocessed_eeg_{part}.npy", content)


def write_nice(folder, subject):
    for part in ("training", "test"):
        content = {
            "preprocessed_eeg_data": released(subject, part, 63, 250), "ch_names": FRONT_63.split(),
            "times": np.arange(300) / 250 - 0.2,
        }  # fmt: skip
        save_pickle(folder / f"sub-{subject:02d}" / f"preprocessed_eeg_{part}.npy", content)


def write_ubp(folder, subject):
    for part, name in (("training", "train"), ("test", "test")):
        values, ids = released(subject, part, 63, 250).astype(np.float16), TEST_IDS if part == "test" else TRAIN_IDS
        n_repeats = values.shape[1]
        columns = {
            "label": [n // (1 if part == "test" else A_CONCEPT) for n in range(len(ids))],
            "img": [f"{name}_images/00000_x/{image_id}.jpg" for image_id in ids],
            "text": [image_id.rsplit("_", 1)[0] for image_id in ids],
        }  # fmt: skip
        tables = {key: np.tile(np.array(column)[:, None], (1, n_repeats)) for key, column in columns.items()}
        content = {"eeg": values, **tables, "session": sessions_of(subject, part)}
        content |= {"ch_names": FRONT_63.split(), "times": np.arange(300) / 250 - 0.2}
        save_pt(folder / f"sub-{subject:02d}" / f"{name}.pt", content)


def write_neurobridge(folder, subject):
    for part, name in (("training", "train"), ("test", "test")):
        values = released(subject, part, 63, 250).astype(np.float32)
        path = folder / f"sub-{subject:02d}" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values.reshape(-1, 1 if part == "test" else A_CONCEPT, *values.shape[1:]))
    info = {"ch_names": FRONT_63.split(), "times": (np.arange(300) / 250 - 0.2).tolist(), "normalization": "mvnn"}
    (folder / "info.json").write_text(json.dumps(info))


WRITERS = {
    "raw": write_raw, "bids": write_bids, "official": write_official, "nice": write_nice, "ubp": write_ubp,
    "neurobridge": write_neurobridge,
}  # fmt: skip


def build(folder, route, subjects=SUBJECTS):
    """Write what a route reads, and the images."""
    folder.mkdir(parents=True)
    for subject in subjects:
        WRITERS[route](folder, subject)
    write_images(folder / ("stimuli" if route == "bids" else "image_set"),
                 "train_images" if route in ("ubp", "neurobridge") else "training_images")  # fmt: skip
    sizes = SIZES | {"subjects": list(subjects)}
    (folder / "SIMULATED.json").write_text(json.dumps({"simulated": True, "sizes": sizes}))
    return folder
