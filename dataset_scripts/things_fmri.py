"""Turn THINGS-fMRI (doi.org/10.25452/figshare.plus.20492835) into a folder that `load_dataset` reads.

    python dataset_scripts/things_fmri.py --raw-dir THINGS-fMRI --images-dir object_images --output-dir things_fmri

The raw folder holds single-trial betas, `betas_csv` or, with `--route volume`, `betas_vol` and `brainmasks`;
`--help` lists the other choices.
"""

from functools import partial

from neural_clip.commands.prepare import main
from neural_clip.errors import run

if __name__ == "__main__":
    run(partial(main, "things_fmri"))
