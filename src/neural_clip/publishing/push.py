"""Upload a prepared data set, a checkpoint or a gallery to the Hub.

What is sent is the list of files that the writer of the folder left in its record, each compared with its digest, and
nothing else that lies there. Both are done on links to the files, so that a folder that is replaced meanwhile does not
matter. Data whose terms forbid redistribution, and models that learnt from them, never become
public: neither by `public` nor in a repository that is public already. This program neither asks for credentials nor
keeps them.
"""

from __future__ import annotations

import glob
import os
import re
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from neural_clip.errors import DataError
from neural_clip.files.reading import read_json, read_text
from neural_clip.files.record import (
    GALLERY_FILE,
    LOCAL_FILES,
    RECORD_FILE,
    check_gallery_files,
    check_record,
    read_record,
    sealed,
)
from neural_clip.files.whole import link_or_copy, sha256_of
from neural_clip.markup import python_text
from neural_clip.prepared.facts import METADATA_FILE, Facts
from neural_clip.prepared.stored_rows import check_stored
from neural_clip.publishing.hub import find_repository, hub, hub_errors
from neural_clip.publishing.model_card import configurations, eval_entries, model_card, renamed, score_rows
from neural_clip.publishing.terms import data_terms, gallery_terms, model_terms
from neural_clip.terms import check_terms, check_visibility

if TYPE_CHECKING:
    from huggingface_hub import HfApi


# What may belong to a data set, checkpoint or gallery. Whatever is pickled, hidden or unfinished stays here, and so do
# intermediate checkpoints, whatever a record says.
OWN_FILES = {
    "dataset": ("README.md", "*.json", "*.npz", "*.safetensors", "*.csv", "*.tsv", "*.txt", "data/*/*.parquet",
                "images/*.parquet", "masks/*.nii.gz"),
    "model": ("README.md", "*.json", "*.safetensors"),  # and the code that these name
    "gallery": ("README.md", GALLERY_FILE, "dataset_info.json", "state.json", "data-*.arrow"),
}  # fmt: skip
REQUIRED = {
    "dataset": ("README.md", METADATA_FILE), "model": ("README.md", "config.json"),
    "gallery": ("README.md", GALLERY_FILE),
}  # fmt: skip
RECORDS = {"dataset": METADATA_FILE, "model": RECORD_FILE, "gallery": GALLERY_FILE}
TERMS = {"dataset": data_terms, "model": model_terms, "gallery": gallery_terms}
REPOSITORIES = {"dataset": "dataset", "model": "model", "gallery": "dataset"}  # as the Hub calls their kind
# Which classes load a checkpoint, by the file that must name them; the processor's only where there is one.
AUTO_CLASSES = {"config.json": ("AutoConfig", "AutoModel"), "processor_config.json": ("AutoProcessor",)}
REPORT_FILE, EVAL_RESULTS = "report.json", ".eval_results/neural_clip.yaml"
AT_A_SHELL = {True: "add --public", False: "leave --public away"}
# Files of an earlier push that this one lacks would be read together with the new ones.
STALE_FILES = {
    "dataset": ["data/*", "images/*", "masks/*", "*.npz", "*.safetensors"],
    "model": ["*.safetensors", "*.safetensors.index.json", ".eval_results/*"],
    "gallery": ["*.arrow"],
}


