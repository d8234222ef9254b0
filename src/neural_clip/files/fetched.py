"""Folders of this machine, and repositories of data on the Hub, fetched into its cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neural_clip.errors import HUB_TIMEOUT, DataError, is_hub_name
from neural_clip.files.privacy import without_secrets


def folder_of(place: str | Path, what: str, advice: str = "", **asked: Any) -> Path:
    """A folder of this machine, or that of a repository of data on the Hub.

    Args:
        place (`str` or `Path`): The folder, or `ORG/NAME`.
        what (`str`): What is looked for, for messages: `"gallery"`.
        advice (`str`): What messages end with.
        **asked: What `snapshot_download` is told besides: `revision`, `token`, `cache_dir`, `ignore_patterns`.

    Raises:
        DataError: Within seconds, where there is no such folder and the Hub does not give it.
    """
    if Path(place).is_dir():
        return Path(place)
    if not is_hub_name(place):
        raise DataError(f"There is no folder '{place}', and it is no name on the Hub (ORG/NAME). {advice}".rstrip())
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(place), repo_type="dataset", etag_timeout=HUB_TIMEOUT, **asked))
    except (OSError, ValueError) as error:
        raise DataError(
            f"'{place}' is neither a folder here nor a {what} that the Hub gives: {_reason(error)}. {advice}".rstrip()
        ) from None  # an address with a password in it would be shown beside it


def _reason(error: Exception) -> str:
    """Why the Hub gave nothing, without what its client says of its settings."""
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    if isinstance(error, RepositoryNotFoundError):
        return "it has none of that name, or none that you may read"
    if isinstance(error, LocalEntryNotFoundError):
        offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the Hub is out of reach"
        return f"{offline}, and the cache of this machine does not have it"
    told = without_secrets(str(error)).strip()
    return told.splitlines()[0].rstrip(".") if told else type(error).__name__
