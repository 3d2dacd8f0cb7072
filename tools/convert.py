"""``d2tune convert`` as a script: ``python tools/convert.py SRC --to coco --out OUT``."""

import sys

from d2tune.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
