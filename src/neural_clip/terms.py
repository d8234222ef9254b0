"""What the terms of data allow with what learnt from them: who may see it on the Hub, and under which licence."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from .errors import DataError, check_option, check_value

REDISTRIBUTION = ("allowed", "forbidden")
# Licences of data by the Hub's identifiers. The first ask for credit at most; models made from data under the others
# go under the same.
PERMISSIVE = ("cc0-1.0", "cc-by-4.0", "bsd-3-clause", "mit", "apache-2.0")
HUB_LICENCES = (*PERMISSIVE, "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0")
MODEL_LICENCE = "apache-2.0"  # that of the code
# Of an entry of `trained_on`: the types that each key may have.
TRAINED_ON = {
    "corpus": (str,), "subjects": (list,), "simulated": (bool,), "redistribution": (str, type(None)),
    "licence": (str, type(None)), "terms": (str, type(None)),
}  # fmt: skip
NEEDED = ("corpus", "redistribution")


def check_trained_on(entries: Any) -> None:
    """Raise a [`DataError`] unless this is `None` or a list of what `neural-clip train` writes of its data sets."""
    listed = entries is None or (isinstance(entries, list) and all(isinstance(each, Mapping) for each in entries))
    check_value("trained_on", entries, listed, "a list with a dictionary a data set, or None")
    for entry in entries or []:
        for key in {**entry, **dict.fromkeys(NEEDED)}:
            check_option("trained_on", key, TRAINED_ON)
            fits = key in entry and isinstance(entry[key], TRAINED_ON[key])
            allowed = " or ".join("None" if kind is type(None) else kind.__name__ for kind in TRAINED_ON[key])
            check_value(f"trained_on.{key}", entry.get(key), fits, allowed)
        check_option("trained_on.redistribution", entry["redistribution"], (*REDISTRIBUTION, None))


def terms_of(trained_on: Mapping[str, list[dict] | None]) -> dict[str, str | None]:
    """Whether the data may be redistributed that something learnt from, by corpus; `None` where nobody knows.

    Args:
        trained_on (`Mapping[str, list[dict]]`): By modality, as the configuration of an encoder holds it.
    """
    found: dict[str, str | None] = {}
    for modality, entries in trained_on.items():
        for entry in [{"corpus": "the training data", "redistribution": None}] if entries is None else entries:
            name = f"{entry['corpus']} ({modality})"
            if found.get(name, "allowed") == "allowed":  # of two terms for one corpus the stricter
                found[name] = entry["redistribution"]
    return found


def check_terms(what: str, terms: Mapping[str, str | None]) -> None:
    """Raise a [`DataError`] unless all terms allow that `what` becomes public.

    Args:
        what (`str`): For the message.
        terms (`Mapping[str, str]`): `"allowed"`, `"forbidden"` or, where nothing is recorded, `None`, by data set.
    """
    held_back = {"forbidden": [name for name, term in terms.items() if term == "forbidden"]}
    held_back["not recorded"] = [name for name, term in terms.items() if term not in REDISTRIBUTION]
    listed = [f"redistribution of {', '.join(names)} is {state}" for state, names in held_back.items() if names]
    if not terms:
        listed = ["it does not say what it learnt from"]
    if listed:
        raise DataError(
            f"{what} must not become public: {' and '.join(listed)}. Push it to a private repository, and let nobody "
            "into it who has not accepted the terms of the source."
        )


def check_visibility(
    repo: str, is_private: bool, what: str, terms: Mapping[str, str | None], public: bool, advice: Mapping[bool, str]
) -> None:
    """Raise a [`DataError`] where a repository that exists is not what was asked for; a push does not change it.

    Args:
        repo (`str`): `ORG/NAME`.
        is_private (`bool`): Whether it is private.
        what (`str`): What is to be sent, for messages.
        terms (`Mapping[str, str]`): See [`check_terms`].
        public (`bool`): Whether it is to be public.
        advice (`Mapping[bool, str]`): How to ask for a public one and for a private one.
    """
    if not is_private:
        check_terms(f"'{repo}' is a public repository, and {what}", terms)
    if is_private is public:
        raise DataError(
            f"'{repo}' exists and is {'private' if is_private else 'public'}. If that is meant, "
            f"{advice[not is_private]}; otherwise change it in the settings of the repository on the Hub, or choose "
            "another name."
        )


def model_licence(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Front matter of a card for a model that learnt from these data sets: what their terms allow.

    That of the code, where they may be redistributed and ask for credit at most. Their own, where all others share
    one that the Hub knows. Otherwise `other`: the card says what holds.
    """
    entries = list(entries)
    kinds = licences_of(entries) - set(PERMISSIVE)
    allowed = bool(entries) and all(entry.get("redistribution") == "allowed" for entry in entries)
    if allowed and not kinds:
        return {"license": MODEL_LICENCE}
    return shared_licence(kinds if allowed else set(), "terms-of-the-training-data")


def licences_of(entries: Iterable[Mapping[str, Any]]) -> set[str]:
    """What data sets state as their licence, in lower case; `"none"` where one states nothing."""
    return {str(entry.get("licence")).lower() for entry in entries}


def shared_licence(licences: Collection[str], otherwise: str) -> dict[str, str]:
    """Front matter of a card for what is under one licence that the Hub knows, or else under terms called so."""
    if len(licences) == 1 and set(licences) <= set(HUB_LICENCES):
        return {"license": next(iter(licences))}
    return {"license": "other", "license_name": otherwise}
