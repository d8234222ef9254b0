"""Recipes and their overrides."""

import re
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from transformers.trainer_utils import IntervalStrategy

from neural_clip.commands.main import main
from neural_clip.commands.options import todays_spelling
from neural_clip.errors import DataError
from neural_clip.training.model import build_model, model_config
from neural_clip.training.recipe import Recipe, find_recipe, read_recipe, shipped_recipes
from paths import REPOSITORY
from planted_data import facts_of, write_planted

pytestmark = pytest.mark.numerical

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))


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


def test_words_of_the_other_commands(recipe_file):
    words = ["--data", "eeg=a/b", "fmri=c=d", "--output-dir", "out", "--seed", "7", "--epochs", "3"]
    recipe = read_recipe([recipe_file, *words, "--batch-size", "9", "--overwrite", "--resume", "--push-to-hub"])
    assert recipe.data == {"eeg": "a/b", "fmri": "c=d"}
    expected = {"output_dir": "out", "seed": 7, "num_train_epochs": 3, "per_device_train_batch_size": 9}
    assert recipe.training == {"learning_rate": 0.1, "use_cpu": True, "push_to_hub": True, **expected}
    assert (recipe.overwrite, recipe.resume) == (True, True)


@pytest.mark.parametrize(
    ("today", "before"),
    [
        (["--data", "eeg=x", "meg=y"], ["--data", "{eeg: x, meg: y}"]),
        (["--data=eeg=x"], ["--data", "{eeg: x}"]),
        (["--overwrite", "--seed", "1"], ["--overwrite", "true", "--seed", "1"]),
        (["--seed", "1"], ["--seed", "1", "--resume", "false", "--overwrite=false"]),
        (["--push-to-hub"], ["--push_to_hub", "true"]),
        (["--output-dir", "a_b"], ["--output_dir", "a_b"]),
        (["--epochs", "2", "--batch-size", "8"], ["--num_train_epochs", "2", "--per_device_train_batch_size", "8"]),
    ],
)
def test_both_spellings_mean_the_same(recipe_file, today, before):
    assert read_recipe([recipe_file, *today]) == read_recipe([recipe_file, *before])
    assert read_recipe([recipe_file, *today]) == read_recipe([recipe_file, *todays_spelling("train", before)])
    assert todays_spelling("train", today) == today


def test_exponents_are_found_in_the_file_too(recipe_file):
    path = Path(recipe_file)
    path.write_text(path.read_text().replace("learning_rate: 0.1", "learning_rate: 3e-4"))
    assert read_recipe([recipe_file]).training["learning_rate"] == 3e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--training.learning_rat", "1"], "Unknown key 'learning_rat' .* Did you mean 'learning_rate'"),
        (["--data.eegs", "x"], "Did you mean 'eeg'"),
        (["--training.learning_rate"], "has no value"),
        (["learning_rate", "1"], "Unexpected argument 'learning_rate'"),
        (["--passes.eegs", "2"], "Did you mean 'eeg'"),
        (["--passes.eeg", "0"], "'passes.eeg' parameter. Allowed is a whole number from 1 to 10,000, but got 0"),
        (
            ["--passes", "{eeg: 1.5}"],
            "'passes.eeg' parameter. Allowed is a whole number from 1 to 10,000, but got 1.5",
        ),
        (["--data", "{}"], "'data' section is empty"),
        (["--training", "{seed: 1}"], "lacks 'training.output_dir'"),
        (["--training.learning_rate.a", "1"], "which is a single value"),
        (["--training.eval_strategy", "sometimes"], "'training' section cannot be used"),
        (["--data", "eegs=x"], r"got 'eegs=x' instead. Did you mean 'eeg'\?"),
        (["--data", "eeg=x", "meg"], "Allowed are eeg=FOLDER, meg=FOLDER and fmri=FOLDER, .* got 'meg' instead"),
        (["--data", "eeg=x", "eeg=x"], "each folder once, but got 'eeg=x'"),
        (["--data", "eeg="], "got 'eeg=' instead"),
        (["--overwrite", "yes"], "Unexpected argument 'yes'"),
        (["--overwrit", "--resume"], r"'--overwrit' has no value. Did you mean 'overwrite'\?"),
        (["--output-dri", "x"], "Did you mean 'output_dir'"),
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
    with pytest.raises(DataError, match="is no readable recipe"):
        read_recipe([str(path)])
    path.write_bytes("data: {eeg: Übung}".encode("latin-1"))
    with pytest.raises(DataError, match=r"recipe\.yaml' is no recipe in UTF-8 or UTF-16: line 1 holds the byte 0xdc"):
        read_recipe([str(path)])
    path.write_text("dta: {}")
    with pytest.raises(DataError, match="Did you mean 'data'"):
        read_recipe([str(path)])
    with pytest.raises(DataError):
        read_recipe([str(tmp_path / "absent.yaml")])


