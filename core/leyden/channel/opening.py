"""Opening v1 (BOLT 2): both roles, up to the point where both commitments exist."""

import msgspec

from leyden.channel.effects import Effects
from leyden.channel.env import Env
from leyden.channel.state import Channel
from leyden.hooks.signing import NewChannelKeys
from leyden.hooks.types import AcceptTerms
from leyden.types import FeeRatePerKw, KeysId, Msat, Sat
from leyden.wire import OpenChannel


class OpenParams(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller wants to open. ``claim_id`` names the coins at the wallet; ``feerate`` None: ``anchor_channel``."""

    keys_id: KeysId
    claim_id: str
    funding_satoshis: Sat
    push_msat: Msat = Msat(0)
    announce: bool | None = None
    feerate: FeeRatePerKw | None = None


def open_channel(params: OpenParams, keys: NewChannelKeys, env: Env) -> tuple[Channel, Effects]:
    """Propose a channel. ``ChannelError`` when the parameters cannot work."""
    raise NotImplementedError


def check_open_channel(message: OpenChannel, env: Env) -> None:
    """``RuleViolation`` (C-019..C-027) unless we would accept this proposal; asks nothing of a signer."""
    raise NotImplementedError


def receive_open_channel(
    message: OpenChannel, keys: NewChannelKeys, env: Env, *, keys_id: KeysId, terms: AcceptTerms | None = None
) -> tuple[Channel, Effects]:
    """Accept a proposal that a plugin or the policy agreed to. A bad one gives an ABANDONED channel and an error to the peer."""
    raise NotImplementedError
