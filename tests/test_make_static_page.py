"""The static page: its models, what it shows in a browser, and files that it refuses in words."""

import functools
import http.server
import json
import re
import threading

import numpy as np
import pytest
import torch

import make_static_page
from browser import NARROW, fits, page_at, photograph
from neural_clip import NeuralGallery
from neural_clip.errors import DataError
from neural_clip.gallery.embedder import Embedder
from neural_clip.prepared.reader import PreparedSet
from neural_clip.sample import CHECKPOINT, FOLDERS
from paths import REPOSITORY
from tolerances import EXPORTED, assert_exported_alike

MODALITIES = list(FOLDERS)
RECORDINGS = (0, 6, 39)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if not make_static_page.RUNTIME.is_dir():
        pytest.skip("onnxruntime-web is not installed; `make browser` installs it")
    pytest.importorskip("onnxscript", reason="onnxscript, by which torch writes ONNX, is not installed")
    place = tmp_path_factory.mktemp("static") / "page"
    make_static_page.main(["--output-dir", str(place)])
    return place


@pytest.fixture(scope="module")
def address(folder):
    """Of a static file server, which knows nothing of the page."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def embedder():
    return Embedder.of(CHECKPOINT)


@pytest.mark.slow
@pytest.mark.parametrize("modality", MODALITIES)
def test_the_models_give_what_torch_gives(modality, folder, embedder):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    values = np.stack(list(PreparedSet.open(FOLDERS[modality]).split("test").values()))
    stored = np.fromfile(folder / f"{modality}_recordings.bin", "<f4").reshape(values.shape)
    assert np.array_equal(stored, values)
    session = runtime.InferenceSession(folder / f"{modality}.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: values})
    with torch.no_grad():
        expected = embedder.model.features(modality, torch.from_numpy(values), torch.zeros(len(values), dtype=int))
    assert_exported_alike(found, expected)


def computed(page):
    """Wait for an answer or a refusal."""
    page.locator("#status", has_not_text=re.compile(r"\S")).wait_for(state="attached")


@pytest.mark.slow
def test_the_browser_ranks_as_a_gallery_does_and_names_chance(address, embedder):
    with page_at(address) as page:
        for modality in MODALITIES:
            data = PreparedSet.open(FOLDERS[modality])
            part = data.split("test")
            hits = NeuralGallery.from_images(embedder, data).decode(part.at(np.array(RECORDINGS)))
            page.get_by_label("Modality").select_option(modality)
            for row, ranked in zip(RECORDINGS, hits, strict=True):
                page.get_by_label("Recording").select_option(str(row))
                title = f"of sub-01, recording {row + 1} of 40"
                page.locator("#asked", has_text=re.compile(rf"SIMULATED {modality} {title}", re.IGNORECASE)).wait_for()
                items = page.locator("#hits li").all()
                assert [item.get_attribute("data-image-id") for item in items] == [hit.image_id for hit in ranked]
                scores = [float(item.get_attribute("data-score")) for item in items]
                assert scores == pytest.approx([hit.score for hit in ranked], abs=10 * EXPORTED)
                right = [hit.image_id == part.image_ids[row] for hit in ranked]
                assert [item.get_attribute("class") == "right" for item in items] == right
        told = page.locator("#answer").inner_text().splitlines()
        assert "SIMULATED · 46 images were searched; by chance, any of them comes first in 1 of 46 (2.2%)." in told
        assert all(line.startswith("SIMULATED") for line in told if line)
        assert all(image.get_attribute("alt") for image in page.locator("img").all())
        assert all(image.evaluate("image => image.naturalWidth > 0") for image in page.locator("img").all())
        photograph(page, "static_wide.png")


@pytest.mark.slow
def test_a_file_is_decoded_and_a_wrong_one_is_a_sentence_also_on_a_phone(address, tmp_path):
    right = PreparedSet.open(FOLDERS["eeg"]).split("test").values(slice(2, 3))
    spoiled = right.copy()
    spoiled[0, 3, 7] = np.nan
    np.save(tmp_path / "right.npy", right)
    wrong = {
        "shape.npy": (right[:, :, :-1], "but it has shape (1, 32, 439)."),
        "kind.npy": (right.astype(np.float64), "but it holds '<f8'"),
        "order.npy": (np.asfortranarray(right[0]), "or is in Fortran order."),
        "nan.npy": (spoiled, "but some of its values are not finite."),
        "text.npy": (b"no numbers at all", "but it is no .npy file."),
        "empty.npy": (b"", "but it is no .npy file."),
        "short.npy": ((tmp_path / "right.npy").read_bytes()[:-4], "but it is not as long as its header says."),
        "long.npy": (bytes(10_000_001), "but it has 10,000,001 bytes."),
    }
    with page_at(address, NARROW) as page:
        page.locator("#hits li").first.wait_for()
        page.get_by_label("Recording").select_option("2")
        page.locator("#asked", has_text="recording 3 of 40").wait_for()
        expected = [item.get_attribute("data-image-id") for item in page.locator("#hits li").all()]
        for name, (content, told) in wrong.items():
            if isinstance(content, bytes):
                (tmp_path / name).write_bytes(content)
            else:
                np.save(tmp_path / name, content)
            page.get_by_label("Or a file of your own").set_input_files(tmp_path / name)
            page.get_by_role("alert").filter(has_text=name).wait_for()
            sentence = page.get_by_role("alert").inner_text()
            assert sentence.startswith(f"'{name}' cannot be decoded. Allowed is a .npy file of float32 with shape (32")
            assert told in sentence and not page.locator("#answer").is_visible()
        photograph(page, "static_wrong_file.png")
        page.get_by_label("Or a file of your own").set_input_files(tmp_path / "right.npy")
        page.locator("#asked", has_text="SIMULATED model · SIMULATED EEG of 'right.npy'").wait_for()
        assert [item.get_attribute("data-image-id") for item in page.locator("#hits li").all()] == expected
        assert not page.get_by_role("alert").is_visible() and fits(page)
        photograph(page, "static_narrow.png")


@pytest.mark.slow
def test_a_folder_that_was_copied_in_part_is_a_sentence(address, folder):
    (folder / "meg.onnx").rename(folder / "aside.onnx")
    try:
        with page_at(address) as page:
            page.locator("#hits li").first.wait_for()
            page.get_by_label("Modality").select_option("meg")
            page.get_by_role("alert").filter(
                has_text="The file 'meg.onnx' of this page cannot be had: 404."
            ).wait_for()
    finally:
        (folder / "aside.onnx").rename(folder / "meg.onnx")


def test_without_onnxruntime_web_the_script_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(make_static_page, "COPIED", {tmp_path / "gone.mjs": "onnxruntime.js"})
    with pytest.raises(DataError, match=r"gone\.mjs' is missing; run `npm ci --prefix web`\."):
        make_static_page.write_page(tmp_path / "page")
    assert list(tmp_path.iterdir()) == []


def test_what_the_page_runs_on_is_pinned():
    wanted = json.loads((REPOSITORY / "web/package.json").read_text(encoding="utf-8"))["dependencies"]
    locked = json.loads((REPOSITORY / "web/package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert locked[""]["dependencies"] == wanted
    for name, version in wanted.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version) and locked[f"node_modules/{name}"]["version"] == version
    assert all(entry["integrity"].startswith("sha512-") for name, entry in locked.items() if name)


def test_the_page_names_no_other_machine():
    for name in ("index.html", "page.css", "page.js"):
        assert "//" not in re.sub(
            r"^ *//.*$| // .*$|/\*.*?\*/", "", (REPOSITORY / "web" / name).read_text(), flags=re.M
        )
