"""Embedded splits of which one thing is another."""

from dataclasses import replace

from neural_clip.prepared.reader import PreparedSet


def changed(part, *, embeds=None, images=(), **facts):
    """A split with other embeddings, or of a data set with other facts or images."""
    data = PreparedSet(part.data.name, part.data.folder, replace(part.facts, **facts),
                       replace(part.data.images, **dict(images)))  # fmt: skip
    return replace(part, data=data, embeds=part.embeds if embeds is None else embeds)


def with_images(part, embeds):
    """The split with other embeddings of all images of its data set."""
    return changed(part, images={"embeds": embeds(part.data.images.embeds)})
