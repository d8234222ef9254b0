"""THINGS-MEG, damaged: a fault is named, no data set appears, and one that was complete stays byte for byte."""

import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folder_contents import contents
from neural_clip.commands.prepare import main
from neural_clip.corpora.stamp import read_stamp
from neural_clip.corpora.things_meg import derivative_route
from neural_clip.corpora.things_meg import layout as things_meg_files
from neural_clip.corpora.things_meg import raw_route as things_meg_recordings
from neural_clip.corpora.things_meg.build import prepare
from neural_clip.corpora.things_meg.facts import REAL, corpus_facts
from neural_clip.corpora.things_meg.preprocessing import PAPER
from neural_clip.corpora.things_meg.stimuli import Stimuli
from neural_clip.errors import DataError, run
from neural_clip.prepared.facts import fingerprint, read_metadata
from neural_clip.simulation.presets import get_preset

TINY = get_preset("tiny")
MINI = replace(
    TINY,
    meg=replace(
        TINY.meg,
        n_concepts=6,
        n_test_images=2,
        n_catch_per_session=2,
        n_chans=4,
        soa_s=(1.25, 1.70),  # as in the real corpus
    ),
)
N_CHANNELS = MINI.meg.n_chans + MINI.meg.n_ref_chans + 3  # and clock, photodiode, triggers


@pytest.fixture(scope="module")
def complete(mini_twin, tmp_path_factory):
    """Prepared sets of both routes."""
    folder = tmp_path_factory.mktemp("complete")
    return {route: prepare(mini_twin, folder / route, route=route) for route in ("raw", "derivative")}


def assert_refused(raw, complete, tmp_path, words, **parameters):
    """No data set appears, and a complete one is not touched."""
    with pytest.raises(DataError, match=words):
        prepare(raw, tmp_path / "new", **parameters)
    assert not (tmp_path / "new").exists()
    kept = shutil.copytree(complete[parameters.get("route", "raw")], tmp_path / "kept")
    before = contents(kept)
    with pytest.raises(DataError, match=words):
        prepare(raw, kept, overwrite=True, **parameters)
    assert contents(kept) == before


# ------------------------------------------------------------------------------------------------ kinds of damage


def edit(path, old, new, count=1):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, count))


def stem(subject=1, session=1, run=1):
    return f"sub-BIGMEG{subject}/ses-{session:02d}/meg/sub-BIGMEG{subject}_ses-{session:02d}_task-main_run-{run:02d}_"


def recording(raw, *key):
    return raw / (stem(*key) + "meg.ds")


def meg4(raw, *key):
    return next(recording(raw, *key).glob("*.meg4"))


def header(raw, *key):
    return meg4(raw, *key).with_suffix(".res4")


def file_for_recording(raw):
    shutil.rmtree(recording(raw))
    recording(raw).write_bytes(bytes(2000))


def lose_run(raw):
    shutil.rmtree(recording(raw))
    events_file(raw).unlink()


def coils(raw):
    return header(raw).with_suffix(".hc")


def events_file(raw, *key):
    return raw / (stem(*key) + "events.tsv")


def pointer(path):
    path.write_text("/annex/objects/SHA256E-s518000008--0123456789abcdef.meg4\n")


def dangle(path):
    path.unlink()
    path.symlink_to("../../../.git/annex/objects/xx/yy/gone")


def truncate(path, n_bytes):
    path.write_bytes(path.read_bytes()[:-n_bytes])


def into_folder(path):
    path.unlink()
    path.mkdir()


def change_events(raw, change, *key):
    path = events_file(raw, *key)
    table = pd.read_csv(path, sep="\t", keep_default_na=False, dtype=str)
    change(table).to_csv(path, sep="\t", index=False)


def late_event(raw):
    def change(table):
        table.loc[table.index[-1], ["onset", "sample"]] = "900.0", "1080000"
        return table

    for key in ((1, 1, 1), (2, 1, 1)):  # one of both ends with a trial that is used
        change_events(raw, change, *key)


