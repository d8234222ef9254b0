"""What the metric is given: every usual form gives the same scores, everything else a clear error."""

import json
import multiprocessing

import datasets
import evaluate
import numpy as np
import pandas as pd
import pytest
import torch

from neural_clip.retrieval.scores import nearest_rows, retrieval_scores, two_way_accuracy
from neural_clip.retrieval.tiles import unit_vectors
from paths import REPOSITORY

FOLDER = str(REPOSITORY / "metrics" / "image_retrieval")
N = 12


@pytest.fixture
def metric(tmp_path):
    return evaluate.load(FOLDER, cache_dir=str(tmp_path))


def vectors(seed=0):
    """Images, and queries near them, all numbers exact in bfloat16."""
    rng = np.random.default_rng(seed)
    images = rng.integers(-8, 9, (N, 6)).astype(np.float32)
    return images + rng.integers(-4, 5, images.shape).astype(np.float32), images


def column(array, form):
    """A column of `datasets` with a format, or none."""
    return datasets.Dataset.from_dict({"x": list(array)}).with_format(form)["x"]


FORMS = {
    "lists": lambda x: x.tolist(),
    "tuples": lambda x: tuple(map(tuple, x.tolist())),
    "list of arrays": list,
    "integers": lambda x: x.astype(np.int64),
    "float16": lambda x: x.astype(np.float16),
    "float64": lambda x: x.astype(np.float64),
    "columns first": np.asfortranarray,
    "tensor": torch.tensor,
    "bfloat16": lambda x: torch.tensor(x, dtype=torch.bfloat16),
    "half": lambda x: torch.tensor(x, dtype=torch.float16),
    "with gradients": lambda x: torch.tensor(x, requires_grad=True),
    "list of tensors with gradients": lambda x: [torch.tensor(row, requires_grad=True) for row in x],
    "list of bfloat16": lambda x: [torch.tensor(row, dtype=torch.bfloat16) for row in x],
    "generator": lambda x: (row for row in x),
    "frame": pd.DataFrame,
    "series": lambda x: pd.Series(list(x)),
    "column": lambda x: column(x, None),
    "numpy column": lambda x: column(x, "numpy"),
    "torch column": lambda x: column(x, "torch"),
    "arrow column": lambda x: column(x, "arrow"),
}


@pytest.mark.parametrize("form", FORMS)
def test_vectors_in_every_form_give_the_same_scores(metric, form):
    predictions, references = vectors()
    expected = retrieval_scores(predictions, references)
    make = FORMS[form]
    assert retrieval_scores(make(predictions), make(references)) == expected
    assert metric.compute(predictions=make(predictions), references=make(references)) == expected
    metric.add_batch(predictions=make(predictions), references=make(references))
    assert metric.compute() == expected
    assert np.array_equal(unit_vectors(make(predictions)), unit_vectors(predictions))
    assert np.array_equal(nearest_rows(make(predictions), make(references)), nearest_rows(predictions, references))


IDS = {
    "int": list,
    "numpy": np.array,
    "int32": lambda ids: np.array(ids, dtype=np.int32),
    "mixed numpy and int": lambda ids: [np.int64(i) if i % 2 else i for i in ids],
    "objects": lambda ids: np.array([np.int64(i) for i in ids], dtype=object),
    "tensor": torch.tensor,
    "list of tensors": lambda ids: [torch.tensor(i) for i in ids],
    "str": lambda ids: [str(i) for i in ids],
    "numpy str": lambda ids: np.array([str(i) for i in ids]),
    "int and str": lambda ids: [str(i) if i % 2 else i for i in ids],
    "tuple": tuple,
    "generator": iter,
    "series": pd.Series,
    "column": lambda ids: column(ids, None),
    "numpy column": lambda ids: column(ids, "numpy"),
    "arrow column": lambda ids: column(ids, "arrow"),
}


