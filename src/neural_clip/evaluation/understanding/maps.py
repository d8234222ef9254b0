"""Maps of samples, sensors and voxels of one modality: computed, drawn and written."""

from __future__ import annotations

import numpy as np

from neural_clip.errors import DataError
from neural_clip.evaluation.understanding.attribution import MARGIN, TWO_WAY, Scorer, split_half, training_mean
from neural_clip.evaluation.understanding.pictures import (
    draw_sensors,
    draw_slices,
    draw_sorted_voxels,
    draw_time_course,
    write_csv,
)
from neural_clip.evaluation.understanding.recordings import Analysis, display_name, subjects_of, values_of_subject
from neural_clip.evaluation.understanding.sensors import sensor_positions
from neural_clip.evaluation.understanding.voxels import VoxelMask, read_mask
from neural_clip.files.whole import write_whole
from neural_clip.gallery.embedding import EmbeddedSplit
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.retrieval.scoring import MIN_CLUSTERS
from neural_clip.retrieval.uncertainty import bootstrap_interval

WINDOW_SECONDS = 0.04  # of the time course
N_WINDOWS = 6  # of the maps of sensors
REPLACEMENT = "the mean training recording of the same subject, sensor by sensor and sample by sample"
START = "the mean training recording of the same subject"


class SubjectChoice:
    """Recordings of one subject that are mapped, and what scores them."""

    def __init__(self, part: EmbeddedSplit, subject: str, run: Analysis) -> None:
        from neural_clip.retrieval.tiles import unit_vectors

        subjects, rows = subjects_of(part), part.rows_of(subject)
        rng = np.random.default_rng([run.seed, 4, subjects.index(subject)])
        # gradients of all voxels take as many passes as a few occlusions: no need to spread them over subjects
        shared_by = len(subjects) if MODALITIES[part.modality].sensors else 1
        wanted = -(-run.max_recordings // shared_by)
        count = min(len(rows), wanted)
        self.rows = np.sort(rng.choice(rows, count, replace=False))
        self.values = values_of_subject(part, self.rows)
        self.columns, self.image_ids = part.columns[self.rows], part.image_ids[self.rows]
        self.mean = training_mean(part.data, subject)
        known = list(getattr(run.model.config, f"{part.modality}_config").subjects)
        gallery = unit_vectors(part.gallery_embeds)
        self.scorer = Scorer(run.model, part.modality, known.index(subject), gallery, run.device, run.batch_size)


def sensor_maps(part: EmbeddedSplit, run: Analysis) -> dict:
    """Occlude windows of time, sensors, and sensors in windows; draw and write the maps.

    Returns:
        `dict`: What was done, the scores with nothing occluded, the peak of the time course, the most important
        sensors, and how well the maps of two halves of the images agree.
    """
    from tqdm import tqdm

    n_chans, n_times = part.facts.n_chans, part.facts.n_times
    window = min(n_times, max(1, round(WINDOW_SECONDS * part.facts.sfreq)))
    span = -(-n_times // N_WINDOWS)
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("ids", "intact", "intact 2-way", "time", "time 2-way",
                                                                "sensors", "sensors in windows")}  # fmt: skip
    for subject in tqdm(subjects_of(part), f"map {part.modality}", unit="subject", disable=not run.progress):
        chosen = SubjectChoice(part, subject, run)
        scorer, given = chosen.scorer, (chosen.values, chosen.columns)
        if chosen.values.shape[1:] != (n_chans, n_times):
            raise DataError(
                f"'{part.data.name}': recordings have shape {chosen.values.shape[1:]}, but its metadata says "
                f"{n_chans} sensors and {n_times} samples."
            )
        over_time = ((n_chans, window), (n_chans, window))
        found["ids"].append(chosen.image_ids)
        found["intact"].append(scorer.scores(*given, MARGIN))
        found["intact 2-way"].append(scorer.scores(*given, TWO_WAY))
        found["time"].append(scorer.occlude(*given, chosen.mean, *over_time)[:, 0])
        found["time 2-way"].append(scorer.occlude(*given, chosen.mean, *over_time, TWO_WAY)[:, 0])
        whole = ((1, n_times), (1, n_times))
        found["sensors"].append(scorer.occlude(*given, chosen.mean, *whole)[:, :, 0])
        cut = scorer.occlude(*given, chosen.mean, (1, span), (1, span))  # (n, n_chans, n_times)
        found["sensors in windows"].append(cut[:, :, ::span].transpose(0, 2, 1))
    maps = {name: np.concatenate(values) for name, values in found.items()}
    record = {
        "method": "occlusion",
        "replaced_by": REPLACEMENT,
        "n_recordings": len(maps["ids"]),
        "n_images": len(set(maps["ids"])),
        "intact": {MARGIN: maps["intact"].mean(), TWO_WAY: maps["intact 2-way"].mean()},
    }
    record["time_course"] = _time_course(maps, part, run, window)
    record["sensors"] = _sensors(maps, part, run, span)
    return record


def image_intervals(values: np.ndarray, image_ids: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """95 % intervals of means over recordings, images resampled, with one set of resamples for all points.

    Args:
        values (`np.ndarray` of shape `(n, n_points)`): One row a recording.
        image_ids (`np.ndarray` of shape `(n,)`): Image of each; recordings of one image rise and fall together.
        seed (`int`): Seed of the resampling.

    Returns:
        `tuple` of lower and upper ends `(n_points,)`; NaN with fewer than five images.
    """
    if len(set(image_ids)) < MIN_CLUSTERS:
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    return bootstrap_interval(values, image_ids, seed)


def _agreement(halves: float | None) -> str:
    """How far a map can be trusted."""
    return "" if halves is None else f"Maps of two halves of the images correlate by {halves:.2f}."


def _time_course(maps: dict[str, np.ndarray], part: EmbeddedSplit, run: Analysis, window: int) -> dict:
    """Picture and table of the drop without each window of time; the last one may be shorter."""
    n_times, sfreq, tmin = maps["time"].shape[1], float(part.facts.sfreq), float(part.facts.tmin)
    firsts = np.arange(0, n_times, window)
    edges = tmin + np.append(firsts, n_times) / sfreq  # s; window k goes from edge k up to edge k + 1
    curves = []
    for name, intact, label in (("time", "intact", MARGIN), ("time 2-way", "intact 2-way", TWO_WAY)):
        drops = maps[name][:, firsts]
        low, high = image_intervals(drops, maps["ids"], run.seed)
        curves.append({"label": label, "intact": maps[intact].mean(), "mean": drops.mean(0), "low": low, "high": high})
    shown = f"{display_name(part)}, {run.split} split"
    stem = run.stem(f"When: what the score loses without a window of time, {shown}", f"{part.modality}_time_course")
    columns: dict = {
        "start_s": edges[:-1],
        "end_s": edges[1:],
        "simulated": [bool(part.facts.simulated)] * len(firsts),
    }
    for curve, short in zip(curves, ("margin", "two_way"), strict=True):
        columns |= {f"{short}_drop": curve["mean"], f"{short}_low": curve["low"], f"{short}_high": curve["high"]}
    write_csv(stem.with_suffix(".csv"), columns)
    halves = split_half(maps["time"][:, firsts], maps["ids"])
    peak = int(np.argmax(curves[0]["mean"]))
    note = (
        f"{1000 * window / sfreq:.0f} ms of all sensors are replaced by the subject's mean training recording; "
        f"{len(maps['ids'])} recordings; band: 95 % interval, images resampled. {_agreement(halves)}"
    )
    draw_time_course(edges, curves, (f"When: {shown}", note), stem)
    return {
        "window_s": window / sfreq,
        "peak_s": edges[peak : peak + 2].tolist(),
        "peak_drop": curves[0]["mean"].max(),
        "split_half_correlation": halves,
    }


def _sensors(maps: dict[str, np.ndarray], part: EmbeddedSplit, run: Analysis, span: int) -> dict:
    """Picture and table of the drop without each sensor."""
    names, n_times = [str(name) for name in part.facts.ch_names], maps["time"].shape[1]
    whole, by_window = maps["sensors"].mean(axis=0), maps["sensors in windows"].mean(axis=0)
    edges = [
        [float(part.facts.tmin) + end / float(part.facts.sfreq) for end in (first, min(first + span, n_times))]
        for first in range(0, n_times, span)
    ]
    spans = [f"{1000 * start:.0f} to {1000 * end:.0f} ms" for start, end in edges]
    positions, sentence = sensor_positions(names)
    halves = split_half(maps["sensors"], maps["ids"])
    shown = f"{display_name(part)}, {run.split} split"
    stem = run.stem(f"Where: what the score loses without a sensor, {shown}", f"{part.modality}_sensors")
    columns = {"sensor": names, "simulated": [bool(part.facts.simulated)] * len(names), "margin_drop": whole}
    columns |= {f"margin_drop {name}": values for name, values in zip(spans, by_window, strict=True)}
    write_csv(stem.with_suffix(".csv"), columns)
    note = (
        f"A sensor is replaced by the subject's mean training recording; {len(maps['ids'])} recordings, cosine "
        f"margin with nothing occluded {maps['intact'].mean():.3f}. {sentence} Neighbours that carry the same signal "
        f"stand in for one another: each alone may look unimportant. {_agreement(halves)}"
    )
    draw_sensors(names, whole, by_window, spans, positions, (f"Where: {shown}", note), stem)
    order = np.argsort(-whole, kind="stable")
    return {
        "positions": sentence,
        "windows_s": edges,
        "most_important": [names[row] for row in order[:10]],
        "peak_drop": whole[order[0]],
        "split_half_correlation": halves,
    }


def voxel_maps(part: EmbeddedSplit, run: Analysis) -> dict:
    """Integrated gradients of each subject's voxels; draw and write the maps.

    Returns:
        `dict`: What was done and, for each subject, the margins at both ends, how far the map is from their
        difference, how well the maps of two halves of the images agree, and whether there was a mask.
    """
    from tqdm import tqdm

    subjects = {}
    for subject in tqdm(subjects_of(part), "map fmri", unit="subject", disable=not run.progress):
        chosen = SubjectChoice(part, subject, run)
        maps = chosen.scorer.integrate(chosen.values, chosen.columns, chosen.mean)
        intact = chosen.scorer.scores(chosen.values, chosen.columns, MARGIN)
        mean_rows = np.broadcast_to(chosen.mean, chosen.values.shape)
        start = chosen.scorer.scores(mean_rows, chosen.columns, MARGIN)
        mean_map = maps.mean(axis=0)
        path = part.data.folder / "masks" / f"{subject}.nii.gz"
        subjects[subject] = {
            "n_recordings": len(maps),
            "n_voxels": len(mean_map),
            "margin": intact.mean(),
            "margin_of_training_mean": start.mean(),
            "sum_of_map": mean_map.sum(),
            "largest_error_of_a_sum": np.abs(maps.sum(axis=1) - (intact - start)).max(),
            "split_half_correlation": split_half(maps, chosen.image_ids),
        }
        mask = read_mask(path, len(mean_map))
        subjects[subject] |= _write_voxels(mean_map, mask, subject, part, run, subjects[subject])
    return {"method": "integrated gradients", "of": MARGIN, "from": START, "subjects": subjects}


def _write_voxels(
    values: np.ndarray, mask: VoxelMask | None, subject: str, part: EmbeddedSplit, run: Analysis, found: dict
) -> dict:
    """Table and picture of one subject's map, and the image where there is a mask."""
    simulated = bool(part.facts.simulated)
    shown = f"{display_name(part)}, {subject}, {run.split} split"
    stem = run.stem(f"Where: what each voxel adds to the score, {shown}", f"fmri_{subject}_voxels")
    columns: dict = {"voxel": range(len(values)), "simulated": [simulated] * len(values)}
    if mask is not None:
        columns |= dict(zip("ijk", np.argwhere(mask.inside).T, strict=True))
    write_csv(stem.with_suffix(".csv"), columns | {"margin_share": values})
    note = (
        f"Integrated gradients from the subject's mean training recording, mean over recordings; the voxels together "
        f"add {values.sum():.3f}, the cosine margin is {found['margin']:.3f}. "
        f"{_agreement(found['split_half_correlation'])}"
    )
    if mask is None:
        reason = f"No map in space: the data set holds no masks/{subject}.nii.gz."
        draw_sorted_voxels(values, (f"Where: {shown}", f"{note} {reason}"), stem)
        return {"image": None, "why_no_image": reason}
    note += " L, R: left and right; P, A: back and front; I, S: below and above."
    name = f"{subject}_importance.nii.gz"
    description = f"{'SIMULATED; ' if simulated else ''}integrated gradients of the cosine margin"
    write_whole(run.output_dir / name, mask.nifti(values, description))
    draw_slices(mask.volume(values), mask.inside, mask.affine, (f"Where: {shown}", note), stem)
    return {"image": name}
