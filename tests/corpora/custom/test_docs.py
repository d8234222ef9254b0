"""`docs/bring_your_own_recordings.md`: its manifests are prepared, its table of keys is that of the code.

`PYTHONPATH=tests python tests/corpora/custom/test_docs.py` writes the table anew from the docstrings.
"""

import dataclasses
import re

import numpy as np
import pytest
import yaml

from continuous_raw import simulated_raw, write_brainvision
from custom_raw import rng
from neural_clip.corpora.custom.build import prepare
from neural_clip.corpora.custom.manifest import (
    KIND_KEYS,
    Embeddings,
    Expect,
    Images,
    Manifest,
    Places,
    Recording,
    Splits,
)
from neural_clip.prepared.facts import verify_prepared
from paths import REPOSITORY

PAGE = REPOSITORY / "docs" / "bring_your_own_recordings.md"
SECTIONS = {
    "The manifest": Manifest, "Each of `recordings`": Recording, "`images`": Images, "`embeddings`": Embeddings,
    "`splits`": Splits, "`places`": Places, "`expect`": Expect,
}  # fmt: skip
COMMON = {"file", "kind", "subject", "session", "run", "split"}
N = 60  # trials a file
NAMES = [f"{'dogs' if i % 2 else 'cats'}/im{i:02d}" for i in range(30)]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)


EXAMPLES = {yaml.safe_load(text)["name"]: text for text in blocks("yaml")}


# The table of keys.


def documented(kind):
    """Names and text of the entries under `Args:`."""
    text = kind.__doc__.split("Args:\n")[1]
    for entry in re.split(r"\n {8}(?=\S)", "\n" + text.rstrip())[1:]:
        head, _, body = entry.partition("): ")
        yield re.sub(r" \(.*?\)", "", head + ")").split(", "), " ".join(body.split())


def default_of(field):
    if field.default_factory is not dataclasses.MISSING:
        return f"`{field.default_factory()}`"
    if field.default is dataclasses.MISSING:
        return "needed"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return "" if field.default in (None, "") else f"`{field.default}`"


def reference():
    lines = []
    for title, kind in SECTIONS.items():
        fields = {field.name: field for field in dataclasses.fields(kind)}
        with_kinds = kind is Recording
        lines += [
            "",
            f"### {title}",
            "",
            "| key | default | what |" if not with_kinds else "| key | of | default | what |",
        ]
        lines.append("|---" * (3 + with_kinds) + "|")
        for names, text in documented(kind):
            keys = ", ".join(f"`{name}`" for name in names)
            found = [default_of(fields[name]) for name in names]
            defaults = found[0] if len(set(found)) == 1 else ", ".join(value or "none" for value in found)
            of = "all" if set(names) <= COMMON else ", ".join(k for k in KIND_KEYS if set(names) <= KIND_KEYS[k])
            text = re.sub(r"\[(`\w+`)\]", r"\1", text).replace("|", "\\|")
            lines.append(f"| {keys} | {of + ' | ' if with_kinds else ''}{defaults} | {text} |")
    return "\n".join(lines) + "\n\n"


def test_every_key_of_the_code_is_in_the_table_and_no_other():
    table = re.search(r"<!-- keys -->\n(.*?)<!-- end -->", PAGE.read_text(encoding="utf-8"), flags=re.S)[1]
    assert table == reference()
    for kind, part in zip(SECTIONS.values(), table.split("### ")[1:], strict=True):
        listed = [
            name for row in re.findall(r"^\| (`.*?`) \|", part, flags=re.M) for name in re.findall(r"`(\w+)`", row)
        ]
        assert sorted(listed) == sorted(field.name for field in dataclasses.fields(kind))


def test_every_key_of_a_kind_is_a_field():
    fields = {field.name for field in dataclasses.fields(Recording)}
    assert set().union(*KIND_KEYS.values()) | COMMON == fields
    assert all(kind in PAGE.read_text(encoding="utf-8") for kind in KIND_KEYS)


def test_prose_names_no_unknown_key():
    """Words in backticks that look like a key, outside code blocks, are keys or known words."""
    text = re.sub(r"^```.*?^```$", "", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S).split("## All keys")[0]
    keys = {field.name for kind in SECTIONS.values() for field in dataclasses.fields(kind)}
    words = {word.partition(":")[0] for word in re.findall(r"`(\w+(?:: \w+)?)`", text)}
    others = {"onset", "drop", "train", "patterns", "series", "continuous", "bids", "epochs", "image", "recording",
              "01", "trial_type", "ch_positions", "ch_positions_frame", "head", "device", "base"}  # fmt: skip
    assert words - keys - others == set()


# The manifests.


def pictures(folder, names=NAMES):
    from PIL import Image

    for i, name in enumerate(names):
        path = folder / "stimuli" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng(i).integers(0, 255, (4, 4, 3), dtype=np.uint8)).save(path)


def epochs_of(names, column="image_id", seed=0):
    import mne
    import pandas

    info = mne.create_info(["A", "B", "C"], 100.0, "eeg", verbose="error")
    data = rng(seed).normal(size=(len(names), 3, 21)) * 1e-5
    return mne.EpochsArray(data, info, metadata=pandas.DataFrame({column: names}), verbose="error")


def run_python(number, **names):
    """Run one of the page's Python blocks where the test stands."""
    exec(compile(blocks("python")[number], f"{PAGE.name}, Python block {number}", "exec"), names)


