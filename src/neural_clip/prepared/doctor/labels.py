"""Checks of the labels of recordings: what occurs in which split, twice, in which order and how often."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from neural_clip.prepared.doctor.findings import Finding, error, examples, note, warning
from neural_clip.prepared.doctor.scan import RecordingScan
from neural_clip.prepared.splits import SPLITS

# A concept is called too frequent above this multiple of the mean count, which is also how far a guesser who always
# names it beats chance.
MAX_IMBALANCE = 3.0
# ... and only if chance does not do it: counts of a random draw scatter by the root of their mean.
MAX_SCATTER = 5.0
# Order of trials: neighbours share their concept this many times more often than in random order (or make up half of
# what random order leaves), by so many deviations, in so many pairs.
MIN_RATIO, MIN_EXCESS, MIN_Z, MIN_PAIRS = 3.0, 0.5, 5.0, 10


@dataclass
class Labels:
    """Labels of all recordings, as whole numbers.

    Args:
        codes (`dict[str, np.ndarray]`): For `subject` (by the file's place), `stated_subject` (by the row), `split`,
            `session`, `run`, `image_id`, `concept` and `category`: place of each row's name in `names`; for `trial`,
            `n_repeats` and `hash`: the numbers themselves. All of shape `(n_rows,)`.
        names (`dict[str, list[str]]`): The names.
    """

    codes: dict[str, np.ndarray]
    names: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.codes["subject"])

    def joint(self, *columns: str) -> np.ndarray:
        """One number a row that is equal where all of these columns are, `(n_rows,)` int64."""
        joint = np.zeros(len(self), dtype=np.int64)
        for column in columns:
            values = np.unique(self.codes[column], return_inverse=True)[1]
            joint = np.unique(joint * (int(values.max(initial=0)) + 1) + values, return_inverse=True)[1]
        return joint

    def name(self, column: str, row: int) -> str:
        """Name of a row in a column."""
        code = int(self.codes[column][row])
        return self.names[column][code] if column in self.names else str(code)

    def trial_name(self, row: int) -> str:
        """A row in words."""
        parts = [self.name(column, row) for column in ("subject", "session", "run")]
        return f"{'/'.join(part for part in parts if part)} trial {self.name('trial', row)}"


def read_labels(recordings: list[RecordingScan]) -> Labels:
    """Put the labels of all files end to end."""
    import pyarrow as pa

    table = pa.concat_tables([scan.labels for scan in recordings])
    lengths = [len(scan.labels) for scan in recordings]
    codes, names = {}, {}
    for column in ("session", "run", "image_id", "concept", "category", "subject"):
        encoded = table[column].combine_chunks().dictionary_encode()
        key = "stated_subject" if column == "subject" else column
        codes[key], names[key] = encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()
    names["split"], names["subject"] = list(SPLITS), sorted({scan.subject for scan in recordings})
    for column in ("split", "subject"):
        places = [names[column].index(getattr(scan, column)) for scan in recordings]
        codes[column] = np.repeat(np.array(places, dtype=np.int64), lengths)
    codes |= {column: table[column].to_numpy() for column in ("trial", "n_repeats", "hash")}
    return Labels(codes, names)


def check_labels(labels: Labels, metadata: Mapping) -> Iterator[Finding]:
    """All findings on labels."""
    yield from _misplaced(labels)
    yield from _split_overlap(labels, metadata)
    yield from _same_values(labels)
    yield from _same_trials(labels)
    yield from _concept_overlap(labels, metadata)
    yield from _block_design(labels, metadata)
    yield from _balance(labels)


def _misplaced(labels: Labels) -> Iterator[Finding]:
    stated = np.array([name in labels.names["subject"] for name in labels.names["stated_subject"]])
    subjects = {name: i for i, name in enumerate(labels.names["subject"])}
    own = np.array([subjects.get(name, -1) for name in labels.names["stated_subject"]])
    wrong = np.flatnonzero(own[labels.codes["stated_subject"]] != labels.codes["subject"])
    if len(wrong):
        pairs = dict.fromkeys((labels.name("stated_subject", i), labels.name("subject", i)) for i in wrong.tolist())
        listed = examples(f"'{said}' in the files of {place}" for said, place in pairs)
        unknown = "" if stated.all() else ", some of whom have no files"
        yield error(
            "subjects", f"{len(wrong)} rows name another subject than their files{unknown}: {listed}.",
            "A model would learn the recordings of one subject under the name of another.",
        )  # fmt: skip


def _spread(labels: Labels, group: np.ndarray, column: str) -> list[np.ndarray]:
    """Rows of each group that has more than one value in a column."""
    values = labels.codes[column].astype(np.int64)
    pairs = np.unique(np.stack([group, values]), axis=1)
    groups, counts = np.unique(pairs[0], return_counts=True)
    rows = np.flatnonzero(np.isin(group, groups[counts > 1]))
    rows = rows[np.argsort(group[rows], kind="stable")]
    return np.split(rows, np.flatnonzero(np.diff(group[rows])) + 1) if len(rows) else []


def _found_in(labels: Labels, rows: np.ndarray) -> str:
    """Splits of rows, in words."""
    return " and ".join(labels.names["split"][code] for code in np.unique(labels.codes["split"][rows]))


def _split_overlap(labels: Labels, metadata: Mapping) -> Iterator[Finding]:
    """Images, runs and held-out subjects in more than one split."""
    unit = metadata.get("split_unit")
    if not metadata.get("category_level"):
        shared = _spread(labels, labels.codes["image_id"], "split")
        if unit == "subject":
            fine = _of_other_subjects(labels, shared)
            yield from _known_images(labels, [rows for rows, apart in zip(shared, fine, strict=True) if apart])
            shared = [rows for rows, apart in zip(shared, fine, strict=True) if not apart]
        if shared:
            own = labels.joint("subject", "split")
            within = sum(len(set(own[rows])) > len(set(labels.codes["subject"][rows])) for rows in shared)
            listed = examples(f"'{labels.name('image_id', rows[0])}' ({_found_in(labels, rows)})" for rows in shared)
            yield error(
                "split overlap",
                f"{len(shared)} images are in more than one split ({within} within a subject, {len(shared) - within} "
                f"across subjects only): {listed}.",
                "The model is tested on images that it was trained on or chosen by, so scores are too high.",
            )
    if unit == "subject":
        yield from _split_subjects(labels)
    if unit in ("run", "recording") or (unit == "subject" and metadata.get("category_level")):
        shared = _spread(labels, labels.joint("subject", "session", "run"), "split")
        if shared:
            places = [[labels.name(column, rows[0]) for column in ("subject", "session", "run")] for rows in shared]
            listed = examples(
                f"{'/'.join(part for part in place if part)} ({_found_in(labels, rows)})"
                for place, rows in zip(places, shared, strict=True)
            )
            yield error(
                "split overlap",
                f"{len(shared)} runs are in more than one split, which should divide {unit}s: {listed}.",
                "Rows of one run share noise and drifts, so test rows are recognised by them and scores are too high.",
            )


def _of_other_subjects(labels: Labels, groups: list[np.ndarray]) -> list[bool]:
    """Whether the splits that each group of rows lies in have no subject in common, in the whole set."""
    subjects, splits = labels.codes["subject"], labels.codes["split"]
    owners = [set(subjects[splits == code].tolist()) for code in range(len(SPLITS))]
    found = [[owners[code] for code in np.unique(splits[rows])] for rows in groups]
    return [len(set().union(*sets)) == sum(map(len, sets)) for sets in found]


def _known_images(labels: Labels, shared: list[np.ndarray]) -> Iterator[Finding]:
    """Images that held-out subjects and others saw."""
    if shared:
        tested = len(np.unique(labels.codes["image_id"][labels.codes["split"] == SPLITS.index("test")]))
        listed = examples(f"'{labels.name('image_id', rows[0])}' ({_found_in(labels, rows)})" for rows in shared)
        yield warning(
            "known images",
            f"{len(shared)} images are in several splits, by different subjects; {tested} are tested: {listed}.",
            "Scores are about new subjects who see images that were trained on; new images are harder.",
        )


def _split_subjects(labels: Labels) -> Iterator[Finding]:
    """Held-out subjects who have rows elsewhere."""
    tested = labels.codes["split"] == SPLITS.index("test")
    both = np.intersect1d(labels.codes["subject"][tested], labels.codes["subject"][~tested])
    if len(both):
        yield error(
            "split overlap",
            f"{len(both)} test subjects have rows in other splits, though subjects are held out: "
            f"{examples(labels.names['subject'][code] for code in both)}.",
            "The model is tested on subjects that it was trained on or chosen by, so they are not new to it.",
        )


def _same_values(labels: Labels) -> Iterator[Finding]:
    """Rows of identical values; each group of them counts where it does most harm."""
    _, group, counts = np.unique(labels.codes["hash"], return_inverse=True, return_counts=True)
    rows = np.flatnonzero(counts[group] > 1)
    rows = rows[np.argsort(group[rows], kind="stable")]
    groups = np.split(rows, np.flatnonzero(np.diff(group[rows])) + 1) if len(rows) else []
    kinds: dict[str, list[np.ndarray]] = {"subject": [], "split": [], "": []}
    for same in groups:
        kind = next((column for column in ("subject", "split") if len(set(labels.codes[column][same])) > 1), "")
        kinds[kind].append(same)
    tell = {
        "subject": (error, "under different subjects", "The recordings of one subject have two names, so a score "
                    "across subjects is a score within one, and training rows may be tested."),
        "split": (error, "in different splits", "Test rows were trained on or chosen by, so scores are too high."),
        "": (warning, "within a split", "A recording that counts twice weighs twice in training and in scores."),
    }  # fmt: skip
    for kind, (severity, where, consequence) in tell.items():
        if kinds[kind]:
            listed = examples(" = ".join(_with_split(labels, row) for row in same[:2]) for same in kinds[kind])
            yield severity(
                "duplicate recordings",
                f"{sum(map(len, kinds[kind]))} rows hold {len(kinds[kind])} identical recordings {where}: {listed}.",
                consequence,
            )


def _with_split(labels: Labels, row: int) -> str:
    """A row in words, with its split."""
    return f"{labels.trial_name(row)} ({labels.name('split', row)})"


def _same_trials(labels: Labels) -> Iterator[Finding]:
    group = labels.joint("subject", "image_id", "session", "run", "trial")
    first, counts = np.unique(group, return_index=True, return_counts=True)[1:]
    if (counts > 1).any():
        listed = examples(
            f"{labels.trial_name(row)} of '{labels.name('image_id', row)}'" for row in first[counts > 1].tolist()
        )
        yield warning(
            "duplicate trials",
            f"{int(counts[counts > 1].sum())} rows share subject, image, session, run and trial: {listed}.",
            "Either trials were stored twice, and weigh twice in scores, or their numbers do not tell them apart.",
        )


def _concept_overlap(labels: Labels, metadata: Mapping) -> Iterator[Finding]:
    named = np.array([bool(name) for name in labels.names["concept"]])[labels.codes["concept"]]
    known = {split: set(labels.codes["concept"][named & (labels.codes["split"] == code)].tolist())
             for code, split in enumerate(SPLITS)}  # fmt: skip
    tested, shared = known["test"], known["test"] & known["train"]
    if not tested:
        return
    message = f"{len(shared)} of the {len(tested)} test concepts occur in training."
    if not shared:
        yield note("concepts", message, "Scores are zero-shot: no test concept was trained on.")
    elif re.search(r"zero.?shot", str(metadata.get("split_protocol")), flags=re.I):
        names = examples(sorted(f"'{labels.names['concept'][code]}'" for code in shared))
        yield warning(
            "concepts", f"{message} The split protocol speaks of zero-shot, but {names} were trained on.",
            "Scores are not zero-shot, whatever they are called.",
        )  # fmt: skip
    elif shared == tested:
        what = "recordings" if metadata.get("category_level") else "images"
        yield note("concepts", message, f"Scores tell known concepts in new {what}; they are not zero-shot.")
    else:
        names = examples(sorted(f"'{labels.names['concept'][code]}'" for code in tested - shared))
        yield note(
            "concepts", f"{message} Not trained on: {names}.",
            "Scores mix known with unknown concepts; tell them apart before speaking of either.",
        )  # fmt: skip


def _block_design(labels: Labels, metadata: Mapping) -> Iterator[Finding]:
    """A block design by declaration or by the order of trials; averaged rows have no order."""
    found = None
    if not metadata.get("average_repeats"):
        any_pair = bool(metadata.get("category_level"))
        found = _neighbours(labels, "concept", any_pair) or _neighbours(labels, "category", any_pair)
    if metadata.get("block_confounded") or found:
        said = "declared as a block design" if metadata.get("block_confounded") else "not declared as a block design"
        yield warning(
            "block design",
            f"The recordings are {said}" + (f", and {found}." if found else "."),
            "A test trial can be told by slow drifts that it shares with training trials of its class nearby, so "
            "scores can be high without any answer to the image; leave runs, sessions or subjects out to see.",
        )


def _neighbours(labels: Labels, column: str, any_pair: bool) -> str | None:
    """Say how often trials in a row share a label, if that is far more often than in random order.

    Pairs of the same image do not count, as repeats in a row are no block, unless `any_pair` (in category-level sets
    images are categories). Random order of a subject's rows gives a pair of different images the same label
    with probability (sum of n_label (n_label - 1) - sum of n_image (n_image - 1)) over the number of such pairs.
    """
    named = np.array([bool(name) for name in labels.names[column]])[labels.codes[column]]
    columns = ("trial", "run", "session", "subject")
    keys = [labels.codes[key][named] for key in columns]
    order = np.lexsort(keys)
    subject = keys[3][order]
    label, image = (labels.codes[key][named][order] for key in (column, "image_id"))
    place = labels.joint("subject", "session", "run")[named][order]
    pair = (place[1:] == place[:-1]) & (any_pair | (image[1:] != image[:-1]))
    same = pair & (label[1:] == label[:-1])
    expected = variance = 0.0
    for code in np.unique(subject):
        rows = subject == code
        repeats = 0 if any_pair else _pairs(image[rows])
        possible = int(rows.sum()) * (int(rows.sum()) - 1) - repeats
        share = (_pairs(label[rows]) - repeats) / possible if possible else 0.0
        n_pairs = int((pair & (subject[1:] == code)).sum())
        expected += n_pairs * share
        variance += n_pairs * share * (1 - share)
    n_same, n_pairs = int(same.sum()), int(pair.sum())
    if n_same < MIN_PAIRS or n_same - expected <= MIN_Z * max(variance, 1.0) ** 0.5:
        return None
    if n_same <= MIN_RATIO * expected and n_same - expected <= MIN_EXCESS * (n_pairs - expected):
        return None
    return (
        f"{n_same / n_pairs:.0%} of trials share their {column} with the trial before, against "
        f"{expected / n_pairs:.1%} in random order (unless `trial` numbers are no order in time)"
    )


def _pairs(values: np.ndarray) -> int:
    """Ordered pairs of different rows that have the same value."""
    counts = np.unique(values, return_counts=True)[1]
    return int((counts * (counts - 1)).sum())


def _balance(labels: Labels) -> Iterator[Finding]:
    """Concepts that are far more frequent than others, in a split or in a subject's part of it."""
    named = np.array([bool(name) for name in labels.names["concept"]])[labels.codes["concept"]]
    for code, split in enumerate(SPLITS):
        uneven = []
        for subject in (None, *range(len(labels.names["subject"]))):
            rows = named & (labels.codes["split"] == code)
            if subject is not None:
                rows &= labels.codes["subject"] == subject
            concepts, counts = np.unique(labels.codes["concept"][rows], return_counts=True)
            if not len(counts):
                continue
            mean, most = counts.mean(), int(counts.max())
            if most > MAX_IMBALANCE * mean and most > mean + MAX_SCATTER * mean**0.5:
                who = "all subjects" if subject is None else labels.names["subject"][subject]
                name = labels.names["concept"][concepts[counts.argmax()]]
                uneven.append((most / mean, f"'{name}' has {most} of {counts.sum()} rows of {who}, {most / mean:.1f} "
                               f"times the mean of {len(counts)} concepts"))  # fmt: skip
        if uneven:
            ratio, worst = max(uneven)
            yield warning(
                "class balance", f"{split}: {worst}.",
                f"Always answering with it is right {ratio:.1f} times as often as chance says; report scores per "
                "concept, or against that guess.",
            )  # fmt: skip
