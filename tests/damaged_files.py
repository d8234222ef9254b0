"""Files damaged as disks and copies damage them."""

from pathlib import Path


def damage(path: str | Path, how: str) -> None:
    """Remove a file (`"missing"`), cut it in half (`"cut"`) or flip one of its bits (`"flipped"`)."""
    path = Path(path)
    content = path.read_bytes()
    path.unlink()  # it may be linked from elsewhere
    middle = len(content) // 2
    if how == "cut":
        path.write_bytes(content[:middle])
    elif how == "flipped":
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
