"""The data set card (`README.md`) of a prepared data set."""

from __future__ import annotations

from pathlib import Path

from neural_clip.prepared.splits import SPLITS

# Identifiers that the Hub knows; any other licence becomes `other` with its text in the card.
HUB_LICENCES = (
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "bsd-3-clause",
    "mit",
    "apache-2.0",
)
SIZE_CATEGORIES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def card_text(metadata: dict) -> str:
    """Write the card of a prepared data set.

    Args:
        metadata (`dict`): Contents of `neural_clip.json`.

    Returns:
        `str`: YAML front matter with one config for all subjects (the default), one per subject and one of the
        images, then all that a reader must know: splits, preprocessing, scaling, defects, licence and citation.
    """
    import yaml

    front = yaml.safe_dump(_front_matter(metadata), sort_keys=False, allow_unicode=True, width=110)
    parts = [f"---\n{front}---\n", f"# {_pretty_name(metadata)}\n", _warnings(metadata), _usage(metadata)]
    parts += [_split_table(metadata), _facts(metadata), _findings(metadata), _terms(metadata)]
    return "\n".join(part for part in parts if part)


def write_card(folder: Path, metadata: dict) -> None:
    """Write `README.md` into `folder`."""
    (Path(folder) / "README.md").write_text(card_text(metadata), encoding="utf-8")


def _pretty_name(metadata: dict) -> str:
    name = metadata.get("pretty_name") or f"{metadata['corpus']} prepared for neural_clip"
    return f"{name} (simulated)" if metadata.get("simulated") and "simulated" not in name else name


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
    front: dict = {"pretty_name": _pretty_name(metadata), "license": licence if licence in HUB_LICENCES else "other"}
    if front["license"] == "other":
        front["license_name"] = f"{metadata['corpus'].replace('_', '-')}-terms"
    front["tags"] = ["neural-clip", metadata["modality"], "brain-decoding"]
    front["tags"] += ["simulated"] if metadata.get("simulated") else []
    front["size_categories"] = [next((name for limit, name in SIZE_CATEGORIES if rows < limit), "n>1M")]
    return front | {"configs": configs}


def _config(name: str, files: dict[str, str], description: str, default: bool = False) -> dict:
    config: dict = {"config_name": name}
    if default:
        config["default"] = True
    return config | {
        "description": description,
        "data_files": [{"split": split, "path": path} for split, path in files.items()],
    }


def _warnings(metadata: dict) -> str:
    """Warnings that come first."""
    lines = []
    if metadata.get("simulated"):
        lines.append("**Simulated recordings.** They come from a generative model, not from subjects or a scanner.")
    if metadata.get("partial"):
        listed = "; ".join(
            f"{name} {both['found']} of {both['declared']}" for name, both in metadata["partial"].items()
        )
        lines.append(f"**Part of the corpus.** Scores cannot be compared with those of the whole: {listed}.")
    if metadata.get("category_level"):
        lines.append(
            "**Category level.** Only the category shown is known per trial: `image_id` names a category and its "
            "target is the mean embedding of that category's images. Scores on this set are category decoding."
        )
    if metadata.get("block_confounded"):
        lines.append(
            "**Block design.** All images of a class were shown in one block, so slow drifts alone tell the classes "
            "apart; within-subject scores are inflated by an unknown amount."
        )
    if metadata.get("redistribution") == "forbidden":
        lines.append("**Redistribution is forbidden** by the terms of the source. Keep this folder private.")
    return "\n".join(f"> {line}\n" for line in lines)


def _usage(metadata: dict) -> str:
    subject = metadata["subjects"][0]
    return (
        "```python\nfrom datasets import load_dataset\n\n"
        'recordings = load_dataset("<this folder>", "all", split="train")  # default config, all subjects\n'
        f'one_subject = load_dataset("<this folder>", "{subject}", split="train")\n'
        'images = load_dataset("<this folder>", "images", split="images")\n```\n'
    )


def _split_table(metadata: dict) -> str:
    lines = ["## Splits\n", f"{metadata['split_protocol']} (disjoint by {metadata['split_unit']})\n"]
    lines += ["| split | rows | images | concepts |", "|---|---:|---:|---:|"]
    for split in SPLITS:
        count = metadata["splits"][split]
        lines.append(f"| {split} | {count['rows']} | {count['images']} | {count['concepts']} |")
    lines += ["", "| subject | train | validation | test |", "|---|---:|---:|---:|"]
    for subject, count in metadata["subject_splits"].items():
        lines.append(f"| {subject} | " + " | ".join(str(count.get(split, 0)) for split in SPLITS) + " |")
    return "\n".join(lines) + "\n"


def _facts(metadata: dict) -> str:
    """One line per fact that is known."""
    lines = ["## Recordings\n", f"- modality: {metadata['modality']}, unit: {metadata.get('unit') or 'not stated'}"]
    if metadata["modality"] == "fmri":
        voxels = ", ".join(f"{subject} {n}" for subject, n in (metadata.get("n_voxels") or {}).items())
        lines.append(f"- voxels: {voxels}; region: {metadata.get('roi') or 'not stated'}")
    else:
        lines.append(
            f"- {metadata['n_chans']} channels x {metadata['n_times']} samples at {metadata['sfreq']} Hz, "
            f"first sample at {metadata['tmin']} s from onset"
        )
    if metadata.get("average_repeats"):
        lines.append("- repeats of an image were averaged (`n_repeats` tells how many)")
    for key in ("preprocessing", "scaling"):
        lines += [f"- {key}: {name} = {value}" for name, value in (metadata.get(key) or {}).items()]
    if metadata.get("declared"):
        lines.append(
            "- checked against: " + ", ".join(f"{name} {value}" for name, value in metadata["declared"].items())
        )
    encoder = metadata.get("image_encoder")
    if encoder:
        lines.append("- image embeddings: " + ", ".join(f"{name} {value}" for name, value in encoder.items()))
    else:
        lines.append("- image embeddings: none yet; run `neural-clip embed-images <this folder>`")
    if metadata.get("known_defects"):
        lines += ["", "## Known defects\n"] + [f"- {defect}" for defect in metadata["known_defects"]]
    return "\n".join(lines) + "\n"


def _findings(metadata: dict) -> str:
    """Findings of the doctor."""
    findings = metadata.get("findings")
    if not findings:
        return ""
    lines = [f"- {one['severity']}: {one['check']}: {one['message']} {one['consequence']}" for one in findings]
    return "## Findings of the doctor\n\n" + "\n".join(lines) + "\n"


def _terms(metadata: dict) -> str:
    terms = f"Terms: {metadata['terms']}\n\n" if metadata.get("terms") else ""
    return (
        f"## Licence and source\n\nLicence: {metadata['licence']}\n\nRedistribution: {metadata['redistribution']}\n\n"
        f"{terms}"
        f"Source: {metadata['source']}\n\nPlease cite: {metadata['citation']}\n\n"
        f"Fingerprint of the Parquet files (SHA-256): `{metadata['fingerprint']}`\n"
    )
