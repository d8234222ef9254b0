"""Image retrieval: the one definition of every score in this package, as a Hugging Face metric.

```python
metric = evaluate.load("src/neural_clip/image_retrieval.py")
metric.compute(predictions=neural_embeds, references=image_embeds, reference_ids=image_ids, classes=concepts)
```

Definitions, with `S[i, j] = cosine(prediction i, image j)` and a gallery that holds every image once:

* **rank** of the true image: (number greater + number greater-or-equal - 1) / 2, so ties share the mean of the
  ranks they occupy; 0 is best (definition G, neuralbench).
* **2-way**, all pairs: mean over recordings i and over *different* images j of [S_ii > S_ij], ties one half; equals
  1 - rank / (gallery size - 1). `two_way_image_to_neural`: S_ii against S_li over recordings l of different images.
* **top-k**: probability that the true image is among the first k when tied images are ordered at random. Without ties
  that is [rank < k]; with ties a constant model scores exactly chance, where [rank < k] would give it 0 or 1.
* **class top-k**: the same for "an image of the true class is among the first k"; chance counts the images that each
  class has in this gallery.

A zero vector has no direction: its cosine with anything is taken as 0, so that it ties with every image. A collapsed
model therefore scores chance. Non-finite numbers raise `ValueError`.

Each import stands on a line of its own because `evaluate.load` finds imports by a text search.
"""

import datasets
import evaluate
import numpy as np

TIE_TOLERANCE = 1e-9  # cosines are computed in float64: rounding is below 1e-15, float32 spacing near 1 is 6e-8
BLOCK_BYTES = 32 * 2**20  # of one block of similarities; a few such blocks are alive at a time

_DESCRIPTION = """\
Top-k and all-pairs 2-way scores of image retrieval from embeddings, over a gallery de-duplicated by image id,
with chance levels and sizes. Ties count one half (2-way) or are ordered at random in expectation (top-k).
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
Returns:
    top1, top5, class_top1, class_top5, two_way, two_way_image_to_neural (float, 0 to 1); chance_<name> for each;
    mean_rank, median_rank (from 0); n_queries, gallery_size, n_unique_images, n_classes, n_ties (int).
Examples:
    >>> metric = evaluate.load("src/neural_clip/image_retrieval.py")
    >>> scores = metric.compute(predictions=[[1, 0], [0, 1]], references=[[1, 0], [0, 1]])
    >>> scores["two_way"]
    1.0
"""

_CITATION = """\
@article{ferrante2024clip, title={Towards neural foundation models for vision: aligning EEG, MEG and fMRI
representations for decoding, encoding and modality conversion}, author={Ferrante, Matteo and Boccato, Tommaso and
Rashkov, Grigorii and Toschi, Nicola}, journal={arXiv:2411.09723}, year={2024}}
"""


