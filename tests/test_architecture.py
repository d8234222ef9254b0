"""The import table of CONTRIBUTING.md holds, and tracked files carry nothing of the place they were written in."""

import ast
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath

import pytest

from paths import REPOSITORY

PACKAGE = REPOSITORY / "src" / "neural_clip"
# Without these the checks below would pass on an empty folder.
REQUIRED = {
    "__init__", "errors", "options", "configuration_neural_clip", "losses", "modeling_eeg", "modeling_fmri",
    "modeling_meg",
    "modeling_neural_clip", "modeling_sensors", "processing_neural_clip", "files.whole", "retrieval.image_retrieval",
    "prepared.reader", "prepared.doctor.inspect", "corpora.nsd.build", "corpora.things_meg.build",
    "corpora.things_eeg2.build", "corpora.things_fmri.build", "corpora.things_eeg1.build", "corpora.alljoined.build",
    "corpora.custom.build", "corpora.imagenet_eeg.build", "targets.embed_images", "publishing.push", "evaluation.run",
    "training.run", "report.text", "queries.verbs", "sample.load", "workflow.run", "app.page",
    "simulation.simulate", "commands.main",
}  # fmt: skip
HUB = "hub set"
EVERYBODY = {
    *("errors", "image_pixels", "markup", "modalities", "preparation", "target_space", "terms", "options", "parallel"),
    "corpus_inputs",
}  # imported by all folders
STAYS = {"__init__", "__main__", "options", "parallel", "registration"}  # of the root, and does not travel
TRAVELS = {f"retrieval.{name}" for name in ("image_retrieval", "scores", "tiles", "task")}


@dataclass(frozen=True)
class Rule:
    """One row of the table."""

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
    return frozenset(re.findall(r"`([^`]+)`", cell)) | ({HUB} if HUB in cell else frozenset())


@cache
def table():
    """Rules of the packages, in the order of CONTRIBUTING.md."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (hub set|`\w+`) \| (.+?) \| (.*?) ?\| .+? \|$", text, flags=re.M)
    rules = {}
    for package, ours, third in rows:
        load, _, guarded = third.partition("guarded:")
        allowed = frozenset(rules) if ours == "all of these" else _words(ours)
        rules[package.strip("`")] = Rule(allowed, _words(load), _words(guarded))
    return rules


@cache
def heavy():
    """Packages that CONTRIBUTING.md calls heavy."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return _words(re.search(r"These heavy packages.*?:\n(.*?)\.\s", text, flags=re.S).group(1))


def package_of(module):
    """The package of a module: its first folder; a module of the root belongs to the hub set."""
    if module == "__main__":
        return "commands"
    return module.split(".")[0] if "." in module or module in table() else HUB


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


def _import_faults(module, item, ours, place):
    """Sentences on what one import breaks."""
    package = package_of(module)
    rule, hub = table()[package], package == HUB and module != "__init__"
    flat = hub or module in TRAVELS
    faults = []
    for target in ours - {module}:
        if package_of(target) != package and target not in EVERYBODY and not _allowed(target, rule.ours):
            faults.append(f"{place}: {module} may not import neural_clip.{target}")
        if flat and (item.level != 1 or not item.target or "." in item.target) and (hub or target in TRAVELS):
            faults.append(f"{place}: what travels imports its own only as `from .module import name`")
        if (module in TRAVELS and target not in TRAVELS) or (hub and module not in STAYS and target in STAYS):
            faults.append(f"{place}: {module} travels, but neural_clip.{target} does not")
    if ours and item.target not in ours:
        faults += [f"{place}: {name} is private to {item.target}" for name in item.names if _is_private(name)]
    top = item.target.split(".")[0]
    if ours or item.level or top in sys.stdlib_module_names:
        return faults
    travels = hub and module not in STAYS
    if travels and top not in rule.third_parties:
        if top not in rule.guarded:
            faults.append(f"{place}: {module} may not import {top}, which the table does not list for it")
        elif item.on_load or not item.in_try:
            faults.append(f"{place}: {top} belongs inside a function and a `try` block")
    elif not travels and item.on_load and top in heavy() - rule.third_parties:
        faults.append(f"{place}: {top} is heavy; import it inside the functions that need it")
    return faults


