"""NSD and Alljoined1 show the same pictures, and call them alike: from raw files to training, guard and conversion."""

import json

import h5py
import numpy as np
import pytest

import alljoined_raw
import nsd_raw
from neural_clip.corpora.alljoined import prepare as prepare_alljoined
from neural_clip.corpora.nsd import prepare as prepare_nsd
from neural_clip.errors import DataError
from neural_clip.evaluation.seen import seen_in_training
from neural_clip.evaluation.tasks import common_images, direct_conversion
from neural_clip.files.record import sealed
from neural_clip.prepared.reader import PreparedSet
from neural_clip.targets.embed_images import embed_images
from neural_clip.targets.tiny_clip import TINY_CLIP
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.pooled import leave_out_test_concepts, seen_stimuli
from planted_data import embedded

N_STIMULI = 24


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """NSD; Alljoined1, which tests two of its three test images and one that it trains on, and trains on the third."""
    root = tmp_path_factory.mktemp("nsd")
    raw = nsd_raw.build(root / "raw")
    stimuli = raw / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    with h5py.File(stimuli, "w") as file:
        pixels = np.random.default_rng(3).integers(0, 255, (N_STIMULI, 12, 12, 3), dtype=np.uint8)
        file.create_dataset("imgBrick", data=pixels)
    fmri = prepare_nsd(raw, root / "fmri", allow_partial=True)
    shown = {split: PreparedSet.open(fmri).split(split).shown_ids.tolist() for split in ("train", "test")}
    numbers = {split: [int(name.removeprefix("nsd-")) for name in names] for split, names in shown.items()}
    others = [number for number in range(N_STIMULI) if number not in {*numbers["test"], numbers["train"][0]}]
    ids = {"test": [*numbers["test"][:2], numbers["train"][0]], "train": [numbers["test"][2], *others[:5]]}
    alljoined_raw.build_first(root / "alljoined1", ids)
    eeg = prepare_alljoined(root / "alljoined1", root / "eeg", route="alljoined1", scaling="none",
                            images_dir=stimuli, allow_partial=True)  # fmt: skip
    for folder in (fmri, eeg):
        embed_images(folder, TINY_CLIP)
    return {"fmri": PreparedSet.open(fmri), "eeg": PreparedSet.open(eeg)}


def parts_of(*data):
    return [
        RecordingDataset.open(each, split, each.facts.subjects) for each in data for split in ("train", "validation")
    ]


def names(part):
    return set(part.part.shown_ids.tolist())


def test_what_one_of_them_tests_is_not_learnt_by_the_other(sets):
    parts = parts_of(sets["eeg"], sets["fmri"])
    before = [names(part) for part in parts]
    tested = {kind: set(data.split("test").shown_ids.tolist()) for kind, data in sets.items()}
    assert len(tested["eeg"] & tested["fmri"]) == 2
    notes = leave_out_test_concepts(parts)
    both = tested["eeg"] | tested["fmri"]
    assert [names(part) for part in parts] == [own - both for own in before]
    gone = [own & both for own in before]
    assert gone[0] | gone[1] == tested["fmri"] - tested["eeg"] and gone[2] | gone[3] == tested["eeg"] - tested["fmri"]
    assert all("held out in" in note and "(NSD)" in note for note in notes) and len(notes) == 2


def test_real_alljoined1_has_nothing_left_beside_nsd(sets, tmp_path):
    """All its images are test images there."""
    test = [int(name.removeprefix("nsd-")) for name in sets["fmri"].split("test").shown_ids]
    alljoined_raw.build_first(tmp_path / "raw", {"train": test[1:], "test": test[:1]})
    eeg = prepare_alljoined(tmp_path / "raw", tmp_path / "eeg", route="alljoined1", scaling="none", allow_partial=True)
    embed_images(eeg, TINY_CLIP)
    with pytest.raises(DataError, match=r"nothing is left of sub-01, sub-02.*train them one by one"):
        leave_out_test_concepts(parts_of(PreparedSet.open(eeg), sets["fmri"]))


def test_the_guard_of_the_evaluation_knows_what_the_other_has_shown(sets, tmp_path):
    parts = parts_of(sets["fmri"])
    record = {"data": {"fmri": {"corpus": "nsd"}}, "stimuli": seen_stimuli(parts), "validation": True}
    (tmp_path / "training.json").write_text(json.dumps(sealed(record)))
    seen = seen_in_training(tmp_path, sets["eeg"], "test")
    assert (seen["known"], seen["images"], seen["scored_images"], seen["by"]) == (True, 1, 3, ["nsd"])
    assert seen["foreign"] and seen["concepts"] == 0
    own = seen_in_training(tmp_path, sets["fmri"], "test")
    assert (own["images"], own["foreign"]) == (0, False)


def test_conversion_between_them_is_exact(sets):
    """Each recording is as the image that was shown, so that the right one is found."""
    eeg, fmri = (sets[kind].split("test") for kind in ("eeg", "fmri"))
    eeg, fmri = embedded(eeg, eeg.targets), embedded(fmri, fmri.targets)
    common = sorted(set(eeg.gallery_ids) & set(fmri.gallery_ids))
    columns = common_images(eeg, fmri)
    assert [fmri.gallery_ids[column] for column in columns if column >= 0] == common
    for source, target in ((eeg, fmri), (fmri, eeg)):
        record = direct_conversion(source, target, 0)
        assert (record["n_common_images"], record["by_name"], record["gallery_size"]) == (2, 2, 3)
        assert record["n_queries"] == np.isin(source.image_ids, common).sum() and record["top1"] == 1.0