def test_a_recipe_goes_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no configs here
    shipped = read_recipe([str(REPOSITORY / "configs" / "demo.yaml")])
    assert read_recipe(["demo"]) == read_recipe(["demo.yaml"]) == shipped
    (tmp_path / "paper").mkdir()
    assert find_recipe("paper").parent.name == "recipes"  # a folder is no recipe
    mine = "data: {eeg: mine}\ntraining: {output_dir: here}\n"
    (tmp_path / "demo").write_text(mine)
    assert read_recipe(["demo"]).data == {"eeg": "mine"}
    assert read_recipe(["demo.yaml"]) == shipped
    (tmp_path / "demo.yaml").write_text(mine)
    assert read_recipe(["demo.yaml"]).data == {"eeg": "mine"}
    with pytest.raises(DataError, match=r"no recipe of this package, .* Did you mean 'linear'\?"):
        read_recipe(["liner"])
    with pytest.raises(DataError, match=r"'configs/demo\.yaml' is no file"):  # a path is no name
        read_recipe(["configs/demo.yaml"])


@pytest.mark.parametrize(
    "words",
    [
        ["--data", "meg=m", "--output-dir", "o"],
        ["--data.meg", "m", "--output-dir=o"],
        ["--output-dir", "o", "--data={meg: m}"],
    ],
)
def test_base_is_the_recipe_where_none_is_named(words):
    """On the data sets of the arguments, and on none of those that the file has as examples."""
    recipe = read_recipe([*words, "--seed", "3"])
    assert recipe == read_recipe(["base", "--data", "meg=m", "--output-dir", "o", "--seed", "3"])
    assert recipe.data == {"meg": "m"} and recipe.training["output_dir"] == "o"
    with pytest.raises(DataError, match="'data' section is empty; give the prepared data set"):
        read_recipe(["--seed", "3"])


def test_recipes_state_their_steps_and_their_warm_up():
    """Those that are recommended; the others stay what earlier comparisons were made with."""
    told = {path.stem: read_recipe([str(path)]) for path in CONFIGS}
    assert {name for name, recipe in told.items() if recipe.min_steps} == {"base", "demo"}
    for name in ("base", "demo"):
        arguments = told[name].training_arguments
        assert [arguments.get_warmup_steps(n) for n in (300, 640, 40_000)] == [9, 20, 1200]


def test_shipped_recipes_are_explained(capsys):
    for words in ["--help"], ["demo", "--seed", "1", "-h"]:
        with pytest.raises(SystemExit) as stop:
            read_recipe(words)
        assert stop.value.code == 0
        shown, other = capsys.readouterr()
        assert shown.startswith("usage: ") and other == ""
        for path in CONFIGS:
            (line,) = (line for line in shown.splitlines() if line.split()[:1] == [path.stem])
            assert line.endswith(path.read_text().splitlines()[0].removeprefix("# ")) and len(line) <= 119


