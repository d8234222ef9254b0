"""What arXiv 2411.09723 reports, for orientation beside our scores, and how its figures differ from ours."""

from __future__ import annotations

# arXiv 2411.09723, tables 1 and 2; the EEG and MEG top-k of the paper are no ranks, see PAPER_REMARKS
PAPER: dict[str, dict] = {
    "decoding": {
        "eeg": {"corpus": "ImageNetEEG", "top1": 0.400, "top5": 0.543, "two_way": 0.794},
        "meg": {"corpus": "THINGS-MEG", "top1": 0.012, "top5": 0.061, "two_way": 0.601},
        "fmri": {"corpus": "NSD", "top1": None, "top5": None, "two_way": 0.903},
    },
    "encoding": {
        "eeg": {"corpus": "ImageNetEEG", "two_way": 0.855},
        "meg": {"corpus": "THINGS-MEG", "two_way": 0.588},
        "fmri": {"corpus": "NSD", "two_way": 0.878},
    },
    "conversion": {
        "fmri->eeg": {"two_way": 0.6710, "normalised": 0.8370},
        "meg->eeg": {"two_way": 0.6790, "normalised": 0.8470},
        "fmri->meg": {"two_way": 0.5679, "normalised": 0.9540},
        "eeg->meg": {"two_way": 0.5594, "normalised": 0.9396},
        "eeg->fmri": {"two_way": 0.7648, "normalised": 0.8598},
        "meg->fmri": {"two_way": 0.7928, "normalised": 0.8912},
    },
}
PAPER_REMARKS = (
    "The paper's figures come from its authors' splits, image encoder and code, on real recordings. They stand here "
    "for orientation: different data, galleries and definitions do not make a ranking.",
    "The paper's top-1 and top-5 are no ranks: its code passes the nearest trials through a set, which loses their "
    "order. Ours are ranks over unique images.",
    "The paper's 2-way score compares each prediction with one randomly permuted one; its expectation is our score in "
    "the direction image to recording. Ours compares all pairs of different images, ties one half.",
    "The paper's MEG gallery holds 200 images (chance 0.5 % and 2.5 %), not 720 classes (0.13 % and 0.65 %).",
    "In the paper's code the test set is also the validation set and steers the learning rate, and the subjects' "
    "alignment layers are neither trained nor saved. Ours are trained and saved, and tests are read once.",
    "The abstract of the paper gives 93.8 % for fMRI, its table 90.3 %; the table is quoted.",
    "The paper divides conversions by constants for each target (EEG .8017, MEG .595, fMRI .889); ours are divided by "
    "the decoding score of the target modality in this report.",
)
