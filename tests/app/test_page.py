"""The page in a browser and by HTTP, as a real second process: right answers, wrong files, many at once."""

import asyncio
import re
import shutil
import signal
import threading
import time

import httpx
import numpy as np
import pytest

from app_process import ask, open_app, upload
from browser import NARROW, fits, page_at, photograph
from neural_clip import NeuralGallery, load_sample
from neural_clip.app import page as page_module
from neural_clip.app.answers import Answers
from neural_clip.app.options import MAX_UPLOAD_MB
from neural_clip.gallery.embedder import Embedder
from neural_clip.prepared.reader import PreparedSet
from neural_clip.sample import CHECKPOINT, FOLDERS
from paths import REPOSITORY

gradio = pytest.importorskip("gradio", reason="Gradio is not installed")
pytestmark = pytest.mark.slow
EEG_IMAGES, MEG_RECORDINGS = "46 images: SIMULATED EEG", "40 recordings: SIMULATED MEG"
ROW = re.compile(r'data-image-id="([^"]+)".*?cosine (-?[\d.]+)')
CLIENTS = 200


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with open_app(tmp_path_factory.mktemp("app")) as opened:
        yield opened


@pytest.fixture(scope="module")
def sets():
    return {modality: PreparedSet.open(folder) for modality, folder in FOLDERS.items()}


@pytest.fixture(scope="module")
def expected(sets):
    """Hits by `NeuralGallery` alone, of every test recording: among the images of EEG, and among recordings of MEG."""
    images = NeuralGallery.from_images(CHECKPOINT, sets["eeg"])
    signals = NeuralGallery.from_recordings(images.embedder, sets["meg"].split("test"))
    part = sets["eeg"].split("test")
    return {
        EEG_IMAGES: images.decode(part), MEG_RECORDINGS: signals.convert(part, to="meg"),
        "an arrow": images.search_text("an arrow"),
    }  # fmt: skip


@pytest.fixture
def three(tmp_path):
    """Three recordings of EEG as an array."""
    np.save(tmp_path / "three.npy", np.array(load_sample("eeg").recordings["eeg"][:3], np.float32))
    return tmp_path / "three.npy"


def assert_hits(html, ranked):
    """The page shows these images in this order, with these cosines."""
    found = ROW.findall(html)
    assert [image_id for image_id, _ in found] == [hit.image_id for hit in ranked]
    assert [float(score) for _, score in found] == pytest.approx([hit.score for hit in ranked], abs=6e-4)


def shown(page):
    """The answer of the tab that is open."""
    page.locator(".answer:visible li").first.wait_for()
    return page.locator(".answer:visible").first


def test_in_a_browser_a_sample_is_decoded_and_converted_and_an_upload_and_words_are_answered(app, expected, three):
    with page_at(app.address) as page:
        page.get_by_role("button", name="Decode the recording").click()
        answer = shown(page)
        assert_hits(answer.inner_html(), expected[EEG_IMAGES][0])
        told = answer.inner_text()
        assert told.startswith("SIMULATED EEG of sub-01, recording 1 of 40") and "SIMULATED · seen: " in told
        assert "SIMULATED · 46 images were searched; by chance, any of them comes first in 1 of 46 (2.2%)." in told
        assert all(line.startswith("SIMULATED") for line in told.splitlines() if line)
        assert all(image.get_attribute("alt") for image in answer.locator("img").all())
        photograph(page, "app_sample.png")

        page.get_by_label("Search among").click()
        page.get_by_role("option", name=MEG_RECORDINGS).click()
        page.get_by_role("button", name="Decode the recording").click()
        page.get_by_text("40 MEG recordings were searched").wait_for()
        assert_hits(shown(page).inner_html(), expected[MEG_RECORDINGS][0])
        page.get_by_label("Data set").click()  # its images are searched next
        page.get_by_role("option", name="SIMULATED fMRI", exact=True).click()
        page.get_by_role("button", name="Decode the recording").click()
        page.get_by_text("SIMULATED fMRI of sub-01, recording 1 of 40").wait_for()
        assert page.get_by_label("Search among").input_value() == "46 images: SIMULATED fMRI"

        page.get_by_label("Search among").click()
        page.get_by_role("option", name=EEG_IMAGES).click()
        page.get_by_role("tab", name="Upload").click()
        page.locator("input[type=file]").first.set_input_files(three)
        page.get_by_text("three.npy").first.wait_for()
        page.get_by_label("Number of the recording").last.fill("3")
        page.get_by_role("button", name="Decode the upload").click()
        answer = shown(page)
        assert "EEG of 'three.npy', recording 3 of 3" in answer.inner_text()
        assert_hits(answer.inner_html(), expected[EEG_IMAGES][2])
        photograph(page, "app_upload.png")

        page.get_by_role("tab", name="Words").click()
        page.get_by_role("textbox", name="Words").fill("an arrow")
        page.get_by_role("button", name="Search by words").click()
        assert_hits(shown(page).inner_html(), expected["an arrow"][0])
    assert not app.kept()