def move_sample(raw):
    def change(table):
        table.loc[0, "sample"] = str(int(table.loc[0, "sample"]) + 180)  # the 150 ms by which trigger times differ
        return table

    change_events(raw, change)


def reorder_events(raw):
    change_events(raw, lambda table: table.iloc[::-1])


def lose_event(raw):
    change_events(raw, lambda table: table.iloc[:-1])


def shuffle_images_of_events(raw):
    """The table of attributes is not there, so only the triggers could tell; they do not know the images."""

    def change(table):
        columns = ["trial_type", "things_category_nr", "value"]
        table[columns] = table[columns].iloc[::-1].to_numpy()
        return table

    change_events(raw, change)


def second_concept(raw):
    def change(table):
        row = table.index[table.trial_type == "exp"][0]
        table.loc[row, "things_category_nr"] = str(float(table.loc[row, "things_category_nr"]) % 6 + 1)
        return table

    without_tables(raw)
    change_events(raw, change)


def other_image(raw):
    """An image that another trial shows as well: nothing contradicts it but the counts."""

    def change(table):
        exp = table.index[table.trial_type == "exp"]
        table.loc[exp[0], ["things_category_nr", "value"]] = table.loc[
            exp[1], ["things_category_nr", "value"]
        ].tolist()
        return table

    without_tables(raw)
    change_events(raw, change)


def without_tables(raw):
    for path in (raw / "sourcedata").glob("*.csv"):
        path.unlink()


def swap(one, other):
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def swap_events_of_subjects(raw, key=(1, 1)):
    for name in ("events.tsv",):
        swap(raw / (stem(1, *key) + name), raw / (stem(2, *key) + name))


def swap_events_of_subjects_without_tables(raw):
    without_tables(raw)
    swap_events_of_subjects(raw)


def swap_recordings(raw):
    """Files of subject 2 under the names of subject 1 and the other way round."""
    one, other = recording(raw, 1, 1, 1), recording(raw, 2, 1, 1)
    swap(one, other)
    for folder, old, new in ((one, "BIGMEG2", "BIGMEG1"), (other, "BIGMEG1", "BIGMEG2")):
        for path in list(folder.iterdir()):
            path.rename(path.with_name(path.name.replace(old, new)))


def misfiled_recording(raw):
    shutil.move(recording(raw, 1, 1, 1), raw / "sub-BIGMEG2" / "ses-01" / "meg")


def shift_image_list(raw):
    path = raw / "images" / "image_paths.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[1:], lines[0]]) + "\n")


def escape(name):
    def damage(raw):
        without_tables(raw)
        path = raw / "images" / "image_paths.csv"
        path.write_text("\n".join([name, *path.read_text().splitlines()[1:]]) + "\n")

    return damage


def escape_by_table(raw):
    edit(raw / "sourcedata" / "sample_attributes_P1.csv", b"images_meg/", b"/etc/../")


def image(raw):
    return sorted((raw / "images" / "object_images").rglob("*_02b.jpg"))[0]


def change_gain(raw, factor, session, run):
    path = header(raw, 1, session, run)
    content = bytearray(path.read_bytes())
    place = 1847 + 32 * N_CHANNELS + 1328 * 3 + 8  # first sensor after clock and two references
    gain = np.frombuffer(bytes(content[place : place + 8]), ">f8")[0]
    assert abs(gain) == 2.9e9
    content[place : place + 8] = np.array(gain * factor, ">f8").tobytes()
    path.write_bytes(content)


def other_rate(raw):
    edit(header(raw), np.array(1200.0, ">f8").tobytes(), np.array(600.0, ">f8").tobytes())


def bad_channels_by_a_pipe(raw):
    listed = recording(raw) / "BadChannels"
    listed.unlink(missing_ok=True)
    os.mkfifo(listed)


