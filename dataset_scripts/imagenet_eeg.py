"""Prepare ImageNetEEG: a local copy of the released .pth files in, a data set folder for `load_dataset` out.

```
python dataset_scripts/imagenet_eeg.py --raw-dir /data/imagenet_eeg --output-dir prepared/imagenet_eeg
```
"""

from functools import partial

from neural_clip.commands.prepare import main
from neural_clip.errors import run

if __name__ == "__main__":
    run(partial(main, "imagenet_eeg"))
