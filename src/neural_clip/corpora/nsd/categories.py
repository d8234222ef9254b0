"""COCO categories of NSD's images: those whose objects reach into the crop that was shown."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path

from neural_clip.corpora.nsd.design import StimInfo
from neural_clip.errors import DataError
from neural_clip.files.reading import existing


def annotation_files(annotations_dir: Path, stim_info: StimInfo, nsd_ids: Iterable[int]) -> list[Path]:
    """The annotation files that some images need."""
    return [_file(annotations_dir, split) for split in sorted({stim_info.coco_splits[i] for i in nsd_ids})]


def coco_categories(annotations_dir: Path, stim_info: StimInfo, nsd_ids: Iterable[int]) -> dict[int, list[str]]:
    """COCO categories visible in the crop that NSD showed.

    Args:
        annotations_dir (`Path`): Holds `instances_train2017.json` and `instances_val2017.json`.
        stim_info (`StimInfo`): From `read_stim_info`.
        nsd_ids (`Iterable[int]`): 0-based ids to look up.

    Returns:
        `dict[int, list[str]]`: Category names of each image, largest visible bounding box first; may be empty.

    Raises:
        DataError: If a file is absent or damaged, or does not know an image.

    cropBox is (top, bottom, left, right), fractions cut away (NSD data manual, "Experiments"). The bounding box
    decides what is visible: a category whose box reaches into the crop with background only is still listed.
    """
    wanted: dict[str, dict[int, int]] = {}
    for i in nsd_ids:
        wanted.setdefault(stim_info.coco_splits[i], {})[stim_info.coco_ids[i]] = i
    result: dict[int, list[str]] = {}
    for split, ids in wanted.items():
        path = _file(annotations_dir, split)
        sizes, names, boxes = _read_instances(path, ids)
        unknown = sorted(set(ids) - set(sizes))
        if unknown:
            raise DataError(f"'{path}' does not know COCO image {unknown[0]}, NSD's image {ids[unknown[0]]}.")
        areas: dict[int, dict[str, float]] = {i: {} for i in ids.values()}
        for coco_id, category, box in boxes:
            if category not in names:
                raise DataError(f"'{path}': an object of COCO image {coco_id} has the unknown category {category}.")
            area = visible_area(box, stim_info.crop_boxes[ids[coco_id]], *sizes[coco_id])
            if area > 0:
                largest = areas[ids[coco_id]]
                largest[names[category]] = max(area, largest.get(names[category], 0.0))
        for i, found in areas.items():
            result[i] = [name for _, name in sorted((-area, name) for name, area in found.items())]
    return result


def visible_area(
    box: tuple[float, float, float, float], crop_box: tuple[float, float, float, float], width: float, height: float
) -> float:
    """Area in pixels of the part of a COCO box (x, y, width, height) that the crop keeps."""
    top, bottom, left, right = crop_box
    x, y, box_width, box_height = box
    across = min(x + box_width, (1 - right) * width) - max(x, left * width)
    down = min(y + box_height, (1 - bottom) * height) - max(y, top * height)
    return max(across, 0.0) * max(down, 0.0)


def _file(annotations_dir: Path, split: str) -> Path:
    return annotations_dir / f"instances_{split}.json"


def _read_instances(path: Path, ids: Collection[int]) -> tuple[dict, dict, list]:
    """Sizes by image, names by category, and (image, category, box) of the wanted images.

    Objects are dropped as they are parsed: the outlines in COCO's files would fill gigabytes.
    """
    sizes: dict[int, tuple[float, float]] = {}
    names: dict[int, str] = {}
    boxes: list[tuple[int, int, tuple[float, float, float, float]]] = []

    def keep(entry: dict):
        if "bbox" in entry:
            if entry["image_id"] in ids:
                x, y, width, height = map(float, entry["bbox"])
                boxes.append((entry["image_id"], entry["category_id"], (x, y, width, height)))
        elif "width" in entry:
            sizes[entry["id"]] = (float(entry["width"]), float(entry["height"]))
        elif "name" in entry and "url" not in entry:  # licences have a name too
            names[entry["id"]] = str(entry["name"])
        return "annotations" in entry  # of the whole, which comes last

    existing(path, "COCO instances file")
    try:
        if json.loads(path.read_bytes(), object_hook=keep) is not True:
            raise KeyError("annotations")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"'{path}' is damaged or no COCO instances file: {error}") from error
    return sizes, names, boxes
