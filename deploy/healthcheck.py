"""Ends with status 0 where the server of this container can take requests, and with 1 elsewhere.

The address is ``D2TUNE_URL``, by default that of the image's own command.
"""

import os
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 4.0


def main() -> int:
    """Ask ``/readyz``."""
    address = os.environ.get("D2TUNE_URL", "http://127.0.0.1:8000").rstrip("/") + "/readyz"
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
            status = answer.status
    except (urllib.error.URLError, OSError, ValueError) as error:
        print(f"{address}: {error}", file=sys.stderr)
        return 1
    print(f"{address}: {status}")
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
