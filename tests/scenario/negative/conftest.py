"""The node that takes everything."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenario.sim_kit import BusyNode


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[BusyNode]:
    made = BusyNode(tmp_path)
    yield made
    made.close()
