"""The process that the conformance suite of stores kills: it commits numbered batches and prints what is durable."""

import asyncio
import sys
from pathlib import Path

from leyden.testing.store_conformance import NETWORK, ROWS_PER_COMMIT, make_store


async def write(factory: str, folder: Path, number: int) -> None:
    """Commit batch after batch, for ever: rows of one number, and the marker of the last one gone."""
    store = make_store(factory, folder)
    epoch = await store.open(NETWORK)
    while True:
        value = b"%020d" % number + bytes(number * 37 % 4000)
        puts = tuple((b"r" + row.to_bytes(2, "big"), value) for row in range(ROWS_PER_COMMIT))
        marker = (b"d" + number.to_bytes(8, "big"), b"x")
        await store.commit((*puts, marker), (b"d" + (number - 1).to_bytes(8, "big"),), epoch)
        print(number, flush=True)
        number += 1


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
