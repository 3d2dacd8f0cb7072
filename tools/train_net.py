"""The door that Detectron2 users know: ``python tools/train_net.py --config projects/balloon.yaml``."""

import sys

from d2tune.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
