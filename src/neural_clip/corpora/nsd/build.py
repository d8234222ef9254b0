"""Natural Scenes Dataset: from a local copy to a prepared data set.

Eight subjects saw up to 10,000 images three times each during 7 T fMRI. All share 1,000 images; the others were
shown to one subject alone (Allen et al. 2022, doi:10.1038/s41593-021-00962-x). The prepared set holds betas of single
trials (fithrf_GLMdenoise_RR, 1.8 mm) in the voxels of `nsdgeneral` or of another region. The shared images are
the test split. NSD's terms forbid redistribution: what this module writes stays with those who signed them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.corpora.image_parts import image_parts
from neural_clip.corpora.nsd.betas import mask_file
from neural_clip.corpora.nsd.categories import annotation_files, coco_categories
from neural_clip.corpora.nsd.layout import places_file
from neural_clip.corpora.nsd.options import ANNOTATIONS_DIR, NsdOptions
from neural_clip.corpora.nsd.places import read_mni_places
from neural_clip.corpora.nsd.plan import Corpus, open_corpus
from neural_clip.corpora.nsd.rows import average_rows, image_rows, trial_rows
from neural_clip.preparation import Preparation, places_of_voxels
from neural_clip.prepared.parts import Part
from neural_clip.prepared.writer import check_output, write_prepared

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


def prepare(raw_dir: str | Path, output_dir: str | Path, options: NsdOptions | None = None, **changes: Any) -> Path:
    """Turn a local copy of NSD into a prepared data set folder.

    Args:
        raw_dir (`str` or `Path`): Root of the copy, with `nsddata`, `nsddata_betas` and `nsddata_stimuli`.
        output_dir (`str` or `Path`): Folder to write.
        options (`NsdOptions`, *optional*): What to prepare, and how.
        **changes: Options by name, in place of those of `options`.

    Returns:
        `Path`: The folder. Recordings are float32, as long as the subject's region, in C order of its mask, which is
        in `masks/<subject>.nii.gz`. Places in MNI152 are stored of the subjects whose `transforms` folder holds
        `MNI-to-func1pt8.nii.gz`.

    Raises:
        DataError: If a file is absent or damaged, or files contradict each other or the published counts.
    """
    options = replace(options or NsdOptions(), **changes)
    region = [options.roi] if options.roi.endswith((".nii", ".nii.gz")) else []
    check_output(output_dir, [raw_dir, *options.places, *region], options.overwrite)
    corpus = open_corpus(Path(raw_dir), options)
    images = _image_parts(corpus, options.annotations_dir)  # may add a defect, which the metadata tell
    masks = {
        f"masks/sub-{plan.subject:02d}.nii.gz": mask_file(corpus.masks[plan.subject], plan.mask)
        for plan in corpus.plans
    }
    voxels: dict[str, np.ndarray] = {}
    for plan in corpus.plans:
        voxels |= places_of_voxels(f"sub-{plan.subject:02d}", plan.mask)
    places = _places(corpus)  # may add a defect too
    metadata = _metadata(corpus, options) | {"places_space": "MNI152" if places else None}
    return write_prepared(
        output_dir, metadata, _recording_parts(corpus, options), images, overwrite=options.overwrite,
        extra_files=masks, voxels=voxels, places=places, num_proc=options.num_proc, made_from=raw_dir,
    )  # fmt: skip


def _places(corpus: Corpus) -> dict[str, np.ndarray]:
    """Places in MNI152 of the subjects whose transforms are there; those with voxels of unknown place go without."""
    places, lacking = {}, []
    for plan in corpus.plans:
        path, name = places_file(corpus.raw_dir, plan.subject), f"sub-{plan.subject:02d}"
        if not os.path.lexists(path):
            lacking.append(name)
            continue
        found, unknown = read_mni_places(path, plan.mask)
        if found is None:
            corpus.defects.append(
                f"the places in MNI152 of {unknown} of {int(plan.mask.sum())} voxels of {name} are unknown "
                f"({path.name} marks them by 9999), so those of {name} are left out"
            )
        else:
            places[name] = found
    if places and lacking:
        corpus.defects.append(f"there is no {path.name} of {', '.join(lacking)}, so they have no places in MNI152")
    return places


def _recording_parts(corpus: Corpus, options: NsdOptions) -> list[Part]:
    """A part a subject when averaging, as repeats lie in different sessions; else a part a session."""
    parts = []
    for plan in corpus.plans:
        name, sessions = f"sub-{plan.subject:02d}", list(plan.sessions)
        if options.average_repeats:
            rows = partial(average_rows, plan, options.session_zscore)
            n_rows = len(set(plan.nsd_ids[plan.recorded].tolist()))
            parts.append(Part(name, rows, corpus.files(plan, sessions), n_rows))
            continue
        for session in sessions:
            rows = partial(trial_rows, plan, [session], options.session_zscore)
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
    images = [(nsd_id, categories.get(nsd_id, [])) for nsd_id in shown]
    return image_parts(images, partial(image_rows, path=corpus.stimuli), lambda _: files)


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


def _metadata(corpus: Corpus, options: NsdOptions) -> dict:
    """Everything that neural_clip.json tells and that is not counted while writing."""
    zscored, averaged = options.session_zscore == "train_only", options.average_repeats
    scaling, scope = ("z-score", "session") if zscored else ("none", None)
    values = list(options.roi_values) if options.roi_values else None
    repeats, region = "repeats averaged" if averaged else "single trials", Path(options.roi).name
    parameters = {
        "betas": "fithrf_GLMdenoise_RR, 1.8 mm", "betas_format": options.betas_format,
        "session_zscore": options.session_zscore, "average_repeats": averaged, "n_sessions": corpus.n_sessions,
        "sessions": _sessions_used(corpus), "validation_fraction": options.validation_fraction,
        "validation_seed": options.seed, "roi_values": values,
    }  # fmt: skip
    return {
        "corpus": "nsd", "modality": "fmri", "simulated": corpus.stamp,
        "pretty_name": f"NSD, {corpus.n_sessions} sessions, {repeats}, prepared for neural_clip",
        "ch_names": None, "n_chans": None, "n_times": None, "sfreq": None, "tmin": None,
        "unit": "z" if zscored else "percent signal change", "roi": region, "roi_values": values,
        "n_voxels": {f"sub-{plan.subject:02d}": int(plan.mask.sum()) for plan in corpus.plans},
        "grid_shapes": {f"sub-{plan.subject:02d}": list(plan.mask.shape) for plan in corpus.plans},
        "voxel_order": f"C order of the NIfTI mask, voxels of {region} "
        + (f"with the values {', '.join(map(str, values))}" if values else "above 0"),
        "split_protocol": "test: images that all subjects share; validation: "
        f"{options.validation_fraction:g} of each subject's other images; {corpus.n_sessions} sessions",
        "split_unit": "image",
        "scaling": {"method": "z-score per voxel and session", "fit_scope": "train"} if zscored
        else {"method": "none", "fit_scope": "none"},
        "preparation": Preparation(unit="percent signal change", scaling=scaling, scope=scope).as_dict(),
        "preprocessing": parameters, "category_level": False, "block_confounded": False, "average_repeats": averaged,
        "presentation_order": not averaged,
        "image_encoder": None, "licence": LICENCE, "terms": TERMS,
        # holds for simulated copies too: a stamp file must not be able to open the way for real data
        "redistribution": "forbidden",
        "citation": "Allen et al. 2022, A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial "
        "intelligence, Nature Neuroscience, doi:10.1038/s41593-021-00962-x",
        "source": "https://naturalscenesdataset.org", "known_defects": [*DEFECTS, *corpus.defects],
        "declared": corpus.declared, "partial": corpus.partial,
    }  # fmt: skip
