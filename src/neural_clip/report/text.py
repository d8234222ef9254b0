"""Text of `report.md`; every number is read from `report.json`, nothing is computed again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

from neural_clip.markup import code, markdown_in_brackets, markdown_values
from neural_clip.markup import markdown as markdown_text
from neural_clip.prepared.modalities import title_of
from neural_clip.report.protocols import protocol_sections
from neural_clip.report.summary import summary
from neural_clip.report.tables import (
    aggregation_table,
    as_markdown,
    comparison_table,
    confidence_table,
    controls_table,
    conversion_table,
    decoding_table,
    direct_table,
    encoding_table,
    known_ceiling,
    label,
    method_name,
    of_splits,
    protocol_table,
    scope_notes,
    size_notes,
    sizes_table,
    subjects_table,
    ways_table,
)

SIMULATED_NOTE = (
    "SIMULATED recordings: no subject was recorded. The simulated corpora are calibrated so that per-subject ridge "
    "regression scores about what the paper reports. They show that the method works on data with a known answer, not "
    "how well real recordings can be decoded."
)
CATEGORY_NOTE = (
    "Category level: only the category of each presentation is known, the target is the category's mean embedding, "
    "and the gallery holds categories, not images. Train and test share these categories."
)
ENCODING_TEXT = (
    "Each test image retrieves the nearest recording (cosine in the shared space); the image behind that recording is "
    "compared with the query by their image embeddings, against all other test images. *Same image*: the retrieved "
    "recording was of the query image itself. Queries are all images; the gallery is all recordings (sizes above)."
)
CONVERSION_TEXT = (
    "Each test recording of the source retrieves the nearest test recording of the target; the image behind it is "
    "compared with the image behind the query by their image embeddings. *Normalised*: divided by the single-trial "
    "decoding 2-way score of the target modality in Table 1, same split; its interval carries the numerator's "
    "uncertainty only. Queries are all recordings of the source. *Paper (norm.)*: its plain and normalised scores."
)
WAYS_TEXT = (
    "*Recordings*: single recordings of the target are searched, as in Table 2. *Mean recordings*: the mean of all "
    "recordings of each image is searched. *Images*: single recordings are searched by the image embedding that is to "
    "be expected: the mean of {bank}, weighted by the softmax of their cosines with the query times exp(5); no label "
    "takes part.{scored} *By the weaker*: divided by the weaker of the decoding scores of source and target in Table "
    "1. What is converted passes through both, so a weak source is no failure of conversion."
)
CONFIDENCE_TEXT = (
    "*Confidence*: the probability that the first hit is right, by a softmax of the cosines with all images of the "
    "gallery. Its temperature was fitted before, on recordings that the model had not learnt from; nothing is fitted "
    "here. It takes for granted that the image that was seen is in the gallery. *ECE*: expected calibration error, "
    "the mean difference between confidence and share of right hits over bins of equal width (Guo et al. 2017, "
    "[arXiv:1706.04599](https://arxiv.org/abs/1706.04599), equation 3); 0 is the best. There are 15 bins, fewer where "
    "they would hold fewer than 20 queries on average. *By chance*: what so many queries would give if each "
    "confidence were right. The interval resamples images and allows for what chance adds to ECE, so it may lie below "
    "the score."
)
DIRECT_TEXT = (
    "The query looks for its own image in a gallery of recordings, averaged over all recordings of an image; no image "
    "embedding is involved. Conversion has this form where both modalities were recorded with the same images: equal "
    "embeddings, or equal names where both corpora show images of one database, such as THINGS. Of these, pictures "
    "count that one of the two tests and that the checkpoint was neither trained nor chosen on, whatever their split. "
    "The only right answer is the recording of that very picture; *cls-1* asks for its concept alone."
)
COMPARISON_TEXT = (
    "Differences of scores on the same queries in the same gallery. Intervals resample images (recordings at category "
    "level); `p` is two-sided, by flipping the signs of whole images. Methods that share queries can differ clearly "
    "even if their own intervals overlap."
)
AGGREGATION_TEXT = (
    "*Single trial*: every recording is a query. *Image mean within subject*: the mean embedding of a subject's "
    "recordings of an image. *Image mean over subjects*: that of all subjects. The first interval is about other "
    "images and these subjects. *Subjects drawn* resamples subjects too and is about other subjects, as far as so few "
    "allow."
)
UNDERSTANDING_TEXT = (
    "The numbers of each picture are saved beside it as CSV, and all of them in `understanding/understanding.json`. "
    "This file also says how well maps from two halves of the images agree: maps that do not agree are noise."
)
WAYS_PICTURE = "pictures/conversion_ways.png"  # stands beside its table
PICTURES_TEXT = (
    "Rows of images: left, the image behind the query; right, the five nearest, best first. Frames: green, the same "
    "image; amber, another image of the same concept or category; red, neither; grey, the labels of the two corpora "
    "cannot be compared. Rows are not chosen by eye: queries were ordered by their own score and taken at evenly "
    "spaced positions from best to worst."
)
# Whether the folder of a checkpoint holds other weights than those that were scored; nothing where it is not found.
CHANGED = {
    True: ". A folder of this name holds other weights now; the scores are of those named here.",
    False: "",
    None: ". There is no folder of this name here, so its weights were not compared with these.",
}


def markdown(
    report: dict,
    pictures: Mapping[str, str],
    missing: str = "",
    summaries: Mapping[str, str] | None = None,
    reliability: Mapping[str, str] | None = None,
) -> str:
    """Text of `report.md`.

    Args:
        report (`dict`): What `report.json` holds.
        pictures (`Mapping`): Title of each picture and its file name beside the report.
        missing (`str`): Why there are no pictures, where there are none.
        summaries (`Mapping`, *optional*): The same of the pictures of the summary.
        reliability (`Mapping`, *optional*): The same of the pictures of confidence.

    Returns:
        `str`: Markdown.
    """
    named, report = report, markdown_values(report)
    ours = method_name(report["checkpoints"][0]["name"])
    of_ways = {title: name for title, name in pictures.items() if name == WAYS_PICTURE}
    others = {title: name for title, name in pictures.items() if name != WAYS_PICTURE}
    sections: dict[str, Sequence[str | Callable]] = {
        "Summary": [summary(report), _side_by_side(summaries or {})],
        "Table 1. Decoding: which image was seen?": [decoding_table, _decoding_text(report), sizes_table],
        "Encoding: which recording answers to this image?": [encoding_table, ENCODING_TEXT],
        "Table 2. Conversion between modalities": [conversion_table, CONVERSION_TEXT] if report["conversion"] else [],
        "Conversion by three ways": [*_ways(report), *_pictures(of_ways)],
        f"Protocol: {_protocol_title(report['protocol'])}": [
            report["protocol"]["meaning"],
            protocol_table,
            *protocol_sections(report),
        ],
        "Confidence: how sure is the first hit?": _confidence(report, reliability or {}),
        "Direct encoding and conversion": [direct_table, _direct_text(report)],
        f"What {ours} gains": [comparison_table, COMPARISON_TEXT] if report["comparisons"] else [],
        "Controls beside the scores": [controls_table, _controls_text(report)] if report["controls"] else [],
        "Pictures": [markdown_text(missing) or PICTURES_TEXT, *_pictures(others)],
        "What was learned": _understanding(report),
        "All aggregations, both directions": [aggregation_table, AGGREGATION_TEXT],
        "Each subject, single trial": [subjects_table],
        "Known defects of the data": _defects(report),
        "The paper's figures": _paper_remarks(report),
        "How this was made": [_provenance(named)],
    }
    parts = _opening(report)
    for title, section in sections.items():
        if section:
            parts += [f"## {title}", *(p if isinstance(p, str) else as_markdown(p(report)) for p in section)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _paper_remarks(report: dict) -> list[str]:
    """How the paper's figures differ from ours, where any stand beside them."""
    parts = [*report["decoding"].values(), *report["encoding"].values(), *report["conversion"]]
    return ["\n".join(f"* {remark}" for remark in PAPER_REMARKS)] if any(part["paper"] for part in parts) else []


