"""Every type of message in every state of a channel: whatever it costs the sender, the node keeps its books."""

import pytest
from leyden.channel import Lifecycle
from leyden.channel.state import OPENING
from leyden.wire import (
    MESSAGES,
    ChannelReestablish,
    ClosingComplete,
    CommitmentSigned,
    ErrorMessage,
    FundingCreated,
    FundingSigned,
    RevokeAndAck,
)

from tests.scenario.negative.closings import closing, legacy, shutting_down
from tests.scenario.negative.kit import Place, Scene, check_books
from tests.scenario.negative.messages import GOSSIP, negotiated, sample
from tests.scenario.negative.openings import answering, proposing
from tests.scenario.negative.updates import answering_signature, coming_back, offered, opened, received
from tests.scenario.sim_kit import BusyNode

L = Lifecycle

TYPES = [kind for kind in MESSAGES.values() if negotiated(kind) and kind.TYPE not in GOSSIP]
"""Those that reach a channel or its peer; what the rest costs has nothing to do with channels."""


def waiting_for_blocks(busy: BusyNode, name: str) -> Scene:
    scene = proposing(FundingCreated)(busy, name)
    scene.peer.run(scene.channel)
    return scene


def closed_by_agreement(busy: BusyNode, name: str) -> Scene:
    scene = shutting_down()(busy, name)
    scene.peer.run(scene.channel)
    return scene


def failed(busy: BusyNode, name: str) -> Scene:
    scene = opened()(busy, name)
    scene.peer.send(ErrorMessage(channel_id=scene.id, data=b"enough"))
    return scene


def closed_on_chain(busy: BusyNode, name: str) -> Scene:
    scene = failed(busy, name)
    busy.simulation.mine(1)
    return scene


STATES: dict[str, tuple[Place, Lifecycle]] = {
    "accept_channel is due": (answering(), L.AWAIT_ACCEPT),
    "funding_created is due": (proposing(FundingCreated), L.AWAIT_FUNDING_CREATED),
    "funding_signed is due": (answering(FundingSigned), L.AWAIT_FUNDING_SIGNED),
    "blocks are due": (waiting_for_blocks, L.AWAIT_CONFIRMATION),
    "an update is not signed for": (offered(CommitmentSigned), L.NORMAL),
    "a revocation is due": (answering_signature, L.NORMAL),
    "an HTLC is committed": (received(), L.NORMAL),
    "channel_reestablish is due": (coming_back(), L.NORMAL),
    "shutdown was heard": (closing(ClosingComplete), L.NORMAL),
    "a legacy fee is due": (legacy(), L.NORMAL),
    "a mutual close is out": (closed_by_agreement, L.CLOSING),
    "our commitment is out": (failed, L.FORCE_CLOSING),
    "our commitment is in a block": (closed_on_chain, L.FORCE_CLOSING),
}


@pytest.mark.parametrize("name", STATES)
def test_every_message_in_this_state(busy: BusyNode, name: str) -> None:
    place, lifecycle = STATES[name]
    for kind in TYPES:
        scene = place(busy, kind.NAME)
        theirs = scene.theirs()
        assert theirs is not None
        assert theirs.lifecycle is lifecycle
        balances = theirs.local_settled, theirs.remote_settled
        scene.peer.send(sample(kind, scene.id))
        after = scene.theirs()
        if lifecycle not in OPENING:
            assert after is not None, kind.NAME
            assert (after.local_settled, after.remote_settled) == balances, kind.NAME
            assert after.lifecycle in (lifecycle, L.FORCE_CLOSING), kind.NAME
            assert after.lifecycle is lifecycle or kind is ErrorMessage or kind in FATAL, kind.NAME
        check_books(busy)
        busy.pay()
        busy.dismiss()
        busy.check()
        busy.simulation.advance(1)
    busy.simulation.mine(1)
    busy.check()


FATAL = (RevokeAndAck, ChannelReestablish)
"""Besides an error: a secret that is wrong, and numbers that cannot be, where these messages are due."""


def test_the_states_are_many() -> None:
    """Every state in which a node can hear of a channel from its peer, but for those that last no turn."""
    brief = {L.AWAIT_FUNDING, L.FUNDER_SIGNING, L.FUNDER_VALIDATING, L.FUNDEE_SIGNING}
    ended = {L.CLOSED, L.ABANDONED, L.REMOTE_CLOSED, L.DATA_LOSS}
    assert {lifecycle for _, lifecycle in STATES.values()} == set(L) - brief - ended
