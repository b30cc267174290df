"""A real bitcoind for benchmarks, if one can be had, and the least that fetching its blocks can cost."""

import base64
import http.client
import json
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.filled_chain import cached_blocks
from tests.testbed.bitcoind import Bitcoind
from tests.testbed.debian import CACHE, Unavailable

BLOCKS = CACHE.parent / "benchmarks"
OLD_TIPS = ("-maxtipage=999999999", "-txindex=0")
"""The blocks of these chains are of a fixed date."""


@contextmanager
def bitcoind(*options: str) -> Iterator[Bitcoind | None]:
    """``None`` where it is not fetched (``make testbed``)."""
    if not (CACHE / "bitcoind").exists():
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="leyden-bench-") as name:
        daemon = Bitcoind(Path(name), options=options)
        try:
            daemon.start()
        except Unavailable:
            yield None
            return
        try:
            yield daemon
        finally:
            daemon.stop()


def fill(daemon: Bitcoind, blocks: int, transactions: int) -> list[str]:
    """Give it a chain; the hashes of its filled blocks, in order."""
    for raw in cached_blocks(BLOCKS, blocks, transactions):
        refusal = daemon.rpc("submitblock", raw.hex())
        if refusal is not None:
            raise RuntimeError(f"bitcoind does not take a block: {refusal}")
    tip = daemon.rpc("getblockcount")
    return [daemon.rpc("getblockhash", height) for height in range(tip - blocks + 1, tip + 1)]


def fetch_raw(daemon: Bitcoind, hashes: Sequence[str], connections: int = 1) -> int:
    """Fetch these blocks and turn them into bytes, nothing else; how many bytes they are."""
    token = base64.b64encode(f"{daemon.user}:{daemon.password}".encode()).decode()
    headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
    sizes: list[int] = []

    def work(mine: Sequence[str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port)
        for block_hash in mine:
            body = json.dumps({"id": 1, "method": "getblock", "params": [block_hash, 0]})
            connection.request("POST", "/", body, headers)
            answer = json.loads(connection.getresponse().read())
            sizes.append(len(bytes.fromhex(answer["result"])))
        connection.close()

    threads = [threading.Thread(target=work, args=(hashes[n::connections],)) for n in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(sizes)
