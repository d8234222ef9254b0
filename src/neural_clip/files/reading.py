"""Reading files strictly: what is absent, damaged or something else says so, each in its own words."""

from __future__ import annotations

import gzip
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from neural_clip.errors import MAX_DEPTH, DataError, parse_json
from neural_clip.files.numbers import NUMBER, number

MAX_UNPACKED, MAX_RATIO = 1 << 28, 100  # bytes, and times the file; recordings are not compressed that far
NOT_FINITE = r"(?:[+-]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"  # of YAML
MAX_YAML, MAX_NODES = 1 << 22, 200_000  # characters and values; a manifest of 10,000 recordings has half of it
CHUNK = 1 << 24  # bytes that are read at once where only a checksum is wanted
HEAD = 1024  # bytes that show what a file is; pointers are shorter
ABSENT_ADVICE = " Is the copy complete?"
POINTERS = (b"/annex/objects/", b"version https://git-lfs.github.com/spec/")
SIGNATURES = {
    b"\x93NUMPY": "an array of NumPy (.npy)",
    b"PK": "a zip archive (such as .npz)",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"MATLAB 7.3 MAT-file": "a MAT-file of version 7.3 (HDF5)",
    b"MATLAB 5.0 MAT-file": "a MAT-file of level 5",
    b"\x1f\x8b": "compressed by gzip",
    b"\x80": "a pickle of Python",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
}
# What libraries say of sound files.
SOUND = (
    "does not exist", "no such file", "not support", "unsupported", "unknown suffix", "could not find", "no raw data",
    "is needed", "could not be imported", "requires the", "unknown mat file", "exceeds limit", "not available",
    "using any of the possible readers",
)  # fmt: skip


@contextmanager
def reading(path: Path | str, what: str = "") -> Iterator[None]:
    """Turn whatever a library raises on a file into a `DataError` that names it."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # parsers of binary files raise nearly every type when a byte is wrong
        raise DataError(f"'{path}' cannot be read{what}: {reason_of(error)}") from error


@contextmanager
def told_where(place: Path | None, what: str, others: Iterable[str | Path] = ()) -> Iterator[None]:
    """Have a `DataError` on what a file says name that file, unless it names that or another place that is there."""
    try:
        yield
    except DataError as error:
        there = [each for each in others if Path(each).exists()]
        names = [Path(each).name for each in (place, *there) if each is not None and Path(each).name]
        if place is None or error.told_elsewhere or any(_is_named(name, str(error)) for name in names):
            raise
        raise DataError(f"{error} The {what} is '{place}'.") from error


def _is_named(name: str, text: str) -> bool:
    """Whether a text names a file as one: 'out', `runs/out/config.json` or out: are named so, dropout is not."""
    name = re.escape(name)
    return re.search(rf"(?<=['\"`/\\]){name}(?!\w)|(?<!\w){name}(?=['\"`/\\:])", text) is not None


def reason_of(error: Exception) -> str:
    """What a library says is wrong with a file, with a word on damage only where that is a likely cause."""
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if isinstance(error, PermissionError):
        return "permission denied."
    if "allow_pickle" in reason or "Python objects in dtype" in reason:  # read whole, and mapped into memory
        return (
            "it holds Python objects, which are not read because that could run code. Save numbers, or text by "
            "`np.asarray(names, dtype=str)`."
        )
    if not str(error).strip():  # of an assertion of a parser, say
        return f"{reason}. Is it damaged or truncated? It may also be of another format than its name says."
    known = isinstance(error, FileNotFoundError | IsADirectoryError | ImportError | NotImplementedError | MemoryError)
    if known or any(text in reason.lower() for text in SOUND):
        return f"{reason}."
    return f"{reason}. Is it damaged or truncated? The copy may be incomplete."


def existing(path: Path, what: str, advice: str = "") -> Path:
    """The path, if there is such a file with its content; `advice` follows where there is none.

    Raises:
        DataError: If it is absent, a folder, empty, a pointer of git-annex or git LFS, or may not be read.
    """
    try:
        check_no_pipe(path, what)
        with path.open("rb") as file:
            head = file.read(HEAD)
    except IsADirectoryError as error:
        raise DataError(f"There is no {what} '{path}': it is a folder.") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        link = " It is a link to a file that is not there." if path.is_symlink() else ""
        absent = f"'{path}' does not exist." if advice else f"There is no {what} '{path}'."
        raise DataError(f"{absent}{link}{advice}") from error
    except OSError as error:
        raise DataError(f"The {what} '{path}' cannot be read: {(error.strerror or str(error)).lower()}.") from error
    if not head:
        raise DataError(f"The {what} '{path}' is empty: it has 0 bytes, so it is no {what}.")
    if len(head) < HEAD and any(pointer in head for pointer in POINTERS):
        raise DataError(
            f"The {what} '{path}' is not downloaded: it is a pointer of git-annex or git LFS. Get its content first."
        )
    return path


def check_no_pipe(path: Path, what: str) -> None:
    """Raise a `DataError` where a path is a device or a pipe, whose reading might never end."""
    if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
        raise DataError(f"'{path}' is no {what}: it is a device or a pipe.")


def checked_files(paths: Iterable[Path], what: str) -> list[Path]:
    """Those that are files; a `DataError` where one is a device or a pipe, at which a library would wait."""
    there = [path for path in paths if path.exists()]
    for path in there:
        check_no_pipe(path, what)
    return [path for path in there if path.is_file()]


def head_of(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(HEAD)


def begins_like(head: bytes) -> str:
    """What the first bytes of a file tell of it, for a message."""
    kind = next((kind for signature, kind in SIGNATURES.items() if head.startswith(signature)), None)
    return f"it begins with {head[:8]!r}" if kind is None else f"it begins like {kind}"


def read_text(path: Path, what: str = "text file", advice: str = "") -> str:
    """Text of a file in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Raises:
        DataError: If the file is absent, or in another encoding.
    """
    content = existing(path, what, advice).read_bytes()
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise DataError(
            f"'{path}' is no {what} in UTF-8 or UTF-16: line {line} holds the byte 0x{byte:02x}. It is in another "
            f"encoding, such as Latin-1 (Windows-1252; save it in UTF-8), or damaged or no {what}."
        ) from error
    if "\0" in text:
        raise DataError(
            f"'{path}' is no {what} in UTF-8: it holds zero bytes. Is it in UTF-16 without a byte order mark?"
        )
    return text


def read_json(path: Path, what: str = "JSON file", advice: str = "", *, finite: bool = True) -> Any:
    """What a JSON file holds, as [`parse_json`] reads it.

    Raises:
        DataError: If the file is absent or no JSON, is nested too deeply, or holds NaN or infinite numbers (unless
            `finite` is off), half a character or one key twice.
    """
    text = read_text(path, what, advice)
    try:
        return parse_json(text, finite=finite)
    except ValueError as error:
        raise DataError(f"'{path}' is no readable {what}: {reason_of(error)}") from error


def read_yaml(path: Path, what: str = "YAML file") -> Any:
    """What a YAML file holds, as [`parse_yaml`] reads it.

    Raises:
        DataError: If the file is absent or no YAML.
    """
    return parse_yaml(read_text(path, what), f"'{path}' is no readable {what}")


def parse_yaml(text: str, failed: str) -> Any:
    """What YAML says, by its safe types alone.

    Args:
        text (`str`): The YAML.
        failed (`str`): How the message begins where it cannot be read; the reason follows.

    Raises:
        DataError: If it is no YAML, too long or too deep, holds one key twice, or has aliases that would become more
            than `MAX_NODES` values.
    """
    import yaml

    kind = _yaml_loader()
    try:
        if len(text) > MAX_YAML:
            raise ValueError(f"it has {len(text):,} characters; allowed are {MAX_YAML:,}")
        depth = 0
        for event in yaml.parse(text, kind):  # whatever goes deeper would end the interpreter
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested more than {MAX_DEPTH} deep, at line {event.start_mark.line + 1}")
        loader = kind(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count_values(node, {})
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{failed}: {' '.join(str(error).split()).rstrip('.')}.") from error


@cache
def _yaml_loader() -> Any:
    """The safe loader of YAML, with numbers as `files/numbers.py` has them; `.nan` and `.inf` stay, dates are text."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith((":int", ":float", ":timestamp"))]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(rf"{NUMBER.pattern}\Z"), list("+-.0123456789"))
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(NOT_FINITE), list("+-."))
    Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: number(loader.construct_scalar(node)))
    return Loader


