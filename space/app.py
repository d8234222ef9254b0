"""The page of `neural-clip app` as a Space of the Hub: `python app.py`, with options as of the command."""

import sys

from neural_clip.__main__ import main

if __name__ == "__main__":
    sys.argv[1:1] = ["app", "--host", "0.0.0.0", "--port", "7860"]  # where a Space looks for its page
    main()
