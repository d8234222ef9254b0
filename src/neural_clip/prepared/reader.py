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
from neural_clip.prepared.stored_rows import check_rows, check_stored, files_of, open_rows
from neural_clip.prepared.streamed_rows import ParquetFiles, StreamedRows, hub_files
from neural_clip.target_space import TargetSpace

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    import pyarrow as pa

Values = np.ndarray | list[np.ndarray]  # recordings of EEG and MEG, and of fMRI, where subjects differ in voxels
Rows = slice | Sequence[int] | np.ndarray
CORPUS_NAME = re.compile(r"[\w-]+")  # of several that are used together
MAX_COMBINED = 2**30  # bytes of a column that becomes one array: the offsets of Arrow's lists end at 2^31 numbers


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
        self._recordings: dict[str, datasets.DatasetDict] = {}

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
        facts = self.facts
        if self.prefix:
            return self
        if not CORPUS_NAME.fullmatch(facts.corpus):
            raise DataError(
                f"'{self.name}' is of the corpus {facts.corpus!r}. Where several corpora are used together, its name "
                "is part of the names of its people: letters, digits, '_' and '-' are allowed."
            )
        prefix = f"{facts.corpus}{SEPARATOR}"
        scaling = dict(facts.scaling or {})
        if "fitted_on_own_rows" in scaling:
            scaling["fitted_on_own_rows"] = [prefix + name for name in scaling["fitted_on_own_rows"]]
        renamed = replace(
            facts, scaling=scaling, subjects=[prefix + name for name in facts.subjects],
            subject_splits={prefix + name: counts for name, counts in facts.subject_splits.items()},
            n_voxels=facts.n_voxels and {prefix + name: count for name, count in facts.n_voxels.items()},
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
        images = self.stored_images
        if "image_embeds" not in images.column_names:
            raise DataError(
                f"The images of '{self.name}' have no embeddings; run "
                f"{command_line('neural-clip', 'embed-images', self.name)}."
            )
        try:
            table = ImageTable.of_columns(images.select_columns(ImageTable.COLUMNS).with_format("arrow")[:])
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
        patterns = {"images": "images/images-*.parquet"}
        return open_rows(self.folder, patterns, self.facts.fingerprint, image_features(False, None))["images"]

    def split(self, name: str, subjects: Sequence[str] | None = None) -> Split:
        """Open the recordings of a split, memory-mapped.

        Args:
            name (`str`): `"train"`, `"validation"` or `"test"`.
            subjects (sequence of `str`, *optional*): Keep these, in this order; by default all.

        Raises:
            DataError: If there is no such split or subject, or nothing was recorded of these subjects in it.
        """
        check_option("split", name, SPLITS)
        wanted = asked = list(self.facts.subjects if subjects is None else subjects)
        if unknown := sorted(set(wanted) - set(self.facts.subjects)):
            raise DataError(f"'{self.name}' has no subject {unknown}; it has {self.facts.subjects}.")
        wanted = [subject for subject in wanted if self.facts.subject_splits[subject].get(name)]
        if not wanted:
            raise DataError(f"'{self.name}' has no {name} recordings of {asked}.")
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

    def row_groups(self, name: str, subjects: Sequence[str]) -> np.ndarray:
        """Number of the Parquet row group of each recording of a split, of these subjects, `(n,)` int."""
        return self._parquet(name, subjects).group_of_row

    def _mapped(self, name: str, subjects: Sequence[str]) -> datasets.Dataset:
        """Rows of a split, memory-mapped."""
        from datasets import concatenate_datasets

        return concatenate_datasets([self._of_subject(subject)[name] for subject in subjects])

    def _streamed(self, name: str, subjects: Sequence[str]) -> StreamedRows:
        """Rows of a split, read when asked."""
        files = self._parquet(name, subjects)
        stated = sum(self.facts.subject_splits[subject][name] for subject in subjects)
        check_rows([Path(path) for path in files.paths], int(files.n_rows.sum()), stated)
        return StreamedRows.of(files)

    def _parquet(self, name: str, subjects: Sequence[str]) -> ParquetFiles:
        """Files of a split, here or on the Hub, in the order of its rows."""
        patterns = [f"data/{self.stored_name(subject)}/{name}-*.parquet" for subject in subjects]
        if self.folder == Path(self.name):
            paths = [str(path) for each in patterns for path in files_of(self.folder, each)]
            return ParquetFiles(paths, most_bytes=self.most_kept)
        open_file, place = hub_files(self.name, self.folder.name)
        listed = self.facts.files or {}
        names = [file for each in patterns for file in sorted(listed) if fnmatchcase(file, each)]
        told = {f"{place}/{file}": listed[file] for file in names}
        return ParquetFiles(list(told), open_file, told, self.most_kept)

    def _of_subject(self, subject: str) -> datasets.DatasetDict:
        """All splits of a subject, opened once."""
        if subject not in self._recordings:
            facts, counts = self.facts, self.facts.subject_splits[subject]
            folder = f"data/{self.stored_name(subject)}"
            patterns = {split: f"{folder}/{split}-*.parquet" for split in SPLITS if counts.get(split)}
            shape = (facts.n_chans, facts.n_times) if MODALITIES[facts.modality].sensors else None
            columns = recording_features(facts.modality, shape)
            found = open_rows(self.folder, patterns, facts.fingerprint, columns)
            for split, pattern in patterns.items():
                check_rows(files_of(self.folder, pattern), len(found[split]), counts[split])
            self._recordings[subject] = found
        return self._recordings[subject]


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

    @cached_property
    def shown_ids(self) -> np.ndarray:
        """The images of the split, each once, sorted, `(n_shown,)` str."""
        return np.unique(self.image_ids)

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
        return self.data.images.of(self.shown_ids) if self.searched is None else self.searched

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
        flat, lengths = column_arrays(column, shape)
        flat = flat.astype(np.float32, copy=False)
        if shape:
            return flat.reshape(-1, *shape)
        stated = np.array([self.facts.n_voxels[subject] for subject in self.subjects[rows]])
        if not np.array_equal(lengths, stated):
            row = int(np.argmax(lengths != stated))
            raise DataError(
                f"'{self.data.folder}/{METADATA_FILE}' says that {self.subjects[rows][row]} has {stated[row]} voxels, "
                f"but a {self.name} row has {lengths[row]}. {DATA_ADVICE}"
            )
        return np.split(flat, np.cumsum(lengths)[:-1])

    def blocks(self, n_rows: int) -> Iterator[tuple[slice, Values]]:
        """Go over all recordings, at most so many in memory at a time; yields rows and their values."""
        for start in range(0, len(self), n_rows):
            rows = slice(start, min(start + n_rows, len(self)))
            yield rows, self.values(rows)

    def loaded(self) -> Self:
        """The same split with all its recordings in memory."""
        values = self.values()
        values = np.ascontiguousarray(values) if isinstance(values, np.ndarray) else values
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
        data = self.data.named_for(known)
        if data is self.data:
            return self
        return replace(self, data=data, subjects=np.array([data.prefix + name for name in self.subjects], dtype=str))

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
    if values and values[0].ndim > 1:
        shape = np.max([row.shape for row in values], axis=0)
        laid = np.zeros((len(values), *shape), dtype=np.float32)
        for place, row in zip(laid, values, strict=True):
            place[tuple(map(slice, row.shape))] = row
        return laid
    lengths = np.array([len(row) for row in values], dtype=np.int64)
    laid = np.zeros((len(values), int(lengths.max(initial=0))), dtype=np.float32)
    laid[np.arange(laid.shape[1]) < lengths[:, None]] = np.concatenate([*values, np.zeros(0, np.float32)])
    return laid


def column_arrays(column: pa.ChunkedArray, shape: tuple[int, ...] | None) -> tuple[np.ndarray, np.ndarray]:
    """Turn an Arrow column of arrays into one flat array and the length of each row.

    Going through Arrow's buffers is several times quicker than the numpy and torch formats of `datasets`.
    """
    flat, lengths = [], []
    for chunk in column.chunks if column.nbytes > MAX_COMBINED else [column.combine_chunks()]:
        array = getattr(chunk, "storage", chunk)
        values = array.flatten() if shape is None else array.flatten().flatten()
        flat.append(values.to_numpy(zero_copy_only=False))
        known = np.full(len(array), int(np.prod(shape or 0)))
        lengths.append(known if shape else np.asarray(array.value_lengths().to_numpy(zero_copy_only=False), np.int64))
    if len(flat) == 1:
        return flat[0], lengths[0]
    return np.concatenate([*flat, np.zeros(0, np.float32)]), np.concatenate([*lengths, np.zeros(0, np.int64)])
