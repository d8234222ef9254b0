"""Fit an alignment layer for people whom a model has not seen, and change nothing else.

Everything that the checkpoint holds stays as it is, bit for bit: the layers of the people it knows, the shared
network, the projection, the temperature. Of a data set's people those are fitted whom the checkpoint does not know by
name, so different people need different names. The layer starts as the mean of the known ones (EEG, MEG) or by ridge
regression (fMRI, `ridge_start.py`) and learns on the training split; the number of epochs, none included, is the best
one on the validation split.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainingArguments, set_seed

from neural_clip.data import JointDataset, RecordingDataset, folder_of, load_metadata, resolve_folder
from neural_clip.errors import DataError, run
from neural_clip.image_encoder import check_same_encoder, configured_encoder, model_encoder
from neural_clip.model_card import RECORD_FILE, model_card
from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.processing_neural_clip import NeuralClipProcessor
from neural_clip.recipes import TRAINING_DEFAULTS
from neural_clip.recording_embeddings import check_shape
from neural_clip.recording_time import TRIAL_SECONDS, first_minutes, minutes_of, trial_seconds
from neural_clip.ridge_start import start_by_ridge
from neural_clip.training import (
    NeuralClipTrainer,
    common_image_encoder,
    recorded_facts,
    validation_two_way,
)
from neural_clip.whole_files import sha256_of, write_whole

# Chosen on validation recordings of one left-out person of the simulated EEG.
EPOCHS, LEARNING_RATE, BATCH_SIZE = 30, 3e-3, 32


class AdaptationTrainer(NeuralClipTrainer):
    """[`NeuralClipTrainer`] that leaves dropout and the statistics of batch norms as they are after training."""

    def compute_loss(self, model: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Contrastive loss of the model in `eval()` mode; `Trainer` has just switched it to training."""
        return super().compute_loss(model.eval(), *args, **kwargs)


def read_checkpoint(folder: str | Path) -> tuple[NeuralClipModel, NeuralClipProcessor, dict]:
    """Model, processor and record of a checkpoint folder, or a `DataError`."""
    for name in ("config.json", RECORD_FILE):
        if not Path(folder, name).is_file():
            raise DataError(
                f"'{folder}' is no checkpoint folder of `neural-clip train`: it has no {name}. One of the Hub is "
                "brought here by `hf download NAME --local-dir FOLDER`."
            )
    try:
        model = NeuralClipModel.from_pretrained(str(folder))
        processor = NeuralClipProcessor.from_pretrained(str(folder))
    except (ImportError, OSError, ValueError) as error:
        raise DataError(f"'{folder}' is no readable checkpoint of a NeuralClipModel: {error}") from error
    return model, processor, json.loads(Path(folder, RECORD_FILE).read_text(encoding="utf-8"))


def check_data(model: NeuralClipModel, metadata: dict, folder: str, checkpoint: str) -> None:
    """Raise a `DataError` when a data set is of another modality, shape or image encoder than the model's."""
    config = getattr(model.config, f"{metadata['modality']}_config")
    if config is None:
        raise DataError(
            f"'{folder}' holds {metadata['modality']} recordings, but '{checkpoint}' has encoders of "
            f"{model.config.modalities} only."
        )
    check_shape(config, metadata, folder, [])
    expected = model_encoder(model.config)
    found = configured_encoder(common_image_encoder({metadata["modality"]: metadata}))
    if expected is None:
        raise DataError(f"'{checkpoint}' does not say which image encoder it was trained on.")
    check_same_encoder(expected, f"The checkpoint '{checkpoint}'", found, f"'{folder}'")


def choose_subjects(metadata: dict, known: Sequence[str], wanted: Sequence[str] | None, folder: str) -> list[str]:
    """People to fit: those wanted, or all of the data set whom the model does not know; in the data set's order.

    Raises:
        DataError: If somebody is known already, is not in the data set, has no training or validation recordings, or
            nobody is left.
    """
    present = list(metadata["subjects"])
    if wanted is None:
        new = [name for name in present if name not in known]
        if not new:
            raise DataError(f"The model knows every subject of '{folder}' already: {present}.")
    else:
        new = [name for name in present if name in wanted]
    for name in wanted or ():
        if name in known:
            raise DataError(f"'--subjects' names {name!r}, whom the model knows already; it knows {list(known)}.")
        if name not in present:
            raise DataError(f"'--subjects' names {name!r}, but '{folder}' has {present}.")
    for name in new:
        for split in ("train", "validation"):
            if not metadata["subject_splits"][name].get(split):
                raise DataError(f"'{folder}' has no {split} recordings of {name!r}; adapting needs some.")
    return new


