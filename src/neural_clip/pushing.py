"""`push_to_hub`, held to the rules of `neural-clip push`.

What is pushed is private unless `private=False` is given. Weights, configurations and processors that learnt from data
whose terms forbid redistribution, or of which nobody knows what they learnt from, never become public: neither by
`private=False` nor in a repository that is public already.
"""

import inspect
import tempfile
from collections.abc import Collection, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from .checkpoint_card import MARK, card_text
from .errors import HUB_TIMEOUT, DataError, parse_json
from .terms import check_terms, check_visibility

IN_PYTHON = {True: "pass private=False", False: "leave private=False away"}
CONFIGURATIONS = ("config.json", "processor_config.json")
OURS = {*CONFIGURATIONS, "adapter_config.json"}  # one of these lies in a repository that may be pushed to
# Arguments of a push; all others are of saving.
OF_PUSH = ("repo_id", "commit_message", "commit_description", "private", "token", "revision", "create_pr", "tags")
# Files of an earlier push: weights that would be read together with new ones, and what tells of another checkpoint.
WEIGHTS = ("model*.safetensors", "model.safetensors.index.json", "pytorch_model*.bin")
RECORDS = ("training.json", ".eval_results/*")


class PushedByTerms:
    """What has `save_pretrained` and `push_to_hub`; comes before the class of transformers that has them."""

    def data_terms(self) -> dict[str, str | None]:
        """Whether the data that this learnt from may be redistributed, by data set; see [`terms_of`]."""
        raise NotImplementedError

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """Save; with `push_to_hub=True` also push, as [`~PushedByTerms.push_to_hub`] does."""
        save: Any = super().save_pretrained  # type: ignore[misc]
        given = inspect.signature(save).bind(*args, **kwargs).arguments
        given |= given.pop("kwargs", {})
        wanted, of_push = given.pop("push_to_hub", False), {key: given.pop(key) for key in OF_PUSH if key in given}
        if not wanted or not given.get("is_main_process", True):
            return save(**given)
        push = Push(self, of_push.pop("repo_id", Path(given["save_directory"]).absolute().name), **of_push)
        again = {key: dict(value) for key, value in given.items() if key == "state_dict" and value is not None}
        saved = save(**given)
        with tempfile.TemporaryDirectory() as folder:
            save(**given | again | {"save_directory": folder})
            push.send(Path(folder))
        return saved

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str | None = None,
        tags: list[str] | None = None,
    ) -> Any:
        """Upload to the Hub with the code that loads it and a card; private unless `private=False`.

        Args:
            repo_id (`str`): `ORG/NAME`, or `NAME` in your own namespace; made if it does not exist.
            commit_message, commit_description (`str`, *optional*): Of the commit.
            private (`bool`, *optional*): `False` makes a public repository, where the terms of the data allow that.
            token (`str` or `bool`, *optional*): Of the Hub, in place of that of `hf auth login` or `HF_TOKEN`.
            revision (`str`, *optional*): Branch; made if it does not exist.
            create_pr (`bool`): Open a pull request instead.
            max_shard_size (`int` or `str`, *optional*): Of a file of weights.
            tags (`list[str]`, *optional*): For the card.

        Returns:
            `CommitInfo`

        Raises:
            ValueError: Before anything is saved or sent, if it would become public against its terms, or the
                repository is public and `private=False` was not given, or the other way round.
        """
        push = Push(self, repo_id, commit_message, commit_description, private, token, revision, create_pr, tags)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, **({} if max_shard_size is None else {"max_shard_size": max_shard_size}))
            return push.send(Path(folder))


