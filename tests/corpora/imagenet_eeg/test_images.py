"""ImageNet images by name, in folders and archives written here in the layouts of the real ones."""

import io
import pickle
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neural_clip.corpora.imagenet_eeg import images as imagenet_images
from neural_clip.corpora.imagenet_eeg.images import ImageFile, find_images
from neural_clip.corpora.imagenet_eeg.options import IMAGE_DIR
from neural_clip.errors import DataError

CLASSES = ("n02389026", "n03888257")


def jpeg(seed: int) -> bytes:
    """A small image file unlike the others."""
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


FILES = {f"{CLASSES[i % 2]}_{17 + i}": jpeg(i) for i in range(6)}
OTHERS = {"n02389026_99": jpeg(99), "n01440764_5": jpeg(100)}  # in the archives, but not asked for


def synset(name: str) -> str:
    return name.split("_")[0]


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def tree(folder: Path, below: str = IMAGE_DIR, suffix: str = ".JPEG") -> Path:
    for name, content in (FILES | OTHERS).items():
        write(folder / below / synset(name) / f"{name}{suffix}", content)
    return folder


def flat(folder: Path, suffix: str = ".JPEG") -> Path:
    for name, content in (FILES | OTHERS).items():
        write(folder / f"{name}{suffix}", content)
    return folder


def tar_bytes(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def class_tars() -> dict[str, bytes]:
    everything = FILES | OTHERS
    return {
        f"{one}.tar": tar_bytes({f"{n}.JPEG": c for n, c in everything.items() if synset(n) == one})
        for one in sorted({synset(name) for name in everything})
    }


def official_tar(folder: Path) -> Path:
    write(folder / "ILSVRC2012_img_train.tar", tar_bytes(class_tars()))
    return folder


def single_tars(folder: Path) -> Path:
    for name, content in class_tars().items():
        write(folder / name, content)
    return folder


def zipped(folder: Path, compression: int, prefix: str = f"{IMAGE_DIR}/") -> Path:
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "imagenet-object-localization.zip", "w", compression) as file:
        file.writestr("ILSVRC/Annotations/CLS-LOC/train/n02389026/n02389026_17.xml", "<annotation/>")
        for name, content in (FILES | OTHERS).items():
            file.writestr(f"{prefix}{synset(name)}/{name}.JPEG", content)
    return folder


