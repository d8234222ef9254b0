"""Small prepared data sets of THINGS: images by their names, and recordings with a planted linear signal."""

import zlib

import numpy as np

from neural_clip.prepared.writer import write_prepared
from planted_data import ENCODER, SHAPES, WIDTH, planted_maps


def concept_of(image_id):
    return image_id.rpartition("_")[0]


def embedding(image_id):
    """The same in every data set, and images of one concept are alike."""
    rngs = [np.random.default_rng(zlib.crc32(name.encode())) for name in (concept_of(image_id), image_id)]
    return (rngs[0].standard_normal(WIDTH) + 0.6 * rngs[1].standard_normal(WIDTH)).astype(np.float32)


def picture(image_id):
    """Pixels of its own."""
    return np.random.default_rng(zlib.crc32(image_id.encode())).integers(0, 255, (8, 8, 3), dtype=np.uint8)


def images_of(concepts, *endings):
    return [f"{concept}_{ending}" for concept in concepts for ending in endings]


def write_things(folder, corpus, modality, shown, *, n_people=2, repeats=2, noise=1.0, seed=0, simulated=True,
                 changed=0.0, encoder=ENCODER, n_repeats=1):  # fmt: skip
    """Write a data set whose recordings are `embedding @ map + noise`; returns the folder.

    `shown` has the image ids of each split; `changed` is how far image embeddings are from those of other data sets;
    without an `encoder` there are none. A row is said to be the mean of `n_repeats`.
    """
    rng = np.random.default_rng([seed, 11])
    ids = [image_id for names in shown.values() for image_id in names]
    own = {name: embedding(name) + changed * rng.standard_normal(WIDTH).astype(np.float32) for name in ids}
    images = [
        {"image_id": name, "concept": concept_of(name), "categories": []}
        | ({"image_embeds": own[name]} if encoder else {"image": picture(name)})
        for name in ids
    ]
    maps = planted_maps(modality, n_people)

    def recordings():
        for person in range(n_people):
            for split, names in shown.items():
                for name in names:
                    for _ in range(repeats):
                        values = embedding(name) @ maps[person]
                        values = values + noise * rng.standard_normal(values.shape)
                        values = values if SHAPES[modality] is None else values.reshape(SHAPES[modality])
                        yield {"subject": f"sub-{person + 1:02d}", "image_id": name, "split": split, modality: values,
                               "n_repeats": n_repeats}  # fmt: skip

    metadata = {
        "corpus": corpus, "modality": modality, "split_protocol": "paper", "split_unit": "image", "licence": "none",
        "redistribution": "allowed", "citation": "none", "source": "planted", "image_encoder": encoder,
        "simulated": {"preset": "planted", "seed": seed, "ceiling": None} if simulated else None,
    }  # fmt: skip
    if SHAPES[modality] is not None:
        metadata |= {"sfreq": 100.0, "tmin": 0.0, "ch_names": [f"C{i}" for i in range(SHAPES[modality][0])]}
    return write_prepared(folder, metadata, recordings(), images)
