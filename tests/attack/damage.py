"""Ways to damage a valid input. Each takes files of a folder and a generator, and says what it did.

A way has a kind, which decides who must notice it (`GUARDS`):
    missing   a file is gone, empty, a folder or a link to nothing
    cut       bytes at the end are gone or came on top
    bytes     bytes are others, and no checksum was made to fit
    invalid   a file is well-formed, but holds what no such file may hold: NaN, no rows, objects
    valid     a file is well-formed and holds other values, or is another file of its kind
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

# Which kinds of damage must be told where they change a result. The rest cannot be: nothing says what was there.
GUARDS = {
    "sealed": {"missing", "cut", "bytes", "invalid", "valid"},  # a digest of the file stands elsewhere
    "footed": {"missing", "cut", "invalid", "valid"},  # sizes and footers are known, pages of rows are not read
    "summed": {"missing", "cut", "bytes", "invalid"},  # the file holds a checksum of itself
    "bare": {"missing", "cut", "invalid"},  # samples without a checksum; their count is declared
    "text": {"missing"},  # written by people: another value is another, valid wish
}
EXTREMES = (
    b"\0" * 8,
    b"\xff" * 8,
    struct.pack("<q", 2**31 - 1),
    struct.pack(">q", 2**31 - 1),
    struct.pack("<d", np.nan),
    struct.pack(">d", np.nan),
    struct.pack("<q", 1),
    struct.pack("<d", 1e30),
    struct.pack(">i", 2**30) * 2,
)
WORDS = (
    "",
    "n/a",
    "nan",
    "-1",
    "0",
    "1e30",
    "inf",
    "../../x",
    "/etc/passwd",
    "x" * 3000,
    "a\nb",
    "=1+1",
    "é",
    "\0",
    "²",
    "9" * 400,
    "[" * 2000,
    "{{x}}",
    "null",
    "true",
    "2147483648",
    "&a *a",
)
VALUES = (
    None,
    True,
    "",
    "x" * 2000,
    -1,
    0,
    1,
    1e308,
    2**63,
    10**30,
    0.5,
    [],
    {},
    [None],
    [[[]]],
    {"a": 1},
    "../../x",
    "nan",
    float("nan"),
    float("inf"),
    "sub-01",
    "é\0",
    ["a", "a"],
    "\ud800",
)


class Damage(NamedTuple):
    """What was done to which files (relative to the folder)."""

    way: str
    kind: str
    files: list[str]


def bite(folder: Path, names: list[str], donor: Path, rng: np.random.Generator) -> Damage:
    """Damage one of the files, or two of them; `donor` is another valid input of the same layout."""
    name = names[rng.integers(len(names))]
    path = folder / name
    ways: list[Callable] = [*BYTES, *BYTES, *PARTS]
    rewrite = next((function for suffixes, function in REWRITES if name.endswith(suffixes)), None)
    chosen = rewrite if rewrite and rng.random() < 0.5 else ways[rng.integers(len(ways))]
    if chosen in PARTS:
        other = names[rng.integers(len(names))]
        alike = [n for n in names if Path(n).suffix == path.suffix and n != name]
        if alike and rng.random() < 0.8:
            other = alike[rng.integers(len(alike))]
        return chosen(folder, name, other, donor, rng)
    packed = name.endswith(".gz") and rng.random() < 0.5
    if chosen is not rewrite and packed:  # a lying content under a checksum that fits
        path.write_bytes(gzip.compress(chosen(gzip.decompress(path.read_bytes()), rng)[0], 1))
        return Damage(f"{chosen.__name__} within gzip", "valid", [name])
    if chosen is rewrite:
        try:
            way, kind = chosen(path, rng)
        except (ValueError, TypeError, KeyError, OverflowError, OSError) as error:  # this file cannot hold that
            path.write_bytes(b"")
            way, kind = f"emptied, for want of {type(error).__name__}", "missing"
        return Damage(f"{chosen.__name__}: {way}", kind, [name])
    content, kind = chosen(path.read_bytes(), rng)
    path.write_bytes(content)
    return Damage(chosen.__name__, kind, [name])


# ------------------------------------------------------------------------------------------------- bytes of any file


def truncate(content: bytes, rng) -> tuple[bytes, str]:
    """Cut the end off: anywhere, by a byte, by a block, to nothing."""
    keep = [rng.integers(len(content) + 1), len(content) - 1, len(content) - 512, 0, 1, len(content) // 2]
    return content[: max(int(keep[rng.integers(len(keep))]), 0)], "cut"


def append(content: bytes, rng) -> tuple[bytes, str]:
    """Bytes on top."""
    return content + rng.bytes(int(rng.integers(1, 2000))), "valid"


def flip(content: bytes, rng) -> tuple[bytes, str]:
    """Turn bits, also many."""
    found = bytearray(content)
    for position in rng.integers(len(found), size=int(rng.choice([1, 1, 2, 8, 64]))) if found else ():
        found[position] ^= 1 << int(rng.integers(8))
    return bytes(found), "bytes"


def flip_head(content: bytes, rng) -> tuple[bytes, str]:
    """Turn bits among the first bytes, where headers lie."""
    n = int(rng.choice([16, 128, 1024]))
    return flip(content[:n], rng)[0] + content[n:], "bytes"


def flip_tail(content: bytes, rng) -> tuple[bytes, str]:
    """Turn bits among the last bytes, where footers and directories lie."""
    n = int(rng.choice([16, 128, 1024]))
    return content[:-n] + flip(content[-n:], rng)[0], "bytes"


def block(content: bytes, rng) -> tuple[bytes, str]:
    """Overwrite, remove or double a block."""
    start, size = int(rng.integers(len(content) + 1)), int(rng.choice([1, 8, 512, 4096]))
    inside = content[start : start + size]
    fill = [b"\0" * len(inside), b"\xff" * len(inside), rng.bytes(len(inside)), b"", inside * 2][rng.integers(5)]
    return content[:start] + fill + content[start + size :], "bytes"


def lie(content: bytes, rng) -> tuple[bytes, str]:
    """Put extreme numbers into the header or the footer, as integers and floats of both orders."""
    size, value = int(rng.choice([1, 2, 4, 8])), EXTREMES[rng.integers(len(EXTREMES))]
    start = int(rng.integers(min(len(content), 2048) + 1)) // size * size
    if rng.random() < 0.2:
        start = max(len(content) - start, 0)
    return content[:start] + value[:size] + content[start + size :], "bytes"


def digits(content: bytes, rng) -> tuple[bytes, str]:
    """Change a number that is written out (EDF, BrainVision, JSON, footers), in as many characters."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", content[:20000]))
    if not found:
        return flip(content, rng)
    match = found[rng.integers(len(found))]
    wide = len(match[0])
    texts = [
        b"9" * wide,
        b"0" * wide,
        b"-" + b"9" * (wide - 1),
        b"nan",
        b"1e9",
        b"-1",
        b"",
        bytes(rng.choice(list(b"0123456789"), wide)),
    ]
    text = texts[rng.integers(len(texts))]
    return content[: match.start()] + text[:wide].ljust(wide) + content[match.end() :], "bytes"


