"""What the numbers of THINGS-MEG stand for: file names of the THINGS images, concepts and categories."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_clip.corpora.declared import path_inside
from neural_clip.corpora.things_meg.facts import CorpusFacts
from neural_clip.corpora.things_meg.layout import (
    attribute_path,
    is_downloaded,
    read_attributes,
    read_text,
)
from neural_clip.errors import DataError

MATRIX = Path("sourcedata", "category_mat_manual.tsv")  # 27 categories, in the raw folder
TABLE_NAME = "Categories_final_20200131.tsv"  # 53 categories
TABLE_SOURCE = "the public repository ViCCo-Group/THINGS-data (MRI/data)"
IMAGE_SOURCE = "its archive at osf.io/jum2f"
ARCHIVE_ADVICE = (
    "The archive of the THINGS images is encrypted: extract it yourself after you have read and accepted its terms "
    "(osf.io/jum2f), and give the folder with --images-dir. This program enters no password."
)


@dataclass(frozen=True)
class Stimuli:
    """What the THINGS numbers stand for.

    Args:
        files (`dict[int, str]`): File name (`"coat_rack_13s.jpg"`) by THINGS image number, from 1.
        folder (`Path`): Folder with one folder of images per concept.
        categories (`list[list[str]]`): Categories by THINGS concept number minus 1; `["none"]` where there is none.
        words (`list[str]`, *optional*): Word of each row of the table of 53 categories.
        tables (`tuple[Path, ...]`): Files that were read.
    """

    files: dict[int, str]
    folder: Path
    categories: list[list[str]]
    words: list[str] | None
    tables: tuple[Path, ...]

    @classmethod
    def read(
        cls, raw_dir: Path, images_dir: Path | None, subjects: Sequence[int], facts: CorpusFacts,
        categories: str = "27", categories_file: Path | None = None,
    ) -> Stimuli:  # fmt: skip
        """Find file names (in `image_paths.csv` and the subjects' tables, which must agree), images and categories.

        Args:
            raw_dir (`Path`): BIDS root.
            images_dir (`Path`, *optional*): Extracted images, by default `<raw_dir>/images`.
            subjects (`Sequence[int]`): Whose tables to read.
            facts (`CorpusFacts`): Counts of concepts and of listed images.
            categories (`str`): `"27"` or `"53"`.
            categories_file (`Path`, *optional*): The table of 53.

        Raises:
            DataError: If a file is missing, damaged or contradicts another, or names a file outside its folder.
        """
        folder, paths_file = _image_folder(raw_dir, images_dir)
        files = _listed_files(paths_file, folder, facts) if paths_file else {}
        tables = [paths_file] if paths_file else []
        for subject in subjects:
            path = attribute_path(raw_dir, subject)
            if files and not is_downloaded(path):
                continue  # the list of all images is enough
            if not path.exists() and not path.is_symlink():
                raise DataError(
                    f"The names of the images are unknown: neither '{path}' nor image_paths.csv (in or beside "
                    f"'{folder}') was found. The first is part of ds004212 (sourcedata), the second of the THINGS "
                    "database."
                )
            _merge_files(files, path, folder)
            tables.append(path)
        matrix = raw_dir / MATRIX
        header, rows = _read_matrix(matrix, facts)
        words = None
        if categories == "53":
            if categories_file is None:
                raise DataError(f"Categories '53' need --categories-file: {TABLE_NAME} of {TABLE_SOURCE}.")
            words, header, rows = _read_table(categories_file, facts, matrix, header, rows)
        tables.append(categories_file if categories == "53" and categories_file else matrix)
        named = [[name for name, flag in zip(header, row, strict=True) if flag] or ["none"] for row in rows]
        return cls(files, folder, named, words, tuple(tables))

    def describe(self, value: int, category: int) -> dict:
        """Image row of a THINGS image number: `image_id`, `concept`, `categories` and the path of the image.

        Raises:
            DataError: If a number is unknown, or the table of 53 categories has another word in the concept's row.
        """
        if value not in self.files:
            raise DataError(f"THINGS image number {value} has no file name; numbers 1 to {max(self.files)} are known.")
        if not 1 <= category <= len(self.categories):
            raise DataError(f"THINGS concept number {category} is unknown; allowed are 1 to {len(self.categories)}.")
        file = self.files[value]
        concept = _concept(file)
        if self.words and _plain_word(self.words[category - 1]) != _plain_word(concept):
            raise DataError(
                f"Row {category} of '{self.tables[-1]}' is '{self.words[category - 1]}', but concept {category} is "
                f"'{concept}'. The table was reordered; it is joined by row, because its words are not unique."
            )
        return {
            "image_id": file.rsplit(".", 1)[0], "concept": concept, "categories": self.categories[category - 1],
            "image": self.folder / concept / file,
        }  # fmt: skip


def _concept(file: str) -> str:
    """`coat_rack_13s.jpg` is of concept `coat_rack`: names hold underscores."""
    return file.rsplit(".", 1)[0].rsplit("_", 1)[0]


def _plain_word(word: str) -> str:
    """`bow2`, `ice-cream cone` and `ice-cream_cone` without numbers and dividers, for comparison only."""
    return re.sub(r"\d+$", "", word.lower().replace(" ", "_").replace("-", "_"))


def _image_folder(raw_dir: Path, images_dir: Path | None) -> tuple[Path, Path | None]:
    """Folder of the concepts' folders, and the list of image paths if there is one."""
    base = images_dir or raw_dir / "images"
    if base.is_file():
        raise DataError(f"'{base}' is a file; expected the folder of the extracted THINGS images. {ARCHIVE_ADVICE}")
    folder = base / "object_images" if (base / "object_images").is_dir() else base
    if not folder.is_dir():
        raise DataError(
            f"'{base}' does not exist. Give the folder of the extracted THINGS images "
            "(object_images/<concept>/<file>.jpg) with --images-dir; the archive and its terms are at osf.io/jum2f."
        )
    visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if not any(path.is_dir() for path in visible):
        archives = sorted(path.name for path in visible if path.suffix.lower() == ".zip")
        raise DataError(
            f"'{folder}' holds no folder of images" + (f", only {archives}. {ARCHIVE_ADVICE}" if archives else ".")
        )
    for candidate in (base / "image_paths.csv", folder / "image_paths.csv", base.parent / "image_paths.csv"):
        if candidate.exists() or candidate.is_symlink():
            return folder, candidate
    return folder, None


def _file_name(listed: str, folder: Path, where: Path) -> str:
    """File name of a path that a table lists, after making sure that it cannot leave the folder of images."""
    path_inside(folder, listed, where)
    file = listed.rsplit("/", 1)[-1]
    path_inside(folder, f"{_concept(file)}/{file}", where)  # `.._01b.jpg` would be of the concept `..`
    return file


def _listed_files(path: Path, folder: Path, facts: CorpusFacts) -> dict[int, str]:
    """File name by position in THINGS' list, from 1."""
    lines = [line.strip().strip('"') for line in read_text(path).splitlines() if line.strip()]
    if lines and not lines[0].lower().endswith((".jpg", ".jpeg")):
        lines = lines[1:]  # a header
    bad = [line for line in lines if not line.lower().endswith((".jpg", ".jpeg"))]
    if bad or not lines:
        raise DataError(
            f"'{path}' must list one .jpg path a line, but has {len(lines)} lines and holds '{(bad or [''])[0]}'."
        )
    if facts.n_listed and len(lines) != facts.n_listed:
        raise DataError(
            f"'{path}' lists {len(lines)} images; THINGS has {facts.n_listed}. Numbers are positions in this list."
        )
    return {number: _file_name(line, folder, path) for number, line in enumerate(lines, 1)}


def _merge_files(files: dict[int, str], path: Path, folder: Path) -> None:
    """Add the file names of a subject's table; two names for one number are an error."""
    table = read_attributes(path, ["trial_type", "things_image_nr", "image_path"])
    table = table[table.trial_type != "catch"].drop_duplicates(["things_image_nr", "image_path"])
    for value, name in zip(table.things_image_nr, table.image_path, strict=True):
        try:
            number = int(value)
        except (TypeError, ValueError) as error:
            raise DataError(f"'{path}' has an exp or test row without a THINGS number: {value!r}.") from error
        file = _file_name(str(name), folder, path)
        known = files.setdefault(number, file)
        if known != file:
            raise DataError(f"'{path}': THINGS image number {number} is '{file}', but elsewhere it is '{known}'.")


def _read_matrix(path: Path, facts: CorpusFacts) -> tuple[list[str], list[list[bool]]]:
    """Names and flags of the 27 categories; the rows have no names, they follow the THINGS numbers."""
    header, *rows = [line.split("\t") for line in read_text(path).splitlines() if line.strip()] or [[]]
    if not rows or set(header) <= {"0", "1"} or any(len(row) != len(header) or set(row) - {"0", "1"} for row in rows):
        raise DataError(f"'{path}' must hold a line of category names, then lines of {len(header)} zeros and ones.")
    if len(header) != 27 or len(rows) != facts.n_concepts:
        raise DataError(
            f"'{path}' has {len(rows)} rows of {len(header)} categories; expected {facts.n_concepts} concepts and 27."
        )
    return header, [[flag == "1" for flag in row] for row in rows]


def _read_table(
    path: Path, facts: CorpusFacts, matrix: Path, names: list[str], flags: list[list[bool]]
) -> tuple[list[str], list[str], list[list[bool]]]:
    """Words, names and flags of the 53 categories.

    Rows follow the THINGS numbers; words are not unique (bat, calf, chicken). The last row has no word and holds the
    sum of each column. The first 27 columns repeat the 27 categories. Both are checked.
    """
    header, *rows = [line.split("\t") for line in read_text(path, TABLE_SOURCE).splitlines() if line.strip()] or [[]]
    if len(header) != 55 or len(rows) != facts.n_concepts + 1 or any(len(row) != 55 for row in rows) or rows[-1][0]:
        raise DataError(
            f"'{path}' has {len(rows)} rows and {len(header)} columns; expected {TABLE_NAME}: word, definition and 53 "
            f"categories for {facts.n_concepts} concepts, then a row of sums without a word."
        )
    *rows, sums = rows
    bad = [number for number, row in enumerate(rows, 1) if set(row[2:]) - {"", "1"}]
    if bad:
        raise DataError(f"'{path}', row {bad[0]}: categories are marked by 1 or empty.")
    table = [[flag == "1" for flag in row[2:]] for row in rows]
    counts = [str(sum(column)) for column in zip(*table, strict=True)]
    if counts != sums[2:]:
        raise DataError(f"'{path}': its last row, the sums of the columns, contradicts the rows above.")
    if header[2:29] != names or [row[:27] for row in table] != flags:
        raise DataError(f"'{path}': its first 27 categories differ from '{matrix}'. One of them was reordered.")
    return [row[0] for row in rows], header[2:], table
