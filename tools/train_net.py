"""``d2tune train`` under the name that Detectron2 users know: ``python tools/train_net.py --config FILE.yaml``."""

import sys

from d2tune.cli import command

if __name__ == "__main__":
    sys.exit(command(["train", *sys.argv[1:]]))