BYTES = (truncate, append, flip, flip_head, flip_tail, block, lie, digits)


# ---------------------------------------------------------------------------------------------------- whole files


def remove(folder, name, other, donor, rng) -> Damage:
    """The file is gone."""
    (folder / name).unlink()
    return Damage("missing", "missing", [name])


def misplace(folder, name, other, donor, rng) -> Damage:
    """In place of the file stands a folder, a link in a circle or to nothing, or a pipe that nobody writes to."""
    path, way = folder / name, ["folder", "loop", "dangling", "pipe", "device"][rng.integers(5)]
    path.unlink()
    if way == "folder":
        path.mkdir()
    elif way == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"loop": path.name, "dangling": "nowhere", "device": "/dev/null"}[way])
    return Damage(f"{way} in its place", "missing", [name])


def link(folder, name, other, donor, rng) -> Damage:
    """The file is a link to its content elsewhere."""
    path = folder / name
    target = path.with_name(f"moved {path.name}.real")
    path.rename(target)
    path.symlink_to(target.name if rng.random() < 0.5 else target.resolve())
    return Damage("link to the file", "valid", [name])


def swap(folder, name, other, donor, rng) -> Damage:
    """Two files have each other's names."""
    one, two = (folder / name).read_bytes(), (folder / other).read_bytes()
    (folder / name).write_bytes(two)
    (folder / other).write_bytes(one)
    return Damage("swapped", "valid", [name, other])


def mix(folder, name, other, donor, rng) -> Damage:
    """The file is that of another input of the same layout."""
    if not (donor / name).is_file():
        return swap(folder, name, other, donor, rng)
    shutil.copyfile(donor / name, folder / name)
    return Damage("of another input", "valid", [name])


def double(folder, name, other, donor, rng) -> Damage:
    """The file is there twice, under another name that may be odd."""
    path = folder / name
    stem, dot, suffix = path.name.partition(".")
    names = [
        f"{stem}_copy{dot}{suffix}",
        f".{path.name}",
        f"{stem} (1){dot}{suffix}",
        f"{stem}\n2{dot}{suffix}",
        re.sub(r"(\d)(?!.*\d)", lambda m: str((int(m[1]) + 1) % 10), path.name) or path.name,
        f"{stem}é*[0]{dot}{suffix}",
    ]
    target = path.with_name(names[rng.integers(len(names))])
    if not target.exists():
        shutil.copyfile(path, target)
    return Damage("also there as " + repr(target.name), "valid", [name, target.relative_to(folder).as_posix()])


def impostor(folder, name, other, donor, rng) -> Damage:
    """The name is that of the file, the content that of another format."""
    contents = [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        b"\x80\x04\x95\x10",
        b"PK\x03\x04" + b"\0" * 40,
        b"\x93NUMPY\x01\x00\xff\xff",
        b"\x89HDF\r\n\x1a\n" + b"\0" * 100,
        b"GIF89a\xff\xff\xff\xff" + b"\0" * 20,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        b"<html></html>",
        b"\xff\xfe" + b"a\0" * 50,
        b"PAR1" + b"\0" * 8 + b"PAR1",
        b"{}",
        b"[]",
        b"null",
        b"\x1f\x8b\x08\0" + b"\0" * 30,
        b" ",
        b"#",
        (folder / other).read_bytes(),
    ]
    (folder / name).write_bytes(contents[rng.integers(len(contents))])
    return Damage("content of another format", "missing", [name])


