"""Open the sample without a network, a cache or a file that is written."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from neural_clip.errors import check_option
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.stored_rows import files_of

if TYPE_CHECKING:
    import datasets

PLACE = Path(__file__).parent
CHECKPOINT = PLACE / "checkpoint"
FOLDERS = {modality: PLACE / modality for modality in MODALITIES}


@dataclass(frozen=True)
class Sample:
    """SIMULATED recordings of one subject, the images that were shown, and a checkpoint that was trained on others.

    `scripts/make_sample.py` makes it; nobody was recorded. Scores say nothing about real recordings.

    Args:
        modality (`str`): `"eeg"`, `"meg"` or `"fmri"`.
        data (`Path`): A prepared data set, as every command takes it.
        checkpoint (`Path`): Of one model for all three modalities, for `from_pretrained`.
    """

    modality: str
    data: Path
    checkpoint: Path = CHECKPOINT

    @cached_property
    def subject(self) -> str:
        """Who the simulated recordings are of."""
        return Facts.read(self.data).subjects[0]

    @cached_property
    def recordings(self) -> datasets.Dataset:
        """Test recordings that the model was not trained on, 40 rows in memory: `eeg`, `subject`, `image_id`, ..."""
        return _in_memory(files_of(self.data, f"data/{self.subject}/test-*.parquet"))

    @cached_property
    def images(self) -> datasets.Dataset:
        """Images with `image`, `image_id` and `concept`, in memory: those of the recordings, and twelve others."""
        return _in_memory(files_of(self.data, "images/images-*.parquet"))

    def __str__(self) -> str:
        title, count = MODALITIES[self.modality].title, len(self.recordings)
        return (
            f"SIMULATED {title} of {self.subject}: {count} recordings, {len(self.images)} images; nobody was recorded"
        )


def load_sample(modality: str = "eeg") -> Sample:
    """The sample of a modality that ships with the package: SIMULATED recordings, images, and a small checkpoint.

    Args:
        modality (`str`, defaults to `"eeg"`): `"eeg"`, `"meg"` or `"fmri"`.

    Returns:
        [`Sample`]: Nothing of it is read before it is used.

    Raises:
        DataError: If there is no such modality.
    """
    check_option("modality", modality, FOLDERS)
    return Sample(modality, FOLDERS[modality])


def _in_memory(paths: list[Path]) -> datasets.Dataset:
    """Parquet files as a data set in memory: `load_dataset` would copy them into its cache."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    return datasets.Dataset(pa.concat_tables([pq.read_table(path, page_checksum_verification=True) for path in paths]))
