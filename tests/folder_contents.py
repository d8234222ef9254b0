"""What a folder holds, byte for byte."""

from pathlib import Path


def contents(folder: str | Path) -> dict[str, bytes]:
    """Bytes of each file below a folder, by its place there."""
    folder = Path(folder)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
