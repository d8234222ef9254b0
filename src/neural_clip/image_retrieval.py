"""Image retrieval: the one definition of every score in this package, as a Hugging Face metric.

```python
metric = evaluate.load("metrics/image_retrieval")
metric.compute(predictions=neural_embeds, references=image_embeds, reference_ids=image_ids, classes=concepts)
```

Definitions, with `S[i, j] = cosine(prediction i, image j)` and a gallery that holds every image once. Each query has
`greater` competitors above its true image and `tied` ones level with it:

* **rank** of the true image: greater + tied / 2, from 0 (definition G, neuralbench).
* Every score of a rank is averaged over the places that tied images may take: a tie counts one half in a 2-way
  comparison, and a constant model scores exactly chance.
* **two_way**, all pairs (A): mean over queries i and *different* images j of [S_ii > S_ij].
* **top1, top5, top10** (recall@k): the true image is among the first k. **mrr**: 1 / (rank + 1).
* **top1_of_k** (D; E with k = 300): the true image comes first among itself and k - 1 others drawn without
  replacement. This is the expectation over all draws. **top1_of_300_pools** is the mean over 30 sampled pools of 300
  images, one query each, as MindEye does, with the normal interval of that mean: noise of drawing pools only.
* `..._image_to_neural`: the same seen from the image: S_ii against S_li over queries l of different images.
* **two_way_permutation** (B, arXiv 2411.09723): [S_ii > S_p(i)i] for one seeded permutation p of the queries;
  `two_way_permutation_expected` is its mean over all permutations. Both count p(i) of the same image in: a query
  against itself ties.
* **two_way_pearson** (C, brain-diffuser): as A by Pearson's r over dimensions, one half for a tie;
  `two_way_pearson_strict` counts a tie as a failure, as the sources do. One prediction against all images.
* **class_top-k**: an image of the true class is among the first k; chance counts the images that each class has in
  this gallery. **class_prototype_top-k**: the true class is among the first k classes, by cosine to the mean unit
  embedding of its images; chance counts classes.

A zero vector has no direction: its cosine with anything is taken as 0, so that it ties with every image; so does
Pearson's r with a vector of equal numbers. Non-finite numbers raise `ValueError`.

Similarities are computed in float32, tile by tile, and compared with a margin that exceeds their rounding error;
what falls inside the margin is decided in float64. The result is that of float64 whatever the number of threads.

Each import stands on a line of its own because `evaluate.load` finds imports by a text search.
"""

import json

import datasets
import evaluate
import numpy as np

TIE_TOLERANCE = 1e-9  # ties are settled in float64: rounding is below 1e-15, float32 spacing near 1 is 6e-8
BLOCK_BYTES = 32 * 2**20  # of one block of float64 numbers; a few such blocks are alive at a time
CACHED = 2**16  # numbers of a block that is passed over several times: 0.5 MB
TILE_ROWS, TILE_COLUMNS = 2048, 2040  # of one product: 17 MB; 2040 = 8 * 255, see _row_counts
PART_ROWS = 128  # of a tile compared at a time: 1 MB stays in the cache for all comparisons; at most 255
DENSE = 64  # where more than 1 in 64 entries is near its limit, a float64 product is faster than entry by entry
ROUNDING = 2.0**-24  # unit roundoff of float32
N_PROBES = 256  # rows and columns whose products are computed both ways to measure the rounding error
TOP = (1, 5, 10)
SAMPLED = (4, 10, 50, 100, 300)  # sizes of top1_of_k
POOL_SIZE, N_POOLS = 300, 30  # MindEye
BACK = "_image_to_neural"
OPTIONAL = ("prediction_ids", "reference_ids", "classes", "subjects")  # columns of the metric
NOT_MEANT = ("rank", "ties", f"rank{BACK}", f"ties{BACK}", "ties_pearson")  # per query, but no score

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


