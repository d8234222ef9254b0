"""Bars of progress at a shell: ours tell what takes long, so those of libraries stay away."""

from __future__ import annotations


def only_our_bars() -> None:
    """Let transformers and datasets draw no bars while they load; downloads from the Hub keep theirs."""
    from datasets.utils.logging import disable_progress_bar
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging

    downloads_shown = not are_progress_bars_disabled()
    disable_progress_bar()
    logging.disable_progress_bar()
    if downloads_shown:  # transformers takes these away as well
        enable_progress_bars()