def no_clock(raw):
    for run_number in (1, 2):
        edit(header(raw, 1, 1, run_number), b"SCLK01-177", b"XCLK01-177")


def matrix(raw):
    return raw / "sourcedata" / "category_mat_manual.tsv"


def drop_trigger(raw):
    """Set one trigger of 12 samples to 0, in the last channel of its block."""
    path = meg4(raw)
    values = np.frombuffer(bytearray(path.read_bytes()[8:]), ">i4").reshape(-1, N_CHANNELS, 1200)
    codes = np.concatenate(values[:, -1])
    start = np.flatnonzero(codes == 64)[0]
    codes[start : start + 12] = 0
    values[:, -1] = codes.reshape(-1, 1200)
    path.write_bytes(path.read_bytes()[:8] + values.tobytes())


RAW_FAULTS = {
    "dangling link": (lambda raw: dangle(meg4(raw)), r"not downloaded: .*\.meg4' \(a link .*datalad get"),
    "annex pointer": (lambda raw: pointer(meg4(raw)), r"not downloaded: .*\.meg4' \(a git-annex pointer\); get it"),
    "pointer for a header": (lambda raw: pointer(header(raw)), r"not downloaded: .*\.res4' \(a git-annex pointer\)"),
    "pointer for coils": (lambda raw: pointer(coils(raw)), r"not downloaded: .*\.hc' \(a git-annex pointer"),
    "pointer for events": (lambda raw: pointer(events_file(raw)), r"not downloaded: .*events\.tsv' \(a git-annex"),
    "no samples": (lambda raw: meg4(raw).unlink(), r"not downloaded: .*\.meg4'; get it"),
    "no recording": (lambda raw: shutil.rmtree(recording(raw)), r"not downloaded: .*_meg\.ds'; get it"),
    "file for a recording": (file_for_recording, "is a file; expected the folder of a CTF recording"),
    "folder for samples": (lambda raw: into_folder(meg4(raw)), r"\.meg4' is a folder; expected a file"),
    "folder for events": (lambda raw: into_folder(events_file(raw)), r"events\.tsv' is a folder; expected a file"),
    "folder for an image": (lambda raw: into_folder(image(raw)), r"_02b\.jpg' is a folder; expected a file"),
    "truncated samples": (lambda raw: truncate(meg4(raw), 1000), r"\.meg4' is truncated: \d+ bytes, expected \d+"),
    "one block short": (lambda raw: truncate(meg4(raw), N_CHANNELS * 4 * 1200), r"\.meg4' is truncated"),
    "no header": (lambda raw: header(raw).write_bytes(bytes(3000)), r"\.res4' is no CTF header"),
    "empty header": (lambda raw: header(raw).write_bytes(b""), r"\.res4' is no CTF header"),
    "short header": (lambda raw: truncate(header(raw), 12_000), "cannot be read by MNE"),
    "broken coils": (lambda raw: edit(coils(raw), b"measured", b"unable"), "cannot be read by MNE"),
    "other channel": (lambda raw: edit(header(raw, 2, 1, 1), b"MLT", b"XLT", -1), "usable MEG channels|extra"),
    "a pipe for bad channels": (bad_channels_by_a_pipe, r"BadChannels' is no file of a recording: it is"),
    "other channel in a run": (lambda raw: edit(header(raw, 2, 1, 2), b"ML", b"XL", -1), "other channels than"),
    "no clock": (no_clock, "has 0 channels 'SCLK01-177'; expected one"),
    "other rate": (other_rate, "has 600 Hz; expected 1200 Hz"),
    "gain of a run": (lambda raw: change_gain(raw, 1.001, 1, 2), r"1 with another name, gain, kind or place"),
    "gain of a session": (lambda raw: [change_gain(raw, 2, 2, run_number) for run_number in (1, 2)],
                          "has the gain .*A header is damaged"),
    "sign of a session": (lambda raw: [change_gain(raw, -1, 2, run_number) for run_number in (1, 2)],
                          "has the gain .*A header is damaged"),
    "late event": (late_event, r"event \d+ at sample 1080000 needs samples|differ|by 0\.05 s more or less"),
    "moved sample": (move_sample, "is not sample"),
    "reordered events": (reorder_events, "the rows were reordered"),
    "lost event": (lose_event, "a run of this corpus has|is not the corpus as published|differ"),
    "truncated events": (lambda raw: truncate(events_file(raw), 3), "is not sample"),
    "more truncated events": (lambda raw: truncate(events_file(raw), 17), "lacks an onset|is not sample|but got ''"),
    "binary events": (lambda raw: events_file(raw).write_bytes(b"\xff\xfe\x00"), "is no text in UTF-8"),
    "shuffled events": (shuffle_images_of_events, r"have 10; \d differ, first row \d\..*belongs to another subject"),
    "swapped events": (swap_events_of_subjects, r"differ, first row .*belongs to another subject"),
    "swapped events, no tables": (swap_events_of_subjects_without_tables, "twice|do not belong together"),
    "swapped recordings": (swap_recordings, "do not belong together"),
    "misfiled recording": (misfiled_recording, "lies in the folder of another subject or session"),
    "lost trigger": (drop_trigger, "do not belong together: 4 triggers, but 5 events"),
    "other image": (other_image, r"show the exp image number \d+ twice, the second time in session 1, run 1"),
    "no number": (lambda raw: edit(events_file(raw), b"test\t", b"test\tN/A\t"), "lacks an onset, a sample or"),
    "other type": (lambda raw: edit(events_file(raw), b"\texp\t", b"\toddball\t"), "but got 'oddball'"),
    "other columns": (lambda raw: edit(events_file(raw), b"value", b"number"), "expected the columns"),
    "empty events": (lambda raw: events_file(raw).write_bytes(b""), "is empty: it has 0 bytes"),
    "no events": (lambda raw: events_file(raw).unlink(), r"_events\.tsv' is missing"),
    "no run": (lose_run, "holds 1 runs, expected 2"),
    "no session": (lambda raw: shutil.rmtree(raw / "sub-BIGMEG2" / "ses-02"), "ses-02/meg' holds 0 runs"),
    "no subject": (lambda raw: shutil.rmtree(raw / "sub-BIGMEG2"), "BIGMEG2/ses-01/meg' holds 0 runs"),
    "two concepts": (second_concept, "comes with two concept numbers|has the THINGS numbers|concepts share"),
    "old version": (lambda raw: edit(raw / "dataset_description.json", b"v3.0.0", b"v1.0.3"), r"version 2\.0\.0 or"),
    "no description": (lambda raw: (raw / "dataset_description.json").unlink(), "no THINGS-MEG folder"),
    "description cut": (lambda raw: truncate(raw / "dataset_description.json", 9), "is no readable JSON file"),
    "shifted list": (shift_image_list, "but elsewhere it is"),
    "list cut": (lambda raw: truncate(raw / "images" / "image_paths.csv", 3), "must list one .jpg path a line"),
    "list steps up": (escape("images/../../a_1.jpg"), "is not a path inside"),
    "list is absolute": (escape("/etc/passwd_1.jpg"), "is not a path inside"),
    "concept steps up": (escape("images/x/.._01b.jpg"), r"'\.\./\.\._01b\.jpg', which is not a path inside"),
    "backslash": (escape("images\\x\\a_1.jpg"), "is not a path inside"),
    "table steps up": (escape_by_table, r"sample_attributes_P1\.csv' names the file '/etc/.*not a path inside"),
    "no image": (lambda raw: image(raw).unlink(), r"1 of the images cannot be used; first: .*_02b\.jpg'"),
    "truncated image": (lambda raw: truncate(image(raw), 300), r"no readable image file"),
    "no images": (lambda raw: shutil.rmtree(raw / "images"), "--images-dir"),
    "truncated matrix": (lambda raw: truncate(matrix(raw), 20), "zeros and ones"),
    "short matrix": (lambda raw: truncate(matrix(raw), 54), "has 5 rows of 27 categories; expected 6"),
    "bad matrix": (lambda raw: edit(matrix(raw), b"\t0", b"\t2"), "zeros and ones"),
    "shuffled attributes": (lambda raw: shuffle_table(raw), "not in the order of recording|differ, first row"),
    "cut attributes": (lambda raw: truncate(attributes(raw), 3), r"run_nr is 'nan'; expected a whole number"),
    "another file as stamp": (lambda raw: (raw / "SIMULATED.json").write_text('{"PowerLineFrequency": 50}'),
                              "it should have an object as 'sizes'"),
    "damaged stamp": (lambda raw: truncate(raw / "SIMULATED.json", 9), "Is it damaged"),
}  # fmt: skip


