"""The error that bad input raises, and the wrapper that shows it at a shell."""

from __future__ import annotations

import atexit
import difflib
import json
import math
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

HUB_TIMEOUT = 5  # s; longer than any answer of a reachable Hub takes, short enough to wait for
FILE_SUFFIX = re.compile(  # of recordings, arrays, tables and images: a file of such a name is missing here
    r"\.(fif|edf|bdf|gdf|vhdr|set|ds|nii|gz|npy|npz|mat|csv|tsv|txt|json|parquet|jpe?g|png|bmp|gif|tiff?|webp)\Z", re.I
)
MAX_DEPTH = 50  # of nested values in JSON and YAML; ours have ten, and what is deeper would end the interpreter
REPEATED_AFTER = 0.02  # s, by when code that cannot raise has ended


class DataError(ValueError):
    """Input that cannot be used as it is.

    The message names the file or parameter, what was found and what is allowed. Where several processes raise the same
    error, all but one have `told_elsewhere` set, and print nothing.
    """

    told_elsewhere = False


class ReadError(DataError):
    """A file that was opened and cannot be read to its end. Nothing is left out for it: the work ends."""


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """`" Did you mean 'x'?"` for the known name that is nearest; empty where none is near, or it is the same."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f" Did you mean {near[0]!r}?" if near and near[0] != name else ""


def check_option(parameter: str, value: object, allowed: Iterable[object]) -> None:
    """Raise a [`DataError`] unless a value is one of those allowed; the nearest of them is suggested.

    Args:
        parameter (`str`): Its name, for the message.
        value (`object`): What was given.
        allowed (iterable): All allowed values.
    """
    options = list(allowed)
    if value not in options:
        *others, last = map(repr, options)
        listed = f"values are {', '.join(others)} and {last}" if others else f"is {last}"
        raise DataError(
            f"Invalid value for the {parameter!r} parameter. Allowed {listed}, but got {value!r} instead."
            f"{did_you_mean(str(value), map(str, options))}"
        )


def check_value(parameter: str, value: object, fits: bool, allowed: str) -> None:
    """Raise a [`DataError`] unless a value fits.

    Args:
        parameter (`str`): Its name, for the message.
        value (`object`): What was given.
        fits (`bool`): Whether it is allowed.
        allowed (`str`): What is allowed, such as `"1 and more"`.
    """
    if not fits:
        raise DataError(
            f"Invalid value for the {parameter!r} parameter. Allowed is {allowed}, but got {value!r} instead."
        )


def parse_json(text: str, *, finite: bool = True) -> Any:
    """What JSON says; every file of JSON is read by this.

    Args:
        text (`str`): The JSON.
        finite (`bool`): Whether NaN and infinite numbers, which Python writes though JSON has none, are refused.

    Raises:
        ValueError: If it is no JSON, nested more than `MAX_DEPTH` deep, or holds half a character or one key twice.
    """
    strict: dict[str, Any] = {"parse_constant": _no_number, "parse_float": _number} if finite else {}
    try:
        found = json.loads(text, object_pairs_hook=_each_once, **strict)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from error
    level = [found]
    for _ in range(MAX_DEPTH):
        nested = [each for each in level if isinstance(each, dict | list)]
        level = [value for each in nested for value in (each.values() if isinstance(each, dict) else each)]
    if any(isinstance(each, dict | list) for each in level):
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    if "\\u" in text:  # half a character, as "\\ud800", can be written nowhere
        json.dumps(found, ensure_ascii=False).encode()
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no number of JSON")


def _number(text: str) -> float:
    """A number, unless it is too large for one."""
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _each_once(pairs: list[tuple[str, Any]]) -> dict:
    """A mapping, of which no key is told twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it holds the key {twice!r} twice")
    return found


def is_hub_name(place: object) -> bool:
    """Whether this is `ORG/NAME` on the Hub: nothing on this machine is called so, and it is not written as a path."""
    name = str(place)
    written_so = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII) and not FILE_SUFFIX.search(name)
    return bool(written_so) and not os.path.lexists(name)


