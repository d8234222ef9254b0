"""Prepared data sets as objects that are opened once and handed on: the whole set, its splits, its images.

```python
data = PreparedSet.open("data/things_meg")  # or "you/things_meg", a data set of the Hub
part = data.split("test", subjects=["sub-02"])
for rows, values in part.blocks(64):  # values: (64, n_chans, n_times) or a list of (n_voxels,)
    ...
```
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import quote

import numpy as np

from neural_clip.corpus_inputs import SEPARATOR, CorpusInputs, resampling
from neural_clip.errors import DataError, check_option
from neural_clip.files.fetched import folder_of
from neural_clip.files.places import command_line
from neural_clip.files.volumes import read_mask
from neural_clip.files.whole import moved_aside, sha256_of
from neural_clip.preparation import STATISTICS_FILE, Preparation
from neural_clip.prepared.facts import METADATA_FILE, Facts, read_metadata, verify_prepared
from neural_clip.prepared.image_rows import image_features
from neural_clip.prepared.image_table import ImageTable
from neural_clip.prepared.integrity import DATA_ADVICE
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.places import PLACES_FILE, in_mm, read_places
from neural_clip.prepared.recording_rows import recording_features
from neural_clip.prepared.splits import SPLITS
from neural_clip.prepared.stored_rows import check_columns, check_rows, check_stored, files_of, open_rows
from neural_clip.prepared.streamed_rows import ParquetFiles, StreamedRows, hub_files
from neural_clip.target_space import TargetSpace

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    import pyarrow as pa

Values = np.ndarray | list[np.ndarray]  # recordings of EEG and MEG, and of fMRI, where subjects differ in voxels
Rows = slice | Sequence[int] | np.ndarray
CORPUS_NAME = re.compile(r"[\w-]+")  # of several that are used together
IMAGE_FILES = "images/images-*.parquet"


class PreparedSet:
    """A prepared data set, opened once; make one with [`PreparedSet.open`].

    Args:
        name (`str`): The folder or Hub name that was asked for, as messages and reports say it.
        folder (`Path`): Where it lies on this machine.
        facts ([`Facts`]): What its `neural_clip.json` says.
        images ([`ImageTable`], *optional*): Read from the folder when first used unless given.
        streaming (`bool`): Read recordings from their Parquet files a row group at a time.
        most_kept (`int`, *optional*): Bytes of these that are kept in memory; by default a quarter of the machine's.
        prefix (`str`): What the names of its people begin with in `facts`, but not on disk.
    """

    def __init__(
        self, name: str, folder: Path, facts: Facts, images: ImageTable | None = None, streaming: bool = False,
        most_kept: int | None = None, prefix: str = "",
    ) -> None:  # fmt: skip
        self.name, self.folder, self.facts, self.streaming, self.most_kept = name, folder, facts, streaming, most_kept
        self._images, self.prefix = images, prefix
        self._recordings: dict[tuple[str, str], datasets.Dataset] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process, which reads from the folder; images go along where they are not those of the folder."""
        images, stored = self._images, (self.facts.targets or {}).get("sha256")
        images = None if images is None or images.sha256 == stored else images
        return PreparedSet, (
            self.name, self.folder, self.facts, images, self.streaming, self.most_kept, self.prefix
        )  # fmt: skip

    @classmethod
    def open(
        cls, folder: str | Path | PreparedSet, streaming: bool = False, most_kept: int | None = None
    ) -> PreparedSet:
        """Open a folder, or fetch a data set of that name from the Hub; an open one is returned as it is.

        Args:
            folder (`str`, `Path` or [`PreparedSet`]): Which.
            streaming (`bool`): Read recordings a row group at a time, those of the Hub from there; nothing is copied
                or written but what is beside the recordings.
            most_kept (`int`, *optional*): Bytes of row groups that are kept in memory; by default a quarter of what
                the machine has.

        Raises:
            DataError: If it is no prepared data set of this machine and cannot be had from the Hub, its facts are
                damaged, or a file has another size or footer than was written, is missing or was added.
        """
        if isinstance(folder, PreparedSet):
            return folder
        if moved_aside(folder, METADATA_FILE):
            read_metadata(folder)  # says where it lies
        advice = "Make a prepared one with `neural-clip prepare` and give its folder."
        local = folder_of(folder, "data set", advice, ignore_patterns="data/*" if streaming else None)
        facts = Facts.read(local)
        check_stored(local, facts, recordings=not streaming or local == Path(folder))
        return cls(str(folder), local, facts, streaming=streaming, most_kept=most_kept)

    def of_corpus(self) -> PreparedSet:
        """The same data set as one of several corpora: its people are called `corpus/sub-01`.

        Raises:
            DataError: If the corpus has a name that cannot be part of others.
        """
        corpus = self.facts.corpus
        if not CORPUS_NAME.fullmatch(corpus):
            raise DataError(
                f"'{self.name}' is of the corpus {corpus!r}. Where several corpora are used together, its name "
                "is part of the names of its people: letters, digits, '_' and '-' are allowed."
            )
        return self._renamed(f"{corpus}{SEPARATOR}")

    def alone(self) -> PreparedSet:
        """The same data set as the only one of its modality: its people are called `sub-01`."""
        return self._renamed("")

    def _renamed(self, prefix: str) -> PreparedSet:
        """The same data set with another prefix before the names of its people."""
        if prefix == self.prefix:
            return self
        facts = self.facts

        def called(name: str) -> str:
            return prefix + self.stored_name(name)

        scaling = dict(facts.scaling or {})
        if "fitted_on_own_rows" in scaling:
            scaling["fitted_on_own_rows"] = [called(name) for name in scaling["fitted_on_own_rows"]]
        renamed = replace(
            facts, scaling=scaling, subjects=[called(name) for name in facts.subjects],
            subject_splits={called(name): counts for name, counts in facts.subject_splits.items()},
            n_voxels=facts.n_voxels and {called(name): count for name, count in facts.n_voxels.items()},
        )  # fmt: skip
        return PreparedSet(self.name, self.folder, renamed, self._images, self.streaming, self.most_kept, prefix)

    def named_for(self, known: Iterable[str]) -> PreparedSet:
        """The data set with its people called `corpus/sub-01` where a model knows some of its corpus so."""
        prefix = f"{self.facts.corpus}{SEPARATOR}"
        return self.of_corpus() if any(name.startswith(prefix) for name in known) else self

    @property
    def key(self) -> str:
        """What a report calls it: `"eeg"`, or `"eeg.things_eeg2"` as one of several corpora."""
        return f"{self.facts.modality}.{self.facts.corpus}" if self.prefix else self.facts.modality

    def stored_name(self, subject: str) -> str:
        """A subject as the files call them."""
        return subject.removeprefix(self.prefix)

    def verify(self) -> PreparedSet:
        """The same data set, once its files are read whole and known to be those that were written.

        Raises:
            DataError: If a file was changed, added or lost ([`PreparedSet.open`] compares sizes and footers alone), or
                the folder holds another data set now.
        """
        if verify_prepared(self.folder).get("fingerprint") != self.facts.fingerprint:
            raise DataError(f"'{self.name}' was written again since it was opened. Open it again.")
        return self

    @property
    def images(self) -> ImageTable:
        """Ids, embeddings and labels of the images.

        Raises:
            DataError: If the images have not been embedded yet.
        """
        if self._images is None:
            self._images = self._read_images()
        return self._images

    def _read_images(self) -> ImageTable:
        """The image table of the folder."""
        if self.streaming:
            paths = files_of(self.folder, IMAGE_FILES)
            files = ParquetFiles([str(path) for path in paths])
            check_columns(paths, features := StreamedRows.of(files).features, image_features(False, None))
            names, read = list(features), files.column
        else:
            stored = self.stored_images
            names, read = stored.column_names, lambda columns: stored.select_columns(columns).with_format("arrow")[:]
        if "image_embeds" not in names:
            raise DataError(
                f"The images of '{self.name}' have no embeddings; run "
                f"{command_line('neural-clip', 'embed-images', self.name)}."
            )
        try:
            table = ImageTable.of_columns(read(ImageTable.COLUMNS))
        except DataError as error:
            raise DataError(f"The images of '{self.name}' are damaged: {error} {DATA_ADVICE}") from error
        written = self.facts.targets or {}
        if self.facts.format_version > 1 and written.get("sha256") != table.sha256:
            raise DataError(
                f"The image embeddings of '{self.name}' are not those that were written: {len(table.image_ids)} "
                f"images with the digest {table.sha256[:12]} instead of {written.get('images')} with "
                f"{str(written.get('sha256'))[:12]}. Images were added, left out, or have other embeddings; prepare "
                "the data set again."
            )
        return table

    def moved_to(self, space: TargetSpace | None) -> PreparedSet:
        """The same data set with the mean of another space subtracted from its image embeddings, in place of its own.

        Nothing is done where one of the two means is not known.
        """
        mine = self.facts.target_space
        if space is None or mine is None or mine.same_mean(space):
            return self
        images = replace(self.images, embeds=mine.moved(self.images.embeds, space))
        targets = {**(self.facts.targets or {}), "space": replace(mine, mean=space.mean).as_dict()}
        return self.with_facts(replace(self.facts, targets=targets), images)

    def with_facts(self, facts: Facts, images: ImageTable | None = None) -> PreparedSet:
        """The same files under other facts, or with other embeddings of their images."""
        images = images or self._images
        return PreparedSet(self.name, self.folder, facts, images, self.streaming, self.most_kept, self.prefix)

    @cached_property
    def preparation(self) -> Preparation | None:
        """What the rows went through; `None` for data sets of format 1."""
        try:
            return Preparation.of(self.facts.preparation)
        except ValueError as error:
            raise DataError(f"'{self.name}': {error}") from error

    @cached_property
    def statistics(self) -> dict[str, np.ndarray]:
        """Mean and deviation by which recordings were scaled, by [`tensor_name`]; empty where none were fitted.

        Raises:
            DataError: If the file is missing or is not the one that was written.
        """
        from safetensors.numpy import load_file

        if (expected := self.facts.scaling.get("statistics")) is None:
            return {}
        path = self.folder / STATISTICS_FILE
        if not path.is_file():
            raise DataError(f"'{self.name}' lacks '{STATISTICS_FILE}', by which its recordings were scaled.")
        if sha256_of([path]) != expected:
            raise DataError(f"'{path}' is not the file that was written. Prepare the data set again.")
        start = quote(self.prefix, safe="")  # as `tensor_name` writes it
        return {start + name: array for name, array in load_file(path).items()}

    @property
    def places_space(self) -> str | None:
        """The space of [`PreparedSet.voxel_places`]: `"MNI152"`, `"fsaverage"` or `None`."""
        return self.facts.places_space

    def voxel_places(self, subject: str) -> np.ndarray | None:
        """Where the voxels of a subject lie in the space that people share.

        Args:
            subject (`str`): One of the data set.

        Returns:
            `np.ndarray` of shape `(n_voxels, 3)`, float32, *optional*: In mm, in the order of the recordings' columns;
            `None` where the data set does not know them.

        Raises:
            DataError: If the file of places is missing, is not the one that was written, or does not fit.
        """
        return self._places.get(self.stored_name(self._known(subject)))

    def scanner_places(self, subject: str) -> np.ndarray | None:
        """Where the voxels of a subject lie in their own scanner, by the affine of `masks/<subject>.nii.gz`.

        Args:
            subject (`str`): One of the data set.

        Returns:
            `np.ndarray` of shape `(n_voxels, 3)`, float32, *optional*: In mm, in the order of the recordings' columns;
            `None` where the data set has no mask.

        Raises:
            DataError: If the mask is damaged or has another number of voxels.
        """
        path = self.folder / "masks" / f"{self.stored_name(self._known(subject))}.nii.gz"
        if not path.exists():
            return None
        mask, affine = read_mask(path)
        if (found := int(mask.sum())) != (stated := self.facts.n_voxels[subject]):
            raise DataError(f"'{path}' holds {found} voxels, but the recordings have {stated}. {DATA_ADVICE}")
        if affine is None or not np.isfinite(affine).all():
            raise DataError(f"'{path}' does not tell where its voxels lie: its affine is not finite. {DATA_ADVICE}")
        return in_mm(np.argwhere(mask), affine).astype(np.float32)

    @cached_property
    def _places(self) -> dict[str, np.ndarray]:
        """Places in the common space by subject."""
        path, facts = self.folder / PLACES_FILE, self.facts
        told = (facts.files or {}).get(PLACES_FILE, {}).get("sha256")
        if told is not None and path.is_file() and sha256_of([path]) != told:
            raise DataError(f"'{path}' is not the file that was written. {DATA_ADVICE}")
        n_voxels = {self.stored_name(name): count for name, count in (facts.n_voxels or {}).items()}
        return read_places(path, facts.places_space, n_voxels)

    def _known(self, subject: str) -> str:
        """The subject, if the data set has them."""
        check_option("subject", subject, self.facts.subjects)
        return subject

    @cached_property
    def stored_images(self) -> datasets.Dataset:
        """The `images` config with pixels, memory-mapped."""
        patterns = {"images": IMAGE_FILES}
        return open_rows(self.folder, patterns, self.facts.fingerprint, image_features(False, None))["images"]

    def split(self, name: str, subjects: Sequence[str] | None = None) -> Split:
        """Open the recordings of a split, memory-mapped.

        Args:
            name (`str`): `"train"`, `"validation"` or `"test"`.
            subjects (sequence of `str`, *optional*): Keep these, in this order; by default all.

        Raises:
            DataError: If there is no such split or subject, or nothing was recorded of these subjects in it.
        """
        wanted = self._recorded(name, subjects)
        recordings: Any = self._streamed(name, wanted) if self.streaming else self._mapped(name, wanted)
        labels = recordings.select_columns(["subject", "image_id"]).with_format("arrow")[:]
        subjects_found, image_ids = (np.array(labels[column].to_pylist()) for column in ("subject", "image_id"))
        stored = [self.stored_name(subject) for subject in wanted]
        stated = np.repeat([stored, wanted], [self.facts.subject_splits[subject][name] for subject in wanted], axis=1)
        if labels["image_id"].null_count or not np.array_equal(subjects_found, stated[0]):
            raise DataError(
                f"The {name} rows of '{self.name}' are damaged: some have no image, or lie in the folder of another "
                f"subject. {DATA_ADVICE}"
            )
        return Split(self, name, recordings, stated[1] if self.prefix else subjects_found, image_ids)

    @property
    def stored_bytes(self) -> int:
        """What recordings and images take without compression, as the footers of their files tell."""
        counts = self.facts.subject_splits
        people = {split: [name for name in self.facts.subjects if counts[name].get(split)] for split in SPLITS}
        images = [str(path) for path in files_of(self.folder, IMAGE_FILES)]
        files = [ParquetFiles(images), *(self._parquet(split, own) for split, own in people.items() if own)]
        return sum(each.n_bytes for each in files)

    def distinct(self, name: str, column: str = "image_id", subjects: Sequence[str] | None = None) -> np.ndarray:
        """What a column of texts says in a split, each text once, sorted, `(n,)` str; recordings are not opened.

        Args:
            name, subjects: As for [`PreparedSet.split`].
            column (`str`): Such as `"image_id"` or `"concept"`.

        Raises:
            DataError: As [`PreparedSet.split`], or if a file cannot be read, lacks the column or has rows without it.
        """
        wanted = self._recorded(name, subjects)
        files = self._parquet(name, wanted)
        self._check_rows(files, name, wanted)
        found = files.column([column])
        if column not in found.column_names or found[column].null_count:
            raise DataError(f"The {name} rows of '{self.name}' are damaged: some have no {column!r}. {DATA_ADVICE}")
        return np.unique(np.array(found[column].unique().to_pylist(), dtype=str))

    def shown_images(self, name: str) -> ImageTable:
        """The images that recordings of a split show, each once, sorted; errors as [`PreparedSet.distinct`]."""
        return self.images.of(self.distinct(name))

    def _recorded(self, name: str, subjects: Sequence[str] | None) -> list[str]:
        """Those of some subjects, or of all, who have recordings in a split; one at least."""
        check_option("split", name, SPLITS)
        asked = list(self.facts.subjects if subjects is None else subjects)
        if unknown := sorted(set(asked) - set(self.facts.subjects)):
            raise DataError(f"'{self.name}' has no subject {unknown}; it has {self.facts.subjects}.")
        wanted = [subject for subject in asked if self.facts.subject_splits[subject].get(name)]
        if not wanted:
            raise DataError(f"'{self.name}' has no {name} recordings of {asked}.")
        return wanted

    def row_groups(self, name: str, subjects: Sequence[str]) -> np.ndarray:
        """Number of the Parquet row group of each recording of a split, of these subjects, `(n,)` int."""
        return self._parquet(name, subjects).group_of_row

    def _mapped(self, name: str, subjects: Sequence[str]) -> datasets.Dataset:
        """Rows of a split, memory-mapped."""
        from datasets import concatenate_datasets

        return concatenate_datasets([self._of_subject(subject, name) for subject in subjects])

    def _streamed(self, name: str, subjects: Sequence[str]) -> StreamedRows:
        """Rows of a split, read when asked."""
        files = self._parquet(name, subjects)
        self._check_rows(files, name, subjects)
        return StreamedRows.of(files)

    def _check_rows(self, files: ParquetFiles, name: str, subjects: Sequence[str]) -> None:
        """Raise a `DataError` unless files hold as many rows as the facts say."""
        stated = sum(self.facts.subject_splits[subject][name] for subject in subjects)
        check_rows([Path(path) for path in files.paths], int(files.n_rows.sum()), stated)

    def _parquet(self, name: str, subjects: Sequence[str]) -> ParquetFiles:
        """Files of a split, here or on the Hub, in the order of its rows."""
        patterns = [f"data/{self.stored_name(subject)}/{name}-*.parquet" for subject in subjects]
        if not self.streaming or self.folder == Path(self.name):
            paths = [str(path) for each in patterns for path in files_of(self.folder, each)]
            return ParquetFiles(paths, most_bytes=self.most_kept)
        open_file, place = hub_files(self.name, self.folder.name)
        listed = self.facts.files or {}
        names = [file for each in patterns for file in sorted(listed) if fnmatchcase(file, each)]
        told = {f"{place}/{file}": listed[file] for file in names}
        return ParquetFiles(list(told), open_file, told, self.most_kept)

    def _of_subject(self, subject: str, name: str) -> datasets.Dataset:
        """A split of a subject, opened once: what is not asked for is not copied to the cache."""
        if (subject, name) not in self._recordings:
            facts = self.facts
            pattern = f"data/{self.stored_name(subject)}/{name}-*.parquet"
            shape = (facts.n_chans, facts.n_times) if MODALITIES[facts.modality].sensors else None
            columns = recording_features(facts.modality, shape)
            found = open_rows(self.folder, {name: pattern}, facts.fingerprint, columns)[name]
            check_rows(files_of(self.folder, pattern), len(found), facts.subject_splits[subject][name])
            self._recordings[subject, name] = found
        return self._recordings[subject, name]


