"""``d2tune check`` as a script: ``python tools/check.py SRC``."""

import sys

from d2tune.cli import main

if __name__ == "__main__":
    sys.exit(main(["check", *sys.argv[1:]]))
