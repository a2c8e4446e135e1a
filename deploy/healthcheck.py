"""Ask the worker of this container whether it is `live` (it serves) or `ready` (it has partitions): 0 yes, 1 no.

Usage: python healthcheck.py [live|ready]
"""  # noqa: INP001 - a script that stands alone in the image

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 4.0
DEFAULT_PORT = "9464"


def main(question: str = "live") -> int:
    """Return the exit status, having printed what the worker answered."""
    url = f"http://127.0.0.1:{os.environ.get('WHYREC_METRICS_PORT', DEFAULT_PORT)}/{question}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            sys.stdout.write(answer.read().decode())
    except (urllib.error.URLError, OSError) as error:
        sys.stdout.write(f"{url}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
