"""SIGTERM, by which a cluster takes a machine away: the state of a run is saved after the step at hand.

Once all steps are taken it ends the run at once, since a closed form may take an hour more.

Slurm sends it before it preempts a job or its time is over, and `torchrun` hands it on to its processes. A process may
be a step ahead of another when it comes, so that all agree at the end of each step whether to stop.
`enable_jit_checkpoint` of transformers waits three seconds, and each process stops where it is.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from neural_clip.training.across_processes import any_process

EXIT_CODE = 128 + signal.SIGTERM  # as shells say it of a program that ended so


class Terminated(BaseException):
    """The run was saved, and is to end."""


class SaveOnTermination(TrainerCallback):
    """Save a state after SIGTERM and raise [`Terminated`]; as a context manager it takes the signal."""

    def __init__(self) -> None:
        self.asked = self.agreed = self.trained = False
        self.before: Any = None

    def __enter__(self) -> SaveOnTermination:
        if threading.current_thread() is threading.main_thread():  # no other may set what a signal does
            self.before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before)

    def _ask(self, *_: object) -> None:
        """Remember the signal, or end."""
        self.asked = True
        if self.trained:
            raise Terminated

    def end_at_once(self, saved: bool, device: torch.device) -> None:
        """Wait for no further step, where a state was saved; every process comes here."""
        self.trained = saved
        if any_process(self.asked and saved, device):
            raise Terminated

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Have a state saved where any process was told to stop."""
        self.agreed = any_process(self.asked, args.device)
        if self.agreed:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End once the state is whole."""
        if self.agreed:
            raise Terminated


def ignore_termination(worker: int) -> None:
    """Let a process that loads recordings live until the one it loads for ends."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
