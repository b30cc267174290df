"""What a step may know of the world: time, height, fees, policy, fresh entropy. Frozen; made by the shell each turn."""

import re
from typing import Literal

import msgspec

from leyden.crypto import sha256
from leyden.types import BlockHeight, CltvDelta, FeeRatePerKw, Msat, NodeId, Sat
from leyden.wire.features import Features

ESTIMATES_DIFFER_ANCHORS = (1, 2)
"""What one node thinks the chain costs another may think costs this part of it: whoever is in need can add to it."""
ESTIMATES_DIFFER = (4, 5)
"""The same without anchors, where the fee must do as it is."""
RELAY_FLOOR = FeeRatePerKw(253)
"""One satoshi per virtual byte, rounded up: what nodes relay at least."""

ChannelTypeName = Literal["anchors", "static_remotekey"]


class FeeRates(msgspec.Struct, frozen=True, kw_only=True):
    """One feerate for each ``FeeTarget``, in sat per 1000 weight units."""

    maximum: FeeRatePerKw = FeeRatePerKw(25_000)
    urgent_sweep: FeeRatePerKw = FeeRatePerKw(5_000)
    min_allowed_anchor_remote: FeeRatePerKw = FeeRatePerKw(253)
    anchor_channel: FeeRatePerKw = FeeRatePerKw(500)
    min_allowed_non_anchor_remote: FeeRatePerKw = FeeRatePerKw(253)
    non_anchor_channel: FeeRatePerKw = FeeRatePerKw(2_000)
    close_minimum: FeeRatePerKw = FeeRatePerKw(500)
    sweep: FeeRatePerKw = FeeRatePerKw(1_000)
    funding: FeeRatePerKw = FeeRatePerKw(1_000)

    def commitment(self, anchors: bool) -> FeeRatePerKw:
        """What we want a commitment to pay: without anchors nobody can add to it later."""
        return self.anchor_channel if anchors else self.non_anchor_channel

    def least_remote(self, anchors: bool) -> FeeRatePerKw:
        """The least that a peer's commitments may pay: some of our estimate, for no two estimators agree."""
        estimate = self.min_allowed_anchor_remote if anchors else self.min_allowed_non_anchor_remote
        part, whole = ESTIMATES_DIFFER_ANCHORS if anchors else ESTIMATES_DIFFER
        return FeeRatePerKw(max(estimate * part // whole, min(estimate, RELAY_FLOOR)))


class ChannelPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Our terms and limits. Terms that stand in opening messages are fixed for a channel when it is opened."""

    # terms we offer
    dust_limit: Sat = Sat(354)
    reserve_per_mille: int = 10
    """Share of the capacity that the peer must keep (``channel_reserve_satoshis``), 1/1000."""
    min_reserve: Sat = Sat(1_000)
    to_self_delay: CltvDelta = CltvDelta(144)
    htlc_minimum_msat: Msat = Msat(1)
    max_in_flight_percent: int = 100
    """Share of the capacity that the peer may have in flight to us."""
    max_accepted_htlcs: int = 50
    minimum_depth: int = 6
    """At least 1; only peers of ``trusted_zero_conf`` open with less."""
    announce: bool = False
    channel_types: tuple[ChannelTypeName, ...] = ("anchors", "static_remotekey")
    """Types that we accept. We propose the first of them that the peer has too."""
    # terms we accept
    min_funding: Sat = Sat(20_000)
    max_funding: Sat = Sat(16_777_215)
    """Largest channel without ``option_support_large_channel``; with it ``max_large_funding`` binds."""
    max_large_funding: Sat = Sat(10_0000_0000)
    max_remote_dust_limit: Sat = Sat(10_000)
    max_to_self_delay: CltvDelta = CltvDelta(2_016)
    max_minimum_depth: int = 144
    max_reserve_percent: int = 20
    trusted_zero_conf: tuple[str, ...] = ()
    """Node ids (hex) that may open channels to us whose funding no block has: they could take the money back."""
    # fees
    commitment_feerate: FeeRatePerKw = FeeRatePerKw(0)
    """What our commitments pay, instead of the estimate; 0: follow the estimate."""
    min_feerate: FeeRatePerKw = FeeRatePerKw(253)
    max_feerate_factor: int = 10
    """A feerate, of a peer or of ours, may be at most this multiple of our ``maximum`` estimate."""
    tolerated_feerate: FeeRatePerKw = FeeRatePerKw(6_250)
    """But up to this none is too high (25 sat per virtual byte): estimators differ most when mempools are empty."""
    fee_spike_multiple: int = 2
    close_fee_multiple: int = 2
    """Without simple close: the largest fee that we propose as a funder, a multiple of our target; some take it all."""
    close_fee_margin: Sat = Sat(1_000)
    """But at least so much above the target: a fundee with another idea of the market would have to close alone."""
    # limits
    max_dust_exposure_msat: Msat = Msat(5_000_000)
    offered_htlc_grace: int = 3
    late_proposal_margin: int = 18
    """An HTLC that was never signed for is not offered again this many blocks before its expiry."""
    fulfilled_htlc_margin: int = 18
    """Close when an HTLC that we fulfilled is still there this many blocks before its expiry."""
    claim_margin: int = 36
    """Deliver no HTLC for fulfilment that expires sooner than this; the shell fails it instead."""
    funding_timeout: int = 2_016
    irrevocable_depth: int = 6
    signer_retry_seconds: int = 5
    closing_timeout_seconds: int = 120


def policy_mistake(policy: ChannelPolicy) -> str:
    """What is wrong with it, empty if nothing is; types are right already."""
    for name, value in msgspec.structs.asdict(policy).items():
        if isinstance(value, int) and value < 0:
            return f"{name} must not be negative"
    if not policy.channel_types:
        return "channel_types must name a type"
    for text in policy.trusted_zero_conf:
        if not _NODE_ID.fullmatch(text):
            return f"trusted_zero_conf: {text!r} is no node id (66 hex digits)"
    return ""


_NODE_ID = re.compile("0[23][0-9a-f]{64}")


class Env(msgspec.Struct, frozen=True, kw_only=True):
    """The world as one step sees it. ``now`` is unix seconds; ``entropy`` is 32 fresh random bytes for each step.

    ``features`` are those negotiated with ``peer`` (bits that both offered). Scripts are ours: where shutdowns and
    sweeps pay to.
    """

    now: int
    height: BlockHeight
    feerates: FeeRates
    policy: ChannelPolicy
    entropy: bytes
    chain_hash: bytes
    features: Features
    peer: NodeId
    shutdown_script: bytes
    sweep_script: bytes
    node_id: NodeId = NodeId(b"")
    """Ours."""
    deadline_height: BlockHeight = BlockHeight(0)
    """The highest block that was proved, if the chain that is followed has not come so far: deadlines do not wait."""

    @property
    def trusts_zero_conf(self) -> bool:
        """Whether the peer may open a channel to us that counts before it is in a block (C-026)."""
        return self.peer.hex() in self.policy.trusted_zero_conf

    @property
    def minimum_depth(self) -> int:
        """What we ask of a funding transaction that is the peer's."""
        return max(1, self.policy.minimum_depth)

    def commitment_feerate(self, anchors: bool) -> FeeRatePerKw:
        """What commitments of channels that we fund should pay."""
        wanted = self.policy.commitment_feerate or self.feerates.commitment(anchors)
        return FeeRatePerKw(max(wanted, self.policy.min_feerate))

    @property
    def highest_feerate(self) -> FeeRatePerKw:
        """Above it a commitment's feerate is absurd."""
        policy = self.policy
        return FeeRatePerKw(max(self.feerates.maximum * policy.max_feerate_factor, policy.tolerated_feerate))

    def draw(self, label: bytes) -> bytes:
        """32 random bytes for one purpose of this step."""
        return sha256(self.entropy + label)
