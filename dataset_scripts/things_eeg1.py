"""Turn THINGS-EEG1 (OpenNeuro ds003825) into a folder that `load_dataset` reads.

    python dataset_scripts/things_eeg1.py --raw-dir ds003825 --images-dir object_images --output-dir things_eeg1

`--help` lists the other choices.
"""

from functools import partial

from neural_clip.commands.prepare import main
from neural_clip.errors import run

if __name__ == "__main__":
    run(partial(main, "things_eeg1"))
