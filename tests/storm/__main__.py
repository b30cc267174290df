"""``python -m tests.storm [--reorgs 500] [--seed 1] [--simulated] [--quick]``: exit code 0 if all came out right.

``--quick``: one of each kind, of a size for CI.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import structlog

from tests.storm import real, simulated


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description=__doc__)
    parser.add_argument("--reorgs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--simulated", action="store_true", help="on the embedded chain, exactly repeatable")
    parser.add_argument("--quick", action="store_true", help="100 reorgs in the simulation, then 40 over bitcoind")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    if arguments.quick:
        _blow("simulated", arguments.seed, 100)
        _blow("bitcoind", arguments.seed, 40)
    else:
        _blow("simulated" if arguments.simulated else "bitcoind", arguments.seed, arguments.reorgs)
    return 0


def _blow(kind: str, seed: int, reorgs: int) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="leyden-storm-") as name:
        if kind == "simulated":
            blowing = simulated.Storm(seed, Path(name))
            try:
                blowing.run(reorgs)
                payments, deep = len(blowing.invoices), blowing.deep
            finally:
                blowing.close()
        else:
            payments, deep = asyncio.run(_over_bitcoind(seed, reorgs, Path(name)))
    seconds = time.monotonic() - began
    print(
        f"storm ok ({kind}, seed {seed}): {reorgs} reorgs, {deep} deep ones seen at once, {payments} payments,", end=" "
    )
    print(f"{seconds:.0f} s", flush=True)


async def _over_bitcoind(seed: int, reorgs: int, folder: Path) -> tuple[int, int]:
    async with real.storm(seed, folder) as blowing:
        await blowing.run(reorgs, lambda line: print(line, flush=True))
        return len(blowing.invoices), blowing.deep


if __name__ == "__main__":
    sys.exit(main())
