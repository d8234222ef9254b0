"""Turn THINGS-EEG2 (osf.io/3jk45) into a folder that `load_dataset` reads.

    python dataset_scripts/things_eeg2.py --raw-dir THINGS-EEG2 --images-dir image_set --output-dir things_eeg2

`--route` names the release that is read: the raw files (default), the copy in BIDS, or what was preprocessed of them;
`--help` lists the other choices.
"""

from functools import partial

from neural_clip.commands.prepare import main
from neural_clip.errors import run

if __name__ == "__main__":
    run(partial(main, "things_eeg2"))
