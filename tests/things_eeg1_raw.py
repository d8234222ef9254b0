"""A small THINGS-EEG1 in the format of its releases, written by hand for the tests of its reader.

Two people saw all images, one no test images (20 columns), one stopped early (15 columns), one wore another cap.
"""

import json

import numpy as np
from PIL import Image

CONCEPTS, A_CONCEPT, TEST_CONCEPTS, REPEATS = (
    ["aardvark", "bow1", "coat_rack", "ice_cream", "t-shirt", "yo-yo"],
    4,
    2,
    3,
)
PEOPLE, EXCLUDED, OTHER = (1, 2, 3, 6, 49), (1, 6), (49,)
SIZES = {
    "subjects": list(PEOPLE), "other_setup": list(OTHER), "less": [1, 24, 0, 6, 12, 0], "n_concepts": 6,
    "images_per_concept": A_CONCEPT, "n_test_images": TEST_CONCEPTS, "test_repeats": REPEATS, "n_chans": 63,
    "sfreq": 1000.0,
}  # fmt: skip
_CHANNELS = (
    "Fp1 Fz F3 F7 FT9 FC5 FC1 C3 T7 TP9 CP5 CP1 Pz P3 P7 O1 Oz O2 P4 P8 TP10 CP6 CP2 C4 T8 FT10 FC6 FC2 F4 F8 Fp2 AF7 "
    "AF3 AFz F1 F5 FT7 FC3 FCz C1 C5 TP7 CP3 P1 P5 PO7 PO3 POz PO4 PO8 P6 P2 CPz CP4 TP8 C6 C2 FC4 FT8 F6 F2 AF4 AF8"
)
CHANNELS = _CHANNELS.split()
_COLUMNS = (
    "onset duration eventnumber blocksequencenumber isteststim object objectnumber presentationnumber sequencenumber "
    "stim stimnumber teststimnumber withinsequencenumber istarget stimname response rt correct time_stimon "
    "time_stimoff stimdur sample"
)
COLUMNS = _COLUMNS.split()
OF_PERSON = {1: [name for name in COLUMNS if name not in ("isteststim", "teststimnumber")],
             6: [*COLUMNS[:14], "sample"]}  # fmt: skip
FIRST, SOA, PAUSE, AFTER, RESOLUTION = 0, 100, 600, 1200, 0.5  # samples; resolution in microvolts
STEM = "sub-{0:02d}/eeg/sub-{0:02d}_task-rsvp_"


def file_of(concept, number):
    """Name of a training image; test images have numbers from 13 on."""
    return f"{concept}_{number + 1:02d}{'b' if number == 0 else 's'}.jpg"


TRAIN_IDS = {file_of(concept, n)[:-4] for concept in CONCEPTS for n in range(A_CONCEPT)}
TEST_IDS = {file_of(concept, 12)[:-4] for concept in CONCEPTS[-TEST_CONCEPTS:]}


def shown(subject, concepts=CONCEPTS, a_concept=A_CONCEPT, n_test=TEST_CONCEPTS, repeats=REPEATS):
    """`(sequence, concept, number, whether a test image)` in order of presentation."""
    rng, rows = np.random.default_rng(subject), []
    orders = [rng.permutation(a_concept) for _ in concepts]
    n_sequences = a_concept // 2 if subject == 6 else a_concept
    for sequence in range(n_sequences):
        for place in rng.permutation(len(concepts)):
            rows.append((sequence, concepts[place], int(orders[place][sequence]), False))
    for sequence in range(n_sequences, n_sequences + (0 if subject in (1, 6) else repeats)):
        rows += [(sequence, concepts[len(concepts) - 1 - place], 12, True) for place in rng.permutation(n_test)]
    return rows


def onsets(rows, subject=0):
    """Samples of the images: every 100, a pause between sequences that differs, and now and then a sample more."""
    pauses = PAUSE + np.random.default_rng([5, subject]).integers(0, 99, 1 + max(row[0] for row in rows)).cumsum()
    jitter = np.random.default_rng(subject).integers(0, 2, len(rows)) * (np.arange(len(rows)) % 3 == 0)
    return (
        FIRST
        + SOA * np.arange(len(rows))
        + pauses[[row[0] for row in rows]]
        + PAUSE * np.array([row[0] for row in rows])
        + jitter
    )


