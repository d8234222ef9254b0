"""What a file that may be shared does not hold: secrets, and where things lie on this machine."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from neural_clip.errors import DataError

HIDDEN = "***"
LEAST = 6  # characters of a secret that is looked for in text; shorter words would be found everywhere
# Parts of names, in small letters with `_` between their words. What stands in one word with something else before it
# (PGPASSWORD, AUTHTOKEN) is known too; passes, keys, tokens and tokenizers are none.
_SECRET = (
    r"(?:[a-z]*(?:passw(?:or)?ds?|passphrase|passcode|secrets?|credentials?|token)|webhook(?:_ur[il])?|jwt|cookie|key"
    r"|(?:api|auth|access|secret|private|account|master|signing|encryption|ssh|deploy|licen[cs]e)keys?|pass"
    r"|(?:ssh|db|pg|sql|user|root|admin|smtp|mail|ftp|ldap|proxy|http|rsync|redis)pass|(?:mysql|db|root|user)pwd"
    r"|conn(?:ection)?_str(?:ing)?"
    r"|(?:database|db|redis|mongo|mongodb|postgres|postgresql|mysql|amqp|rabbitmq|broker)_ur[il])"
)
_ANYWHERE = re.compile(rf"(?:^|_){_SECRET}(?:_|\Z)|_(?:pwd|pat|auth|dsn)\Z|(?:^|_)authorization\Z")  # PWD is none
_AT_END = re.compile(rf"(?:^|_){_SECRET}\Z")
_PLAIN = ("key", "pass", "cookie")  # too common to be a secret's name where they stand alone in a sentence
_HARMLESS = re.compile(  # of filters, and of texts for a model
    r"(?:^|_)(?:(?:high|low|band|all|by|one|two|single|first|second)_pass|pass_band"
    r"|(?:pad|eos|bos|mask|cls|unk|sep|class|image|start|end)_token)(?=_|\Z)"
)
_NAME_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # of hub_token, hubToken and HUB2TOKEN
# `--hub_token T`, `hub_token: T`, `"api_key":"T"`, `?token=T`: what stands before the value
_BEFORE_VALUE = re.compile(
    r"""(?<![\w.-])(?:--(?P<option>[\w.-]+)(?:=|\s+(?!--))|(?P<entry>[A-Za-z][\w.-]*)["']?\s*(?:=|:\s|:(?=["']))\s*)"""
)
_VALUE = re.compile(r"""(?P<quote>["'])[^"'\n]*(?P=quote)|["']?[^\s"',&}\]]+""")
_IN_ADDRESS = re.compile(  # https://name:password@host
    r"""(?i)\b([a-z][a-z0-9+.-]*://)(?:[^\s/'"]+|[^\s/:@'"]*:[^\s@'"]+)@"""
)
_HOOK = re.compile(  # addresses of Slack, Discord, Teams and others that whoever has them may post to
    r"""(?i)\b(https?://(?:hooks\.[^\s/'"]+|[^\s/'"]*webhook[^\s/'"]*)/|https?://[^\s'"]*/webhooks?/"""
    r"""|https?://api\.telegram\.org/bot)[^\s'"]+"""
)
_IN_QUERY = re.compile(r"""(?i)([?&](?:sig|key|auth|pass|pwd|code)=)[^\s"'&]+""")
_BEARER = re.compile(
    r"""(?i)(\bbearer\s+|\bauthorization["']?\s*[:=]\s*["']?(?:basic|token|digest)\s+)[\w.~+/-]{6,}=*"""
)
# as the Hub, GitHub, GitLab, Slack, AWS, OpenAI and JSON web tokens begin
_KNOWN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{8,}|gh[opsur]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{8,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{12,}|sk-[\w-]{20,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
# Absolute paths and those that leave the working directory, also behind `me@host:` and of Windows.
_ROOT = (
    r"(?:(?:file://)?(?:~(?:[A-Za-z_][\w.-]*)?|\.\.)?/|(?:ssh|sftp|scp|rsync|smb|cifs|nfs)://"
    r"|[\w.-]+@[\w.-]+:/|[A-Za-z]:\\|[A-Za-z]:/(?!/)|\\{2,4}[\w.$-]{2,}\\)"
)
_PART = r"""[^\s'",;()\[\]{}=]"""
_WHOLE_PLACE = re.compile(rf"{_ROOT}[^\n]*\Z")
_QUOTED_PLACE = re.compile(rf"""(["'])({_ROOT}[^"'\n]*)\1""")  # in quotes it may hold spaces
_GIVEN_PLACE = re.compile(  # data=/srv/jane/x y/z
    rf"(?<=[=:])(?!//){_ROOT}{_PART}+(?:(?: (?!-)[^\s'\",;:()\[\]{{}}=/\\]+)+[/\\]{_PART}*)+"
)
_PLACE = re.compile(rf"(?<![\w./~*<\\-])(?!(?<=:)//){_ROOT}{_PART}+")


def is_secret(name: str) -> bool:
    """Whether an option or variable of that name holds a secret: `hub_token`, `WANDB_API_KEY`."""
    return bool(_ANYWHERE.search(_in_words(name)))


def _in_words(name: str) -> str:
    """Small letters with `_` between words, without those that only look like names of secrets."""
    return _HARMLESS.sub("", "_".join(_NAME_WORDS.findall(name)).lower())


def without_secrets(text: str, words: Sequence[str] = ()) -> str:
    """Text with `***` in place of every secret.

    Args:
        text (`str`): A message, or what a file is to hold.
        words (`Sequence[str]`, *optional*): Command line whose secrets are replaced too, wherever they stand.
    """
    text = _hidden(text, [*_given(words), *_of_this_process()])
    text = _KNOWN.sub(HIDDEN, _IN_ADDRESS.sub(rf"\1{HIDDEN}@", text))
    for pattern in (_HOOK, _IN_QUERY, _BEARER):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return _without_entries(text)


def _without_entries(text: str) -> str:
    """Text with `***` in place of values that it calls a secret."""
    parts, end = [], 0
    for found in _BEFORE_VALUE.finditer(text):
        name = _in_words(found["option"] or found["entry"])
        secret = _AT_END.search(name) and (found["option"] or name not in _PLAIN)
        value = _VALUE.match(text, found.end()) if secret and found.start() >= end else None
        if value:
            quote = text[value.start()] if text[value.start()] in "\"'" else ""
            parts += [text[end : found.end()], quote, HIDDEN, quote if value["quote"] else ""]
            end = value.end()
    return "".join([*parts, text[end:]])


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
    if _WHOLE_PLACE.match(text):
        return _last_part(text)
    text = _QUOTED_PLACE.sub(lambda found: found[1] + _last_part(found[2]) + found[1], text)
    for pattern in (_GIVEN_PLACE, _PLACE):
        text = pattern.sub(lambda found: _last_part(found[0]), text)
    return text


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
    of_windows = re.match(r"[A-Za-z]:[\\/]|\\\\", path)
    return (PureWindowsPath(path) if of_windows else PurePosixPath(path)).name or path


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
