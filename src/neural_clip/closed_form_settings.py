"""What the closed form of a modality is made of, as a configuration states it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .corpus_inputs import corpus_of
from .errors import check_option, check_value

DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class ClosedFormSettings:
    """Which maps a closed form has, and which samples they read.

    Args:
        own (`list[str]`): Subjects with a map of their own.
        shared (`bool`): Whether all others have one map together; otherwise their embeddings are the network's.
        mixed (`bool`): Whether channels of those who share a map are mixed first, each subject's by a matrix of its
            own (whitening).
        first_sample (`int`): Samples of a recording before this one are left out.
        decimation (`int`): Consecutive samples that are averaged into one.
        dtype (`str`): Of the maps in the file: `"float16"`, or `"float32"` where half of the bits change scores.
        corpora (`list[str]`): Of a model of several, those whose subjects have one map together, unless they have
            their own.
        own_dtypes (`dict[str, str]`): Subjects whose own map is kept in another dtype than `dtype`.
    """

    own: list[str]
    shared: bool = False
    mixed: bool = False
    first_sample: int = 0
    decimation: int = 1
    dtype: str = "float32"
    corpora: list[str] = field(default_factory=list)
    own_dtypes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, content: Any, subjects: Sequence[str]) -> "ClosedFormSettings | None":
        """What a configuration holds; `None` where there is no closed form.

        Args:
            content (`dict`, *optional*): As [`~ClosedFormSettings.as_dict`] gives it.
            subjects (sequence of `str`): Those of the configuration.

        Raises:
            ValueError: If a key is unknown, or a value is not allowed.
        """
        if content is None:
            return None
        known = {entry.name for entry in fields(cls)}
        fits = isinstance(content, Mapping) and set(content) <= known and "own" in content
        check_value("closed_form", content, fits, f"keys with values, of {sorted(known)}")
        found = cls(**content)
        own = found.own
        named = isinstance(own, list) and set(own) <= set(subjects) and len(set(own)) == len(own)
        check_value("closed_form.own", own, named, f"subjects of {list(subjects)}, each once")
        known, given = {corpus_of(name) for name in subjects} - {""}, found.corpora
        named = isinstance(given, list) and set(given) <= known and len(set(given)) == len(given)
        check_value("closed_form.corpora", given, named, f"corpora of {sorted(known)}, each once")
        for name in ("shared", "mixed"):
            check_value(
                f"closed_form.{name}", getattr(found, name), isinstance(getattr(found, name), bool), "a switch"
            )
        for name, least in (("first_sample", 0), ("decimation", 1)):
            value = getattr(found, name)
            check_value(f"closed_form.{name}", value, type(value) is int and value >= least, f"{least} and more")
        check_option("closed_form.dtype", found.dtype, DTYPES)
        others = found.own_dtypes
        named = (
            isinstance(others, Mapping) and set(others) <= set(own) and all(each in DTYPES for each in others.values())
        )
        check_value("closed_form.own_dtypes", others, named, f"one of {list(DTYPES)} for subjects of 'own'")
        return found

    def dtype_of(self, name: str) -> str:
        """In what the map of a subject is kept."""
        return self.own_dtypes.get(name, self.dtype)

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it; without what only some models have, `corpora` and `own_dtypes`, where there is none."""
        rare = ("corpora", "own_dtypes")
        return {name: value for name, value in asdict(self).items() if name not in rare or value}