def _allowed(target, allowed):
    """Whether a module is one of these packages or modules, or lies in one."""
    return package_of(target) in allowed or any(target == name or target.startswith(f"{name}.") for name in allowed)


def _is_private(name):
    return name.startswith("_") and not name.startswith("__")


def test_files_of_json_have_one_reader():
    """`json.load` and `json.loads` of what was not just written stand in `parse_json` alone, which refuses depth."""
    apart = {
        "errors": "the reader",
        "retrieval.image_retrieval": "ids that it wrote itself, where `errors` is not beside it",
        "corpora.nsd.categories": "drops outlines while it reads; catches depth itself",
        "evaluation.finished_parts": "parts behind a digest of their own",
        "evaluation.baseline_rows": "parts behind a digest of their own",
    }
    found = {}
    for module, path in module_files().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.load", "json.loads"):
                copied = ast.unparse(node.args[0]).startswith("json.dumps(")
                if not copied:
                    found[module] = node.lineno
    assert found.keys() == apart.keys(), found


def test_table_is_read_whole():
    assert len(table()) == 17
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(table()) == folders | {HUB}
    assert {"torch", "transformers", "mne", "datasets", "matplotlib", "sklearn"} <= heavy()
    assert table()[HUB].ours == set() and table()[HUB].guarded >= {"mne", "nibabel"}
    assert table()["training"].ours >= {HUB, "prepared"} and table()["training"].third_parties >= {"torch"}
    assert table()["commands"].ours == set(table()) - {"commands"}
    assert "torch" not in table()["prepared"].third_parties


def test_required_modules_exist():
    missing = REQUIRED - set(module_files())
    assert not missing


def test_table_names_no_module_that_is_gone():
    known = set(module_files()) | {HUB}
    stale = {name for rule in table().values() for name in rule.ours} - known
    assert not stale, f"CONTRIBUTING.md lists modules that do not exist: {stale}"


def test_imports_follow_the_table():
    faults = [fault for found in _package_imports() for fault in _import_faults(*found)]
    assert not faults, "\n".join(faults)


def _faults(module, source):
    path = PACKAGE / (module.replace(".", "/") + ".py")
    known = REQUIRED | set(module_files())
    return [
        fault for item in _imports(source) for fault in _import_faults(module, item, _ours(item, path, known), "here")
    ]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("losses", "def f():\n    import neural_clip.prepared.reader"),
        ("losses", "from .options import option"),
        ("modeling_eeg", "from .registration import MODELS"),
        ("modeling_neural_clip", "from . import losses"),
        ("modeling_neural_clip", "from neural_clip.losses import clip_loss"),
        ("modeling_neural_clip", "from ..neural_clip.losses import clip_loss"),
        ("modeling_neural_clip", "import scipy.signal"),
        ("processing_neural_clip", "import mne"),
        ("processing_neural_clip", "def f():\n    import mne"),
        ("prepared.reader", "import datasets"),
        ("prepared.reader", "from neural_clip import training"),
        ("prepared.reader", "from neural_clip.files.whole import _digest"),
        ("corpora.nsd.build", "from neural_clip.training.run import train"),
        ("corpora.nsd.build", "def f():\n    from neural_clip.commands.main import main"),
        ("report.text", "from neural_clip.evaluation.run import evaluate_checkpoints"),
        ("simulation.simulate", "from neural_clip.corpora.things_meg.build import prepare"),
        ("retrieval.scores", "from neural_clip.retrieval.tiles import Tile"),
        ("retrieval.scores", "from neural_clip.errors import DataError"),
        ("retrieval.tiles", "from .uncertainty import bootstrap_interval"),
    ],
)
def test_a_forbidden_import_is_found(module, source):
    assert _faults(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("modeling_neural_clip", "from .losses import clip_loss\nimport math\nimport torch.nn as nn"),
        ("processing_neural_clip", "def f():\n    try:\n        import mne\n    except ImportError:\n        raise"),
        ("prepared.reader", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import datasets"),
        ("prepared.reader", "import numpy as np\ndef f():\n    import datasets"),
        ("corpora.nsd.build", "from neural_clip.prepared.writer import write_prepared\nfrom .plan import x"),
        ("report.text", "from neural_clip.evaluation.outputs import REPORT_FILE"),
        ("training.options", "from neural_clip.options import option"),
        ("simulation.simulate", "from neural_clip.corpora.things_meg.preprocessing import PUBLISHED"),
        ("retrieval.scores", "from .tiles import Tile"),
    ],
)
def test_an_allowed_import_passes(module, source):
    assert _faults(module, source) == []


