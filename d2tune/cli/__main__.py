"""``python -m d2tune.cli``: the command ``d2tune``."""

import sys

from d2tune.cli import main

sys.exit(main())
