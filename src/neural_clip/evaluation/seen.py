"""What a checkpoint has seen of the images that are scored: by the record of its training, in whichever corpus.

The control *overlap with training* compares with the training split of the scored data set; this one knows the other
corpora of a shared database (`prepared/stimuli.py`) that the checkpoint was trained and chosen on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neural_clip.configuration_neural_clip import AVERAGE_SUBJECT
from neural_clip.errors import DataError
from neural_clip.evaluation.protocols import PROTOCOLS
from neural_clip.files.record import read_record
from neural_clip.gallery.fit import called_by
from neural_clip.prepared.reader import PreparedSet, Split
from neural_clip.prepared.stimuli import database_of, numbered, shown_images

if TYPE_CHECKING:
    from neural_clip.modeling_neural_clip import NeuralClipModel

FITTED_SPLITS = ("train", "validation")  # that a closed form has seen
CHOSEN_BY = {"validation": "validation recordings", "folds": "cross-validation over training recordings",
             "none": "nothing: its last weights"}  # fmt: skip


def seen_in_training(checkpoint: str | Path, data: PreparedSet, split: str) -> dict | None:
    """Images and concepts of a split that a checkpoint was trained or chosen on.

    Args:
        checkpoint (`str` or `Path`): A folder; of a name on the Hub nothing is known.
        data ([`PreparedSet`]): What is scored.
        split (`str`): Its split.

    Returns:
        `dict`, *optional*: `images` and `concepts`, how many were seen; `scored_images` and `scored_concepts`, of how
        many; `by`, the corpora that showed them; `foreign`, whether another corpus than the scored one is among these.
        `None` for images that one corpus alone names so. `known` is false where the record does not tell, or the
        scored images have numbers in place of names and others of their database were trained on.
    """
    if database_of(data.facts.corpus) is None:
        return None
    if (listed := images_seen(checkpoint, data)) is None:
        return {"known": False}
    shown = data.shown_images(split)
    images, concepts = set(shown.image_ids), set(shown.concepts) - {""}
    found = [
        (corpus, images & set(named), concepts & (set(named.values()) - {""})) for corpus, named in listed
    ]  # fmt: skip
    return {
        "known": True, "scored_images": len(images), "scored_concepts": len(concepts),
        "images": len(set().union(*(own for _, own, _ in found))),
        "concepts": len(set().union(*(own for _, _, own in found))),
        "by": sorted({corpus for corpus, *own in found if any(own)}),
        "foreign": any(corpus != data.facts.corpus and any(own) for corpus, *own in found),
    }  # fmt: skip


def images_seen(checkpoint: str | Path, data: PreparedSet) -> list[tuple[str, dict[str, str]]] | None:
    """Images that a checkpoint was trained or chosen on, of the database that a data set shows.

    Args:
        checkpoint (`str` or `Path`): A folder; of a name on the Hub nothing is known.
        data ([`PreparedSet`]): Of a corpus that shows images of a database.

    Returns:
        `list[tuple[str, dict[str, str]]]`, *optional*: As of [`shown_images`]; `None` where it is not known.
    """
    database = database_of(data.facts.corpus)
    record = read_record(checkpoint) if Path(checkpoint).is_dir() else None
    if database is None or record is None:
        return None
    listed = shown_images(record, database, str(checkpoint))
    if listed and numbered(data.images.image_ids):  # names cannot be told
        listed = None
    if listed is None and _trained_on_it_alone(record, database, data):
        return [(data.facts.corpus, _learnt_from(data))]
    return listed


def _trained_on_it_alone(record: Mapping, database: str, data: PreparedSet) -> bool:
    """Whether the scored data set is the only one of its database that a record of before images were listed names."""
    trained = [part for part in record.get("data", {}).values() if database_of(part.get("corpus", "")) == database]
    return bool(trained) and all(part.get("fingerprint") == data.facts.fingerprint for part in trained)


def _learnt_from(data: PreparedSet) -> dict[str, str]:
    """Concept of each image of the training and validation splits."""
    splits = [split for split in ("train", "validation") if (data.facts.splits.get(split) or {}).get("rows")]
    shown = [data.shown_images(split) for split in splits]
    return {image_id: concept for images in shown
            for image_id, concept in zip(images.image_ids, images.concepts, strict=True)}  # fmt: skip


def check_seen(protocol: str, checkpoint: str | Path, data: PreparedSet, seen: Mapping | None) -> None:
    """Raise where a protocol forbids that images or concepts of a split were trained on.

    Raises:
        DataError: If a test image was (for protocols of a corpus), or a test concept (for zero-shot ones).
    """
    asked = PROTOCOLS[protocol]
    if seen is None or not seen["known"]:
        return
    for unit, forbidden in (("concepts", asked.zero_shot), ("images", asked.zero_shot or asked.corpus is not None)):
        if forbidden and seen[unit]:
            raise DataError(
                f"Protocol '{protocol}' needs test {unit} that nothing was trained or chosen on, but {seen[unit]} of "
                f"the {seen[f'scored_{unit}']} of '{data.name}' are among the training or validation images of "
                f"'{checkpoint}' ({', '.join(seen['by'])}). Train without them, or choose another protocol."
            )


def chosen_by(checkpoint: str | Path) -> str:
    """What chose the weights of a checkpoint, as its record says; never the test split."""
    record = read_record(checkpoint) if Path(checkpoint).is_dir() else None
    if record is None or "validation" not in record:
        return "not known"
    kind = "folds" if "cross_validation" in record else "validation" if record["validation"] else "none"
    return CHOSEN_BY[kind]


def known_people(config: Any, data: PreparedSet) -> list[str]:
    """Those of a data set's people whom a model knows, as the set calls them; `sub-01` of another corpus is another.

    Args:
        config (`EegConfig`, `MegConfig` or `FmriConfig`): Of the model's encoder.
        data ([`PreparedSet`]): What is scored.
    """
    entries = getattr(config, "trained_on", None)
    if entries is None or any("subjects" not in entry for entry in entries):  # an older checkpoint: by name alone
        names = set(config.subjects)
    else:
        own = [entry["subjects"] for entry in entries if entry["corpus"] == data.facts.corpus]
        names = {name for subjects in own for name in subjects}
    known = {name.rpartition("/")[2] for name in names}
    return [name for name in data.facts.subjects if data.stored_name(name) in known]


def seen_by_closed_form(model: NeuralClipModel, part: Split, subject: str | None) -> list[str]:
    """Scored people on whose training and validation recordings the closed form was fitted that embeds theirs.

    Args:
        model ([`NeuralClipModel`]): What is scored.
        part ([`Split`]): What is scored of its data set, by the training or validation split.
        subject (`str`, *optional*): `"average"`, or each person's own layer.
    """
    if part.name not in FITTED_SPLITS or part.modality not in model.closed_forms:
        return []
    config, closed_form = getattr(model.config, f"{part.modality}_config"), model.closed_forms[part.modality]
    called = dict(zip(part.subjects.tolist(), part.called_as_in(called_by(config, part.data)).subjects, strict=True))
    learnt = closed_form.averaged() if subject else config.subjects
    layers = {name: AVERAGE_SUBJECT if subject else config.subjects.index(called[name])
              for name in known_people(config, part.data) if called.get(name) in learnt}  # fmt: skip
    return sorted(name for name, layer in layers.items() if closed_form.parts_of(layer)["parts"][1] > 0)


def check_unseen_people(protocol: str, checkpoint: str | Path, known: list[str], scored: list[str]) -> None:
    """Raise where somebody is scored who was trained on, but the protocol is about people who were not."""
    if PROTOCOLS[protocol].unseen_people and (seen := sorted(set(known) & set(scored))):
        raise DataError(
            f"Protocol '{protocol}' is about people who were not trained on, but '{checkpoint}' knows "
            f"{', '.join(seen)}. `neural-clip leave-one-person-out` trains a checkpoint without each person."
        )
