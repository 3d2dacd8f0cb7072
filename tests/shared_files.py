"""Where the real photos, masks, weights and worked conversion cases lie that tests and benchmarks read."""

import os
from pathlib import Path

SHARED = Path(os.environ.get("D2TUNE_SHARED", Path(__file__).resolve().parents[2] / "shared")).resolve()
"""The folder ``shared`` beside the checkout, or what ``D2TUNE_SHARED`` names."""

assert (SHARED / "data" / "README.md").is_file(), (
    f"the real test data is missing: {SHARED} has no data/README.md. "
    "Put the folder `shared` beside the checkout, or name it with D2TUNE_SHARED"
)
