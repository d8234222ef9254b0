"""Counts of what a scored split shares with training, on overlaps that were planted, and scores with and without."""

from dataclasses import replace

import numpy as np
import pytest

from neural_clip.evaluation.overlap import overlap_records
from neural_clip.prepared.doctor.images import MAX_COSINE
from neural_clip.prepared.reader import PreparedSet, Split
from neural_clip.prepared.writer import write_prepared
from neural_clip.retrieval.scores import score_queries
from planted_data import embedded

WIDTH, N_TRAIN, N_TEST = 12, 30, 16
ENCODER = {"name": "planted", "revision": "0", "pooling": "projected"}


def write_images(folder, *, pixels):
    """Training images `tr00`... of concepts a, b, c and test images `te00`... of a, b, c, d and none.

    The files of `tr28` and `tr29` are those of `tr00` and `tr01`.
    """
    rng = np.random.default_rng(0)
    names = [*[f"tr{i:02d}" for i in range(N_TRAIN)], "va00", "va01", *[f"te{i:02d}" for i in range(N_TEST)]]
    pictures = rng.integers(0, 255, (len(names), 8, 8, 3), dtype=np.uint8)
    pictures[28:30] = pictures[:2]
    concepts = dict(zip(names, ["abc"[i % 3] for i in range(N_TRAIN)] + ["a", "b"] + list("abcd" * 4), strict=True))
    concepts["te15"] = ""
    embeds = dict(zip(names, rng.standard_normal((len(names), WIDTH)).astype(np.float32), strict=True))
    images = [
        {"image_id": name, "concept": concepts[name], "categories": [], "image_embeds": embeds[name]}
        | ({"image": picture} if pixels else {})
        for name, picture in zip(names, pictures, strict=True)
    ]
    splits = {"tr": "train", "va": "validation", "te": "test"}
    rows = ({"subject": "sub-01", "image_id": name, "split": splits[name[:2]], "fmri": rng.standard_normal(5)}
            for name in names)  # fmt: skip
    metadata = {
        "corpus": "planted", "modality": "fmri", "split_protocol": "planted", "split_unit": "image", "source": "none",
        "licence": "none", "redistribution": "allowed", "citation": "none", "image_encoder": ENCODER,
    }  # fmt: skip
    return str(write_prepared(folder, metadata, rows, images)), embeds, concepts


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("overlap") / "data", pixels=True)


def planted(prepared, test_ids, train_ids, *, changed=(), category_level=False, seed=0):
    """The model's embeddings of three recordings of each test image, and the training split."""
    folder, embeds, concepts = prepared
    embeds = {**embeds, **dict(changed)}
    rng = np.random.default_rng(seed)
    gallery = np.array(sorted(test_ids))
    image_ids = rng.permutation(np.repeat(gallery, 3))
    values = np.stack([embeds[name] for name in image_ids]) + 1.2 * rng.standard_normal((len(image_ids), WIDTH))
    written = PreparedSet.open(folder)
    table = written.images
    images = replace(table, embeds=np.stack([embeds[name] for name in table.image_ids]),
                     concepts=[concepts[name] for name in table.image_ids])  # fmt: skip
    data = PreparedSet(folder, written.folder, replace(written.facts, category_level=category_level), images)
    subjects = np.full(len(image_ids), "sub-01")
    test = Split(data, "test", np.zeros((len(image_ids), 5)), subjects, image_ids)
    scored = embedded(test, values.astype(np.float32))
    train_ids = np.array([name for name in train_ids for _ in range(2)])
    train = Split(data, "train", np.zeros((len(train_ids), 5)), np.full(len(train_ids), "sub-01"), train_ids)
    return scored, train


def near(vector, cosine, seed=5):
    """A vector at this cosine from another."""
    unit = vector / np.linalg.norm(vector)
    other = np.random.default_rng(seed).standard_normal(len(vector))
    other -= (other @ unit) * unit
    return (3 * (cosine * unit + (1 - cosine**2) ** 0.5 * other / np.linalg.norm(other))).astype(np.float32)


TEST = [f"te{i:02d}" for i in range(N_TEST)]
TRAIN = [f"tr{i:02d}" for i in range(28)]


def test_disjoint_images_are_counted_as_such(prepared):
    records = overlap_records(*planted(prepared, TEST, TRAIN), seed=0)
    images = records[0]["images"]
    assert (images["scored"], images["trained"]) == (16, 28)
    assert [images[kind] for kind in ("same_id", "same_file", "same_embedding", "near")] == [0, 0, 0, 0]
    embeds = {name: row / np.linalg.norm(row) for name, row in prepared[1].items()}
    highest = max(float(embeds[test] @ embeds[train]) for test in TEST for train in TRAIN)
    assert images["highest_cosine"] == pytest.approx(highest, abs=1e-6)
    assert records[0]["concepts"] == {"scored": 4, "trained": 3, "shared": 3}
    assert records[0]["found"] == (
        "0 of the 16 scored images occur among the 28 training images (0 by id, 0 by file, 0 by embedding, 0 as near "
        f"duplicates: cosine above 0.99; the highest is {highest:.3f}), and 3 of the 4 scored concepts occur in "
        "training."
    )
    checks = [record["check"] for record in records]
    assert checks[1:] == ["queries whose concept was trained", "queries whose concept was not trained"]