def test_in_a_browser_a_wrong_file_is_a_sentence_and_the_page_fits_a_phone(app, tmp_path):
    (tmp_path / "notes.npy").write_text("no numbers at all")
    with page_at(app.address, NARROW) as page:
        page.get_by_role("button", name="Decode the recording").click()
        shown(page)
        photograph(page, "app_narrow.png")
        assert fits(page)
        page.get_by_role("tab", name="Upload").click()
        page.locator("input[type=file]").first.set_input_files(tmp_path / "notes.npy")
        page.get_by_text("notes.npy").first.wait_for()
        page.get_by_role("button", name="Decode the upload").click()
        told = page.get_by_role("alert").filter(has_text="notes.npy")
        told.wait_for()
        assert told.inner_text().startswith("'notes.npy' is no .npy file:")
        photograph(page, "app_wrong_file.png")
        assert fits(page)
    assert not app.kept()


def test_a_file_that_is_too_large_is_refused_in_words(app, tmp_path):
    large = tmp_path / "large.npy"
    with large.open("wb") as file:
        file.truncate(MAX_UPLOAD_MB * 2**20 + 1)
    with page_at(app.address) as page:
        page.get_by_role("tab", name="Upload").click()
        page.locator("input[type=file]").first.set_input_files(large)
        page.get_by_text('exceed the maximum allowed size of 100.0 Mb: "large.npy"').wait_for()
        photograph(page, "app_too_large.png")
    with large.open("rb") as file, httpx.Client(base_url=app.address, timeout=120) as client:
        answer = client.post("/gradio_api/upload", files={"files": ("large.npy", file)})
    assert answer.status_code == 413 and "maximum allowed size" in answer.text
    assert not app.kept()


def test_nothing_is_fetched_for_visitors_and_no_file_of_the_machine_is_read(app):
    async def all_of_them():
        async with httpx.AsyncClient(base_url=app.address, timeout=120) as client:
            for path in ("http://192.0.2.1/x.npy", "https://example.org/x.npy", "/etc/passwd"):
                given = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
                with pytest.raises(RuntimeError, match="event: error"):
                    await ask(
                        client, "upload", given, None, "by its shape", "sub-01", 1, "", "", EEG_IMAGES, False, ""
                    )
            for place in ("file=http://192.0.2.1/x", "file=/etc/passwd", "proxy=http://192.0.2.1/x"):
                assert (await client.get(f"/gradio_api/{place}")).status_code in (403, 404)

    asyncio.run(all_of_them())
    assert not app.kept()


def test_two_hundred_at_once_are_answered_rightly_in_bounded_memory_and_nothing_is_kept(app, expected, three):
    """Recordings, conversions, words, and one file that many upload: each has an answer of its own."""

    async def one(client, number):
        kind, row = number % 4, number % 40
        if kind == 0:
            html = await ask(client, "recording", "SIMULATED EEG", row + 1, EEG_IMAGES)
            return html, expected[EEG_IMAGES][row]
        if kind == 1:
            html = await ask(client, "recording", "SIMULATED EEG", row + 1, MEG_RECORDINGS)
            return html, expected[MEG_RECORDINGS][row]
        if kind == 2:
            return await ask(client, "words", "an arrow", EEG_IMAGES), expected["an arrow"][0]
        given = await upload(client, three)
        said = (None, "by its shape", "sub-01", row % 3 + 1, "", "", EEG_IMAGES, False, "")
        return await ask(client, "upload", given, *said), expected[EEG_IMAGES][row % 3]

    async def all_at_once():
        limits = httpx.Limits(max_keepalive_connections=0)  # the server closes those that nobody used for some seconds
        async with httpx.AsyncClient(base_url=app.address, timeout=600, limits=limits) as client:
            return await asyncio.gather(*(one(client, number) for number in range(CLIENTS)))

    before = app.memory()
    for html, ranked in asyncio.run(all_at_once()):
        assert_hits(html, ranked)
    assert app.memory() - before < 300e6  # 200 uploads and answers are some 400 kB each
    assert not app.kept()


