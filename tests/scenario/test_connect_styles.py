"""In whatever order a chain source tells of the same chain, two nodes with a channel end in the same state."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from leyden.channel.events import ForceClose, Shutdown
from leyden.hooks.types import ChannelClosed, TransactionConfirmed, TransactionUnconfirmed
from leyden.testing.connect_styles import ConnectStyle, StyledChain, styled
from leyden.testing.simulation import SimNode, Simulation
from leyden.types import ChannelId

from tests.scenario.sim_kit import fund, give, logged, start_opening
from tests.scenario.test_reorg import Pair

ENDINGS: dict[str, Callable[[], Any]] = {
    "alone": lambda: ForceClose(reason="asked for"),
    "together": lambda: Shutdown(script=b"", feerate=None),
}


class Styled(Pair):
    """The pair of the reorg tests, with sources of one style."""

    def __init__(self, folder: Path, style: ConnectStyle) -> None:
        self.simulation = Simulation(5, folder / "chain")
        self.simulation.make_chain = styled(style)
        self.alice = self.simulation.add_node("alice")
        self.bob = self.simulation.add_node("bob")
        fund(self.simulation, self.alice)
        self.simulation.connect(self.alice, self.bob)

    def live(self, ending: str) -> None:
        """Open, lose blocks with and without the funding in them, close, lose the close, and be done."""
        (channel_id,) = start_opening(self.alice, self.bob.node_id)
        self.simulation.mine(4)
        assert self.usable()
        self.simulation.reorg(2)
        assert self.usable()
        self.simulation.reorg(6)
        self.simulation.mine(6)
        assert self.usable()
        assert isinstance(channel_id, bytes)
        assert give(self.alice, ChannelId(channel_id), ENDINGS[ending]()) == [None]
        self.simulation.mine(1)
        self.simulation.reorg(1)
        self.simulation.mine(150)
        self.simulation.reorg(3)
        self.simulation.mine(12)

    def state(self, node: SimNode) -> dict[str, object]:
        """What a node has concluded, without what chance put into it (keys, and so all hashes)."""
        core = node.core
        wallet = core.services.wallet
        confirmed = Counter(event.kind for event in logged(node, TransactionConfirmed))
        taken_back = Counter(event.kind for event in logged(node, TransactionUnconfirmed))
        return {
            "height": core.chain.height,
            "at the tip": core.chain.follower.best_hash == self.simulation.chain.tip_hash,
            "synced": core.chain.synced,
            "trusted": core.chain.health.why,
            "balance": msgspec.structs.asdict(wallet.balance()),
            "coins": sorted((coin.value, coin.height, coin.state.value) for coin in wallet.coins()),
            "channels": [type(actor).__name__ for actor in core.channels.channels()],
            "pending": sorted((kind.value, height) for _, kind, height in core.tracker.pending()),
            "closed": [(event.how, event.reason) for event in logged(node, ChannelClosed)],
            "confirmed": {kind: count - taken_back[kind] for kind, count in confirmed.items()},
        }


_references: dict[str, list[dict[str, object]]] = {}


def reference(ending: str, folder: Path) -> list[dict[str, object]]:
    """The state of both nodes after whole blocks, one by one."""
    if ending not in _references:
        pair = Styled(folder, ConnectStyle.WHOLE_BLOCKS)
        pair.live(ending)
        _references[ending] = [pair.state(pair.alice), pair.state(pair.bob)]
        pair.simulation.close()
    return _references[ending]


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("style", ConnectStyle, ids=lambda style: style.name.lower())
def test_every_style_ends_in_the_same_state(style: ConnectStyle, ending: str, tmp_path: Path) -> None:
    wanted = reference(ending, tmp_path / "reference")
    assert wanted[0]["at the tip"]
    assert wanted[0]["closed"] != []
    pair = Styled(tmp_path / "styled", style)
    try:
        pair.live(ending)
        assert [pair.state(pair.alice), pair.state(pair.bob)] == wanted
        for node in (pair.alice, pair.bob):  # what is stored is the same, too
            node.kill()
            node.start()
        pair.simulation.settle()
        assert [pair.state(pair.alice), pair.state(pair.bob)] == wanted
    finally:
        pair.simulation.close()


def test_transactions_that_are_never_told_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison has teeth: of headers by themselves nobody learns that there are coins."""
    monkeypatch.setattr(StyledChain, "_history", lambda *_: [])
    pair = Styled(tmp_path, ConnectStyle.HEADER_FIRST)
    try:
        assert pair.alice.core.services.wallet.balance().confirmed == 0
    finally:
        pair.simulation.close()
