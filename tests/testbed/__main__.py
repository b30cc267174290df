"""``python -m tests.testbed [NAME...]``: fetch or build the counterparts now and print how each is run."""

import os
import shlex
import shutil
import sys
from contextlib import suppress

from tests.testbed import bitcoind, electrum, electrum_server, ldk, ldk_node, lnd
from tests.testbed.cache import Unavailable

COUNTERPARTS = {
    "bitcoind": bitcoind.command,
    electrum_server.NAME: electrum_server.command,
    electrum_server.NEW_NAME: electrum_server.new_command,
    electrum.NAME: electrum.command,
    ldk.NAME: ldk.command,
    lnd.NAME: lnd.command,
    ldk_node.NAME: ldk_node.command,
}
NEEDS = {ldk.NAME: ("node", "npm"), lnd.NAME: ("go",), ldk_node.NAME: ("cargo",)}
"""Tools without which a counterpart cannot be built; outside CI that is no failure (see tests.interop.peers)."""


def main(names: list[str]) -> int:
    """With one name, its command alone; without any, a line for each."""
    failed = False
    for name in names or COUNTERPARTS:
        try:
            command = shlex.join(COUNTERPARTS[name]())
        except Unavailable as error:
            print(f"{name}: not available: {error}", file=sys.stderr)
            failed = failed or bool(names) or not _may_be_missing(name)
            continue
        print(command if names else f"{name}: {command}")
    return int(failed)


def prepare(names: list[str]) -> None:
    """Fetch and build what there is of these; whoever starts the others is told why they are missing."""
    for name in names:
        with suppress(Unavailable):
            COUNTERPARTS[name]()


def _may_be_missing(name: str) -> bool:
    lacking = [tool for tool in NEEDS.get(name, ()) if shutil.which(tool) is None]
    return bool(lacking) and not (os.environ.get("CI") and name != ldk_node.NAME)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