def unit_vectors(embeds: np.ndarray, name: str = "embeds") -> np.ndarray:
    """Check embeddings and scale each row to unit length.

    Args:
        embeds (`np.ndarray` or nested list of shape `(n, projection_dim)`): Any float type.
        name (`str`): Parameter named in errors.

    Returns:
        `np.ndarray` of shape `(n, projection_dim)`, float64: Rows of length 1; zero rows stay zero.

    Raises:
        ValueError: If the input is empty, not two-dimensional, ragged, or holds NaN or infinity.
    """
    array = np.asarray(embeds, dtype=np.float64)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"Invalid value for the '{name}' parameter. Allowed is a non-empty (n, projection_dim) array, "
            f"but got shape {array.shape} instead."
        )
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"Invalid value for the '{name}' parameter. Allowed are finite numbers, but {np.count_nonzero(~finite)} "
            f"of {len(array)} rows hold NaN or infinity; the first is row {int(np.argmin(finite))}."
        )
    array = array / np.maximum(np.abs(array).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)  # no overflow
    return array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def unique_gallery(references: np.ndarray, reference_ids: list | np.ndarray) -> tuple[np.ndarray, dict]:
    """Keep the first row of each image.

    Args:
        references (`np.ndarray` of shape `(n, projection_dim)`): Unit vectors.
        reference_ids (sequence of `n` `str` or `int`): Image of each row.

    Returns:
        `tuple` of `np.ndarray` rows `(n_unique_images,)` in order of first appearance and
        `dict` from image id to column of the gallery.

    Raises:
        ValueError: If one image id stands for two different embeddings, or the lengths differ.
    """
    ids = _plain_ids(reference_ids, len(references), "reference_ids")
    columns: dict = {}
    first_rows: list[int] = []
    for row, image_id in enumerate(ids):
        if image_id not in columns:
            columns[image_id] = len(first_rows)
            first_rows.append(row)
    rows = np.array(first_rows)
    first = rows[[columns[image_id] for image_id in ids]]
    for start in range(0, len(ids), 4096):  # in blocks: no second copy of a large gallery
        stop = min(start + 4096, len(ids))
        # 1e-3 allows the same image embedded in float16 (spacing 5e-4 near 1) and in float32
        differs = np.abs(references[start:stop] - references[first[start:stop]]).max(axis=1) > 1e-3
        if differs.any():
            row = start + int(np.argmax(differs))
            raise ValueError(
                f"Invalid value for the 'reference_ids' parameter. Rows {first[row]} and {row} share the image id "
                f"{ids[row]!r}, but their embeddings differ; an image has one embedding."
            )
    return rows, columns


def _plain_ids(ids, length, name):
    """List of hashable Python ids of the expected length."""
    plain = [i.item() if isinstance(i, np.generic) else i for i in ids]
    if len(plain) != length:
        raise ValueError(
            f"Invalid value for the '{name}' parameter. Allowed is one id for each of {length} rows, "
            f"but got {len(plain)} ids instead."
        )
    return plain


def _true_columns(query_ids, columns, length):
    """Column of each query's image in the gallery; an unknown image raises."""
    ids = _plain_ids(query_ids, length, "prediction_ids")
    missing = [image_id for image_id in ids if image_id not in columns]
    if missing:
        raise ValueError(
            f"Invalid value for the 'prediction_ids' parameter. Allowed are ids of images in the gallery, "
            f"but got {missing[0]!r} (and {len(missing) - 1} more rows) instead."
        )
    return np.array([columns[image_id] for image_id in ids])


