"""Rows of prepared data sets, as `datasets` and as Parquet give them."""

from datasets import load_dataset


def rows_of(folder, config="all"):
    """All rows as (split, row)."""
    return [
        (split, row)
        for split in ("train", "validation", "test")
        for row in load_dataset(str(folder), config, split=split).with_format("numpy")
    ]


def parquet_rows(folder):
    """All rows in the order of the files."""
    from pyarrow.parquet import read_table

    return [row for path in sorted((folder / "data").rglob("*.parquet")) for row in read_table(path).to_pylist()]


def columns_of(folder, split, tmp_path):
    """All rows of a split by column, read through a cache of the test's own."""
    return load_dataset(str(folder), "all", split=split, cache_dir=str(tmp_path / "cache")).with_format("numpy")[:]


def rows_with_split(folder):
    """All rows, with the split that the name of their file says."""
    from pyarrow.parquet import read_table

    return [
        {**row, "split": path.name.partition("-")[0]}
        for path in sorted(folder.glob("data/*/*.parquet"))
        for row in read_table(path).to_pylist()
    ]
