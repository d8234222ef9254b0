"""Write and run docs/tutorials/from_recording_to_pictures.ipynb: from a raw FIF file to pictures, in ten cells.

    python scripts/make_notebook.py

Everything in it is SIMULATED. The same machine writes the same bytes: nothing is kept that tells when or where it ran.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "tutorials" / "from_recording_to_pictures.ipynb"
SECONDS = 600  # that one cell may take
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELLS = (
    """# From a recording to pictures

**Everything here is simulated**: nobody was recorded, and scores say nothing about real recordings. A raw FIF file of
EEG is cut, a model is trained on it by the recipe `base`, and pictures are found for trials that it has not seen.

In Colab, upload this notebook and a wheel of the package (`pip wheel --no-deps -w dist .` in a checkout). No GPU is
needed; it takes one or two minutes.""",
    """import importlib.util

if importlib.util.find_spec("neural_clip") is None:  # in Colab: the wheel beside it
    %pip install --quiet neural_clip-*.whl""",
    """# SIMULATED EEG: each of 138 pictures evokes a pattern of its own, in noise
from pathlib import Path

import mne
import numpy as np
import pandas

from neural_clip import load_sample

mne.set_log_level("error")
rng = np.random.default_rng(0)
kinds = ("eeg", "meg", "fmri")
pictures = [row for kind in kinds for row in load_sample(kind).images]
vectors = np.array([row["image_embeds"] for row in pictures])
vectors = (vectors - vectors.mean(0)) / vectors.std(0)
names = [f"{row['image_id']}.png" for row in pictures]
Path("stimuli").mkdir(exist_ok=True)
for name, row in zip(names, pictures, strict=True):
    row["image"].save(Path("stimuli", name))

sfreq = 250
shown = np.concatenate([rng.permutation(len(names)) for _ in range(2)])
onsets = 2 + 0.8 * np.arange(len(shown))
signal = rng.normal(size=(16, int((onsets[-1] + 3) * sfreq)))
wave = np.exp(-0.5 * ((np.arange(0, 0.5, 1 / sfreq) - 0.2) / 0.06) ** 2)
patterns = vectors @ rng.normal(size=(vectors.shape[1], 16)) / 16
for onset, picture in zip((onsets * sfreq).astype(int), shown, strict=True):
    signal[:, onset : onset + len(wave)] += 1.6 * np.outer(patterns[picture], wave)
info = mne.create_info([f"E{number}" for number in range(1, 17)], sfreq, "eeg")
raw = mne.io.RawArray(signal * 1e-5, info)  # V
raw.save("sub-01_raw.fif", overwrite=True)
shown = [names[picture] for picture in shown]
trials = pandas.DataFrame({"onset": onsets, "stim_file": shown})
trials.to_csv("sub-01_events.tsv", sep="\\t", index=False)""",
    """# with your own recordings, begin here
raw = mne.io.read_raw_fif("sub-01_raw.fif", preload=True)
sfreq = raw.info["sfreq"]
print(f"SIMULATED  {len(raw.ch_names)} electrodes, {raw.times[-1]:.0f} s at {sfreq:.0f} Hz")
trials.head(3)""",
    """Path("manifest.yaml").write_text(\"\"\"
name: simulated_eeg
modality: eeg
recordings:
  - {file: sub-01_raw.fif, events: sub-01_events.tsv, subject: sub-01}
defaults:
  {kind: continuous, image_column: stim_file, high_pass: 0.5, low_pass: 40, tmin: -0.1, tmax: 0.5}
images: {folder: stimuli}
splits: {validation: 0.1, test: 0.15}
licence: CC0-1.0
redistribution: allowed
source: SIMULATED
citation: none
\"\"\");""",
    """%%capture
# without --model, images are embedded by OpenAI's CLIP, which is downloaded
!neural-clip prepare custom manifest.yaml --output-dir data --overwrite
!neural-clip embed-images data --model neural_clip/tiny-clip""",
    """%%capture
# leave --max-steps out for your own recordings
!neural-clip train --data eeg=data --output-dir model --max-steps 40 --overwrite""",
    """# trials whose pictures the model was not trained on, cut from the raw file again
from neural_clip.prepared.reader import PreparedSet

test = PreparedSet.open("data").split("test")
unseen = trials[trials["stim_file"].isin(test.shown_ids)]
samples = (unseen["onset"] * sfreq).round().astype(int)
events = np.column_stack([samples, 0 * samples, 0 * samples + 1])
raw.filter(0.5, 40)
epochs = mne.Epochs(raw, events, tmin=-0.1, tmax=0.5, baseline=None, preload=True)
print(f"SIMULATED  {len(epochs)} trials of {unseen['stim_file'].nunique()} pictures")""",
    """from neural_clip import NeuralGallery

images = NeuralGallery.from_images("model", "stimuli")
hits = images.decode(epochs, subject="sub-01", top_k=5)
pairs = zip(unseen["stim_file"], hits, strict=True)
share = np.mean([seen in [hit.image_id for hit in found] for seen, found in pairs])
print(f"SIMULATED  {len(images)} pictures; the right one is in the first five of most trials: {share > 0.5}")
print(f"guessing: in those of {5 / len(images):.0%}")""",
    """from IPython.display import Image
from matplotlib import pyplot

images.decode(epochs[:5], subject="sub-01", top_k=5).plot().figure.savefig("hits.png", dpi=60)
pyplot.close()
Image("hits.png")""",
)


def notebook() -> nbformat.NotebookNode:
    """The notebook without outputs; the first cell is text."""
    text, *code = CELLS
    cells = [nbformat.v4.new_markdown_cell(text), *map(nbformat.v4.new_code_cell, code)]
    for number, cell in enumerate(cells, start=1):
        cell["id"] = f"cell-{number}"
    return nbformat.v4.new_notebook(cells=cells, metadata=METADATA)


def executed(folder: Path) -> nbformat.NotebookNode:
    """The notebook after a run in a folder, with its outputs."""
    made = notebook()
    programs = str(Path(sys.executable).parent)
    surroundings = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    client = NotebookClient(made, timeout=SECONDS, record_timing=False, resources={"metadata": {"path": str(folder)}})
    client.execute(env=surroundings)
    for cell in made.cells:
        # progress and warnings tell of this machine
        cell["outputs"] = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
        if cell.cell_type == "markdown":
            del cell["outputs"]
    made["metadata"] = METADATA
    return made


def main() -> None:
    """Run the notebook in an empty folder, and write it."""
    with tempfile.TemporaryDirectory() as folder:
        made = executed(Path(folder))
    NOTEBOOK.write_text(nbformat.writes(made) + "\n", encoding="utf-8")
    print(NOTEBOOK)


if __name__ == "__main__":
    main()
