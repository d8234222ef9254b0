"""Encoding, conversion and their direct forms, against slow computations of what they say they are."""

from dataclasses import replace

import numpy as np
import pytest

from neural_clip.evaluation.tasks import common_images, conversion_record, encoding_record, picture_hits
from neural_clip.gallery.embedding import embed_split
from neural_clip.prepared.reader import PreparedSet
from planted_data import PlantedModel, embedded, split_of
from slow_scores import cosine

pytestmark = pytest.mark.numerical


def two_way(found, ids, images):
    """Mean over all pairs of different images; `images` maps ids to vectors."""
    return np.mean([
        np.mean([np.heaviside(cosine(f, images[i]) - cosine(f, images[j]), 0.5) for j in images if j != i])
        for f, i in zip(found, ids, strict=True)
    ])  # fmt: skip


def top(found, ids, images, k):
    hits = []
    for f, i in zip(found, ids, strict=True):
        better = sum(cosine(f, images[j]) > cosine(f, images[i]) for j in images)
        hits.append(better < k)
    return np.mean(hits)


def test_encoding_and_conversion_equal_a_slow_computation(folders):
    model = PlantedModel(("eeg", "fmri"))
    eeg, fmri = (embed_split(model, PreparedSet.open(folders[m]).split("test")) for m in ("eeg", "fmri"))

    def behind(query, target):  # embedding of the image behind the nearest recording
        nearest = max(range(len(target.embeds)), key=lambda row: cosine(query, target.embeds[row]))
        return target.gallery_embeds[list(target.gallery_ids).index(target.image_ids[nearest])]

    images = dict(zip(eeg.gallery_ids, eeg.gallery_embeds, strict=True))
    found = [behind(query, eeg) for query in eeg.gallery_embeds]
    assert encoding_record(eeg, seed=0)[0]["two_way"] == pytest.approx(
        two_way(found, eeg.gallery_ids, images), abs=1e-6
    )
    found = [behind(query, fmri) for query in eeg.embeds]
    record = conversion_record(eeg, fmri, 0.8, 0, method="m")[0]
    assert record["two_way"] == pytest.approx(two_way(found, eeg.image_ids, images), abs=1e-6)
    assert record["normalised"] == pytest.approx(record["two_way"] / 0.8)
    assert (record["weaker"], record["weaker_two_way"], [way["via"] for way in record["ways"]]) == (
        "fmri", 0.8, ["recordings", "mean recordings"],
    )  # fmt: skip

    bank = np.random.default_rng(3).standard_normal((15, eeg.embeds.shape[1])).astype(np.float32)
    bank[4] = eeg.gallery_embeds[2]
    record = conversion_record(eeg, fmri, 0.8, 0, method="m", source_two_way=0.5, bank=bank)[0]
    means, expected = slow_means(fmri), []
    pictures = dict(zip(fmri.gallery_ids, fmri.gallery_embeds, strict=True))
    units = [image.astype(float) / np.linalg.norm(image.astype(float)) for image in bank]
    for query in eeg.embeds.astype(float):
        weights = [np.exp(np.exp(5) * (cosine(query, unit) - 1)) for unit in units]
        expected.append(np.average(units, axis=0, weights=weights))
    found = {
        "recordings": [behind(query, fmri) for query in eeg.embeds],
        "mean recordings": [pictures[max(means, key=lambda name: cosine(q, means[name]))] for q in eeg.embeds],
        "images": [behind(query, fmri) for query in expected],
    }
    assert [way["via"] for way in record["ways"]] == list(found) and record["weaker"] == "eeg"
    assert (record["n_bank_images"], record["n_bank_scored"]) == (15, 1)
    for way in record["ways"]:
        score = two_way(found[way["via"]], eeg.image_ids, images)
        assert way["two_way"] == pytest.approx(score, abs=1e-6)
        assert way["normalised"] == pytest.approx(score / 0.8, abs=1e-5)
        assert way["normalised_by_weaker"] == pytest.approx(score / 0.5, abs=1e-5)
        assert way["normalised_by_weaker_interval"] == [2 * end for end in way["two_way_interval"]]
    assert record["two_way"] == record["ways"][0]["two_way"]


def test_picture_hits_are_the_nearest_of_each_image(folders):
    model = PlantedModel(("eeg", "meg"))
    parts = {m: embed_split(model, PreparedSet.open(folders[m]).split("test")) for m in ("eeg", "meg")}
    arrays = picture_hits(parts)
    similarity = parts["eeg"].embeds @ parts["meg"].embeds.T
    for query in range(0, 96, 17):
        images = []
        for row in np.argsort(-similarity[query]):
            if parts["meg"].image_ids[row] not in images:
                images.append(parts["meg"].image_ids[row])
        got = [parts["meg"].image_ids[row] for row in arrays["eeg_to_meg_hits"][query]]
        assert got == images[:5]
    assert arrays["eeg_decoding_scores"].shape == (96,) and arrays["meg_encoding_hits"].shape == (24, 5)


def near_pictures(modality, pictures, rng, *, noise=0.5, repeats=3, category_level=False):
    """Recordings near the embeddings of `pictures`, `{name: vector}`; two people."""
    names = sorted(pictures)
    ids = np.array([name for name in names for _ in range(repeats)])
    embeds = np.stack([pictures[name] for name in ids]) + noise * rng.standard_normal(
        (len(ids), len(pictures[names[0]]))
    )
    subjects = np.array([f"sub-{row % 2}" for row in range(len(ids))])
    targets = np.stack([pictures[name] for name in ids]).astype(np.float32)
    part = split_of(np.zeros((len(ids), 1)), subjects, ids, targets, modality, category_level=category_level)
    return embedded(part, (embeds / np.linalg.norm(embeds, axis=1, keepdims=True)).astype(np.float32))


