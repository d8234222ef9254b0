"""Turn THINGS-MEG (OpenNeuro ds004212, version 2.0.0 or later) into a folder that `load_dataset` reads.

    python dataset_scripts/things_meg.py --raw-dir ds004212 --images-dir THINGS --output-dir things_meg

`--route derivative` reads the published epochs instead of the CTF recordings; `--help` lists the other choices.
"""

from functools import partial

from neural_clip.commands.prepare import main
from neural_clip.errors import run

if __name__ == "__main__":
    run(partial(main, "things_meg"))