@pytest.mark.parametrize("fault", RAW_FAULTS)
def test_raw_faults_are_named(mini, complete, tmp_path, fault):
    damage, words = RAW_FAULTS[fault]
    damage(mini)
    assert_refused(mini, complete, tmp_path, words)


def test_triggers_can_be_left_out_and_that_is_told(mini, tmp_path):
    whole = prepare(mini, tmp_path / "whole")
    drop_trigger(mini)
    with pytest.raises(DataError, match=r"4 triggers, but 5 events.*--triggers"):
        prepare(mini, tmp_path / "set")
    folder = prepare(mini, tmp_path / "set", triggers="ignore")
    metadata = read_metadata(folder)
    assert metadata["preprocessing"]["triggers"] == "ignore"
    assert "Events were not compared with triggers." in metadata["known_defects"]
    assert fingerprint(folder) == fingerprint(whole)  # triggers decide nothing but whether events are believed
    with pytest.raises(DataError, match="'triggers' parameter"):
        prepare(mini, tmp_path / "other", triggers="never")


def epo(raw, part="", subject=1):
    return raw / "derivatives" / "preprocessed" / f"preprocessed_P{subject}-epo{part}.fif"


def attributes(raw, subject=1):
    return raw / "sourcedata" / f"sample_attributes_P{subject}.csv"


