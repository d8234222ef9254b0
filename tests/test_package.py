"""The package imports lazily, ships its data and says the same about itself everywhere."""

import fnmatch
import re
import socket
import subprocess
import sys
import tomllib
from importlib.metadata import version
from importlib.resources import files

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from pytest_socket import SocketConnectBlockedError

import neural_clip
from paths import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
PUBLIC = {
    "EegConfig", "EegEncoder", "FmriConfig", "FmriEncoder", "MegConfig", "MegEncoder", "NeuralClipConfig",
    "NeuralClipModel", "NeuralClipProcessor",
}  # fmt: skip


def _python(*arguments):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def test_import_loads_nothing_heavy():
    heavy = ["torch", "transformers", "datasets", "mne", "numpy", "scipy", "sklearn", "matplotlib", "pandas"]
    code = f"import sys, neural_clip; print([name for name in {heavy} if name in sys.modules])"
    assert _python("-c", code).stdout.strip() == "[]"


def test_import_takes_less_than_a_tenth_of_a_second():
    best = float("inf")
    for _ in range(5):  # the best of five, since other work on the machine only ever adds time
        report = _python("-X", "importtime", "-c", "import neural_clip").stderr
        cumulative = re.search(r"\|\s+(\d+) \| neural_clip$", report, flags=re.M)
        best = min(best, int(cumulative.group(1)) / 1e6)
        if best < 0.1:
            return
    pytest.fail(f"import neural_clip took {best:.2f} s")


def test_public_names_are_there_and_listed():
    assert set(neural_clip.__all__) >= PUBLIC
    assert set(dir(neural_clip)) >= set(neural_clip.__all__)
    for name in neural_clip.__all__:
        assert getattr(neural_clip, name) is not None


def test_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="NeuralClap"):
        _ = neural_clip.NeuralClap


def test_auto_classes_know_the_model():
    from transformers import AutoConfig, AutoModel

    config = neural_clip.NeuralClipConfig
    assert type(AutoConfig.for_model(config.model_type)) is config
    assert AutoModel._model_mapping[config] is neural_clip.NeuralClipModel


def test_versions_agree():
    declared = PROJECT["project"]["version"]
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert version("neural_clip") == declared == citation["version"]
    assert getattr(neural_clip, "__version__", declared) == declared


def test_citation_names_the_paper():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Ferrante", "Boccato", "Rashkov", "Toschi"]
    assert "2411.09723" in paper["identifiers"][0]["value"]
    assert citation["license"] == PROJECT["project"]["license"] == "Apache-2.0"


def test_package_data_covers_every_data_file():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["neural_clip"]
    package = REPOSITORY / "src" / "neural_clip"
    data = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and not path.name.endswith(".partial")
    ]
    assert "py.typed" in data
    forgotten = [name for name in data if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    assert not forgotten, f"a wheel would lack {forgotten}"


def test_tiny_clip_is_shipped_within_four_megabytes():
    folder = files("neural_clip") / "targets" / "tiny_clip_model"
    names = {item.name for item in folder.iterdir()}
    assert {"config.json", "model.safetensors", "README.md"} <= names
    assert sum(len(item.read_bytes()) for item in folder.iterdir()) <= 4_000_000


def _pins():
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", row) for row in rows), "exact public versions only"
    return {_normal(name): pin for name, pin in (row.split("==") for row in rows)}


def _normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def _needed() -> list[Requirement]:
    """What the package and its tests name, with the extras of our own among them."""
    extras, found = PROJECT["project"]["optional-dependencies"], []
    for requirement in map(Requirement, PROJECT["project"]["dependencies"] + extras["dev"]):
        own = requirement.name == PROJECT["project"]["name"]
        found += [Requirement(row) for extra in requirement.extras for row in extras[extra]] if own else [requirement]
    return found


def test_constraints_pin_what_the_package_and_its_tests_need():
    pins = _pins()
    for requirement in _needed():
        assert _normal(requirement.name) in pins, f"{requirement.name} is not pinned"
        assert pins[_normal(requirement.name)] in requirement.specifier, (
            f"the pin of {requirement} is out of its range"
        )


def test_oldest_constraints_are_the_lower_bounds():
    lines = (REPOSITORY / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()
    oldest = {_normal(row.split("==")[0]): row.split("==")[1] for row in lines if not row.startswith("#")}
    for requirement in _needed():
        if requirement.name in ("ruff", "mypy"):  # tests do not run them
            continue
        (lowest,) = (bound.version for bound in requirement.specifier if bound.operator == ">=")
        found = oldest.pop(_normal(requirement.name))
        assert found in requirement.specifier and Version(found).release[:2] == Version(f"{lowest}.0").release[:2]
    assert not oldest


def test_cards_of_checkpoints_ask_for_the_transformers_of_the_package():
    from neural_clip.checkpoint_card import REQUIRED

    (asked,) = re.findall(r'"(transformers[^"]*)"', REQUIRED)
    (needed,) = (requirement for requirement in _needed() if requirement.name == "transformers")
    assert set(Requirement(asked).specifier) <= set(needed.specifier)
    assert asked in (REPOSITORY / "model_cards" / "demo.md").read_text(encoding="utf-8")


def test_makefile_installs_the_pinned_torch():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert f"torch=={_pins()['torch']} " in makefile


def test_every_make_target_is_explained():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    phony = set(re.findall(r"^\.PHONY: (\S+)$", makefile, flags=re.M))
    explained = set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.M))
    assert phony == explained and {"demo", "test", "quality", "help"} <= phony
    shown = subprocess.run(["make"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert all(f"make {name} " in shown for name in phony)


def test_sockets_are_blocked_but_for_loopback():
    with socket.socket() as outside, pytest.raises(SocketConnectBlockedError):
        outside.connect(("192.0.2.1", 80))  # reserved for documentation, RFC 5737: nobody answers there
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())


def test_the_space_installs_what_the_package_needs():
    rows = (REPOSITORY / "space" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if not row.startswith("#")] == PROJECT["project"]["dependencies"]


def test_the_head_of_the_space_names_the_page_and_the_tested_gradio():
    head = yaml.safe_load((REPOSITORY / "space" / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (REPOSITORY / "space" / head["app_file"]).is_file() and head["sdk"] == "gradio"
    pins = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"gradio=={head['sdk_version']}" in pins
    assert f">={head['python_version']}" in PROJECT["project"]["requires-python"]
    assert head["license"] == PROJECT["project"]["license"].lower() and len(head["short_description"]) <= 60
