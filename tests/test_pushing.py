"""`push_to_hub` in the usual Python way is held to the rules of `neural-clip push`, against a Hub on this machine."""

import copy
import importlib.util
import json

import pytest
import torch
import yaml
from safetensors.torch import load

from hostile_names import HOSTILE, structure
from loopback_hub import LoopbackHub
from neural_clip import NeuralClipConfig, NeuralClipModel, NeuralClipProcessor
from neural_clip.checkpoint_card import MARK, card_text
from neural_clip.errors import DataError
from neural_clip.markup import one_line
from neural_clip.modeling_eeg import EegEncoder
from neural_clip.preparation import Preparation
from small_models import SUBJECTS, small_config

REPO = "lab/model"
CODE = {"configuration_neural_clip.py", "pushing.py", "terms.py", "checkpoint_card.py", "markup.py", "errors.py"}
DATA = {
    "eeg": {"corpus": "mine", "redistribution": "allowed", "licence": "CC0-1.0", "subjects": SUBJECTS},
    "meg": {"corpus": "things", "redistribution": "allowed", "licence": "CC-BY-4.0", "simulated": True},
    "fmri": {"corpus": "nsd", "redistribution": "forbidden", "licence": "NSD Terms", "terms": "Agreed by all."},
}
ALLOWED = {"fmri": {"corpus": "own", "redistribution": "allowed", "licence": "mit"}}
STEPS = Preparation(unit="V", scaling="z-score", scope="session", bands=[[0.1, 40.0]], baseline=[-0.2, 0.0],
                    reference="as recorded")  # fmt: skip


@pytest.fixture
def hub(monkeypatch):
    with LoopbackHub() as served:
        served.stand_in(monkeypatch)
        yield served


def make_model(**data):
    """A model that learnt from [`DATA`], or from others by modality; `None` where nobody knows from what."""
    config = small_config(vision_model_name="some/clip")
    for modality, entry in (DATA | data).items():
        getattr(config, f"{modality}_config").trained_on = None if entry is None else [entry]
    torch.manual_seed(0)
    return NeuralClipModel(config).eval()


def make_processor(model):
    return NeuralClipProcessor.from_config(model.config, None, {"eeg": STEPS, "meg": STEPS})


def things_of(model):
    """Everything that has `push_to_hub`, alone."""
    yield from (model, model.config, make_processor(model), model.encoders["fmri"], model.config.fmri_config)


def card_of(repository):
    return repository["files"]["README.md"].decode()


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_model_and_processor_arrive_private_with_code_and_a_whole_card(hub):
    model = make_model()
    commit = model.push_to_hub(REPO)
    assert commit.commit_url.startswith(hub.endpoint)
    make_processor(model).push_to_hub(REPO, commit_message="and its processor")
    repository = hub.repositories["model", REPO]
    assert repository["private"] is True and repository["messages"] == ["Upload model", "and its processor"]
    files = repository["files"]
    assert {*CODE, "model.safetensors", "processor_config.json", "processing_neural_clip.py"} <= files.keys()
    assert json.loads(files["config.json"])["auto_map"]["AutoModel"] == "modeling_neural_clip.NeuralClipModel"
    assert json.loads(files["processor_config.json"])["trained_on"] == {name: [DATA[name]] for name in DATA}
    stored = load(files["model.safetensors"])
    assert all(torch.equal(stored[name], tensor) for name, tensor in model.state_dict().items())
    text = card_of(repository)
    assert front_matter(text) == {
        "library_name": "neural_clip", "pipeline_tag": "feature-extraction", "license": "other",
        "license_name": "terms-of-the-training-data",
        "tags": ["neural_clip", "clip", "eeg", "meg", "fmri", "simulated"],
    }  # fmt: skip
    expected = [
        f"# {REPO}\n", 'pip install torch "transformers', f'AutoModel.from_pretrained("{REPO}", trust_',
        f'AutoProcessor.from_pretrained("{REPO}"', 'processor(eeg=recordings, subject="sub-01")', "(batch_size, 12)",
        "- EEG: 5 channels, 100 samples at 250 Hz, 0 to 0.396 s from image onset. Unit as recorded: V; band: 0.1 to "
        "40 Hz; baseline: -0.2 to 0 s; reference: as recorded; scaling: z-score by session.",
        "- MEG: 5 channels, 90 samples at 120 Hz, -0.5 to 0.2417 s", "(`some/clip`, 12 dimensions)",
        "- fMRI: voxels of the region of interest: sub-01 20, sub-02 31, sub-03 25. What they went through be",
        "- EEG: mine, subjects sub-01, sub-02, sub-03", "- MEG: things (**simulated**, nobody was recorded)",
        "  - redistribution of the data: forbidden\n  - their licence: NSD Terms\n  - consent and terms: Agreed by",
        "Weights: the terms of the data they learnt from.", "may find out by it that this person took part",
    ]  # fmt: skip
    assert [part for part in expected if part not in text] == []