def _protocol_title(protocol: dict) -> str:
    """Name of the protocol, and under what it was scored where it goes person by person."""
    told = "; ".join(protocol.get("conditions", {}).values())
    return f"{protocol['name']} ({told})" if told else protocol["name"]


def _ways(report: dict) -> list[str | Callable]:
    """The table of the ways of conversion, where a report has it."""
    found = [part for part in report["conversion"] if "ways" in part]
    if not found:
        return []
    common = max(part["n_bank_scored"] for part in found)
    scored = f" Up to {common} of them are also scored: this way can find the image itself." if common else ""
    n_images = found[0]["n_bank_images"]
    bank = f"the {n_images} images of all training splits" if n_images else "training images, which are not at hand"
    return [ways_table, WAYS_TEXT.format(bank=bank, scored=scored)]


def _confidence(report: dict, pictures: Mapping[str, str]) -> list[str | Callable]:
    """Table and pictures of confidence, and who has none; nothing for a report of before."""
    notes = []
    for modality, records in report.get("confidence", {}).items():
        for record in records:
            name = f"{label(report, modality)}, {method_name(record['method'])}"
            if "not_computed" in record:
                notes.append(f"* {name}: no confidence. {record['not_computed']}")
            elif record["n_left_out"]:
                notes.append(f"* {name}: {record['n_left_out']} recordings have none. {' '.join(record['why'])}")
    found: list[str | Callable] = []
    if confidence_table(report)[1]:
        found = [confidence_table, CONFIDENCE_TEXT, _side_by_side(pictures)]
    return found + ["\n".join(notes)] * bool(notes)