def test_a_question_is_refused_in_words_where_too_many_wait(monkeypatch):
    """One is being answered and two may wait; the fourth is refused, and the others get their answers."""
    import fastapi
    from fastapi.testclient import TestClient

    monkeypatch.setattr(page_module, "QUEUED", 2)
    answers, go_on = Answers(Embedder.of(CHECKPOINT), [FOLDERS["eeg"]]), threading.Event()
    by_words = answers.of_words
    monkeypatch.setattr(answers, "of_words", lambda *asked: go_on.wait(60) and by_words(*asked))
    server, blocks = fastapi.FastAPI(), page_module.build(answers)
    blocks.has_launched = True
    gradio.mount_gradio_app(server, blocks, path="/", ssr_mode=False)
    with TestClient(server) as client:

        def started():
            return client.post("/gradio_api/call/words", json={"data": ["an arrow", EEG_IMAGES]})

        kept = [started()]
        end = time.monotonic() + 60
        while len(blocks._queue) and time.monotonic() < end:  # until it is being answered
            time.sleep(0.05)
        kept += [started(), started()]
        refused = started()
        assert [answer.status_code for answer in kept] == [200] * 3 and refused.status_code == 503
        assert refused.json()["detail"] == "Queue is full. Max size is 2 and size is 2."
        go_on.set()
        for answer in kept:
            told = client.get(f"/gradio_api/call/words/{answer.json()['event_id']}").text
            assert "event: complete" in told and "46 images were searched" in told


def test_an_upload_is_refused_in_words_where_no_room_is_left(tmp_path):
    """Bytes that lie there, those that arrive, and those that are announced together count."""
    (tmp_path / "waits").mkdir()
    (tmp_path / "waits" / "a.npy").write_bytes(bytes(600))
    taken = asyncio.Event()

    async def page(scope, receive, send):
        await taken.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"[]"})

    async def asked():
        door = page_module.OwnFilesOnly(page, tmp_path, most=1000)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://here") as client:
            arriving = asyncio.create_task(client.post("/gradio_api/upload", content=bytes(300)))
            await asyncio.sleep(0.05)
            refused = await client.post("/gradio_api/upload", content=bytes(200))
            taken.set()
            fitting = await arriving, await client.post("/gradio_api/upload", content=bytes(400))
            (tmp_path / "waits" / "a.npy").unlink()
            large = await client.post("/gradio_api/upload", content=bytes(1000))
            other = await client.post("/gradio_api/call/words", content=bytes(2000))
        return refused, [*fitting, large, other]

    refused, others = asyncio.run(asked())
    assert refused.status_code == 503 and refused.text == "Too many uploads wait for an answer. Try again in a minute."
    assert [answer.status_code for answer in others] == [200, 200, 200, 200]


def test_another_gallery_and_a_signal(tmp_path, sets):
    """A folder of images alone: no recordings can be picked; the page ends by SIGTERM as well."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for row, image in enumerate(load_sample("eeg").images["image"][:7]):
        image.save(photos / f"{row}.png")
    with open_app(tmp_path, "--gallery", photos, stop=signal.SIGTERM) as opened:

        async def words():
            limits = httpx.Limits(max_keepalive_connections=0)
            async with httpx.AsyncClient(base_url=opened.address, timeout=120, limits=limits) as client:
                names = [each["api_name"] for each in (await client.get("/config")).json()["dependencies"]]
                assert "words" in names and "recording" not in names
                return await ask(client, "words", "an arrow", "7 images: photos")

        told = asyncio.run(words())
        assert len(ROW.findall(told)) == 5 and "in 1 of 7 (14.3%)" in told and "SIMULATED" not in told


def test_the_space_runs_from_its_folder_with_the_package_beside_it(tmp_path):
    shutil.copytree(REPOSITORY / "space", tmp_path / "space")
    (tmp_path / "space" / "neural_clip").symlink_to(REPOSITORY / "src" / "neural_clip")
    with open_app(tmp_path, program=("space/app.py",)) as opened, httpx.Client(base_url=opened.address) as client:
        assert "neural_clip" in client.get("/config", timeout=60).json()["title"]
