"""Checks of the values of recordings: shapes, finite and moving channels, scales, and what statistics saw."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import reduce

import numpy as np

from neural_clip.preparation import SCALED_SPREAD
from neural_clip.prepared.doctor.findings import Finding, error, examples, note, warning
from neural_clip.prepared.doctor.scan import RecordingScan
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.moments import RowMoments
from neural_clip.prepared.splits import SPLITS
from neural_clip.prepared.units import plausible_spread

MAX_FLAT_ROWS = 0.1  # an electrode may come off for a while
MAX_SPREAD_RATIO = 1000.0  # electrodes of one cap differ by tens, not thousands
FINE_SCOPES = ("train", "none", "run", "per epoch baseline")
# Statistics fitted on some rows leave those rows a mean of 0 but for rounding. How far other means are from 0 is told
# by their standard error, the deviation of the rows' means over the root of the number of rows.
ZERO_ERRORS = 0.005  # standard errors: rounding stays below, and by chance so does the mean of 1 in 250 channels
ZERO_STD = 1e-4  # deviations: the same where the standard error is large
ZERO_SHARE = 0.95  # of the channels
NONZERO_ERRORS, NONZERO_RATIO = 0.001, 10.0  # what the mean of training rows must exceed, in the median channel
MIN_ROWS, MIN_CHANS = 3, 3
OWN_ZERO = 1e-3  # deviations: rows whose means differ by less were centred one by one


def check_values(recordings: list[RecordingScan], metadata: Mapping) -> Iterator[Finding]:
    """All findings on values but the fit scope."""
    bad = [(scan, image, count) for scan in recordings for image, count in scan.not_finite]
    if bad:
        listed = examples(f"{count} in a row of image '{image}' in {scan.file}" for scan, image, count in bad)
        yield error(
            "values", f"{len(bad)} rows hold values that are not finite or beyond float32: {listed}.",
            "One such value makes the loss of its whole batch NaN, and its row no score.",
        )  # fmt: skip
    yield from _shapes(recordings, metadata)
    for subject, splits in _by_subject(recordings).items():
        yield from _channels(subject, _merged(splits.values()), metadata)


def check_fit_scope(recordings: list[RecordingScan], metadata: Mapping) -> Iterator[Finding]:
    """Findings on what the statistics of the scaling were fitted on, by declaration and by the data."""
    scaling = metadata.get("scaling") or {}
    scope = scaling.get("fit_scope")
    if scope == "all":
        yield error(
            "fit scope", "The scaling declares that its statistics were fitted on all splits.",
            "Test rows took part in the preprocessing of training rows, so scores are not those of unseen data.",
        )  # fmt: skip
    elif scope not in FINE_SCOPES:
        stated = "unknown" if scope == "unknown" else f"{scope!r}, which is none of {', '.join(FINE_SCOPES)}"
        yield warning(
            "fit scope", f"The fit scope of the scaling is {stated}.",
            "Its statistics may have seen the test split; scores may be a little too high.",
        )  # fmt: skip
    found = defaultdict(list)
    parts = _by_subject(recordings)
    # subjects who are not trained on are scaled by their own rows
    trained = {who: splits for who, splits in parts.items() if "train" in splits}
    everyone = {"all subjects together": _together(trained)} if len(trained) > 1 else {}
    for who, splits in (parts | everyone).items():
        fitted = fitted_rows(splits)
        if fitted:
            found[fitted].append(who)
    for fitted, names in found.items():
        yield _fitted_on_test(fitted, names, scope, metadata)


def fitted_rows(splits: Mapping[str, RowMoments]) -> str | None:
    """Tell whether statistics were fitted on rows that include the test split.

    Args:
        splits (`Mapping[str, RowMoments]`): Moments of the rows of each split, of one subject.

    Returns:
        `str`, *optional*: `"all"` if in practically all channels the mean of all rows is 0 to rounding while that of
        the training rows is not; `"test"` if the mean of the test rows alone is 0 to rounding; else `None`.

    Statistics fitted on training rows are never taken for others, because the training mean is then 0 to rounding.
    Statistics fitted session by session or run by run on all rows are found as well, since the sum of sums that are 0
    is 0; so are those fitted before repeats were averaged, by counting each row `n_repeats` times. Rows that were each
    centred on their own tell nothing and are passed over. What cannot be seen: statistics after which rows were
    dropped, cut or filtered; a scale without a mean; a fit on all rows of only some subjects' sessions; features or
    channels that were chosen with the test split; fewer than 3 channels or 3 rows. Where all channels move together
    and test rows are few, the training mean can be near 0 by chance, and a fit on all rows pass.
    """
    if "train" not in splits or "test" not in splits:
        return None
    everything, train, test = _merged(splits.values()), splits["train"], splits["test"]
    std, row_std = everything.std, everything.row_std
    usable = np.isfinite(std) & (row_std > OWN_ZERO * std) & ~everything.constant
    if usable.sum() < MIN_CHANS or test.n_rows < MIN_ROWS:
        return None

    def is_zero(part: RowMoments, mean: np.ndarray) -> bool:
        limit = np.minimum(ZERO_ERRORS * row_std / np.sqrt(part.n_rows), ZERO_STD * std)
        return bool((np.abs(mean) <= limit)[usable].mean() >= ZERO_SHARE)

    for mean, train_mean in ((everything.mean, train.mean), (everything.weighted_mean, train.weighted_mean)):
        trained = np.abs(train_mean)[usable]
        moved = np.median(trained * np.sqrt(train.n_rows) / row_std[usable]) > NONZERO_ERRORS
        apart = np.median(trained) > NONZERO_RATIO * np.median(np.abs(mean)[usable])
        if is_zero(everything, mean) and moved and apart:
            return "all"
    return "test" if is_zero(test, test.mean) or is_zero(test, test.weighted_mean) else None


def _fitted_on_test(fitted: str, who: list[str], scope: object, metadata: Mapping) -> Finding:
    """How much it matters what the data show depends on what was declared."""
    rows = "all rows is 0 to rounding in practically all channels, that of training rows is not"
    message = f"The mean of {rows if fitted == 'all' else 'the test rows alone is 0 to rounding'} ({examples(who)}): "
    message += f"statistics were fitted on {'the test split as well' if fitted == 'all' else 'the test split itself'}"
    consequence = "Test rows took part in their own preprocessing, so scores are not those of unseen data."
    if scope == "run":
        return note("fit scope", f"{message}, run by run as declared.", f"{consequence} New data need whole runs.")
    if scope == "unknown":
        return warning("fit scope", f"{message}; the fit scope is declared as unknown.", consequence)
    if fitted == "test" and metadata.get("split_unit") != "image":
        return warning("fit scope", f"{message}, or run by run.", f"{consequence} Runs scaled one by one need 'run'.")
    return error("fit scope", f"{message}, though {scope!r} is declared.", consequence)


def _by_subject(recordings: list[RecordingScan]) -> dict[str, dict[str, RowMoments]]:
    """Moments of each subject and split; files of another shape than the subject's first are left out."""
    parts: dict[str, dict[str, RowMoments]] = defaultdict(dict)
    for scan in recordings:
        if scan.moments is None:
            continue
        known = parts[scan.subject]
        first = next(iter(known.values()), scan.moments)
        if (first.mean.size, first.n_times) == (scan.moments.mean.size, scan.moments.n_times):
            old = known.get(scan.split)
            known[scan.split] = scan.moments if old is None else old.merged(scan.moments)
    return parts