class _Vectors:
    """Embeddings as they were given and the factor that makes each row a unit vector: no second copy is kept."""

    def __init__(self, embeds, name):
        array = np.asarray(embeds)
        if array.dtype not in (np.float16, np.float32, np.float64):
            array = np.asarray(embeds, dtype=np.float64)
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(
                f"Invalid value for the '{name}' parameter. Allowed is a non-empty (n, projection_dim) array, "
                f"but got shape {array.shape} instead."
            )
        self.array, self.rows = array, None
        lengths = self._lengths(name)
        # outside these bounds float32 factors or float64 squares overflow: such rows get a largest entry of 1
        extreme = (lengths != 0) & ~((lengths > 1e-20) & (lengths < 1e20))
        if extreme.any():
            self.array = array.astype(np.float64)
            self.array[extreme] /= np.abs(self.array[extreme]).max(axis=1, keepdims=True)
            lengths = self._lengths(name)
        self.scale = np.divide(1.0, lengths, out=np.zeros(len(lengths)), where=lengths > 0)  # zero rows stay zero

    def _lengths(self, name):
        """Euclidean length of each row, float64; also the sums, for Pearson's r. Raises for NaN and infinity."""
        lengths, self.sums = np.empty(len(self.array)), np.empty(len(self.array))
        finite = np.ones(len(self.array), bool)
        for rows in _steps(len(self.array), max(1, 4 * CACHED // self.width)):
            block = self.array[rows].astype(np.float64)  # (block, projection_dim)
            with np.errstate(over="ignore", invalid="ignore"):
                lengths[rows] = np.sqrt(np.einsum("ij,ij->i", block, block))
                self.sums[rows] = block.sum(axis=1)
            if not np.isfinite(lengths[rows]).all():
                finite[rows] = np.isfinite(block).all(axis=1)
            tiny = lengths[rows] < 1e-100  # squares underflow: only zero rows have length 0
            lengths[rows][tiny] = np.abs(block[tiny]).max(axis=1)
        if not finite.all():
            raise ValueError(
                f"Invalid value for the '{name}' parameter. Allowed are finite numbers, but "
                f"{np.count_nonzero(~finite)} of {len(finite)} rows hold NaN or infinity; the first is row "
                f"{int(np.argmin(finite))}."
            )
        return lengths

    def __len__(self):
        return len(self.array) if self.rows is None else len(self.rows)

    @property
    def width(self):
        """Dimensions of the space."""
        return self.array.shape[1]

    def select(self, rows):
        """Some of the rows, without copying them."""
        chosen = object.__new__(_Vectors)
        chosen.array, chosen.scale, chosen.sums = self.array, self.scale, self.sums
        chosen.rows = None if np.array_equal(rows, np.arange(len(self.array))) else rows
        return chosen

    def _at(self, index):
        """Index of the given array."""
        return index if self.rows is None else self.rows[index]

    def units32(self, index):
        """Unit vectors in float32."""
        index = self._at(index)
        return self.array[index].astype(np.float32, copy=False) * self.scale[index, None].astype(np.float32)

    def units(self, index, centred=False):
        """Unit vectors in float64; `centred`: of the vectors less their mean, whose cosine is Pearson's r."""
        index = self._at(index)
        block = self.array[index] * self.scale[index, None]
        if centred:
            block -= block.mean(axis=1, keepdims=True)
            lengths = np.sqrt(np.einsum("ij,ij->i", block, block))[:, None]
            block = np.divide(block, lengths, out=np.zeros_like(block), where=lengths > 1e-12)  # below: all equal
        return block

    def mean_and_spread(self, index):
        """Mean over dimensions of the unit vectors, and length of what is left without it."""
        index = self._at(index)
        mean = self.sums[index] * self.scale[index] / self.width
        return mean, np.sqrt(np.maximum(1.0 - self.width * mean**2, 0.0))


def _blocks(n_rows, row_bytes):
    """Slices of rows so that one block stays below BLOCK_BYTES."""
    return _steps(n_rows, max(1, BLOCK_BYTES // max(1, row_bytes)))


def _steps(n_rows, size):
    """Slices of at most `size` rows."""
    return [slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]


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
    return _Vectors(embeds, name).units(slice(None))


def pair_cosines(queries, gallery, query_rows, gallery_rows, centred=False):
    """Cosine (or Pearson's r) of pairs of rows of two sets of vectors, in float64, `(n_pairs,)`."""
    found = np.empty(len(query_rows))
    for block in _steps(len(found), max(1, CACHED // queries.width)):
        left, right = queries.units(query_rows[block], centred), gallery.units(gallery_rows[block], centred)
        found[block] = np.einsum("ij,ij->i", left, right)
    return found


class RetrievalTask:
    """Checked inputs of one retrieval: queries, gallery of unique images, true columns, class of each column.

    Args:
        predictions, references, prediction_ids, reference_ids, classes: see [`score_queries`].

    Raises:
        ValueError: If input is not finite, sizes differ, an image is unknown or has two embeddings or classes, or
            fewer than two images are given.
    """

    def __init__(self, predictions, references, prediction_ids=None, reference_ids=None, classes=None):
        self.queries, images = _Vectors(predictions, "predictions"), _Vectors(references, "references")
        if self.queries.width != images.width:
            raise ValueError(f"Predictions have {self.queries.width} dimensions, but references {images.width}.")
        if reference_ids is None:
            reference_ids = range(len(images)) if prediction_ids is None else prediction_ids
        if prediction_ids is None:
            prediction_ids = reference_ids
        ids = _plain_ids(reference_ids, len(images), "reference_ids")
        rows, columns, found = _unique(ids)
        _require_one_embedding(images, ids, rows[found])
        _require_two_images(len(rows))
        self.gallery = images.select(rows)
        self.true_columns = _true_columns(prediction_ids, columns, len(self.queries))
        self.class_codes = None if classes is None else _class_codes(classes, ids, rows, found)

    def class_sizes(self):
        """Images of each query's class in the gallery, `(n_queries,)`."""
        return np.bincount(self.class_codes)[self.class_codes[self.true_columns]]


def _plain_ids(ids, length, name):
    """List of hashable Python ids of the expected length."""
    plain = [i.item() if isinstance(i, np.generic) else i for i in ids]
    if len(plain) != length:
        raise ValueError(
            f"Invalid value for the '{name}' parameter. Allowed is one id for each of {length} rows, "
            f"but got {len(plain)} ids instead."
        )
    return plain


def _unique(ids):
    """First row of each image in order of appearance, column of each image id, and column of each row."""
    columns: dict = {}
    found = np.array([columns.setdefault(image_id, len(columns)) for image_id in ids])
    return np.unique(found, return_index=True)[1], columns, found


def _require_one_embedding(images, ids, first):
    """Raise where one image id stands for two different embeddings."""
    (repeats,) = np.nonzero(first != np.arange(len(first)))
    for block in _blocks(len(repeats), 16 * images.width):
        rows = repeats[block]
        # 1e-3 allows the same image embedded in float16 (spacing 5e-4 near 1) and in float32
        differs = np.abs(images.units(rows) - images.units(first[rows])).max(axis=1) > 1e-3
        if differs.any():
            row = rows[np.argmax(differs)]
            raise ValueError(
                f"Invalid value for the 'reference_ids' parameter. Rows {first[row]} and {row} share the image id "
                f"{ids[row]!r}, but their embeddings differ; an image has one embedding."
            )


def _class_codes(classes, ids, rows, found):
    """Class of each image of the gallery, numbered in order of appearance."""
    names = _plain_ids(classes, len(ids), "classes")
    for image_id, name, column in zip(ids, names, found, strict=True):
        if names[rows[column]] != name:
            first = names[rows[column]]
            raise ValueError(f"Image {image_id!r} has two classes, {first!r} and {name!r}; allowed is one.")
    codes: dict = {}
    return np.array([codes.setdefault(names[row], len(codes)) for row in rows])


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


def _require_two_images(n_images):
    """Raise where nothing can be told apart."""
    if n_images < 2:
        raise ValueError(f"Retrieval needs at least two different images, but the gallery holds {n_images}.")


class _Limits:
    """One number a query, and how many similarities lie above it and level with it."""

    def __init__(self, values, centred=False):
        self.values, self.centred = values, centred
        self.greater, self.tied = np.zeros(len(values), np.int64), np.zeros(len(values), np.int64)
        self.undecided, self.n_undecided = [], 0

    def leave_undecided(self, owners, rows, columns):
        """Note pairs of query row and gallery column too near to the limits of their owners for float32."""
        self.undecided.append((owners, rows, columns))
        self.n_undecided += len(owners)

    def decide(self, queries, gallery):
        """Count the noted pairs in float64."""
        if not self.undecided:
            return
        owners, rows, columns = map(np.concatenate, zip(*self.undecided, strict=True))
        difference = pair_cosines(queries, gallery, rows, columns, self.centred) - self.values[owners]
        self.greater += np.bincount(owners[difference > TIE_TOLERANCE], minlength=len(self.values))
        self.tied += np.bincount(owners[np.abs(difference) <= TIE_TOLERANCE], minlength=len(self.values))
        self.undecided, self.n_undecided = [], 0


class _Tile:
    """Similarities of some queries with some images in float32, without those of the queries with their own image."""

    def __init__(self, values, rows, columns, screen):
        self.values, self.rows, self.columns, self.screen = values, rows, columns, screen
        self.own = screen.own[rows] - columns.start
        (self.held,) = np.nonzero((self.own >= 0) & (self.own < values.shape[1]))  # queries whose image is in here
        self.exact = {}
        self._leave_own_out(values)

    def _leave_own_out(self, values):
        """Put the similarity with the own image below everything."""
        values[self.held, self.own[self.held]] = -np.inf

    def _in_float64(self, centred):
        """The same similarities in float64; computed once for all comparisons."""
        if centred not in self.exact:
            queries = self.screen.queries.units(self.rows, centred)
            values = queries @ self.screen.exact_images(self.columns, centred).T
            self._leave_own_out(values)
            self.exact[centred] = values
        return self.exact[centred]

    def count_by_query(self, limits):
        """Compare each row with the limit of its query."""
        values, middle = self.values, limits.values[self.rows, None]
        if limits.centred:  # r_ij > r_ii where S_ij > D * mean_i * mean_j + r_ii * spread_i * spread_j
            mean, spread = self.screen.queries.mean_and_spread(self.rows)
            left = np.stack([mean * self.screen.queries.width, limits.values[self.rows] * spread], axis=1)
            right = np.stack(self.screen.gallery.mean_and_spread(self.columns))
            borders = left.astype(np.float32) @ right.astype(np.float32)  # (rows, 2) x (2, columns)
            values = np.subtract(values, borders, out=borders)
            middle = np.zeros((1, 1))
        owners = np.arange(self.rows.start, self.rows.stop)
        self._count(values, self.screen.bounds(middle), limits, owners, None, axis=1)

    def count_by_image(self, limits):
        """Compare, for each query whose image is in here, the column of that image with the query's limit."""
        for owners, picked, whole, bounds in self.screen.owners(self.columns, limits):
            values = self.values if whole else self.values[:, picked]
            self._count(values, bounds, limits, owners, picked, axis=0)

    def _count(self, values, bounds, limits, owners, picked, axis):
        """Count values above the upper of two bounds; between them, decide in float64."""
        lower, upper = bounds
        above = values > upper
        near = (values >= lower) ^ above
        n_near = np.count_nonzero(near)
        if n_near > near.size // DENSE:
            exact = self._in_float64(limits.centred)
            exact = exact if picked is None else exact[:, picked]
            border = np.expand_dims(limits.values[owners], axis)
            above = exact > border + TIE_TOLERANCE
            limits.tied[owners] += np.count_nonzero((exact >= border - TIE_TOLERANCE) ^ above, axis=axis)
        elif n_near:
            rows, columns = np.divmod(np.flatnonzero(near), near.shape[1])
            where = owners[rows if axis == 1 else columns]
            columns = columns if picked is None else picked[columns]
            limits.leave_undecided(where, rows + self.rows.start, columns + self.columns.start)
        if axis == 1:
            limits.greater[owners] += _row_counts(above)
        else:
            limits.greater[owners] += np.add.reduce(above.view(np.uint8), axis=0, dtype=np.uint8)  # <= 255 rows


def _row_counts(mask):
    """Number of true entries of each row; eight bytes are added at a time, which at most 255 additions allow."""
    whole = mask.shape[1] // 8 * 8
    eights = np.add.reduce(mask[:, :whole].view(np.uint64), axis=1)  # (rows,), eight sums in one number
    return eights.view(np.uint8).reshape(-1, 8).sum(axis=1, dtype=np.int64) + mask[:, whole:].sum(axis=1)


class _Screen:
    """All pairs of queries and images, tile by tile."""

    def __init__(self, queries, gallery, own):
        self.queries, self.gallery, self.own = queries, gallery, own
        order = np.argsort(own, kind="stable")
        self.by_image = order, own[order]
        self.margin = _screen_margin(queries, gallery)
        self._exact, self._owners = {}, (None, [])

    def bounds(self, middle):
        """Float32 bounds between which the product cannot be trusted to lie on the right side."""
        return (middle - self.margin).astype(np.float32), (middle + self.margin).astype(np.float32)

    def owners(self, columns, limits):
        """Queries whose images are in these columns: in parts, as several may share one; the last ones are kept."""
        if self._owners[0] != columns:
            order, sorted_own = self.by_image
            start, stop = np.searchsorted(sorted_own, [columns.start, columns.stop])
            parts = []
            for step in _steps(stop - start, TILE_COLUMNS):
                owners = order[start + step.start : start + step.stop]
                picked = self.own[owners] - columns.start
                whole = np.array_equal(picked, np.arange(columns.stop - columns.start))
                parts.append((owners, picked, whole, self.bounds(limits.values[None, owners])))
            self._owners = columns, parts
        return self._owners[1]

    def exact_images(self, columns, centred):
        """Images of these columns in float64; the last ones are kept."""
        if self._exact.get(centred, (None, None))[0] != columns:
            self._exact[centred] = (columns, self.gallery.units(columns, centred))
        return self._exact[centred][1]

    def count(self, by_query, by_image=None):
        """Count for several limits of queries against images, and one of images against queries."""
        everything = by_query if by_image is None else [*by_query, by_image]
        buffer = np.empty(TILE_ROWS * TILE_COLUMNS, np.float32)
        self._owners = None, []  # of other limits, if this is not the first count
        for columns in _steps(len(self.gallery), TILE_COLUMNS):
            images = self.gallery.units32(columns)
            for rows in _steps(len(self.queries), TILE_ROWS):
                queries = self.queries.units32(rows)
                product = buffer[: len(queries) * len(images)].reshape(len(queries), len(images))
                np.matmul(queries, images.T, out=product)
                for part in _steps(len(queries), PART_ROWS):
                    part_rows = slice(rows.start + part.start, rows.start + part.stop)
                    tile = _Tile(product[part], part_rows, columns, self)
                    for limits in by_query:
                        tile.count_by_query(limits)
                    if by_image is not None:
                        tile.count_by_image(by_image)
                for limits in everything:
                    if limits.n_undecided > 2**14:
                        limits.decide(self.queries, self.gallery)
        for limits in everything:
            limits.decide(self.queries, self.gallery)


def _screen_margin(queries, gallery):
    """Distance from a limit within which float32 does not decide.

    Rounding errors of a sum of D products stay below (D + 16) * 2^-24 whatever the numbers (the 16 is for the unit
    vectors and for the limit itself), but mostly cancel to far less: eight times the largest error seen among up to
    256 x 256 pairs spread over both sets is allowed for, which structured (constant) embeddings raise by themselves.
    """
    rows, columns = (np.unique(np.linspace(0, len(x) - 1, N_PROBES).astype(int)) for x in (queries, gallery))
    error = queries.units32(rows) @ gallery.units32(columns).T - queries.units(rows) @ gallery.units(columns).T
    return min((queries.width + 16) * ROUNDING, max(16 * ROUNDING, 8 * float(np.abs(error).max())))


def score_queries(
    predictions: np.ndarray,
    references: np.ndarray,
    prediction_ids: list | np.ndarray | None = None,
    reference_ids: list | np.ndarray | None = None,
    classes: list | np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Contribution of every query to every score; the scores are their means.

    Args:
        predictions (`np.ndarray` of shape `(n_queries, projection_dim)`): Query embeddings, any scale.
        references (`np.ndarray` of shape `(n_references, projection_dim)`): Image embeddings, any scale.
        prediction_ids (sequence of `n_queries` `str` or `int`, *optional*): Image of each query.
        reference_ids (sequence of `n_references` `str` or `int`, *optional*): Image of each reference.
        classes (sequence of `n_references` `str` or `int`, *optional*): Class of each reference's image.
        seed (`int`, defaults to 0): Of the permutation behind `two_way_permutation`.

    Returns:
        `dict` of `np.ndarray` `(n_queries,)`: every score named in the module's docstring that can be computed, and
        `rank`, `ties` (other images tied with the true one) in both directions, `ties_pearson`. Beside the inputs
        some 50 MB are needed, and a few numbers for each row.

    Raises:
        ValueError: If input is not finite, sizes differ, an image is unknown or fewer than two images are given.
    """
    task = RetrievalTask(predictions, references, prediction_ids, reference_ids, classes)
    return _score_task(task, seed)[0]


def _score_task(task, seed):
    """Per-query scores of a checked task, and the chance level of each."""
    queries, gallery, own = task.queries, task.gallery, task.true_columns
    everyone = np.arange(len(queries))
    truth = pair_cosines(queries, gallery, everyone, own)
    forward, backward = _Limits(truth), _Limits(truth)
    pearson = _Limits(_true_pearson(queries, gallery, own, truth), centred=True)
    by_query = [forward, pearson]
    if task.class_codes is not None:
        best, n_best, prototypes = _classes(task)
        by_query.append(_Limits(best))
    _Screen(queries, gallery, own).count(by_query, backward)
    n_others = len(queries) - np.bincount(own, minlength=len(gallery))[own]  # queries of different images
    scores, chance = _of_ranks(forward, np.full(len(own), len(gallery) - 1), "")
    for found, more in zip((scores, chance), _of_ranks(backward, n_others, BACK), strict=True):
        found |= more
    scores["two_way_permutation"] = _permuted(task, truth, seed)
    lower = len(gallery) - 1 - pearson.greater - pearson.tied
    scores["two_way_pearson_strict"] = lower / (len(gallery) - 1)
    scores["two_way_pearson"] = (lower + pearson.tied / 2) / (len(gallery) - 1)
    scores["ties_pearson"] = pearson.tied
    chance |= dict.fromkeys(("two_way_permutation", "two_way_pearson_strict", "two_way_pearson"), 0.5)
    if task.class_codes is not None:
        level = truth >= best - TIE_TOLERANCE  # the own image is left out of the counts
        for found, more in zip(
            (scores, chance), _of_classes(task, by_query[2], n_best, level, prototypes), strict=True
        ):
            found |= more
    return scores, chance


def _true_pearson(queries, gallery, own, truth):
    """Pearson's r of each query with its image, from their cosine; anew where little is left without the means."""
    (mean, spread), (own_mean, own_spread) = (
        vectors.mean_and_spread(rows) for vectors, rows in ((queries, slice(0, len(own))), (gallery, own))
    )
    (flat,) = np.nonzero((spread < 0.1) | (own_spread < 0.1))
    found = (truth - queries.width * mean * own_mean) / np.maximum(spread * own_spread, 1e-2)
    found[flat] = pair_cosines(queries, gallery, flat, own[flat], centred=True)
    return found


def _of_ranks(limits, n_others, suffix):
    """Scores that follow from the counts of greater and tied among `n_others` competitors, and their chance."""
    greater, tied, sizes = limits.greater, limits.tied, n_others + 1
    rank = greater + tied / 2
    scores = {"rank": rank, "ties": tied}
    scores["two_way"] = np.where(n_others > 0, 1.0 - rank / np.maximum(n_others, 1), 0.5)  # nothing to compare: 0.5
    chance = {"two_way": 0.5}
    for k in TOP:  # of the tied + 1 places that the true image may take, those among the first k
        scores[f"top{k}"] = np.clip((k - greater) / (tied + 1), 0.0, 1.0)
        chance[f"top{k}"] = float(np.mean(np.minimum(k / sizes, 1.0)))
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, sizes.max() + 1))])
    between = (harmonic[greater + tied + 1] - harmonic[greater]) / (tied + 1)
    scores["mrr"] = np.where(tied == 0, 1.0 / (greater + 1), between)
    chance["mrr"] = float(np.mean(harmonic[sizes] / sizes))
    for k in SAMPLED:
        if k <= sizes.min():
            scores[f"top1_of_{k}"] = _first_of_sampled(greater, tied, sizes, k)
            chance[f"top1_of_{k}"] = 1.0 / k
    return ({f"{name}{suffix}": value for name, value in found.items()} for found in (scores, chance))


def _first_of_sampled(greater, tied, sizes, k):
    """Probability of the first place among k - 1 competitors drawn without replacement, mean over orders of ties.

    With r competitors above, none of which may be drawn, it is C(size - 1 - r, k - 1) / C(size - 1, k - 1).
    """
    found = np.empty(len(greater))
    for size in np.unique(sizes):
        left = size - np.arange(1, size)  # competitors not above, if r = 0, 1, ... are
        table = np.concatenate([[1.0], np.cumprod(np.maximum(1.0 - (k - 1) / left, 0.0))])  # (size,), by rank
        totals = np.concatenate([[0.0], np.cumsum(table)])
        chosen = sizes == size
        above, level = greater[chosen], tied[chosen]
        between = (totals[above + level + 1] - totals[above]) / (level + 1)
        found[chosen] = np.where(level == 0, table[above], between)
    return found


def _permuted(task, truth, seed):
    """Definition B: each query's image against the prediction that one permutation puts in the query's place."""
    other = np.random.default_rng(seed).permutation(len(task.queries))
    difference = truth - pair_cosines(task.queries, task.gallery, other, task.true_columns)
    return np.where(np.abs(difference) <= TIE_TOLERANCE, 0.5, difference > 0)


def _permuted_expected(task, backward):
    """Mean of definition B over all permutations: queries of one image tie or win against each other in turn."""
    repeats = np.bincount(task.true_columns)
    n_others = len(task.queries) - repeats[task.true_columns]
    return float((backward @ n_others + (repeats**2).sum() / 2) / len(task.queries) ** 2)


def _classes(task):
    """Of each query: best cosine with an image of its class, images level with that; and the mean of each class."""
    codes, own = task.class_codes, task.class_codes[task.true_columns]
    best, n_best = np.full(len(own), -np.inf), np.zeros(len(own), np.int64)
    prototypes = np.zeros((codes.max() + 1, task.gallery.width))
    members, askers = (_positions(x, len(prototypes)) for x in (codes, own))
    for code, (images, rows) in enumerate(zip(members, askers, strict=True)):
        for step in _blocks(len(images), 64 * task.gallery.width):
            units = task.gallery.units(images[step])  # (step, projection_dim)
            prototypes[code] += units.sum(axis=0) / len(images)
            for part in _blocks(len(rows), 8 * max(len(units), task.gallery.width)):
                some = rows[part]
                cosines = task.queries.units(some) @ units.T  # (part, step)
                largest = np.maximum(best[some], cosines.max(axis=1))
                kept = np.where(best[some] >= largest - TIE_TOLERANCE, n_best[some], 0)
                n_best[some] = kept + np.count_nonzero(cosines >= largest[:, None] - TIE_TOLERANCE, axis=1)
                best[some] = largest
    prototypes[np.linalg.norm(prototypes, axis=1) < 1e-12] = 0.0  # images that cancel: what is left is rounding
    return best, n_best, _Vectors(prototypes, "references")


def _positions(codes, n_codes):
    """For each code the positions that hold it."""
    return np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes, minlength=n_codes))[:-1])


