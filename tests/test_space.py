"""The Space of the Hub: its head and what it installs agree with the package."""

import tomllib

import yaml

from paths import REPOSITORY

SPACE = REPOSITORY / "space"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_space_installs_what_the_package_needs():
    rows = (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if not row.startswith("#")] == PROJECT["dependencies"]


def test_the_head_of_the_space_names_the_page_and_the_tested_gradio():
    head = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (SPACE / head["app_file"]).is_file() and head["sdk"] == "gradio"
    pins = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"gradio=={head['sdk_version']}" in pins
    assert f">={head['python_version']}" in PROJECT["requires-python"]
    assert head["license"] == PROJECT["license"].lower() and len(head["short_description"]) <= 60
