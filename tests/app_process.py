"""`neural-clip app` as a real second process, and what one asks it by HTTP."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx

SECONDS = 180  # that the page may take to open on a busy machine


class App:
    """An open page: its address, its process, and its folder of temporary files."""

    def __init__(self, process, address, folder):
        self.process, self.address, self.folder = process, address, folder

    def kept(self):
        """Files of visitors that lie in the temporary folder."""
        found = [path for path in self.folder.rglob("*") if path.is_file()]
        return [path for path in found if "datasets" not in path.parts and "torchinductor" not in str(path)]

    def memory(self):
        """Resident bytes of the process, the largest so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


@contextmanager
def open_app(folder, *words, program=("-m", "neural_clip", "app"), stop=signal.SIGINT):
    """Start the page, yield an [`App`], and end it; afterwards nothing is left of its temporary files."""
    temporary = folder / "temporary"
    temporary.mkdir()
    with (folder / "stderr").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, *program, "--host", "127.0.0.1", "--port", "0", *words], cwd=folder,
            stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, "TMPDIR": str(temporary)},
        )  # fmt: skip
    try:
        line = process.stdout.readline()
        told = (folder / "stderr").read_text()
        assert line.startswith("page:  "), f"{line}\n{told}"
        address = re.search(r"http://[\d.]+:\d+", line)[0]
        _answered(address)
        yield App(process, address, temporary)
    finally:
        process.send_signal(stop)
        try:
            process.wait(30)
        finally:
            process.kill()
    left = [path.name for path in temporary.iterdir() if not path.name.startswith("torchinductor")]
    assert left == [], left
    assert process.returncode == (130 if stop == signal.SIGINT else 128 + stop)
    if stop == signal.SIGINT:
        assert (folder / "stderr").read_text().splitlines()[-1].startswith("interrupted. The page is closed")


def _answered(address):
    """Wait until the page is there."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            return httpx.get(address, timeout=SECONDS).raise_for_status()
        except httpx.ConnectError:
            assert time.monotonic() < end
            time.sleep(0.2)


async def ask(client, name, *data):
    """The HTML of an answer, as the page's own API gives it; an error of the page raises."""
    started = await client.post(f"/gradio_api/call/{name}", json={"data": list(data)})
    assert started.status_code == 200, started.text
    told = await client.get(f"/gradio_api/call/{name}/{started.json()['event_id']}")
    event, _, data = told.text.strip().rpartition("\n\n")[2].partition("\ndata: ")
    if event != "event: complete":
        raise RuntimeError(told.text)
    return json.loads(data)[0]


async def upload(client, path):
    """A file on the page, as `ask` takes it."""
    answer = await client.post("/gradio_api/upload", files={"files": (path.name, path.read_bytes())})
    assert answer.status_code == 200, answer.text
    return {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}
