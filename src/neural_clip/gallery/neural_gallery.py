"""What is searched: images or recordings as vectors, and what stands behind each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.errors import check_option, check_value
from neural_clip.gallery.building import (
    encoder_of,
    rows_of_images,
    rows_of_recordings,
    split_images,
    split_recordings,
    table_images,
)
from neural_clip.gallery.columns import DTYPES, IMAGE, LAYER, column_of, joined, table_of
from neural_clip.gallery.confidence import NO_MODEL, NOT_CSLS, Confidences, Temperatures
from neural_clip.gallery.conversion import IMAGES, MEAN_RECORDINGS, RECORDINGS, WAYS, expected_images, training_images
from neural_clip.gallery.embedder import CheckpointIdentity, Embedder
from neural_clip.gallery.hits import Hits
from neural_clip.gallery.options import HITS
from neural_clip.gallery.pictures import Seen
from neural_clip.gallery.rows import GalleryRows
from neural_clip.gallery.search import local_scaling
from neural_clip.gallery.sharing import fetched, push_gallery, terms_of_data
from neural_clip.gallery.sources import images_in, opened
from neural_clip.gallery.stored import read_gallery, write_gallery
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import PreparedSet, Split
from neural_clip.retrieval.tiles import Vectors
from neural_clip.targets.identity import EncoderIdentity, identity_of, in_space_of

if TYPE_CHECKING:
    from neural_clip.modeling_neural_clip import NeuralClipModel
    from neural_clip.prepared.image_table import ImageTable

CALIBRATIONS = (None, "csls")
CSLS_NEIGHBOURS = 10  # as in arXiv:1710.04087


@dataclass(frozen=True, eq=False, repr=False)
class NeuralGallery(GalleryRows):
    """Vectors of images or recordings in one space. Decoding searches images, encoding and conversion recordings.

    Make one with [`NeuralGallery.from_images`], [`NeuralGallery.from_recordings`] or [`NeuralGallery.load_from_disk`].

    Args:
        rows (`datasets.Dataset`): `vector` (float32 or float16; cosines are compared), `modality` (`"image"`, `"eeg"`,
            `"meg"` or `"fmri"`), `image_id` (the image, or the one that a recording answered to), `concept`,
            `categories`, `subject`, `session`, `split`, `file` (an image, or the prepared data set it is in),
            `layer` (the subject whose alignment layer embedded a recording, or `"average"`) and `pixels` (the file of
            an image that lies nowhere else).
        encoder ([`EncoderIdentity`], *optional*): What embedded the images of this space.
        checkpoint ([`CheckpointIdentity`], *optional*): What embedded the recordings; `None` for images.
        embedder ([`Embedder`], *optional*): The model that makes vectors of queries.
        places (`tuple[Path]`): Folders in which pictures are looked for.
        terms (`dict[str, list[dict]]`): By modality, what the data sets state that rows were made of: corpus, licence,
            whether they may be redistributed. Of a modality that is not named nobody knows.
        index ([`GalleryIndex`], *optional*): Of [`NeuralGallery.with_index`]; searches are exact without.
        montage (`tuple[dict]`): Of each data set whose channels were interpolated, which and from which; see
            [`Interpolation`].
    """

    @classmethod
    def from_images(cls, model: Any, source: Any, *, dtype: str = DTYPES[0], processor: Any = None) -> NeuralGallery:
        """Embed images.

        Args:
            model ([`NeuralClipModel`], `str`, `Path` or [`ImageEncoder`]): A model, or its folder or Hub name. With
                an image encoder alone, `for_model` names the model before a search by recordings.
            source: A folder (with all below it), a list of files or images, a `datasets.Dataset` with a column of
                images, or a prepared data set or a split of it, whose stored embeddings are taken.
            dtype (`str`): `"float32"` or `"float16"`, which takes half the memory.
            processor ([`NeuralClipProcessor`], *optional*): By default the one that lies beside the model.

        Raises:
            DataError: If there are no images, a file is no image, or another encoder embedded a data set.
        """
        is_tower = hasattr(model, "encode") and hasattr(model, "description")
        embedder = None if is_tower else Embedder.of(model, processor)
        rows, encoder, terms = rows_of_images(embedder, model, source, dtype)
        return cls(rows, encoder, embedder=embedder, terms=terms)

    @classmethod
    def from_recordings(
        cls, model: Any, data: Any, *, subject: str | None = None, dtype: str = DTYPES[0], processor: Any = None,
        montage: str | None = None,
    ) -> NeuralGallery:  # fmt: skip
        """Embed recordings, some thousand at a time.

        Args:
            model ([`NeuralClipModel`], `str` or `Path`): A model, or its folder or Hub name.
            data ([`Split`], [`PreparedSet`], `str`, `Path`, or a list of them): Of any modalities and subjects; all
                splits of a data set.
            subject (`str`, *optional*): `"average"` for subjects that the model does not know (EEG, MEG).
            dtype, processor: As for [`NeuralGallery.from_images`].
            montage (`str`, *optional*): `"interpolate"` makes channels of the model that a data set lacks of those
                around them; by default it is refused.

        Raises:
            DataError: If a data set does not fit the model, another encoder embedded its images, or it went through
                other steps than the recordings that the model was trained on.
        """
        embedder = Embedder.of(model, processor)
        rows, encoder, terms, made = rows_of_recordings(embedder, data, subject, dtype, montage)
        return cls(rows, encoder, embedder.identity, embedder, terms=terms, montage=made)

    @classmethod
    def of_arrays(
        cls, modality: str, vectors: np.ndarray, image_ids: Any, encoder: EncoderIdentity | None = None,
        dtype: str = DTYPES[0], **columns: Any,
    ) -> NeuralGallery:  # fmt: skip
        """From vectors `(n, projection_dim)` and columns of the same length."""
        return cls(table_of(vectors, dtype, modality=modality, image_id=image_ids, **columns), encoder)

    @classmethod
    def of_images(cls, part: Split, model: NeuralClipModel | None = None, dtype: str = DTYPES[0]) -> NeuralGallery:
        """The images in which those of a split are looked for, each once; where a model is given, in its space.

        Raises:
            DataError: If another encoder made the images' embeddings than those that the model learnt.
        """
        part = _in_space_of(model, part)
        return cls(split_images(part, dtype), encoder_of(part), terms=terms_of_data(IMAGE, part.facts))

    @classmethod
    def of_recordings(
        cls, part: Split, vectors: np.ndarray, checkpoint: CheckpointIdentity | None = None,
        model: NeuralClipModel | None = None, dtype: str = DTYPES[0],
    ) -> NeuralGallery:  # fmt: skip
        """The recordings of a split, embedded by a checkpoint as `vectors`, `(n, projection_dim)`.

        Where its `model` is given, the images behind them are checked as in [`of_images`].
        """
        part = _in_space_of(model, part)
        terms = terms_of_data(part.modality, part.facts, part.subjects)
        return cls(split_recordings(part, vectors, dtype), encoder_of(part), checkpoint, terms=terms)

    @classmethod
    def of_table(cls, data: PreparedSet, table: ImageTable) -> NeuralGallery:
        """Images of a prepared data set, whose embeddings they have."""
        return cls(table_images(data, table), identity_of(data.facts), terms=terms_of_data(IMAGE, data.facts))

    @classmethod
    def load_from_disk(
        cls, folder: str | Path, model: Any = None, *, pictures: str | Path | None = None
    ) -> NeuralGallery:
        """Open a gallery that was saved.

        Args:
            folder (`str` or `Path`): Of [`NeuralGallery.save_to_disk`].
            model (*optional*): As for [`NeuralGallery.for_model`].
            pictures (`str` or `Path`, *optional*): Where the images lie by now: their folder or prepared data set.

        Raises:
            DataError: If it is no gallery, is damaged, or was made by another model.
        """
        rows, encoder, checkpoint, terms, montage = read_gallery(folder)
        places = (Path(folder), *([] if pictures is None else [Path(pictures)]))
        found = cls(rows, encoder, checkpoint, places=places, terms=terms, montage=montage)
        return found if model is None else found.for_model(model)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, model: Any = None, *, revision: str | None = None, token: str | None = None,
        cache_dir: str | Path | None = None, pictures: str | Path | None = None,
    ) -> NeuralGallery:  # fmt: skip
        """Open a gallery that was saved, or pushed to the Hub.

        Args:
            name (`str` or `Path`): Its folder, or `ORG/NAME`.
            model, pictures (*optional*): As for [`NeuralGallery.load_from_disk`].
            revision (`str`, *optional*): Branch, tag or commit on the Hub.
            token (`str`, *optional*): Of the Hub, in place of that of `hf auth login` or `HF_TOKEN`.
            cache_dir (`str` or `Path`, *optional*): Where files from the Hub are kept.

        Raises:
            DataError: If there is none, the Hub is out of reach, or as for [`NeuralGallery.load_from_disk`].
        """
        return cls.load_from_disk(fetched(name, revision, token, cache_dir), model, pictures=pictures)

    def save_to_disk(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the gallery into a folder, whole or not at all.

        Images are not copied: files near the folder are kept as relative paths, of others the name alone.

        Raises:
            DataError: If there is something else, or a gallery without `overwrite`.
        """
        terms = {modality: self.terms.get(modality) for modality in self.modalities}
        return write_gallery(
            folder, self.rows, self.encoder, self.checkpoint, terms, overwrite=overwrite, montage=self.montage
        )

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, commit_message: str = "Upload gallery",
        token: str | None = None, revision: str | None = None,
    ) -> str:  # fmt: skip
        """Upload to the Hub, with a card; private unless `private=False`. It becomes a repository of a data set.

        Args:
            repo_id (`str`): `ORG/NAME`, or `NAME` in your own namespace; made if it does not exist.
            private (`bool`, *optional*): `False` makes a public repository, where the terms of the data allow that.
            commit_message (`str`): Of the commit.
            token (`str`, *optional*): Of the Hub, in place of that of `hf auth login` or `HF_TOKEN`.
            revision (`str`, *optional*): Branch; made if it does not exist.

        Returns:
            `str`: Address of the repository.

        Raises:
            DataError: Before anything is sent, if it would become public against the terms of its data, the repository
                is public and `private=False` was not given or the other way round, or holds something else; also if
                the Hub is out of reach or refuses.
        """
        return push_gallery(
            self.save_to_disk, repo_id, "This NeuralGallery", private, token, message=commit_message, revision=revision
        )

    def decode(
        self, recordings: Any, subject: Any = None, *, top_k: int = HITS, modality: str | None = None,
        calibrate: str | None = None, **said: Any,
    ) -> Hits:  # fmt: skip
        """Which images do recordings look like?

        Args:
            recordings (`mne.Epochs`, array, nibabel image, rows of a prepared data set, [`Split`] or
                [`NeuralGallery`] of recordings): As [`NeuralClipProcessor`] takes them.
            subject (`str` or list of `str`, *optional*): Whose recordings these are; rows of a data set say so.
            top_k (`int`): Images found for each; all, best first, in a gallery that has fewer.
            modality (`str`, *optional*): Where arrays may be of several.
            calibrate (`str`, *optional*): `"csls"` lowers images that are near to many of the recordings that are
                given: transductive, because a hit depends on the other queries. No label takes part. Scores stay
                cosines.
            **said: What the processor is told: `session`, `unit`, `scaling`, `mask`, `ch_names`, `sfreq`,
                `tmin`, `montage`.

        Returns:
            [`Hits`]: `hits[0]` are those of the first recording. `hits[0].confidence` is the probability that the
            first of them is right, if the image that was seen is in this gallery; `None`, with a reason, where the
            checkpoint has no temperature.

        Raises:
            DataError: If this gallery holds recordings, `top_k` is below 1, or recordings do not fit the model.
        """
        self.check_kind(images=True, verb="decode")
        check_option("calibrate", calibrate, CALIBRATIONS)
        queries, titles, seen, temperatures = self._queries(recordings, subject, modality, said)
        if calibrate:
            asked = Vectors(queries, "queries")
            handicap = local_scaling(asked, self._searched, min(CSLS_NEIGHBOURS, len(asked)))
            return self._found(queries, top_k, titles, handicap=handicap, asked=seen, confidences=NOT_CSLS)
        confidences = Confidences(queries, self._searched, lambda: self._shares, temperatures)
        return self._found(queries, top_k, titles, asked=seen, confidences=confidences)

    def encode(self, images: Any, *, modality: str | None = None, top_k: int = HITS) -> Hits:
        """Which recordings answer to images?

        Args:
            images (`PIL.Image`, array, path, list of them, or [`NeuralGallery`] of images): What is asked for.
            modality (`str`, *optional*): Of the recordings that are searched; by default all.
            top_k (`int`): Recordings found for each; all, best first, where there are fewer.

        Raises:
            DataError: If this gallery holds images, has no such modality, or an image cannot be read.
        """
        self.check_kind(images=False, verb="encode")
        if isinstance(images, NeuralGallery):
            images.check_kind(images=True, verb="be asked for by 'encode'")
            self._require(images, "the queries", same_checkpoint=False)
            return self._found(images.vectors, top_k, images.image_ids.tolist(), modality)
        sources = list(images_in(images))
        pictures = [opened(source) for source in sources]
        vectors = self._embedder.embed_images(pictures)
        return self._found(vectors, top_k, [source.image_id for source in sources], modality, asked=pictures)

    def convert(
        self, recordings: Any, subject: Any = None, *, to: str, via: str = RECORDINGS, top_k: int = HITS,
        bank: NeuralGallery | None = None, modality: str | None = None, **said: Any,
    ) -> Hits:  # fmt: skip
        """Which recordings of another modality answer to recordings?

        Args:
            recordings, subject, modality, said: As for [`decode`].
            to (`str`): Modality of the recordings that are searched.
            via (`str`): `"recordings"` compares with single recordings; `"mean recordings"` with the mean of all that
                answered to one image; `"images"` compares single recordings with the image embedding to be expected:
                the mean of a bank of images, weighted by the softmax of their cosines times exp(5).
            top_k (`int`): Recordings found for each; all, best first, where there are fewer.
            bank ([`NeuralGallery`], *optional*): Images for `via="images"`; by default those of the training split
                that the checkpoint was trained on.

        Raises:
            DataError: If this gallery holds images or no such modality, or the bank is not at hand.
        """
        self.check_kind(images=False, verb="convert")
        check_option("to", to, self.modalities)
        check_option("via", via, WAYS)
        queries, titles, seen, _ = self._queries(recordings, subject, modality, said)
        if via == MEAN_RECORDINGS:
            return self.means_of(to)._found(queries, top_k, titles, asked=seen)
        if via == IMAGES:
            bank = self._training_images if bank is None else bank
            bank.check_kind(images=True, verb="be the bank of 'convert'")
            self._require(bank, "the bank of images", same_checkpoint=False)
            queries = expected_images(queries, bank.vectors)
        return self._found(queries, top_k, titles, to, asked=seen)

    def search_text(self, text: str | Sequence[str], *, modality: str | None = None, top_k: int = HITS) -> Hits:
        """Which images, or recordings, answer to words?

        Args:
            text (`str` or list of `str`): Each is a query.
            modality (`str`, *optional*): Of the rows that are searched; by default all.
            top_k (`int`): Rows found for each; all, best first, where there are fewer.

        Raises:
            DataError: If a text is empty or too long, or the model's image encoder has no text tower.
        """
        texts = [text] if isinstance(text, str) else list(text)
        check_value("text", text, bool(texts), "one text or more")
        return self._found(self._embedder.embed_texts(texts), top_k, texts, modality)

    def _queries(
        self, recordings: Any, subject: Any, modality: str | None, said: dict
    ) -> tuple[np.ndarray, list[str], Seen | None, Temperatures]:
        """Vectors, titles and temperatures of recordings, and the images that were seen, where it is known."""
        if isinstance(recordings, NeuralGallery):
            recordings.check_kind(images=False, verb="be asked for")
            self._require(recordings, "the queries", same_checkpoint=True)
            names = zip(column_of(recordings.rows, "modality"), recordings.subjects, strict=True)
            titles = [f"{MODALITIES[name].title}\n{who}" for name, who in names]
            behind = recordings.rows.select_columns(["image_id", "file", "pixels"]).with_format(None)
            seen = Seen(behind, list(recordings.places)) if any(recordings.image_ids.tolist()) else None
            return recordings.vectors, titles, seen, self._temperatures(recordings)
        found, vectors, layers = self._embedder.embed_with_layers(recordings, subject, modality, **said)
        who = f"\n{subject}" if isinstance(subject, str) else ""
        titles = [f"{MODALITIES[found].title} {number + 1}{who}" for number in range(len(vectors))]
        temperatures = Temperatures.of(self._embedder.model.config, [found] * len(vectors), layers)
        if not isinstance(recordings, Split):
            return vectors, titles, None, temperatures
        rows = [{"image_id": name, "file": str(recordings.data.folder)} for name in recordings.image_ids]
        return vectors, titles, Seen(rows, []), temperatures

    def _temperatures(self, recordings: NeuralGallery) -> Temperatures:
        """Temperatures of the recordings of a gallery, where the model that embedded them is at hand."""
        made_by = recordings.checkpoint
        for embedder in (recordings.embedder, self.embedder):
            if made_by is not None and embedder is not None and embedder.identity.sha256 == made_by.sha256:
                names = column_of(recordings.rows, "modality")
                return Temperatures.of(embedder.model.config, names, column_of(recordings.rows, LAYER))
        return Temperatures.none(len(recordings), NO_MODEL)

    @cached_property
    def _training_images(self) -> NeuralGallery:
        """Images of the training split that the model was trained on."""
        model = self._embedder.model
        parts = [
            NeuralGallery.of_table(moved, moved.images.of(table.image_ids))
            for data, table in training_images(str(model.name_or_path))
            for moved in [in_space_of(model.config, data, "The model")]
        ]
        return replace(parts[0], rows=joined([part.rows for part in parts]))


def _in_space_of(model: NeuralClipModel | None, part: Split) -> Split:
    """A split with its images in the space of a model."""
    return part if model is None else replace(part, data=in_space_of(model.config, part.data, "The model"))
