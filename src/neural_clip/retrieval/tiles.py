"""Similarities tile by tile, in float32 with a margin, and float64 where that margin decides."""

from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np

TIE_TOLERANCE = 1e-9  # ties are settled in float64: rounding is below 1e-15, float32 spacing near 1 is 6e-8
BLOCK_BYTES = 32 * 2**20  # of one block of float64 numbers; a few such blocks are alive at a time
CACHED = 2**16  # numbers of a block that is passed over several times: 0.5 MB
TILE_ROWS, TILE_COLUMNS = 2048, 2040  # of one product: 17 MB; 2040 = 8 * 255, see row_counts
PART_ROWS = 128  # of a tile compared at a time: 1 MB stays in the cache for all comparisons; at most 255
DENSE = 64  # where more than 1 in 64 entries is near its limit, a float64 product is faster than entry by entry
ROUNDING = 2.0**-24  # unit roundoff of float32
N_PROBES = 256  # rows and columns whose products are computed both ways to measure the rounding error


class Vectors:
    """Embeddings as they were given and the factor that makes each row a unit vector: no second copy is kept."""

    def __init__(self, embeds, name):
        array = plain_array(embeds, name)
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
        for rows in steps(len(self.array), max(1, 4 * CACHED // self.width)):
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
        chosen = object.__new__(Vectors)
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


def plain_array(values, name):
    """Numbers as a float16, float32 or float64 array.

    They may come as an array, a tensor of any float type on any device, a list of either, a column of `datasets` or
    pandas, or an iterator.
    """
    if isinstance(values, str | bytes | Mapping | Set):
        raise _no_numbers(name, type(values).__name__)
    if isinstance(values, Sequence):
        values = values[:]  # a column of `datasets`, as its format says
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if "bfloat16" in str(values.dtype) else values).numpy()
    elif isinstance(values, Iterable) and not hasattr(values, "__array__"):
        values = [plain_array(row, name) if hasattr(row, "detach") else row for row in values]
    try:
        array = np.asarray(values)
        if array.dtype == object and array.ndim == 1:  # rows in a container of their own, as pandas holds them
            array = np.asarray([plain_array(row, name) for row in array])
        if array.dtype in (np.float16, np.float32, np.float64):
            return array
        if array.dtype.kind in "fiubO":
            return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise _no_numbers(name, f"rows that do not make one: {error}") from error
    raise _no_numbers(name, f"{array.dtype} values")


def _no_numbers(name, found):
    """The error for something that is no array of real numbers."""
    return ValueError(
        f"Invalid value for the '{name}' parameter. Allowed is a non-empty (n, projection_dim) array of numbers, but "
        f"got {found} instead."
    )


def blocks(n_rows, row_bytes):
    """Slices of rows so that one block stays below BLOCK_BYTES."""
    return steps(n_rows, max(1, BLOCK_BYTES // max(1, row_bytes)))


def steps(n_rows, size):
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
    return Vectors(embeds, name).units(slice(None))


def float32_units(embeds: np.ndarray, name: str = "embeds") -> np.ndarray:
    """[`unit_vectors`] rounded to float32, of which memory holds no second copy."""
    vectors = Vectors(embeds, name)
    found = np.empty(vectors.array.shape, np.float32)
    for rows in steps(len(found), max(1, 4 * CACHED // vectors.width)):
        found[rows] = vectors.units(rows)
    return found


def pair_cosines(queries, gallery, query_rows, gallery_rows, centred=False):
    """Cosine (or Pearson's r) of pairs of rows of two sets of vectors, in float64, `(n_pairs,)`."""
    found = np.empty(len(query_rows))
    for block in steps(len(found), max(1, CACHED // queries.width)):
        left, right = queries.units(query_rows[block], centred), gallery.units(gallery_rows[block], centred)
        found[block] = np.einsum("ij,ij->i", left, right)
    return found


class Limits:
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


class Tile:
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
            limits.greater[owners] += row_counts(above)
        else:
            limits.greater[owners] += np.add.reduce(above.view(np.uint8), axis=0, dtype=np.uint8)  # <= 255 rows


def row_counts(mask):
    """Number of true entries of each row; eight bytes are added at a time, which at most 255 additions allow."""
    whole = mask.shape[1] // 8 * 8
    eights = np.add.reduce(mask[:, :whole].view(np.uint64), axis=1)  # (rows,), eight sums in one number
    return eights.view(np.uint8).reshape(-1, 8).sum(axis=1, dtype=np.int64) + mask[:, whole:].sum(axis=1)


class Screen:
    """All pairs of queries and images, tile by tile."""

    def __init__(self, queries, gallery, own):
        self.queries, self.gallery, self.own = queries, gallery, own
        order = np.argsort(own, kind="stable")
        self.by_image = order, own[order]
        self.margin = screen_margin(queries, gallery)
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
            for step in steps(stop - start, TILE_COLUMNS):
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
        for columns in steps(len(self.gallery), TILE_COLUMNS):
            images = self.gallery.units32(columns)
            for rows in steps(len(self.queries), TILE_ROWS):
                queries = self.queries.units32(rows)
                product = buffer[: len(queries) * len(images)].reshape(len(queries), len(images))
                np.matmul(queries, images.T, out=product)
                for part in steps(len(queries), PART_ROWS):
                    part_rows = slice(rows.start + part.start, rows.start + part.stop)
                    tile = Tile(product[part], part_rows, columns, self)
                    for limits in by_query:
                        tile.count_by_query(limits)
                    if by_image is not None:
                        tile.count_by_image(by_image)
                for limits in everything:
                    if limits.n_undecided > 2**14:
                        limits.decide(self.queries, self.gallery)
        for limits in everything:
            limits.decide(self.queries, self.gallery)


def screen_margin(queries, gallery):
    """Distance from a limit within which float32 does not decide.

    Rounding errors of a sum of D products stay below (D + 16) * 2^-24 whatever the numbers (the 16 is for the unit
    vectors and for the limit itself), but mostly cancel to far less: eight times the largest error seen among up to
    256 x 256 pairs spread over both sets is allowed for, which structured (constant) embeddings raise by themselves.
    """
    rows, columns = (np.unique(np.linspace(0, len(x) - 1, N_PROBES).astype(int)) for x in (queries, gallery))
    error = queries.units32(rows) @ gallery.units32(columns).T - queries.units(rows) @ gallery.units(columns).T
    return min((queries.width + 16) * ROUNDING, max(16 * ROUNDING, 8 * float(np.abs(error).max())))