def add_subjects(model: NeuralClipModel, metadata: dict, subjects: Sequence[str]) -> list[torch.nn.Parameter]:
    """Give each of the new people a layer, freeze everything else, and return what is left to learn."""
    modality = metadata["modality"]
    for name in subjects:
        model.add_subject(modality, name, metadata["n_voxels"][name] if modality == "fmri" else None)
    model.requires_grad_(False)
    encoder: Any = model.encoders[modality]
    layers = encoder.alignment.layers
    return [parameter for name in subjects for parameter in layers[name].requires_grad_(True).parameters()]


def recordings_of(folder: str, split: str, known: Sequence[str], subjects: Sequence[str]) -> RecordingDataset:
    """Recordings of some people, whose `subject_ids` are their places in `known`."""
    recordings = RecordingDataset(folder, split, known)
    recordings.keep(np.flatnonzero(np.isin(recordings.subject_ids, [known.index(name) for name in subjects])))
    return recordings


def fraction_rows(subject_ids: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Rows of a random share of each person's recordings, two at least, in the order of the rows."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(subject_ids == subject) for subject in np.unique(subject_ids)]
    kept = [rng.permutation(those)[: max(round(fraction * len(those)), 2)] for those in rows]
    return np.sort(np.concatenate(kept))


def choose_recordings(train: RecordingDataset, settings: dict[str, Any], seed: int) -> float | None:
    """Keep the share or the minutes that the settings ask for; returns the seconds a trial, `None` if unknown."""
    per_trial = trial_seconds(train.metadata, settings["seconds_per_trial"])
    if settings["minutes"] is None:
        train.keep(fraction_rows(train.subject_ids, settings["train_fraction"], seed))
    else:
        train.keep(first_minutes(train, settings["minutes"], per_trial, seed))
    return per_trial


def fit(
    model: NeuralClipModel,
    learnt: Sequence[torch.nn.Parameter],
    train: RecordingDataset,
    validation: RecordingDataset,
    arguments: TrainingArguments,
) -> tuple[list[float], int]:
    """Train the parameters that are not frozen and leave in the model those of the best epoch.

    Returns:
        `tuple`: Validation 2-way accuracy before training and after each epoch, and which of these is the best.
    """
    scores = [validation_two_way(model.eval(), validation)]
    start = [parameter.detach().clone() for parameter in learnt]
    trainer = AdaptationTrainer(model=model, args=arguments, recordings=JointDataset([train]), validation=[validation])
    trainer.train()
    scores += [entry["eval_two_way"] for entry in trainer.state.log_history if "eval_two_way" in entry]
    best = int(np.argmax(scores))
    if best == 0:
        with torch.no_grad():
            for parameter, value in zip(learnt, start, strict=True):
                parameter.copy_(value)
    return scores, best


@contextmanager
def whole_folder(output_dir: Path, overwrite: bool) -> Iterator[Path]:
    """A folder beside `output_dir` that takes its place when whole and vanishes otherwise."""
    if output_dir.exists() and not (output_dir.is_dir() and not any(output_dir.iterdir())):
        if not (output_dir / RECORD_FILE).is_file():
            raise DataError(f"'{output_dir}' exists and is no checkpoint; choose another name.")
        if not overwrite:
            raise DataError(f"'{output_dir}' holds a checkpoint already. Pass `--overwrite` to replace it.")
    partial = output_dir.with_name(output_dir.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir(parents=True)
    try:
        yield partial
        if output_dir.exists():
            shutil.rmtree(output_dir)
        partial.rename(output_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_settings(settings: dict[str, Any]) -> None:
    """Raise a `DataError` for a setting out of its range, or two that say how much is used."""
    least = {"num_train_epochs": 1, "per_device_train_batch_size": 2}
    if settings["minutes"] is not None and settings["train_fraction"] != 1:
        raise DataError(
            f"'minutes' and 'train_fraction' exclude one another, but got {settings['minutes']} and "
            f"{settings['train_fraction']}."
        )
    for name, value in settings.items():
        if value is None:
            continue
        if value < least.get(name, 0) or value <= 0 or (name == "train_fraction" and value > 1):
            allowed = f"at least {least[name]}" if name in least else "above 0"
            allowed += " and at most 1" if name == "train_fraction" else ""
            raise DataError(f"Invalid value for {name!r}. It must be {allowed}, but got {value}.")


def training_arguments(run_dir: Path, settings: dict[str, Any], seed: int) -> TrainingArguments:
    """Arguments of `Trainer`: those of `neural-clip train`, with a learning rate that falls as a cosine."""
    given = {key: settings[key] for key in ("num_train_epochs", "learning_rate", "per_device_train_batch_size")}
    given |= {"lr_scheduler_type": "cosine", "seed": seed, "save_only_model": True, "output_dir": str(run_dir)}
    return TrainingArguments(**{**TRAINING_DEFAULTS, **given})


def write_checkpoint(
    folder: Path, name: str, model: NeuralClipModel, processor: NeuralClipProcessor, record: dict
) -> None:
    """Write model, processor, record and card into a folder that will be called `name`."""
    config: Any = model.config
    model.save_pretrained(folder)
    recordings = NeuralClipProcessor.from_config(config).recordings
    NeuralClipProcessor(recordings, processor.image_settings).save_pretrained(folder)
    write_whole(folder / RECORD_FILE, json.dumps(record, indent=2) + "\n")
    write_whole(folder / "README.md", model_card(name, record))


def adapt(
    checkpoint: str | Path,
    folder: str | Path,
    output_dir: str | Path,
    *,
    subjects: Sequence[str] | None = None,
    epochs: int = EPOCHS,
    learning_rate: float = LEARNING_RATE,
    batch_size: int = BATCH_SIZE,
    train_fraction: float = 1.0,
    minutes: float | None = None,
    seconds_per_trial: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
    command: str | None = None,
) -> Path:
    """Fit alignment layers for new people and write a whole new checkpoint.

    Args:
        checkpoint (`str` or `Path`): Folder of the checkpoint to start from; it is left as it is.
        folder (`str` or `Path`): Prepared data set with recordings of the new people, its images embedded.
        output_dir (`str` or `Path`): Folder of the new checkpoint.
        subjects (sequence of `str`, *optional*): Whom to fit; by default all whom the checkpoint does not know.
        epochs (`int`): Passes over the training recordings, of which the best by validation is kept.
        learning_rate (`float`): Of AdamW without weight decay, falling as a cosine to zero.
        batch_size (`int`): Recordings a step; their images are one another's negatives.
        train_fraction (`float`): Share of each new person's training recordings that is used, drawn at random.
        minutes (`float`, *optional*): Instead, the first training recordings of each new person that fit into so many
            minutes; a random choice where the data set does not know the order of presentation.
        seconds_per_trial (`float`, *optional*): From one onset to the next; by default the corpus's own.
        seed (`int`): Of the order of batches, the recordings drawn and the noise behind the start of fMRI layers.
        overwrite (`bool`): Replace a checkpoint at `output_dir`.
        command (`str`, *optional*): What the record says was run.

    Returns:
        `Path`: `output_dir`.

    Raises:
        DataError: If the checkpoint, the data set or the people do not fit, or `output_dir` is taken.
    """
    output_dir, folder = Path(output_dir), str(resolve_folder(folder))
    settings: dict[str, Any] = {"num_train_epochs": epochs, "learning_rate": learning_rate}
    settings |= {"per_device_train_batch_size": batch_size, "train_fraction": train_fraction}
    settings |= {"minutes": minutes, "seconds_per_trial": seconds_per_trial}
    check_settings(settings)
    with whole_folder(output_dir, overwrite) as partial:
        model, processor, record = read_checkpoint(checkpoint)
        metadata = load_metadata(folder)
        check_data(model, metadata, folder, str(checkpoint))
        config = getattr(model.config, f"{metadata['modality']}_config")
        chosen = choose_subjects(metadata, config.subjects, subjects, folder)
        set_seed(seed)
        learnt = add_subjects(model, metadata, chosen)
        train, validation = (
            recordings_of(folder, split, config.subjects, chosen) for split in ("train", "validation")
        )
        per_trial = choose_recordings(train, settings, seed)
        if metadata["modality"] == "fmri":
            known = [name for name in config.subjects if name not in chosen]
            for name in chosen:
                start_by_ridge(model.eval(), name, known, train, validation, seed)
        arguments = training_arguments(partial / "epochs", settings, seed)
        scores, best = fit(model, learnt, train, validation, arguments)
        shutil.rmtree(partial / "epochs")
        facts = recorded_facts(metadata, chosen) | {"simulated": bool(metadata["simulated"])}
        entry: dict[str, Any] = {"command": command, "checkpoint": Path(checkpoint).resolve().name}
        entry |= {
            "weights": sha256_of(Path(checkpoint).glob("*.safetensors")),
            "modality": metadata["modality"],
            "subjects": chosen,
        }
        entry |= {"data": facts, "settings": settings | {"seed": seed}, "validation_two_way": scores}
        entry |= {"recordings": {"train": len(train), "validation": len(validation)}, "best_epoch": best}
        if per_trial is not None:
            entry["minutes"] = {"train": minutes_of(train, per_trial), "validation": minutes_of(validation, per_trial)}
        record["adaptations"] = [*record.get("adaptations", []), entry]
        write_checkpoint(partial, output_dir.name, model, processor, record)
    print(
        f"checkpoint: {output_dir}  ({', '.join(chosen)}: validation 2-way {scores[0]:.4f} at the start, "
        f"{scores[best]:.4f} after {best} of {epochs} epochs)",
        file=sys.stderr,
    )
    return output_dir


def main(argv: Sequence[str] | None = None) -> Path:
    """Run `neural-clip adapt`; returns the folder of the new checkpoint."""
    from datasets.utils.logging import disable_progress_bar

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", required=True, metavar="FOLDER", help="checkpoint to start from, left as it is"
    )
    parser.add_argument("--data", required=True, metavar="MODALITY=FOLDER", help="prepared data set of the new people")
    parser.add_argument("--subjects", nargs="+", metavar="SUBJECT", help="whom to fit (default: all not known yet)")
    parser.add_argument("--output-dir", required=True, metavar="FOLDER", help="folder of the new checkpoint")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"of which the best is kept (default: {EPOCHS})")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE, help=f"(default: {LEARNING_RATE})")
    parser.add_argument(
        "--batch-size", type=int, default=BATCH_SIZE, help=f"recordings a step (default: {BATCH_SIZE})"
    )
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--train-fraction", type=float, default=1.0, metavar="F",
        help="share of each person's training recordings that is used, drawn at random (default: 1)",
    )  # fmt: skip
    amount.add_argument(
        "--minutes", type=float, metavar="M",
        help="the first training recordings of each person that fit into M minutes of trials; a random choice where "
        "the data set does not know the order of presentation",
    )  # fmt: skip
    parser.add_argument(
        "--seconds-per-trial", type=float, metavar="S",
        help=f"from one onset to the next (known for {', '.join(TRIAL_SECONDS)})",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint in the output folder")
    arguments = parser.parse_args(argv)
    disable_progress_bar()
    return adapt(
        arguments.checkpoint,
        folder_of(arguments.data),
        arguments.output_dir,
        subjects=arguments.subjects,
        epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
        batch_size=arguments.batch_size,
        train_fraction=arguments.train_fraction,
        minutes=arguments.minutes,
        seconds_per_trial=arguments.seconds_per_trial,
        seed=arguments.seed,
        overwrite=arguments.overwrite,
        command=shlex.join(["neural-clip", "adapt", *(sys.argv[1:] if argv is None else argv)]),
    )


if __name__ == "__main__":
    run(main)
