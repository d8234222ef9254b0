"""Files of each format, written anew with other content, so that checksums and headers fit what is wrong.

Each function changes one file, and says what it did and which kind of damage that is (`damage.GUARDS`).
"""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

RAN = "code_ran"
WORDS = (
    "", "n/a", "nan", "-1", "0", "1e30", "inf", "../../x", "/etc/passwd", "x" * 3000, "a\nb", "=1+1", "é", "\0", "²",
    "9" * 400, "[" * 2000, "{{x}}", "null", "true", "2147483648", "&a *a",
)  # fmt: skip
VALUES = (
    None, True, "", "x" * 2000, -1, 0, 1, 1e308, 2**63, 10**30, 0.5, [], {}, [None], [[[]]], {"a": 1}, "../../x",
    "nan", float("nan"), float("inf"), "sub-01", "é\0", ["a", "a"], "\ud800",
)  # fmt: skip


class Code:
    """An object whose pickle makes a folder called `RAN` when it is read."""

    def __reduce__(self):
        return os.mkdir, (RAN,)


def changed(array: np.ndarray, rng) -> tuple[np.ndarray, str, str]:
    """An array with other values, type or shape; what it is now, and the kind of damage."""
    number = array.dtype.kind in "iuf"
    flat = np.array(array, dtype=np.float64 if number else None)
    ways = ["empty", "fewer", "more", "axis", "flat", "other order", "text", "bytes"]
    ways += ["nan", "inf", "zeros", "huge", "half", "complex", "bool", "int8", "double", "negative"] if number else []
    way = ways[rng.integers(len(ways))]
    if way in ("nan", "inf", "huge") and flat.size:
        flat.flat[rng.integers(flat.size)] = {"nan": np.nan, "inf": np.inf, "huge": 1e300}[way]
        return flat, way, "valid" if way == "huge" else "invalid"
    made = {
        "empty": lambda: array[:0],
        "fewer": lambda: array[:-1],
        "more": lambda: np.concatenate([array, array[:1]]),
        "axis": lambda: array[None],
        "flat": lambda: array.reshape(-1),
        "other order": lambda: array[::-1],
        "text": lambda: array.astype(str),
        "bytes": lambda: array.astype(str).astype("S"),
        "zeros": lambda: array * 0,
        "half": lambda: array.astype(np.float16),
        "complex": lambda: array.astype(np.complex64),
        "bool": lambda: array.astype(bool),
        "int8": lambda: array.astype(np.int8),
        "double": lambda: flat,
        "negative": lambda: -flat,
    }
    with np.errstate(all="ignore"):
        return (np.array(made[way]()) if array.ndim else array), way, "invalid" if way == "empty" else "valid"


def rewrite_numpy(path: Path, rng) -> tuple[str, str]:
    """Arrays of `.npy` and `.npz`."""
    if path.suffix == ".npy":
        array, way, kind = changed(np.load(path), rng)
        np.save(path, array)
        return way, kind
    arrays = dict(np.load(path))
    key = sorted(arrays)[rng.integers(len(arrays))]
    if rng.random() < 0.15:
        del arrays[key]
        way, kind = "without " + key, "invalid"
    elif rng.random() < 0.1:
        arrays[key], way, kind = np.array([Code()], dtype=object), f"objects as {key}", "invalid"
    else:
        arrays[key], way, kind = changed(arrays[key], rng)
        way = f"{key}: {way}"
    np.savez(path, **arrays)
    return way, kind


def rewrite_mat(path: Path, rng) -> tuple[str, str]:
    """Arrays of MATLAB."""
    import h5py
    from scipy.io import loadmat, savemat

    if h5py.is_hdf5(path):  # MATLAB 7.3
        return rewrite_hdf5(path, rng)
    arrays = {key: value for key, value in loadmat(path).items() if not key.startswith("__")}
    key = sorted(arrays)[rng.integers(len(arrays))]
    arrays[key], way, kind = changed(arrays[key], rng)
    savemat(path, arrays, do_compression=bool(rng.integers(2)))
    return f"{key}: {way}", kind


def rewrite_hdf5(path: Path, rng) -> tuple[str, str]:
    """Data sets of HDF5: other values, a declared size without storage, a link to another file."""
    import h5py

    with h5py.File(path, "a") as file:
        names: list[str] = []
        file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        name = sorted(names)[rng.integers(len(names))]
        array, way, kind = changed(file[name][()], rng)
        shape = file[name].shape
        del file[name]
        if (choice := rng.random()) < 0.15:
            file.create_dataset(name, (10**9, *shape[1:]), "u1", chunks=True)
            return "huge, nothing stored", "invalid"
        if choice < 0.25:
            file[name] = h5py.ExternalLink("/etc/passwd", "x")
            return "link to another file", "invalid"
        if choice < 0.35:
            file.create_group(name)
            return "a group", "invalid"
        file[name] = array.astype("S") if array.dtype.kind == "U" else array
    return f"{name}: {way}", kind


