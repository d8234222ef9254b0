"""What is said after Ctrl-C."""

import pytest

from neural_clip.commands.interruption import told_how_to_go_on


@pytest.mark.parametrize("command", ["run", "leave-one-person-out", "demo"])
def test_what_goes_on_by_itself_is_not_told_to_begin_anew(command):
    with pytest.raises(KeyboardInterrupt, match="again, without `--overwrite`; what is whole is kept"), (
        told_how_to_go_on(command)
    ):  # fmt: skip
        raise KeyboardInterrupt


@pytest.mark.parametrize("command", ["evaluate", "gallery", "embed-recordings", "adapt"])
def test_what_is_replaced_at_the_end_is_unchanged(command):
    with pytest.raises(KeyboardInterrupt, match="What stood there before is unchanged"), told_how_to_go_on(command):
        raise KeyboardInterrupt