def _of_classes(task, limits, n_best, own_level, prototypes):
    """Class top-k by nearest images and by prototype, and their chance."""
    scores, chance = {}, {}
    size, n_tied = len(task.gallery), limits.tied + own_level
    own = task.class_codes[task.true_columns]
    nearest = _Limits(pair_cosines(task.queries, prototypes, np.arange(len(own)), own))
    _Screen(task.queries, prototypes, own).count([nearest])
    for k in TOP:
        scores[f"class_top{k}"] = 1.0 - _miss_probability(n_best, n_tied, k - limits.greater)
        chance[f"class_top{k}"] = chance_top_k(task.class_sizes(), size, k)
        scores[f"class_prototype_top{k}"] = np.clip((k - nearest.greater) / (nearest.tied + 1), 0.0, 1.0)
        chance[f"class_prototype_top{k}"] = min(k / len(prototypes), 1.0)
    return scores, chance


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


def retrieval_scores(
    predictions: np.ndarray,
    references: np.ndarray,
    prediction_ids: list | np.ndarray | None = None,
    reference_ids: list | np.ndarray | None = None,
    classes: list | np.ndarray | None = None,
    subjects: list | np.ndarray | None = None,
    seed: int = 0,
) -> dict:
    """Every score, its chance level and the sizes it depends on.

    Args:
        predictions, references, prediction_ids, reference_ids, classes: see [`score_queries`].
        subjects (sequence of `n_queries` `str` or `int`, *optional*): Who each query comes from.
        seed (`int`, defaults to 0): Of the permutation and of the sampled pools.

    Returns:
        `dict`: the scores named in the module's docstring, `None` where the gallery is too small, `chance_<name>` for
        each; `mean_rank`, `median_rank` in both directions; `n_queries`, `gallery_size`,
        `gallery_size_image_to_neural` (queries of other images and the own one, mean), `n_unique_images` (those that
        queries answer to), `n_classes` (in the gallery; `None` without classes), `n_ties`, `n_ties_image_to_neural`,
        `n_ties_pearson` (tied competitors, summed over queries); with subjects `subjects`: for each, `n_queries` and
        the means over its queries, in the same gallery.
    """
    return scores_and_contributions(predictions, references, prediction_ids, reference_ids, classes, subjects, seed)[0]


