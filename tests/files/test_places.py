"""Where outputs lie, and commands that can be pasted."""

import shlex

import pytest

from custom_raw import patterns, write_manifest
from neural_clip.corpora.custom import prepare
from neural_clip.files.places import command_line, place_line
from neural_clip.prepared.reader import PreparedSet


def test_places_stand_in_one_column():
    assert place_line("data", "a b") == "data:       a b"
    assert place_line("checkpoint", "outputs/base") == "checkpoint: outputs/base"


@pytest.mark.parametrize("name", ["plain", "with space", "with 'quote'", "$HOME", "a;b"])
def test_a_printed_command_is_read_by_a_shell_as_it_was_meant(name):
    told = command_line("neural-clip", "embed-images", name)
    assert told[0] == told[-1] == "`" and shlex.split(told[1:-1]) == ["neural-clip", "embed-images", name]


def test_an_error_tells_a_command_that_can_be_pasted(tmp_path):
    folder = prepare(write_manifest(tmp_path, patterns(tmp_path)[0]), tmp_path / "my set")
    with pytest.raises(ValueError, match="no embeddings") as told:
        _ = PreparedSet.open(folder).images
    command = str(told.value).split("`")[1]
    assert shlex.split(command) == ["neural-clip", "embed-images", str(folder)]
