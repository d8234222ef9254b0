"""Entries of `neural_clip.json` that are missing, mistyped or at odds: the file and the key are named."""

import json
import shutil

import pytest

from neural_clip.errors import DataError
from neural_clip.prepared.facts import read_metadata
from neural_clip.prepared.reader import PreparedSet
from planted_data import write_planted

SMALL = {"train": 6, "validation": 5, "test": 5}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("written")
    return {m: write_planted(root / m, m, pixels=False, counts=SMALL) for m in ("eeg", "fmri")}


def changed(written, tmp_path, of="eeg", **entries):
    """A copy of a set with other entries; `...` takes one away."""
    folder = shutil.copytree(written[of], tmp_path / "set")
    facts = {**read_metadata(folder), **entries}
    text = json.dumps({key: value for key, value in facts.items() if value is not ...})
    (folder / "neural_clip.json").write_text(text)
    return folder


WRONG = {
    "corpus": 3, "modality": "ecog", "simulated": ["x"], "subjects": ["sub-01", "sub-01"], "ch_names": "ABC",
    "ch_positions": [[0, 0]] * 6, "ch_positions_frame": 1, "n_chans": -6, "n_times": 10.5, "sfreq": 0,
    "tmin": "0 s", "unit": 3, "n_voxels": {"sub-01": 0, "sub-02": 3}, "split_protocol": [], "split_unit": "week",
    "splits": {"train": {"rows": -1}}, "subject_splits": {"sub-01": {"train": "many"}}, "scaling": None,
    "preprocessing": [], "preparation": {"unheard": 1}, "category_level": "no", "block_confounded": 1,
    "presentation_order": None, "average_repeats": 0, "image_encoder": {"name": ["x"]}, "targets": {"images": "all"},
    "licence": 1, "redistribution": "perhaps", "terms": 3, "citation": {}, "source": [], "known_defects": "none",
    "declared": [], "partial": "yes", "findings": [1], "fingerprint": 12, "fingerprint_version": 3,
    "files": {TEST: {} for TEST in ("data/sub-01/test-00000.parquet",)}, "shared_windows": {"rows": "x"},
    "format_version": True, "places_space": "Talairach",
}  # fmt: skip


@pytest.mark.parametrize("key", WRONG)
def test_an_entry_of_another_type_is_named(written, tmp_path, key):
    folder = changed(written, tmp_path, **{key: WRONG[key]})
    with pytest.raises(DataError, match=rf"neural_clip\.json'.* '{key}|{key}") as error:
        PreparedSet.open(folder)
    assert f"'{folder / 'neural_clip.json'}'" in str(error.value)


def test_every_entry_is_tried(written):
    assert set(read_metadata(written["eeg"])) - {"roi"} <= set(WRONG)  # a region may be told in any way


@pytest.mark.parametrize("key", ["subjects", "splits", "subject_splits", "fingerprint", "n_chans", "n_times", "sfreq",
                                 "tmin", "corpus", "modality", "licence", "n_voxels"])  # fmt: skip
@pytest.mark.parametrize("value", [None, ...], ids=["null", "absent"])
def test_an_entry_that_must_be_there_is_named(written, tmp_path, key, value):
    folder = changed(written, tmp_path, "fmri" if key == "n_voxels" else "eeg", **{key: value})
    with pytest.raises(DataError, match=rf"neural_clip\.json' is damaged: .*(lacks|no) .*'{key}'"):
        PreparedSet.open(folder)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"ch_names": ["A"]}, "'ch_names' has 1 entries, but 'n_chans' is 6"),
        ({"ch_positions": [None]}, "'ch_positions' has 1 entries"),
        ({"subjects": ["sub-01"]}, "'subjects' and 'subject_splits' are not of the same subjects: sub-02"),
        ({"subject_splits": {"sub-01": {"train": 1}, "sub-02": {"test": 1}}}, "'splits' has 24 train rows, but"),
    ],
)
def test_entries_that_are_at_odds_are_named(written, tmp_path, entries, said):
    with pytest.raises(DataError, match=rf"neural_clip\.json' is damaged: {said}"):
        PreparedSet.open(changed(written, tmp_path, **entries))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"), (b"[]", "format_version None"), (b"{", "is no readable JSON file"), (b"\xff\x00", "UTF-8"),
        (b"[" * 100_000, "is no readable JSON file"),
        (b'{"format_version": 2, "sfreq": NaN}', "it holds NaN, which is no number"),
        (b'{"format_version": 2, "format_version": 1}', "the key 'format_version' twice"),
        (b'{"format_version": 3}', "format_version 3; this package reads 1 and 2"),
    ],
    ids=["empty", "list", "cut", "encoding", "deep", "NaN", "twice", "newer"],
)  # fmt: skip
def test_a_file_that_is_no_metadata_is_named(tmp_path, content, said):
    (tmp_path / "neural_clip.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"neural_clip\.json' .*{said}"):
        PreparedSet.open(tmp_path)


def test_a_folder_or_link_in_its_place_is_named(tmp_path):
    place = tmp_path / "neural_clip.json"
    place.mkdir()
    with pytest.raises(DataError, match=r"neural_clip\.json': it is a folder"):
        PreparedSet.open(tmp_path)
    place.rmdir()
    place.symlink_to("nowhere")
    with pytest.raises(DataError, match=r"neural_clip\.json'\. It is a link to a file that is not there"):
        PreparedSet.open(tmp_path)
