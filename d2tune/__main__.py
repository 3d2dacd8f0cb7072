"""``python -m d2tune``: the command ``d2tune``."""

import sys

from d2tune.cli import command

if __name__ == "__main__":
    sys.exit(command())
