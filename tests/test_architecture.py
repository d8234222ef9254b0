"""The import table of CONTRIBUTING.md holds, and tracked files carry nothing of the place they were written in."""

import ast
import fnmatch
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from neural_clip.cli import CORPORA

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "src" / "neural_clip"
# The modules that make the package what it is; without them the checks below would pass on an empty folder.
REQUIRED = {
    "__init__", "cli", "configuration_neural_clip", "corpora.custom", "corpora.imagenet_eeg", "corpora.nsd",
    "corpora.prepared", "corpora.things_meg", "data", "embedding", "errors", "evaluation", "image_retrieval", "losses",
    "modeling_eeg", "modeling_fmri", "modeling_meg", "modeling_neural_clip", "processing_neural_clip", "reporting",
    "simulation", "simulation.images", "simulation.simulate", "training",
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """One row of the table."""

    hub: bool
    ours: frozenset[str]
    third_parties: frozenset[str]
    guarded: frozenset[str]


@dataclass(frozen=True)
class Import:
    """One imported module, with where and how it stands in the source."""

    target: str
    line: int
    on_load: bool
    in_try: bool
    level: int
    names: tuple[str, ...]


def _words(cell):
    return frozenset(re.findall(r"`([^`]+)`", cell))


@cache
def table():
    """Patterns of module names and their rules, in the order of CONTRIBUTING.md."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+?) \| (hub|workshop) \| (.+?) \| (.+?) \|$", text, flags=re.M)
    hub = frozenset().union(*(_words(modules) for modules, kind, _, _ in rows if kind == "hub"))
    rules = {}
    for modules, kind, ours, third in rows:
        load, _, guarded = third.partition("guarded:")
        allowed = _words(ours) | (hub if "hub set" in ours else frozenset())
        for module in _words(modules):
            assert module not in rules, f"CONTRIBUTING.md lists {module} twice"
            rules[module] = Rule(kind == "hub", allowed, _words(load), _words(guarded))
    return rules


@cache
def heavy():
    """Packages that CONTRIBUTING.md calls heavy."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return _words(re.search(r"these heavy packages.*?:\n(.*?)\.\s", text, flags=re.S).group(1))


def rule_of(module):
    """The rule of a module: its own row before a pattern's."""
    if module in table():
        return table()[module]
    return next(
        (rule for pattern, rule in table().items() if "*" in pattern and fnmatch.fnmatch(module, pattern)), None
    )


def module_files():
    """Names below `neural_clip` and their files; a subpackage goes by its name, the package itself by `__init__`."""
    files = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        files[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return files


@cache
def _imports(source):
    """All imports of a source text, with `type checking only` ones counted as not loaded."""
    found = []

    def visit(node, on_load, in_try):
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, on_load, in_try, 0, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            found.append(Import(node.module or "", node.lineno, on_load, in_try, node.level, names))
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for field, value in ast.iter_fields(node):
            type_only = isinstance(node, ast.If) and field == "body" and "TYPE_CHECKING" in ast.unparse(node.test)
            guarded = in_try or (isinstance(node, ast.Try) and field == "body")
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child, on_load and not is_function and not type_only, guarded)

    visit(ast.parse(source), True, False)
    return found


def _ours(item, path, known):
    """Modules of this package that an import names; the package itself is `__init__`."""
    if item.level:
        folder = path.parent.relative_to(PACKAGE.parent).parts
        base = ".".join(folder[: len(folder) - item.level + 1] + ((item.target,) if item.target else ()))
    else:
        base = item.target
    if base.split(".")[0] != "neural_clip":
        return set()
    base = base.removeprefix("neural_clip").removeprefix(".")
    inside = {f"{base}.{name}".removeprefix(".") for name in item.names} & known
    return inside or {base or "__init__"}


def _package_imports():
    files = module_files()
    for module, path in files.items():
        for item in _imports(path.read_text(encoding="utf-8")):
            yield module, item, _ours(item, path, set(files)), f"{path.relative_to(REPOSITORY)}:{item.line}"


def _import_faults(module, rule, item, ours, place):
    """Sentences on what one import breaks."""
    faults = [
        f"{place}: {module} may not import neural_clip.{target}"
        for target in ours
        if target != module and not any(fnmatch.fnmatch(target, allowed) for allowed in rule.ours)
    ]
    top = item.target.split(".")[0]
    if ours or item.level or top in sys.stdlib_module_names:
        if rule.hub and ours and (item.level != 1 or not item.target or "." in item.target):
            faults.append(f"{place}: the hub set imports its own only as `from .module import name`")
    elif rule.hub and top not in rule.third_parties:
        if top not in rule.guarded:
            faults.append(f"{place}: {module} may not import {top}, which the table does not list for it")
        elif item.on_load or not item.in_try:
            faults.append(f"{place}: {top} belongs inside a function and a `try` block")
    elif not rule.hub and item.on_load and top in heavy() - rule.third_parties:
        faults.append(f"{place}: {top} is heavy; import it inside the functions that need it")
    return faults


def test_table_is_read_whole():
    assert {module for module, rule in table().items() if rule.hub} >= {
        "configuration_neural_clip", "losses", "modeling_eeg", "modeling_meg", "modeling_fmri", "modeling_neural_clip",
        "processing_neural_clip",
    }  # fmt: skip
    assert {"torch", "transformers", "mne", "datasets", "matplotlib", "sklearn"} <= heavy()
    assert rule_of("losses").ours == set()
    assert rule_of("training").ours >= {"modeling_neural_clip", "data"}
    assert rule_of("processing_neural_clip").guarded >= {"mne", "nibabel"}
    assert rule_of("simulation.things_meg_twin") != rule_of("simulation.ctf") == rule_of("simulation.images")
    assert rule_of("nowhere") is None


def test_every_module_stands_in_the_table():
    missing = [module for module in module_files() if rule_of(module) is None]
    assert not missing, f"give these modules a row in CONTRIBUTING.md: {missing}"


def test_required_modules_exist():
    missing = REQUIRED - set(module_files())
    assert not missing


def test_table_names_no_module_that_is_gone():
    known = set(module_files())
    stale = [pattern for pattern in table() if not fnmatch.filter(known, pattern)]
    assert not stale, f"CONTRIBUTING.md lists modules that do not exist: {stale}"


def test_imports_follow_the_table():
    faults = []
    for module, item, ours, place in _package_imports():
        rule = rule_of(module)
        faults += _import_faults(module, rule, item, ours, place) if rule else []
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("losses", "from .configuration_neural_clip import NeuralClipConfig"),
        ("losses", "def f():\n    import neural_clip.errors"),
        ("modeling_neural_clip", "from . import losses"),
        ("modeling_neural_clip", "from neural_clip.losses import clip_loss"),
        ("modeling_neural_clip", "from ..neural_clip.losses import clip_loss"),
        ("modeling_neural_clip", "import scipy.signal"),
        ("processing_neural_clip", "import mne"),
        ("processing_neural_clip", "def f():\n    import mne"),
        ("data", "import datasets"),
        ("data", "from neural_clip import training"),
        ("corpora.nsd", "from neural_clip.training import main"),
    ],
)
def test_a_forbidden_import_is_found(module, source):
    path = PACKAGE / (module.replace(".", "/") + ".py")
    known = REQUIRED | set(module_files())
    faults = [
        fault
        for item in _imports(source)
        for fault in _import_faults(module, rule_of(module), item, _ours(item, path, known), "here")
    ]
    assert faults


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("modeling_neural_clip", "from .losses import clip_loss\nimport math\nimport torch.nn as nn"),
        ("processing_neural_clip", "def f():\n    try:\n        import mne\n    except ImportError:\n        raise"),
        ("data", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import datasets"),
        ("data", "import numpy as np\ndef f():\n    import datasets"),
        ("corpora.nsd", "from neural_clip.corpora.prepared import write_prepared\nfrom .prepared import x"),
    ],
)
def test_an_allowed_import_passes(module, source):
    path = PACKAGE / (module.replace(".", "/") + ".py")
    known = REQUIRED | set(module_files())
    for item in _imports(source):
        assert _import_faults(module, rule_of(module), item, _ours(item, path, known), "here") == []


