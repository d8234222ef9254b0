"""Files of a corpus that were half downloaded or mixed up: each gives what does it to a folder of raw files."""

import shutil


def cut(name, share=0.5):
    """A file that was half downloaded."""

    def damage(folder):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return damage


def swap(one, other):
    """Two files under each other's name."""

    def damage(folder):
        (folder / one).rename(folder / "aside")
        (folder / other).rename(folder / one)
        (folder / "aside").rename(folder / other)

    return damage


def copy(one, other):
    """A file in place of another one."""

    def damage(folder):
        (folder / other).unlink()
        shutil.copy(folder / one, folder / other)

    return damage