@contextmanager
def loading(
    place: object, keywords: Mapping[str, object] | None = None, *, may_be_file: bool = False
) -> Iterator[None]:
    """Turn whatever libraries raise on damaged files of a checkpoint into a [`DataError`] that names the file.

    Args:
        place (`object`): Its folder, or its name on the Hub.
        keywords (`Mapping`, *optional*): What the caller asked for beside it. Where no file is damaged and the reason
            names one of these, it is named instead.
        may_be_file (`bool`): Whether a file may be given too, as that of a processor.

    Raises:
        OSError: Within seconds, where the folder is empty, or there is none and the Hub does not give a model of that
            name.
    """
    check_to_be_had(place, keywords or {}, may_be_file=may_be_file)
    try:
        yield
    except (ImportError, OSError):  # they name what is missing
        raise
    except Exception as error:  # JSON, safetensors, torch and transformers raise nearly every type
        if isinstance(error, DataError) and str(place) in str(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        damaged, asked = _damaged_file(str(place)), _named(keywords or {}, reason)
        if damaged is None and asked is not None:
            raise DataError(f"'{place}' cannot be loaded with the argument {asked!r}: {reason}") from error
        config = os.path.join(str(place), "config.json")
        named = damaged or (config if os.path.isfile(config) else place)
        raise DataError(f"'{named}' cannot be loaded: {reason}") from error


def check_to_be_had(place: object, keywords: Mapping[str, Any], *, may_be_file: bool = False) -> None:
    """Raise an `OSError` where a checkpoint is neither here nor on the Hub; transformers would ask for a minute."""
    name = "" if place is None else str(place)
    if os.path.isfile(name) and not may_be_file:
        raise OSError(f"{name!r} is a file, but a model is a folder, or a name on the Hub.")
    if os.path.isdir(name) and not os.listdir(name):
        raise OSError(f"The folder {name!r} is empty, so it holds no checkpoint.")
    if not name or os.path.exists(name):
        return
    missing = f"There is no folder {name!r}"
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise OSError(f"{missing}. Give that of a checkpoint, or the name of one on the Hub.")
    try:
        from huggingface_hub import HfApi, constants, try_to_load_from_cache

        asked = {key: keywords[key] for key in ("cache_dir", "revision") if keywords.get(key)}
        if isinstance(try_to_load_from_cache(name, "config.json", **asked), str):
            return
        if constants.HF_HUB_OFFLINE or keywords.get("local_files_only"):
            raise OSError("it is not in the cache of this machine, and nothing may be fetched")
        HfApi().model_info(name, revision=keywords.get("revision"), token=keywords.get("token"), timeout=HUB_TIMEOUT)
    except Exception as error:  # the client's own errors differ between versions; all mean "not to be had"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise OSError(f"{missing}, and the Hub gives no checkpoint of that name ({reason}).") from error


def _named(keywords: Mapping[str, object], text: str) -> str | None:
    """The first keyword that a text names, or of whose value it names a key."""
    for name, value in keywords.items():
        names = [name, *value] if isinstance(value, Mapping) else [name]
        if any(re.search(rf"(?<![\w.]){re.escape(str(each))}(?![\w.])", text) for each in names):
            return name
    return None


def _damaged_file(place: str) -> str | None:
    """The first file of a checkpoint that is not what its suffix says."""
    names = sorted(os.listdir(place)) if os.path.isdir(place) else []
    for name in names:
        path = os.path.join(place, name)
        try:
            if name.endswith(".json"):
                with open(path, encoding="utf-8") as file:
                    found = parse_json(file.read(), finite=False)
                shards = found.get("weight_map", {}).values()
                if not all(isinstance(shard, str) and shard in names for shard in shards):
                    return path
            elif name.endswith(".safetensors"):
                from safetensors import safe_open

                safe_open(path, "np")
        except Exception:  # as above
            return path
    return None


def run(main: Callable[[Sequence[str] | None], object], argv: Sequence[str] | None = None) -> None:
    """Run a program and turn bad input into one line on stderr and exit code 2.

    Args:
        main (`Callable`): Takes the argument list (or `None` for `sys.argv[1:]`).
        argv (`Sequence[str]`, *optional*): Arguments without the program's name.

    Set `NEURAL_CLIP_TRACEBACK=1` to see the traceback instead. What the system refuses (a full disk, a file that may
    not be read) is told in the same way. Errors of any other type are defects of this package and keep their
    traceback. Where nobody reads what is printed, as after `| head`, the program ends without a word. Ctrl-C is one
    line and exit code 130, wherever it is met; the `KeyboardInterrupt` may say how to go on.
    """
    try:
        with _interrupted_anywhere():
            main(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
        sys.exit(141)  # as shells say it of a program that ended so
    except (DataError, OSError) as error:
        if os.environ.get("NEURAL_CLIP_TRACEBACK") == "1":
            raise
        if not getattr(error, "told_elsewhere", False):
            print(f"error: {_sentence(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        print(f"interrupted. {stop}" if str(stop) else "interrupted", file=sys.stderr)
        sys.exit(130)
    finally:  # all is done: another Ctrl-C ends the program at once, without the tracebacks of what is taken apart
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)


@contextmanager
def _interrupted_anywhere() -> Iterator[None]:
    """Let no Ctrl-C become something else.

    Where it meets code that cannot raise, as `__del__` and callbacks of weak references, Python prints a traceback and
    goes on: it is repeated. Other code turns it into an error of its own, as Arrow where it compares types: whatever
    fails after Ctrl-C fails because of it. An error whose cause it is, is one too. C code that loads NumPy prints it
    first, by `sys.excepthook`: here it prints nothing. What such an error has as `going_on` is told.
    """
    again = threading.Timer(0, lambda: None)
    came = False

    def pressed(number: int, frame: Any) -> None:
        nonlocal came
        came = True
        signal.default_int_handler(number, frame)

    def hook(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            before(unraisable)
            return
        nonlocal again
        again.cancel()
        again = threading.Timer(REPEATED_AFTER, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        again.daemon = True
        again.start()

    def shown(kind: Any, error: Any, trace: Any) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            showing(kind, error, trace)

    before, sys.unraisablehook = sys.unraisablehook, hook
    showing, sys.excepthook = sys.excepthook, shown
    is_main = threading.current_thread() is threading.main_thread()  # no other may set what a signal does
    if ours := is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, pressed)
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, KeyboardInterrupt):
            cause = cause.__cause__
        if came or cause is not None:
            raise KeyboardInterrupt(getattr(error, "going_on", "")) from None
        raise
    finally:
        again.cancel()
        sys.unraisablehook, sys.excepthook = before, showing
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _sentence(error: Exception) -> str:
    """An error in words; of the system's the file and the reason."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    files = " and ".join(repr(str(name)) for name in (error.filename, error.filename2) if name is not None)
    return f"{files}: {error.strerror.lower()}." if files else f"{error.strerror}."
