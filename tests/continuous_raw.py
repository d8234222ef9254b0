"""Continuous recordings, simulated, in memory and as BrainVision files."""

import numpy as np

from custom_raw import rng

SFREQ = 500.0  # Hz


def simulated_raw(seed=0, names=("A", "B", "C", "D"), kind="eeg", seconds=30.0, sfreq=SFREQ, unit=1e-5):
    """Noise with a drift and mains hum."""
    import mne

    n_times = int(seconds * sfreq)
    times = np.arange(n_times) / sfreq
    data = rng(seed).normal(size=(len(names), n_times)) + 5 * np.sin(2 * np.pi * 50 * times) + 3 * times
    return mne.io.RawArray(data * unit, mne.create_info(list(names), sfreq, kind, verbose="error"), verbose="error")


def write_brainvision(folder, raw, names=None, n_stated=True):
    """Smallest BrainVision recording: 32-bit floats in microvolt."""
    names = names or raw.ch_names
    (raw.get_data().T * 1e6).astype("<f4").tofile(folder / "rec.eeg")
    lines = [
        "Brain Vision Data Exchange Header File Version 1.0", "", "[Common Infos]", "Codepage=UTF-8",
        "DataFile=rec.eeg", "MarkerFile=rec.vmrk", "DataFormat=BINARY", "DataOrientation=MULTIPLEXED",
        f"NumberOfChannels={len(names)}", f"SamplingInterval={1e6 / raw.info['sfreq']:g}",
        *([f"DataPoints={raw.n_times}"] if n_stated else []), "", "[Binary Infos]", "BinaryFormat=IEEE_FLOAT_32", "",
        "[Channel Infos]", *(f"Ch{i + 1}={name},,1,µV" for i, name in enumerate(names)), "",
    ]  # fmt: skip
    (folder / "rec.vhdr").write_text("\n".join(lines), encoding="utf-8")
    (folder / "rec.vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=rec.eeg\n"
        "[Marker Infos]\nMk1=New Segment,,1,1,0,20200101000000000000\n"
    )