def _together(parts: Mapping[str, Mapping[str, RowMoments]]) -> dict[str, RowMoments]:
    """Moments of each split over all subjects; empty where channels differ."""
    if len({(m.mean.size, m.n_times) for splits in parts.values() for m in splits.values()}) != 1:
        return {}
    pooled = {split: [splits[split] for splits in parts.values() if split in splits] for split in SPLITS}
    return {split: _merged(moments) for split, moments in pooled.items() if moments}


def _merged(parts) -> RowMoments:
    return reduce(RowMoments.merged, parts)


def _shapes(recordings: list[RecordingScan], metadata: Mapping) -> Iterator[Finding]:
    """Rows of one subject (of all subjects, for sensors) must have one shape, the declared one."""
    shapes: dict[str, Counter] = defaultdict(Counter)
    for scan in recordings:
        shapes["the data set" if MODALITIES[metadata["modality"]].sensors else scan.subject].update(scan.shapes)
    for who, counts in shapes.items():
        if len(counts) > 1:
            listed = examples(f"{count} of shape {shape}" for shape, count in counts.most_common())
            yield error(
                "values", f"Rows of {who} have different shapes: {listed}.",
                "They cannot be put into one batch, and a channel would not mean the same in all rows.",
            )  # fmt: skip


def _channels(subject: str, moments: RowMoments, metadata: Mapping) -> Iterator[Finding]:
    """Findings on the channels or voxels of a subject."""
    names = metadata.get("ch_names") or []
    if len(names) != moments.mean.size:
        kind = "channel" if MODALITIES[metadata["modality"]].sensors else "voxel"
        names = [f"{kind} {i}" for i in range(moments.mean.size)]
    constant = moments.constant
    if constant.any():
        yield warning(
            "constant channels",
            f"{subject}: {int(constant.sum())} of {constant.size} never change: "
            f"{examples(names[i] for i in np.flatnonzero(constant))}.",
            "They carry nothing, and dividing by their deviation gives NaN or blows rounding up.",
        )
    share = moments.flat / moments.n_rows
    flat = np.flatnonzero(~constant & (share > MAX_FLAT_ROWS))
    if flat.size:
        listed = examples(f"{names[i]} ({share[i]:.0%})" for i in flat[np.argsort(-share[flat], kind="stable")])
        yield warning(
            "flat channels", f"{subject}: {flat.size} of {constant.size} are flat in many rows: {listed}.",
            "Which rows they are flat in tells the time of recording, and with it perhaps the class.",
        )  # fmt: skip
    yield from _scales(subject, moments.std[~constant], [names[i] for i in np.flatnonzero(~constant)], metadata)