def rewrite_nifti(path: Path, rng) -> tuple[str, str]:
    """Values and affine of NIfTI, or a bomb: zeros that fit the header."""
    import nibabel

    image = nibabel.load(path)
    data, affine = np.array(image.dataobj), np.array(image.affine)
    way, kind = ["values", "affine", "nan in affine", "bomb"][rng.choice(4, p=[0.6, 0.2, 0.1, 0.1])], "valid"
    if way == "bomb" and path.suffix == ".gz":
        header = image.header.copy()
        header.set_data_shape((*data.shape[:3], 30000))
        member = gzip.compress(b"\0" * 2**26)
        path.write_bytes(gzip.compress(header.binaryblock + b"\0" * 4) + member * 48)  # 3 GB
        return way, "invalid"
    if way == "values":
        data, way, kind = changed(data, rng)
    else:
        affine[:3] *= np.nan if way == "nan in affine" else 2
    if data.dtype == np.int64:
        data = data.astype(np.int32)
    nibabel.save(nibabel.Nifti1Image(data.astype(np.uint8) if data.dtype == bool else data, affine), path)
    return way, kind


def rewrite_pth(path: Path, rng) -> tuple[str, str]:
    """Entries of a file of torch."""
    import torch

    if rng.random() < 0.15:
        torch.save({"dataset": Code()}, path)
        return "code", "invalid"
    content = torch.load(path, weights_only=True)
    way, kind = _change_tree(content, rng)
    torch.save(content, path)
    return way, kind


def rewrite_safetensors(path: Path, rng) -> tuple[str, str]:
    """Tensors of a file of safetensors: others, fewer, under another name."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path)
    name = sorted(tensors)[rng.integers(len(tensors))]
    if (choice := rng.random()) < 0.15:
        del tensors[name]
        way, kind = f"without {name}", "invalid"
    elif choice < 0.3:
        tensors["x." + name] = tensors.pop(name)
        way, kind = f"{name} renamed", "invalid"
    else:
        tensors[name], way, kind = changed(tensors[name], rng)
        way = f"{name}: {way}"
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, path)
    return way, kind


def rewrite_parquet(path: Path, rng) -> tuple[str, str]:
    """Rows and columns of Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    column = table.column_names[rng.integers(table.num_columns)]
    place, field, backwards = (
        table.column_names.index(column),
        table.schema.field(column),
        list(range(len(table)))[::-1],
    )
    nulls = pa.array([None] * len(table), field.type)
    made = {
        "no rows": lambda: table.slice(0, 0),
        "one row less": lambda: table.slice(1),
        "a row twice": lambda: pa.concat_tables([table, table.slice(0, 1)]),
        "other order": lambda: table.take(backwards),
        f"without {column}": lambda: table.drop_columns([column]),
        f"{column} all null": lambda: table.set_column(place, field, nulls),
        f"{column} as text": lambda: table.set_column(
            place, column, pa.array(list(map(str, table[column].to_pylist())))
        ),
        "without its schema": lambda: table.replace_schema_metadata(None),
        f"{column} from another row": lambda: table.set_column(place, field, table[column].take(backwards)),
    }
    way = sorted(made)[rng.integers(len(made))]
    pq.write_table(made[way](), path)
    return way, "valid"


def rewrite_image(path: Path, rng) -> tuple[str, str]:
    """Pictures: other modes and formats, declared sizes without content, bombs."""
    from PIL import Image

    image = Image.open(path).convert("RGB")
    way = ["header lies", "bomb", "mode", "format", "tiny", "pixels"][rng.integers(6)]
    if way in ("header lies", "bomb"):
        side = int(rng.choice([0, 1, 5000, 30000, 2**31 - 1])) if way == "header lies" else 12000
        packer, raw = zlib.compressobj(1), b""
        if way == "bomb":
            raw = b"".join(packer.compress(b"\0" * (3 * side + 1)) for _ in range(side)) + packer.flush()

        def chunk(name: bytes, content: bytes) -> bytes:
            return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

        head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", raw) + chunk(b"IEND", b""))
        return f"{way}, {side} pixels a side", "invalid" if way == "header lies" else "valid"
    if way == "mode":
        image = image.convert(str(rng.choice(["L", "1", "CMYK", "RGBA", "P", "LA", "I;16", "F"])))
    elif way == "tiny":
        image = image.resize((1, 1))
    elif way == "pixels":
        image = image.point(lambda value: 255 - value)
    kinds = ["GIF", "TIFF", "BMP", "WEBP", "ICO", "PPM", "EPS", "PDF", "JPEG2000", "PNG", "JPEG"]
    kind = kinds[rng.integers(len(kinds))] if way == "format" else "PNG" if image.mode != "CMYK" else "TIFF"
    content = io.BytesIO()
    image.save(content, kind)
    path.write_bytes(content.getvalue())
    return f"{way} {image.mode} {kind}", "valid"


