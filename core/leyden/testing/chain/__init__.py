"""Conformance suite of chain sources.

Subclass ``ChainSourceSuite``, supply the fixture ``bed`` with fresh sources and control over the real chain behind
them, and run pytest (with pytest-asyncio in auto mode):

```python
class TestMySource(ChainSourceSuite):
    @pytest.fixture
    async def bed(self, tmp_path):
        ...
        yield ChainBed(make_source=lambda: MySource(...), control=...)
```

What a bed can do besides has suites of its own, to subclass beside it: ``AbsentBackendSuite``, ``SlowBackendSuite``,
``WrongNetworkSuite``, ``LyingBackendSuite``. Each source is driven as the core drives it, through a ``ChainFollower``
(``ChainDriver``); whether it delivers whole blocks or matched transactions, its ``SourceInfo`` says.
"""

from leyden.testing.chain.bed import (
    ANYONE_SCRIPT,
    BackendSwitch,
    ChainBed,
    ChainControl,
    Lie,
    Purse,
    anyone_script,
    spend_anyone,
    unchecked_spend,
)
from leyden.testing.chain.conditions import AbsentBackendSuite, LyingBackendSuite, SlowBackendSuite, WrongNetworkSuite
from leyden.testing.chain.driver import ChainDriver, Conclusions
from leyden.testing.chain.lifecycle import LifecycleTests
from leyden.testing.chain.order import OrderTests
from leyden.testing.chain.watches import WatchTests


class ChainSourceSuite(OrderTests, WatchTests, LifecycleTests):
    """Subclass and supply the fixture ``bed`` (a ``ChainBed``); the chain may already have blocks."""


__all__ = [
    "ANYONE_SCRIPT",
    "AbsentBackendSuite",
    "BackendSwitch",
    "ChainBed",
    "ChainControl",
    "ChainDriver",
    "ChainSourceSuite",
    "Conclusions",
    "Lie",
    "LyingBackendSuite",
    "Purse",
    "SlowBackendSuite",
    "WrongNetworkSuite",
    "anyone_script",
    "spend_anyone",
    "unchecked_spend",
]
