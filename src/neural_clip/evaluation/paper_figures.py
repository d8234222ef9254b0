"""What arXiv 2411.09723 reports, for orientation beside our scores, and how its figures differ from ours."""

from __future__ import annotations

from typing import Any

# arXiv 2411.09723, tables 1 and 2, of what it measured; the top-k of its EEG and MEG are no ranks, see PAPER_REMARKS
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
# its corpora, as prepared data sets name them
MODALITY_OF = {"imagenet_eeg": "eeg", "things_meg": "meg", "nsd": "fmri"}


def paper_figures(task: str, *parts: Any) -> dict[str, Any] | None:
    """The paper's figures beside scores of recordings of its corpora.

    Args:
        task (`str`): `"decoding"`, `"encoding"` or `"conversion"`.
        *parts ([`Split`]): The recordings; source and target of a conversion.

    Returns:
        `dict` or `None`: `two_way` and what else the paper tells (shares of 1); nothing where recordings are of a
            corpus that it did not measure.
    """
    known = [MODALITY_OF.get(part.facts.corpus, "") for part in parts]
    return PAPER[task].get("->".join(known))
