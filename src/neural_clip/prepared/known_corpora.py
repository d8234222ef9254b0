"""The corpora that this package knows by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Corpus:
    """One corpus of recordings.

    Args:
        name (`str`): As commands and folders call it.
        modality (`str`): Key of `MODALITIES`.
        title (`str`): One line of help.
        about (`str`): What the help of its command says.
        prepare (`str`): Dotted name of the function that prepares its raw files.
        options (`str`): Dotted name of the dataclass of that function's options.
        twin (`str`): Dotted name of the function that writes a simulated twin of its raw files; empty where there is
            none.
        seconds_per_trial (`float`): From one onset to the next, on average.
    """

    name: str
    modality: str
    title: str
    about: str
    prepare: str
    options: str
    twin: str
    seconds_per_trial: float


# Seconds per trial:
# imagenet_eeg: 50 images of 0.5 s and 10 s of black screen a class: 1,400 s for 2,000 images (Spampinato et al. 2017,
#     CVPR, doi:10.1109/CVPR.2017.479, table 1)
# things_meg: 0.5 s of image and 1 s, give or take 0.2 s, between two of them (Hebart et al. 2023,
#     doi:10.7554/eLife.82580, methods)
# things_eeg2: one image every 0.2 s; sequences of 20 begin about 6.2 s after each other in the event tables, because
#     answers lie between them (Gifford et al. 2022, doi:10.1016/j.neuroimage.2022.119754)
# things_eeg1: one image every 0.1 s; recordings hold 0.14 s an image, because pauses lie between sequences (lengths of
#     the recordings and event tables of 46 subjects; Grootswagers et al. 2022, doi:10.1038/s41597-021-01102-7)
# alljoined: one image every 0.2 s, in the design of THINGS-EEG2; blocks of 1,020 to 1,120 images last 305 s on average
#     (sizes of files of a copy in BIDS, nm000134)
# things_fmri: 0.5 s of image and 4 s between two of them (onsets in the event tables of OpenNeuro ds004192)
# nsd: 3 s of image and 1 s between two of them (Allen et al. 2022, doi:10.1038/s41593-021-00962-x, methods)
CORPORA = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            "imagenet_eeg", "eeg", "ImageNetEEG: six subjects, 2,000 images, EEG",
            """Prepare ImageNetEEG: EEG of six subjects, 40 classes of ImageNet, from the released .pth files.

            All images of a class were shown in one block, so a decoder may read the block instead of the image.
            """,
            "neural_clip.corpora.imagenet_eeg.prepare", "neural_clip.corpora.imagenet_eeg.options.ImageNetEegOptions",
            "neural_clip.simulation.imagenet_eeg_twin.write",
            seconds_per_trial=0.5 + 10.0 / 50,
        ),
        Corpus(
            "things_meg", "meg", "THINGS-MEG: four subjects, 22,448 images, MEG",
            """Prepare THINGS-MEG (OpenNeuro ds004212, version 2.0.0 or later): MEG of four subjects.

            The route `raw` reads the CTF recordings, `derivative` the published epochs. Training images of the split
            protocol `paper` share their concepts with the test images, those of `zero_shot` and `large` do not.
            """,
            "neural_clip.corpora.things_meg.prepare", "neural_clip.corpora.things_meg.options.ThingsMegOptions",
            "neural_clip.simulation.things_meg_twin.write",
            seconds_per_trial=0.5 + 1.0,
        ),
        Corpus(
            "nsd", "fmri", "Natural Scenes Dataset: eight subjects, 73,000 images, 7T fMRI",
            """Prepare the Natural Scenes Dataset: 7 T fMRI of eight subjects, from a local copy.

            The images that all of them saw are the test split. NSD's terms forbid to pass on what this program writes.
            Where voxels lie in MNI152 is stored if `MNI-to-func1pt8.nii.gz` is in the subject's folder `transforms`.
            """,
            "neural_clip.corpora.nsd.prepare", "neural_clip.corpora.nsd.options.NsdOptions",
            "neural_clip.simulation.nsd_twin.write",
            seconds_per_trial=3.0 + 1.0,
        ),
        Corpus(
            "things_eeg2", "eeg", "THINGS-EEG2: ten subjects, 16,740 images, EEG",
            """Prepare THINGS-EEG2: EEG of ten subjects, from the recordings or from a preprocessed release.

            The routes `raw` and `bids` read recordings, `official`, `nice` (NICE and ATM), `ubp` and `neurobridge`
            what was preprocessed of them. No training image shares its concept with a test image, and validation holds
            out whole concepts, the same for all people.
            """,
            "neural_clip.corpora.things_eeg2.prepare", "neural_clip.corpora.things_eeg2.options.ThingsEeg2Options",
            "neural_clip.simulation.things_eeg2_twin.write",
            seconds_per_trial=6.2 / 20,
        ),
        Corpus(
            "things_eeg1", "eeg", "THINGS-EEG1: fifty subjects, 22,448 images, EEG",
            """Prepare THINGS-EEG1 (OpenNeuro ds003825, version 1.1.0 or 1.2.0): EEG of fifty subjects.

            The 200 images that were shown 12 times are the test split. By default no training image shares its concept
            with a test image, and validation holds out whole concepts, the same for all people.
            """,
            "neural_clip.corpora.things_eeg1.prepare", "neural_clip.corpora.things_eeg1.options.ThingsEeg1Options",
            "",
            seconds_per_trial=0.14,
        ),
        Corpus(
            "alljoined", "eeg", "Alljoined-1.6M: twenty subjects, 16,740 images, EEG; and Alljoined1",
            """Prepare Alljoined-1.6M: EEG of twenty subjects with a headset of 32 electrodes; or Alljoined1.

            The route `raw` reads the recordings (EDF), `flat` what was preprocessed of them, `alljoined1` the epochs
            of Alljoined1 (Parquet). The licence is uncertain, so what is written may not be passed on.
            """,
            "neural_clip.corpora.alljoined.prepare", "neural_clip.corpora.alljoined.options.AlljoinedOptions", "",
            seconds_per_trial=0.28,
        ),
        Corpus(
            "things_fmri", "fmri", "THINGS-fMRI: three subjects, 8,740 images, 3T fMRI",
            """Prepare THINGS-fMRI: 3 T fMRI of three subjects, from single-trial betas.

            The route `table` reads the betas in HDF5 (betas_csv), `volume` those in NIfTI (betas_vol). By default no
            training image shares its concept with a test image, and validation holds out whole concepts, the same for
            all people. Recordings without betas are refused.
            """,
            "neural_clip.corpora.things_fmri.prepare", "neural_clip.corpora.things_fmri.options.ThingsFmriOptions",
            "neural_clip.simulation.things_fmri_twin.write",
            seconds_per_trial=4.5,
        ),
    )
}  # fmt: skip
# The first corpus of each modality: the one that is simulated unless another is asked for.
CORPUS_OF: dict[str, Corpus] = {}
for _corpus in CORPORA.values():
    CORPUS_OF.setdefault(_corpus.modality, _corpus)
# Twins by the part of a preset that they are made of: the first corpus of a modality has its name, others their own.
TWINS: dict[str, Corpus] = CORPUS_OF | {
    name: corpus for name, corpus in CORPORA.items() if corpus.twin and corpus is not CORPUS_OF[corpus.modality]
}
