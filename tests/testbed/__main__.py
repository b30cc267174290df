"""``python -m tests.testbed [NAME...]``: fetch the counterparts now and print how each is run."""

import shlex
import sys

from tests.testbed import bitcoind, electrum, electrum_server
from tests.testbed.debian import Unavailable

COUNTERPARTS = {
    "bitcoind": bitcoind.command,
    electrum_server.NAME: electrum_server.command,
    electrum_server.NEW_NAME: electrum_server.new_command,
    electrum.NAME: electrum.command,
}


def main(names: list[str]) -> int:
    """With one name, its command alone; without any, a line for each."""
    failed = False
    for name in names or COUNTERPARTS:
        try:
            command = shlex.join(COUNTERPARTS[name]())
        except Unavailable as error:
            print(f"{name}: not available: {error}", file=sys.stderr)
            failed = True
            continue
        print(command if names else f"{name}: {command}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
