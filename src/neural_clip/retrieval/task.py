"""Who is searched for among whom: queries, gallery, true images, classes."""

from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np

from .tiles import Vectors, blocks


class RetrievalTask:
    """Checked inputs of one retrieval: queries, gallery of unique images, true columns, class of each column.

    Args:
        predictions, references, prediction_ids, reference_ids, classes: see [`score_queries`].

    Raises:
        ValueError: If input is not finite, sizes differ, an image is unknown or has two embeddings or classes, or
            fewer than two images are given.
    """

    def __init__(self, predictions, references, prediction_ids=None, reference_ids=None, classes=None):
        self.queries, images = Vectors(predictions, "predictions"), Vectors(references, "references")
        if self.queries.width != images.width:
            raise ValueError(f"Predictions have {self.queries.width} dimensions, but references {images.width}.")
        if reference_ids is None:
            reference_ids = range(len(images)) if prediction_ids is None else prediction_ids
        if prediction_ids is None:
            prediction_ids = reference_ids
        ids = plain_ids(reference_ids, len(images), "reference_ids")
        rows, columns, found = unique(ids)
        require_one_embedding(images, ids, rows[found])
        require_two_images(len(rows))
        self.gallery = images.select(rows)
        self.true_columns = true_columns(prediction_ids, columns, len(self.queries))
        self.class_codes = None if classes is None else class_codes(classes, ids, rows, found)

    def class_sizes(self):
        """Images of each query's class in the gallery, `(n_queries,)`."""
        return np.bincount(self.class_codes)[self.class_codes[self.true_columns]]


def plain_ids(ids, length, name):
    """List of Python `str` and `int` of the expected length, of a list, array, tensor, column or iterator of them."""
    if isinstance(ids, Sequence) and not isinstance(ids, str | bytes):
        ids = ids[:]  # a column of `datasets`, as its format says
    for method in ("tolist", "to_pylist"):  # of arrays, tensors and pandas; of Arrow
        ids = getattr(ids, method)() if hasattr(ids, method) else ids
    if isinstance(ids, str | bytes | Mapping | Set) or not isinstance(ids, Iterable):
        raise ValueError(
            f"Invalid value for the '{name}' parameter. Allowed is a list of one id for each row, but got "
            f"{type(ids).__name__} instead."
        )
    plain = [i.item() if hasattr(i, "item") else i for i in ids]
    wrong = [i for i in plain if not isinstance(i, str | int)]
    if wrong:
        raise ValueError(
            f"Invalid value for the '{name}' parameter. Allowed are ids of type str and int, but got {wrong[0]!r} "
            f"({type(wrong[0]).__name__}; {len(wrong)} of {len(plain)} rows) instead."
        )
    if len(plain) != length:
        raise ValueError(
            f"Invalid value for the '{name}' parameter. Allowed is one id for each of {length} rows, "
            f"but got {len(plain)} ids instead."
        )
    return plain


def subject_names(subjects, length):
    """Subject of each query as text, which is what names their scores; two subjects of one text raise."""
    plain = plain_ids(subjects, length, "subjects")
    names: dict = {}
    for subject in plain:
        if names.setdefault(str(subject), subject) != subject:
            raise ValueError(
                f"Invalid value for the 'subjects' parameter. Allowed are subjects with names of their own, but got "
                f"{names[str(subject)]!r} and {subject!r}."
            )
    return [str(subject) for subject in plain]


def unique(ids):
    """First row of each image in order of appearance, column of each image id, and column of each row."""
    columns: dict = {}
    found = np.array([columns.setdefault(image_id, len(columns)) for image_id in ids])
    return np.unique(found, return_index=True)[1], columns, found


def require_one_embedding(images, ids, first):
    """Raise where one image id stands for two different embeddings."""
    (repeats,) = np.nonzero(first != np.arange(len(first)))
    for block in blocks(len(repeats), 16 * images.width):
        rows = repeats[block]
        # 1e-3 allows the same image embedded in float16 (spacing 5e-4 near 1) and in float32
        differs = np.abs(images.units(rows) - images.units(first[rows])).max(axis=1) > 1e-3
        if differs.any():
            row = rows[np.argmax(differs)]
            raise ValueError(
                f"Invalid value for the 'reference_ids' parameter. Rows {first[row]} and {row} share the image id "
                f"{ids[row]!r}, but their embeddings differ; an image has one embedding."
            )


def class_codes(classes, ids, rows, found):
    """Class of each image of the gallery, numbered in order of appearance."""
    names = plain_ids(classes, len(ids), "classes")
    for image_id, name, column in zip(ids, names, found, strict=True):
        if names[rows[column]] != name:
            first = names[rows[column]]
            raise ValueError(f"Image {image_id!r} has two classes, {first!r} and {name!r}; allowed is one.")
    codes: dict = {}
    return np.array([codes.setdefault(names[row], len(codes)) for row in rows])


def true_columns(query_ids, columns, length):
    """Column of each query's image in the gallery; an unknown image raises."""
    ids = plain_ids(query_ids, length, "prediction_ids")
    missing = [image_id for image_id in ids if image_id not in columns]
    if missing:
        same = [known for known in columns if str(known) == str(missing[0])]
        hint = f" The gallery has {same[0]!r}, which is another id." if same else ""
        raise ValueError(
            f"Invalid value for the 'prediction_ids' parameter. Allowed are ids of images in the gallery, "
            f"but got {missing[0]!r} (and {len(missing) - 1} more rows) instead.{hint}"
        )
    return np.array([columns[image_id] for image_id in ids])


def require_two_images(n_images):
    """Raise where nothing can be told apart."""
    if n_images < 2:
        raise ValueError(f"Retrieval needs at least two different images, but the gallery holds {n_images}.")
