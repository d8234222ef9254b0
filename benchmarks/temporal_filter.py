"""Depthwise filtering over time: the FFT of `TemporalFilter` against torch's grouped convolution, as a ratio.

    python benchmarks/temporal_filter.py

Forward and backward pass at the sizes of the EEG and MEG batches of the demo, timed in turn in one run, so that the
ratio of medians holds on a noisy machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional

from neural_clip.modeling_temporal_spatial import TemporalFilter

SIZES = {"EEG": (128, 48, 440, 41), "MEG": (128, 96, 181, 9)}  # batch, channels, samples, kernel
RUNS = 7


def seconds(function: Callable[[], torch.Tensor]) -> float:
    """Time of one forward and backward pass."""
    start = time.perf_counter()
    function().sum().backward()
    return time.perf_counter() - start


def main() -> None:
    """Print a line a size."""
    for name, (batch, n_chans, n_times, kernel) in SIZES.items():
        layer = TemporalFilter(n_chans, kernel)
        values = torch.randn(batch, n_chans, n_times, requires_grad=True)
        convolution = partial(functional.conv1d, padding=kernel // 2, groups=n_chans)
        functions = {"fft": partial(layer, values), "convolution": partial(convolution, values, layer.weight[:, None])}
        times: dict[str, list[float]] = {key: [] for key in functions}
        for _ in range(RUNS + 1):
            for key, function in functions.items():
                times[key].append(seconds(function))
        medians = {key: statistics.median(found[1:]) for key, found in times.items()}  # the first run warms up
        print(
            f"{name}: {batch} x {n_chans} x {n_times}, kernel {kernel}, {torch.get_num_threads()} threads: "
            f"fft {1e3 * medians['fft']:.1f} ms, convolution {1e3 * medians['convolution']:.1f} ms, "
            f"ratio {medians['convolution'] / medians['fft']:.2f}"
        )


if __name__ == "__main__":
    main()
