"""Names of images, concepts and channels: one way to write each, whatever file they come from."""

from __future__ import annotations

import unicodedata


def plain_name(name: str) -> str:
    """A name with composed letters (Unicode NFC), without spaces and zero bytes at its ends.

    File systems and tables write `é` as one letter or as two, and MATLAB fills the rows of a matrix of characters up
    with spaces.
    """
    return unicodedata.normalize("NFC", name).strip(" \t\r\n\0\ufeff")