LAYOUTS = {
    "official tree": tree,
    "train folder": lambda folder: tree(folder, "train"),
    "synset folders": lambda folder: tree(folder, ""),
    "lower case": lambda folder: tree(folder, suffix=".jpeg"),
    "flat": flat,
    "flat jpg": lambda folder: flat(folder, ".jpg"),
    "official tar": official_tar,
    "class tars": single_tars,
    "zip, stored": lambda folder: zipped(folder, zipfile.ZIP_STORED),
    "zip, deflated": lambda folder: zipped(folder, zipfile.ZIP_DEFLATED),
    "zip, shallow": lambda folder: zipped(folder, zipfile.ZIP_STORED, "train/"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_bytes(tmp_path, layout):
    place = LAYOUTS[layout](tmp_path / "place")
    before = sorted(tmp_path.rglob("*"))
    found = find_images(place, [*FILES, "n02389026_404"])
    assert found.keys() == FILES.keys()
    for name, file in found.items():
        assert pickle.loads(pickle.dumps(file)).read() == FILES[name]
    assert sorted(tmp_path.rglob("*")) == before, "nothing is unpacked"


@pytest.mark.parametrize("name", ["anything.tar", "anything.zip", "no_suffix"])
def test_an_archive_itself_may_be_named(tmp_path, name):
    made = zipped(tmp_path / "zip", zipfile.ZIP_DEFLATED) if name.endswith("zip") else official_tar(tmp_path / "tar")
    archive = next(made.iterdir()).rename(tmp_path / name)
    assert {key: file.read() for key, file in find_images(archive, FILES).items()} == FILES


def test_files_go_before_archives_and_archives_fill_gaps(tmp_path):
    place = official_tar(tmp_path)
    first, *others = FILES
    write(place / IMAGE_DIR / synset(first) / f"{first}.JPEG", b"in the tree")
    found = find_images(place, FILES)
    assert found[first] == ImageFile(place / IMAGE_DIR / synset(first) / f"{first}.JPEG")
    assert found[first].read() == b"in the tree"
    assert {name: found[name].read() for name in others} == {name: FILES[name] for name in others}


def test_only_headers_of_a_large_tar_are_read(tmp_path):
    """Five classes of 2 GiB stand before the wanted one, as holes of a sparse file."""
    path, hole = tmp_path / "ILSVRC2012_img_train.tar", 2 * 2**30
    with path.open("wb") as file:
        for i in range(5):
            info = tarfile.TarInfo(f"n0000000{i}.tar")
            info.size = hole
            file.write(info.tobuf())
            file.seek(hole, io.SEEK_CUR)
        file.write(tar_bytes(class_tars()))
    counter = Path("/proc/self/io")
    before = int(counter.read_text().split()[1]) if counter.is_file() else 0
    found = find_images(tmp_path, FILES)
    after = int(counter.read_text().split()[1]) if counter.is_file() else 0
    assert all(file.offset > 5 * hole for file in found.values())
    assert {name: file.read() for name, file in found.items()} == FILES
    assert after - before < 2**20


def test_names_in_archives_lead_nowhere(tmp_path):
    name, content = next(iter(FILES.items()))
    inner = tar_bytes({f"../../../{name}.JPEG": content, "/etc/passwd": b"no"})
    write(tmp_path / "in" / "a" / "ILSVRC.tar", tar_bytes({f"../../{synset(name)}.tar": inner}))
    with zipfile.ZipFile(tmp_path / "in" / "a" / "imagenet.zip", "w") as file:
        file.writestr(f"../../../{list(FILES)[1]}.JPEG", FILES[list(FILES)[1]])
    before = sorted(tmp_path.rglob("*"))
    found = find_images(tmp_path / "in" / "a", FILES)
    assert {key: file.read() for key, file in found.items()} == dict(list(FILES.items())[:2])
    assert sorted(tmp_path.rglob("*")) == before


def test_what_only_looks_like_an_image_is_passed_over(tmp_path):
    name, content = next(iter(FILES.items()))
    (tmp_path / IMAGE_DIR / synset(name) / f"{name}.JPEG").mkdir(parents=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for kind, linkname in ((tarfile.DIRTYPE, ""), (tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "x")):
            info = tarfile.TarInfo(f"{name}.JPEG")
            info.type, info.linkname = kind, linkname
            tar.addfile(info)
        for other in (f"._{name}.JPEG", f"{name}.txt", f"{name}_2.JPEG"):
            info = tarfile.TarInfo(other)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"bad"))
    write(tmp_path / "ILSVRC.tar", buffer.getvalue())
    write(tmp_path / "eeg_release.zip", b"not even an archive")
    assert find_images(tmp_path, [name]) == {}
    write(tmp_path / f"{name}.jpg", content)
    assert find_images(tmp_path, [name])[name].read() == content


def contents(place: Path, names) -> dict[str, bytes] | None:
    """What is found and read, `None` if that ends in an error that names the archive."""
    try:
        return {name: file.read() for name, file in find_images(place, names).items()}
    except DataError as error:
        assert str(place) in str(error)
        return None


def test_a_cut_image_is_noticed_before_anything_is_read(tmp_path):
    archive = single_tars(tmp_path) / "n02389026.tar"
    content, name = archive.read_bytes(), "n02389026_21"
    archive.write_bytes(content[: content.index(FILES[name]) + len(FILES[name]) - 1])
    with pytest.raises(DataError, match=r"n02389026\.tar' is truncated or damaged"):
        find_images(tmp_path, [name])


@pytest.mark.parametrize("make", [official_tar, single_tars])
@pytest.mark.parametrize("names", [[*FILES], [*FILES, "n02389026_404"]])
def test_truncated_tars_are_never_taken_for_whole(tmp_path, make, names):
    archive = make(tmp_path / "place") / ("ILSVRC2012_img_train.tar" if make is official_tar else "n02389026.tar")
    names = [name for name in names if make is official_tar or synset(name) == "n02389026"]
    expected = {name: FILES[name] for name in names if name in FILES}
    content = archive.read_bytes()
    assert contents(archive, names) == expected
    needed = max(content.index(image) + len(image) for image in expected.values())
    for kept in range(0, len(content), 97):
        archive.write_bytes(content[:kept])
        found = contents(archive, names)
        assert found in (None, expected)
        assert found is None or (kept >= needed and "n02389026_404" not in names) or not any(content[kept:])


def test_flipped_bits_in_the_headers_of_a_tar_are_noticed(tmp_path):
    """A name that is not there makes the search go to the end of its class."""
    archive = official_tar(tmp_path) / "ILSVRC2012_img_train.tar"
    content, names = bytearray(archive.read_bytes()), [*FILES, "n02389026_404"]
    images = np.zeros(len(content), bool)
    for one in (FILES | OTHERS).values():
        start = bytes(content).index(one)
        images[start : start + len(one)] = True
    used = np.flatnonzero(np.frombuffer(bytes(content), np.uint8).astype(bool) & ~images)  # names, sizes, checksums
    refused = 0
    for position in used[::2]:
        damaged = content.copy()
        damaged[position] ^= 1 << int(position % 7)
        archive.write_bytes(damaged)
        found = contents(archive, names)
        assert found in (None, FILES)
        refused += found is None
    assert refused > 0.35 * len(used), "headers of classes that are not asked for are the others"


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_zips_never_give_other_bytes(tmp_path, compression):
    archive = next(zipped(tmp_path / "place", compression).iterdir())
    content = archive.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(content), 300):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        archive.write_bytes(damaged)
        found = contents(archive, FILES)
        assert found is None or found.items() <= FILES.items()
    for kept in range(0, len(content), 211):
        archive.write_bytes(content[:kept])
        assert contents(archive, FILES) is None