def push(
    folder: str | Path, repo: str, *, public: bool = False, message: str | None = None, token: str | None = None,
    scores: str | Path | None = None, revision: str | None = None, what: str | None = None,
    advice: Mapping[bool, str] = AT_A_SHELL,
) -> str:  # fmt: skip
    """Upload a prepared data set, a checkpoint or a gallery.

    Args:
        folder (`str` or `Path`): Prepared data set (with `neural_clip.json`), checkpoint (with `config.json`) or
            gallery (with `gallery.json`).
        repo (`str`): `ORG/NAME`; made if it does not exist.
        public (`bool`, *optional*, defaults to `False`): Let everyone see it.
        message (`str`, *optional*): Message of the commit.
        token (`str`, *optional*): Of the Hub, in place of the one that `hf auth login` or `HF_TOKEN` gave.
        scores (`str` or `Path`, *optional*): `report.json` of an evaluation of this checkpoint, whose scores the card
            is to state.
        revision (`str`, *optional*): Branch; made if it does not exist.
        what (`str`, *optional*): What messages call it; by default its folder.
        advice (`Mapping[bool, str]`): How messages say to ask for a public repository and for a private one.

    Returns:
        `str`: Address of the repository.

    Raises:
        DataError: Before anything is sent, if the folder is incomplete or was changed, the doctor finds an error
            in it, a file is a link out of it, or it would become public against its terms or without a record that
            belongs to its weights; also if the Hub is out of reach or refuses.
    """
    folder = Path(folder)
    what = what or f"'{folder}'"
    with _frozen(folder) as frozen:
        kind = next((kind for kind in ("dataset", "gallery") if (frozen / RECORDS[kind]).is_file()), "model")
        listed = recorded_files(frozen, kind)
        files = own_files(frozen, kind, listed)
        terms = TERMS[kind](frozen)
        if public:
            check_terms(what, terms)
            _check_weights_known(folder, kind, listed)
        scored = None if scores is None else _report_of(frozen, kind, scores)
        api, known = open_repository(repo, kind, what, terms, public, token, advice)
        if kind == "dataset":
            _check_data_set(frozen)
        files = [*files, *_tell_of(frozen, kind, repo, scored)]
        _tell_what_stays(folder, kind, files)
        told = message or f"Upload {folder.absolute().name}, made by neural_clip"
        _send(api, repo, kind, frozen, files, told, revision, makes=not public if known is None else None)
    return f"{api.endpoint}/{'' if kind == 'model' else 'datasets/'}{repo}"


def _check_weights_known(folder: Path, kind: str, listed: Collection[str]) -> None:
    """Raise where a checkpoint's record does not say which weights it tells of."""
    if kind == "model" and not listed:
        raise DataError(
            f"'{folder}' must not become public: its {RECORD_FILE} is of an earlier version and does not say "
            "which weights it was written for, so what they learnt from cannot be told. Train it again, or "
            "push it to a private repository."
        )


def _send(
    api: HfApi, repo: str, kind: str, folder: Path, files: Iterable[str], message: str, revision: str | None, *,
    makes: bool | None,
) -> None:  # fmt: skip
    """Commit files of a folder; `makes` says whether the repository that is made first is private, if one is."""
    with hub_errors(repo):
        if makes is not None:
            api.create_repo(repo, private=makes, repo_type=REPOSITORIES[kind])
        if revision is not None:
            api.create_branch(repo, branch=revision, repo_type=REPOSITORIES[kind], exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            repo_type=REPOSITORIES[kind],
            revision=revision,
            folder_path=folder,
            allow_patterns=[glob.escape(name) for name in files],
            delete_patterns=STALE_FILES[kind],
            commit_message=message,
        )


