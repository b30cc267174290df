"""A storm over a real bitcoind, of a size for CI; ``python -m tests.storm --reorgs 500`` is the whole one."""

from pathlib import Path

import pytest

from tests.storm.real import storm
from tests.testbed import start_or_skip
from tests.testbed.bitcoind import command

pytestmark = [pytest.mark.slow, pytest.mark.testbed, pytest.mark.timeout(600)]
REORGS = 30


async def test_a_storm_over_bitcoind_ends_where_the_final_chain_alone_would(tmp_path: Path) -> None:
    start_or_skip(command)
    async with storm(1, tmp_path) as blowing:
        await blowing.run(REORGS)