@dataclass(frozen=True, eq=False)
class Split:
    """Recordings of one split of a prepared data set, read when asked, with the images that were seen.

    Args:
        data ([`PreparedSet`]): Where they come from.
        name (`str`): `"train"`, `"validation"` or `"test"`.
        recordings (`datasets.Dataset`, `np.ndarray` or `list[np.ndarray]`): Rows on disk, or values in memory.
        subjects, image_ids (`np.ndarray` of shape `(n,)`, str): Who was recorded in each row, and what was shown.
        searched ([`ImageTable`], *optional*): The gallery, sorted by id; every image of the split is in it. By
            default it is these images, each once.
        first_sample (`int`): Samples of EEG and MEG that are left out at the start whenever recordings are read.
        resampling (`np.ndarray` of shape `(n_stored_times, n_times)`, *optional*): A linear map over time that
            recordings of EEG and MEG pass through before that.
        decimation (`int`): Consecutive samples of EEG and MEG that are then averaged into one; what remains is left
            out.
        change (`Callable`, *optional*): What recordings of one shape pass through last: called with those that were
            read, `(n_rows, ...)`, and whose they are, `(n_rows,)`.
    """

    data: PreparedSet
    name: str
    recordings: datasets.Dataset | Values
    subjects: np.ndarray
    image_ids: np.ndarray
    searched: ImageTable | None = field(default=None, kw_only=True)
    first_sample: int = field(default=0, kw_only=True)
    resampling: np.ndarray | None = field(default=None, kw_only=True)
    decimation: int = field(default=1, kw_only=True)
    change: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = field(default=None, kw_only=True)

    by_row: ClassVar[tuple[str, ...]] = ("subjects", "image_ids")  # arrays with an entry for each recording

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in ("recordings", *self.by_row)}
        if len(set(lengths.values())) > 1:
            raise DataError(f"The {self.name} split of '{self.data.name}' has rows that do not match: {lengths}.")
        if self.searched is not None and (lacking := sorted(set(self.shown_ids) - set(self.searched.image_ids))):
            raise DataError(
                f"The gallery lacks {len(lacking)} of the {len(self.shown_ids)} images that the {self.name} split of "
                f"'{self.data.name}' shows, such as {str(lacking[0])!r}."
            )

    def __len__(self) -> int:
        return len(self.subjects)

    @property
    def facts(self) -> Facts:
        """What the data set says of itself."""
        return self.data.facts

    @property
    def modality(self) -> str:
        """`"eeg"`, `"meg"` or `"fmri"`."""
        return self.facts.modality

    @property
    def category_level(self) -> bool:
        """Whether "images" are categories."""
        return self.facts.category_level

    @cached_property
    def image_rows(self) -> np.ndarray:
        """Row of each recording's image in `data.images`, `(n,)` int64."""
        try:
            return self.data.images.rows_of(self.image_ids)
        except DataError as error:
            raise DataError(f"The {self.name} split of '{self.data.name}': {error}") from error

    @cached_property
    def targets(self) -> np.ndarray:
        """Embedding of each recording's image, `(n, projection_dim)` float32."""
        return self.data.images.embeds[self.image_rows]

    def targets_of(self, rows: np.ndarray) -> np.ndarray:
        """Those of some rows, `(n_rows, projection_dim)`; of many, all together take gigabytes."""
        return self.data.images.embeds[self.image_rows[rows]]

    @property
    def projection_dim(self) -> int:
        """Width of the embeddings of images."""
        return self.data.images.embeds.shape[1]

    @cached_property
    def shown_ids(self) -> np.ndarray:
        """The images of the split, each once, sorted, `(n_shown,)` str."""
        return np.unique(self.image_ids)

    @cached_property
    def shown_images(self) -> ImageTable:
        """The images of the split, each once, sorted."""
        return self.data.images.of(self.shown_ids)

    @cached_property
    def gallery_ids(self) -> np.ndarray:
        """The images that are searched, each once, sorted, `(n_images,)` str."""
        return self.shown_ids if self.searched is None else np.array(self.searched.image_ids, dtype=str)

    @cached_property
    def shown_columns(self) -> np.ndarray:
        """Positions in the gallery of the images of the split, `(n_shown,)`."""
        return np.searchsorted(self.gallery_ids, self.shown_ids)

    @cached_property
    def columns(self) -> np.ndarray:
        """Position of each recording's image in the gallery, `(n,)`."""
        return np.searchsorted(self.gallery_ids, self.image_ids)

    @cached_property
    def _gallery(self) -> ImageTable:
        """The images that are searched."""
        return self.shown_images if self.searched is None else self.searched

    @property
    def gallery_embeds(self) -> np.ndarray:
        """Embeddings of the gallery, `(n_images, projection_dim)` float32."""
        return self._gallery.embeds

    @property
    def gallery_concepts(self) -> list[str]:
        """Concept of each image of the gallery."""
        return self._gallery.concepts

    @property
    def gallery_categories(self) -> list[list[str]]:
        """Categories of each image of the gallery."""
        return self._gallery.categories

    def of_its_images(self) -> Self:
        """The same split, of which only its own images are searched."""
        return self if self.searched is None else replace(self, searched=None)

    @cached_property
    def _on_disk(self) -> Any:
        """The column of recordings as Arrow."""
        return self.recordings.select_columns([self.modality]).with_format("arrow")  # type: ignore[union-attr]

    def values(self, rows: Rows = slice(None)) -> Values:
        """Read recordings, from `first_sample` on and decimated.

        Args:
            rows (`slice` or sequence of `int`): Which; all by default.

        Returns:
            `np.ndarray` of shape `(n_rows, n_chans, n_times)`, float32, for EEG and MEG; a list of `n_rows` arrays of
            shape `(n_voxels,)` for fMRI.
        """
        values = self._read(rows)
        if isinstance(values, np.ndarray) and values.ndim == 3:
            if self.resampling is not None:
                values = values @ self.resampling
            values = values[:, :, self.first_sample :]
            if self.decimation > 1:
                n_times = values.shape[2] // self.decimation
                whole = values[:, :, : n_times * self.decimation]
                values = whole.reshape(*values.shape[:2], n_times, self.decimation).mean(axis=3)
        if self.change is None:
            return values
        return self.change(np.asarray(values), self.subjects[rows])

    def batch(self, rows: Rows) -> np.ndarray:
        """Recordings as one writable float32 array of its own, `(n_rows, ...)`, as [`padded`] makes it.

        Rows that were gathered from several places on disk are copied by that alone.
        """
        values = self.values(rows)
        gathered = self.change is None and not isinstance(self.recordings, np.ndarray | list)
        if gathered and isinstance(values, np.ndarray) and values.flags.writeable and values.flags.c_contiguous:
            return values
        return padded(values)

    def _read(self, rows: Rows) -> Values:
        """Recordings as they lie on disk or in memory."""
        if isinstance(self.recordings, np.ndarray):
            return self.recordings[rows]
        if isinstance(self.recordings, list):
            chosen = [self.recordings[row] for row in np.arange(len(self))[rows]]
            return np.stack(chosen) if chosen and chosen[0].ndim == 2 else chosen
        shape = getattr(self._on_disk.features[self.modality], "shape", None)  # (n_chans, n_times), voxels have none
        column = self._on_disk[rows][self.modality]
        if column.null_count:
            raise DataError(
                f"The {self.name} split of '{self.data.name}' has {column.null_count} rows without values."
            )
        parts, lengths = column_arrays(column, shape)
        if shape:
            if len(parts) == 1:
                return parts[0].astype(np.float32, copy=False).reshape(-1, *shape)
            return np.concatenate([*parts, np.zeros(0, np.float32)], dtype=np.float32).reshape(-1, *shape)
        parts = [part.astype(np.float32, copy=False) for part in parts]
        stated = np.array([self.facts.n_voxels[subject] for subject in self.subjects[rows]])
        if not np.array_equal(lengths, stated):
            row = int(np.argmax(lengths != stated))
            raise DataError(
                f"'{self.data.folder}/{METADATA_FILE}' says that {self.subjects[rows][row]} has {stated[row]} voxels, "
                f"but a {self.name} row has {lengths[row]}. {DATA_ADVICE}"
            )
        return _rows(parts, lengths)

    def blocks(self, n_rows: int) -> Iterator[tuple[slice, Values]]:
        """Go over all recordings, at most so many in memory at a time; yields rows and their values."""
        for start in range(0, len(self), n_rows):
            rows = slice(start, min(start + n_rows, len(self)))
            yield rows, self.values(rows)

    def loaded(self) -> Self:
        """The same split with all its recordings in memory."""
        values = self.values()
        values = np.ascontiguousarray(values) if isinstance(values, np.ndarray) else [row.copy() for row in values]
        return replace(self, recordings=values, first_sample=0, resampling=None, decimation=1, change=None)

    def rows_of(self, subject: str) -> np.ndarray:
        """Rows of a subject, `(n_rows,)`."""
        return np.flatnonzero(self.subjects == subject)

    def of_subject(self, subject: str) -> np.ndarray:
        """Recordings of one subject, `(n_rows, ...)`."""
        values = self.values(self.rows_of(subject))
        return values if isinstance(values, np.ndarray) else np.stack(values)

    def at(self, rows: np.ndarray) -> Self:
        """Some of the rows, by their indices; recordings are not copied."""
        recordings: Any = self.recordings
        if isinstance(recordings, np.ndarray | list):
            recordings = [recordings[int(row)] for row in rows]
        else:
            recordings = recordings.select(rows)
        return replace(self, recordings=recordings, **{name: getattr(self, name)[rows] for name in self.by_row})

    def named_for(self, known: Iterable[str]) -> Self:
        """The same split with people called as a model calls them ([`PreparedSet.named_for`])."""
        return self.called_as_in(self.data.named_for(known))

    def called_as_in(self, data: PreparedSet) -> Self:
        """The same split with people called as in another form of its data set."""
        if data is self.data:
            return self
        names = [data.prefix + self.data.stored_name(name) for name in self.subjects]
        return replace(self, data=data, subjects=np.array(names, dtype=str))

    def within(self, common: CorpusInputs) -> Self:
        """EEG or MEG in the window and at the rate that several corpora have in common ([`resampling`])."""
        facts = replace(self.facts, n_times=common.n_times, sfreq=common.sfreq, tmin=common.tmin)
        matrix = resampling(CorpusInputs.of(self.facts), common).astype(np.float32)
        return replace(self, data=self.data.with_facts(facts), resampling=matrix)

    def from_onset(self) -> Self:
        """EEG or MEG without the samples before image onset, which tell nothing of it; fMRI as it is."""
        return self if self.facts.tmin is None else replace(self, first_sample=self.facts.samples_before_onset)

    def labels(self, *columns: str) -> pd.DataFrame:
        """Further columns of the recordings on disk, such as `"session"` and `"trial"`, `n` rows."""
        return self.recordings.select_columns(list(columns)).to_pandas()  # type: ignore[union-attr]

    def as_fields(self) -> dict[str, Any]:
        """What a class that adds to a split is made from."""
        return {entry.name: getattr(self, entry.name) for entry in fields(Split)}


