"""What this project writes loads through the Auto classes, in whatever order packages are imported and without ours.

Each order is a process of its own, since an import happens once.
"""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModel

import second_process
from neural_clip import EegConfig, NeuralClipConfig, NeuralClipModel, NeuralClipProcessor
from neural_clip.errors import DataError
from neural_clip.preparation import Preparation, Statistics
from neural_clip.publishing.push import own_files, recorded_files
from neural_clip.registration import MODELS, LateClasses
from paths import REPOSITORY
from planted_data import ENCODER, write_planted
from second_process import TORCH, TRANSFORMERS

AUTO = "from transformers import AutoConfig, AutoModel, AutoProcessor\n"
ORDERS = {
    "ours first": "import neural_clip\n" + AUTO,
    "ours last": AUTO + "import neural_clip\n",
    "ours after transformers itself": "import transformers\nimport neural_clip\n" + AUTO,
    "ours between the Auto classes": "from transformers import AutoConfig\nimport neural_clip\n" + AUTO,
    "our configurations first": "import neural_clip.configuration_neural_clip\n" + AUTO,
    "our model first": "from neural_clip.modeling_neural_clip import NeuralClipModel\n" + AUTO,
    "our training first": "from neural_clip.training import train\n" + AUTO,
    "our errors first": "from neural_clip.errors import DataError\n" + AUTO,
}
PIPELINE_ORDERS = {
    "ours first": "import neural_clip\nfrom transformers import pipeline\n",
    "ours last": "from transformers import pipeline\nimport neural_clip\n",
}
# Stands for a machine where the package is not installed.
WITHOUT_OURS = "import sys\nsys.modules['neural_clip'] = None\n" + AUTO
# Loads each folder in every way and writes weights and outputs beside it.
READ = """
import json, os, sys
import torch
from safetensors.torch import load_file, save_file
trust = {"trust_remote_code": True} if sys.argv[1] == "trust" else {}
found = {}
for folder in sys.argv[2:]:
    processor = None
    if os.path.exists(folder + "/processor_config.json"):
        processor = AutoProcessor.from_pretrained(folder, **trust)
    config = AutoConfig.from_pretrained(folder, **trust)
    model = AutoModel.from_pretrained(folder, **trust)
    found[folder] = [type(item).__name__ for item in (config, model, processor)]
    found[folder] += [type(item).__module__.split(".")[0] for item in (config, model, processor)]
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder + ".weights")
    outputs = {}
    for name, value in load_file(folder + ".inputs").items():
        with torch.no_grad():
            output = model.eval()(**{name: value, "subject_ids": torch.tensor([0, 1, 0])})
        outputs[name] = (output.neural_embeds if "neural_embeds" in output else output.pooler_output).contiguous()
    save_file(outputs, folder + ".outputs")
print(json.dumps(found))
"""
# Writes a model, its processor and its encoders, each in a folder of its own.
WRITE = """
import sys
import neural_clip
import torch
from neural_clip import EegConfig, FmriConfig, MegConfig, NeuralClipConfig, NeuralClipModel, NeuralClipProcessor
people = ["sub-01", "sub-02"]
sensors = {"n_chans": 5, "n_times": 20, "subjects": people, "hidden_size": 4, "temporal_kernel_size": 5}
sensors |= {"n_windows": 4}
config = NeuralClipConfig(
    eeg_config=EegConfig(sfreq=100.0, **sensors), meg_config=MegConfig(**sensors), projection_dim=8,
    fmri_config=FmriConfig(subjects=people, n_voxels={"sub-01": 9, "sub-02": 9}, alignment_size=8, hidden_size=8),
)
torch.manual_seed(0)
model = NeuralClipModel(config)
model.save_pretrained(sys.argv[1] + "/model")
NeuralClipProcessor.from_config(config).save_pretrained(sys.argv[1] + "/model")
for name, encoder in model.encoders.items():
    encoder.save_pretrained(sys.argv[1] + "/" + name)
"""


def python(*arguments, fails=False):
    """In a process that imports everything itself."""
    done = subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert (done.returncode != 0) == fails, done.stderr[-3000:]
    return done