def rewrite_json(path: Path, rng) -> tuple[str, str]:
    """A value of a JSON tree is another, or lacks."""
    content = json.loads(path.read_text())
    way, _ = _change_tree(content, rng)
    path.write_text(json.dumps(content), errors="surrogatepass")
    return way, "valid"


def rewrite_yaml(path: Path, rng) -> tuple[str, str]:
    """A value of a YAML tree is another, or lacks; or the text is what YAML calls an alias, a tag, a bomb."""
    import yaml

    text = path.read_text()
    rest = ""
    if text.startswith("---\n"):  # the facts of a card, before its text
        text, rest = text[4:].split("---\n", 1)
    content = yaml.safe_load(text)
    way, _ = _change_tree(content, rng)
    made = yaml.safe_dump(content)
    if (choice := rng.random()) < 0.15:
        lines = [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 10)]
        way, made = "bomb of aliases", "x0: &x0 [x]\n" + "".join(lines) + made
    elif choice < 0.25:
        way, made = "tag of Python", made + f"y: !!python/object/apply:os.mkdir [{RAN}]\n"
    path.write_text(f"---\n{made}---\n{rest}" if rest else made, errors="surrogatepass")
    return way, "valid"


def _change_tree(content, rng) -> tuple[str, str]:
    """Change one entry anywhere in lists, dictionaries, arrays and tensors; returns its place."""
    import torch

    place, node = "", content
    while True:
        key = list(node)[rng.integers(len(node))] if isinstance(node, dict) else int(rng.integers(len(node)))
        place, inner = f"{place}/{key}", node[key]
        if isinstance(inner, dict | list) and len(inner) and rng.random() < 0.85:
            node = inner
            continue
        if isinstance(inner, torch.Tensor):
            array, way, kind = changed(inner.numpy(), rng)
            node[key] = torch.from_numpy(array.copy()) if array.dtype.kind not in "US" else array.tolist()
            return f"{place}: {way}", kind
        if rng.random() < 0.25:
            del node[key]
            return f"{place} lacks", "valid"
        if isinstance(node, dict) and rng.random() < 0.1:
            node[f"{key}x"] = node.pop(key)
            return f"{place} renamed", "valid"
        node[key] = VALUES[rng.integers(len(VALUES))]
        return f"{place} is {node[key]!r:.40}", "valid"


def rewrite_table(path: Path, rng) -> tuple[str, str]:
    """Cells, rows and columns of TSV and CSV; other encodings."""
    text = path.read_text()
    mark = "\t" if "\t" in text else ","
    rows = [line.split(mark) for line in text.splitlines()]
    y = int(rng.integers(len(rows)))
    x = int(rng.integers(len(rows[y])))
    ways = ["cell"] * 3 + ["header", "row gone", "row twice", "column gone", "cells swapped", "encoding"]
    way = ways[rng.integers(len(ways))]
    if way in ("cell", "header"):
        y = 0 if way == "header" else y
        x = min(x, len(rows[y]) - 1)
        rows[y][x] = WORDS[rng.integers(len(WORDS))]
        way += f" {y}, {x} is {rows[y][x]!r:.30}"
    elif way == "row gone":
        del rows[y]
    elif way == "row twice":
        rows.insert(y, rows[y])
    elif way == "column gone":
        rows = [row[:x] + row[x + 1 :] for row in rows]
    elif way == "cells swapped":
        z = int(rng.integers(len(rows)))
        x = min(x, len(rows[z]) - 1)
        rows[y][x], rows[z][x] = rows[z][x], rows[y][x]
    made = "\n".join(mark.join(row) for row in rows) + "\n"
    encoding = str(rng.choice(["utf-16-le", "utf-16", "utf-8-sig", "utf-7"])) if way == "encoding" else "utf-8"
    path.write_bytes(made.encode(encoding))
    return way, "valid"


REWRITES: list[tuple[tuple[str, ...], Callable]] = [
    ((".npy", ".npz"), rewrite_numpy),
    ((".mat",), rewrite_mat),
    ((".hdf5", ".h5"), rewrite_hdf5),
    ((".nii", ".nii.gz"), rewrite_nifti),
    ((".pth", ".pt", ".bin"), rewrite_pth),
    ((".safetensors",), rewrite_safetensors),
    ((".parquet",), rewrite_parquet),
    ((".png", ".JPEG", ".jpg"), rewrite_image),
    ((".json",), rewrite_json),
    ((".yaml", "README.md"), rewrite_yaml),
    ((".tsv", ".csv"), rewrite_table),
]
