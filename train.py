"""Train a model from a recipe.

    accelerate launch train.py configs/demo.yaml [--training.learning_rate 1e-3 ...]
    python train.py --help
    torchrun --nproc_per_node 2 train.py configs/demo.yaml  # two processes, on GPUs or CPUs, train one model

The work is done in `neural_clip.training.run`; recipes are described in `neural_clip.training.recipe`.
"""

from neural_clip.commands.train import main
from neural_clip.errors import run

if __name__ == "__main__":
    run(main)