def second_python(*arguments, libraries=TORCH):
    """In a process that has imported torch, and by itself imports transformers and ours."""
    done = second_process.python(*arguments, cwd=REPOSITORY, libraries=libraries)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders written by `save_pretrained` in a process that imported ours first."""
    root = tmp_path_factory.mktemp("saved")
    second_python("-c", WRITE, root)
    return [give_inputs(root / name) for name in ("model", "eeg", "meg", "fmri")]


def give_inputs(folder):
    """Write what the model of a folder can be given beside the folder, which is returned."""
    config = json.loads((folder / "config.json").read_text())
    parts = {name: config.get(f"{name}_config") for name in ("eeg", "meg", "fmri")}
    if config["model_type"] != "neural_clip":
        parts = {config["model_type"].removeprefix("neural_clip_"): config}
    generator, inputs = torch.Generator().manual_seed(1), {}
    for name, part in parts.items():
        if part is not None and name != "fmri":
            inputs[f"{name}_values"] = torch.randn(3, part["n_chans"], part["n_times"], generator=generator)
        elif part is not None:
            counts = [part["n_voxels"][part["subjects"][row]] for row in (0, 1, 0)]
            values = [torch.randn(count, generator=generator) for count in counts]
            inputs["fmri_values"] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
    save_file(inputs, f"{folder}.inputs")
    return folder


def check_code(folder):
    """A folder names the code that loads it and holds it."""
    config = json.loads((folder / "config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel"}
    if (folder / "processor_config.json").is_file():
        named = json.loads((folder / "processor_config.json").read_text())["auto_map"]
        assert named == {"AutoProcessor": "processing_neural_clip.NeuralClipProcessor"}
    sources = {path.name: path for path in (REPOSITORY / "src" / "neural_clip").glob("*.py")}
    code = sorted(folder.glob("*.py"))
    assert {path.name for path in code} >= {"configuration_neural_clip.py"}
    for path in code:
        assert path.read_bytes() == sources[path.name].read_bytes()


def check_read(order, folders):
    """Load folders in one more process: the classes, the weights bit for bit, the outputs."""
    trust = "trust" if order == WITHOUT_OURS else "no"
    found = json.loads(second_python("-c", order + READ, trust, *folders).stdout)
    assert list(found) == [str(folder) for folder in folders]
    for folder in folders:
        config = json.loads((folder / "config.json").read_text())
        processor = (folder / "processor_config.json").is_file()
        names = [config["auto_map"][auto].split(".")[1] for auto in ("AutoConfig", "AutoModel")]
        assert MODELS[names[0]] == names[1]
        home = "neural_clip" if trust == "no" else "transformers_modules"
        expected = [*names, "NeuralClipProcessor"] if processor else [*names, "NoneType"]
        assert found[str(folder)] == [*expected, home, home, home if processor else "builtins"]
        model = AutoModel.from_pretrained(folder).eval()
        weights, outputs = load_file(f"{folder}.weights"), load_file(f"{folder}.outputs")
        state = load_file(folder / "model.safetensors")
        assert weights.keys() == state.keys()
        assert all(torch.equal(weights[name], value) for name, value in state.items())
        inputs = load_file(f"{folder}.inputs")
        assert inputs.keys() == outputs.keys() and inputs
        for name, value in inputs.items():
            with torch.no_grad():
                output = model(**{name: value, "subject_ids": torch.tensor([0, 1, 0])})
            wanted = output.neural_embeds if "neural_embeds" in output else output.pooler_output
            torch.testing.assert_close(outputs[name], wanted, rtol=1e-5, atol=1e-6)


def test_what_is_saved_names_and_holds_its_code(saved):
    for folder in saved:
        check_code(folder)


@pytest.mark.slow
@pytest.mark.parametrize("order", [*ORDERS.values(), WITHOUT_OURS], ids=[*ORDERS, "without ours"])
def test_what_is_saved_loads_in_every_order(saved, order):
    check_read(order, saved)


def test_statistics_reach_a_process_without_ours(tmp_path):
    """What recordings went through is done again where the package is not installed."""
    config = NeuralClipConfig(eeg_config=EegConfig(n_chans=2, n_times=4, subjects=["sub-01"]))
    arrays = Statistics("sub-01", "", np.array([1e-5, 2e-5]), np.array([2e-5, 4e-5])).arrays()
    preparation = Preparation(unit="V", scaling="z-score", scope="subject", baseline=None)
    folder = tmp_path / "processor"
    NeuralClipProcessor.from_config(config, None, {"eeg": preparation}, {"eeg": arrays}).save_pretrained(folder)
    (folder / "config.json").write_text(config.to_json_string())
    script = WITHOUT_OURS + (
        "import numpy as np\n"
        "processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "values = np.arange(8).reshape(2, 4) * 10.0\n"
        "print(processor(eeg=values, subject='sub-01', unit='uV')['eeg_values'].tolist())\n"
    )
    found = json.loads(second_python("-c", script, folder).stdout.splitlines()[-1])
    values = np.arange(8).reshape(2, 4) * 1e-5
    expected = (values - [[1e-5], [2e-5]]) / [[2e-5], [4e-5]]
    np.testing.assert_allclose(found, expected[None], rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Prepared sets of three people, of whom the recipe below takes two."""
    root = tmp_path_factory.mktemp("prepared")
    options = {"n_subjects": 3, "pixels": False, "encoder": ENCODER | {"pooling": "precomputed"}}
    return {name: str(write_planted(root / name, name, **options)) for name in ("eeg", "fmri")}


