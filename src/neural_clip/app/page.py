"""The page of Gradio, and the server that shows it: local, without analytics, and with nothing of visitors kept."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

from neural_clip.app.answers import ANY, Answer, Answers
from neural_clip.app.options import MAX_UPLOAD_MB
from neural_clip.app.shown import STYLE, as_html, refusal
from neural_clip.app.uploads import SUFFIXES
from neural_clip.errors import DataError
from neural_clip.files.privacy import shared_text
from neural_clip.montage import INTERPOLATE
from neural_clip.prepared.modalities import MODALITIES

QUEUED = 256  # questions that wait; one more is refused
MAX_WAITING_MB = 20 * MAX_UPLOAD_MB  # of all uploads about which nobody has an answer yet; another one is refused
FORGOTTEN_AFTER = 600  # s; an upload about which nobody asks
# What Gradio reads when it is imported: no analytics, no look at its newest version, no record of runs.
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
TITLE = "neural_clip: which images does a recording look like?"
ABOUT = (
    "A recording of EEG, MEG or fMRI becomes a vector in the space of an image encoder. The pictures below are the "
    "images, or the recordings of others, whose vectors are nearest. Scores are cosines, not probabilities."
)
UPLOADED = (
    f"One file of up to {MAX_UPLOAD_MB} MB: {', '.join(SUFFIXES)}. Arrays are taken as prepared for the checkpoint "
    "unless a unit is named. Continuous recordings say by annotations or triggers when images appeared, and are cut "
    "there. A file is deleted once its question is answered."
)


def build(answers: Answers) -> Any:
    """The page, a `gradio.Blocks`."""
    import gradio as gr

    among = list(answers.searched)
    with gr.Blocks(
        title=TITLE, delete_cache=(FORGOTTEN_AFTER // 10, FORGOTTEN_AFTER), analytics_enabled=False
    ) as page:
        gr.Markdown(f"# {TITLE}\n\n{ABOUT}")
        target = gr.Dropdown(among, value=among[0], label="Search among")
        if answers.examples:
            with gr.Tab("Recording"):
                name = gr.Dropdown(list(answers.examples), value=next(iter(answers.examples)), label="Data set")
                number = gr.Number(1, precision=0, minimum=1, label="Number of the recording")
                name.change(answers.images_of, name, target, queue=False, api_visibility="private")
                _asks(gr, "recording", "Decode the recording", answers.of_example, [name, number, target])
        with gr.Tab("Upload"):
            gr.Markdown(UPLOADED)
            _upload(gr, answers, target)
        if answers.has_text:
            with gr.Tab("Words"):
                text = gr.Textbox(label="Words", placeholder="a dog on grass", max_length=1000)
                _asks(gr, "words", "Search by words", answers.of_words, [text, target])
    return page.queue(max_size=QUEUED, default_concurrency_limit=1)


def _upload(gr: Any, answers: Answers, target: Any) -> None:
    """File, mask and what has to be said of them."""
    with gr.Row():
        path = gr.File(label="Recordings", height=150)
        mask = gr.File(label="Mask (NIfTI images need it)", height=150)
        for file in (path, mask):  # Gradio's own function leaves an empty file behind at each call
            file._process_single_file = attrgetter("path")
    with gr.Row():
        kinds = [(MODALITIES[name].title, name) for name in answers.embedder.modalities]
        modality = gr.Dropdown([(ANY, ANY), *kinds], value=ANY, label="Modality")
        subjects = answers.subjects
        subject = gr.Dropdown(subjects, value=subjects[0] if subjects else None, label="Subject")
        number = gr.Number(1, precision=0, minimum=1, label="Number of the recording")
    with gr.Row():
        unit = gr.Textbox(label="Unit of an array (empty: prepared)", placeholder="uV", max_length=100)
        session = gr.Textbox(label="Session (where scaled by session)", placeholder="ses-01", max_length=100)
        interpolate = gr.Checkbox(label="Interpolate lacking and bad channels (EEG, MEG)")
        names = gr.Textbox(label="Channels of an array (to interpolate)", placeholder="Fp1 Fp2 C3", max_length=10_000)

    def ask(path: str | None, mask: str | None, modality: str, subject: str, number: int, unit: str, session: str,
            among: str, interpolate: bool, names: str) -> Answer:  # fmt: skip
        if path is None:
            raise DataError("There is no file yet; choose one above.")
        said = {
            "unit": unit.strip(), "session": session.strip(), "montage": INTERPOLATE if interpolate else "",
            "ch_names": names.replace(",", " ").split(),
        }  # fmt: skip
        return answers.of_upload(
            Path(path), Path(mask) if mask else None, number, among, modality=modality, subject=subject, **said
        )

    inputs = [path, mask, modality, subject, number, unit, session, target, interpolate, names]
    _asks(gr, "upload", "Decode the upload", ask, inputs, uploads=(path, mask))


def _asks(
    gr: Any, name: str, label: str, ask: Callable[..., Answer], inputs: list[Any], uploads: tuple[Any, ...] = ()
) -> None:
    """A button, and a place for its answer; one question is answered at a time."""
    button, shown = gr.Button(label, variant="primary"), gr.HTML(label="Answer", elem_classes="answers")

    def answered(*given: Any) -> Any:
        paths = [Path(value) for value in given[: len(uploads)] if value]
        try:
            told = as_html(ask(*given))
        except (DataError, OSError, ValueError) as error:
            told = refusal(shared_text(str(error)))
        finally:
            for path in paths:
                path.unlink(missing_ok=True)
                with suppress(OSError):
                    path.parent.rmdir()
        return (told, *[None] * len(uploads)) if uploads else told

    button.click(answered, inputs, [shown, *uploads], api_name=name, concurrency_id="the model", concurrency_limit=1)


class OwnFilesOnly:
    """In front of the page: Gradio would fetch addresses of other machines, and take uploads until the disk is full.

    Args:
        app: What answers.
        folder (`Path`): Where uploads lie.
        most (`int`): Bytes of uploads that may lie there or arrive.
    """

    def __init__(self, app: Any, folder: Path, most: int = MAX_WAITING_MB * 2**20) -> None:
        self.app, self.folder, self.most, self.arriving = app, folder, most, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Refuse paths with an address, and uploads for which there is no room."""
        if scope["type"] == "http" and (":/" in scope["path"] or "proxy=" in scope["path"]):
            await _refuse(send, 403, "Addresses are not fetched.")
        elif scope["type"] == "http" and scope["method"] == "POST" and scope["path"].endswith("/upload"):
            await self._upload(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _upload(self, scope: Any, receive: Any, send: Any) -> None:
        """Take a file, if it and those that wait are not too many bytes."""
        largest = MAX_UPLOAD_MB * 2**20
        size = min(int(dict(scope["headers"]).get(b"content-length", largest)), largest)
        if self.arriving + _bytes_in(self.folder) + size > self.most:
            await _refuse(send, 503, "Too many uploads wait for an answer. Try again in a minute.")
            return
        self.arriving += size
        try:
            await self.app(scope, receive, send)
        finally:
            self.arriving -= size


async def _refuse(send: Any, status: int, sentence: str) -> None:
    """Answer by a sentence."""
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": sentence.encode()})


def _bytes_in(folder: Path) -> int:
    """Of all files below a folder; others may delete some meanwhile."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                found += os.stat(os.path.join(place, name)).st_size
    return found


def listening(host: str, port: int) -> socket.socket:
    """A socket that is bound, before anything slow is done.

    Raises:
        DataError: If another program has the port, or there is no such address here.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        found = socket.socket(family)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).lower()
        raise DataError(f"Nothing can listen on '{host}', port {port}: {reason}. Name another by --port.") from error
    return found


