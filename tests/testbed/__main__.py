"""``python -m tests.testbed``: fetch every counterpart now and print how to run it."""

import sys

from tests.testbed import bitcoind
from tests.testbed.debian import Unavailable


def main() -> int:
    try:
        print("bitcoind:", " ".join(bitcoind.command()))
    except Unavailable as error:
        print(f"bitcoind: not available: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
