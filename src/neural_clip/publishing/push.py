"""Upload a prepared data set or a checkpoint to the Hub.

Data whose terms forbid redistribution, and models that learnt from them, never become public: neither by `public` nor
in a repository that is public already. This program neither asks for credentials nor keeps them.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from neural_clip.errors import DataError
from neural_clip.prepared.facts import METADATA_FILE, verify_prepared
from neural_clip.publishing.hub import find_repository, hub, hub_errors
from neural_clip.publishing.terms import check_terms, data_terms, model_terms

# What belongs to a data set or a checkpoint. Whatever is pickled, hidden or unfinished stays here, and so do
# intermediate checkpoints.
OWN_FILES = {
    "dataset": ("README.md", "*.json", "*.npz", "*.safetensors", "*.csv", "*.tsv", "*.txt", "data/*/*.parquet",
                "images/*.parquet", "masks/*.nii.gz"),
    "model": ("README.md", "*.json", "*.safetensors"),  # and the code that these name
}  # fmt: skip
REQUIRED = {"dataset": ("README.md", METADATA_FILE), "model": ("README.md", "config.json")}
# Which classes load a checkpoint, by the file that must name them; the processor's only where there is one.
AUTO_CLASSES = {"config.json": ("AutoConfig", "AutoModel"), "processor_config.json": ("AutoProcessor",)}
# Files of an earlier push that this one lacks would be read together with the new ones.
STALE_FILES = {
    "dataset": ["data/*", "images/*", "*.npz", "*.safetensors"],
    "model": ["*.safetensors", "*.safetensors.index.json"],
}


def push(folder: str | Path, repo: str, *, public: bool = False, message: str | None = None) -> str:
    """Upload a prepared data set or a checkpoint.

    Args:
        folder (`str` or `Path`): Prepared data set (with `neural_clip.json`) or checkpoint (with `config.json`).
        repo (`str`): `ORG/NAME`; made if it does not exist.
        public (`bool`, *optional*, defaults to `False`): Let all subjects see it.
        message (`str`, *optional*): Message of the commit.

    Returns:
        `str`: Address of the repository.

    Raises:
        DataError: Before anything is sent, if the folder is incomplete or was changed, the doctor finds an error
            in it, or it would become public against its terms; also if the Hub is out of reach or refuses.
    """
    folder = Path(folder)
    kind = "dataset" if (folder / METADATA_FILE).is_file() else "model"
    files = own_files(folder, kind)
    terms = data_terms(folder) if kind == "dataset" else model_terms(folder)
    if public:
        check_terms(f"'{folder}'", terms)
    api = hub(repo)
    known = find_repository(api, repo, kind)
    if known is not None:
        _check_repository(known, repo, kind, f"'{folder}'", terms, public)
    if kind == "dataset":
        _check_data_set(folder)
    with hub_errors(repo):
        if known is None:
            api.create_repo(repo, private=not public, repo_type=kind)
        api.upload_folder(
            repo_id=repo,
            repo_type=kind,
            folder_path=folder,
            allow_patterns=[glob.escape(name) for name in files],
            delete_patterns=STALE_FILES[kind],
            commit_message=message or f"Upload {folder.absolute().name}, made by neural_clip",
        )
    return f"{api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo}"


def own_files(folder: Path, kind: str) -> list[str]:
    """Paths below `folder` that belong to a `"dataset"` or a `"model"`, and nothing else that lies there.

    Raises:
        DataError: If a file is missing without which it is none, or a checkpoint lacks the code that loads it.
    """
    found = {path for pattern in OWN_FILES[kind] for path in folder.glob(pattern) if path.is_file()}
    names = sorted(path.relative_to(folder).as_posix() for path in found)
    names = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    missing = [name for name in REQUIRED[kind] if name not in names]
    if kind == "model" and not any(fnmatch(name, "model*.safetensors") for name in names):
        missing.append("model.safetensors")
    if missing:
        raise DataError(
            f"'{folder}' is neither a prepared data set ({METADATA_FILE}) nor a whole checkpoint (config.json, "
            f"model.safetensors, README.md): it lacks {', '.join(missing)}."
        )
    return sorted({*names, *code_files(folder)}) if kind == "model" else names


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
        text = (folder / name).read_text(encoding="utf-8")
        imported = re.findall(r"^\s*from\s+\.(\w+)\s+import", text, flags=re.MULTILINE)
        waiting += [(f"{module}.py", folder / name) for module in imported]
    return sorted(found)


def _auto_map(path: Path) -> dict[str, Any]:
    """What a configuration says of the classes that load it; empty if nothing."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")).get("auto_map") or {})
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"'{path}' is damaged ({error!r}); what loads it cannot be told.") from error


def _check_repository(
    known: Any, repo: str, kind: str, what: str, terms: Mapping[str, str | None], public: bool
) -> None:
    """Raise where a repository that exists is not what was asked for: its visibility does not change by a push."""
    if not known.private:
        check_terms(f"'{repo}' is a public repository, and {what}", terms)
    if bool(known.private) is public:
        state, advice = ("private", "leave --public away") if known.private else ("public", "add --public")
        raise DataError(
            f"'{repo}' exists and is {state}. If that is meant, {advice}; otherwise change it in the settings of the "
            "repository on the Hub, or choose another name."
        )
    names = {file.rfilename for file in known.siblings or []} - {".gitattributes", "README.md"}
    if names and REQUIRED[kind][-1] not in names:
        raise DataError(f"'{repo}' exists and holds something else ({sorted(names)[0]} ...). Choose another name.")


def _check_data_set(folder: Path) -> None:
    """Raise unless the files are those that were prepared and the doctor finds no error."""
    from neural_clip.prepared.doctor.inspect import inspect

    verify_prepared(folder)
    errors = [finding for finding in inspect(folder) if finding.severity == "error"]
    if errors:
        listed = " ".join(f"{finding.check}: {finding.message}" for finding in errors)
        raise DataError(f"'{folder}' is not pushed, because `neural-clip doctor` finds errors. {listed}")
