"""`neural-clip train` and `train.py`: the recipe explains the options."""

from __future__ import annotations

from collections.abc import Sequence

from neural_clip.commands.interruption import end_with_launcher, told_how_to_go_on
from neural_clip.commands.options import todays_spelling, words_of
from neural_clip.files.privacy import no_secrets_told
from neural_clip.training.recipe import read_recipe


def main(argv: Sequence[str] | None = None) -> None:
    """Read a recipe with its overrides and train."""
    end_with_launcher()
    words = todays_spelling("train", words_of(argv))
    with no_secrets_told(words), told_how_to_go_on("train"):
        recipe = read_recipe(words)
        from neural_clip.files.bars import only_our_bars
        from neural_clip.training.processes import leave_group
        from neural_clip.training.run import train

        only_our_bars()
        with recipe.told_where():
            train(recipe)
        leave_group()  # after an error others may still wait for this process: its end tells them
