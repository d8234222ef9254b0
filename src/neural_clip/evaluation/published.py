"""Published scores that a protocol may stand beside, and what chose the checkpoint behind each.

Only figures that were read in the named sources are here; `None` stands where the source of the choice was read but no
figure. Whether a checkpoint was chosen on the test images was read in the published code, unless `chosen_by` says
otherwise.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

EXACT, TEMPLATES, CATEGORIES = "exact images", "concept templates", "categories"
WITHIN, UNSEEN = "same people", "unseen people"
NOT_KNOWN = "not known"


@dataclass(frozen=True)
class Published:
    """One published result.

    Args:
        name (`str`): As the field calls it.
        corpus (`str`): What was recorded.
        source (`str`): Where the figures and the choice of the checkpoint were read.
        people (`str`): `"same people"` where those who are tested were trained on, or `"unseen people"`.
        gallery (`str`): `"exact images"` or `"concept templates"`, two different tasks.
        top1, top5 (`float`, *optional*): Shares, mean over people.
        chosen_by (`str`): What chose the checkpoint.
        on_test_images (`bool`, *optional*): Whether that were the test images; `None` where it is not known.
    """

    name: str
    corpus: str
    source: str
    people: str
    gallery: str
    top1: float | None
    top5: float | None
    chosen_by: str
    on_test_images: bool | None

    def as_dict(self) -> dict:
        """For `report.json`."""
        return asdict(self)


THINGS_EEG2 = (
    Published("NICE", "things_eeg2", "arXiv:2308.13234; code a7709d8", WITHIN, TEMPLATES, 0.156, 0.428,
              "740 random training images, whose concepts stay in training", False),
    Published("ATM", "things_eeg2", "arXiv:2403.07721; issue 21 of its code", WITHIN, EXACT, None, None,
              "the highest test accuracy over epochs", True),
    Published("UBP", "things_eeg2", "arXiv:2503.04207; code 89d8b83", WITHIN, EXACT, 0.509, 0.797,
              "the training loss", False),
    Published("NeuroBridge", "things_eeg2", "code 6144203", WITHIN, EXACT, 0.632, 0.899,
              "the epoch of the best test loss (the last epoch is told as well)", True),
    Published("SAMGA", "things_eeg2", "arXiv:2604.17782, abstract", WITHIN, EXACT, 0.913, 0.988, NOT_KNOWN, None),
)  # fmt: skip
THINGS_EEG2_UNSEEN = (
    Published("UBP", "things_eeg2", "arXiv:2503.04207; code 89d8b83", UNSEEN, EXACT, None, None,
              "the same 200 images, seen by the people who were trained on", True),
    Published("SAMGA", "things_eeg2", "arXiv:2604.17782, abstract", UNSEEN, EXACT, 0.344, 0.648, NOT_KNOWN, None),
)  # fmt: skip
THINGS_MEG = (
    Published("BrainFLORA", "things_meg", "its paper", WITHIN, EXACT, 0.080, 0.244, NOT_KNOWN, None),
    Published("neural_CLIP (Ferrante et al.)", "things_meg", "arXiv:2411.09723; code c0c4ce6", WITHIN, EXACT,
              0.012, 0.061, "the test split, which steers the learning rate; its top-k are no ranks", True),
)  # fmt: skip
