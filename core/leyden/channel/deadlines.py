"""Heights that bind whatever the connection does (BOLT 2, ``cltv_expiry_delta`` selection; C-080)."""

from leyden.channel.fail import fail_channel
from leyden.channel.limits import fulfilled
from leyden.channel.state import Lifecycle, Stage
from leyden.channel.turn import Turn
from leyden.types import BlockHeight
from leyden.types.rules import C_080


def check_deadlines(turn: Turn, height: BlockHeight) -> None:
    """Close on chain when an HTLC that we offered is past its expiry and grace, or when one that we fulfilled comes
    too close to its expiry while the peer has not let go of it."""
    channel, policy = turn.channel, turn.env.policy
    if channel.lifecycle is not Lifecycle.NORMAL or not C_080.enabled:
        return
    for htlc in channel.local_htlcs.values():
        if htlc.stage > Stage.ADD_PROPOSED and height >= htlc.cltv_expiry + policy.offered_htlc_grace:
            fail_channel(turn, f"HTLC {htlc.id} that we offered expired at block {htlc.cltv_expiry}")
            return
    for htlc in channel.remote_htlcs.values():
        # at stage 9 our newest commitment is without it already
        held = Stage.REMOVE_PROPOSED <= htlc.stage <= Stage.REMOVE_REVOKED_BY_OFFERER
        if held and fulfilled(htlc.removal) and height >= htlc.cltv_expiry - policy.fulfilled_htlc_margin:
            fail_channel(turn, f"HTLC {htlc.id} was fulfilled but is still there close to block {htlc.cltv_expiry}")
            return
