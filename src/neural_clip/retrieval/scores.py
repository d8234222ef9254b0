"""Image retrieval: the one definition of every score in this package.

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
"""

import numpy as np

from .task import RetrievalTask, plain_ids, require_two_images, subject_names, true_columns
from .tiles import TIE_TOLERANCE, Limits, Screen, Vectors, blocks, pair_cosines, plain_array, unit_vectors

TOP = (1, 5, 10)
SAMPLED = (4, 10, 50, 100, 300)  # sizes of top1_of_k
POOL_SIZE, N_POOLS = 300, 30  # MindEye
BACK = "_image_to_neural"
NOT_MEANT = ("rank", "ties", f"rank{BACK}", f"ties{BACK}", "ties_pearson")  # per query, but no score


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
    forward, backward = Limits(truth), Limits(truth)
    pearson = Limits(_true_pearson(queries, gallery, own, truth), centred=True)
    by_query = [forward, pearson]
    if task.class_codes is not None:
        best, n_best, prototypes = _classes(task)
        by_query.append(Limits(best))
    Screen(queries, gallery, own).count(by_query, backward)
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


def two_way(greater: np.ndarray, tied: np.ndarray, n_others: np.ndarray | int) -> np.ndarray:
    """Share of the competitors that the true one beats.

    Args:
        greater, tied (`np.ndarray` of shape `(n,)`): Competitors above the true one, and level with it: one half each.
        n_others (`np.ndarray` of shape `(n,)` or `int`): All competitors; with none the score is one half.

    Returns:
        `np.ndarray` of shape `(n,)`, float64.
    """
    return np.where(n_others > 0, 1.0 - (greater + tied / 2) / np.maximum(n_others, 1), 0.5)


def _of_ranks(limits, n_others, suffix):
    """Scores that follow from the counts of greater and tied among `n_others` competitors, and their chance."""
    greater, tied, sizes = limits.greater, limits.tied, n_others + 1
    scores = {"rank": greater + tied / 2, "ties": tied, "two_way": two_way(greater, tied, n_others)}
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
        for step in blocks(len(images), 64 * task.gallery.width):
            units = task.gallery.units(images[step])  # (step, projection_dim)
            prototypes[code] += units.sum(axis=0) / len(images)
            for part in blocks(len(rows), 8 * max(len(units), task.gallery.width)):
                some = rows[part]
                cosines = task.queries.units(some) @ units.T  # (part, step)
                largest = np.maximum(best[some], cosines.max(axis=1))
                kept = np.where(best[some] >= largest - TIE_TOLERANCE, n_best[some], 0)
                n_best[some] = kept + np.count_nonzero(cosines >= largest[:, None] - TIE_TOLERANCE, axis=1)
                best[some] = largest
    prototypes[np.linalg.norm(prototypes, axis=1) < 1e-12] = 0.0  # images that cancel: what is left is rounding
    return best, n_best, Vectors(prototypes, "references")


def _positions(codes, n_codes):
    """For each code the positions that hold it."""
    return np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes, minlength=n_codes))[:-1])


def _of_classes(task, limits, n_best, own_level, prototypes):
    """Class top-k by nearest images and by prototype, and their chance."""
    scores, chance = {}, {}
    size, n_tied = len(task.gallery), limits.tied + own_level
    own = task.class_codes[task.true_columns]
    nearest = Limits(pair_cosines(task.queries, prototypes, np.arange(len(own)), own))
    Screen(task.queries, prototypes, own).count([nearest])
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
    subjects = None if subjects is None else subject_names(subjects, len(task.queries))
    scores, chance = _score_task(task, seed)
    summary = _means(scores) | {f"chance_{name}": value for name, value in chance.items()}
    summary["two_way_permutation_expected"] = _permuted_expected(task, scores[f"two_way{BACK}"])
    summary["chance_two_way_permutation_expected"] = 0.5
    summary |= _sampled_pools(task, seed) | _sizes(task, scores)
    for name in (f"top1_of_{k}{suffix}" for k in SAMPLED for suffix in ("", BACK)):  # too small a gallery
        summary.setdefault(name, None)
        summary.setdefault(f"chance_{name}", None)
    if subjects is not None:
        summary["subjects"] = {}
        for subject in dict.fromkeys(subjects):
            rows = np.array([other == subject for other in subjects])
            means = _means({name: values[rows] for name, values in scores.items()})
            summary["subjects"][subject] = {"n_queries": int(rows.sum())} | means
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
            first = matrix.max(axis=1, keepdims=True) <= true + TIE_TOLERANCE  # (n_images, 1)
            found = np.flatnonzero(first)
            n_level = np.ones(len(matrix))  # with the true one
            n_level[found] = np.count_nonzero(np.abs(matrix[found] - true[found]) <= TIE_TOLERANCE, axis=1)
            hits[pool, direction] = np.mean(first[:, 0] / n_level)
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
    similarity = plain_array(similarity, "similarity").astype(np.float64, copy=False)
    if similarity.ndim != 2 or not np.isfinite(similarity).all():
        raise ValueError("Invalid value for the 'similarity' parameter. Allowed is a finite (queries, gallery) array.")
    rows: dict = {}
    columns: list[int] = []
    for column, image_id in enumerate(plain_ids(gallery_ids, similarity.shape[1], "gallery_ids")):
        if image_id not in rows:
            rows[image_id] = len(columns)
            columns.append(column)
    require_two_images(len(columns))
    true = true_columns(query_ids, rows, len(similarity))
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
    for block in blocks(len(queries), 8 * len(gallery)):
        # rounded so that equal vectors tie although matrix products differ in their last bit with the position
        similarity = np.round(queries[block] @ gallery.T, 9)
        found.append(np.argsort(-similarity, axis=1, kind="stable")[:, :k])
    return np.concatenate(found)
