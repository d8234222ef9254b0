"""A small Alljoined-1.6M and Alljoined1 in the formats of their releases, written by hand to test their reader."""

import json
import pickle

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from edf_files import annotations, write_edf

SUBJECTS, N_CONCEPTS, A_CONCEPT, N_TEST = (6, 8), 4, 2, 3
N_TRAIN = N_CONCEPTS * A_CONCEPT
SIZES = {
    "subjects": list(SUBJECTS), "first_subjects": [1, 2], "fewer": [8, 23], "moved": [6, 3, 1], "n_sessions": 2,
    "test_blocks": 2, "train_blocks": 2, "n_concepts": N_CONCEPTS, "images_per_concept": A_CONCEPT,
    "n_test_images": N_TEST, "test_shown": 12, "first_images": 10, "first_test_images": 3, "sfreq": 256.0,
}  # fmt: skip
_CHANNELS = (
    "Cz FCz AFz Fp1 F5 F1 CP5 CP3 CP1 P1 P3 P5 P7 PO7 PO3 O1 Pz POz Oz O2 PO4 PO8 P8 P6 P4 P2 CP2 CP4 CP6 F2 F6 Fp2"
)
CHANNELS = _CHANNELS.split()
CATEGORIES = ["aardvark", "bow1", "ice_cream", "ping-pong_table", "cat", "dog", "emu"]
FIRST, GAP, SECONDS = 100, 51, 9  # samples of the first onset, between onsets; of a block


def concept_of(number):
    return number // A_CONCEPT if number < N_TRAIN else N_CONCEPTS + number - N_TRAIN


def shown(subject, session, block):
    """Ids in order of presentation: two blocks of test images, two of training images."""
    rng = np.random.default_rng([subject, session, block])
    if block <= 2:
        ids = N_TRAIN + rng.permutation(np.tile(np.arange(N_TEST), 2))
        return ids[:-1] if (subject, session, block) == (8, 2, 2) else ids
    return rng.permutation(N_TRAIN)


def onsets(ids):
    """Samples: images follow each other every 51 or 52."""
    return FIRST + GAP * np.arange(len(ids)) + np.arange(len(ids)) // 5


def signal(subject, session, block):
    """Whole microvolts `(32, n_times)`, with an offset as the headset has."""
    rng = np.random.default_rng([9, subject, session, block])
    return np.round(15 * rng.standard_normal((32, SECONDS * 256)) + 40 * np.arange(32)[:, None]).astype(int) + 4000


def edf_name(subject, session, block):
    number = 19 if subject == 8 else subject
    return f"Subject {number}, Session {session}, Block {block} Recording_EPOCFLEX_2024.md.edf"


def block_of(folder, subject, session, block):
    place = folder / "raw_eeg" / f"sub-{subject:02d}" / f"session_{session:02d}" / f"block_{block:02d}"
    return place / edf_name(subject, session, block)


def write_block(folder, subject, session, block, ids=None, values=None, names=None, texts=None, samples=None):
    """An EDF file: electrodes, some of the other channels of the headset, annotations."""
    path = block_of(folder, subject, session, block)
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = shown(subject, session, block) if ids is None else ids
    values = signal(subject, session, block) if values is None else values
    samples = onsets(ids) if samples is None else samples
    label = "stim_test" if block <= 2 else "stim_train"
    told = [(f"{sample / 256:.6f}", 0, f"{label},{number},-1,{n}")
            for n, (sample, number) in enumerate(zip(samples, ids, strict=True), 1)]  # fmt: skip
    told += [("0.100000", 0, "oddball,1,-1,0"), (f"{(samples[-1] + 90) / 256:.6f}", 0, "behav,3,-1,1")]
    seconds = values.shape[1] // 256
    signals = [("Counter", np.arange(values.shape[1]) % 100), *zip(names or _labels(), values, strict=True)]
    signals += [("CQ_Cz", np.full(values.shape[1], 4)), ("MOT.Q0", np.arange(8 * seconds) % 9)]
    told = told if texts is None else texts
    signals.append(("EDF Annotations", annotations(np.arange(seconds), told, width=60 + 20 * len(told))))
    write_edf(path, signals, seconds, marked="EDF+C")


def _labels():
    return ["Afz" if name == "AFz" else name for name in CHANNELS]


def picture(folder, number, pixels=None):
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([number, 5]).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise if pixels is None else pixels).save(folder / f"{number:05d}.jpg")


def stamp(folder, sizes=SIZES):
    (folder / "SIMULATED.json").write_text(json.dumps({"simulated": True, "sizes": sizes}))


def build_raw(folder, subjects=SUBJECTS):
    """The EDF files, images, and for sub-08 a session that was given up."""
    for subject in subjects:
        for session in (1, 2):
            for block in range(1, 5):
                write_block(folder, subject, session, block)
        if subject == 8:
            (folder / "raw_eeg" / "sub-08" / "session_02 old").mkdir()
    _images(folder, subjects)
    return folder


def _images(folder, subjects):
    for number in range(N_TRAIN + N_TEST):
        picture(folder / "stimuli" / "images", number)
    stamp(folder, SIZES | {"subjects": list(subjects)})