def test_recipes_travel_with_the_package():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "training/recipes/*.yaml" in project["package-data"]["neural_clip"]
    assert sorted(shipped_recipes()) == sorted(path.resolve() for path in CONFIGS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_recipes_of_this_repository_can_be_read(path):
    recipe = read_recipe([str(path), "--training.use_cpu", "true"])
    assert recipe.training_arguments.metric_for_best_model == "eval_two_way"


SUBJECTS = ["sub-01", "sub-02"]
TRAINED = {"train": 8, "validation": 2}  # rows of a subject
SENSORS = {"eeg": {"n_chans": 4, "n_times": 60, "tmin": 0.04}, "meg": {"n_chans": 5, "n_times": 33, "tmin": -0.05}}
VOXELS = {"sub-01": 21, "sub-02": 30}
ENCODER = {"name": "any/clip", "revision": "0", "pooling": "projected", "projection_dim": 12}


def built(stem, *overrides, **more_facts):
    """Model of a recipe of this repository for small data sets of the modalities that it names."""
    recipe = read_recipe([str(next(path for path in CONFIGS if path.stem == stem)), *overrides])
    recipe.model.pop("include_vision_tower", None)
    facts = {}
    for modality in recipe.data:
        shape = {"n_voxels": VOXELS} if modality == "fmri" else {"sfreq": 200.0, "ch_names": None} | SENSORS[modality]
        named = shape | {
            "subjects": SUBJECTS,
            "subject_splits": dict.fromkeys(SUBJECTS, TRAINED),
            "category_level": False,
            "image_encoder": ENCODER,
        }
        facts[modality] = facts_of(modality, **named | more_facts.get(modality, {}))
    return build_model(model_config(recipe, facts), None, 0)


@pytest.mark.parametrize("stem", ["eeg", "fmri"])
def test_subjects_without_training_rows_get_no_layer(stem):
    path = next(path for path in CONFIGS if path.stem == "base")
    recipe = read_recipe([str(path), "--data", f"{stem}=data/x"])
    shape = {"n_voxels": VOXELS} if stem == "fmri" else {"sfreq": 200.0, "ch_names": None} | SENSORS[stem]
    named = shape | {"subjects": SUBJECTS, "image_encoder": ENCODER}
    recipe.model.pop("include_vision_tower", None)

    def config_of(counts):
        return model_config(recipe, {stem: facts_of(stem, **named, subject_splits=counts)})

    config = getattr(config_of({"sub-01": TRAINED, "sub-02": {"test": 9}}), f"{stem}_config")
    assert config.subjects == ["sub-01"]
    if stem == "fmri":
        assert config.n_voxels == {"sub-01": VOXELS["sub-01"]}
    recipe.model[stem] = {**(recipe.model.get(stem) or {}), "subjects": ["sub-02"]}
    with pytest.raises(DataError, match=rf"'model.{stem}.subjects' names 'sub-02', but the subjects with train"):
        config_of({"sub-01": TRAINED, "sub-02": {"test": 9}})
    with pytest.raises(DataError, match=rf"'data.{stem}' can be scored only: its subjects .* have no training rows"):
        config_of({name: {"test": 9} for name in SUBJECTS})


def recordings(modality, n_rows, seed=0):
    """Random recordings of the second subject, who has the most voxels."""
    shape = (VOXELS["sub-02"],) if modality == "fmri" else (SENSORS[modality]["n_chans"], SENSORS[modality]["n_times"])
    values = torch.randn(n_rows, *shape, generator=torch.Generator().manual_seed(seed))
    return values, torch.ones(n_rows, dtype=torch.long)


@pytest.mark.parametrize("stem", [path.stem for path in CONFIGS])
def test_recipes_of_this_repository_build_a_model_that_learns(stem):
    model = built(stem).train()
    for modality in model.config.modalities:
        values, ids = recordings(modality, 6)
        batch = {f"{modality}_values": values, "subject_ids": ids, "image_embeds": torch.randn(6, 12)}
        model(**batch, image_ids=torch.arange(6)).loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {
        name for name, parameter in model.named_parameters() if parameter.requires_grad and ".sub-01." not in name
    }
    assert any(".alignment." in name for name in trained) == (stem != "paper_code")


def test_places_of_sensors_reach_the_configuration():
    places = [[0.1, 0.0, number / 10] for number in range(4)]
    config = built("linear", eeg={"ch_positions": places, "ch_positions_frame": "head"}).config
    assert config.eeg_config.ch_positions == places
    assert config.meg_config.ch_positions is None  # a data set of before there was such a key


def test_paper_code_is_what_the_authors_run():
    model = built("paper_code").eval()
    assert float(model.logit_scale.exp()) == pytest.approx(1 / 0.1, rel=1e-6) and not model.logit_scale.requires_grad
    assert model.config.contrastive_direction == "neural_to_image"
    eeg, meg, fmri = (model.encoders[name] for name in ("eeg", "meg", "fmri"))
    assert not any(parameter.requires_grad for e in (eeg, meg, fmri) for parameter in e.alignment.parameters())
    values, ids = recordings("eeg", 3)
    assert torch.equal(eeg.align(values, ids), values)  # no alignment layer
    layers = meg.alignment.layers
    assert layers["sub-01"].kernel_size == (11,) and not torch.equal(layers["sub-01"].weight, layers["sub-02"].weight)
    assert [tuple(p.shape) for p in (*fmri.network.parameters(), model.projections["fmri"].weight)] == [
        (768, 1024), (768,), (12, 768),
    ]  # fmt: skip
    recipe = read_recipe([str(next(path for path in CONFIGS if path.stem == "paper_code"))])
    assert recipe.training_arguments.lr_scheduler_kwargs["mode"] == "max"  # of the accuracy that steers it
    assert recipe.training_arguments.greater_is_better is True


def test_paper_and_paper_code_differ_in_what_they_say(tmp_path):
    paper, code = (
        yaml.safe_load(next(p for p in CONFIGS if p.stem == stem).read_text()) for stem in ("paper", "paper_code")
    )
    assert paper["model"].get("freeze_alignment", False) is False
    for modality in ("eeg", "meg", "fmri"):
        shared = set(paper["model"][modality]) - {"alignment_init"}
        assert {k: paper["model"][modality][k] for k in shared} == {k: code["model"][modality][k] for k in shared}


@pytest.mark.parametrize("modality", ["eeg", "meg", "fmri"])
def test_linear_recipe_is_linear_for_each_subject(modality):
    """f(2x - y) = 2 f(x) - f(y) for every x and y of a subject, and another subject has another map."""
    model = built("linear").eval()
    (x, ids), (y, _) = recordings(modality, 4, seed=1), recordings(modality, 4, seed=2)
    fx, fy, both = (model.encode(modality, values, ids) for values in (x, y, 2 * x - y))
    torch.testing.assert_close(both, 2 * fx - fy, rtol=1e-4, atol=1e-4)
    assert (fx - fy).abs().max() > 0.01
    width = VOXELS["sub-01"] if modality == "fmri" else x.shape[1]
    other = x[:, :width] if modality == "fmri" else x
    padded = torch.zeros_like(x)
    padded[:, :width] = other
    assert (model.encode(modality, padded, 0 * ids) - model.encode(modality, padded, ids)).abs().max() > 0.01
    model.train()  # dropout is the only layer between the subject's map and the projection
    assert [type(m).__name__ for m in model.encoders[modality].network.modules() if not list(m.children())] in (
        ["LinearNet"], ["Dropout"],
    )  # fmt: skip


@pytest.mark.parametrize("name", ["num_train_epochs", "learning_rate", "per_device_train_batch_size", "seed"])
def test_a_word_for_a_number_is_refused_before_anything_is_touched(name):
    recipe = read_recipe(["demo", f"--training.{name}", "ten"])
    with pytest.raises(DataError, match=rf"'training.{name}' parameter\. Allowed is a (whole )?number, but got 'ten'"):
        _ = recipe.training_arguments


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--data=3", "'data' parameter. Allowed is MODALITY=FOLDER, such as eeg=data/mine, but got 3"),
        ("--data={eeg: 3}", "'data.eeg' parameter. Allowed is the name of a folder"),
        ("--data={eeg: ''}", "'data.eeg' parameter. Allowed is the name of a folder"),
        (
            f"--data={{eeg: {'x' * 300}}}",
            "'data.eeg' parameter. Allowed is the name of a folder, of 255 bytes at most",
        ),
        ("--output-dir=[a]", "'training.output_dir' parameter. Allowed is the name of a folder"),
        ('--output-dir="a\\0b"', "'training.output_dir' parameter. Allowed is the name of a folder"),
        (f"--output-dir={'y' * 256}", "'training.output_dir' parameter. Allowed is the name of a folder"),
        ("--model=[1]", "'model' parameter. Allowed is keys with values"),
        ("--model={eeg: 3}", "'model.eeg' parameter. Allowed is keys with values"),
        ("--model={eeg: {dropout: .nan}}", "'model.eeg.dropout' parameter. Allowed is a finite number"),
        ("--model={logit_scale_init_value: .inf}", "'model.logit_scale_init_value' parameter. Allowed is a finite"),
        ("--model={eeg_config: {}}", "'model.eeg_config' is made from the data sets"),
        ("--min-steps=-1", "'min_steps' parameter. Allowed is a whole number from 0 to 100,000, but got -1"),
        ("--min_steps=1.5", "'min_steps' parameter. Allowed is a whole number"),
        ("--min_steps=true", "'min_steps' parameter. Allowed is a whole number"),
        ("--min_steps={eeg: 3}", "'min_steps' parameter. Allowed is a whole number"),
        ("--min_steps=1e6", "'min_steps' parameter. Allowed is a whole number"),
        ("--passes={eeg: true}", "'passes.eeg' parameter. Allowed is a whole number"),
        ("--passes={eeg: 100000000000000000000}", "'passes.eeg' parameter. Allowed is a whole number"),
        ("--training=a", "'training' parameter. Allowed is keys with values"),
        ("--resume=[1]", "'resume' parameter. Allowed is true or false"),
        ("--overwrite=a", "'overwrite' parameter. Allowed is true or false"),
        ("--training.seed=&a [*a]", "'--training.seed' is no valid YAML: it has more than 200,000 values"),
        (
            "--model.eeg={dropout: 0.1, dropout: 0.2}",
            "'--model.eeg' is no valid YAML: it holds the key 'dropout' twice",
        ),
        (f"--training.seed={'[' * 5000}", "'--training.seed' is no valid YAML: it is nested more than 50 deep"),
        ("--training.seed=!!python/none", "'--training.seed' is no valid YAML"),
    ],
)
def test_values_of_a_wrong_kind_are_named(override, message):
    """Every one of these once ended in a traceback, or trained with something else."""
    with pytest.raises(DataError, match=re.escape(message)):
        read_recipe(["demo", override])