def _count_values(node: Any, known: dict[int, int]) -> int:
    """How many values a node of YAML becomes where its aliases are written out."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = MAX_NODES + 1  # of a node within itself
    children = [child for pair in node.value for child in pair] if node.id == "mapping" else node.value
    if node.id == "mapping":
        (most, times), *_ = Counter(key.value for key, _ in node.value if key.id == "scalar").most_common(1) or [
            ("", 0)
        ]
        if times > 1:
            raise ValueError(f"it holds the key {most!r} twice{_place(node)}")
    count = 1 + (0 if node.id == "scalar" else sum(_count_values(child, known) for child in children))
    if count > MAX_NODES:
        raise ValueError(f"it has more than {MAX_NODES:,} values, its aliases written out{_place(node)}")
    known[id(node)] = count
    return count


def _place(node: Any) -> str:
    return f", in what begins at line {node.start_mark.line + 1}"


def check_unpacked(path: Path, size: int) -> None:
    """Refuse what would become far larger than its file.

    Args:
        path (`Path`): A compressed file.
        size (`int`): Bytes that it holds or announces.

    Raises:
        DataError: If these are more than a quarter of a GiB and more than 100 times the file.
    """
    if size > MAX_UNPACKED and size > MAX_RATIO * path.stat().st_size:
        raise DataError(
            f"'{path}' has {path.stat().st_size:,} bytes, but would become {size:,} bytes or more. A file of "
            f"recordings is not compressed so far; allowed are {MAX_RATIO} times its size. If it is meant so, save it "
            "uncompressed."
        )


def check_gzip(path: Path) -> None:
    """Read a `.gz` file to its end, because only there the checksum is compared."""
    size = 0
    with gzip.open(path) as packed:
        while block := packed.read(CHUNK):
            size += len(block)
            check_unpacked(path, size)
