"""What the commands write can be shared: no secret, person, machine or place of theirs is in any file."""

import contextlib
import io
import json
import socket
from datetime import UTC, datetime

import mne
import pytest
import yaml

from custom_raw import eeg_manifest, write_manifest
from neural_clip.commands.main import entry, main
from neural_clip.targets.tiny_clip import TINY_CLIP

PERSON, HOST = "jane-q-public", "brain-lab-host-17"
OPTION, RECIPE, VARIABLE, ADDRESS = "zq-option-token", "zq-recipe-token", "zq-variable-token", "zq-address-password"
PLANTED = (PERSON, HOST, OPTION, RECIPE, VARIABLE, ADDRESS, "Zbirthname", "1931-07", "1987, 6", "1987-06")
MODEL = {"eeg": {"hidden_size": 8, "temporal_kernel_size": 3, "n_windows": 2}, "include_vision_tower": True}


def name_the_subject(path):
    """Put a name, a birthday and a date into a file of epochs."""
    epochs = mne.read_epochs(path, verbose="error")
    with epochs.info._unlock():
        subject = {"last_name": "Zbirthname", "birthday": datetime(1931, 7, 4).date(), "his_id": PERSON}
        epochs.info |= {"subject_info": subject, "experimenter": PERSON}
        epochs.info["meas_date"] = datetime(1987, 6, 5, tzinfo=UTC)
    epochs.save(path, overwrite=True, verbose="error")


def text_of(path):
    """Content of a file; that of Parquet files unpacked."""
    if path.suffix != ".parquet":
        return path.read_bytes().decode("latin-1")
    from pyarrow import parquet

    table = parquet.read_table(path)
    texts = [name for name in table.column_names if table.schema.field(name).type not in ("binary",)]
    return f"{table.schema.to_string(show_schema_metadata=True)} {parquet.read_metadata(path)} {table.select(texts)}"


def leaks(folder, *planted):
    """What of the planted words stands in which file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [(word, path.name) for path in files for word in planted if word.lower() in text_of(path).lower()]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Everything that is written on the way from recordings to a report, and what was printed."""
    here = tmp_path_factory.mktemp("private") / PERSON
    here.mkdir()
    printed = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stderr(printed),
        contextlib.redirect_stdout(printed),
    ):
        for name in ("USER", "LOGNAME"):
            patch.setenv(name, PERSON)
        for name in ("HF_TOKEN", "WANDB_API_KEY"):
            patch.setenv(name, VARIABLE)
        patch.setattr(socket, "gethostname", lambda: HOST)
        said = {
            "source": f"https://me:{ADDRESS}@host.example/raw and {here}/raw", "licence": f"see {here}/licence.txt",
            "citation": f"Public, {VARIABLE}", "known_defects": [f"marked by '{here}/marks.py'"],
            "preprocessing": {"script": f"{here}/clean.py", "api_key": OPTION},
        }  # fmt: skip
        manifest, *_ = eeg_manifest(here, splits={"validation": 0.25, "test": 0.25}, **said)
        for subject in (1, 2):
            name_the_subject(here / f"{subject}-epo.fif")
        main(["prepare", "custom", str(write_manifest(here, manifest)), "--output-dir", str(here / "set")])
        main(["embed-images", str(here / "set"), "--model", TINY_CLIP])
        training = {"num_train_epochs": 1, "per_device_train_batch_size": 6, "use_cpu": True, "disable_tqdm": True}
        training |= {"hub_token": RECIPE, "run_name": f"https://me:{ADDRESS}@host.example/x {VARIABLE}"}
        recipe = {"model": MODEL, "training": training}
        (here / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        data = ["--data", f"eeg={here / 'set'}"]
        words = [str(here / "recipe.yaml"), *data, "--output-dir", str(here / "trained"), "--save_steps", "1"]
        main(["train", *words, "--save_strategy", "steps", "--eval_strategy", "steps", "--eval_steps", "1",
              "--training.hub_token", OPTION])  # fmt: skip
        scored = ["--checkpoint", str(here / "trained"), *data, "--output-dir", str(here / "scored")]
        main(["evaluate", *scored])
    return here, printed.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["set", "trained", "scored"])
