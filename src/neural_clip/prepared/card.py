"""The data set card (`README.md`) of a prepared data set."""

from __future__ import annotations

from pathlib import Path

from neural_clip.markup import markdown, one_line, python_text
from neural_clip.preparation import Preparation
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.splits import SPLITS
from neural_clip.terms import HUB_LICENCES

SIZE_CATEGORIES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


TEMPLATE = Path(__file__).with_name("card.md")


def card_text(metadata: dict) -> str:
    """Write the card of a prepared data set.

    Args:
        metadata (`dict`): Contents of `neural_clip.json`.

    Returns:
        `str`: YAML front matter with one config for all subjects (the default), one per subject and one of the
        images, then all that a reader must know: splits, preprocessing, scaling, defects, licence and citation.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    name = metadata.get("pretty_name") or f"{metadata['corpus']} prepared for neural_clip"
    if metadata.get("simulated") and "simulated" not in name:
        name += " (simulated)"
    card = DatasetCard.from_template(
        DatasetCardData(pretty_name=one_line(name), **_front_matter(metadata)),
        template_path=str(TEMPLATE),
        facts=metadata,
        modality=MODALITIES[metadata["modality"]],
        splits=SPLITS,
        others=_of_others(metadata),
        markdown=markdown,
        python_text=python_text,
    )
    return card.content + "\n"


def write_card(folder: Path, metadata: dict) -> None:
    """Write `README.md` into `folder`."""
    (Path(folder) / "README.md").write_text(card_text(metadata), encoding="utf-8")


def _of_others(metadata: dict) -> str:
    """Why recordings cannot be given the form of these; empty where they can, or the facts are of an older set."""
    preparation = Preparation.of(metadata.get("preparation"))
    return "" if preparation is None else preparation.said_of_others


def _front_matter(metadata: dict) -> dict:
    """Front matter with the configs that `load_dataset` reads."""
    counts = metadata["subject_splits"]
    present = [split for split in SPLITS if any(split in counts[subject] for subject in counts)]
    # `load_dataset` tells local folders apart in its cache by folder name and configs alone, not by contents: without
    # the fingerprint here it would give the old rows of a folder that was prepared or embedded again.
    about = f"fingerprint {metadata['fingerprint']}"
    all_files = {split: f"data/*/{split}-*.parquet" for split in present}
    configs = [_config("all", all_files, about, default=True)]
    for subject in metadata["subjects"]:
        files = {split: f"data/{subject}/{split}-*.parquet" for split in SPLITS if split in counts[subject]}
        configs.append(_config(subject, files, about))
    configs.append(_config("images", {"images": "images/images-*.parquet"}, about))
    rows = sum(metadata["splits"][split]["rows"] for split in present)
    licence = str(metadata["licence"]).lower()
    known = licence in HUB_LICENCES  # any other becomes `other` with its text in the card
    return {
        "license": licence if known else "other",
        "license_name": None if known else f"{one_line(metadata['corpus']).replace('_', '-')}-terms",
        "tags": ["neural-clip", metadata["modality"], "brain-decoding"]
        + (["simulated"] if metadata.get("simulated") else []),
        "size_categories": [size_category(rows)],
        "configs": configs,
    }


def size_category(rows: int) -> str:
    """How the Hub calls a data set of so many rows."""
    return next((name for limit, name in SIZE_CATEGORIES if rows < limit), "n>1M")


def _config(name: str, files: dict[str, str], description: str, default: bool = False) -> dict:
    return {
        "config_name": name,
        **({"default": True} if default else {}),
        "description": description,
        "data_files": [{"split": split, "path": path} for split, path in files.items()],
    }
