"""What the card of a checkpoint says of its use, its inputs and its terms, from the files that lie beside it.

`neural-clip train` puts these sections into the card that it writes; a push from Python sends a card made of them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from .markup import code, markdown, python_text
from .modalities import MODALITIES
from .terms import MODEL_LICENCE, model_licence

TITLES = {name: modality.title for name, modality in MODALITIES.items()}
REQUIRED = 'torch "transformers>=5.23"'  # as in pyproject.toml
SHOWN = 8  # names of channels
# A card with this line is made anew whenever weights are pushed from Python.
MARK = "<!-- Written by neural_clip. A push of other weights replaces this card; remove this line to keep it. -->"
TEMPLATE = """---
{{ card_data }}
---

{{ body }}
"""


def card_data(branches: Mapping[str, dict], tags: Any = ()) -> Any:
    """Front matter of a card (`ModelCardData`).

    Args:
        branches (`Mapping[str, dict]`): See [`branches_of`].
        tags (iterable of `str`): More of them.
    """
    from huggingface_hub import ModelCardData

    entries = [entry for facts in branches.values() for entry in entries_of(facts)]
    licence: dict[str, Any] = {**model_licence(entries)}
    simulated = ["simulated"] if any(entry.get("simulated") for entry in entries) else []
    return ModelCardData(
        library_name="neural_clip",
        pipeline_tag="feature-extraction",
        tags=["neural_clip", "clip", *branches, *simulated, *tags],
        **licence,
    )


def card_text(repo: str, config: Mapping | None, processor: Mapping | None, tags: Any = ()) -> str:
    """The card of what was pushed from Python.

    Args:
        repo (`str`): `ORG/NAME`.
        config, processor (`Mapping`, *optional*): Content of `config.json` and of `processor_config.json`.
        tags (iterable of `str`): For its front matter.
    """
    from huggingface_hub import ModelCard

    branches = branches_of(config, processor)
    what = f"{titles(branches)} recordings" if branches else "no recordings yet"
    about = f"Maps {what} of subjects who look at images into the embedding space of a frozen"
    lines = [MARK, "", f"# {markdown(repo)}", "", f"{about} image encoder"]
    if config and config.get("vision_model_name"):
        lines[-1] += f" ({code(config['vision_model_name'])}, {told(config.get('projection_dim'))} dimensions)"
    lines[-1] += ", after Ferrante et al. 2024 ([arXiv:2411.09723](https://arxiv.org/abs/2411.09723))."
    if branches:
        lines += ["", use_section(repo, branches, config), "", recordings_section(branches)]
    lines += ["", people_section(branches), "", "## Scores", ""]
    lines += ["None were pushed with it. `neural-clip push` sends a checkpoint with its record, `training.json`."]
    data = card_data(branches, tags)
    return str(ModelCard.from_template(data, template_str=TEMPLATE, body="\n".join(lines)).content)


def branches_of(config: Mapping | None, processor: Mapping | None) -> dict[str, dict]:
    """What a model takes, by modality: settings of its encoder, and what recordings of each group go through.

    Args:
        config, processor (`Mapping`, *optional*): Content of `config.json` and of `processor_config.json`.
    """
    settings = {name: (config or {}).get(f"{name}_config") for name in TITLES}
    if str((config or {}).get("model_type")).startswith("neural_clip_"):  # of one encoder
        settings = {str(config and config["model_type"]).removeprefix("neural_clip_"): config}
    groups = (processor or {}).get("recordings") or {}
    learnt = (processor or {}).get("trained_on") or {}
    found = {}
    for name in TITLES:
        if settings.get(name) or groups.get(name):
            # a group may stand without a list
            listed = [groups[name]] if isinstance(groups.get(name), Mapping) else list(groups.get(name) or [])
            facts = dict(settings.get(name) or {"trained_on": learnt.get(name)} | dict(listed[0]))
            if not settings.get(name):
                facts["subjects"] = [subject for group in listed for subject in group["subjects"]]
                if MODALITIES[name].sensors:
                    facts["corpora"] = {group["corpus"]: group for group in listed if group.get("corpus")}
                facts["n_voxels"] = {name: n for group in listed for name, n in (group.get("n_voxels") or {}).items()}
            found[name] = facts | {"groups": listed}
    return found


def entries_of(facts: Mapping) -> list[dict]:
    """The data sets that an encoder learnt from; one of which nothing is known, where nobody knows."""
    known = facts.get("trained_on")
    return [{"corpus": "not recorded", "redistribution": None}] if known is None else known


def titles(modalities: Any) -> str:
    """Modalities as a sentence names them: `"EEG, MEG and fMRI"`."""
    parts = [modality.partition(".") for modality in modalities]  # `eeg.things_eeg2` of several corpora
    return listed(f"{TITLES[modality]} {markdown(corpus)}".rstrip() for modality, _, corpus in parts)


def listed(names: Iterable[str]) -> str:
    """Names as a sentence has them: `"a, b and c"`."""
    *first, last = names
    return " and ".join([", ".join(first), last] if first else [last])


def told(value: Any) -> str:
    """A number or name as a line of the card has it."""
    return f"{value:g}" if isinstance(value, int | float) else markdown(value)


def use_section(repo: str, branches: Mapping[str, dict], config: Mapping | None) -> str:
    """How to install what is needed, load it and embed recordings."""
    modality, facts = next(iter(branches.items()))
    subject = next(iter(facts.get("subjects") or ["average"]))
    more = " braindecode" if any(each.get("encoder_type") == "braindecode" for each in branches.values()) else ""
    whole = config is None or "projection_dim" in config
    width = "projection_dim" if config is None else told(config.get("projection_dim"))
    embeds = (
        f"embeds = model.get_{modality}_features(**inputs)  # (batch_size, {width})"
        if whole
        else "features = model(**inputs).pooler_output"
    )
    name = python_text(repo)
    return f"""## Use