@pytest.mark.parametrize("number", range(5))
def test_what_learnt_from_data_that_must_not_spread_is_never_public(hub, tmp_path, number):
    unknown = (make_model(fmri=None), r"redistribution of the training data \(fmri\) is not recorded")
    for model, reason in ((make_model(), r"redistribution of nsd \(fmri\) is forbidden"), unknown):
        thing = list(things_of(model))[number]
        with pytest.raises(DataError, match=rf"This {type(thing).__name__} must not become public: .*{reason}"):
            thing.push_to_hub(REPO, private=False)
        with pytest.raises(DataError, match="must not become public"):
            thing.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id=REPO, private=False)
        assert hub.requests == [] and not (tmp_path / "saved").exists()
        hub.add("model", REPO, private=False)
        for private in (None, True, False):
            with pytest.raises(DataError, match="must not become public"):
                thing.push_to_hub(REPO, private=private)
        assert all(method == "GET" for method, _ in hub.requests)
        hub.repositories.clear(), hub.requests.clear()
        thing.push_to_hub(REPO)
        (repository,) = hub.repositories.values()
        assert repository["private"] is True and "README.md" in repository["files"]
        hub.repositories.clear(), hub.requests.clear()


def test_what_may_be_public_is_when_asked(hub):
    model = make_model(**ALLOWED)
    model.push_to_hub(REPO, private=False)
    repository = hub.repositories["model", REPO]
    assert repository["private"] is False and front_matter(card_of(repository))["license"] == "apache-2.0"
    with pytest.raises(DataError, match=r"exists and is public\. If that is meant, pass private=False"):
        make_processor(model).push_to_hub(REPO)
    make_processor(model).push_to_hub(REPO, private=False)
    hub.add("model", "lab/closed", private=True)
    with pytest.raises(DataError, match=r"exists and is private\. If that is meant, leave private=False away"):
        model.push_to_hub("lab/closed", private=False)
    hub.add("model", "lab/other", private=True, files={"pictures.zip": b"x"})
    with pytest.raises(ValueError, match=r"exists and holds something else \(pictures.zip"):
        model.push_to_hub("lab/other")


@pytest.mark.parametrize(
    ("licences", "expected"),
    [(["cc-by-nc-4.0", "CC0-1.0"], "cc-by-nc-4.0"), (["cc-by-nc-4.0", "cc-by-sa-4.0"], "other"), ([None], "other"),
     (["mit", "CC-BY-4.0"], "apache-2.0"), (["Ask the author."], "other")],
)  # fmt: skip
def test_the_licence_is_one_that_the_data_allow(licences, expected):
    entries = [{"corpus": f"c{i}", "redistribution": "allowed", "licence": name} for i, name in enumerate(licences)]
    config = small_config().to_dict()
    for modality in DATA:
        config[f"{modality}_config"]["trained_on"] = entries
    assert front_matter(card_text(REPO, config, None))["license"] == expected
    entries[-1]["redistribution"] = "forbidden"
    assert front_matter(card_text(REPO, config, None))["license"] == "other"


@pytest.mark.parametrize("way", ["by name", "by place"])
def test_saving_and_pushing_at_once(hub, tmp_path, way):
    model = make_model()
    processor, changed = make_processor(model), {name: tensor + 1 for name, tensor in model.state_dict().items()}
    folder, options = tmp_path / "model", {"repo_id": REPO, "commit_message": "both"}
    if way == "by name":
        model.save_pretrained(folder, state_dict=changed, push_to_hub=True, max_shard_size="2KB", **options)
        processor.save_pretrained(folder, push_to_hub=True, **options)
    else:
        model.save_pretrained(folder, True, changed, True, "2KB", **options)
        processor.save_pretrained(folder, True, **options)
    repository = hub.repositories["model", REPO]
    assert repository["private"] is True and repository["messages"] == ["both", "both"]
    arrived = {
        name: content for name, content in repository["files"].items() if name not in (".gitattributes", "README.md")
    }
    assert arrived == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len([name for name in arrived if name.endswith(".safetensors")]) > 2
    again = NeuralClipModel.from_pretrained(folder)
    assert torch.equal(again.logit_scale, model.logit_scale + 1)
    model.save_pretrained(tmp_path / "second", is_main_process=False, push_to_hub=True, repo_id="lab/second")
    assert ("model", "lab/second") not in hub.repositories
    model.config.save_pretrained(tmp_path / "named", push_to_hub=True, token="hf_none")  # in whose namespace
    assert hub.repositories["model", "lab/named"]["private"] is True


