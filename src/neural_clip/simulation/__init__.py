"""Simulated twins of the corpora: known signal, known noise, raw on-disk formats of the real releases.

`presets` says how large and how hard, `generative` draws recordings as arrays, `ceiling` tells what is decodable at
best, modules called `<corpus>_twin` write files, `simulate` is the program.
Simulated data never pose as real: every folder holds a `SIMULATED.json`.
"""
