"""`neural-clip app` before it opens: what is missing, taken or absent is one sentence."""

import os
import socket
import subprocess
import sys

from second_process import python


def test_without_gradio_one_sentence_says_how_to_install_it():
    """As where it is not installed: nothing of that name is found."""
    code = (
        "import importlib.util as u, sys; find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'gradio' else find(name, *more)\n"
        "sys.argv = ['neural-clip', 'app']\nfrom neural_clip.commands.main import entry; entry()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        'error: `neural-clip app` needs Gradio, which is not installed: pip install "neural_clip[app]"\n'
    )


def test_a_port_that_is_taken_is_told_before_anything_is_read():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = python("-m", "neural_clip", "app", "--port", port)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: Nothing can listen on '127.0.0.1', port {port}: address already in use. Name another by --port.\n"
    )


def test_a_port_beyond_all_and_an_address_of_another_machine_are_refused():
    for words in (("--port", "70000"), ("--host", "192.0.2.1")):
        done = python("-m", "neural_clip", "app", *words)
        (line,) = done.stderr.splitlines()
        assert done.returncode == 2 and line.startswith("error: Nothing can listen on") and words[1] in line


def test_a_checkpoint_or_gallery_that_is_not_there_is_named_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for words in (("--checkpoint", "gone"), ("--gallery", "gone")):
        done = python("-m", "neural_clip", "app", "--port", 0, *words, cwd=tmp_path)
        assert done.returncode == 2 and "'gone'" in done.stderr.splitlines()[-1], done.stderr
        assert done.stdout == "" and [name for name in os.listdir(tmp_path) if "app" in name] == []