def _circles(graph):
    """What is left of a graph `name -> names` once everything outside its circles is gone."""
    graph = {name: set(needs) for name, needs in graph.items()}
    while leaves := [name for name, needs in graph.items() if not needs & set(graph)]:
        for name in leaves:
            del graph[name]
    return sorted(graph)


def _graph(key):
    """Who imports whom, also inside functions, by module or by package."""
    graph = {}
    for module, _, ours, _ in _package_imports():
        if module != "__init__":  # names all public classes
            graph.setdefault(key(module), set()).update({key(target) for target in ours} - {key(module)})
    return graph


def test_no_circle_between_packages():
    assert not _circles(_graph(package_of))


def test_no_circle_inside_a_package():
    assert not _circles(_graph(str))


def test_a_circle_is_found():
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["a", "b", "c", "d"]
    assert _circles({"a": {"b"}, "b": {"c"}}) == []


def test_only_commands_import_a_corpus_program():
    faults = [
        place
        for module, _, ours, place in _package_imports()
        if not module.startswith("commands.")
        for target in ours
        if target.startswith("corpora.") and target.endswith(".build")
    ]
    assert not faults, faults


def _python_files(*folders):
    return [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]


def test_nobody_imports_programs_or_tests():
    siblings = {
        folder: {path.stem for path in _python_files(folder)} for folder in ("scripts", "studies", "benchmarks")
    }
    programs = {"train", "tests", "conftest", "dataset_scripts", *siblings}.union(*siblings.values()) - {
        "image_retrieval"
    }
    faults = [
        f"{path.relative_to(REPOSITORY)}:{item.line}: {item.target}"
        for path in _python_files("src", "scripts", "studies", "dataset_scripts", "benchmarks")
        if "tests" not in path.parts
        for item in _imports(path.read_text(encoding="utf-8"))
        if not item.level
        and item.target.split(".")[0] in programs
        and item.target not in siblings.get(path.parent.name, ())
    ]
    assert not faults, faults


@pytest.mark.parametrize(
    ("folders", "skipped_extra"), [(("src", "dataset_scripts"), "dev"), (("scripts", "studies", "benchmarks"), "")]
)
def test_every_third_party_is_a_declared_dependency(folders, skipped_extra):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [row for name, rows in project["optional-dependencies"].items() if name != skipped_extra for row in rows]
    declared = {re.match(r"[\w-]+", row).group() for row in project["dependencies"] + extras}
    # files of a folder of programs import one another
    siblings = {path.stem for path in _python_files(*folders) if "scripts" in folders}
    distributions = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml", "faiss": "faiss-cpu",
                     "mne_bids": "mne-bids", "markdown_it": "markdown-it-py",
                     "lazy_loader": "lazy-loader", "sentence_transformers": "sentence-transformers",
                     # what these are made of
                     "mkdocs": "mkdocs-material", "griffe": "mkdocstrings"}  # fmt: skip
    faults = [
        f"{path.relative_to(REPOSITORY)}:{item.line}: {top}"
        for path in _python_files(*folders)
        if "tests" not in path.parts
        for item in _imports(path.read_text(encoding="utf-8"))
        if not item.level and (top := item.target.split(".")[0]) not in sys.stdlib_module_names | {"neural_clip"}
        if top not in siblings and distributions.get(top, top) not in declared
    ]
    assert not faults, f"declare in pyproject.toml: {faults}"