def noise(subject, n_times):
    """Whole steps of the resolution `(63, n_times)`, with an offset for each channel."""
    rng = np.random.default_rng([3, subject])
    return np.round(40 * rng.standard_normal((63, n_times)) + 100 * np.arange(63)[:, None])


def write_events(folder, subject, version, rows, samples):
    names = [name for name in OF_PERSON.get(subject, COLUMNS) if version == "1.2.0" or name != "sample"]
    lines = ["\t".join(names)]
    for event, ((sequence, concept, number, test), sample) in enumerate(zip(rows, samples, strict=True)):
        file = file_of(concept, number)
        cells = dict.fromkeys(COLUMNS, "0") | {
            "onset": f"{sample / 1000}" if version == "1.2.0" else str(sample), "duration": "50",
            "eventnumber": str(event), "isteststim": str(int(test)), "object": "-1" if test else concept,
            "objectnumber": "-1" if test else "7", "sequencenumber": str(sequence), "sample": str(sample),
            "stim": f"stimuli\\{concept}\\{file}", "stimname": file,
        }  # fmt: skip
        lines.append("\t".join(cells[name] for name in names))
    (folder / f"{STEM.format(subject)}events.tsv").write_text("\n".join(lines) + "\n")


def write_signals(folder, subject, values, samples, names=None):
    """Header, markers and samples of BrainVision; two markers an image, when it appears and when it goes."""
    names = names or CHANNELS
    stem = folder / f"{STEM.format(subject)}eeg"
    stem.parent.mkdir(parents=True, exist_ok=True)
    values.T.astype("<f4").tofile(f"{stem}.eeg")
    lines = [
        "Brain Vision Data Exchange Header File Version 1.0", "", "[Common Infos]", "Codepage=UTF-8",
        f"DataFile={stem.name}.eeg", f"MarkerFile={stem.name}.vmrk", "DataFormat=BINARY",
        "DataOrientation=MULTIPLEXED", f"NumberOfChannels={len(names)}", "SamplingInterval=1000", "",
        "[Binary Infos]", "BinaryFormat=IEEE_FLOAT_32", "", "[Channel Infos]",
        *(f"Ch{n}={name},,{RESOLUTION},µV" for n, name in enumerate(names, 1)), "",
    ]  # fmt: skip
    (folder / f"{stem}.vhdr").write_text("\n".join(lines), encoding="utf-8")
    marks = [place for sample in samples for place in ((sample, "E  1"), (sample + 50, "E  2"))]
    lines = ["Brain Vision Data Exchange Marker File, Version 1.0", "[Common Infos]", "Codepage=UTF-8",
             f"DataFile={stem.name}.eeg", "[Marker Infos]", "Mk1=New Segment,,1,1,0,20190101000000000000"]  # fmt: skip
    lines += [f"Mk{n}=Stimulus,{what},{place + 1},1,0" for n, (place, what) in enumerate(marks, 2)]
    (folder / f"{stem}.vmrk").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_person(folder, subject, version="1.2.0", rows=None, values=None):
    rows = rows or shown(subject)
    samples = onsets(rows, subject)
    if values is None:
        values = noise(subject, int(samples[-1]) + AFTER)
    write_signals(folder, subject, values, samples)
    write_events(folder, subject, version, rows, samples)


def write_image(folder, concept, number, pixels=None):
    path = folder / "images" / concept / file_of(concept, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = [len(concept), ord(concept[0]), number]
    noise_image = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise_image if pixels is None else pixels).save(path)


def write_participants(folder, people=PEOPLE, excluded=EXCLUDED):
    lines = ["participant_id\tage\texclude\tnote_IZ"]
    lines += [f"sub-{one:02d}\t20\t{int(one in excluded)}\t" + ('"poor signal, braids"' if one in excluded else "n/a")
              for one in people]  # fmt: skip
    (folder / "participants.tsv").write_text("\n".join(lines))


def build(folder, version="1.2.0", people=(1, 2, 3, 6)):
    """Write recordings, tables and images."""
    folder.mkdir(parents=True)
    for subject in people:
        write_person(folder, subject, version)
    for concept in CONCEPTS:
        for number in range(A_CONCEPT):
            write_image(folder, concept, number)
    for concept in CONCEPTS[-TEST_CONCEPTS:]:
        write_image(folder, concept, 12)
    write_participants(folder)
    (folder / "SIMULATED.json").write_text(json.dumps({"simulated": True, "sizes": SIZES}))
    return folder
