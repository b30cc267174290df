"""The terms of opening v1: what we offer, and what of the peer's we accept (BOLT 2).

Pure checks: they ask no signer and change nothing. A broken line is a ``RuleViolation``.
"""

from leyden.channel.env import Env
from leyden.channel.limits import funder_cost_msat
from leyden.channel.scripts import is_allowed_shutdown_script
from leyden.channel.state import Terms
from leyden.commitment import MAX_HTLCS_PER_SIDE, ChannelKeys
from leyden.crypto import is_valid_point
from leyden.hooks.types import AcceptTerms
from leyden.types import CltvDelta, FeeRatePerKw, Msat, Sat, require
from leyden.types.rules import C_019, C_020, C_021, C_022, C_023, C_024, C_025, C_026, C_027, C_028, C_062
from leyden.wire import AcceptChannel, OpenChannel
from leyden.wire.features import (
    ANCHORS_ZERO_FEE,
    STATIC_REMOTEKEY,
    Feature,
    Features,
    base_channel_type,
)

ANNOUNCE_FLAG = 1
MIN_DUST_LIMIT = Sat(354)
MAX_FUNDING_WITHOUT_FEATURE = 1 << 24


_TYPES = {"anchors": ANCHORS_ZERO_FEE, "static_remotekey": STATIC_REMOTEKEY}
"""By the names in ``ChannelPolicy.channel_types``."""


def usable_channel_types(env: Env) -> tuple[Features, ...]:
    """What policy wants and both nodes have, best first, without variants."""
    types = [_TYPES[name] for name in env.policy.channel_types]
    return tuple(wanted for wanted in types if wanted.bits & ~env.features.bits == 0)


def make_channel_type(env: Env, announce: bool) -> Features | None:
    """The type that we propose: the first usable one, with an alias only where the channel stays private (C-027).

    And only with anchors: LND fails an opening of static_remotekey with it. The alias itself needs no such type.
    """
    usable = usable_channel_types(env)
    if not usable:
        return None
    private_alias = not announce or not C_027.enabled
    if private_alias and usable[0] != STATIC_REMOTEKEY and env.features.offers(Feature.OPTION_SCID_ALIAS):
        return usable[0] | Features.of(Feature.OPTION_SCID_ALIAS)
    return usable[0]


