"""Simulated twins of the four corpora: known signal, known noise, raw on-disk formats of the real releases.

`presets` says how large and how hard, `generative` draws recordings as arrays, `ceiling` tells what is decodable at
best, `imagenet_eeg_twin`, `things_meg_twin`, `nsd_twin` and `things_eeg2_twin` write files, `simulate` is the program.
Simulated data never pose as real: every folder holds a `SIMULATED.json`.
"""