def _scales(subject: str, std: np.ndarray, names: list[str], metadata: Mapping) -> Iterator[Finding]:
    """Deviations that are absurd beside other channels or for their unit."""
    if not std.size:
        return
    median = float(np.median(std))
    loud = np.flatnonzero(std > MAX_SPREAD_RATIO * median)
    if loud.size:
        listed = examples(f"{names[i]} ({std[i] / median:.0f} times)" for i in loud[np.argsort(-std[loud])])
        yield warning(
            "scale", f"{subject}: {loud.size} channels have over {MAX_SPREAD_RATIO:.0f} times the median deviation: "
            f"{listed}.", "They drown the others in every sum over channels.",
        )  # fmt: skip
    unit = str(metadata.get("unit") or "")
    low, high = plausible_spread(unit) or (0.0, np.inf)
    if not low <= median <= high:
        yield warning(
            "scale", f"{subject}: the median channel deviates by {median:.2g}, but the unit is stated as {unit!r}, "
            f"for which {low:g} to {high:g} are plausible.",
            "Either the unit is wrong or the scaling is; models that expect this unit see noise or saturate.",
        )  # fmt: skip
    if not SCALED_SPREAD[0] <= median <= SCALED_SPREAD[1]:  # at 1e-5 (EEG in V) outputs are all alike
        yield warning(
            "scale", f"{subject}: the median channel deviates by {median:.2g} {unit}".rstrip() + "; networks train on "
            "values that deviate by about 1.",
            "Models trained on these values answer with the same image for every recording; scale the recordings by "
            "the training split (custom: 'scaling: train').",
        )  # fmt: skip
