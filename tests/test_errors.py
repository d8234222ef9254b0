"""Errors of bad values: they name the parameter, what was found and what is allowed."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

import neural_clip
from neural_clip.errors import DataError, check_option, check_to_be_had, check_value, run


def test_allowed_options_pass():
    check_option("split", "test", ("train", "test"))
    check_option("size", 2, {1: "one", 2: "two"})


@pytest.mark.parametrize(
    ("value", "allowed", "message"),
    [
        ("tset", ("train", "test"), "'split' parameter. Allowed values are 'train' and 'test', but got 'tset' "
         "instead. Did you mean 'test'?"),
        (None, ["pt"], "'split' parameter. Allowed is 'pt', but got None instead."),
        (4, (1, 2, 3), "'split' parameter. Allowed values are 1, 2 and 3, but got 4 instead."),
    ],
)  # fmt: skip
def test_another_option_is_refused(value, allowed, message):
    with pytest.raises(DataError, match=re.escape(f"Invalid value for the {message}") + "$"):
        check_option("split", value, allowed)


def test_a_value_that_does_not_fit_is_refused():
    check_value("n", 1, True, "1 and more")
    with pytest.raises(DataError, match=r"^Invalid value for the 'n' parameter\. Allowed is 1 and more, but got 0"):
        check_value("n", 0, False, "1 and more")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DataError("'a' is bad."), "error: 'a' is bad.\n"),
        (PermissionError(13, "Permission denied", "a.txt"), "error: 'a.txt': permission denied.\n"),
        (OSError(28, "No space left on device"), "error: No space left on device.\n"),
        (OSError(18, "Invalid cross-device link", "a", None, "b"), "error: 'a' and 'b': invalid cross-device link.\n"),
        (OSError("told by a library"), "error: told by a library\n"),
    ],
)  # fmt: skip
def test_bad_input_and_what_the_system_refuses_are_one_line_and_code_2(capsys, monkeypatch, error, told):
    def fail(argv):
        raise error

    with pytest.raises(SystemExit) as end:
        run(fail, [])
    assert end.value.code == 2 and capsys.readouterr().err == told
    monkeypatch.setenv("NEURAL_CLIP_TRACEBACK", "1")
    with pytest.raises(type(error)):
        run(fail, [])


def test_what_another_process_tells_is_not_told_twice(capsys):
    error = DataError("row 5 is NaN")
    error.told_elsewhere = True

    def fail(argv):
        raise error

    with pytest.raises(SystemExit) as stop:
        run(fail)
    assert stop.value.code == 2 and capsys.readouterr().err == ""


def test_defects_of_this_package_keep_their_traceback():
    with pytest.raises(KeyError):
        run(lambda argv: {}["x"], [])


def interrupted(argv):
    raise KeyboardInterrupt


def becomes_an_error(argv):
    try:
        raise RuntimeError("Error calling __set_name__") from KeyboardInterrupt()
    except RuntimeError as error:
        raise DataError("'x' cannot be read.") from error


@pytest.mark.parametrize("stopped", [interrupted, becomes_an_error])
def test_an_interruption_is_one_line_and_code_130(capsys, stopped):
    with pytest.raises(SystemExit) as end:
        run(stopped, [])
    assert end.value.code == 130 and capsys.readouterr().err == "interrupted\n"


PRESS = "os.kill(os.getpid(), signal.SIGINT); [None for _ in range(1000)]"
WHERE = {
    "a destructor": f"class Held:\n def __del__(self): {PRESS}\ndef main(argv):\n Held(); time.sleep(20); print('on')",
    "a callback": (
        f"class Held: pass\ndef press(_): {PRESS}\n"
        "def main(argv):\n held = Held(); ref = weakref.ref(held, press); del held; time.sleep(20); print('on')"
    ),
    "another destructor": (
        f"class Held:\n def __init__(self, n): self.n = n\n"
        f" def __del__(self): Held(self.n - 1) if self.n else None; {PRESS}\n"
        "def main(argv):\n Held(3); time.sleep(20); print('on')"
    ),
    "what Arrow asks": (
        "import pyarrow\nfrom neural_clip.errors import DataError\nclass Held(pyarrow.ExtensionType):\n"
        " asked = False\n def __init__(self): super().__init__(pyarrow.int8(), 'held')\n"
        " def __arrow_ext_serialize__(self): return b''\n"
        " @classmethod\n def __arrow_ext_deserialize__(cls, *of):\n"
        f"  if cls.asked: cls.asked = False; {PRESS}\n  return cls()\n"
        "def column(): return pyarrow.ExtensionArray.from_storage(Held(), pyarrow.array([1], 'i1'))\n"
        "def main(argv):\n batches = [pyarrow.record_batch({'x': column()}) for _ in range(2)]\n"
        " Held.asked = True\n try: pyarrow.Table.from_batches(batches)\n"
        " except pyarrow.ArrowInvalid as error: raise DataError('the schemas differ') from error"
    ),
}


@pytest.mark.parametrize("where", WHERE)
def test_an_interruption_of_what_cannot_raise_is_not_lost(where):
    program = f"import os, signal, time, weakref\nfrom neural_clip.errors import run\n{WHERE[where]}\nrun(main, [])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, preexec_fn=heard)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_an_interruption_that_c_code_prints_and_turns_into_another_error_says_how_to_go_on():
    """As extension modules do that load NumPy: `PyErr_Print`, then an ImportError of their own."""
    program = (
        "import os, signal, sys\nfrom neural_clip.commands.interruption import told_how_to_go_on\n"
        "from neural_clip.errors import run\ndef load():\n"
        f" try: {PRESS}\n"
        " except KeyboardInterrupt: sys.excepthook(*sys.exc_info())\n"
        " raise ImportError('numpy.core.multiarray failed to import')\n"
        "def main(argv):\n with told_how_to_go_on('prepare'): load()\nrun(main, [])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, preexec_fn=heard)
    said = "interrupted. Give the same command again; what is whole is kept.\n"
    assert (done.returncode, done.stderr) == (130, said)


def test_other_errors_that_cannot_be_raised_are_told():
    program = (
        "from neural_clip.errors import run\nclass Held:\n def __del__(self): 1 / 0\n"
        "run(lambda argv: Held() and None, [])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and "Exception ignored in" in done.stderr and "ZeroDivisionError" in done.stderr


def test_an_interruption_when_all_is_done_is_no_traceback():
    program = (
        f"import atexit, os, signal\nfrom neural_clip.errors import DataError, run\ndef press(): {PRESS}\n"
        "def main(argv): atexit.register(press); print('done')\nrun(main, [])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, preexec_fn=heard)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "done\n", "")


def heard():
    """Have Ctrl-C heard, as at a shell: commands in the background start with it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("lines", [1, 100_000])