def test_a_second_push_leaves_nothing_that_tells_of_other_weights(hub):
    model = make_model()
    model.push_to_hub(REPO, max_shard_size="2KB", tags=["first"])
    files = hub.repositories["model", REPO]["files"]
    assert len([name for name in files if name.endswith(".safetensors")]) > 1 and b"- first" in files["README.md"]
    files |= {"training.json": b"{}", ".eval_results/mine.yaml": b"[]", "notes.txt": b"x"}
    full = files["README.md"] = f"---\nlicense: mit\n---\n{MARK}\n# Scores\n".encode()
    model.config.push_to_hub(REPO)  # the same as before
    assert files["README.md"] == full and "training.json" in files
    other = make_model().config
    other.projection_dim += 1
    for push in (other.push_to_hub, make_processor(model).push_to_hub):  # what the record does not tell of
        push(REPO)
        assert b"Scores\n\nNone were pushed" in files["README.md"] and "model.safetensors.index.json" in files
        assert not files.keys() & {"training.json", ".eval_results/mine.yaml"}
        files |= {"training.json": b"{}", ".eval_results/mine.yaml": b"[]", "README.md": full}
        push(REPO)  # the same once more
        assert files["README.md"] == full and "training.json" in files
    model.push_to_hub(REPO)
    assert [name for name in files if name.endswith(".safetensors")] == ["model.safetensors"]
    assert not files.keys() & {"training.json", ".eval_results/mine.yaml", "model.safetensors.index.json"}
    assert b"Scores\n\nNone were pushed" in files["README.md"] and files["notes.txt"] == b"x"
    files["README.md"] = b"---\nlicense: mit\n---\nMy own words.\n"
    model.push_to_hub(REPO)
    assert files["README.md"].endswith(b"My own words.\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a":' * 3000 + "1" + "}" * 3000, "it is nested more than 50 deep"),
        ("[]", "it is no JSON object"),
        ("{", "Expecting"),
        (b"\xff{}", "decode"),
    ],
)
def test_a_repository_whose_configuration_is_damaged_is_named(hub, content, message):
    model = make_model()
    model.push_to_hub(REPO)
    files = hub.repositories["model", REPO]["files"]
    files["config.json"] = content if isinstance(content, bytes) else content.encode()
    del files["README.md"]
    with pytest.raises(DataError, match=rf"'config\.json' of '{REPO}' is damaged, so no card .*{message}"):
        make_processor(model).push_to_hub(REPO)


def test_a_branch_is_pushed_to_and_the_first_one_stays(hub):
    model = make_model()
    model.push_to_hub(REPO)
    repository = hub.repositories["model", REPO]
    before = dict(repository["files"])
    with torch.no_grad():
        model.logit_scale.sub_(1.0)
    model.push_to_hub(REPO, revision="next")
    assert repository["files"] == before
    assert repository["branches"]["next"]["model.safetensors"] != before["model.safetensors"]


def test_an_encoder_alone_has_a_card_of_its_own(hub):
    model = make_model()
    model.encoders["eeg"].push_to_hub(REPO)
    text = card_of(hub.repositories["model", REPO])
    assert "Maps EEG recordings" in text and "model(**inputs).pooler_output" in text and "nsd" not in text
    assert front_matter(text)["license"] == "apache-2.0"
    assert type(model.encoders["eeg"]) is EegEncoder
    hub.repositories.clear()
    model.encoders["eeg"].push_to_hub(REPO, private=False)  # of the others' terms it is free
    assert hub.repositories["model", REPO]["private"] is False


