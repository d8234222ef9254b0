"""Image retrieval as a Hugging Face metric; what each score means stands in `scores.py`.

`evaluate.load` finds imports by a text search, line by line, and follows those of this file only: so each file that
travels is imported here, on a line of its own.
"""

import difflib
import json

import datasets
import evaluate
import numpy as np
import pyarrow as pa

from .scores import retrieval_scores
from .task import RetrievalTask, plain_ids
from .tiles import Vectors, steps, unit_vectors

__all__ = [
    "ImageRetrieval",
    "RetrievalTask",
    "retrieval_scores",
    "unit_vectors",
]  # also what `evaluate.load` is to copy

VECTORS = ("predictions", "references")
OPTIONAL = ("prediction_ids", "reference_ids", "classes", "subjects")  # columns of the metric
_DESCRIPTION = """\
Scores of image retrieval from embeddings, over a gallery de-duplicated by image id: recall@k, ranks, MRR, 2-way in
three definitions, k-way, top-1 of 300 and class top-k, in both directions, with chance levels, sizes and ties. Ties
count as the mean over their orders.
"""
_KWARGS_DESCRIPTION = """
Args:
    predictions (list of float vectors, n x D): embeddings of the queries (recordings).
    references (list of float vectors, n x D): embeddings of the images; row i belongs to prediction i unless
        both kinds of ids say otherwise.
    prediction_ids (list of n str or int, optional): image that each prediction answers to. Default: reference_ids.
    reference_ids (list of n str or int, optional): image of each reference. Default: prediction_ids, or every row
        an image of its own.
    classes (list of n str or int, optional): class of each reference's image.
    subjects (list of n str or int, optional): who each prediction comes from; adds the means of each.
    seed (int, optional): of the permutation and of the sampled pools. Default: 0.
Returns:
    Scores from 0 to 1, each with chance_<name>, the first five also as <name>_image_to_neural: two_way, top1/5/10,
    mrr, top1_of_4/10/50/100/300, top1_of_300_pools (with _interval), two_way_permutation (and _expected),
    two_way_pearson (and _strict), class_top1/5/10, class_prototype_top1/5/10; None where the gallery is too small.
    mean_rank, median_rank (from 0, both directions); n_queries, gallery_size, n_unique_images, n_classes, n_ties...
Examples:
    >>> metric = evaluate.load("metrics/image_retrieval")
    >>> scores = metric.compute(predictions=[[1, 0], [0, 1]], references=[[1, 0], [0, 1]])
    >>> scores["two_way"]
    1.0
"""
_CITATION = """\
@article{ferrante2024clip, title={Towards neural foundation models for vision: aligning EEG, MEG and fMRI
representations for decoding, encoding and modality conversion}, author={Ferrante, Matteo and Boccato, Tommaso and
Rashkov, Grigorii and Toschi, Nicola}, journal={arXiv:2411.09723}, year={2024}}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ImageRetrieval(evaluate.Metric):
    """The scores of [`retrieval_scores`] behind `evaluate.load`.

    The optional inputs may come with each batch, for all batches or none, or for all rows at once with `compute`. They
    are kept as JSON text, so that the ids `1` and `"1"` stay apart.
    """

    def _info(self):
        """Inputs and texts of the metric."""
        vector = datasets.Sequence(datasets.Value("float64"))
        text = datasets.Value("string")
        info = evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": vector, "references": vector} | dict.fromkeys(OPTIONAL, text)),
            reference_urls=["https://arxiv.org/abs/2411.09723"],
        )
        info.format = "arrow"  # the constructor allows no format beside vectors; Python lists take eight times as much
        return info

    def add_batch(self, *, predictions=None, references=None, **optional):
        """Add some rows."""
        for table in _tables(predictions, references, optional, self.features):
            self._start_writer()
            self.writer.write_table(table)

    def add(self, *, prediction=None, reference=None, **optional):
        """Add one row; the optional inputs keep their names."""
        row = [optional.pop("predictions", prediction), optional.pop("references", reference)]  # `evaluate.combine`
        missing = [name for name, value in zip(("prediction", "reference"), row, strict=True) if value is None]
        if missing:
            _check_names(optional)
            raise ValueError(f"'{missing[0]}' is missing; both are needed.")
        ids = {name: None if value is None else [value] for name, value in optional.items()}
        for table in _tables([row[0]], [row[1]], ids, self.features):
            self._start_writer()
            self.writer.write_row(table)

    def _start_writer(self):
        """Open the file of the rows, as `evaluate` does."""
        if self.writer is None:
            self.selected_feature_format = self.features
            self._init_writer()

    def compute(self, *, predictions=None, references=None, seed=0, **inputs):
        """Scores of everything added and what is given. What is given in one piece does not pass through a file."""
        _check_names(inputs)
        if predictions is None and references is None:
            if self.writer is None and self.num_process == 1:
                raise ValueError("There is nothing to score: give 'predictions' and 'references', or add rows before.")
            return super().compute(whole=inputs, seed=seed)
        _check_both(predictions, references)
        if self.writer is None and self.num_process == 1:
            return retrieval_scores(predictions, references, **inputs, seed=seed)
        self.add_batch(predictions=predictions, references=references, **inputs)
        return super().compute(seed=seed)

    def _compute(self, predictions, references, seed=0, whole=None, **columns):
        """Scores of everything added."""
        optional = {name: _ids_of(column, name) for name, column in columns.items()}
        for name, ids in (whole or {}).items():
            if ids is not None and optional[name] is not None:
                raise ValueError(
                    f"'{name}' was given with the batches and again with compute; allowed is one of them."
                )
            optional[name] = ids if ids is not None else optional[name]
        return retrieval_scores(
            _matrix(predictions, "predictions"), _matrix(references, "references"), **optional, seed=seed
        )


def _check_names(inputs):
    """Raise for an input that there is not, naming the nearest one."""
    known = ["predictions", "references", *OPTIONAL, "seed"]
    for name in inputs:
        if name not in OPTIONAL:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"Unknown input '{name}'. Allowed are {', '.join(known)}.{hint}")


def _check_both(predictions, references):
    """Raise where one of the two is missing."""
    if predictions is None or references is None:
        raise ValueError(f"'{'predictions' if predictions is None else 'references'}' is missing; both are needed.")


def _tables(predictions, references, optional, features):
    """Rows as Arrow tables of vectors in float64 and JSON texts of ids, without a Python object for each number."""
    _check_names(optional)
    _check_both(predictions, references)
    sides = {name: Vectors(rows, name).array for name, rows in zip(VECTORS, (predictions, references), strict=True)}
    n_rows = {name: len(array) for name, array in sides.items()}
    if len(set(n_rows.values())) > 1:
        raise ValueError(f"Rows that are added come in pairs, but got {n_rows['predictions']} predictions and "
                         f"{n_rows['references']} references.")  # fmt: skip
    count = len(sides["predictions"])
    texts = {name: [json.dumps(None)] * count for name in OPTIONAL}
    given = {name: ids for name, ids in optional.items() if ids is not None}
    texts |= {name: [json.dumps(i) for i in plain_ids(ids, count, name)] for name, ids in given.items()}
    widest = max(array.shape[1] for array in sides.values())
    for rows in steps(count, max(1, 2**30 // widest)):  # offsets of an Arrow list have 32 bits
        columns = {name: _lists(array[rows]) for name, array in sides.items()}
        columns |= {name: pa.array(column[rows], pa.string()) for name, column in texts.items()}
        yield pa.table(columns).select(features.arrow_schema.names)


def _lists(array):
    """Rows of an array as an Arrow array of lists of float64."""
    offsets = np.arange(len(array) + 1, dtype=np.int32) * np.int32(array.shape[1])
    return pa.ListArray.from_arrays(offsets, np.ascontiguousarray(array, dtype=np.float64).ravel())


def _ids_of(column, name):
    """Ids of all rows, or nothing where none were given."""
    ids = [json.loads(text) for text in column.to_pylist()]
    n_given = sum(i is not None for i in ids)
    if 0 < n_given < len(ids):
        raise ValueError(f"'{name}' was given for {n_given} of {len(ids)} rows; allowed are all rows or none.")
    return ids if n_given else None


def _matrix(column, name):
    """Rows of an Arrow column of lists as one array, float64."""
    widths = np.unique(
        np.concatenate([chunk.value_lengths().to_numpy(zero_copy_only=False) for chunk in column.chunks])
    )
    if len(widths) != 1:
        raise ValueError(f"Vectors of '{name}' have different lengths, {widths.tolist()}; allowed is one length.")
    numbers = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(numbers).reshape(len(column), -1)
