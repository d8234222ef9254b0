"""Finished pieces, which a run goes on from where everything that decides them is the same."""

import numpy as np
import pytest

from neural_clip.files import kept
from neural_clip.files.kept import kept_pieces, read_piece, version_of, write_piece


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


def test_a_package_that_is_only_on_the_path_has_no_version():
    assert version_of("neural_clip_of_nobody") is None