def padded(values: Values) -> np.ndarray:
    """Recordings as one writable float32 array `(n, ...)`; zeros follow voxels, channels and samples of others."""
    if isinstance(values, np.ndarray):
        return np.array(values, dtype=np.float32)
    shape = np.max([row.shape for row in values], axis=0) if values else (0,)
    laid = np.zeros((len(values), *shape), dtype=np.float32)
    for place, row in zip(laid, values, strict=True):
        place[tuple(map(slice, row.shape))] = row
    return laid


def column_arrays(column: pa.ChunkedArray, shape: tuple[int, ...] | None) -> tuple[list[np.ndarray], np.ndarray]:
    """Turn an Arrow column of arrays into flat arrays, one a chunk, and the length of each row.

    They are read-only views. Chunks are left apart: combined by Arrow, they could have more numbers than the offsets
    of a list can count. Going through Arrow's buffers is several times quicker than the numpy and torch formats of
    `datasets`.
    """
    import pyarrow.compute as pc

    # at once, since each chunk of `Array2D` would make its type anew
    lists = column.cast(getattr(column.type, "storage_type", column.type))
    values = pc.list_flatten(lists) if shape is None else pc.list_flatten(pc.list_flatten(lists))
    parts = [chunk.to_numpy(zero_copy_only=False) for chunk in values.chunks]
    if shape:
        return parts, np.full(len(lists), np.prod(shape))
    return parts, pc.list_value_length(lists).to_numpy().astype(np.int64)


def _rows(parts: list[np.ndarray], lengths: np.ndarray) -> list[np.ndarray]:
    """Each row of flat arrays, none of which ends within a row."""
    found, left = [], iter(lengths.tolist())
    for part in parts:
        start = 0
        while start < len(part):
            found.append(part[start : (start := start + next(left))])
    return found