def slow_means(part):
    """Mean unit recording of each image."""
    return {name: part.embeds[part.image_ids == name].astype(float).mean(axis=0) for name in part.gallery_ids}


def test_direct_encoding_looks_for_the_images_own_mean_recording():
    rng = np.random.default_rng(0)
    part = near_pictures("eeg", {f"im{i}": rng.standard_normal(8) for i in range(12)}, rng, noise=1.5)
    direct = encoding_record(part, seed=0)[0]["direct"]
    means = slow_means(part)
    assert direct["two_way"] == pytest.approx(two_way(part.gallery_embeds, part.gallery_ids, means))
    assert direct["top1"] == pytest.approx(top(part.gallery_embeds, part.gallery_ids, means, 1)) and direct["top1"] < 1
    assert direct["top5"] == pytest.approx(top(part.gallery_embeds, part.gallery_ids, means, 5))
    assert (direct["n_queries"], direct["gallery_size"], direct["chance_top1"]) == (12, 12, pytest.approx(1 / 12))


def test_direct_conversion_uses_the_pictures_that_both_modalities_have():
    """Names differ where pictures are equal, and are equal where pictures differ."""
    rng = np.random.default_rng(1)
    pictures = [rng.standard_normal(8) for _ in range(14)]
    eeg = near_pictures("eeg", {f"im{i}": pictures[i] for i in range(10)}, rng, noise=1.0)
    fmri = near_pictures("fmri", {f"im{13 - i}": pictures[i] * 3 for i in range(4, 14)}, rng, noise=1.0)
    expected = [-1] * 4 + [list(fmri.gallery_ids).index(f"im{13 - i}") for i in range(4, 10)]
    assert common_images(eeg, fmri).tolist() == expected
    record = conversion_record(eeg, fmri, 1.0, 0, method="m")[0]["direct"]
    kept = [row for row, name in enumerate(eeg.image_ids) if int(name[2:]) >= 4]
    wanted = [f"im{13 - int(eeg.image_ids[row][2:])}" for row in kept]
    assert record["n_queries"] == 18 and record["gallery_size"] == 10
    assert record["two_way"] == pytest.approx(two_way(eeg.embeds[kept], wanted, slow_means(fmri)), abs=1e-6)
    assert record["top1"] == pytest.approx(top(eeg.embeds[kept], wanted, slow_means(fmri), 1))
    assert record["two_way"] > 0.6 and record["two_way_p"] < 0.05


def test_without_two_common_pictures_there_is_no_direct_conversion():
    rng = np.random.default_rng(2)
    pictures = [rng.standard_normal(8) for _ in range(12)]
    eeg = near_pictures("eeg", {f"im{i}": pictures[i] for i in range(6)}, rng)
    meg = near_pictures("meg", {f"im{i}": pictures[i] for i in range(5, 12)}, rng)  # one picture
    assert conversion_record(eeg, meg, 1.0, 0, method="m")[0]["direct"] is None
    near = near_pictures("meg", {f"im{i}": pictures[i] + 0.02 for i in range(6)}, rng)  # alike, not the same
    assert (common_images(eeg, near) == -1).all()


def of_things(part, corpus):
    """The same recordings as those of a corpus."""
    data = PreparedSet(part.data.name, part.data.folder, replace(part.facts, corpus=corpus), part.data.images)
    return replace(part, data=data)


def test_corpora_of_one_database_know_a_picture_by_its_name():
    """Copies of other sizes have other embeddings; a name that stands for another picture is no match."""
    rng = np.random.default_rng(3)
    pictures = {f"thing{i}_0{i}s": rng.standard_normal(64) for i in range(9)}
    copies = {name: picture + 0.1 * rng.standard_normal(64) for name, picture in list(pictures.items())[3:]}
    copies["thing8_08s"] = rng.standard_normal(64)
    copies["own_01b"] = rng.standard_normal(64)
    eeg = of_things(near_pictures("eeg", pictures, rng, noise=4.0), "things_eeg2")
    meg = of_things(near_pictures("meg", copies, rng, noise=4.0), "things_meg")
    common = [f"thing{i}_0{i}s" for i in range(3, 8)]
    columns = common_images(eeg, meg)
    assert [meg.gallery_ids[c] if c >= 0 else "" for c in columns] == ["", "", "", *common, ""]
    record = conversion_record(eeg, meg, 1.0, 0, method="m")[0]["direct"]
    kept = [row for row, name in enumerate(eeg.image_ids) if name in common]
    wanted, means = eeg.image_ids[kept], slow_means(meg)
    assert (record["n_common_images"], record["by_name"], record["gallery_size"]) == (5, 5, 7)
    assert record["n_queries"] == len(kept)
    assert record["two_way"] == pytest.approx(two_way(eeg.embeds[kept], wanted, means), abs=1e-6)
    for k in (1, 5):
        assert record[f"top{k}"] == pytest.approx(top(eeg.embeds[kept], wanted, means, k))
        assert record[f"chance_top{k}"] == pytest.approx(k / 7)
    assert record["two_way_interval"][0] <= record["two_way"] <= record["two_way_interval"][1]
    assert 0 < record["two_way_p"] <= 1 and record["top1_interval"]
    assert (common_images(eeg, of_things(meg, "lab")) == -1).all()  # another's names say nothing