def make_terms(env: Env, funding: Sat, wanted: AcceptTerms | None = None, remote_dust_limit: int = 0) -> Terms:
    """What we demand of the peer in a channel of ``funding`` satoshi; a reserve is never below a dust limit."""
    policy = env.policy
    in_flight = Msat(funding * 1000 * policy.max_in_flight_percent // 100)
    delay = policy.to_self_delay
    if wanted is not None:
        in_flight = in_flight if wanted.max_htlc_value_in_flight_msat is None else wanted.max_htlc_value_in_flight_msat
        delay = delay if wanted.to_self_delay is None else wanted.to_self_delay
    return Terms(
        dust_limit=Sat(max(policy.dust_limit, MIN_DUST_LIMIT)),
        reserve=Sat(
            max(policy.min_reserve, funding * policy.reserve_per_mille // 1000, policy.dust_limit, remote_dust_limit)
        ),
        htlc_minimum_msat=policy.htlc_minimum_msat,
        max_in_flight_msat=in_flight,
        max_accepted_htlcs=min(policy.max_accepted_htlcs, MAX_HTLCS_PER_SIDE),
        to_self_delay=delay,
        shutdown_script=upfront_script(env) or b"",
    )


def upfront_script(env: Env) -> bytes | None:
    """The ``upfront_shutdown_script`` that we send: always there, empty unless negotiated (C-028)."""
    if not C_028.enabled:
        return None
    if not env.features.offers(Feature.OPTION_UPFRONT_SHUTDOWN_SCRIPT):
        return b""
    script = env.shutdown_script
    return script if is_allowed_shutdown_script(script, env.features) else b""


def make_accept(
    env: Env, message: OpenChannel, terms: Terms, depth: int, keys: ChannelKeys, point: bytes
) -> AcceptChannel:
    """Our answer to a proposal that passed ``check_open_channel``."""
    return AcceptChannel(
        temporary_channel_id=message.temporary_channel_id,
        dust_limit_satoshis=terms.dust_limit,
        max_htlc_value_in_flight_msat=terms.max_in_flight_msat,
        channel_reserve_satoshis=terms.reserve,
        htlc_minimum_msat=terms.htlc_minimum_msat,
        minimum_depth=depth,
        to_self_delay=terms.to_self_delay,
        max_accepted_htlcs=terms.max_accepted_htlcs,
        funding_pubkey=keys.funding_pubkey,
        revocation_basepoint=keys.revocation_basepoint,
        payment_basepoint=keys.payment_basepoint,
        delayed_payment_basepoint=keys.delayed_payment_basepoint,
        htlc_basepoint=keys.htlc_basepoint,
        first_per_commitment_point=point,
        upfront_shutdown_script=upfront_script(env),
        channel_type=message.channel_type,
    )


def remote_terms(message: OpenChannel | AcceptChannel) -> Terms:
    return Terms(
        dust_limit=Sat(message.dust_limit_satoshis),
        reserve=Sat(message.channel_reserve_satoshis),
        htlc_minimum_msat=Msat(message.htlc_minimum_msat),
        max_in_flight_msat=Msat(message.max_htlc_value_in_flight_msat),
        max_accepted_htlcs=message.max_accepted_htlcs,
        to_self_delay=CltvDelta(message.to_self_delay),
        shutdown_script=message.upfront_shutdown_script or b"",
    )


def remote_keys(message: OpenChannel | AcceptChannel) -> ChannelKeys:
    return ChannelKeys(
        funding_pubkey=message.funding_pubkey,
        revocation_basepoint=message.revocation_basepoint,
        payment_basepoint=message.payment_basepoint,
        delayed_payment_basepoint=message.delayed_payment_basepoint,
        htlc_basepoint=message.htlc_basepoint,
    )


# -- what we accept ----------------------------------------------------------------------------------------------------


def check_open_channel(message: OpenChannel, env: Env) -> None:
    """``RuleViolation`` (C-019 to C-026) unless this proposal is one we could accept; asks nothing of a signer."""
    policy = env.policy
    require(
        not env.features.offers(Feature.OPTION_DUAL_FUND), C_021, "open_channel although option_dual_fund is negotiated"
    )
    require(
        message.chain_hash == env.chain_hash,
        C_019,
        "unknown chain",
        offered=message.chain_hash,
        allowed=env.chain_hash,
    )
    funding = message.funding_satoshis
    require(message.push_msat <= funding * 1000, C_019, "push_msat above the funding", offered=message.push_msat)
    _check_points(message)
    _check_channel_type(message, env)
    _check_funding(funding, env)
    _check_feerate(message, env)
    _check_demands(message, funding, env)
    ours = make_terms(env, Sat(funding), remote_dust_limit=Sat(message.dust_limit_satoshis))
    _check_dust_limits(remote_terms(message), ours, env)
    _check_first_balances(message, ours)
    _check_upfront_script(message, env)
    require(funding >= policy.min_funding, C_023, "channel too small", offered=funding, allowed=policy.min_funding)


def check_accept_channel(message: AcceptChannel, proposal: OpenChannel, env: Env) -> None:
    """``RuleViolation`` (C-019, C-020, C-023, C-024, C-026) unless the answer fits what we proposed."""
    policy = env.policy
    _check_points(message)
    require(
        message.channel_type == proposal.channel_type,
        C_020,
        "accept_channel has another channel_type",
        offered=message.channel_type or b"",
        allowed=proposal.channel_type or b"",
    )
    zero_conf = Features.from_bytes(proposal.channel_type or b"").offers(Feature.OPTION_ZEROCONF)
    require(
        not zero_conf or message.minimum_depth == 0,
        C_026,
        "zeroconf channel with a minimum_depth",
        offered=message.minimum_depth,
        allowed=0,
    )
    require(
        message.minimum_depth <= policy.max_minimum_depth,
        C_023,
        "minimum_depth too large",
        offered=message.minimum_depth,
        allowed=policy.max_minimum_depth,
    )
    _check_demands(message, proposal.funding_satoshis, env)
    ours = Terms(
        dust_limit=Sat(proposal.dust_limit_satoshis),
        reserve=Sat(proposal.channel_reserve_satoshis),
        htlc_minimum_msat=Msat(proposal.htlc_minimum_msat),
        max_in_flight_msat=Msat(proposal.max_htlc_value_in_flight_msat),
        max_accepted_htlcs=proposal.max_accepted_htlcs,
        to_self_delay=CltvDelta(proposal.to_self_delay),
    )
    _check_dust_limits(remote_terms(message), ours, env)
    _check_upfront_script(message, env)


def _check_points(message: OpenChannel | AcceptChannel) -> None:
    for name in (
        "funding_pubkey",
        "revocation_basepoint",
        "payment_basepoint",
        "delayed_payment_basepoint",
        "htlc_basepoint",
        "first_per_commitment_point",
    ):
        point: bytes = getattr(message, name)
        require(is_valid_point(point), C_019, f"{name} is not a valid compressed key", offered=point)


def _check_channel_type(message: OpenChannel, env: Env) -> None:
    require(message.channel_type is not None, C_020, "open_channel without channel_type")
    channel_type = Features.from_bytes(message.channel_type or b"")
    usable = usable_channel_types(env)
    require(
        base_channel_type(channel_type) in usable,
        C_020,
        "unsuitable channel_type",
        offered=message.channel_type or b"",
        allowed=[wanted.to_bytes().hex() for wanted in usable],
    )
    public = bool(message.channel_flags & ANNOUNCE_FLAG)
    require(
        not (public and channel_type.offers(Feature.OPTION_SCID_ALIAS)), C_020, "scid_alias type on a public channel"
    )
    require(
        not channel_type.offers(Feature.OPTION_ZEROCONF) or env.trusts_zero_conf,
        C_026,
        "zeroconf channel from an opener that is not trusted",
    )
    for variant in (Feature.OPTION_SCID_ALIAS, Feature.OPTION_ZEROCONF):
        known = not channel_type.offers(variant) or env.features.offers(variant)
        require(known, C_020, f"channel_type with {variant.name.lower()}, which was not negotiated")


def _check_funding(funding: int, env: Env) -> None:
    large = env.features.offers(Feature.OPTION_SUPPORT_LARGE_CHANNEL)
    allowed = env.policy.max_large_funding if large else min(env.policy.max_funding, MAX_FUNDING_WITHOUT_FEATURE - 1)
    require(funding <= allowed, C_022, "channel too large", offered=funding, allowed=allowed)


def _anchors(message: OpenChannel) -> bool:
    return Features.from_bytes(message.channel_type or b"").offers(Feature.OPTION_ANCHORS)


def _check_feerate(message: OpenChannel, env: Env) -> None:
    feerate, anchors = message.feerate_per_kw, _anchors(message)
    lowest = max(env.policy.min_feerate, min(env.feerates.least_remote(anchors), env.feerates.commitment(anchors)))
    highest = env.highest_feerate
    require(lowest <= feerate <= highest, C_023, "absurd feerate", offered=feerate, allowed=f"{lowest}..{highest}")


def _check_demands(message: OpenChannel | AcceptChannel, funding: int, env: Env) -> None:
    """What the peer demands of us must leave a channel that is of use."""
    policy = env.policy
    require(
        1 <= message.max_accepted_htlcs <= MAX_HTLCS_PER_SIDE,
        C_023,
        "absurd max_accepted_htlcs",
        offered=message.max_accepted_htlcs,
        allowed=MAX_HTLCS_PER_SIDE,
    )
    require(
        message.to_self_delay <= policy.max_to_self_delay,
        C_023,
        "absurd to_self_delay",
        offered=message.to_self_delay,
        allowed=policy.max_to_self_delay,
    )
    highest = max(funding * policy.max_reserve_percent // 100, policy.min_reserve)
    require(
        message.channel_reserve_satoshis <= highest,
        C_023,
        "absurd channel_reserve_satoshis",
        offered=message.channel_reserve_satoshis,
        allowed=highest,
    )
    require(
        message.htlc_minimum_msat < funding * 1000,
        C_023,
        "absurd htlc_minimum_msat",
        offered=message.htlc_minimum_msat,
        allowed=funding * 1000 - 1,
    )


def _check_dust_limits(theirs: Terms, ours: Terms, env: Env) -> None:
    highest = env.policy.max_remote_dust_limit
    require(
        theirs.dust_limit >= MIN_DUST_LIMIT,
        C_024,
        "dust limit too low",
        offered=theirs.dust_limit,
        allowed=MIN_DUST_LIMIT,
    )
    require(theirs.dust_limit <= highest, C_024, "dust limit too high", offered=theirs.dust_limit, allowed=highest)
    for limit, reserve in (
        (theirs.dust_limit, theirs.reserve),
        (theirs.dust_limit, ours.reserve),
        (ours.dust_limit, theirs.reserve),
        (ours.dust_limit, ours.reserve),
    ):
        require(limit <= reserve, C_024, "dust limit above a channel reserve", offered=limit, allowed=reserve)


def _check_first_balances(message: OpenChannel, ours: Terms) -> None:
    """The funder can pay the first commitment, and at least one side is above the reserve that we demand."""
    cost = funder_cost_msat(_anchors(message), FeeRatePerKw(message.feerate_per_kw), 0)
    funder = message.funding_satoshis * 1000 - message.push_msat - cost
    require(funder >= 0, C_025, "funder cannot pay the first commitment", offered=funder + cost, allowed=cost)
    reserve = ours.reserve * 1000
    require(
        max(funder, message.push_msat) > reserve,
        C_025,
        "both first balances at or below the reserve",
        offered=max(funder, message.push_msat),
        allowed=reserve + 1,
    )


def _check_upfront_script(message: OpenChannel | AcceptChannel, env: Env) -> None:
    script = message.upfront_shutdown_script
    if script:
        allowed = is_allowed_shutdown_script(script, env.features)
        require(allowed, C_062, "upfront shutdown script in a form that is not allowed", offered=script)
