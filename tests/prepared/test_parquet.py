"""A flipped bit in a page is told by every reader, and never read as another value."""

import shutil
from contextlib import suppress

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from loopback_hub import LoopbackHub
from neural_clip.errors import DataError
from neural_clip.prepared.doctor.inspect import inspect
from neural_clip.prepared.parquet import ParquetShards, open_parquet, read_batches, read_columns
from neural_clip.prepared.reader import PreparedSet
from neural_clip.targets.unique_images import read_image_rows
from planted_data import write_planted

FEATURES = datasets.Features({
    "subject": datasets.Value("string"), "trial": datasets.Value("int32"),
    "categories": datasets.List(datasets.Value("string")), "eeg": datasets.Array2D((3, 20), "float32"),
})  # fmt: skip
TRAIN, IMAGES = "data/sub-01/train-00000.parquet", "images/images-00000.parquet"


def by_dataset(source):
    """As `datasets` reads, with the option that it is given."""
    checked = pyarrow.dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
    fragment = pyarrow.dataset.ParquetFileFormat(default_fragment_scan_options=checked).make_fragment(source)
    return pa.Table.from_batches(list(fragment.to_batches()), schema=fragment.physical_schema)


def by_batches(source):
    file = open_parquet(source)
    return pa.Table.from_batches(list(read_batches(file, 7, file.schema_arrow.names)), schema=file.schema_arrow)


READERS = {
    "a row group": lambda source: read_columns(open_parquet(source), ["eeg"], 0),
    "labels of a row group": lambda source: read_columns(open_parquet(source), ["subject", "categories"], 0),
    "columns": lambda source: read_columns(open_parquet(source), list(FEATURES)),
    "batches": by_batches,
    "datasets": by_dataset,
    "without checksums": lambda source: pq.ParquetFile(source).read(),
}


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """Bytes of a file of 40 rows in one row group."""
    folder, rng = tmp_path_factory.mktemp("rows"), np.random.default_rng(0)
    with ParquetShards(folder, 100) as shards:
        for trial in range(40):
            row = {"subject": f"sub-{trial % 3:02d}", "trial": trial, "categories": ["a", "b"][: trial % 3]}
            shards.add("rows", FEATURES, row | {"eeg": rng.standard_normal((3, 20)).astype(np.float32)})
    return (folder / "rows-00000.parquet").read_bytes()


def end_of_pages(content):
    """Where the footer begins."""
    return len(content) - 8 - int.from_bytes(content[-8:-4], "little")


@pytest.mark.parametrize("name", READERS)
def test_no_flipped_bit_is_read_as_another_value(content, name):
    rng, read = np.random.default_rng(1), READERS[name]
    expected, changed = read(pa.BufferReader(content)), 0
    for place in rng.permutation(np.arange(4, end_of_pages(content)))[:1500]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(8)
        with suppress(OSError, ValueError):  # as the readers of the package take them
            changed += not read(pa.BufferReader(bytes(damaged))).equals(expected)
    assert changed > 100 if name == "without checksums" else not changed


def test_rows_that_pages_lack_are_missed(content):
    """The header of a page is under no checksum: of one column alone Arrow reads as many rows as it says."""
    short = []
    for place in range(4, end_of_pages(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1
        with suppress(OSError, ValueError):
            file = open_parquet(pa.BufferReader(bytes(damaged)))
            if file.read_row_group(0, columns=["trial"]).num_rows < 40:
                short.append(file)
    assert short
    for file in short:
        for read in (read_columns, lambda file, columns: list(read_batches(file, 7, columns))):
            with pytest.raises(ValueError, match=r"its pages hold \d+ rows, its footer tells 40"):
                read(file, ["trial"])


def flip(path, name):
    """Turn a bit of the last value of a column."""
    chunks = pq.read_metadata(path).row_group(0).to_dict()["columns"]
    chunk = next(chunk for chunk in chunks if chunk["path_in_schema"].startswith(name))
    content = bytearray(path.read_bytes())
    start = chunk["dictionary_page_offset"] or chunk["data_page_offset"]
    content[start + chunk["total_compressed_size"] - 1] ^= 4
    path.write_bytes(content)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    root = tmp_path_factory.mktemp("planted")
    return {modality: write_planted(root / modality, modality) for modality in ("eeg", "fmri")}


def values(folder, streaming=False):
    return PreparedSet.open(folder, streaming).split("train").values(slice(None))


ROUTES = {
    "train and evaluate": (TRAIN, "{}", lambda folder: values(folder)),
    "streaming": (TRAIN, "{}", lambda folder: values(folder, True)),
    "labels, streaming": (TRAIN, "image_id", lambda folder: values(folder, True)),
    "doctor": (TRAIN, "{}", lambda folder: inspect(folder)),
    "embeddings": (IMAGES, "image_embeds", lambda folder: PreparedSet.open(folder).images.embeds),
    "embeddings, streaming": (IMAGES, "image_embeds", lambda folder: PreparedSet.open(folder, True).images.embeds),
    "embed-images": (IMAGES, "image.bytes", lambda folder: list(read_image_rows([folder / IMAGES]))),
}


@pytest.mark.parametrize("modality", ["eeg", "fmri"])
@pytest.mark.parametrize("route", ROUTES)
def test_each_reader_tells_a_flipped_bit_and_names_the_file(planted, modality, route, tmp_path):
    name, column, read = ROUTES[route]
    folder = shutil.copytree(planted[modality], tmp_path / "set")
    read(folder)
    flip(folder / name, column.format(modality))
    with pytest.raises(DataError, match=name.rpartition("/")[2]) as told:
        read(folder)
    assert "CRC" in str(told.value) or "SHA-256" in str(told.value)


def test_what_comes_damaged_from_the_hub_is_told(planted, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = shutil.copytree(planted["eeg"], tmp_path / "set")
    flip(folder / TRAIN, "eeg")
    with LoopbackHub() as hub:
        hub.add("dataset", "lab/set", private=False, files={
            path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")
        })  # fmt: skip
        hub.stand_in(monkeypatch)
        with pytest.raises(DataError, match=rf"{TRAIN}' cannot be read: .*CRC"):
            values("lab/set", True)