def test_a_number_with_an_exponent_may_be_a_whole_one():
    settings = read_recipe(["demo", "--max_steps", "1e3", "--learning_rate", "1e-3"]).training
    assert (settings["max_steps"], type(settings["max_steps"]), settings["learning_rate"]) == (1000, int, 0.001)


@pytest.mark.parametrize("text", ["٣", "１０", "1_0", "0x10", "1:30", "nan", "inf", "²"])
def test_only_the_digits_0_to_9_are_numbers(text, recipe_file):
    """On the command line and in the file; YAML 1.1 reads four of these as 10, 16, 90 and 10."""
    for name in ("seed", "learning_rate"):
        named = rf"'training.{name}' parameter\. Allowed is a (whole )?number, but got '{text}'"
        with pytest.raises(DataError, match=named):
            _ = read_recipe([recipe_file, f"--{name}", text]).training_arguments
    for name in ("min_steps", "folds"):
        with pytest.raises(DataError, match=f"'{name}' parameter.* but got '{text}'"):
            read_recipe([recipe_file, f"--{name}={text}"])
    path = Path(recipe_file)
    path.write_text(path.read_text().replace("learning_rate: 0.1", f"learning_rate: {text}"))
    with pytest.raises(
        DataError, match=rf"'training.learning_rate' parameter\. Allowed is a number, but got '{text}'"
    ):
        _ = read_recipe([recipe_file]).training_arguments