```bash
pip install {REQUIRED}{more}
```

```python
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained({name}, trust_remote_code=True)
processor = AutoProcessor.from_pretrained({name}, trust_remote_code=True)
inputs = processor({modality}=recordings, subject={python_text(subject)})
{embeds}
```

Where `neural_clip` is installed, the same works without `trust_remote_code`, once it is imported."""


def recordings_section(branches: Mapping[str, dict]) -> str:
    """Channels, rate, window, unit, band and scaling of what the model takes."""
    lines = ["## Recordings", ""]
    for modality, facts in branches.items():
        shape = _sensors(facts) if MODALITIES[modality].sensors else _voxels(facts)
        if facts.get("corpora"):
            shape = "; ".join(f"{markdown(name)}: {_sensors(own)}" for name, own in facts["corpora"].items())
        steps = list(dict.fromkeys(_steps(group.get("preparation")) for group in facts["groups"]))
        lines.append(f"- {TITLES[modality]}: {shape}. {' Or: '.join(steps) or 'What they went through: not told.'}")
    return "\n".join(lines)


def _sensors(facts: Mapping) -> str:
    """Channels, samples, rate and window."""
    names = [markdown(name) for name in facts.get("ch_names") or []]
    listed = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more, in the order of `config.json`"
                                         if len(names) > SHOWN else "")  # fmt: skip
    n_times, sfreq, tmin = facts["n_times"], facts["sfreq"], facts["tmin"]
    return (
        f"{told(facts['n_chans'])} channels{f' ({listed})' if listed else ''}, {told(n_times)} samples at "
        f"{told(sfreq)} Hz, {told(tmin)} to {told(round(tmin + (n_times - 1) / sfreq, 4))} s from image onset"
    )


def _voxels(facts: Mapping) -> str:
    """Voxels of each subject."""
    counts = [f"{markdown(name)} {told(count)}" for name, count in (facts.get("n_voxels") or {}).items()]
    return f"voxels of the region of interest: {', '.join(counts)}"


def _steps(preparation: Mapping | None) -> str:
    """What recordings go through before the model, in a sentence."""
    if preparation is None:
        return "What they went through before is not recorded."
    bands = [f"{told(low)} to {told(high)} Hz" for low, high in preparation.get("bands") or []]
    baseline = markdown(preparation.get("baseline") or "none")
    if isinstance(preparation.get("baseline"), list | tuple):
        baseline = "{} to {} s".format(*map(told, preparation["baseline"]))
    scope = f" by {markdown(preparation['scope'])}" if preparation.get("scope") else ""
    steps = {
        "Unit as recorded": markdown(preparation.get("unit") or "not stated"),
        "band": " or ".join(bands) or "not stated",
        "baseline": baseline,
        "reference": markdown(preparation.get("reference")),
        "scaling": f"{markdown(preparation.get('scaling'))}{scope}",
    }
    return f"{'; '.join(f'{name}: {value}' for name, value in steps.items())}."


def people_section(branches: Mapping[str, dict]) -> str:
    """Whose recordings a model learnt from, on which terms, and what it may reveal of them."""
    lines, learnt = ["## People, terms and licence", ""], []
    for modality, facts in branches.items():
        learnt += entries_of(facts)
        for entry in entries_of(facts):
            who = ", ".join(map(markdown, entry.get("subjects") or facts.get("subjects") or ["not recorded"]))
            terms = entry.get("terms") or "those of the source; none are recorded here"
            kind = " (**simulated**, nobody was recorded)" if entry.get("simulated") else ""
            lines += [
                f"- {TITLES[modality]}: {markdown(entry['corpus'])}{kind}, subjects {who}",
                f"  - redistribution of the data: {markdown(entry.get('redistribution') or 'not recorded')}",
                f"  - their licence: {markdown(entry.get('licence') or 'not recorded')}",
                f"  - consent and terms: {markdown(terms)}",
            ]
    licence = model_licence(learnt)["license"]
    weights = "the terms of the data they learnt from" if licence == "other" else f"`{licence}`"
    return "\n".join([*lines, "", f"Code: `{MODEL_LICENCE}`. Weights: {weights}.", "", REVEALS])


REVEALS = """The checkpoint holds no recordings, no images, and nothing of the headers of raw files: names, birthdays,
dates and experimenters were left out. It does hold the subjects' names as listed here, an alignment layer for each of
them, and means and deviations of their training recordings; of fMRI the places of their voxels too. Whoever has
further recordings of one of these people may find out by it that this person took part."""