def serve(answers: Answers, place: socket.socket) -> None:
    """Show the page until Ctrl-C or a signal ends it."""
    import fastapi
    import gradio as gr
    import uvicorn
    from gradio.utils import get_upload_folder

    _own_uploads_only()
    server, page = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None), build(answers)
    page.has_launched = True  # a mounted page that has not would take any file of this machine for an upload
    fonts = ["system-ui", "sans-serif"]  # by name, so that none is fetched
    gr.mount_gradio_app(
        server, page, path="/", max_file_size=f"{MAX_UPLOAD_MB}mb", footer_links=[], css=STYLE,
        theme=gr.themes.Default(font=fonts, font_mono=["monospace"]), ssr_mode=False, show_error=False,
        enable_monitoring=False,
    )  # fmt: skip
    settings = uvicorn.Config(
        OwnFilesOnly(server, Path(get_upload_folder())), log_level="warning", timeout_graceful_shutdown=1
    )
    uvicorn.Server(settings).run(sockets=[place])


def _own_uploads_only() -> None:
    """Let Gradio fetch no file by its address, and give each upload a folder of its own.

    By itself it fetches what visitors name, and has one folder for a content: who deletes their upload would delete
    that of another, too.
    """
    import gradio as gr
    from gradio import processing_utils, route_utils

    class Upload(route_utils.GradioUploadFile):
        def __init__(self, *args: Any, **words: Any) -> None:
            super().__init__(*args, **words)
            self.sha.update(secrets.token_bytes(16))

    async def refuse(*args: Any, **words: Any) -> Any:
        raise gr.Error("Files are uploaded; addresses are not fetched.", print_exception=False)

    route_utils.GradioUploadFile = Upload  # type: ignore[misc]
    processing_utils.async_ssrf_protected_download = refuse
