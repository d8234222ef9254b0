"""What a file that may be shared does not hold: secrets, and where things lie on this machine."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from neural_clip.errors import DataError

HIDDEN = "***"
LEAST = 6  # characters of a secret that is looked for in text; shorter words would be found everywhere
_WORDS = r"token|passw(?:or)?d|passphrase|secret|credentials?|(?:api|account|access)_?key"
_SECRET_NAME = re.compile(
    rf"(?i)(?:^|[^a-z])(?:{_WORDS}|key|pass|cookie|connection_string)(?![a-z])"
    r"|[_-](?:pwd|pat|auth|dsn)\Z|(?:^|[_-])authorization\Z"  # PWD and SSH_AUTH_SOCK are none
)
# `--hub_token T`, `hub_token: T`, `"api_key": "T"`, `?token=T`
_NAMED = re.compile(
    rf"""(?i)(--[\w.-]*(?:{_WORDS}|key)\s+|(?:{_WORDS}|[\w-]+[_-]key)["']?(?:=|:\s)\s*["']?)[^\s"',&}}\]]+"""
)
_IN_ADDRESS = re.compile(r"""(?i)\b([a-z][a-z0-9+.-]*://)[^\s/'"]+@""")  # https://name:password@host
_IN_QUERY = re.compile(r"""(?i)([?&](?:sig|key|auth|pass|pwd|code)=)[^\s"'&]+""")
_BEARER = re.compile(r"""(?i)\b(bearer\s+)[\w.~+/-]{6,}=*""")
# as the Hub, GitHub, GitLab, Slack, AWS, OpenAI and JSON web tokens begin
_KNOWN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{8,}|gh[opsur]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{8,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{12,}|sk-[\w-]{20,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
# absolute paths and those that leave the working directory; in quotes they may hold spaces
_QUOTED_PLACE = re.compile(r"""(["'])((?:file://)?(?:~|\.\.)?/[^"'\n]*)\1""")
_PLACE = re.compile(r"""(?<![\w.:/~*<-])(?:file://)?(?:~|\.\.)?/[^\s'",;()\[\]{}=]+""")


def is_secret(name: str) -> bool:
    """Whether an option or variable of that name holds a secret: `hub_token`, `WANDB_API_KEY`."""
    return bool(_SECRET_NAME.search(name))


def without_secrets(text: str, words: Sequence[str] = ()) -> str:
    """Text with `***` in place of every secret.

    Args:
        text (`str`): A message, or what a file is to hold.
        words (`Sequence[str]`, *optional*): Command line whose secrets are replaced too, wherever they stand.
    """
    text = _hidden(text, [*_given(words), *_of_this_process()])
    text = _KNOWN.sub(HIDDEN, _IN_ADDRESS.sub(rf"\1{HIDDEN}@", text))
    text = _BEARER.sub(rf"\1{HIDDEN}", _IN_QUERY.sub(rf"\1{HIDDEN}", text))
    return _NAMED.sub(rf"\1{HIDDEN}", text)


@contextmanager
def no_secrets_told(words: Sequence[str]) -> Iterator[None]:
    """An error whose message holds a secret of a command line or of this process becomes a `DataError` without it."""
    try:
        yield
    except Exception as error:
        told = without_secrets(str(error), words)
        if told == str(error):
            raise
        raise DataError(told) from None  # the first error would be shown beside it


def shared_text(text: str, words: Sequence[str] = ()) -> str:
    """Text as [`without_secrets`] has it, and of paths that are absolute or begin with `../` the last part alone."""
    text = without_secrets(text, words)
    if re.match(r"(?:file://)?(?:~|\.\.)?/[^\n]*\Z", text):
        return _last_part(text)
    text = _QUOTED_PLACE.sub(lambda found: found[1] + _last_part(found[2]) + found[1], text)
    return _PLACE.sub(lambda found: _last_part(found[0]), text)


def shared_place(path: str | Path, beside: Path) -> str:
    """Where something lies, as a file in the folder `beside` may say it.

    Returns:
        `str`: A relative path (or a name on the Hub) as it was given; an absolute one as it is found from `beside`, if
            that is in this folder or beside it; of all others the last part alone.
    """
    if not Path(path).is_absolute() and not {"..", "~"} & set(Path(path).parts):
        return str(path)
    found = os.path.relpath(Path(path).expanduser(), beside)
    return Path(path).name if found.startswith("../../") else found


def found_place(name: str, beside: Path) -> Path:
    """Where something lies that a file in the folder `beside` names as [`shared_place`] gives it."""
    return beside / name if (beside / name).is_dir() else Path(name)


def shared_value(value: Any, secrets: Sequence[str] | None = None) -> Any:
    """A value of JSON or YAML with its texts as [`shared_text`] gives them, and `***` for what is called a secret.

    Args:
        value (`Any`): Of JSON or YAML.
        secrets (`Sequence[str]`, *optional*): What is hidden wherever it stands; by default the secrets of `value`.
    """
    secrets = list(secrets_of(value)) if secrets is None else secrets
    if isinstance(value, dict):
        return {
            name: HIDDEN if is_secret(str(name)) and item not in (None, "") else shared_value(item, secrets)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [shared_value(item, secrets) for item in value]
    return shared_text(_hidden(str(value), secrets)) if isinstance(value, str | Path) else value


def secrets_of(value: Any) -> Iterator[str]:
    """Texts of JSON or YAML that are called a secret."""
    if isinstance(value, dict):
        for name, item in value.items():
            if is_secret(str(name)) and isinstance(item, str):
                yield item
            yield from secrets_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from secrets_of(item)


def _hidden(text: str, secrets: Iterable[str]) -> str:
    """Text with `***` in place of each of these; not of short words."""
    for secret in sorted({*secrets}, key=len, reverse=True):
        if len(secret) >= LEAST:
            text = text.replace(secret, HIDDEN)
    return text


def shared_command(program: str, words: Sequence[str]) -> str:
    """A command line as a record holds it: what it says in [`shared_text`], and options of secrets without them."""
    shown, hide = [], False
    for word in words:
        name, equals, value = word.partition("=")
        if hide and not word.startswith("--"):
            shown.append(HIDDEN)
        elif equals and re.fullmatch(r"[\w. -]+", name):  # --option=value, MODALITY=FOLDER, NAME=PATH
            shown.append(f"{name}={HIDDEN if is_secret(name) else shared_text(value, words)}")
        else:
            shown.append(shared_text(word, words))
        hide = word.startswith("--") and not equals and is_secret(word)
    return f"{shared_text(program)} {shlex.join(shown)}"


def _last_part(path: str) -> str:
    return Path(path).name or path


def _given(words: Sequence[str]) -> Iterator[str]:
    """Secrets of a command line: values of options that are called so."""
    for word, following in pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if name.startswith("--") and is_secret(name):
            yield value if equals else following


def _of_this_process() -> Iterator[str]:
    """Secrets of the environment and of `.netrc`, and the token of the Hub wherever it is kept."""
    from netrc import netrc

    from huggingface_hub import get_token

    with suppress(Exception):  # none, unreadable or damaged
        yield from (password or "" for _, _, password in netrc().hosts.values())

    yield from (value for name, value in os.environ.items() if is_secret(name))
    yield get_token() or ""