def test_a_changed_image_in_a_zip_is_noticed(tmp_path):
    archive = next(zipped(tmp_path / "place", zipfile.ZIP_STORED).iterdir())
    name, image = next(iter(FILES.items()))
    content = bytearray(archive.read_bytes())
    content[bytes(content).index(image) + len(image) // 2] ^= 1
    archive.write_bytes(content)
    found = find_images(archive, FILES)
    with pytest.raises(DataError, match=r"imagenet-object-localization\.zip' is truncated or damaged"):
        found[name].read()


def test_archives_that_cannot_be_read_in_place_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "imagenet.zip", "w", zipfile.ZIP_BZIP2) as file:
        for name, content in FILES.items():
            file.writestr(f"{name}.JPEG", content)
    with pytest.raises(DataError, match=r"imagenet\.zip' is encrypted or compressed otherwise"):
        find_images(tmp_path, FILES)
    with tarfile.open(tmp_path / "train.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "imagenet.zip", "x")
    with pytest.raises(DataError, match=r"train\.tar\.gz' is .* uncompressed tar"):
        find_images(tmp_path / "train.tar.gz", FILES)
    with pytest.raises(DataError, match=r"nowhere.* does not exist"):
        find_images(tmp_path / "nowhere", FILES)


def test_a_file_that_vanished_is_named(tmp_path):
    found = find_images(flat(tmp_path), FILES)
    name, file = next(iter(found.items()))
    file.path.unlink()
    with pytest.raises(DataError, match=f"{name}.JPEG' cannot be read"):
        file.read()


def test_a_deflate_bomb_stops_at_the_stated_size(tmp_path):
    """The directory states 1,000 bytes; the data would unpack to 50 MB."""
    name = next(iter(FILES))
    archive = tmp_path / "imagenet.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{name}.JPEG", bytes(50_000_000))
    stated = archive.read_bytes().replace((50_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    archive.write_bytes(stated)
    found = find_images(archive, [name])[name]
    tracemalloc.start()
    with pytest.raises(DataError, match="truncated or damaged"):
        found.read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_names_of_images():
    assert imagenet_images.IMAGE_NAME.fullmatch("n02951358_31190")
    for wrong in ("n0295135_1", "../n02951358_1", "n02951358_1\n", "n02951358_1/..", "n02951358_", "n02951358_٣", ""):
        assert not imagenet_images.IMAGE_NAME.fullmatch(wrong)
