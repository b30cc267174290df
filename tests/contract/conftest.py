"""What the contract tests over real counterparts share."""

from collections.abc import Iterator

import pytest

from tests.testbed import running
from tests.testbed.bitcoind import Bitcoind


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bitcoind]:
    """A real bitcoind with a wallet, one for each module of tests."""
    with running.bitcoind(tmp_path_factory.mktemp("bitcoind")) as daemon:
        yield daemon