def test_no_two_modules_import_each_other_on_load():
    graph = {}
    for module, item, ours, _ in _package_imports():
        graph.setdefault(module, set()).update(ours - {module} if item.on_load else set())
    while leaves := [module for module, needs in graph.items() if not needs & set(graph)]:
        for module in leaves:
            del graph[module]
    assert not graph, f"circular imports among {sorted(graph)}"


def test_nobody_imports_a_corpus_program():
    faults = [
        f"{place}: {program}"
        for _, _, ours, place in _package_imports()
        for program in ours & {f"corpora.{name}" for name in CORPORA}
    ]
    assert not faults, faults


def _python_files(*folders):
    return [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]


def test_nobody_imports_programs_or_tests():
    scripts = {path.stem for path in _python_files("scripts")}
    programs = {"train", "tests", "scripts", "benchmarks", "dataset_scripts", "conftest"} | scripts
    faults = [
        f"{path.relative_to(REPOSITORY)}:{item.line}: {item.target}"
        for path in _python_files("src", "scripts", "dataset_scripts", "benchmarks")
        for item in _imports(path.read_text(encoding="utf-8"))
        if not item.level
        and item.target.split(".")[0] in programs
        and not (path.parent.name == "scripts" and item.target in scripts)  # one another
    ]
    assert not faults, faults