def image_metadata(path):
    """The table of THINGS-EEG2 for these images."""
    files = [f"{CATEGORIES[concept_of(n)]}_{n % A_CONCEPT + 1:02d}s.jpg" for n in range(N_TRAIN + N_TEST)]
    np.save(path, {"train_img_files": files[:N_TRAIN], "test_img_files": files[N_TRAIN:]}, allow_pickle=True)


def trials(subject):
    """Rows of the table in the order of recording, some of them dropped, some of them no images."""
    rows = []
    for session in (1, 2):
        for block in range(1, 5):
            for n, number in enumerate(shown(subject, session, block)):
                rows.append({
                    "dataset": "alljoined", "subject": subject, "session": session, "block_id": block,
                    "sequence_id": n, "sequence_image_id": n, "partition": "stim_test" if block <= 2 else "stim_train",
                    "image_path": f"/data/images/{number:05d}.jpg", "category_num": concept_of(number) + 1,
                    "category_img_num": number % A_CONCEPT + 1, "dropped": (session + n) % 5 == 4,
                })  # fmt: skip
            rows.append(rows[-1] | {"partition": "oddball", "dropped": False})
    return pd.DataFrame(rows)


def values(subject, part):
    """Values of the trials that were kept, alike to z-scores."""
    n_trials = len(kept(subject, part))
    return np.random.default_rng([12, subject, part == "test"]).standard_normal((n_trials, 32, 250))


def kept(subject, part):
    table = trials(subject)
    return table[(table.partition == ("stim_test" if part == "test" else "stim_train")) & ~table.dropped]


def write_table(folder, subject, table=None, name="experiment_metadata.parquet"):
    """The table; of sub-06, a row that was recorded before another one stands behind it."""
    table = trials(subject) if table is None else table
    if subject == 6:  # row 1 of the recording stands at place 3
        order = [0, 2, 3, 1, *range(4, len(table))]
        table = table.iloc[order].reset_index(drop=True)
    table.to_parquet(folder / "preprocessed_eeg" / f"sub-{subject:02d}" / name)


def flat_content(subject, part):
    return {
        "preprocessed_eeg_data": values(subject, part),
        "configs": {"baseline": (None, 0), "tmin": -0.2, "sfreq": 250, "l_freq": None, "mvnn_dim": "epochs"},
        "ch_names": list(CHANNELS), "times": np.arange(250) / 250,
    }  # fmt: skip


def build_flat(folder, subjects=SUBJECTS):
    for subject in subjects:
        place = folder / "preprocessed_eeg" / f"sub-{subject:02d}"
        place.mkdir(parents=True)
        for part in ("training", "test"):
            content = pickle.dumps(flat_content(subject, part), protocol=pickle.HIGHEST_PROTOCOL)
            (place / f"preprocessed_eeg_{part}_flat.npy").write_bytes(content)
        write_table(folder, subject)
        trials(subject).drop(columns="dropped").to_parquet(place / "stim_order.parquet")
    _images(folder, subjects)
    return folder


FIRST_IDS = {"train": range(0, 21, 3), "test": (4, 10, 22)}


def first_rows(split, ids=FIRST_IDS):
    """Rows of Alljoined1: two people, two sessions; seven images for training, three for the test."""
    ids, rows = np.array(ids[split]), []
    rng = np.random.default_rng(len(ids))
    for subject in (1, 2):
        for session in (1, 2):
            for block in (1, 2):
                for trial, number in enumerate(rng.permutation(ids)):
                    rows.append({
                        "EEG": 1e-5 * rng.standard_normal((64, 334)), "subject_id": subject, "session": session,
                        "block": block, "trial": 2 * trial + (split == "test") + 100 * (split == "test"),
                        "73k_id": int(number), "coco_id": int(number) * 7 + 100, "curr_time": 0.5 * trial,
                    })  # fmt: skip
    return rows


def first_table(rows):
    kinds = {"EEG": pa.list_(pa.list_(pa.float64())), "curr_time": pa.float32()}
    columns = {name: [row[name].tolist() if name == "EEG" else row[name] for row in rows] for name in rows[0]}
    return pa.table({name: pa.array(column, kinds.get(name, pa.int32())) for name, column in columns.items()})


def build_first(folder, ids=FIRST_IDS):
    """Two training files and a test file, several groups of rows each, and the images of NSD."""
    (folder / "data").mkdir(parents=True)
    train, test = first_rows("train", ids), first_rows("test", ids)
    half = len(train) // 2
    for number, rows in enumerate((train[:half], train[half:])):
        pq.write_table(first_table(rows), folder / "data" / f"train-{number:05d}-of-00002.parquet", row_group_size=10)
    pq.write_table(first_table(test), folder / "data" / "test-00000-of-00001.parquet", row_group_size=10)
    with h5py.File(folder / "nsd_stimuli.hdf5", "w") as file:
        pixels = np.random.default_rng(3).integers(0, 255, (24, 12, 12, 3), dtype=np.uint8)
        file.create_dataset("imgBrick", data=pixels)
    stamp(folder)
    return folder


BUILDERS = {"raw": build_raw, "flat": build_flat, "alljoined1": build_first}
