"""Open a page on which a checkpoint is tried: recordings or words in, ranked images or recordings out.

Without options it shows the SIMULATED sample that ships. It listens on this machine alone, fetches nothing, and
deletes an upload once its question is answered. Needs Gradio (`pip install "neural_clip[app]"`).
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from neural_clip.app.options import AppOptions
from neural_clip.commands.options import read_options
from neural_clip.errors import DataError
from neural_clip.files.places import place_line


def main(argv: Sequence[str] | None = None) -> None:
    """Run `neural-clip app`, until Ctrl-C ends it."""
    (options,) = read_options("app", __doc__, argv, AppOptions)
    if importlib.util.find_spec("gradio") is None:
        raise DataError('`neural-clip app` needs Gradio, which is not installed: pip install "neural_clip[app]"')
    from neural_clip.app.page import QUIET, listening

    place = listening(options.host, options.port)
    for number in (signal.SIGTERM, signal.SIGHUP):  # so that the folder of uploads is removed then, too
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="neural_clip_app_") as folder:
        os.environ |= {**QUIET, "GRADIO_TEMP_DIR": folder}
        if options.gallery is None:  # the sample is read without a cache that stays
            os.environ["HF_DATASETS_CACHE"] = str(Path(folder, "datasets"))
        from neural_clip.app.answers import Answers
        from neural_clip.app.page import serve
        from neural_clip.files.bars import only_our_bars
        from neural_clip.gallery.embedder import Embedder
        from neural_clip.sample import CHECKPOINT, FOLDERS

        only_our_bars()
        print("reading the checkpoint and what is searched ...", file=sys.stderr, flush=True)
        answers = Answers(Embedder.of(options.checkpoint or CHECKPOINT), list(options.gallery or FOLDERS.values()))
        host, port = place.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        place.listen()  # from here on a browser is answered, if only once the page is built
        print(place_line("page", f"{address} (Ctrl-C closes it)"), flush=True)
        serve(answers, place)
