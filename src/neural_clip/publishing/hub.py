"""Questions to the Hub that end within seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from neural_clip.errors import HUB_TIMEOUT, DataError
from neural_clip.files.privacy import without_secrets

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def is_cached(name: str, revision: str | None) -> bool:
    """Whether the Hub's cache on this machine holds the model."""
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in files)


def ask_hub(name: str, revision: str | None) -> None:
    """Raise within seconds unless the Hub is reachable and has the model."""
    from huggingface_hub import HfApi, constants

    advice = (
        f"Download it where there is a network (`hf download {name}`) and give its folder with --model, or copy it "
        "into the Hub cache of this machine; a data set may also bring ready-made embeddings "
        "(`neural-clip prepare custom`)."
    )
    if constants.HF_HUB_OFFLINE:
        raise DataError(f"The image encoder '{name}' is not on this machine and HF_HUB_OFFLINE is set. {advice}")
    try:
        HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT)
    except Exception as error:  # the HTTP client's own errors differ between versions; all mean "not to be had"
        told = without_secrets(str(error)).strip()
        reason = told.splitlines()[0] if told else type(error).__name__
        raise DataError(
            f"The image encoder '{name}' is not on this machine and the Hub does not give it ({reason}). {advice}"
        ) from None  # an address with a password in it would be shown beside it


def hub(repo: str, token: str | None = None) -> HfApi:
    """Client of the Hub for a repository `ORG/NAME`; asks nothing yet.

    Args:
        repo (`str`): Name of the repository.
        token (`str`, *optional*): In place of the one that this machine keeps.

    Raises:
        DataError: If the name is none, or `HF_HUB_OFFLINE` is set.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
        if repo.count("/") != 1:
            raise HFValidationError("the name must hold one '/'")
    except HFValidationError as error:
        raise DataError(f"Invalid value for the 'repo' parameter: {error}. Give ORG/NAME, not {repo!r}.") from error
    if constants.HF_HUB_OFFLINE:
        raise DataError(f"'{repo}' cannot be reached: HF_HUB_OFFLINE is set. Unset it where there is a network.")
    return HfApi(token=token)


def find_repository(api: HfApi, repo: str, kind: str) -> Any:
    """What the Hub says of a repository, `None` if it does not exist (or is hidden from whoever asks)."""
    from huggingface_hub.errors import RepositoryNotFoundError

    with hub_errors(repo):
        try:
            return api.repo_info(repo, repo_type=kind, timeout=HUB_TIMEOUT)
        except RepositoryNotFoundError:
            return None


@contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """Turn whatever the Hub's client raises into a `DataError` that says what to do."""
    try:
        yield
    except Exception as error:  # the HTTP client's own errors differ between versions; all mean "not done"
        reason = " ".join(without_secrets(str(error)).split()) or type(error).__name__
        raise DataError(
            f"'{repo}' cannot be pushed to ({reason}). Check the network, and that you are logged in with the right "
            "to write there (`hf auth login`, or HF_TOKEN). The same command sends what is still missing."
        ) from None