def retrieval_ranks(
    similarity: np.ndarray, true_columns: np.ndarray, tolerance: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Rank of the true image of each query, ties averaged.

    Args:
        similarity (`np.ndarray` of shape `(n_queries, gallery_size)`): Larger is more alike.
        true_columns (`np.ndarray` of shape `(n_queries,)`): Column of the true image.
        tolerance (`float`, defaults to 0.0): Similarities closer than this are tied.

    Returns:
        `tuple` of `np.ndarray` `(n_queries,)`: Rank from 0, and number of *other* images tied with the true one.

    Source: (greater + greater-or-equal - 1) / 2, neuralbench.
    """
    true = similarity[np.arange(len(similarity)), true_columns][:, None]  # (n_queries, 1)
    greater = np.count_nonzero(similarity > true + tolerance, axis=1)
    greater_or_equal = np.count_nonzero(similarity >= true - tolerance, axis=1)
    return (greater + greater_or_equal - 1) / 2.0, greater_or_equal - greater - 1


def two_way_accuracy(
    similarity: np.ndarray, query_ids: list | np.ndarray, gallery_ids: list | np.ndarray, tolerance: float = 0.0
) -> float:
    """All-pairs 2-way accuracy of a similarity matrix (definition A), queries to images.

    Args:
        similarity (`np.ndarray` of shape `(n_queries, n_gallery)`): Larger is more alike; finite.
        query_ids (sequence of `n_queries` `str` or `int`): Image behind each query.
        gallery_ids (sequence of `n_gallery` `str` or `int`): Image of each column; repeats are dropped.
        tolerance (`float`, defaults to 0.0): Similarities closer than this are tied.

    Returns:
        `float`: Mean over queries and over different images of [true > other], ties one half.

    Raises:
        ValueError: If the similarity is not finite, a query's image is missing, or fewer than two images are given.
    """
    similarity = np.asarray(similarity, dtype=np.float64)
    if similarity.ndim != 2 or not np.isfinite(similarity).all():
        raise ValueError("Invalid value for the 'similarity' parameter. Allowed is a finite (queries, gallery) array.")
    rows: dict = {}
    columns: list[int] = []
    for column, image_id in enumerate(_plain_ids(gallery_ids, similarity.shape[1], "gallery_ids")):
        if image_id not in rows:
            rows[image_id] = len(columns)
            columns.append(column)
    _require_two_images(len(columns))
    true = _true_columns(query_ids, rows, len(similarity))
    ranks, _ = retrieval_ranks(similarity[:, columns], true, tolerance)
    return float(np.mean(1.0 - ranks / (len(columns) - 1)))


def _require_two_images(n_images):
    """Raise where nothing can be told apart."""
    if n_images < 2:
        raise ValueError(f"Retrieval needs at least two different images, but the gallery holds {n_images}.")


def top_k_credit(similarity: np.ndarray, relevant: np.ndarray, k: int, tolerance: float = 0.0) -> np.ndarray:
    """Probability that a relevant image is among the first k, tied images ordered at random.

    Args:
        similarity (`np.ndarray` of shape `(n_queries, gallery_size)`): Larger is more alike.
        relevant (`np.ndarray` of shape `(n_queries, gallery_size)`, bool): Images that count as found.
        k (`int`): Length of the list; at least 1; longer than the gallery means the whole gallery.
        tolerance (`float`, defaults to 0.0): Similarities closer than this to the k-th largest are tied with it.

    Returns:
        `np.ndarray` of shape `(n_queries,)`: 0 or 1 where no tie crosses the end of the list, else in between
        (hypergeometric: k - a places are filled at random from the t tied images, of which m are relevant).
    """
    k = min(k, similarity.shape[1])
    last = -np.partition(-similarity, k - 1, axis=1)[:, k - 1 : k]  # (n_queries, 1), the k-th largest
    above = similarity > last + tolerance
    tied = np.abs(similarity - last) <= tolerance
    places = k - np.count_nonzero(above, axis=1)
    missed = _miss_probability(np.count_nonzero(tied & relevant, axis=1), np.count_nonzero(tied, axis=1), places)
    return np.where((above & relevant).any(axis=1), 1.0, 1.0 - missed)


def _miss_probability(n_relevant, n_total, n_drawn):
    """Chance that `n_drawn` of `n_total` items, drawn without replacement, hold none of `n_relevant`."""
    n_relevant, n_total, n_drawn = np.broadcast_arrays(n_relevant, n_total, n_drawn)
    missed = np.ones(n_total.shape)
    for step in range(int(n_drawn.max(initial=0))):
        drawing = step < n_drawn
        left = np.maximum(n_total - step, 1)
        missed = np.where(drawing, missed * np.clip((n_total - step - n_relevant) / left, 0.0, 1.0), missed)
    return missed


def chance_top_k(n_relevant: np.ndarray | int, gallery_size: int, k: int) -> float:
    """Chance level of top-k.

    Args:
        n_relevant (`np.ndarray` of shape `(n_queries,)` or `int`): Images of this gallery that count as found.
        gallery_size (`int`): Unique images.
        k (`int`): Length of the list.

    Returns:
        `float`: Mean over queries of 1 - C(gallery - relevant, k) / C(gallery, k).
    """
    return float(np.mean(1.0 - _miss_probability(np.asarray(n_relevant), gallery_size, min(k, gallery_size))))


def _blocks(n_rows, row_bytes):
    """Slices of rows so that one block stays below BLOCK_BYTES."""
    size = max(1, BLOCK_BYTES // max(1, row_bytes))
    return [slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]


class _Task:
    """Checked inputs of one retrieval: unit queries, gallery of unique images, true columns, class of each column."""

    def __init__(self, predictions, references, prediction_ids=None, reference_ids=None, classes=None):
        queries, images = unit_vectors(predictions, "predictions"), unit_vectors(references, "references")
        if queries.shape[1] != images.shape[1]:
            raise ValueError(f"Predictions have {queries.shape[1]} dimensions, but references {images.shape[1]}.")
        if reference_ids is None:
            reference_ids = range(len(images)) if prediction_ids is None else prediction_ids
        if prediction_ids is None:
            prediction_ids = reference_ids
        rows, columns = unique_gallery(images, reference_ids)
        _require_two_images(len(rows))
        self.queries, self.gallery = queries, images[rows]
        self.true_columns = _true_columns(prediction_ids, columns, len(queries))
        self.class_codes = None
        if classes is not None:
            names = _plain_ids(classes, len(images), "classes")
            for image_id, name in zip(_plain_ids(reference_ids, len(images), "reference_ids"), names, strict=True):
                first = names[rows[columns[image_id]]]
                if first != name:
                    raise ValueError(f"Image {image_id!r} has two classes, {first!r} and {name!r}; allowed is one.")
            codes = {}
            self.class_codes = np.array([codes.setdefault(names[row], len(codes)) for row in rows])

    def class_sizes(self):
        """Images of each query's class in the gallery, (n_queries,)."""
        return np.bincount(self.class_codes)[self.class_codes[self.true_columns]]


def score_queries(
    predictions: np.ndarray,
    references: np.ndarray,
    prediction_ids: list | np.ndarray | None = None,
    reference_ids: list | np.ndarray | None = None,
    classes: list | np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Contribution of every query to every score; the scores are their means.

    Args:
        predictions (`np.ndarray` of shape `(n_queries, projection_dim)`): Query embeddings, any scale.
        references (`np.ndarray` of shape `(n_references, projection_dim)`): Image embeddings, any scale.
        prediction_ids (sequence of `n_queries` `str` or `int`, *optional*): Image of each query.
        reference_ids (sequence of `n_references` `str` or `int`, *optional*): Image of each reference.
        classes (sequence of `n_references` `str` or `int`, *optional*): Class of each reference's image.

    Returns:
        `dict` of `np.ndarray` `(n_queries,)`: `top1`, `top5`, `two_way`, `two_way_image_to_neural`, `rank`, `ties`,
        and with classes `class_top1`, `class_top5`. Similarities are computed in blocks: memory does not grow with
        queries x gallery.

    Raises:
        ValueError: If input is not finite, sizes differ, an image is unknown or fewer than two images are given.
    """
    return _score_task(_Task(predictions, references, prediction_ids, reference_ids, classes))


def _score_task(task):
    """Per-query scores of a checked task."""
    size = len(task.gallery)
    parts = []
    for block in _blocks(len(task.queries), 8 * size):
        similarity = task.queries[block] @ task.gallery.T  # (block, gallery_size)
        true = task.true_columns[block]
        rank, ties = retrieval_ranks(similarity, true, TIE_TOLERANCE)
        part = {"rank": rank, "ties": ties, "two_way": 1.0 - rank / (size - 1)}
        relevant = {"": np.arange(size) == true[:, None]}
        if task.class_codes is not None:
            relevant["class_"] = task.class_codes == task.class_codes[true][:, None]
        for name, mask in relevant.items():
            for k in (1, 5):
                part[f"{name}top{k}"] = top_k_credit(similarity, mask, k, TIE_TOLERANCE)
        parts.append(part)
    scores = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    scores["two_way_image_to_neural"] = _image_to_neural(task)
    return scores


def _image_to_neural(task):
    """2-way of each query among all queries of different images, seen from its image."""
    order = np.argsort(task.true_columns, kind="stable")  # queries of one image stand together
    columns = task.true_columns[order]
    repeats = np.bincount(task.true_columns, minlength=len(task.gallery))
    scores = np.full(len(order), 0.5)  # where all queries show one image there is nothing to compare
    for block in _blocks(len(order), 8 * len(order)):
        similarity = task.gallery[columns[block]] @ task.queries.T  # (block, n_queries)
        own = similarity[np.arange(len(similarity)), order[block]][:, None]
        different = task.true_columns[None, :] != columns[block][:, None]
        wins = np.count_nonzero((similarity < own - TIE_TOLERANCE) & different, axis=1)
        losses = np.count_nonzero((similarity > own + TIE_TOLERANCE) & different, axis=1)
        n_other = len(order) - repeats[columns[block]]
        scores[order[block]] = np.where(n_other > 0, 0.5 + 0.5 * (wins - losses) / np.maximum(n_other, 1), 0.5)
    return scores


def retrieval_scores(
    predictions: np.ndarray,
    references: np.ndarray,
    prediction_ids: list | np.ndarray | None = None,
    reference_ids: list | np.ndarray | None = None,
    classes: list | np.ndarray | None = None,
) -> dict:
    """Every score, its chance level and the sizes it depends on.

    Args: see [`score_queries`].

    Returns:
        `dict`: `top1`, `top5`, `two_way`, `two_way_image_to_neural`, `class_top1`, `class_top5` (only with classes),
        `chance_<name>` for each, `mean_rank`, `median_rank`, `n_queries`, `gallery_size`, `n_unique_images` (those
        that queries answer to), `n_classes` (in the gallery; `None` without classes) and `n_ties` (other images tied
        with the true one, summed over queries).
    """
    task = _Task(predictions, references, prediction_ids, reference_ids, classes)
    return _summary(task, _score_task(task))


def _summary(task, scores):
    """Means, chance levels and sizes."""
    size = len(task.gallery)
    summary = {name: float(np.mean(values)) for name, values in scores.items() if name not in ("rank", "ties")}
    summary |= {"chance_two_way": 0.5, "chance_two_way_image_to_neural": 0.5}
    summary |= {f"chance_top{k}": chance_top_k(1, size, k) for k in (1, 5)}
    if task.class_codes is not None:
        summary |= {f"chance_class_top{k}": chance_top_k(task.class_sizes(), size, k) for k in (1, 5)}
    return summary | {
        "mean_rank": float(np.mean(scores["rank"])),
        "median_rank": float(np.median(scores["rank"])),
        "n_queries": len(task.queries),
        "gallery_size": size,
        "n_unique_images": len(np.unique(task.true_columns)),
        "n_classes": None if task.class_codes is None else int(task.class_codes.max()) + 1,
        "n_ties": int(scores["ties"].sum()),
    }


def nearest_rows(queries: np.ndarray, gallery: np.ndarray, k: int = 1) -> np.ndarray:
    """Rows of a gallery most alike to each query, by cosine.

    Args:
        queries (`np.ndarray` of shape `(n_queries, projection_dim)`): Any scale.
        gallery (`np.ndarray` of shape `(n_gallery, projection_dim)`): Any scale.
        k (`int`, defaults to 1): Rows returned; at most `n_gallery`.

    Returns:
        `np.ndarray` of shape `(n_queries, k)`, int: Best first; ties in order of the gallery.
    """
    queries, gallery = unit_vectors(queries, "queries"), unit_vectors(gallery, "gallery")
    k = min(k, len(gallery))
    found = []
    for block in _blocks(len(queries), 8 * len(gallery)):
        # rounded so that equal vectors tie although matrix products differ in their last bit with the position
        similarity = np.round(queries[block] @ gallery.T, 9)
        found.append(np.argsort(-similarity, axis=1, kind="stable")[:, :k])
    return np.concatenate(found)


def bootstrap_interval(
    per_query: np.ndarray, cluster_ids: list | np.ndarray, seed: int, n: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of a mean, resampling clusters (images) with replacement.

    Queries of one image rise and fall together, so the image, not the trial, is the unit. The gallery stays fixed:
    the interval speaks of other images *among the same competitors*, and is a little narrow for that reason.

    Args:
        per_query (`np.ndarray` of shape `(n_queries,)`): Contributions from [`score_queries`].
        cluster_ids (sequence of `n_queries` `str` or `int`): Unit that each query belongs to.
        seed (`int`): Seed of the resampling.
        n (`int`, defaults to 2000): Resamples.
        level (`float`, defaults to 0.95): Coverage.

    Returns:
        `tuple` of two `float`: Lower and upper end.

    Raises:
        ValueError: If a contribution is not finite or the lengths differ.
    """
    values = np.asarray(per_query, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("Invalid value for the 'per_query' parameter. Allowed are finite numbers.")
    _, codes = np.unique(np.array(_plain_ids(cluster_ids, len(values), "cluster_ids"), dtype=str), return_inverse=True)
    sums, counts = np.bincount(codes, weights=values), np.bincount(codes)
    rng = np.random.default_rng(seed)
    means = []
    for block in _blocks(n, 8 * len(sums)):
        weights = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=block.stop - block.start)
        means.append((weights @ sums) / (weights @ counts))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def permutation_p_value(
    predictions: np.ndarray,
    references: np.ndarray,
    prediction_ids: list | np.ndarray | None = None,
    reference_ids: list | np.ndarray | None = None,
    *,
    seed: int,
    n: int = 1000,
    unit: str = "image",
    groups: list | np.ndarray | None = None,
) -> float:
    """One-sided p-value of the 2-way score against shuffled labels.

    Args:
        predictions, references, prediction_ids, reference_ids: see [`score_queries`].
        seed (`int`): Seed of the shuffles.
        n (`int`, defaults to 1000): Shuffles; the smallest p-value is 1 / (n + 1).
        unit (`str`, defaults to `"image"`): `"image"` gives all queries of an image one other image (keeps what
            repeats have in common; needs many images); `"query"` shuffles the queries' labels, for galleries of a
            few categories.
        groups (sequence of `n_queries` `str`, *optional*): With `unit="query"`, shuffles stay inside a group.

    Returns:
        `float`: (1 + shuffles that score at least as well) / (1 + n).
    """
    if unit not in ("image", "query"):
        allowed = "Allowed values are 'image' and 'query'"
        raise ValueError(f"Invalid value for the 'unit' parameter. {allowed}, but got {unit!r} instead.")
    task = _Task(predictions, references, prediction_ids, reference_ids)
    rng = np.random.default_rng(seed)
    rows = np.arange(len(task.queries))
    if unit == "image":
        images, rows = np.unique(task.true_columns, return_inverse=True)
        wins = _wins_if_true(task, rows, len(images))  # (n_images, gallery_size)
        shuffles = (rng.permutation(len(task.gallery))[: len(images)] for _ in range(n))
        true, rows = images, np.arange(len(images))
    else:
        wins, true = _wins_if_true(task, rows, len(rows)), task.true_columns
        names = np.zeros(len(rows), int) if groups is None else np.unique(np.array(groups), return_inverse=True)[1]
        base = np.argsort(names, kind="stable")
        rows = rows[base]
        shuffles = (true[np.lexsort((rng.random(len(rows)), names))] for _ in range(n))
        true = true[base]
    observed = wins[rows, true].sum()
    reached = sum(wins[rows, shuffle].sum() >= observed - 1e-9 * len(task.queries) for shuffle in shuffles)
    return float((1 + reached) / (1 + n))


def _wins_if_true(task, groups, n_groups):
    """2-way score of each query with each image in the place of the true one, summed over groups of queries."""
    size = len(task.gallery)
    wins = np.zeros((n_groups, size))
    for block in _blocks(len(task.queries), 8 * size):
        similarity = task.queries[block] @ task.gallery.T  # (block, gallery_size)
        for values, ordered, group in zip(similarity, np.sort(similarity, axis=1), groups[block], strict=True):
            less = np.searchsorted(ordered, values - TIE_TOLERANCE, side="left")
            not_greater = np.searchsorted(ordered, values + TIE_TOLERANCE, side="right")
            wins[group] += (less + not_greater - 1) / 2.0 / (size - 1)
    return wins


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ImageRetrieval(evaluate.Metric):
    """The scores of [`retrieval_scores`] behind `evaluate.load`."""

    def _info(self):
        """Inputs and texts of the metric."""
        vector = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": vector, "references": vector}),
            reference_urls=["https://arxiv.org/abs/2411.09723"],
        )

    def _compute(self, predictions, references, prediction_ids=None, reference_ids=None, classes=None):
        """Scores of everything added."""
        return retrieval_scores(predictions, references, prediction_ids, reference_ids, classes)