@pytest.mark.parametrize("name", ["eval", "save", "logging"])
def test_the_word_no_is_no_strategy(name):
    off = ["--load_best_model_at_end", "false", f"--{name}_strategy", "no"]
    arguments = read_recipe(["demo", *off, "--use_cpu", "true"]).training_arguments
    assert getattr(arguments, f"{name}_strategy") == "no"


def test_a_recipe_of_python_may_hold_paths_and_choices(tmp_path):
    given = {"output_dir": tmp_path / "out", "eval_strategy": IntervalStrategy.EPOCH, "logging_strategy": False}
    recipe = Recipe(data={"eeg": tmp_path / "eeg"}, training=given | {"use_cpu": True})
    assert recipe.data == {"eeg": str(tmp_path / "eeg")} and given["logging_strategy"] is False
    assert recipe.training_arguments.output_dir == str(tmp_path / "out")
    assert recipe.training_arguments.eval_strategy == "epoch"
    assert recipe.as_dict()["training"]["eval_strategy"] == "epoch"


def test_a_folder_in_place_of_a_recipe_is_named(tmp_path, monkeypatch):
    (tmp_path / "base").mkdir()
    with pytest.raises(DataError, match="is a folder; a recipe is a YAML file, or one of base, demo"):
        read_recipe([str(tmp_path), "--seed", "1"])
    monkeypatch.chdir(tmp_path)  # a recipe of the package stays what it is
    assert read_recipe(["base", "--data", "eeg=a"]).data == {"eeg": "a"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("folds: 1", "Invalid value for the 'folds' parameter"),
        ("unknown: 1", "Unknown key 'unknown'"),
        ("training: {output_dir: x, num_train_epochs: many}", "'training"),
        ("model: {objective: none}", "objective"),
    ],
)
def test_errors_of_a_recipe_name_its_file(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    write_planted(tmp_path / "eeg_set", "eeg")
    whole = {"data": {"eeg": "eeg_set"}, "training": {"output_dir": "x", "use_cpu": True}} | yaml.safe_load(content)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(whole))
    with pytest.raises(DataError, match=rf"{message}.* The recipe is 'mine\.yaml'\.$"):
        main(["train", "mine.yaml"])


def test_an_error_that_names_a_data_set_is_told_as_it_is(recipe_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(DataError, match="'empty") as caught:
        main(["train", recipe_file, "--data", "eeg=empty"])
    assert "The recipe is" not in str(caught.value)
    with pytest.raises(DataError, match=r"no folder 'absent'.*The recipe is '.*recipe\.yaml'"):  # which may name it
        main(["train", recipe_file, "--data", "eeg=absent"])