def test_each_way_to_occur_in_training_is_found_once(prepared):
    """tr03 by id (and by its file and embedding, too), tr28 and tr29 by file, te00 by embedding, te01 nearly."""
    embeds = prepared[1]
    changed = {
        "te00": embeds["tr05"].copy(), "te01": near(embeds["tr06"], MAX_COSINE + 0.004),
        "te02": near(embeds["tr07"], MAX_COSINE - 0.004),
    }  # fmt: skip
    scored, train = planted(prepared, [*TEST, "tr03", "tr28", "tr29"], TRAIN, changed=changed.items())
    records = overlap_records(scored, train, seed=0)
    images = records[0]["images"]
    assert [images[kind] for kind in ("same_id", "same_file", "same_embedding", "near")] == [1, 2, 1, 1]
    assert images["highest_cosine"] == pytest.approx(MAX_COSINE + 0.004, abs=1e-6)
    assert records[0]["found"].startswith("5 of the 19 scored images occur among the 28 training images (1 by id, 2 ")
    by_check = {record["check"]: record for record in records}
    assert by_check["queries whose image was trained"]["n_queries"] == 15
    assert by_check["queries whose image was not trained"]["n_queries"] == 42


@pytest.mark.parametrize("what", ["concept", "image"])
def test_scores_are_those_of_the_same_queries_in_the_whole_gallery(prepared, what):
    """Each query's contribution to the undivided score, averaged over either part."""
    scored, train = planted(prepared, [*TEST, "tr03", "tr04", "tr28"], TRAIN)
    by_check = {record["check"]: record for record in overlap_records(scored, train, seed=0)}
    contributions = score_queries(scored.embeds, scored.gallery_embeds, scored.image_ids, scored.gallery_ids)
    concepts = prepared[2]
    parts = {True: [], False: []}
    for row, name in enumerate(scored.image_ids):
        if what == "image":
            parts[name.startswith("tr")].append(row)
        elif concepts[name]:
            parts[concepts[name] in "abc"].append(row)
    assert min(map(len, parts.values())) >= 9
    for known, check in (
        (True, f"queries whose {what} was trained"),
        (False, f"queries whose {what} was not trained"),
    ):
        record = by_check[check]
        assert record["n_queries"] == len(parts[known]) and record["gallery_size"] == 19
        for name in ("two_way", "top1"):
            assert record[name] == pytest.approx(np.mean(contributions[name][parts[known]]), abs=1e-12)
        assert record["by"] == "model" and "gallery stays as it is" in record["meaning"]
        assert 0 < record["two_way_p"] <= 1 and record["chance_top1"] == pytest.approx(1 / 19)
    trained, new = (by_check[f"queries whose {what} was {word}trained"]["two_way"] for word in ("", "not "))
    assert trained != new


def test_a_division_with_an_empty_part_is_left_to_the_counts(prepared):
    """The score of the other part would be the undivided one again."""
    known = [name for name in TEST if prepared[2][name] in ("a", "b", "c")]
    new = [name for name in TEST if prepared[2][name] == "d"]
    for names, shared in ((known, 3), (new, 0)):
        (record,) = overlap_records(*planted(prepared, names, TRAIN), seed=0)
        assert record["concepts"]["shared"] == shared
        assert f"{shared} of the" in record["found"]


def test_one_image_alone_can_be_scored(prepared):
    records = overlap_records(*planted(prepared, [*TEST, "tr03"], TRAIN), seed=0)
    record = next(record for record in records if record["check"] == "queries whose image was trained")
    assert record["n_queries"] == 3 and record["two_way_interval"] is None and np.isfinite(record["two_way"])


def test_all_images_trained_needs_no_division(prepared):
    records = overlap_records(*planted(prepared, TRAIN[:9], TRAIN), seed=0)
    assert records[0]["images"]["same_id"] == 9 and records[0]["images"]["highest_cosine"] is None
    assert records[0]["found"].startswith("9 of the 9 scored images") and "highest" not in records[0]["found"]
    assert not [record for record in records if "whose image" in record["check"]]


def test_categories_are_counted_as_categories(prepared):
    records = overlap_records(*planted(prepared, ["tr00", "tr01", "tr02"], TRAIN, category_level=True), seed=0)
    assert len(records) == 1 and records[0]["found"].startswith("3 of the 3 scored categories occur in training, as")
    assert records[0]["images"] == {"scored": 3, "trained": 28, "same_id": 3, "same_file": None,
                                    "same_embedding": None, "near": None, "highest_cosine": None}  # fmt: skip


def test_without_files_or_concepts(tmp_path):
    folder, embeds, concepts = write_images(tmp_path / "data", pixels=False)
    scored, train = planted((folder, embeds, concepts), ["te15", "tr28", "tr03"], TRAIN)
    (record, *_) = overlap_records(scored, train, seed=0)
    assert record["images"]["same_file"] is None and record["images"]["same_id"] == 1
    assert "by file" not in record["found"] and "files being absent" in record["found"]
    scored, train = planted((folder, embeds, dict.fromkeys(concepts, "")), ["te14", "te15"], TRAIN)
    (record,) = overlap_records(scored, train, seed=0)
    assert record["concepts"]["scored"] == 0 and "concepts are not named" in record["found"]
