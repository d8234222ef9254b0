"""`python -m neural_clip` is the command `neural-clip`, also where no console script is installed."""

from neural_clip.commands.main import entry

if __name__ == "__main__":
    entry()
