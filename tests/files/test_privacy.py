"""Texts that may be shared hold no secret and no place of this machine, and keep everything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neural_clip.errors import DataError
from neural_clip.files.privacy import (
    is_secret,
    no_secrets_told,
    shared_command,
    shared_place,
    shared_text,
    shared_value,
    without_secrets,
)

SECRET = "zq-s3cret"


def test_names_of_secrets_are_told_from_others():
    names = "hub_token --training.hub_token HF_TOKEN HUGGING_FACE_HUB_TOKEN WANDB_API_KEY COMET_API_KEY apikey --key"
    for name in f"{names} AWS_SECRET_ACCESS_KEY password db-passwd credentials".split():
        assert is_secret(name), name
    for name in ("tokenizer", "TOKENIZERS_PARALLELISM", "include_num_input_tokens_seen", "monkey", "image_keys"):
        assert not is_secret(name), name


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["a", "--hub_token", SECRET, "--x", "1"], "a --hub_token '***' --x 1"),
        (["--hub-token", "T"], "--hub-token '***'"),
        ([f"--training.hub_token={SECRET}"], "'--training.hub_token=***'"),
        (["--training", f"{{hub_token: {SECRET}, seed: 1}}"], "--training '{hub_token: ***, seed: 1}'"),
        (["--a", f"https://me:{SECRET}@host/x", f"https://host/?token={SECRET}&a=b"],
         "--a 'https://***@host/x' 'https://host/?token=***&a=b'"),
        (["--run_name", "hf_abcdefghijklmnop"], "--run_name '***'"),
        (["--hub_token", SECRET, "--run_name", f"run-{SECRET}"], "--hub_token '***' --run_name 'run-***'"),
        (["/srv/jane/r.yaml", "--data", "eeg=/data/jane doe/eeg", "meg=data/meg"],
         "r.yaml --data eeg=eeg meg=data/meg"),
        (["--output-dir=../../srv/jane/x", "~/y", "file:///srv/jane/z"], "--output-dir=x y z"),
        (["--data", '{eeg: /srv/jane/eeg, "meg": "/srv/jane doe/meg"}'], """--data '{eeg: eeg, "meg": "meg"}'"""),
        (["configs/base.yaml", "1e-3", "lab/model", "a/b=c", "-1.5", "/"],
         "configs/base.yaml 1e-3 lab/model a/b=c -1.5 /"),
    ],
)  # fmt: skip
def test_commands(words, shown):
    assert shared_command("neural-clip train", words) == f"neural-clip train {shown}"


def test_secrets_of_the_surroundings(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setenv("SOME_API_KEY", "from-environment")
    monkeypatch.setenv("SHORT_TOKEN", "true")  # found in too many words to be looked for
    (tmp_path / "token").write_text("from-its-file")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    assert without_secrets("from-environment, from-its-file, true") == "***, ***, true"


def test_values_keep_their_form():
    value = {"training": {"hub_token": "T", "seed": 1, "push_token": None, "lr": 1e-3, "to": ["/a/b c", True]}}
    assert shared_value(value) == {
        "training": {"hub_token": "***", "seed": 1, "push_token": None, "lr": 1e-3, "to": ["b c", True]}
    }


@given(st.text(alphabet="ab_ :=,.'\"{}[]()-+*#%0", max_size=30))
def test_other_text_stays_as_it_is(text):
    assert shared_text(text) == text and shared_text(shared_text(f"/{text}")) == shared_text(f"/{text}")


def test_places_are_told_from_the_folder_beside_them(tmp_path):
    out = tmp_path / "out"
    assert shared_place(tmp_path / "eeg", out) == "../eeg" and shared_place(out / "data" / "eeg", out) == "data/eeg"
    assert shared_place("/srv/jane/eeg", out) == "eeg" == shared_place("~/eeg", out)
    assert shared_place("data/eeg", out) == "data/eeg" and shared_place("lab/eeg", out) == "lab/eeg"


def test_errors_are_told_without_secrets_and_others_stay_what_they_are():
    words = ["--hub_token", SECRET]
    with pytest.raises(DataError, match=r"^no \*\*\* here$") as told, no_secrets_told(words):
        raise RuntimeError(f"no {SECRET} here")
    assert told.value.__cause__ is None and told.value.__suppress_context__
    with pytest.raises(KeyError, match="x"), no_secrets_told(words):
        raise KeyError("x")
