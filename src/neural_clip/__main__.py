"""`neural-clip`, and `python -m neural_clip` where no console script is installed."""

import os
import signal
from typing import Any


def main() -> None:
    """Run the command line. Ctrl-C while its modules are still imported is one line and code 130, too."""
    unheard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if unheard:
        signal.signal(signal.SIGINT, _leave)
    from neural_clip.commands.main import entry

    if unheard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    entry()


def _leave(*_: Any) -> None:
    os.write(2, b"interrupted before anything was done\n")
    os._exit(130)


if __name__ == "__main__":
    main()