def scores_and_contributions(
    predictions: np.ndarray,
    references: np.ndarray,
    prediction_ids: list | np.ndarray | None = None,
    reference_ids: list | np.ndarray | None = None,
    classes: list | np.ndarray | None = None,
    subjects: list | np.ndarray | None = None,
    seed: int = 0,
) -> tuple[dict, dict[str, np.ndarray]]:
    """What [`retrieval_scores`] and [`score_queries`] give for the same arguments, from one pass over all pairs."""
    task = RetrievalTask(predictions, references, prediction_ids, reference_ids, classes)
    people = None if subjects is None else _plain_ids(subjects, len(task.queries), "subjects")
    scores, chance = _score_task(task, seed)
    summary = _means(scores) | {f"chance_{name}": value for name, value in chance.items()}
    summary["two_way_permutation_expected"] = _permuted_expected(task, scores[f"two_way{BACK}"])
    summary["chance_two_way_permutation_expected"] = 0.5
    summary |= _sampled_pools(task, seed) | _sizes(task, scores)
    for name in (f"top1_of_{k}{suffix}" for k in SAMPLED for suffix in ("", BACK)):  # too small a gallery
        summary.setdefault(name, None)
        summary.setdefault(f"chance_{name}", None)
    if people is not None:
        summary["subjects"] = {}
        for person in dict.fromkeys(people):
            rows = np.array([other == person for other in people])
            means = _means({name: values[rows] for name, values in scores.items()})
            summary["subjects"][str(person)] = {"n_queries": int(rows.sum())} | means
    return summary, scores