@pytest.mark.parametrize(
    ("folders", "skipped_extra"), [(("src", "dataset_scripts"), "dev"), (("scripts", "benchmarks"), "")]
)
def test_every_third_party_is_a_declared_dependency(folders, skipped_extra):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [row for name, rows in project["optional-dependencies"].items() if name != skipped_extra for row in rows]
    declared = {re.match(r"[\w-]+", row).group() for row in project["dependencies"] + extras}
    # files of a folder of programs import one another
    siblings = {path.stem for path in _python_files(*folders) if "scripts" in folders}
    distributions = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml", "faiss": "faiss-cpu",
                     "mne_bids": "mne-bids", "markdown_it": "markdown-it-py"}  # fmt: skip
    faults = [
        f"{path.relative_to(REPOSITORY)}:{item.line}: {top}"
        for path in _python_files(*folders)
        for item in _imports(path.read_text(encoding="utf-8"))
        if not item.level and (top := item.target.split(".")[0]) not in sys.stdlib_module_names | {"neural_clip"}
        if top not in siblings and distributions.get(top, top) not in declared
    ]
    assert not faults, f"declare in pyproject.toml: {faults}"


def test_dataset_scripts_import_corpora_and_errors_only():
    scripts = _python_files("dataset_scripts")
    assert {path.stem for path in scripts} >= {"imagenet_eeg", "things_meg", "nsd"}
    for path in scripts:
        for item in _imports(path.read_text(encoding="utf-8")):
            allowed = item.target == "neural_clip.errors" or item.target.startswith("neural_clip.corpora.")
            assert allowed or item.target.split(".")[0] in sys.stdlib_module_names, f"{path.name}:{item.line}"


def test_loading_dataset_scripts_leaves_torch_alone():
    code = (
        "import runpy, sys\n"
        "for path in sys.argv[1:]:\n"
        "    runpy.run_path(path, run_name='loaded')\n"
        "    assert 'torch' not in sys.modules, path + ' imports torch'\n"
    )
    scripts = [str(path) for path in _python_files("dataset_scripts")]
    done = subprocess.run([sys.executable, "-c", code, *scripts], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_no_module_is_named_after_nothing():
    vague = {"utils", "util", "common", "helpers", "misc"}
    named = [path for path in _python_files("src", "tests", "scripts", "dataset_scripts") if path.stem in vague]
    assert not named, f"name these after what they do: {named}"


def _tracked_files():
    """Files git knows or would add; skips outside a git checkout (an unpacked source archive)."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return [REPOSITORY / name for name in listed.split("\0") if name and (REPOSITORY / name).is_file()]


def test_tracked_files_name_no_index_host_and_no_private_path():
    # Joined here so that this file does not contain them.
    hosts = [
        "pypi" + ".org",
        "python" + "hosted.org",
        "download." + "pytorch.org",
        "--index" + "-url",
        "--find" + "-links",
    ]
    paths = [
        r"(?<![\w.>})])" + root + "/" for root in ("/wo" + "rk", "/ro" + "ot", "/opt/" + "wheels", "/opt/" + "pypi")
    ]
    paths.append("/(?:home|Users)" + r"/\w+/")
    pattern = re.compile("|".join([re.escape(host) for host in hosts] + paths))
    faults = []
    for path in _tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # images and weights
        found = pattern.search(text)
        if found:
            faults.append(
                f"{path.relative_to(REPOSITORY)}:{text[: found.start()].count(chr(10)) + 1}: {found.group()}"
            )
    assert not faults, "\n".join(faults)


def test_tracked_files_are_no_run_outputs():
    # GitHub warns at 50 MB; the largest file meant to be here is the tiny CLIP of at most 4 MB.
    large = [path for path in _tracked_files() if path.stat().st_size > 5_000_000 or path.name.endswith(".partial")]
    assert not large, f"too large, or unfinished: {large}"