def test_files_hold_nothing_of_those_who_made_them(written, folder):
    here, _ = written
    assert leaks(here / folder, *PLANTED, str(here), str(here.parent)) == []


@pytest.mark.slow
def test_what_is_printed_holds_no_secret(written):
    _, printed = written
    assert [secret for secret in (OPTION, RECIPE, VARIABLE, ADDRESS) if secret in printed] == []


@pytest.mark.slow
def test_planted_words_are_found_where_they_stand(written, tmp_path):
    """So that the search above could fail."""
    here, _ = written
    assert {word for word, _ in leaks(here, *PLANTED)} >= {PERSON, RECIPE, ADDRESS, "Zbirthname"}


@pytest.mark.slow
def test_records_say_what_was_run(written):
    here, _ = written
    record = json.loads((here / "trained" / "training.json").read_text())
    assert "recipe.yaml --data eeg=set --output-dir trained" in record["command"]
    assert record["command"].endswith("--training.hub_token '***'")
    assert record["recipe"]["training"]["hub_token"] == "***"
    assert record["recipe"]["training"]["run_name"] == "https://***@host.example/x ***"
    assert record["recipe"]["data"] == {"eeg": "set"} and record["recipe"]["training"]["output_dir"] == "trained"
    report = json.loads((here / "scored" / "report.json").read_text())
    assert report["command"] == "neural-clip evaluate --checkpoint trained --data eeg=set --output-dir scored"
    assert report["data"]["eeg"]["folder"] == "../set" and report["checkpoints"][0]["path"] == "../trained"
    assert (here / "scored" / "pictures" / "decoding.png").is_file()


@pytest.mark.slow
def test_what_a_manifest_says_is_kept_without_secrets_and_places(written):
    here, _ = written
    facts = json.loads((here / "set" / "neural_clip.json").read_text())
    assert facts["source"] == "https://***@host.example/raw and raw" and facts["licence"] == "see licence.txt"
    assert facts["citation"] == "Public, ***" and facts["known_defects"] == ["marked by 'marks.py'"]
    assert facts["preprocessing"]["script"] == "clean.py" and facts["preprocessing"]["api_key"] == "***"


@pytest.mark.slow
def test_no_pickle_of_the_arguments_is_written(written):
    here, _ = written
    names = {path.name for path in (here / "trained").rglob("*")}
    assert "trainer_state.json" in names and "training_args.bin" not in names


@pytest.mark.parametrize(
    "words",
    [
        ["--training.hub_token", OPTION, "--training.hub_tokn", "1"],
        [f"--hub_token={OPTION}", "--learning_rate", "fast"],
        ["-hub_token", OPTION],
        ["--hub_token", OPTION, OPTION],
        ["--training", f"{{hub_token: {OPTION}, learning_rte: 3}}"],
        ["--hub_token", f"[{OPTION}"],
    ],
)
def test_errors_do_not_repeat_a_secret(tmp_path, monkeypatch, capsys, words):
    (tmp_path / "recipe.yaml").write_text(f"data: {{eeg: none}}\ntraining: {{output_dir: out, hub_token: {RECIPE}}}\n")
    monkeypatch.setattr("sys.argv", ["neural-clip", "train", str(tmp_path / "recipe.yaml"), *words])
    with pytest.raises(SystemExit) as stop:
        entry()
    told = capsys.readouterr().err
    assert stop.value.code == 2 and "error: " in told
    assert OPTION not in told and RECIPE not in told


def test_errors_of_a_recipe_do_not_repeat_its_secrets(tmp_path, monkeypatch, capsys):
    for text in (f"training:\n  hub_token: [{RECIPE}\n", f'training: {{"hub_token": "{RECIPE}"\n'):
        (tmp_path / "recipe.yaml").write_text(text)
        monkeypatch.setattr("sys.argv", ["neural-clip", "train", str(tmp_path / "recipe.yaml")])
        with pytest.raises(SystemExit):
            entry()
        told = capsys.readouterr().err
        assert "recipe.yaml' is no readable recipe" in told and RECIPE not in told
