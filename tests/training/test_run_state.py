"""States of a run: a damaged one is known, whatever is wrong with it."""

import json
import shutil

import pytest

from damaged_files import damage as damage_file
from neural_clip.errors import DataError
from neural_clip.training.checks import check_resumed_batches
from neural_clip.training.run_state import damage, is_finished, mark_finished, mark_unfinished, states_of

FILES = ["trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors", "config.json",
         "batches.json", "processor_config.json"]  # fmt: skip


@pytest.fixture
def state(finished_run, tmp_path):
    """A whole one."""
    return shutil.copytree(finished_run[1] / "checkpoint-40", tmp_path / "checkpoint-40")


@pytest.mark.parametrize("how", ["missing", "cut", "flipped"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_the_one_that_was_written_is_named(state, name, how):
    assert damage(state) is None
    damage_file(state / name, how)
    assert name in damage(state) or damage(state) == "it is half written"


@pytest.mark.parametrize("content", ["", "[]", '{"model.safetensors": 3}', "{"])
def test_a_damaged_list_of_files_is_no_whole_state(state, content):
    (state / "files.json").write_text(content)
    assert damage(state) is not None


def test_what_is_being_written_is_not_whole(state):
    mark_unfinished(state)
    assert damage(state) == "it is half written" and not is_finished(state)
    mark_finished(state)
    assert damage(state) is None and is_finished(state)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("trainer_state.json", "it is half written"),
        ("optimizer.pt", r"it lacks optimizer.pt (was 'training.save_only_model' true?)"),
        ("rng_state.pth", "it lacks the random state of a process"),
        ("config.json", "it has no config.json"),
    ],
)
def test_a_state_of_before_its_files_were_listed(state, name, found):
    (state / "files.json").unlink()
    assert damage(state) is None
    (state / name).unlink()
    assert damage(state) == found


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"global_step": "4"}', '{"global_step": true}'])
def test_a_state_of_before_its_files_were_listed_with_damaged_progress(state, content):
    (state / "files.json").unlink()
    (state / "trainer_state.json").write_text(content)
    assert damage(state) == "its trainer_state.json is damaged"


def test_states_name_no_folder(state):
    assert json.loads((state / "trainer_state.json").read_text())["best_model_checkpoint"] is None


def test_states_are_sorted_by_their_steps(tmp_path):
    for name in ("checkpoint-100", "checkpoint-20", "checkpoint-x", "checkpoint-20.half", "checkpoint-\u0663"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-5").write_text("")
    assert [path.name for path in states_of(tmp_path)] == ["checkpoint-20", "checkpoint-100"]
    assert states_of(tmp_path / "absent") == []


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_damaged_batches_of_an_older_state_tell_nothing(tmp_path, content):
    (tmp_path / "batches.json").write_text(content)
    check_resumed_batches(str(tmp_path), {"seed": 3, "min_steps": 0, "shuffle_buffer_size": 0})
    with pytest.raises(DataError, match="'min_steps' was 0 and is 2"):
        check_resumed_batches(str(tmp_path), {"min_steps": 2, "shuffle_buffer_size": 0})