@pytest.mark.parametrize("form", IDS)
def test_ids_in_every_form_give_the_same_scores(metric, form):
    """The second half repeats the images of the first, whose order differs between queries and gallery."""
    predictions, references = vectors()
    ids = [i % (N // 2) for i in range(N)]
    references[N // 2 :] = references[: N // 2]
    order = np.random.default_rng(1).permutation(N)
    given = {"reference_ids": ids, "prediction_ids": [ids[i] for i in order], "classes": [i % 3 for i in ids]}
    given["subjects"] = [i % 2 for i in range(N)]
    expected = retrieval_scores(predictions, references, **given)
    assert expected["gallery_size"] == N // 2 and set(expected["subjects"]) == {"0", "1"}

    def made():
        return {name: IDS[form](value) for name, value in given.items()}

    assert retrieval_scores(predictions, references, **made()) == expected
    assert metric.compute(predictions=predictions, references=references, **made()) == expected
    metric.add_batch(predictions=predictions, references=references, **made())
    assert metric.compute() == expected
    metric.add_batch(predictions=predictions, references=references)
    assert metric.compute(**made()) == expected


def test_one_and_the_text_one_are_two_images_and_no_two_subjects():
    predictions, references = vectors()
    ids = [1, "1", *range(2, N)]
    assert retrieval_scores(predictions, references, ids, ids)["gallery_size"] == N
    with pytest.raises(ValueError, match=r"got '3' \(and 0 more rows\) instead\. The gallery has 3, which is another"):
        retrieval_scores(predictions, references, [1, "1", 2, "3", *range(4, N)], ids)
    with pytest.raises(ValueError, match=r"'subjects' parameter.*names of their own, but got 1 and '1'"):
        retrieval_scores(predictions, references, subjects=[1, "1"] * (N // 2))


def changed(where, value):
    rows = vectors()[where].tolist()
    rows[3][2] = value
    return rows


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"predictions": []}, "'predictions' parameter. Allowed is a non-empty"),
        ({"predictions": [], "references": []}, "'predictions' parameter. Allowed is a non-empty"),
        ({"predictions": np.zeros((0, 6))}, "Allowed is a non-empty"),
        ({"predictions": changed(0, float("nan"))}, "1 of 12 rows hold NaN or infinity; the first is row 3"),
        ({"references": changed(1, None)}, "'references' parameter.*first is row 3"),
        ({"references": changed(1, "a")}, "'references' parameter. Allowed is a non-empty .* array of numbers"),
        ({"references": changed(1, [1.0, 2.0])}, "'references' parameter. Allowed is a non-empty .* array of numbers"),
        ({"predictions": [[1.0, 2.0], [1.0]]}, "'predictions' parameter. Allowed .* rows that do not make one"),
        ({"predictions": vectors()[0] + 1j}, "'predictions' parameter.*got complex64 values"),
        ({"predictions": "vectors"}, "'predictions' parameter.*got str instead"),
        ({"predictions": {"a": [1.0]}}, "'predictions' parameter.*got dict instead"),
        ({"predictions": 3.0}, r"'predictions' parameter.*got shape \(\)"),
        ({"predictions": torch.full((N, 6), torch.nan)}, "12 of 12 rows hold NaN"),
        ({"reference_ids": [None, *range(N - 1)]}, r"'reference_ids' parameter.*None \(NoneType; 1 of 12 rows\)"),
        ({"reference_ids": [i + 0.5 for i in range(N)]}, r"ids of type str and int, but got 0.5 \(float"),
        ({"reference_ids": [[i] for i in range(N)]}, r"ids of type str and int, but got \[0\] \(list"),
        ({"reference_ids": np.eye(N)}, "ids of type str and int"),
        ({"reference_ids": "abcdefghijkl"}, "list of one id for each row, but got str"),
        ({"reference_ids": dict.fromkeys(range(N))}, "list of one id for each row, but got dict"),
        ({"reference_ids": 7}, "list of one id for each row, but got int"),
        ({"reference_ids": []}, "'reference_ids' parameter. Allowed is one id for each of 12 rows, but got 0"),
        ({"subjects": ["a"]}, "'subjects' parameter. Allowed is one id for each of 12 rows, but got 1"),
        ({"classes": [None] * N}, "'classes' parameter.*NoneType"),
    ],
)
def test_what_cannot_be_scored_is_a_clear_error_on_every_way(metric, inputs, message):
    predictions, references = vectors()
    inputs = {"predictions": predictions, "references": references} | inputs
    with pytest.raises(ValueError, match=message):
        retrieval_scores(**inputs)
    with pytest.raises(ValueError, match=message):
        metric.compute(**inputs)
    with pytest.raises(ValueError, match=message):
        metric.add_batch(**inputs)
    assert metric.compute(predictions=predictions, references=references)["n_queries"] == N  # nothing was kept


def test_another_width_is_an_error_on_every_way(metric):
    predictions, references = vectors()
    for way in (retrieval_scores, metric.compute):
        with pytest.raises(ValueError, match="Predictions have 4 dimensions, but references 6"):
            way(predictions=predictions[:, :4], references=references)
    metric.add_batch(predictions=predictions[:, :4], references=references)
    with pytest.raises(ValueError, match="Predictions have 4 dimensions, but references 6"):
        metric.compute()


def test_names_that_there_are_not_are_named_with_the_nearest(metric):
    predictions, references = vectors()
    for way in (metric.compute, metric.add_batch):
        with pytest.raises(ValueError, match=r"Unknown input 'refrences'\. .* Did you mean 'references'\?"):
            way(predictions=predictions, refrences=references)
        with pytest.raises(ValueError, match=r"Unknown input 'reference_id'\. .* Did you mean 'reference_ids'\?"):
            way(predictions=predictions, references=references, reference_id=list(range(N)))
        with pytest.raises(ValueError, match="'references' is missing; both are needed"):
            way(predictions=predictions)
    with pytest.raises(ValueError, match=r"Unknown input 'refrence'\. .* Did you mean 'references'\?"):
        metric.add(prediction=predictions[0], refrence=references[0])
    with pytest.raises(ValueError, match="'prediction' is missing"):
        metric.add(reference=references[0])
    with pytest.raises(ValueError, match="There is nothing to score"):
        metric.compute()
    with pytest.raises(ValueError, match="12 predictions and 11 references"):
        metric.add_batch(predictions=predictions, references=references[1:])


@pytest.mark.parametrize("in_memory", [False, True])
def test_rows_that_are_added_and_rows_that_are_given_are_scored_together(tmp_path, in_memory):
    metric = evaluate.load(FOLDER, cache_dir=str(tmp_path), keep_in_memory=in_memory)
    predictions, references = vectors()
    expected = retrieval_scores(predictions, references)
    metric.add(prediction=predictions[0], reference=references[0])
    metric.add_batch(predictions=predictions[1:5], references=references[1:5])
    metric.add(prediction=predictions[5], reference=references[5])
    assert len(metric) == 6
    assert metric.compute(predictions=predictions[6:], references=references[6:]) == expected
    assert len(metric) == 0 and metric.compute(predictions=predictions, references=references) == expected


def test_order_of_single_rows_and_batches_is_kept(metric):
    """Ids that come with `compute` are those of the rows in the order in which they were added."""
    predictions, references = vectors()
    ids = [f"i{row // 2}" for row in range(N)]
    references[1::2] = references[::2]
    metric.add(prediction=predictions[0], reference=references[0])
    metric.add_batch(predictions=predictions[1:4], references=references[1:4])
    for row in range(4, N):
        metric.add(prediction=predictions[row], reference=references[row])
    assert metric.compute(reference_ids=ids) == retrieval_scores(predictions, references, reference_ids=ids)


def test_longer_galleries_are_scored_where_ids_say_what_belongs_together(metric):
    predictions, references = vectors()
    ids = {"prediction_ids": [4, 5], "reference_ids": list(range(N))}
    expected = retrieval_scores(predictions[4:6], references, **ids)
    assert metric.compute(predictions=predictions[4:6], references=references, **ids) == expected
    assert expected["gallery_size"] == N and expected["n_queries"] == 2


def test_the_metric_in_a_combination(metric, tmp_path):
    """`evaluate.combine` hands rows on by the names of columns, and wants each of them in `add_batch`."""
    predictions, references = vectors()
    other = evaluate.load(FOLDER, cache_dir=str(tmp_path / "other"))
    both = evaluate.combine({"a": metric, "b": other})
    none = dict.fromkeys(("prediction_ids", "reference_ids", "classes", "subjects"))
    expected = retrieval_scores(predictions, references)
    ways = [lambda: both.compute(predictions, references)]

    def batches():
        both.add_batch(predictions[:7], references[:7], **none)
        both.add_batch(predictions[7:], references[7:], **none)
        return both.compute()

    def rows():
        for prediction, reference in zip(predictions, references, strict=True):
            both.add(prediction, reference, **none)
        return both.compute()

    for way in [*ways, batches, rows]:
        found = way()
        assert found["a_two_way"] == found["b_two_way"] == expected["two_way"]
        assert len(found) == 2 * len(expected)


def _part(process_id, cache_dir, queue):
    """What one of two processes does."""
    metric = evaluate.load(
        FOLDER, cache_dir=cache_dir, num_process=2, process_id=process_id, experiment_id="two", timeout=60
    )
    predictions, references = vectors()
    rows = slice(0, 5) if process_id == 0 else slice(5, N)
    if process_id == 0:
        metric.add_batch(predictions=predictions[rows], references=references[rows])
        queue.put((process_id, metric.compute()))
    else:  # in one piece, which must not be scored alone
        queue.put((process_id, metric.compute(predictions=predictions[rows], references=references[rows])))


@pytest.mark.slow
def test_two_processes_score_together(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_part, args=(number, str(tmp_path), queue)) for number in range(2)]
    for worker in workers:
        worker.start()
    found = dict(queue.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(timeout=60)
    assert found[1] is None and json.dumps(found[0]) == json.dumps(retrieval_scores(*vectors()))


@pytest.mark.slow
def test_vectors_do_not_go_through_arrow_row_by_row(metric, monkeypatch):
    """Which is what `compute` of `evaluate` costs; benchmarks/image_retrieval.py measures the ratio to the scores."""
    rng = np.random.default_rng(0)
    references = rng.standard_normal((40, 8), dtype=np.float32)
    inputs = {"predictions": references + rng.standard_normal(references.shape, dtype=np.float32)}
    inputs |= {"references": references, "reference_ids": [f"i{row}" for row in range(40)]}
    writer = datasets.arrow_writer.ArrowWriter
    for name in ("write", "write_batch", "write_row"):
        monkeypatch.setattr(writer, name, lambda *_, **__: pytest.fail("rows are written"))
    expected = retrieval_scores(**inputs)
    with monkeypatch.context() as patch:
        patch.setattr(writer, "write_table", lambda *_, **__: pytest.fail("a table is written"))
        assert metric.compute(**inputs) == expected
    for start in range(0, 40, 16):
        metric.add_batch(**{name: value[start : start + 16] for name, value in inputs.items()})
    assert metric.compute() == expected


def test_similarities_of_a_tensor():
    similarity = torch.eye(3, requires_grad=True)
    assert two_way_accuracy(similarity, torch.arange(3), np.arange(3)) == 1.0