class Push:
    """A push that the terms of the data allow; arguments are those of [`~PushedByTerms.push_to_hub`].

    Raises:
        ValueError: If they do not allow it.
    """

    def __init__(
        self, thing: Any, repo_id: str, commit_message: str | None = None, commit_description: str | None = None,
        private: bool | None = None, token: bool | str | None = None, revision: str | None = None,
        create_pr: bool = False, tags: Any = None,
    ) -> None:  # fmt: skip
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError

        what, terms, self.public = f"This {type(thing).__name__}", thing.data_terms(), private is False
        if self.public:
            check_terms(what, terms)
        self.api, self.repo = HfApi(token=token, library_name="neural_clip"), repo_id
        if "/" not in repo_id:
            self.repo = f"{self.api.whoami()['name']}/{repo_id}"
        try:
            known: Any = self.api.repo_info(self.repo, timeout=HUB_TIMEOUT)
        except RepositoryNotFoundError:
            known = None
        self.exists = known is not None
        if known is not None:
            check_visibility(self.repo, bool(known.private), what, terms, self.public, IN_PYTHON)
            files = {file.rfilename for file in known.siblings or []} - {".gitattributes", "README.md"}
            if files and not files & OURS:
                raise ValueError(
                    f"'{self.repo}' exists and holds something else ({sorted(files)[0]} ...). Choose another name."
                )
        kind = next((name for name in ("model", "processor", "config") if name in what.lower()), "model")
        self.message, self.description = commit_message or f"Upload {kind}", commit_description
        self.revision, self.create_pr, self.config = revision, create_pr, getattr(thing, "config", None)
        self.tags = [*(getattr(thing, "model_tags", None) or []), *([tags] if isinstance(tags, str) else tags or [])]

    def send(self, folder: Path) -> Any:
        """Commit all files of a folder, with a card; makes the repository first."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        if not self.exists:
            self.api.create_repo(self.repo, private=not self.public)
        if self.revision is not None and not self.revision.startswith("refs/pr"):
            self.api.create_branch(self.repo, branch=self.revision, exist_ok=True)
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        there = set(self.api.list_repo_files(self.repo, revision=self.revision)) if self.exists else set()
        is_other = any(self._is_other(folder, name, there) for name in CONFIGURATIONS)
        stale = _stale(names, there, is_other)
        operations: list[Any] = [CommitOperationDelete(name) for name in stale]
        operations += [CommitOperationAdd(name, folder / name) for name in names]
        if self._writes_card(there, stale):
            config, processor = (self._json(folder, name, there) for name in CONFIGURATIONS)
            if config is None and self.config is not None:  # an adapter is saved without
                config = self.config.to_dict()
            text = card_text(self.repo, config, processor, tags=self.tags)
            operations.append(CommitOperationAdd("README.md", text.encode()))
        return self.api.create_commit(
            self.repo, operations, commit_message=self.message, commit_description=self.description,
            revision=self.revision, create_pr=self.create_pr,
        )  # fmt: skip

    def _writes_card(self, there: Collection[str], stale: Collection[str]) -> bool:
        """Whether there is no card, or one of ours that does not tell of the weights that will lie beside it."""
        if "README.md" not in there:
            return True
        if "training.json" in there and "training.json" not in stale:
            return False  # its card says more
        return MARK in self._text("README.md")

    def _json(self, folder: Path, name: str, there: Collection[str]) -> Mapping | None:
        """A configuration from what is sent, or else from the repository; `None` where it is in neither."""
        sent = folder / name
        if not sent.is_file() and name not in there:
            return None
        try:
            found = parse_json(sent.read_text(encoding="utf-8") if sent.is_file() else self._text(name))
        except ValueError as error:  # of UTF-8 too
            raise DataError(f"'{name}' of '{self.repo}' is damaged, so no card can be written: {error}") from error
        if not isinstance(found, dict):
            raise DataError(f"'{name}' of '{self.repo}' is damaged, so no card can be written: it is no JSON object.")
        return found

    def _is_other(self, folder: Path, name: str, there: Collection[str]) -> bool:
        """Whether a file is sent that the repository does not have as it is."""
        sent = folder / name
        return sent.is_file() and (name not in there or self._text(name) != sent.read_text(encoding="utf-8"))

    def _text(self, name: str) -> str:
        """A file of the repository."""
        with tempfile.TemporaryDirectory() as folder:
            path = self.api.hf_hub_download(self.repo, name, revision=self.revision, local_dir=folder)
            return Path(path).read_text(encoding="utf-8")


def _stale(names: Collection[str], there: Collection[str], is_other: bool) -> list[str]:
    """Files of a repository that must not stay beside new ones; a configuration is another than before or is not."""
    is_new = any(fnmatch(name, WEIGHTS[0]) for name in names)
    patterns = [*(WEIGHTS if is_new else ()), *(RECORDS if is_new or is_other else ())]
    if "processor_config.json" in names:
        patterns.append("scaling.safetensors")
    return sorted({name for name in there if any(fnmatch(name, pattern) for pattern in patterns)} - set(names))