@pytest.fixture(scope="module")
def recipe(data, tmp_path_factory):
    people = {"subjects": ["sub-01", "sub-02"]}
    model = {
        "eeg": {"hidden_size": 4, "temporal_kernel_size": 3, "n_windows": 5} | people,
        "fmri": {"alignment_size": 8, "hidden_size": 8, "n_voxels": {"sub-01": 50, "sub-02": 57}} | people,
    }
    training = {"num_train_epochs": 2, "per_device_train_batch_size": 16, "save_total_limit": 1}
    training |= {"use_cpu": True, "disable_tqdm": True, "seed": 5}
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(yaml.safe_dump({"data": data, "model": model, "training": training}))
    return str(path)


def adapt(checkpoint, data, output):
    options = ["--data", f"eeg={data['eeg']}", "--epochs", "1", "--output-dir", str(output)]
    words = ["-m", "neural_clip.commands.main", "adapt", "--checkpoint", checkpoint, *options]
    second_python(*words, libraries=TRANSFORMERS)
    return output


@pytest.fixture(scope="module")
def trained(recipe, data, tmp_path_factory):
    """Checkpoints as the commands write them: the last intermediate one of each run beside the one that is kept."""
    root = tmp_path_factory.mktemp("trained")
    launchers = {
        "program": ["train.py"],
        "demo": ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "train.py"],
        "two processes": [
            *["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29519", "train.py"]
        ],
        "command": ["-m", "neural_clip.commands.main", "train"],
    }
    folders = []
    for name, launcher in launchers.items():
        second_python(*launcher, recipe, "--output_dir", root / name, libraries=TRANSFORMERS)
        assert json.loads((root / name / "training.json").read_text())["processes"] == 1 + (name == "two processes")
        folders.append(root / name)
        (last,) = {folder for folder in (root / name).glob("checkpoint-*") if folder.is_dir()}
        folders.append(last)
    for path in (root / "command").glob("*.py"):
        path.unlink()  # a run goes on from an earlier version's folder, and rotates its checkpoints
    more = ["--resume", "true", "--num_train_epochs", "4", "--output_dir", str(root / "command")]
    second_python(*launchers["command"], recipe, *more, libraries=TRANSFORMERS)
    folders[-1] = max((root / "command").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    folders.append(adapt(root / "command", data, root / "adapted"))
    return [give_inputs(folder) for folder in folders]


@pytest.mark.slow
def test_what_is_trained_names_and_holds_its_code(trained):
    for folder in trained:
        check_code(folder)
        assert (folder / "processor_config.json").is_file()
    assert {folder.name.split("-")[0] for folder in trained} >= {"program", "demo", "command", "adapted", "checkpoint"}


@pytest.mark.slow
@pytest.mark.parametrize("order", ["ours first", "ours last"])
def test_what_is_trained_loads_in_either_order(trained, order):
    check_read(ORDERS[order], trained)


@pytest.mark.slow
def test_what_is_trained_and_pushed_loads_without_the_package(trained, tmp_path):
    arrived = []
    for number, folder in enumerate(trained):
        arrived.append(tmp_path / f"arrived{number}")
        arrived[-1].mkdir()
        if folder.name.startswith("checkpoint-"):
            (folder / "README.md").touch()
        for name in own_files(folder, "model", recorded_files(folder, "model")):
            shutil.copy(folder / name, arrived[-1] / name)
        give_inputs(arrived[-1])
    check_read(WITHOUT_OURS, arrived)


def as_written_before(folder, target):
    """Copy a checkpoint as earlier versions wrote it: no code, nothing that names it, and no list of files."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.py", "checkpoint-*"))
    for name in ("config.json", "processor_config.json"):
        if (target / name).is_file():
            stored = json.loads((target / name).read_text())
            del stored["auto_map"]
            (target / name).write_text(json.dumps(stored))
    if (record := target / "training.json").is_file():
        stored = json.loads(record.read_text())
        record.write_text(json.dumps({key: stored[key] for key in stored if key not in ("files", "sha256")}))
    return target


def test_earlier_checkpoints_load_and_are_saved_whole(saved, tmp_path):
    before = as_written_before(saved[0], tmp_path / "before")
    (before / "README.md").touch()
    assert type(AutoModel.from_pretrained(before)) is NeuralClipModel
    with pytest.raises(DataError, match=r"config\.json' does not say in 'auto_map' what AutoConfig loads"):
        own_files(before, "model", [])
    NeuralClipModel.from_pretrained(before).save_pretrained(tmp_path / "after")
    check_code(tmp_path / "after")
    state = load_file(saved[0] / "model.safetensors")
    assert all(torch.equal(load_file(tmp_path / "after" / "model.safetensors")[name], state[name]) for name in state)


@pytest.mark.slow
def test_adapting_an_earlier_checkpoint_writes_a_whole_one(trained, data, tmp_path):
    before = as_written_before(trained[0], tmp_path / "before")
    adapted = adapt(before, data, tmp_path / "adapted")
    check_code(adapted)
    check_read(WITHOUT_OURS, [give_inputs(adapted)])


@pytest.mark.slow
def test_nothing_is_loaded_that_is_not_asked_for():
    code = (
        "import sys\nimport neural_clip\nimport transformers\n"
        "assert 'torch' not in sys.modules\n"
        "from transformers import AutoConfig, AutoModel, AutoProcessor, CLIPVisionConfig\n"
        "assert type(AutoConfig.for_model('clip_vision_model')) is CLIPVisionConfig\n"
        "tower = CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)\n"
        "AutoModel.from_config(tower)\n"
        "print([name for name in sys.modules if name.startswith('neural_clip.')])"
    )
    assert python("-c", code).stdout.strip() == "['neural_clip.modalities', 'neural_clip.registration']"


@pytest.mark.slow
@pytest.mark.parametrize(
    "order",
    [
        "import neural_clip\nfrom transformers import pipeline\n",
        "from transformers import pipeline\nimport neural_clip\n",
    ],
    ids=["ours first", "ours last"],
)
def test_pipelines_are_known_in_either_order_and_loaded_when_one_is_made(saved, order):
    code = (
        "import sys\n"
        + order
        + "import importlib\nfrom transformers.pipelines import check_task, get_supported_tasks\n"
        "tasks = ['neural-decoding', 'neural-encoding', 'neural-conversion']\n"
        "assert set(tasks) <= set(get_supported_tasks()) and check_task('fill-mask')\n"
        "assert not [name for name in sys.modules if name.startswith('neural_clip.gallery')]\n"
        "importlib.reload(neural_clip)\n"
        "made = [pipeline(task, model=sys.argv[1]) for task in tasks]\n"
        "print([type(each).__name__ for each in made], type(made[0].model).__module__)"
    )
    names = ["NeuralDecodingPipeline", "NeuralEncodingPipeline", "NeuralConversionPipeline"]
    shown = second_python("-c", code, saved[0]).stdout.splitlines()[-1]
    assert shown == f"{names} neural_clip.modeling_neural_clip"


def test_import_works_where_transformers_is_absent():
    code = "import sys\nsys.modules['transformers'] = None\nimport neural_clip\nneural_clip.__version__\n"
    python("-c", code)
    assert "ImportError" in python("-c", code + "neural_clip.NeuralClipModel", fails=True).stderr.replace(
        "ModuleNotFoundError", "ImportError"
    )


@pytest.mark.slow
def test_threads_reloads_and_second_imports_do_no_harm(saved):
    code = (
        "import importlib, sys\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "import neural_clip\nimportlib.reload(neural_clip)\n" + AUTO + "def load(name):\n"
        "    folder = sys.argv[1 + name % 2]\n"
        "    return type(AutoModel.from_config(AutoConfig.from_pretrained(folder))).__name__\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    print(sorted(pool.map(load, range(8))))\n"
        "for name in [name for name in sys.modules if name.split('.')[0] == 'neural_clip']:\n"
        "    del sys.modules[name]\n"
        "import neural_clip\nimportlib.reload(neural_clip)\n"
        "assert type(AutoModel.from_pretrained(sys.argv[1])) is neural_clip.NeuralClipModel\n"
        "assert type(AutoProcessor.from_pretrained(sys.argv[1])) is neural_clip.NeuralClipProcessor\n"
        "print(sum(type(finder).__name__ == 'AutoModuleFinder' for finder in sys.meta_path))\n"
        "auto = importlib.reload(sys.modules['transformers.models.auto.configuration_auto'])\n"
        "assert type(auto.AutoConfig.from_pretrained(sys.argv[1])) is neural_clip.NeuralClipConfig\n"
    )
    lines = second_python("-c", code, saved[0], saved[1]).stdout.splitlines()
    assert lines == [str(["EegEncoder"] * 4 + ["NeuralClipModel"] * 4), "1"]


@pytest.mark.slow
def test_classes_of_others_stay_registered():
    code = (
        "from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel\n"
        "class C(PreTrainedConfig):\n    model_type = 'other'\n"
        "class M(PreTrainedModel):\n    config_class = C\n"
        "AutoConfig.register('other', C)\nimport neural_clip\nAutoModel.register(C, M)\n"
        "assert AutoConfig.for_model('neural_clip_meg').n_chans\n"
        "assert type(AutoConfig.for_model('other')) is C and AutoModel._model_mapping[C] is M\n"
        "assert AutoModel._model_mapping[neural_clip.MegConfig] is neural_clip.MegEncoder\n"
        "assert {'other', 'neural_clip', 'neural_clip_eeg'} <= set(AutoConfig.for_model.__globals__['CONFIG_MAPPING'])"
    )
    second_python("-c", code)


def test_late_classes_are_a_dictionary_that_registers_once():
    calls = []

    def register():
        calls.append(len(calls))
        if len(calls) == 1:
            raise RuntimeError("the first time fails")
        classes["neural_clip_x"] = 2
        assert "neural_clip_x" in classes  # reading while registering does not register again

    classes = LateClasses({"other": 1}, register)
    assert classes["other"] == 1 and classes.get("nothing") is None and "nothing" not in classes and int not in classes
    assert calls == []
    with pytest.raises(RuntimeError, match="the first time"):
        classes.get("neural_clip_x")
    assert "neural_clip_x" in classes and classes["neural_clip_x"] == 2
    assert dict(classes) == {"other": 1, "neural_clip_x": 2} and len(classes) == len(list(classes)) == 2
    assert list(classes.keys()) == ["other", "neural_clip_x"] and list(classes.values()) == [1, 2]
    assert list(classes.items()) == [("other", 1), ("neural_clip_x", 2)]
    assert calls == [0, 1]
