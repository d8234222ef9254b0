"""Prepare the Natural Scenes Dataset: a local copy of its files in, a data set folder for `load_dataset` out.

```
python dataset_scripts/nsd.py --raw-dir /data/nsd --output-dir prepared/nsd --subjects sub-01 sub-02
```
"""

from functools import partial

from neural_clip.commands.prepare import main
from neural_clip.errors import run

if __name__ == "__main__":
    run(partial(main, "nsd"))
