"""Options of `neural-clip push`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from neural_clip.publishing.push import push


def main(argv: Sequence[str] | None = None) -> str:
    """Run `neural-clip push`; returns the address."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="prepared data set or checkpoint")
    parser.add_argument("--repo", required=True, metavar="ORG/NAME", help="repository on the Hub; made if missing")
    parser.add_argument("--public", action="store_true", help="let everybody see it (default: private)")
    parser.add_argument("--revision-message", metavar="TEXT", help="message of the commit")
    arguments = parser.parse_args(argv)
    address = push(arguments.folder, arguments.repo, public=arguments.public, message=arguments.revision_message)
    print(f"{arguments.folder} is at {address} ({'public' if arguments.public else 'private'})")
    return address