def shuffle_table(raw, within_run=False):
    table = pd.read_csv(attributes(raw))
    if within_run:  # the order of sessions and runs stays
        shuffled = table.groupby(["session_nr", "run_nr"], sort=False).sample(frac=1, random_state=1)
        assert not shuffled.things_image_nr.equals(table.things_image_nr)
    else:
        shuffled = table.sample(frac=1, random_state=0)
    shuffled.to_csv(attributes(raw), index=False)


def without_events(raw):
    for path in raw.rglob("*_events.tsv"):
        path.unlink()


def swap_tables(raw):
    without_events(raw)
    swap(attributes(raw, 1), attributes(raw, 2))


def swap_epochs(raw):
    for part in ("", "-1"):
        swap(epo(raw, part, 1), epo(raw, part, 2))


def swap_tables_and_epochs(raw):
    swap(attributes(raw, 1), attributes(raw, 2))
    swap_epochs(raw)


def cut_table(raw):
    without_events(raw)
    pd.read_csv(attributes(raw)).iloc[:-1].to_csv(attributes(raw), index=False)


def shuffle_table_without_events(raw):
    without_events(raw)
    shuffle_table(raw, within_run=True)


def number_without_value(raw):
    table = pd.read_csv(attributes(raw))
    table.loc[table.index[table.trial_type == "exp"][0], "things_category_nr"] = np.nan
    table.to_csv(attributes(raw), index=False)