def _means(scores):
    """Means of the scores, mean and median of the ranks."""
    found = {name: float(np.mean(values)) for name, values in scores.items() if name not in NOT_MEANT}
    for suffix in ("", BACK):
        found[f"mean_rank{suffix}"] = float(np.mean(scores[f"rank{suffix}"]))
        found[f"median_rank{suffix}"] = float(np.median(scores[f"rank{suffix}"]))
    return found


def _sizes(task, scores):
    """Sizes and numbers of ties."""
    repeats = np.bincount(task.true_columns, minlength=len(task.gallery))
    return {
        "n_queries": len(task.queries),
        "gallery_size": len(task.gallery),
        f"gallery_size{BACK}": float(np.mean(len(task.queries) - repeats[task.true_columns] + 1)),
        "n_unique_images": int(np.count_nonzero(repeats)),
        "n_classes": None if task.class_codes is None else int(task.class_codes.max()) + 1,
        "n_ties": int(scores["ties"].sum()),
        f"n_ties{BACK}": int(scores[f"ties{BACK}"].sum()),
        "n_ties_pearson": int(scores["ties_pearson"].sum()),
    }


def _sampled_pools(task, seed):
    """Definition E: top-1 in 30 pools of 300 images with one query each, mean and normal 95 % interval of the mean."""
    images, repeats = np.unique(task.true_columns, return_counts=True)
    names = [f"top1_of_{POOL_SIZE}_pools{suffix}" for suffix in ("", BACK)]
    if len(images) < POOL_SIZE:
        empty = {name: None for base in names for name in (base, f"{base}_interval", f"chance_{base}")}
        return empty | {"n_pools": 0}
    rng = np.random.default_rng(seed)
    by_image = np.argsort(task.true_columns, kind="stable")  # queries of images[i] follow each other from starts[i]
    starts = np.cumsum(repeats) - repeats
    hits = np.empty((N_POOLS, 2))
    for pool in range(N_POOLS):
        chosen = rng.choice(len(images), POOL_SIZE, replace=False)
        queries = by_image[starts[chosen] + rng.integers(repeats[chosen])]  # one of each image
        cosines = task.queries.units(queries) @ task.gallery.units(images[chosen]).T
        for direction, matrix in enumerate((cosines, cosines.T)):
            true = np.diag(matrix)[:, None]
            n_level = np.count_nonzero(np.abs(matrix - true) <= TIE_TOLERANCE, axis=1)  # with the true one
            hits[pool, direction] = np.mean((matrix <= true + TIE_TOLERANCE).all(axis=1) / n_level)
    record: dict = {"n_pools": N_POOLS}
    for name, values in zip(names, hits.T, strict=True):
        mean, error = float(np.mean(values)), float(np.std(values)) / N_POOLS**0.5
        record |= {name: mean, f"{name}_interval": [mean - 1.96 * error, mean + 1.96 * error]}
        record[f"chance_{name}"] = 1.0 / POOL_SIZE
    return record


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
        texts = {name: [_as_text(None)] * len(predictions) for name in OPTIONAL}
        texts |= {name: [_as_text(i) for i in ids] for name, ids in optional.items() if ids is not None}
        super().add_batch(predictions=predictions, references=references, **texts)

    def add(self, *, prediction=None, reference=None, **optional):
        """Add one row; the optional inputs keep their names."""
        texts = {name: _as_text(value) for name, value in (dict.fromkeys(OPTIONAL) | optional).items()}
        super().add(prediction=prediction, reference=reference, **texts)

    def compute(self, *, predictions=None, references=None, **inputs):
        """Scores of everything added, or of what is given."""
        if predictions is None and references is None:
            whole = {name: inputs.pop(name) for name in OPTIONAL if name in inputs}
            return super().compute(whole=whole, **inputs)
        return super().compute(predictions=predictions, references=references, **(dict.fromkeys(OPTIONAL) | inputs))

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


def _as_text(value):
    """JSON text of one id; `null` stands for an input that was not given."""
    return json.dumps(value.item() if isinstance(value, np.generic) else value)


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
