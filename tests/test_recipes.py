"""Recipes and their overrides."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from neural_clip.errors import DataError
from neural_clip.recipes import read_recipe, with_exponents

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    content = {
        "data": {"eeg": "prepared/eeg"},
        "model": {"eeg": {"hidden_size": 8}},
        "training": {"output_dir": str(tmp_path / "out"), "learning_rate": 0.1, "use_cpu": True},
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_overrides(recipe_file):
    arguments = ["--training.learning_rate", "1e-3", "--num-train-epochs", "3", "--model.eeg.dropout=0.25"]
    arguments += ["--data", "{fmri: a/b}", "--overwrite", "true", "--model.fmri.hidden_size", "16"]
    recipe = read_recipe([recipe_file, *arguments])
    assert recipe.training_arguments.learning_rate == 1e-3
    assert recipe.training_arguments.num_train_epochs == 3
    assert recipe.model == {"eeg": {"hidden_size": 8, "dropout": 0.25}, "fmri": {"hidden_size": 16}}
    assert recipe.data == {"fmri": "a/b"}
    assert recipe.overwrite is True
    assert recipe.training_arguments.hub_private_repo is True
    assert recipe.training_arguments.push_to_hub is False


@given(st.floats(1e-9, 1e9))
def test_numbers_with_exponents_are_numbers(number):
    text = f"{number:.0e}"
    assert with_exponents(yaml.safe_load(text)) == float(text)


def test_exponents_are_found_in_the_file_too(recipe_file):
    path = Path(recipe_file)
    path.write_text(path.read_text().replace("learning_rate: 0.1", "learning_rate: 3e-4"))
    assert read_recipe([recipe_file]).training["learning_rate"] == 3e-4
    assert with_exponents({"a": ["sub-1e3", "2E+2"]}) == {"a": ["sub-1e3", 200.0]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--training.learning_rat", "1"], "Unknown key 'learning_rat' .* Did you mean 'learning_rate'"),
        (["--data.eegs", "x"], "Did you mean 'eeg'"),
        (["--training.learning_rate"], "has no value"),
        (["learning_rate", "1"], "Unexpected argument 'learning_rate'"),
        (["--data", "{}"], "'data' section is empty"),
        (["--training", "{seed: 1}"], "lacks 'training.output_dir'"),
        (["--training.learning_rate.a", "1"], "which is a single value"),
        (["--training.eval_strategy", "sometimes"], "'training' section cannot be used"),
    ],
)
def test_bad_overrides_are_named(recipe_file, arguments, message):
    with pytest.raises(DataError, match=message):
        _ = read_recipe([recipe_file, *arguments]).training_arguments


def test_files_that_are_no_recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("- a\n- b\n")
    with pytest.raises(DataError, match="must hold the sections"):
        read_recipe([str(path)])
    path.write_text("data: [")
    with pytest.raises(DataError, match="no valid YAML"):
        read_recipe([str(path)])
    path.write_text("dta: {}")
    with pytest.raises(DataError, match="Did you mean 'data'"):
        read_recipe([str(path)])
    with pytest.raises(FileNotFoundError):
        read_recipe([str(tmp_path / "absent.yaml")])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_recipes_of_this_repository_can_be_read(path):
    recipe = read_recipe([str(path), "--training.use_cpu", "true"])
    assert recipe.training_arguments.metric_for_best_model == "eval_two_way"