DERIVATIVE_FAULTS = {
    "shuffled table": (shuffle_table, "not in the order of recording. The table was reordered"),
    "shuffled runs": (lambda raw: shuffle_table(raw, within_run=True), "differ, first row .* was reordered"),
    "shuffled runs, no events": (shuffle_table_without_events, "disagree in .* rows; first in row"),
    "swapped tables": (swap_tables, "disagree in .* rows; first in row .* or subject"),
    "swapped epochs": (swap_epochs, "cannot be read by MNE|disagree in .* rows; first in row .* or subject"),
    "swapped subjects": (swap_tables_and_epochs, "the events of sub-BIGMEG1/ses-01 .* differ"),
    "short table": (cut_table, r"holds \d+ epochs, but its table|is not the corpus as published"),
    "truncated table": (lambda raw: truncate(attributes(raw), 3), "run_nr is 'nan'; expected a whole number"),
    "no whole number": (number_without_value, "things_category_nr is 'nan'; expected a whole number"),
    "text for a number": (lambda raw: edit(attributes(raw), b",1,1\n", b",one,1\n"), "session_nr is 'one'"),
    "no rows": (lambda raw: attributes(raw).write_bytes(b""), "so it is no table of comma-separated values"),
    "binary table": (lambda raw: attributes(raw).write_bytes(b"\xff\xfe\x00"), "no table of comma-separated"),
    "other columns": (lambda raw: edit(attributes(raw), b"things_image_nr", b"nr"), "lacks the columns"),
    "no table": (lambda raw: attributes(raw).unlink(), r"not downloaded: .*P1\.csv'"),
    "pointer for a table": (lambda raw: pointer(attributes(raw)), r"not downloaded: .*P1\.csv' \(a git-annex pointer"),
    "folder for a table": (lambda raw: into_folder(attributes(raw)), r"P1\.csv' is a folder"),
    "part is a link": (lambda raw: dangle(epo(raw, "-1")), r"not downloaded: .*epo-1\.fif' \(a link"),
    "part is a pointer": (lambda raw: pointer(epo(raw, "-1")), r"not downloaded: .*epo-1\.fif' \(a git-annex pointer"),
    "part is missing": (lambda raw: epo(raw, "-1").unlink(), "cannot be read by MNE|holds .* epochs, but"),
    "no file": (lambda raw: epo(raw).unlink(), r"not downloaded: .*epo\.fif'"),
    "folder for a file": (lambda raw: into_folder(epo(raw)), r"epo\.fif' is a folder"),
    "truncated": (lambda raw: truncate(epo(raw), 40_000), "cannot be read by MNE|holds .* epochs, but"),
    "part truncated": (lambda raw: truncate(epo(raw, "-1"), 40_000), "cannot be read by MNE|holds .* epochs, but"),
    "no fif": (lambda raw: epo(raw).write_bytes(bytes(5000)), "cannot be read by MNE"),
    "empty": (lambda raw: epo(raw).write_bytes(b""), "cannot be read by MNE"),
    "old version": (lambda raw: edit(raw / "dataset_description.json", b"v3.0.0", b"v1.0.3"), r"version 2\.0\.0 or"),
    "truncated image": (lambda raw: truncate(image(raw), 300), "no readable image file"),
}  # fmt: skip


@pytest.mark.parametrize("fault", DERIVATIVE_FAULTS)
def test_derivative_faults_are_named(mini, complete, tmp_path, fault):
    damage, words = DERIVATIVE_FAULTS[fault]
    damage(mini)
    assert_refused(mini, complete, tmp_path, words, route="derivative")


@pytest.mark.parametrize(
    "fault",
    ["truncated samples", "swapped recordings", "swapped events, no tables", "other image", "truncated events",
     "list steps up"],
)  # fmt: skip
def test_damage_is_no_partial_download(mini, complete, tmp_path, fault):
    damage, words = RAW_FAULTS[fault]
    damage(mini)
    assert_refused(mini, complete, tmp_path, words, allow_partial=True)