def test_of_two_terms_for_one_corpus_the_stricter_holds():
    model, entry = make_model(**ALLOWED), DATA["eeg"]
    for terms in (["forbidden", "allowed"], ["allowed", "forbidden"], ["allowed", None]):
        model.config.eeg_config.trained_on = [entry | {"redistribution": term} for term in terms]
        with pytest.raises(DataError, match=r"redistribution of mine \(eeg\) is"):
            model.push_to_hub(REPO, private=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [({"redistribution": "alowed"}, r"trained_on\.redistribution.*Did you mean 'allowed'"),
     ({"corpus": 3}, r"trained_on\.corpus"), ({"redistribution": True}, r"trained_on\.redistribution"),
     ({"licences": "x"}, r"trained_on.*Did you mean 'licence'"), ({"simulated": "no"}, r"trained_on\.simulated"),
     ("corpus", r"trained_on\.corpus"), ("redistribution", r"trained_on\.redistribution"),
     ("list", r"trained_on.*a list with a dictionary"), ("text", r"trained_on.*a list with a dictionary")],
)  # fmt: skip
def test_terms_that_are_none_are_refused_when_loaded(tmp_path, damage, message):
    model = make_model()
    make_processor(model).save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    entry = copy.deepcopy(DATA["eeg"])
    if isinstance(damage, dict):
        entry |= damage
    else:
        entry.pop(damage, None)
    entries = {"list": [[]], "text": "allowed"}.get(damage if isinstance(damage, str) else "", [entry])
    for name, part in (("config.json", "eeg_config"), ("processor_config.json", None)):
        stored = json.loads((tmp_path / name).read_text())
        (stored[part] if part else stored)["trained_on"] = entries if part else {"eeg": entries}
        (tmp_path / name).write_text(json.dumps(stored))
    for kind in (NeuralClipModel, NeuralClipProcessor):
        with pytest.raises(ValueError, match=message):
            kind.from_pretrained(tmp_path)


def test_a_checkpoint_that_says_nothing_of_terms_is_unknown_not_free(hub, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    make_processor(model).save_pretrained(tmp_path)
    for name in ("config.json", "processor_config.json"):  # as earlier versions wrote them
        stored = json.loads((tmp_path / name).read_text())
        for part in (stored, *stored.values()):
            if isinstance(part, dict):
                part.pop("trained_on", None)
        (tmp_path / name).write_text(json.dumps(stored))
    for thing in (NeuralClipModel.from_pretrained(tmp_path), NeuralClipProcessor.from_pretrained(tmp_path)):
        with pytest.raises(DataError, match=r"training data \(eeg\), .* is not recorded"):
            thing.push_to_hub(REPO, private=False)
        thing.push_to_hub(REPO)
    assert "redistribution of the data: not recorded" in card_of(hub.repositories["model", REPO])


@pytest.mark.parametrize("files", [(NeuralClipConfig(), None), (None, NeuralClipProcessor())])
def test_what_has_no_modality_yet_has_a_card(files):
    text = card_text("lab/empty", *(part and part.to_dict() for part in files))
    assert "Maps no recordings yet" in text and "## Use" not in text and "license: other" in text


def test_names_are_text_in_the_card_whatever_they_hold():
    def card(name):
        config = small_config(vision_model_name=name).to_dict()
        entry = DATA["eeg"] | {"corpus": name, "licence": name, "terms": name, "subjects": [name, "b"]}
        for modality in DATA:
            config[f"{modality}_config"]["trained_on"] = [entry]
        config["eeg_config"] |= {"ch_names": [name] * 5, "subjects": [name]}
        steps = vars(STEPS) | {"unit": name, "reference": name}
        groups = {"eeg": [{"subjects": [name], "preparation": steps}]}
        text = card_text(REPO, config, {"recordings": groups})
        assert front_matter(text)["license"] == "other"
        return structure(text.split("---\n", 2)[2])

    plain, _ = card("name")
    for name in filter(one_line, HOSTILE):
        found, text = card(name)
        assert found == plain and text.count(one_line(name)) >= 4, name


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
def test_an_adapter_is_pushed_by_the_same_rules(hub):
    from peft import LoraConfig

    model = make_model()
    model.add_adapter(LoraConfig(r=2, target_modules=["projections.eeg"]))
    with pytest.raises(DataError, match="must not become public"):
        model.push_to_hub(REPO, private=False)
    for _ in range(2):
        model.push_to_hub(REPO)
    repository = hub.repositories["model", REPO]
    assert repository["private"] is True and "adapter_model.safetensors" in repository["files"]
    assert "redistribution of the data: forbidden" in card_of(repository)
