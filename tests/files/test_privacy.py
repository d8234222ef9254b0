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
    names = f"{names} AWS_SECRET_ACCESS_KEY password db-passwd credentials DB_PASS DB_PWD GITHUB_PAT WANDB_AUTH"
    for name in f"{names} SENTRY_DSN AZURE_STORAGE_CONNECTION_STRING Authorization AccountKey".split():
        assert is_secret(name), name
    for name in [
        "PGPASSWORD",
        "SSHPASS",
        "AUTHTOKEN",
        "ACCESSTOKEN",
        "SECRETKEY",
        "PRIVATEKEY",
        "SLURM_JWT",
        "hubToken",
        "apiKey",
    ]:
        assert is_secret(name), name
    for name in [
        "SLACK_WEBHOOK_URL",
        "DATABASE_URL",
        "SQLALCHEMY_DATABASE_URI",
        "OAUTH2TOKEN",
        "REDISPASS",
        "clientSecret",
    ]:
        assert is_secret(name), name
    for name in [
        "high_pass",
        "band_pass",
        "lowpass",
        "bypass",
        "min_steps",
        "pad_token",
        "eos_token_id",
        "SSH_ASKPASS",
        "compass",
    ]:
        assert not is_secret(name), name
    for name in ["database_name", "hotkey", "n_tokens", "passed", "keyboard", "author", "SESSION_MANAGER"]:
        assert not is_secret(name), name
    for name in ("PWD", "OLDPWD", "SSH_AUTH_SOCK", "passes", "XAUTHORITY", "PATH", "pattern"):
        assert not is_secret(name), name
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


def test_secrets_of_netrc(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password from-netrc\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert without_secrets("x from-netrc") == "x ***"
    (tmp_path / ".netrc").write_text("machine {{{ password from-netrc\n")
    assert without_secrets("x from-other") == "x from-other"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "***"),
        ("a glpat-abcdefghijklmnop1234 b", "a *** b"),
        ("AKIAIOSFODNN7EXAMPLE", "***"),
        ("{'Authorization': 'Bearer zq-s3cret'}", "{'Authorization': 'Bearer ***'}"),
        ("https://x.example/y?sig=zq-s3cret&a=1", "https://x.example/y?sig=***&a=1"),
        ("Endpoint=x;AccountKey=zq-s3cret", "Endpoint=x;AccountKey=***"),
        ("a basic training of the bearer", "a basic training of the bearer"),
        ("a https://hooks.slack.com/services/T0/B0/xyz b", "a https://hooks.slack.com/*** b"),
        ("https://discord.com/api/webhooks/1/xyz", "https://discord.com/api/webhooks/***"),
        ("postgresql+psycopg2://me:zq-s3cret@host/db", "postgresql+psycopg2://***@host/db"),
        ("https://me:zq/s3cret@host/db", "https://***@host/db"),
        ("https://host:8080/a/b", "https://host:8080/a/b"),
        ("Authorization: Basic enEtczNjcmV0", "Authorization: Basic ***"),
        ('{"api_key":"zq s3cret","n":1}', '{"api_key":"***","n":1}'),
        ("PGPASSWORD='zq s3cret' AUTHTOKEN=zq SLURM_JWT: zq", "PGPASSWORD='***' AUTHTOKEN=*** SLURM_JWT: ***"),
        ("DATABASE_URL=sqlite:///zq-s3cret", "DATABASE_URL=***"),
        ("passes: 3, key: x, high_pass: 0.1, tokenizer: x, token_count: 5",
         "passes: 3, key: x, high_pass: 0.1, tokenizer: x, token_count: 5"),
    ],
)  # fmt: skip
def test_tokens_are_known_by_their_looks(text, shown):
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("host:/srv/anna/set and path:/srv/anna/set", "host:set and path:set"),
        ("at anna@gpu01:/srv/anna/set ssh://anna@gpu01/srv/anna/x", "at set x"),
        (r"C:\Users\anna\x.npy", "x.npy"),
        (r"no C:\Users\anna\x.npy or D:/anna/y here", "no x.npy or y here"),
        (r"'C:\\Users\\anna b\\x.npy' is not there", "'x.npy' is not there"),
        (r"on \\server\share\anna\x.npy", "on x.npy"),
        ("data=/srv/anna/x y/z", "data=z"),
        ("--data eeg=/srv/anna/x y/z --b c=/d/e", "--data eeg=z --b c=e"),
        ("in ~anna/x ~/y file:///srv/anna/z", "in x y z"),
        ("see /srv/anna/x or lab/model", "see x or lab/model"),
        (
            "https://host/a/b s3://bucket/key a/b ~5/10 </b> C: a:b",
            "https://host/a/b s3://bucket/key a/b ~5/10 </b> C: a:b",
        ),
    ],
)
def test_of_places_the_last_part_is_left(text, shown):
    assert shared_text(text) == shown


def test_a_secret_of_a_value_is_hidden_wherever_it_stands_in_it():
    value = {"training": {"hub_token": SECRET, "hub_model_id": f"lab/{SECRET}", "to": [f"x {SECRET}"]}}
    assert SECRET not in str(shared_value(value)) and shared_value(value)["training"]["hub_model_id"] == "lab/***"


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