def test_the_command_line_says_what_is_wrong_in_one_line(mini, tmp_path, capsys):
    pointer(meg4(mini))
    argv = ["--raw-dir", str(mini), "--output-dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        run(partial(main, "things_meg"), argv)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: not downloaded: ") and "datalad get" in line


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"route": "fif"}, "'route'.*'raw' and 'derivative', but got 'fif' instead"),
        ({"split": "random"}, "'split'.*but got 'random'"),
        ({"scaling": "robust"}, "'scaling'.*but got 'robust'"),
        ({"preprocessing": "none"}, "'preprocessing'.*but got 'none'"),
        ({"categories": "1854"}, "'categories'.*but got '1854'"),
        ({"route": "derivative", "preprocessing": "paper"}, "allows only"),
        ({"route": "derivative", "scaling": "train_std"}, "allows only"),
        ({"subjects": [4]}, r"'subjects' parameter. Allowed is numbers of \[1, 2\], but got \[4\]"),
        ({"subjects": []}, r"'subjects' parameter.*but got \[\]"),
        ({"sessions": [7]}, r"'sessions' parameter. Allowed is numbers of \[1, 2\], but got \[7\]"),
        ({"route": "derivative", "sessions": [7]}, "'sessions' parameter"),
        ({"validation_fraction": 1.5}, "'validation_fraction'"),
        ({"num_proc": 0}, "'num_proc'"),
    ],
)
def test_bad_parameters_are_named(mini_twin, tmp_path, parameters, words):
    with pytest.raises(DataError, match=words):
        prepare(mini_twin, tmp_path / "out", **parameters)
    assert not (tmp_path / "out").exists()


def test_archives_are_not_opened(mini, tmp_path):
    """The program asks to extract them, and never for a password."""
    shutil.rmtree(mini / "images")
    (mini / "images").mkdir()
    archive = mini / "images" / "images_THINGS.zip"
    archive.write_bytes(b"PK\x03\x04" + bytes(3000))
    words = r"\['images_THINGS\.zip'\]\. The archive .* is encrypted: extract it yourself"
    for images_dir, expected in ((None, words), (archive, "zip' is a file; .* extract it yourself")):
        with pytest.raises(DataError, match=expected):
            prepare(mini, tmp_path / "out", images_dir=images_dir)
    archive.unlink()
    (mini / "images" / "._images").write_bytes(b"\x00")
    with pytest.raises(DataError, match=r"images' holds no folder of images\.$"):
        prepare(mini, tmp_path / "out")


def test_a_list_of_other_length_is_not_that_of_things(mini):
    with pytest.raises(DataError, match=r"lists \d+ images; THINGS has 26107"):
        Stimuli.read(mini, None, [1], REAL)


# --------------------------------------------------------------------------------------- bits that turned in headers


def places(n_bytes):
    """Offsets within a header by kind: counts and rate, channel names, gains and types, anything."""
    names = 1847 + np.arange(32 * N_CHANNELS)
    records = 1847 + 32 * N_CHANNELS + 1328 * np.arange(N_CHANNELS)
    return {
        "counts": np.concatenate([np.arange(1288, 1330), np.arange(1836, 1847)]),
        "names": names,
        "gains": (records[:, None] + np.arange(48)).ravel(),
        "anything": np.arange(n_bytes),
    }