def _opening(report: dict) -> list[str]:
    """Title, what nobody may overlook, and what the scores are."""
    notes = [SIMULATED_NOTE] if report["simulated"] else []
    notes += [CATEGORY_NOTE] if report["category_level"] else []
    notes += [
        f"{title_of(name)}: classes were shown in blocks; slow drift alone can tell them apart."
        for name, part in report["data"].items()
        if part["block_confounded"]
    ]
    notes += scope_notes(report)
    return [
        f"# Evaluation{' of simulated recordings' if report['simulated'] else ''}",
        *(f"**{note}**" for note in notes),
        f"Split: {report['split']}. Scores are means over single trials. `p`: 1,000 shuffles of the labels.",
    ]


def _controls_text(report: dict) -> str:
    """What each control means, and why some were not computed."""
    lines: dict[str, str] = {}
    for modality, records in report["controls"].items():
        for record in records:
            name = "Repeats" if "n_repeats" in record else record["check"].capitalize()
            lines.setdefault(name, f"* *{name}.* {record['meaning']}")
            if said := record.get("found") or record.get("not_computed"):
                said = said.rstrip(".")
                lines[f"{modality} {name}"] = f"* {label(report, modality)}, {record['check']}: {said}."
    return "\n".join(lines.values())


def _understanding(report: dict) -> list[str]:
    """Pictures of what was learned, where it was asked for."""
    if not report.get("understanding"):
        return []
    if missing := report["understanding"].get("missing"):
        return [missing]
    found = report["understanding"]["pictures"].items()
    return [UNDERSTANDING_TEXT, *_pictures({title: f"understanding/{name}" for title, name in found})]


def _pictures(pictures: Mapping[str, str]) -> list[str]:
    """Pictures by their titles."""
    return [f"![{title}]({quote(name)})" for title, name in pictures.items()]


def _side_by_side(pictures: Mapping[str, str]) -> str:
    """Small pictures in one paragraph."""
    return "\n".join(_pictures({markdown_in_brackets(title): name for title, name in pictures.items()}))


def _defects(report: dict) -> list[str]:
    """List of the known defects of all data sets, where there are some."""
    defects = [
        f"* {title_of(name)}, {part['corpus']}: {defect}"
        for name, part in report["data"].items()
        for defect in part["known_defects"] or []
    ]
    return ["\n".join(defects)] if defects else []


def _decoding_text(report: dict) -> str:
    """Remarks on Table 1."""
    lines = [
        "Top-k ranks the unique images of the gallery; cls-k asks whether one of the first k images is of the "
        "right class, and its chance counts the images each class has in this gallery. 2-way: all pairs of different "
        "images, ties one half. Intervals resample images (recordings at category level) 2,000 times with the gallery "
        "held fixed."
    ]
    for modality, part in report["decoding"].items():
        lines += [
            f"{label(report, modality)}: {row['method']} was not computed. {row['not_computed']}"
            for row in part["rows"]
            if "not_computed" in row
        ]
    lines += [*_held_out(report), *_reduced(report), *size_notes(report)]
    if any(known_ceiling(part["ceiling"], "two_way") is not None for part in report["decoding"].values()):
        lines.append(
            "Known-model ceiling: an observer of the simulation that knows its generative model. It was computed when "
            "the recordings were simulated, over a gallery of its own; real recordings have none."
        )
    return "\n\n".join(lines)


