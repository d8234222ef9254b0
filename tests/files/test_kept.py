"""Finished pieces, which a run goes on from where everything that decides them is the same."""

import numpy as np
import pytest

from neural_clip.files import kept
from neural_clip.files.kept import kept_pieces, read_piece, version_of, write_piece
from paths import REPOSITORY
from small_disk import run_on_small_disk


@pytest.mark.parametrize("package", [None, *kept.DECIDING])
def test_pieces_of_other_packages_are_not_used(tmp_path, monkeypatch, package):
    place = tmp_path / "set.partial"
    with pytest.raises(KeyboardInterrupt), kept_pieces(place, {"data": "a"}, "batches"):
        write_piece(place / "0.npz", np.ones((2, 3), np.float32))
        raise KeyboardInterrupt
    monkeypatch.setattr(kept, "version_of", lambda name: "0.1" if name == package else version_of(name))
    with kept_pieces(place, {"data": "a"}, "batches"):
        found = read_piece(place / "0.npz", (2, 3))
        assert (found is None) == (package is not None)
    assert not place.exists()


# A disk on which no key fits, and then one on which a piece does not.
FILLS = """
import sys
from pathlib import Path
import numpy as np
from neural_clip.errors import DataError
from neural_clip.files.kept import kept_pieces, write_piece

disk = Path(sys.argv[1])
for key in ({"a": "x" * 200_000}, {"a": "x"}):
    try:
        with kept_pieces(disk / "pieces", key, "batches") as kept:
            write_piece(kept / "0.npz", np.ones((9, 9), np.float32))
            write_piece(kept / "1.npz", np.ones((900, 90), np.float32))
    except DataError as error:
        print(str(error).replace(str(disk), "disk"), sorted(path.name for path in disk.rglob("*")))
"""


def test_on_a_full_disk_the_file_is_named_and_nothing_half_written_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "src"))
    done = run_on_small_disk(tmp_path, "128k", FILLS)
    first, second = done.stdout.splitlines()
    assert first.startswith("'disk/pieces/key.json' cannot be written: no space is left") and first.endswith("[]")
    assert second.startswith("'disk/pieces/1.npz' cannot be written: no space is left")
    assert second.endswith("['0.npz', 'key.json', 'pieces']"), done.stderr


def test_a_package_that_is_only_on_the_path_has_no_version():
    assert version_of("neural_clip_of_nobody") is None