def turn_bits(raw, n_flips, seed):
    """Turn one bit at a time; count how it ended: refused, or the same epochs."""
    facts = corpus_facts(raw, read_stamp(raw))
    runs, _ = things_meg_files.find_runs(raw, [1], [1], facts, allow_partial=False)
    trials = things_meg_files.run_trials(runs, facts)
    trials["split"] = "train"

    def epochs():
        reader = things_meg_recordings.open_raw(runs, PAPER, "none", facts)
        return [epoch for _, epoch in reader.epochs(trials)]

    expected, rng = epochs(), np.random.default_rng(seed)
    ends = {"refused": 0, "same": 0}
    for number in range(n_flips):
        path = header(raw, 1, 1, 1 + int(rng.integers(2)))
        content = path.read_bytes()
        where = list(places(len(content)).values())[number % 4]
        damaged, place, bit = bytearray(content), int(rng.choice(where)), int(rng.integers(8))
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            found = epochs()
        except DataError:
            ends["refused"] += 1
        else:
            same = [np.array_equal(one, other) for one, other in zip(found, expected, strict=True)]
            assert all(same), f"bit {bit} of byte {place} of {path.name} changes {same.count(False)} epochs"
            ends["same"] += 1
        path.write_bytes(content)
    return ends


def test_turned_bits_in_headers_change_no_row(mini):
    ends = turn_bits(mini, 60, seed=0)
    assert ends["refused"] > 5 and ends["same"] > 5


@pytest.mark.slow
def test_many_turned_bits_in_headers_change_no_row(mini):
    ends = turn_bits(mini, 1000, seed=1)
    assert ends["refused"] > 100 and ends["same"] > 100


# ------------------------------------------------------------------------------------------------------- triggers


RUN = things_meg_files.Run(1, 1, 1, Path("a.ds"), Path("a_events.tsv"))
GAPS = st.lists(st.integers(1500, 2040), min_size=20, max_size=226)  # 1.25 to 1.70 s, as in the real runs


@settings(deadline=None, max_examples=50)
@given(GAPS, st.integers(-300, 300), st.integers(0, 50))
def test_triggers_may_precede_by_a_steady_lag(gaps, lag, jitter):
    onsets = 4000 + np.cumsum(gaps)
    wobble = np.random.default_rng(0).integers(0, jitter + 1, len(onsets))  # up to 42 ms
    things_meg_recordings.check_triggers(RUN, onsets - lag - wobble, onsets, 1200.0)


@settings(deadline=None, max_examples=50)
@given(GAPS, st.integers(0, 2**32 - 1), st.integers(-300, 300))
def test_triggers_of_another_run_contradict(gaps, seed, lag):
    other = np.random.default_rng(seed).integers(1500, 2041, len(gaps))
    onsets, triggers = 4000 + np.cumsum(gaps), 4000 + np.cumsum(other) - lag
    with pytest.raises(DataError, match="do not belong together"):
        things_meg_recordings.check_triggers(RUN, triggers, onsets, 1200.0)


def test_lag_and_late_trials_have_limits():
    onsets = 4000 + 1700 * np.arange(200)

    def check(triggers):
        things_meg_recordings.check_triggers(RUN, triggers, onsets, 1200.0)

    late = np.zeros(200, dtype=int)
    late[:10] = 200
    check(onsets - 180 - late)  # 5 % are late
    for triggers, words in (
        (onsets - 180 - np.roll(late, 3) - np.roll(late, 20), "20 of 200"),
        (onsets - 400, r"by 0\.333 s \(median; allowed 0\.3 s\)"),
        (onsets[:-1] - 18, "199 triggers, but 200 events"),
        (onsets - 1700, r"by 1\.417 s"),  # one trial off
    ):
        with pytest.raises(DataError, match=words):
            check(triggers)


@pytest.mark.parametrize("route", ["raw", "derivative"])
def test_values_in_another_unit_are_refused(mini, tmp_path, monkeypatch, route):
    module = things_meg_recordings if route == "raw" else derivative_route
    opener = "open_recording" if route == "raw" else "_open"
    real = getattr(module, opener)

    def scaled(path):
        return real(path).load_data().apply_function(lambda data: data * 1e5, picks="meg", verbose="error")

    monkeypatch.setattr(module, opener, scaled)
    unit = "T" if route == "raw" else "z"
    with pytest.raises(DataError, match=rf"the unit is {unit}, but .* that of 'M\w+-\d+', is .* plausible .* again"):
        prepare(mini, tmp_path / "out", route=route)