def events(path, step, names, column="stim_file"):
    lines = [f"onset\tduration\ttrial_type\t{column}"]
    for i, name in enumerate(names):
        lines += [f"{2 + step * i:.3f}\t0.5\timage\t{name}", f"{2.5 + step * i:.3f}\t0\tpress\tn/a"]
    path.write_text("\n".join(lines) + "\n")


def my_epochs(folder):
    pictures(folder)
    run_python(0, epochs=epochs_of(["?"] * N), image_names=NAMES * 2)


def my_continuous_eeg(folder):
    pictures(folder)
    for seed, subject in enumerate(("sub-01", "sub-02")):
        write_brainvision(folder, simulated_raw(seed, seconds=70.0))
        (folder / "rec.eeg").rename(folder / f"{subject}.eeg")
        text = (folder / "rec.vhdr").read_text(encoding="utf-8").replace("rec.", f"{subject}.")
        (folder / f"{subject}.vhdr").write_text(text, encoding="utf-8")
        (folder / "rec.vmrk").rename(folder / f"{subject}.vmrk")
        events(folder / f"{subject}_events.tsv", 1.05, NAMES * 2)


def my_bids_meg(folder):
    import mne

    mne_bids = pytest.importorskip("mne_bids")
    np.savez(folder / "clip.npz", ids=np.array(NAMES), embeds=rng(2).normal(size=(30, 4)))
    for subject in ("01", "02"):
        path = folder / f"{subject}_meg.fif"
        raw = simulated_raw(int(subject), kind="mag", seconds=70.0, unit=1e-12)
        raw.info["line_freq"] = 50
        raw.set_annotations(mne.Annotations([2.0], [0.5], ["image"]))
        raw.save(path, verbose="error")
        target = mne_bids.BIDSPath(
            root=folder / "bids_root", subject=subject, session="01", run="01", task="viewing", datatype="meg"
        )
        mne_bids.write_raw_bids(mne.io.read_raw_fif(path, verbose="error"), target, verbose="error")
        events(next((folder / "bids_root" / f"sub-{subject}").rglob("*_events.tsv")), 1.05, NAMES * 2)


def my_fmri_runs(folder):
    import nibabel

    pictures(folder)
    nibabel.Nifti1Image(np.ones((3, 3, 2), np.uint8), np.eye(4)).to_filename(folder / "visual_cortex.nii.gz")
    for run in (1, 2, 3):
        image = nibabel.Nifti1Image(rng(run).normal(100, 5, (3, 3, 2, 80)).astype(np.float32), np.eye(4))
        image.header.set_zooms((2, 2, 2, 2.0))
        image.header.set_xyzt_units("mm", "sec")
        image.to_filename(folder / f"run-0{run}_bold.nii.gz")
        rows = "".join(f"{4 + 4 * i}\t{name}\n" for i, name in enumerate(NAMES))
        (folder / f"run-0{run}_events.tsv").write_text("onset\tstim_file\n" + rows)


def my_patterns(folder):
    shown, images = np.tile(np.arange(1, 31), 2), rng(1).integers(0, 255, (30, 4, 4), dtype=np.uint8)
    np.savez(folder / "patterns.npz", betas=rng(0).normal(size=(N, 40)), shown=shown, pictures=images)
    np.save(folder / "places.npy", rng(2).uniform(-70, 70, (40, 3)))


def my_array(folder):
    pictures(folder)
    np.save(folder / "sub-01.npy", rng(0).normal(size=(N, 3, 50)) * 1e-12)
    (folder / "sub-01.csv").write_text("image_id\n" + "".join(f"{name}\n" for name in NAMES * 2))


def my_embeddings(folder):
    epochs_of(NAMES * 2).save(folder / "sub-01-epo.fif", verbose="error")
    run_python(1, image_names=NAMES, vectors=rng(0).normal(size=(30, 4)))


def my_categories(folder):
    for run in (1, 2, 3):
        epochs_of(["face", "house"] * 10, "category", run).save(folder / f"sub-01_run-0{run}-epo.fif", verbose="error")
    names = ["faces/annie.jpg", "faces/bob.jpg", "houses/mill.jpg", "houses/barn.jpg"]
    np.savez(folder / "embeddings.npz", ids=np.array(names), embeds=rng(0).normal(size=(4, 5)))


MAKERS = {
    maker.__name__: maker
    for maker in (
        my_epochs, my_continuous_eeg, my_bids_meg, my_fmri_runs, my_patterns, my_array, my_embeddings, my_categories,
    )
}  # fmt: skip


def test_every_block_has_its_files():
    assert list(EXAMPLES) == list(MAKERS)
    assert len(blocks("python")) == 2


@pytest.mark.parametrize("name", EXAMPLES)
def test_manifests_of_the_page_can_be_prepared(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    MAKERS[name](tmp_path)
    (tmp_path / "manifest.yaml").write_text(EXAMPLES[name], encoding="utf-8")
    facts = verify_prepared(prepare("manifest.yaml", "data/mine"))
    expected = {"my_continuous_eeg": 2 * N, "my_bids_meg": 2 * N, "my_fmri_runs": 90, "my_categories": N}
    assert sum(split["rows"] for split in facts["splits"].values()) == expected.get(name, N)
    assert all(split["rows"] for split in facts["splits"].values())
    assert facts["corpus"] == name and facts["partial"] is None


if __name__ == "__main__":
    page = re.sub(
        r"(<!-- keys -->\n).*?(<!-- end -->)",
        lambda match: match[1] + reference() + match[2],
        PAGE.read_text(encoding="utf-8"),
        flags=re.S,
    )
    PAGE.write_text(page, encoding="utf-8")