PARTS = (remove, misplace, link, swap, mix, double, impostor)


# ------------------------------------------------------------------------------------------------- formats, rewritten


def changed(array: np.ndarray, rng) -> tuple[np.ndarray, str, str]:
    """An array with other values, type or shape; what it is now, and the kind of damage."""
    number = array.dtype.kind in "iuf"
    flat = np.array(array, dtype=np.float64 if number else None)
    ways = ["empty", "fewer", "more", "axis", "flat", "other order", "text", "bytes"]
    ways += ["nan", "inf", "zeros", "huge", "half", "complex", "bool", "int8", "double", "negative"] if number else []
    way = ways[rng.integers(len(ways))]
    if way in ("nan", "inf", "huge") and flat.size:
        flat.reshape(-1)[rng.integers(flat.size)] = {"nan": np.nan, "inf": np.inf, "huge": 1e300}[way]
        return (
            flat if array.dtype.kind != "f" or way == "huge" else flat.astype(array.dtype),
            way,
            "invalid" if way != "huge" else "valid",
        )
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
        arrays[key], way, kind = np.array([object], dtype=object), f"objects as {key}", "invalid"
    else:
        arrays[key], way, kind = changed(arrays[key], rng)
        way = f"{key}: {way}"
    np.savez(path, **arrays)
    return way, kind


def rewrite_mat(path: Path, rng) -> tuple[str, str]:
    """Arrays of MATLAB."""
    from scipy.io import loadmat, savemat

    arrays = {key: value for key, value in loadmat(path).items() if not key.startswith("__")}
    key = sorted(arrays)[rng.integers(len(arrays))]
    arrays[key], way, kind = changed(arrays[key], rng)
    savemat(path, arrays, do_compression=bool(rng.integers(2)))
    return f"{key}: {way}", kind


def rewrite_hdf5(path: Path, rng) -> tuple[str, str]:
    """Data sets of HDF5: other values, a declared size without storage, a link to another file."""
    import h5py

    with h5py.File(path, "a") as file:
        name = sorted(file)[rng.integers(len(file))]
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
        header.set_data_shape(
            (*data.shape[:3], 3 * 2**30 // data.dtype.itemsize // max(int(np.prod(data.shape[:3])), 1) % 30000)
        )
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
    nulls = pa.array([None] * len(table), table.schema.field(column).type)
    place = table.column_names.index(column)
    made = {
        "no rows": lambda: table.slice(0, 0),
        "one row less": lambda: table.slice(1),
        "a row twice": lambda: pa.concat_tables([table, table.slice(0, 1)]),
        "other order": lambda: table.take(list(range(len(table)))[::-1]),
        f"without {column}": lambda: table.drop_columns([column]),
        f"{column} all null": lambda: table.set_column(place, table.schema.field(column), nulls),
        f"{column} as text": lambda: table.set_column(
            place, column, pa.array([str(v) for v in table[column].to_pylist()])
        ),
        "without its schema": lambda: table.replace_schema_metadata(None),
        f"{column} from another row": lambda: table.set_column(
            place, table.schema.field(column), table[column].take(list(range(len(table)))[::-1])
        ),
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
        packer = zlib.compressobj(1)
        raw = (
            b""
            if way == "header lies"
            else b"".join(packer.compress(b"\0" * (3 * side + 1)) for _ in range(side)) + packer.flush()
        )

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
    head = ""
    if text.startswith("---\n"):  # the facts of a card
        head, text = text[4:].split("---\n", 1)[::-1]
    content = yaml.safe_load(text)
    way, _ = _change_tree(content, rng)
    made = yaml.safe_dump(content)
    if (choice := rng.random()) < 0.15:
        way, bomb = (
            "bomb of aliases",
            "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 10)),
        )
        made = "x0: &x0 [x]\n" + bomb + made
    elif choice < 0.25:
        way, made = "tag of Python", made + "y: !!python/object/apply:os.system ['true']\n"
    path.write_text(f"---\n{made}---\n{head}" if head else made, errors="surrogatepass")
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
    way = ["cell", "cell", "cell", "header", "row gone", "row twice", "column gone", "cells swapped", "encoding"][
        rng.integers(9)
    ]
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
    ((".hdf5",), rewrite_hdf5),
    ((".nii", ".nii.gz"), rewrite_nifti),
    ((".pth",), rewrite_pth),
    ((".safetensors",), rewrite_safetensors),
    ((".parquet",), rewrite_parquet),
    ((".png", ".JPEG", ".jpg"), rewrite_image),
    ((".json",), rewrite_json),
    ((".yaml", "README.md"), rewrite_yaml),
    ((".tsv", ".csv"), rewrite_table),
]
