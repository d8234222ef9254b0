"""THINGS-EEG1, damaged and mixed up: the fault is named with its file, and no data set appears."""

import json
import shutil

import numpy as np
import pytest

import things_eeg1_raw as made
from mixed_up_files import copy
from neural_clip.corpora.things_eeg1 import prepare
from neural_clip.errors import DataError

TWO, THREE = made.STEM.format(2), made.STEM.format(3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return made.build(tmp_path_factory.mktemp("whole") / "raw", people=(2, 3))


def replaced(name, edit):
    """Other text in place of that of a file."""

    def damage(folder):
        text = (folder / name).read_text()
        (folder / name).unlink()
        (folder / name).write_text(edit(text))

    return damage


def cut(name, share=0.5, least=0):
    """A file that was half downloaded."""

    def damage(folder):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / name).write_bytes(content[: int(len(content) * share) // 252 * 252 + least])

    return damage


def cell(number, column, value):
    """Another value in a row of a table of events."""

    def edit(text):
        lines = [line.split("\t") for line in text.splitlines()]
        lines[number][lines[0].index(column)] = value
        return "\n".join("\t".join(line) for line in lines) + "\n"

    return replaced(f"{TWO}events.tsv", edit)


def column(name, edit):
    """Another column, by name."""

    def on_text(text):
        lines = [line.split("\t") for line in text.splitlines()]
        place = lines[0].index(name)
        for line in lines[1:]:
            line[place] = edit(line[place])
        return "\n".join("\t".join(line) for line in lines) + "\n"

    return replaced(f"{TWO}events.tsv", on_text)


def without(name):
    """A table without a column."""

    def edit(text):
        lines = [line.split("\t") for line in text.splitlines()]
        place = lines[0].index(name)
        return "\n".join("\t".join(line[:place] + line[place + 1 :]) for line in lines) + "\n"

    return replaced(f"{TWO}events.tsv", edit)


def every(*damages):
    def damage(folder):
        for one in damages:
            one(folder)

    return damage


def written(**changes):
    """The recording of sub-02, with other signals."""

    def damage(folder):
        rows = made.shown(2)
        samples = made.onsets(rows, 2)
        values = made.noise(2, int(samples[-1]) + made.AFTER)
        for path in (folder / "sub-02" / "eeg").glob("*_eeg.*"):
            path.unlink()
        edit = changes.get("values", lambda values: values)
        made.write_signals(folder, 2, edit(values), samples, changes.get("names"))

    return damage


def put(place, value):
    def edit(values):
        values[place] = value
        return values

    return edit


PEOPLE = "participants.tsv"
EVENTS, SIGNALS, HEADER, MARKERS = f"{TWO}events.tsv", f"{TWO}eeg.eeg", f"{TWO}eeg.vhdr", f"{TWO}eeg.vmrk"
FAULTS = {
    "events absent": (lambda folder: (folder / EVENTS).unlink(), r"events\.tsv' does not exist.*'subjects'"),
    "events cut within a line": (cut(EVENTS, 0.5, 17), "has .* cells, the header 22"),
    "events cut between lines": (replaced(EVENTS, lambda text: "\n".join(text.splitlines()[:-3]) + "\n"),
                                 "not the corpus as published: sub-02"),
    "no events": (replaced(EVENTS, lambda text: text.splitlines()[0] + "\n"), "lists no events"),
    "seconds without samples": (without("sample"), "has no column 'sample'.*line 2 has the onset 0\\."),
    "whole seconds without samples": (every(column("onset", lambda text: str(round(float(text) * 10))),
                                            without("sample")), "follow each other every 0.001 s"),
    "samples of another rate": (column("sample", lambda text: str(int(text) // 2)), r"tells the onset 0\.\d+ s and"),
    "onsets in ms beside samples": (column("onset", lambda text: str(float(text) * 1000)), "Is the table of two "
                                    "versions"),
    "an onset in words": (cell(3, "onset", "soon"), r"line 4: the onset is no number"),
    "a sample in words": (cell(3, "sample", "x"), "line 4 should have a whole number as sample"),
    "rows exchanged": (replaced(EVENTS, lambda text: "\n".join(np.array(text.splitlines())[[0, 2, 1, *range(3, 31)]])),
                       "not in order of time, from row 2 on"),
    "slashes of another path": (cell(2, "stim", "bow1_01b.jpg"), r"line 3 shows 'bow1_01b\.jpg'"),
    "a path that leaves the folder": (
        every(cell(2, "stim", r"stimuli\..\.._01b.jpg"), cell(2, "stimname", ".._01b.jpg"), cell(2, "object", "..")),
        "line 3 shows"),
    "another object": (cell(2, "object", "cat"), "line 3 contradicts itself.*object 'cat'"),
    "another name": (cell(2, "stimname", "cat_01b.jpg"), "line 3 contradicts itself"),
    "another folder": (cell(2, "stim", r"stimuli\cat\bow1_01b.jpg"), "line 3 contradicts itself"),
    "a flag of another kind": (cell(2, "isteststim", "2"), "has '2' as isteststim"),
    "a test image within a sequence": (cell(2, "isteststim", "1"), "sequence 0 shows training and test images both"),
    "without the column of test images": (without("isteststim"), "shows the test image '.*_13s' among training"),
    "a column absent": (without("stim"), "lacks stim"),
    "events of another person": (copy(f"{THREE}events.tsv", EVENTS), "list the same onsets"),
    "all of another person": (every(*(copy(f"{THREE}{name}", f"{TWO}{name}") for name in
                                      ("events.tsv", "eeg.eeg", "eeg.vmrk"))), "list the same onsets"),
    "recording of another person": (every(copy(f"{THREE}eeg.eeg", SIGNALS)), "hold the same recording"),
    "markers of another person": (copy(f"{THREE}eeg.vmrk", MARKERS), r"eeg\.vmrk' has .* markers, and \d+% of the "
                                  r"events of .*'markers' parameter to 'ignore'"),
    "no markers": (replaced(MARKERS, lambda text: "\n".join(text.splitlines()[:6]) + "\n"), "has 0 markers, and 0%"),
    "half a recording": (cut(SIGNALS), r"samples, but .* has an event at sample"),
    "half a sample": (cut(SIGNALS, 1, -100), r"eeg\.eeg' holds .* samples and 152 bytes"),
    "a recording that ends too early": (written(values=lambda values: values[:, :-600]), "too few for an event"),
    "a pointer": (replaced(MARKERS, lambda _: "/annex/objects/MD5E-s1553539--830c"), "is not downloaded"),
    "no header": (lambda folder: (folder / HEADER).unlink(), r"eeg\.vhdr' does not exist"),
    "no header of BrainVision": (replaced(HEADER, lambda _: "hello"), "is no header of BrainVision"),
    "another rate": (replaced(HEADER, lambda text: text.replace("Interval=1000", "Interval=2000")),
                     "has 500 Hz; THINGS-EEG1 was at 1000 Hz"),
    "fewer channels": (written(values=lambda values: values[:-1], names=made.CHANNELS[:-1]), "has 62 channels"),
    "the cap of 128": (written(values=lambda values: np.repeat(values, 2, 0), names=[f"E{n}" for n in range(126)]),
                       "has 126 channels, among them 'E0'"),
    "the reference among them": (written(names=["Cz", *made.CHANNELS[1:]]), "among them 'Cz'"),
    "another channel": (written(names=["Iz", *made.CHANNELS[1:]]), "has other channels than .*'Fp1'"),
    "not finite": (written(values=put((5, 700), np.nan)), "not finite"),
    "another unit": (written(values=lambda values: values * 1e6), "the unit is V"),
    "flat": (written(values=put(7, 0.0)), r"Channel \d+ of .*vhdr' is flat"),
    "no people": (lambda folder: (folder / PEOPLE).unlink(), r"participants\.tsv'"),
    "people cut": (replaced(PEOPLE, lambda text: "\n".join(text.splitlines()[:3])), "does not list sub-03, sub-06, so "
                   "whether they are excluded is not known"),
    "people without a mark": (replaced(PEOPLE, lambda text: text.replace("exclude", "x")), "lacks exclude"),
    "another mark": (replaced(PEOPLE, lambda text: text.replace("\t0\t", "\tno\t")), "has 'no' as exclude"),
    "everybody excluded": (replaced(PEOPLE, lambda text: text.replace("\t0\t", "\t1\t")), "nobody to read"),
    "an image absent": (lambda folder: (folder / "images/bow1/bow1_01b.jpg").unlink(), "1 of the images cannot be "
                        r"used.*bow1_01b\.jpg"),
    "no images": (lambda folder: shutil.rmtree(folder / "images"), "--images-dir"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(whole, tmp_path, fault):
    damage, words = FAULTS[fault]
    folder = shutil.copytree(whole, tmp_path / "raw", copy_function=shutil.os.link)  # damage writes new files
    damage(folder)
    with pytest.raises(DataError, match=words):
        prepare(folder, tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(("first", "kept"), [(0, 700), (600, 1200)])
def test_a_recording_without_the_whole_epochs_of_all_events_is_refused_before_anything_is_written(
    whole, tmp_path, first, kept
):
    folder = shutil.copytree(whole, tmp_path / "raw")
    shown = made.shown(2)
    samples = made.onsets(shown, 2) - first
    made.write_signals(folder, 2, made.noise(2, int(samples[-1]) + kept), samples)
    made.write_events(folder, 2, "1.2.0", shown, samples)
    event = samples[0] if first else samples[-1]
    with pytest.raises(
        DataError, match=rf"sub-02_task-rsvp_eeg\.eeg' has .* too few for an event at sample {event} of"
    ):
        prepare(folder, tmp_path / "set")
    assert not [path for path in tmp_path.iterdir() if path.name != "raw"]


def test_names_of_columns_may_be_in_quotes(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "raw")
    first, _, rest = (folder / EVENTS).read_text().partition("\n")
    (folder / EVENTS).write_text("\t".join(f'"{name}"' for name in first.split("\t")) + "\n" + rest)
    sets = [prepare(place, tmp_path / name, scaling="none") for place, name in ((whole, "1"), (folder, "2"))]
    one, other = (json.loads((place / "neural_clip.json").read_text()) for place in sets)
    assert one["fingerprint"] == other["fingerprint"]


def test_other_test_images_of_one_person_are_refused(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "raw")
    other = [(n, concept, 13 if test else number, test) for n, concept, number, test in made.shown(2)]
    made.write_person(folder, 2, rows=other)
    with pytest.raises(DataError, match="different test images, such as 't-shirt_13s'"):
        prepare(folder, tmp_path / "set")
    seen = [(n, concept, 12 if (concept, number) == ("yo-yo", 0) else number, test) for n, concept, number, test
            in made.shown(2)]  # fmt: skip
    made.write_person(folder, 2, rows=seen)
    with pytest.raises(DataError, match="shows the test image 'yo-yo_13s' among training images"):
        prepare(folder, tmp_path / "set")


def test_other_counts_can_be_accepted_and_markers_ignored(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "raw")
    replaced(EVENTS, lambda text: "\n".join(text.splitlines()[:-1]) + "\n")(folder)
    (folder / MARKERS).write_text((folder / f"{THREE}eeg.vmrk").read_text())
    prepare(folder, tmp_path / "set", allow_partial=True, markers="ignore", scaling="none")
    facts = json.loads((tmp_path / "set" / "neural_clip.json").read_text())
    assert list(facts["partial"]) == ["sub-02"] and facts["preprocessing"]["markers"] == "ignore"
    assert facts["partial"]["sub-02"]["found"]["test images shown 3 times"] == 1
