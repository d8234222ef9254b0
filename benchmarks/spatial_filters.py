"""Alignment layer and spatial filters: multiplied with one another first, against one behind the other, as a ratio.

    python benchmarks/spatial_filters.py

Forward and backward pass of the EEG and MEG encoders of `configs/base.yaml` at a batch of 128 of four people, timed in
turn in one run, so that the ratio of medians holds on a noisy machine. The share of operations that the first product
leaves is counted beside it: nobody can be quicker than that, and the rest of the encoder is in the time.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import torch
import yaml
from temporal_filter import seconds

from neural_clip import EegConfig, EegEncoder, MegConfig, MegEncoder

RECIPE = Path(__file__).parents[1] / "configs" / "base.yaml"
SHAPES = {"eeg": (128, 440), "meg": (271, 181)}  # sensors, samples
BATCH, PEOPLE, RUNS = 128, 4, 7


def main() -> None:
    """Print a line a modality."""
    settings = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["model"]
    subjects = [f"sub-{number + 1:02d}" for number in range(PEOPLE)]
    ids = torch.arange(BATCH) % PEOPLE
    for name, (n_chans, n_times) in SHAPES.items():
        shape = {"n_chans": n_chans, "n_times": n_times, "subjects": subjects}
        encoder = (
            EegEncoder(EegConfig(**shape, **settings["eeg"]))
            if name == "eeg"
            else MegEncoder(MegConfig(**shape, **settings["meg"]))
        )
        values = torch.randn(BATCH, n_chans, n_times)

        def multiplied(encoder: EegEncoder | MegEncoder = encoder, values: torch.Tensor = values) -> torch.Tensor:
            return encoder(values, ids).pooler_output

        def apart(encoder: EegEncoder | MegEncoder = encoder, values: torch.Tensor = values) -> torch.Tensor:
            return encoder.network(encoder.align(values, ids))

        times: dict[str, list[float]] = {"multiplied": [], "apart": []}
        for _ in range(RUNS + 1):
            times["multiplied"].append(seconds(multiplied))
            times["apart"].append(seconds(apart))
        medians = {key: statistics.median(found[1:]) for key, found in times.items()}  # the first run warms up
        n_filters = encoder.config.hidden_size
        share = n_filters / (n_chans + n_filters)
        print(
            f"{name}: {BATCH} x {n_chans} x {n_times}, {encoder.config.num_networks} networks of {n_filters} filters, "
            f"{torch.get_num_threads()} threads: multiplied {1e3 * medians['multiplied']:.0f} ms, apart "
            f"{1e3 * medians['apart']:.0f} ms, ratio {medians['apart'] / medians['multiplied']:.2f}; "
            f"{100 * share:.0f} % of the operations of layer and filters are left"
        )


if __name__ == "__main__":
    main()