def test_dataset_scripts_import_commands_and_errors_only():
    scripts = _python_files("dataset_scripts")
    corpora = {"imagenet_eeg", "things_meg", "nsd", "things_eeg2", "things_fmri", "things_eeg1", "alljoined"}
    assert {path.stem for path in scripts} >= corpora
    for path in scripts:
        for item in _imports(path.read_text(encoding="utf-8")):
            allowed = item.target == "neural_clip.errors" or item.target.startswith("neural_clip.commands")
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


# Files of tests that are about more than one module, or about files beside the package.
NOT_OF_ONE_MODULE = {"damage", "docs", "help", "precision", "reads", "several_corpora"}
BESIDE_THE_PACKAGE = {
    "architecture",
    "attack",
    "benchmarks",
    "cost_of_other_channels",
    "dataset_scripts",
    "docs_guarantees",
    "docs_links",
    "docs_notebook",
    "docs_python",
    "docs_site",
    "docs_tutorials",
    "format_1",
    "fourth_modality",
    "other_channels",
    "package",
    "public_paths",
    "writing_commands",
    "publish_results",
    "make_static_page",
    "synthetic",
    "shared_files",
    "second_process",
    "things_twins",
    "tolerances",
    "modeling_several_corpora",
    "nsd_and_alljoined1",
}


def _mirror_faults(tests, modules):
    """What is wrong with the places of test files, `files/test_whole.py`, beside modules, `files.whole`."""
    packages = {module.rpartition(".")[0] for module in modules} | {""}
    faults = []
    for path in tests:
        package, name = path.parent.as_posix().replace("/", ".").strip("."), path.stem.removeprefix("test_")
        apart = NOT_OF_ONE_MODULE if package else BESIDE_THE_PACKAGE
        if package not in packages:
            faults.append(f"tests/{path}: there is no package {package}")
        elif name not in apart and f"{package}.{name}".strip(".") not in modules:
            faults.append(f"tests/{path}: there is no module {name} in {package or 'the root'}")
    return faults


def test_tests_mirror_the_package():
    tests = REPOSITORY / "tests"
    found = [path.relative_to(tests) for path in sorted(tests.rglob("test_*.py"))]
    assert len(found) > 50
    faults = _mirror_faults(found, set(module_files()))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("files/test_whole.py", ""),
        ("corpora/nsd/test_damage.py", ""),
        ("test_package.py", ""),
        ("files/test_halves.py", "no module halves in files"),
        ("test_whole.py", "no module whole in the root"),
        ("corpora/nod/test_build.py", "no package corpora.nod"),
        ("files/test_package.py", "no module package in files"),
    ],
)
def test_a_test_file_in_the_wrong_place_is_found(path, fault):
    assert fault in "".join(_mirror_faults([PurePosixPath(path)], set(module_files())))
    assert bool(fault) == bool(_mirror_faults([PurePosixPath(path)], set(module_files())))


def _imports_of_tests(source):
    """Lines where a test file or a conftest is imported."""
    parts = [(item.line, {*item.target.split("."), *item.names}) for item in _imports(source)]
    return [line for line, names in parts if any(name.startswith("test_") or name == "conftest" for name in names)]


def test_no_test_module_imports_another():
    faults = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path in [*_python_files("tests", "studies"), REPOSITORY / "conftest.py"]
        for line in _imports_of_tests(path.read_text(encoding="utf-8"))
    ]
    assert not faults, f"put what they share into a module of its own: {faults}"


@pytest.mark.parametrize(
    "source",
    ["import test_main", "from nsd.test_build import N", "from files import test_whole", "import conftest"],
)
def test_an_import_of_a_test_module_is_found(source):
    assert _imports_of_tests(source) == [1]
    assert not _imports_of_tests("from neural_clip.files.whole import write_whole\nimport planted_data")


def test_no_module_is_named_after_nothing():
    vague = {"utils", "util", "common", "helpers", "misc"}
    named = [
        path for path in _python_files("src", "tests", "studies", "scripts", "dataset_scripts") if path.stem in vague
    ]
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
