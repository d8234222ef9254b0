"""Options of [`run_workflow`] and of `neural-clip run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neural_clip.evaluation.options import EvaluateOptions
from neural_clip.options import Options, option, option_of


@dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """Options of [`run_workflow`]; here is what the help of a field leaves out.

    Args:
        recipe (`str`): Settings of one's own go into a YAML file, as for `neural-clip train`.
        gallery (`str`, *optional*): As in [`EvaluateOptions`].
        num_proc (`int`): What each takes for baselines stands in [`EvaluateOptions`].
        streaming (`bool`): In training and evaluation. Outputs are the same, so that a run may go on with or without.
        overwrite (`bool`): What was made of something else is made anew, and whatever was made of that; all steps
            where nothing differs. What lay there stays in `replaced-1` and so on until the last step is done.
    """

    recipe: str = option("base", "a recipe of the package, or a YAML file")
    model: str | None = option(
        None, "image encoder, a name on the Hub or a model folder; default neural_clip/tiny-clip for simulated data "
        "sets and openai/clip-vit-large-patch14 for others", metavar="NAME",
    )  # fmt: skip
    seed: int | None = option(None, "of training; default that of the recipe", type=int, least=0)
    epochs: int | None = option(None, "of training; default those of the recipe", type=int, least=1)
    folds: int | None = option(
        None, "of cross-validation where there is no validation split; 0: do not; default those of the recipe",
        type=int, least=0,
    )  # fmt: skip
    gallery: str | None = option_of(EvaluateOptions, "gallery")
    streaming: bool = option_of(EvaluateOptions, "streaming")
    num_proc: int = option(
        1, "processes that prepare, embed images, examine and fit baselines", type=int, metavar="N", least=1
    )
    overwrite: bool = option(False, "begin anew where the folder holds another run, or this one")


@dataclass(frozen=True, kw_only=True)
class LeaveOutOptions(Options):
    """Options of [`leave_one_person_out`]; here is what the help of a field leaves out.

    Args:
        subjects (`Sequence[str]`, *optional*): People with recordings of the test split.
        num_proc (`int`): As in [`RunOptions`].
        overwrite (`bool`): As in [`RunOptions`], for every person who is left out.
    """

    recipe: str = option_of(RunOptions, "recipe")
    subjects: Sequence[str] | None = option(
        None, "who is left out in turn; default all who have test recordings", nargs="+"
    )  # fmt: skip
    seed: int | None = option_of(RunOptions, "seed")
    epochs: int | None = option_of(RunOptions, "epochs")
    baselines: Sequence[str] = option_of(EvaluateOptions, "baselines")
    templates: str | None = option_of(EvaluateOptions, "templates")
    streaming: bool = option_of(EvaluateOptions, "streaming")
    num_proc: int = option(1, "processes that examine the data and fit baselines", type=int, metavar="N", least=1)
    overwrite: bool = option_of(RunOptions, "overwrite")
