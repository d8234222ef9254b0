"""Turn Alljoined-1.6M or Alljoined1 into a folder that `load_dataset` reads.

    python dataset_scripts/alljoined.py --raw-dir Alljoined-1.6M --output-dir alljoined

`--route` names what is read: the recordings (default), the preprocessed files, or Alljoined1; `--help` lists the other
choices.
"""

from functools import partial

from neural_clip.commands.prepare import main
from neural_clip.errors import run

if __name__ == "__main__":
    run(partial(main, "alljoined"))