def _held_out(report: dict) -> list[str]:
    """Which strengths training recordings chose, where there are no validation images to choose by."""
    lines = []
    for modality, part in report["decoding"].items():
        folded = {row["method"]: row["fit"] for row in part["rows"] if "n_folds" in row.get("fit", {})}
        if folded:
            fit = next(iter(folded.values()))
            of = f", {fit['n_images']} in all" if fit.get("folds_over") == "images" else ""
            lines.append(
                f"{label(report, modality)}: strengths were chosen by held-out training recordings, in "
                f"{fit['n_folds']} folds over training {fit.get('folds_over', 'images')}{of}, as there are no two "
                f"validation images: {', '.join(folded)}."
            )
    return lines


def _reduced(report: dict) -> list[str]:
    """To what recordings were reduced before baselines were fitted on them, where they were."""
    found: dict[str, list[str]] = {}
    for modality, part in report["decoding"].items():
        for row in part["rows"]:
            fit = row.get("fit", {})
            said = [f"recordings reduced to {fit['reduced_to']}"] if "reduced_to" in fit else []
            said += [f"a part of the rows, {fit['rows_fitted']}"] if "rows_fitted" in fit else []
            if said:
                methods = found.setdefault(f"{label(report, modality)}: fitted on {', and on '.join(said)}", [])
                methods += [row["method"]] * (row["method"] not in methods)
    return [f"{what}: {', '.join(methods)}." for what, methods in found.items()]


def _direct_text(report: dict) -> str:
    """What the direct forms are, and which pairs have none."""
    common, without = list[str](), list[str]()
    for part in report["conversion"]:
        name, direct, same = label(report, part["source"], part["target"]), part["direct"], part.get("same_pictures")
        if same is not None:
            common.append(f"{name}: {_same_told(same)}")
        elif not direct:
            without.append(name)
        elif "n_common_images" in direct:  # reports of before lack it
            common.append(
                f"{name}: {direct['n_common_images']} pictures in common, {direct['by_name']} found by name."
            )
    without_any = [f"No two images in common: {', '.join(dict.fromkeys(without))}."] if without else []
    return " ".join([DIRECT_TEXT, *dict.fromkeys(common), *without_any])


def _same_told(same: Mapping) -> str:
    """Which pictures of two corpora of one database were converted exactly."""
    if not same["known"]:
        return "what the checkpoint has seen is not known, so that test recordings alone are compared."
    told = f"{same['images']} unseen pictures in common"
    if same["images"]:
        told += (
            f", for the queries{of_splits(same['query_splits'])}, for the gallery{of_splits(same['gallery_splits'])}"
        )
    seen = f"; {same['seen']} more were trained or chosen on and are left out" if same["seen"] else ""
    return f"{told}{seen}." + (" A score needs two." if same["images"] < 2 else "")


def _provenance(report: dict) -> str:
    """Command, checkpoints, data and versions."""
    lines = [f"* command: {code(report['command'])}"]
    lines += [
        f"* checkpoint {markdown_text(part['name'])}: {code(part['path'])}, SHA-256 of the weights `{part['sha256']}`"
        + CHANGED[part.get("changed", False)]
        for part in report["checkpoints"]
    ]
    for modality, data in report["data"].items():
        title, gallery = title_of(modality), data.get("gallery") or {}
        lines.append(f"* {title}: {code(data['folder'])}, {_data_set(data)}")
        if "fingerprint" in gallery:
            lines.append(f"* {title}, images searched beside its own: {code(gallery['name'])}, {_data_set(gallery)}")
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines += [f"* seed {report['seed']}; versions: {markdown_text(versions)}"]
    return "\n".join(lines)


def _data_set(facts: dict) -> str:
    """Corpus and fingerprint of a data set."""
    simulated = facts["simulated"]
    source = f"simulated, preset {simulated.get('preset')}, seed {simulated.get('seed')}" if simulated else "recorded"
    return f"corpus {markdown_text(facts['corpus'])} ({markdown_text(source)}), fingerprint `{facts['fingerprint']}`"


PAPER_REMARKS = (
    "The paper's figures come from its authors' splits, image encoder and code, on real recordings. They are "
    "here for orientation: scores on different data, galleries and definitions cannot be ranked.",
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