def test_nobody_reads_what_is_printed(lines):
    """A pipe that is closed before the first line, as by `| head`, with little and with much to print."""
    program = f"from neural_clip.errors import run\nrun(lambda argv: [print('x' * 50) for _ in range({lines})])"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.fixture
def unreachable(monkeypatch):
    """A Hub at an address where nobody answers."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


@pytest.mark.parametrize("kind", ["NeuralClipModel", "NeuralClipProcessor"])
def test_a_checkpoint_that_is_nowhere_is_told_in_seconds_and_in_one_sentence(unreachable, kind):
    start = time.monotonic()
    told = r"^There is no folder 'outputs/gone', and the Hub gives no checkpoint of that name \([^\n]+\)\.$"
    with pytest.raises(OSError, match=told):
        getattr(neural_clip, kind).from_pretrained("outputs/gone")
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("name", ["./gone", "/gone", "~/gone", "a/b/gone"])
def test_what_can_only_be_a_folder_is_not_asked_of_the_hub(name):
    with pytest.raises(OSError, match=rf"^There is no folder '{re.escape(name)}'\. Give that of a checkpoint"):
        check_to_be_had(name, {})


def test_an_empty_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(OSError, match="is empty, so it holds no checkpoint"):
        check_to_be_had(tmp_path, {})


def test_a_file_is_no_model_but_may_be_that_of_a_processor(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{}")
    with pytest.raises(OSError, match=r"config\.json' is a file, but a model is a folder"):
        check_to_be_had(path, {})
    check_to_be_had(path, {}, may_be_file=True)


def test_a_checkpoint_that_may_not_be_fetched(unreachable, tmp_path):
    with pytest.raises(OSError, match=r"\(it is not in the cache of this machine, and nothing may be fetched\)"):
        check_to_be_had("you/model", {"local_files_only": True})
    kept = tmp_path / "models--you--model"
    (kept / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (kept / "snapshots" / ("0" * 40) / "config.json").write_text("{}")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0" * 40)
    check_to_be_had("you/model", {"cache_dir": tmp_path})
    check_to_be_had(tmp_path, {})
    check_to_be_had(None, {})