@contextmanager
def _frozen(folder: Path) -> Iterator[Path]:
    """Give links to what may be sent of a folder as it is now, in a folder beside it that vanishes at the end.

    Where nothing can be written beside it, or the file system has no links, files are copied. Errors name `folder`.
    """
    place = Path(os.path.realpath(folder))  # also of links that lead to themselves
    beside = place.parent if os.access(place.parent, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.push-", dir=beside) as made:
        frozen = Path(made, place.name)
        frozen.mkdir()
        for pattern in (*OWN_FILES["dataset"], *OWN_FILES["gallery"], "*.py"):  # of models there are no others
            for path in filter(Path.is_file, place.glob(pattern)):
                link, target = frozen / path.relative_to(place), path.resolve()
                if os.path.lexists(link):
                    continue
                link.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # replaced just now: missed by the checks
                    # one that leads out of the folder stays a link, which is refused
                    link_or_copy(str(target), str(link)) if place in target.parents else link.symlink_to(target)
        try:
            yield frozen
        except DataError as error:
            raise DataError(str(error).replace(str(frozen), str(folder))) from error


def _report_of(folder: Path, kind: str, place: str | Path) -> dict:
    """A report whose first checkpoint is the one in this folder."""
    path = Path(place) / REPORT_FILE if Path(place).is_dir() else Path(place)
    report = read_json(path, "report", " `neural-clip evaluate` writes it.")
    try:
        weights = report["checkpoints"][0]["sha256"]
        score_rows(report)
    except (LookupError, TypeError) as error:
        raise DataError(f"'{path}' is no report of `neural-clip evaluate` ({error!r}).") from error
    if "sha256" in report and report != sealed(report):
        raise DataError(f"'{path}' was changed since it was written: its digest differs. Evaluate again.")
    if kind != "model" or weights != sha256_of(folder.glob("model*.safetensors")):
        raise DataError(f"'{path}' does not tell of '{folder}': its first checkpoint has other weights.")
    return report


def _tell_of(folder: Path, kind: str, repo: str, report: dict | None) -> list[str]:
    """Have the card name the repository, and tell of an evaluation; returns further files to send."""
    path = folder / "README.md"
    if kind != "model":
        text = path.read_text(encoding="utf-8").replace('"<this folder>"', python_text(repo))
    elif report is None:
        text = renamed(path.read_text(encoding="utf-8"), repo)
    else:
        text = model_card(repo, read_record(folder) or {}, report, *configurations(folder))
    path.unlink()  # a link to that of the checkpoint
    path.write_text(text, encoding="utf-8")
    entries = [] if report is None else eval_entries(report)
    if not entries:
        return []
    import yaml

    made = folder / EVAL_RESULTS
    made.parent.mkdir()
    made.write_text(yaml.safe_dump(entries, sort_keys=False), encoding="utf-8")
    return [EVAL_RESULTS]


def open_repository(
    repo: str, kind: str, what: str, terms: Mapping[str, str | None], public: bool, token: str | None = None,
    advice: Mapping[bool, str] = AT_A_SHELL,
) -> tuple[HfApi, Any]:  # fmt: skip
    """Client of the Hub and what it says of a repository, `None` if there is none; asks, and changes nothing.

    Args:
        repo (`str`): `ORG/NAME`.
        kind (`str`): `"dataset"`, `"model"` or `"gallery"`.
        what (`str`): What is to be sent, for messages.
        terms (`Mapping[str, str]`): See [`check_terms`].
        public (`bool`): Whether it is to be public.
        token (`str`, *optional*): Of the Hub.
        advice (`Mapping[bool, str]`): How to ask for a public one and for a private one, for messages.

    Raises:
        DataError: If it is not what was asked for: its visibility does not change by a push.
    """
    api = hub(repo, token)
    known = find_repository(api, repo, REPOSITORIES[kind])
    if known is not None:
        _check_repository(known, repo, kind, what, terms, public, advice)
    return api, known


def recorded_files(folder: Path, kind: str) -> list[str]:
    """What the writer of a folder listed as its files, in the record of the folder; empty where it listed none.

    Raises:
        DataError: If the record or a file of a checkpoint or gallery was changed, or the list names what is no such
            file.
    """
    if kind == "gallery":
        listed: Any = check_gallery_files(folder)["files"]
    else:
        listed = (read_record(folder) or {}).get("files") if kind == "model" else Facts.read(folder).files
    if listed is None:
        return []
    path, patterns = folder / RECORDS[kind], (*OWN_FILES[kind], *(["*.py"] if kind == "model" else []))
    if not isinstance(listed, Mapping) or not all(isinstance(name, str) for name in listed):
        raise DataError(f"'{path}' is damaged: its 'files' are no list of files.")
    for name in listed:
        parts = PurePosixPath(name).parts
        if "/".join(parts) != name or any(part.startswith(".") for part in parts) or not _matches(parts, patterns):
            raise DataError(f"'{path}' is damaged: its 'files' name {name!r}, which is no file of a {kind}.")
    if kind == "model":
        check_record(folder)
    return sorted(listed)


def _matches(parts: Sequence[str], patterns: Iterable[str]) -> bool:
    """Whether a path has the depth and the names of one of the patterns."""
    allowed = (pattern.split("/") for pattern in patterns)
    return any(len(parts) == len(names) and all(map(fnmatch, parts, names)) for names in allowed)


def own_files(folder: Path, kind: str, listed: Sequence[str]) -> list[str]:
    """Paths below `folder` that belong to a `"dataset"`, `"model"` or `"gallery"`, and nothing else that lies there.

    Args:
        folder (`Path`): Data set, checkpoint or gallery.
        kind (`str`): Which of them.
        listed (`Sequence[str]`): Of [`recorded_files`]; record and card go along with them. Folders of earlier
            versions have no list, and of these it is whatever is called as such files are.

    Raises:
        DataError: If a file is missing without which it is none, or a checkpoint lacks the code that loads it, or one
            is a link that leads out of the folder.
    """
    if listed:
        names = sorted({*listed, "README.md", RECORDS[kind]})
        missing = [name for name in names if not (folder / name).is_file()]
    else:
        found = {path for pattern in OWN_FILES[kind] for path in folder.glob(pattern) if path.is_file()}
        names = sorted(path.relative_to(folder).as_posix() for path in found)
        names = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
        names = [name for name in names if name not in LOCAL_FILES]
        missing = []
    missing += [name for name in REQUIRED[kind] if name not in (*names, *missing)]
    if kind == "model" and not any(fnmatch(name, "model*.safetensors") for name in names):
        missing.append("model.safetensors")
    if missing:
        raise DataError(
            f"'{folder}' is neither a prepared data set ({METADATA_FILE}), a gallery ({GALLERY_FILE}) nor a whole "
            f"checkpoint (config.json, model.safetensors, README.md): it lacks {', '.join(missing)}."
        )
    if kind == "model":
        code = code_files(folder)
        if listed and (unlisted := sorted(set(code) - set(names))):
            raise DataError(
                f"'{folder / unlisted[0]}' is code that loads the model, but {RECORD_FILE} does not list it."
            )
        names = sorted({*names, *code})
    for name in names:
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise DataError(f"'{folder / name}' is a link that leads out of the folder, so it is not pushed.")
    return names


def _tell_what_stays(folder: Path, kind: str, files: Collection[str]) -> None:
    """Say in one line on stderr what lies in the folder and is not sent."""
    sent = {name.split("/")[0] for name in files}
    stays = sorted(f"{path.name}{'/' * path.is_dir()}" for path in folder.iterdir() if path.name not in sent)
    if stays:
        more = f" and {len(stays) - 5} more" if len(stays) > 5 else ""
        print(f"note: not among the files of this {kind}, so these stay here: {', '.join(stays[:5])}{more}.",
              file=sys.stderr)  # fmt: skip


def code_files(folder: Path) -> list[str]:
    """Files of the code that a checkpoint is loaded with where this package is not installed.

    Raises:
        DataError: If the configuration of the model or of the processor names no code, or one of the files is missing.
    """
    advice = (
        "It would load nowhere but where neural_clip is installed. Load it (`NeuralClipModel.from_pretrained`, "
        "`NeuralClipProcessor.from_pretrained`) and `save_pretrained` both with this version, or train it again."
    )
    waiting: list[tuple[str, Path]] = []
    for name, classes in AUTO_CLASSES.items():
        if (folder / name).is_file():
            named = _auto_map(folder / name)
            lacking = [auto for auto in classes if not isinstance(named.get(auto), str)]
            if lacking:
                raise DataError(f"'{folder / name}' does not say in 'auto_map' what {lacking[0]} loads. {advice}")
            waiting += [(f"{named[auto].split('.')[0]}.py", folder / name) for auto in classes]
    found: set[str] = set()
    while waiting:
        name, asking = waiting.pop()
        if name in found:
            continue
        if not (folder / name).is_file():
            raise DataError(f"'{asking}' needs the code file '{name}', which is not beside it. {advice}")
        found.add(name)
        # as transformers finds the files: by their text
        text = read_text(folder / name, "code file")
        imported = re.findall(r"^\s*from\s+\.(\w+)\s+import", text, flags=re.MULTILINE)
        waiting += [(f"{module}.py", folder / name) for module in imported]
    return sorted(found)


def _auto_map(path: Path) -> dict[str, Any]:
    """What a configuration says of the classes that load it; empty if nothing."""
    try:
        return dict(read_json(path).get("auto_map") or {})
    except (TypeError, AttributeError) as error:
        raise DataError(f"'{path}' is damaged ({error!r}); what loads it cannot be told.") from error


def _check_repository(
    known: Any, repo: str, kind: str, what: str, terms: Mapping[str, str | None], public: bool,
    advice: Mapping[bool, str],
) -> None:  # fmt: skip
    """Raise where a repository that exists is not what was asked for: its visibility does not change by a push."""
    check_visibility(repo, bool(known.private), what, terms, public, advice)
    names = {file.rfilename for file in known.siblings or []} - {".gitattributes", "README.md"}
    if names and REQUIRED[kind][-1] not in names:
        raise DataError(f"'{repo}' exists and holds something else ({sorted(names)[0]} ...). Choose another name.")


def _check_data_set(folder: Path) -> None:
    """Raise unless the files are those that were prepared and the doctor finds no other error."""
    from neural_clip.prepared.doctor.inspect import inspect

    check_stored(folder, Facts.read(folder))
    errors = [finding for finding in inspect(folder) if finding.severity == "error"]
    if errors:
        listed = " ".join(f"{finding.check}: {finding.message}" for finding in errors)
        raise DataError(f"'{folder}' is not pushed, because `neural-clip doctor` finds errors. {listed}")
