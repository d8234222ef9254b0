"""Natural Scenes Dataset: from a local copy to a prepared data set.

Eight people saw up to 10,000 images three times each during 7 T fMRI; 1,000 images are shared by all, the others were
shown to one person alone (Allen et al. 2022, doi:10.1038/s41593-021-00962-x). The prepared set holds betas of single
trials (fithrf_GLMdenoise_RR, 1.8 mm) in the voxels of `nsdgeneral` or of another region. The shared images are
everybody's test split. NSD's terms forbid redistribution: what this module writes stays with those who signed them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from neural_clip.corpora.nsd.betas import mask_file
from neural_clip.corpora.nsd.categories import annotation_files, coco_categories
from neural_clip.corpora.nsd.layout import ANNOTATIONS_DIR
from neural_clip.corpora.nsd.plan import DEFAULT_ROI, Corpus, open_corpus
from neural_clip.corpora.nsd.rows import average_rows, image_rows, trial_rows
from neural_clip.errors import DataError
from neural_clip.prepared.parts import Part

__all__ = ["prepare"]


SESSION_ZSCORES = ("train_only", "none")
IMAGES_PER_PART = 1000
"""About 0.5 GB of pixels, some minutes of work."""
LICENCE = (
    "NSD Terms and Conditions: research and education only; no redistribution of the data or parts of them; no "
    "re-identification; cite the paper and acknowledge NSF IIS-1822683 and IIS-1822929."
)
TERMS = (
    "Everybody who works with this folder must have agreed to the NSD Terms and Conditions, which are accepted with "
    "the access form at https://naturalscenesdataset.org. What follows sums them up and does not replace them: use in "
    "research and education only; nobody may pass on or sell the data set or anything that contains parts of it, this "
    "folder included; members of a team keep to the terms as well; nobody may try to find out who the participants "
    "are; publications cite the data paper and acknowledge the NSF grants."
)
DEFECTS = (
    "With fewer than 40 sessions, test images were shown one to three times, so the noise of averages differs; see "
    "`n_repeats`.",
    "Betas in HDF5 carry no checksums: a bit that flipped among them before they were read cannot be noticed.",
    "Betas of another subject with an equal volume and number of trials could not be told from the right ones.",
)


def prepare(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    subjects: Sequence[str] | None = None,
    n_sessions: int | None = None,
    average_repeats: bool = True,
    session_zscore: str = "train_only",
    roi: str = DEFAULT_ROI,
    roi_values: Sequence[int] | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
    betas_format: str = "auto",
    annotations_dir: str | Path | None = None,
    allow_partial: bool = False,
    num_proc: int = 1,
    overwrite: bool = False,
) -> Path:
    """Turn a local copy of NSD into a prepared data set folder.

    Args:
        raw_dir (`str` or `Path`): Root of the copy, with `nsddata`, `nsddata_betas` and `nsddata_stimuli`.
        output_dir (`str` or `Path`): Folder to write.
        subjects (`Sequence[str]`, *optional*): Such as `["sub-01", "sub-05"]`; default all with betas.
        n_sessions (`int`, *optional*): Sessions to use, from the first on. Default 37, as in arXiv 2411.09723: 24,980
            and 2,770 trials of 8,859 unshared and 982 shared images for every subject. A simulated corpus uses all of
            its own.
        average_repeats (`bool`): One row an image, the mean of its presentations (the paper's convention), or one
            row a presentation. `n_repeats` tells how many; with 37 sessions test images have one to three.
        session_zscore (`str`): `"train_only"` z-scores each voxel within each session with mean and standard
            deviation of the training trials, which removes drift between sessions; neither shared nor validation
            images take part in the fit. `"none"` leaves percent signal change.
        roi (`str`): Region by the name of its file in `func1pt8mm/roi`, such as `"nsdgeneral"`, `"streams"`,
            `"prf-visualrois"`, `"Kastner2015"` or `"lh.floc-faces"`; or the path of a NIfTI-1 file on the same grid,
            in which `{subject}` stands for `subj01` and so on.
        roi_values (`Sequence[int]`, *optional*): Values of that file that mark the wanted voxels; default all above 0.
        validation_fraction (`float`): Share of each subject's unshared images that form the validation split.
        seed (`int`): Seed of the choice of validation images.
        betas_format (`str`): `"nifti"`, `"hdf5"` or `"auto"`, which prefers NIfTI. Both give the same numbers; only
            NIfTI has checksums.
        annotations_dir (`str` or `Path`, *optional*): Folder of COCO's `instances_train2017.json` and
            `instances_val2017.json`, for `categories`. Default `nsddata_stimuli/stimuli/nsd/annotations` if it exists;
            without it, categories are empty.
        allow_partial (`bool`): Take the sessions that there are where some are missing, and subjects without
            `responses.tsv`; the data set is marked as partial. Trials keep their numbers.
        num_proc (`int`): Parts that are written at the same time: a subject when averaging, else a session.
        overwrite (`bool`): Replace an existing `output_dir`.

    Returns:
        `Path`: The folder. Recordings are float32, as long as the subject's region, in C order of its mask, which is
        in `masks/<subject>.nii.gz`.

    Raises:
        DataError: If a file is absent or damaged, or files contradict each other or the published counts.

    Memory, for each process: the masked betas of one session, one vector for each image that will be shown again when
    averaging (0.6 GB at most), and an output shard.
    """
    from neural_clip.prepared.writer import write_prepared

    if session_zscore not in SESSION_ZSCORES:
        raise DataError(
            "Invalid value for the 'session_zscore' parameter. Allowed values are 'train_only' and 'none', "
            f"but got '{session_zscore}' instead."
        )
    corpus = open_corpus(
        Path(raw_dir), subjects=subjects, n_sessions=n_sessions, roi=roi, roi_values=roi_values,
        validation_fraction=validation_fraction, seed=seed, betas_format=betas_format, allow_partial=allow_partial,
    )  # fmt: skip
    parameters = {
        "betas": "fithrf_GLMdenoise_RR, 1.8 mm", "betas_format": betas_format, "session_zscore": session_zscore,
        "average_repeats": average_repeats, "n_sessions": corpus.n_sessions, "sessions": _sessions_used(corpus),
        "validation_fraction": validation_fraction, "validation_seed": seed, "roi_values": roi_values,
    }  # fmt: skip
    images = _image_parts(corpus, annotations_dir)
    recordings = _recording_parts(corpus, average_repeats, session_zscore)
    metadata = _metadata(corpus, roi, parameters)
    masks = {
        f"masks/sub-{plan.subject:02d}.nii.gz": mask_file(corpus.masks[plan.subject], plan.mask)
        for plan in corpus.plans
    }
    return write_prepared(
        output_dir, metadata, recordings, images, overwrite=overwrite, extra_files=masks, num_proc=num_proc
    )


def _recording_parts(corpus: Corpus, average_repeats: bool, session_zscore: str) -> list[Part]:
    """A part a subject when averaging, as repeats lie in different sessions; else a part a session."""
    parts = []
    for plan in corpus.plans:
        name, sessions = f"sub-{plan.subject:02d}", list(plan.sessions)
        if average_repeats:
            rows = partial(average_rows, plan, session_zscore)
            n_rows = len(set(plan.nsd_ids[plan.recorded].tolist()))
            parts.append(Part(name, rows, corpus.files(plan, sessions), n_rows))
            continue
        for session in sessions:
            rows = partial(trial_rows, plan, [session], session_zscore)
            files = corpus.files(plan, [session])
            parts.append(Part(f"{name}_ses-{session:02d}", rows, files, plan.trials_per_session))
    return parts


def _image_parts(corpus: Corpus, annotations_dir: str | Path | None) -> list[Part]:
    """Images in parts; without annotations their categories are unknown, which becomes a defect."""
    folder = Path(annotations_dir) if annotations_dir else corpus.raw_dir / ANNOTATIONS_DIR
    shown, files = corpus.shown(), [corpus.stimuli, corpus.stim_info.path]
    categories: dict[int, list[str]] = {}
    if annotations_dir or folder.is_dir():
        categories = coco_categories(folder, corpus.stim_info, shown)
        files += annotation_files(folder, corpus.stim_info, shown)
    else:
        corpus.defects.append("categories are empty: no COCO annotations were given")
    parts = []
    for start in range(0, len(shown), IMAGES_PER_PART):
        here = shown[start : start + IMAGES_PER_PART]
        rows = partial(image_rows, corpus.stimuli, here, {i: categories[i] for i in here if i in categories})
        parts.append(Part(f"images_{start:05d}", rows, files, len(here)))
    return parts


def _sessions_used(corpus: Corpus) -> dict[str, str]:
    """Sessions of each subject, such as "1-4, 6"."""
    return {f"sub-{plan.subject:02d}": _ranges(list(plan.sessions)) for plan in corpus.plans}


def _ranges(numbers: Iterable[int]) -> str:
    """Rising numbers with runs drawn together."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


def _metadata(corpus: Corpus, roi: str, parameters: dict) -> dict:
    """Everything that neural_clip.json tells and that is not counted while writing."""
    zscored, averaged = parameters["session_zscore"] == "train_only", parameters["average_repeats"]
    values = parameters["roi_values"]
    repeats, region = "repeats averaged" if averaged else "single trials", Path(roi).name
    defects = [*DEFECTS, *corpus.defects]
    return {
        "format_version": 1, "corpus": "nsd", "modality": "fmri", "simulated": corpus.stamp,
        "pretty_name": f"NSD, {corpus.n_sessions} sessions, {repeats}, prepared for neural_clip",
        "ch_names": None, "n_chans": None, "n_times": None, "sfreq": None, "tmin": None,
        "unit": "z" if zscored else "percent signal change", "roi": region, "roi_values": values,
        "n_voxels": {f"sub-{plan.subject:02d}": int(plan.mask.sum()) for plan in corpus.plans},
        "grid_shapes": {f"sub-{plan.subject:02d}": list(plan.mask.shape) for plan in corpus.plans},
        "voxel_order": f"C order of the NIfTI mask, voxels of {region} "
        + (f"with the values {', '.join(map(str, values))}" if values else "above 0"),
        "split_protocol": "test: images that all subjects share; validation: "
        f"{parameters['validation_fraction']:g} of each subject's other images; {corpus.n_sessions} sessions",
        "split_unit": "image",
        "scaling": {"method": "z-score per voxel and session", "fit_scope": "train"} if zscored
        else {"method": "none", "fit_scope": "none"},
        "preprocessing": parameters, "category_level": False, "block_confounded": False, "average_repeats": averaged,
        "presentation_order": not averaged,
        "image_encoder": None, "licence": LICENCE, "terms": TERMS,
        # holds for simulated copies too: a stamp file must not be able to open the way for real data
        "redistribution": "forbidden",
        "citation": "Allen et al. 2022, A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial "
        "intelligence, Nature Neuroscience, doi:10.1038/s41593-021-00962-x",
        "source": "https://naturalscenesdataset.org", "known_defects": defects, "declared": corpus.declared,
        "partial": corpus.partial,
    }  # fmt: skip
