"""Write a page that decodes recordings of the shipped SIMULATED sample in the browser, for any static file server.

    make page
    python -m http.server --directory build/page

The folder holds the model of the sample's subject as ONNX, one file a modality, recordings and image embeddings as
float32, small pictures, and what `npm ci --prefix web` installed of onnxruntime-web. It needs no network.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neural_clip import NeuralClipModel, NeuralGallery
from neural_clip.errors import DataError, run
from neural_clip.files.places import place_line
from neural_clip.files.whole import whole_folder
from neural_clip.gallery.embedder import Embedder
from neural_clip.prepared.image_rows import stored_pictures
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import PreparedSet
from neural_clip.sample import CHECKPOINT, FOLDERS

WEB = Path(__file__).resolve().parents[1] / "web"
RUNTIME = WEB / "node_modules" / "onnxruntime-web" / "dist"
# Scripts end in .js: not every server knows .mjs as JavaScript.
COPIED = {
    WEB / "index.html": "index.html",
    WEB / "page.css": "page.css",
    WEB / "page.js": "page.js",
    RUNTIME / "ort.wasm.bundle.min.mjs": "onnxruntime.js",
    RUNTIME / "ort-wasm-simd-threaded.wasm": "onnxruntime.wasm",
}
SIDE = 96  # pixels of a picture
BATCH = ({0: torch.export.Dim("batch_size")},)


def write_page(output_dir: Path) -> None:
    """Write the folder, whole or not at all.

    Raises:
        DataError: If onnxruntime-web is not installed, or something else lies in the folder.
    """
    lacking = [str(path) for path in COPIED if not path.is_file()]
    if lacking:
        raise DataError(f"'{lacking[0]}' is missing; run `npm ci --prefix web`.")
    embedder = Embedder.of(CHECKPOINT)
    with whole_folder(output_dir, holds="page.json", what="static page", overwrite=True) as partial:
        sets = [write_set(partial, embedder, PreparedSet.open(folder)) for folder in FOLDERS.values()]
        for source, name in COPIED.items():
            shutil.copyfile(source, partial / name)
        (partial / "page.json").write_text(json.dumps(sets), encoding="utf-8")


def write_set(folder: Path, embedder: Embedder, data: PreparedSet) -> dict[str, Any]:
    """Files of one modality; returns what `page.js` knows of them."""
    part, modality = data.split("test"), data.facts.modality
    images = NeuralGallery.from_images(embedder, data)
    values = np.stack(list(part.values()))
    subject = data.facts.subjects[0]
    write_model(folder / f"{modality}.onnx", embedder.model, subject, modality, values[:2])
    values.astype("<f4").tofile(folder / f"{modality}_recordings.bin")
    images.vectors.astype("<f4").tofile(folder / f"{modality}_images.bin")
    rows = {image_id: row for row, image_id in enumerate(images.image_ids)}
    names = [str(concept or image_id) for concept, image_id in zip(images.concepts, images.image_ids, strict=True)]
    title = MODALITIES[modality].title
    return {
        "modality": modality,
        "title": f"SIMULATED {title}",
        "model": f"{modality}.onnx",
        "shape": list(values.shape[1:]),
        "recordings_file": f"{modality}_recordings.bin",
        "recordings": [
            {"name": names[rows[image_id]], "seen": rows[image_id],
             "title": f"SIMULATED {title} of {subject}, recording {number} of {len(part)}"}
            for number, image_id in enumerate(part.image_ids, 1)
        ],
        "vectors_file": f"{modality}_images.bin",
        "width": images.vectors.shape[1],
        "images": [
            {"image_id": str(image_id), "name": names[row], "picture": picture}
            for row, (image_id, picture) in enumerate(
                zip(images.image_ids, write_pictures(folder / modality, data, images), strict=True)
            )
        ],
    }  # fmt: skip


def write_model(path: Path, model: NeuralClipModel, subject: str, modality: str, values: np.ndarray) -> None:
    """A subject's model as ONNX, for a batch of any size."""
    branch = model.for_subject(subject, modality)
    program = torch.onnx.export(branch, (torch.from_numpy(values),), dynamo=True, dynamic_shapes=BATCH, verbose=False)
    program.save(path)  # type: ignore[union-attr]


def write_pictures(folder: Path, data: PreparedSet, images: NeuralGallery) -> list[str]:
    """Small pictures of a gallery; returns their places below the page."""
    folder.mkdir()
    stored = {image_id: row for row, image_id in enumerate(data.stored_images["image_id"][:])}
    pictures = stored_pictures(data.stored_images, [stored[name] for name in images.image_ids], data.folder)
    for row, picture in enumerate(pictures):
        if picture is None:
            raise DataError(f"'{data.name}' has no pixels of image {images.image_ids[row]!r}.")
        picture.thumbnail((SIDE, SIDE))
        picture.save(folder / f"{row:03d}.png")
    return [f"{folder.name}/{row:03d}.png" for row in range(len(pictures))]


def main(argv: Any = None) -> None:
    """Read the options and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, default=Path("build/page"), help="(default: build/page)")
    output_dir = parser.parse_args(argv).output_dir
    write_page(output_dir)
    print(place_line("page", output_dir))


if __name__ == "__main__":
    run(main)
