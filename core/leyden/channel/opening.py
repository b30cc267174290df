"""Opening v1 (BOLT 2): both roles, up to the point where both first commitments exist."""

import msgspec
from msgspec.structs import replace

from leyden.bitcoin import TxOut, funding_script, p2wsh
from leyden.channel.effects import Broadcast, Effects, FundingAbandoned, FundingNeeded, Send, Watch
from leyden.channel.env import Env
from leyden.channel.errors import ChannelError, ErrorCode
from leyden.channel.events import ProvideFunding
from leyden.channel.limits import LOCAL, REMOTE, funder_cost_msat, has_anchors, with_computed_totals
from leyden.channel.proposals import (
    ANNOUNCE_FLAG,
    check_accept_channel,
    check_open_channel,
    make_accept,
    make_channel_type,
    make_terms,
    remote_keys,
    remote_terms,
    upfront_script,
)
from leyden.channel.ready import ready_if_due
from leyden.channel.state import Channel, Config, Funding, Lifecycle, Link, Signatures
from leyden.channel.turn import Turn, one_line
from leyden.channel.views import signed_view
from leyden.commitment import ChannelKeys, make_commitment
from leyden.crypto import ecdsa_verify
from leyden.hooks.signing import (
    ChannelSetup,
    CommitmentSignatures,
    NewChannelKeys,
    SignCounterpartyCommitment,
    ValidateHolderCommitment,
    commitment_params,
)
from leyden.hooks.types import AcceptTerms, BroadcastKind, ChannelPending, OpenFailed
from leyden.types import (
    ChannelId,
    FeeRatePerKw,
    KeysId,
    Msat,
    OutPoint,
    RuleViolation,
    Sat,
    ShortChannelId,
    Txid,
    require,
)
from leyden.types.rules import C_022, C_026, C_030, C_031, C_033
from leyden.wire import AcceptChannel, ErrorMessage, FundingCreated, FundingSigned, OpenChannel
from leyden.wire.features import Feature, Features

OP_SIGN = "sign_counterparty"
OP_VALIDATE = "validate_holder"


class OpenParams(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller wants to open. ``claim_id`` names the coins at the wallet; ``feerate`` None: as estimated."""

    keys_id: KeysId
    claim_id: str
    funding_satoshis: Sat
    push_msat: Msat = Msat(0)
    announce: bool | None = None
    feerate: FeeRatePerKw | None = None
    zero_conf: bool = False
    """Usable at once, if the peer trusts us that much."""


def channel_id_of(outpoint: OutPoint) -> ChannelId:
    """The funding txid with its last two bytes XOR the output index (BOLT 2)."""
    txid, vout = outpoint
    if not C_031.enabled:
        return ChannelId(txid)
    return ChannelId(txid[:30] + (int.from_bytes(txid[30:], "big") ^ vout).to_bytes(2, "big"))


# -- funder ------------------------------------------------------------------------------------------------------------


def open_channel(params: OpenParams, keys: NewChannelKeys, env: Env) -> tuple[Channel, Effects]:
    """Propose a channel. ``ChannelError`` when the parameters cannot work."""
    policy = env.policy
    funding = params.funding_satoshis
    announce = policy.announce if params.announce is None else params.announce
    channel_type = _wanted_type(params, announce, env)
    anchors = channel_type.offers(Feature.OPTION_ANCHORS)
    feerate = params.feerate or env.commitment_feerate(anchors)
    terms = make_terms(env, funding)
    _check_params(params, anchors, feerate, terms.reserve, env)
    message = OpenChannel(
        chain_hash=env.chain_hash,
        temporary_channel_id=env.draw(b"temporary_channel_id"),
        funding_satoshis=funding,
        push_msat=params.push_msat,
        dust_limit_satoshis=terms.dust_limit,
        max_htlc_value_in_flight_msat=terms.max_in_flight_msat,
        channel_reserve_satoshis=terms.reserve,
        htlc_minimum_msat=terms.htlc_minimum_msat,
        feerate_per_kw=feerate,
        to_self_delay=terms.to_self_delay,
        max_accepted_htlcs=terms.max_accepted_htlcs,
        funding_pubkey=keys.keys.funding_pubkey,
        revocation_basepoint=keys.keys.revocation_basepoint,
        payment_basepoint=keys.keys.payment_basepoint,
        delayed_payment_basepoint=keys.keys.delayed_payment_basepoint,
        htlc_basepoint=keys.keys.htlc_basepoint,
        first_per_commitment_point=keys.first_point,
        channel_flags=ANNOUNCE_FLAG if announce else 0,
        upfront_shutdown_script=upfront_script(env),
        channel_type=channel_type.to_bytes(),
    )
    config = Config(
        temporary_channel_id=ChannelId(message.temporary_channel_id),
        peer=env.peer,
        keys_id=params.keys_id,
        local_is_funder=True,
        channel_type=channel_type,
        announce=announce,
        funding_satoshis=funding,
        push_msat=params.push_msat,
        initial_feerate=feerate,
        local=terms,
        remote=terms,
        minimum_depth=0,
        opened_height=env.height,
        claim_id=params.claim_id,
    )
    channel = Channel(
        channel_id=config.temporary_channel_id,
        config=config,
        lifecycle=Lifecycle.AWAIT_ACCEPT,
        local_keys=keys,
        proposal=message,
        feerate=feerate,
        local_point=keys.first_point,
        local_next_point=keys.second_point,
    )
    return channel, (Send(message=message),)


def _wanted_type(params: OpenParams, announce: bool, env: Env) -> Features:
    wanted = make_channel_type(env, announce)
    if wanted is None:
        raise ChannelError(
            ErrorCode.BAD_PARAMETERS,
            "the peer has none of our channel types",
            offered=str(env.features),
            allowed=", ".join(env.policy.channel_types),
        )
    if not params.zero_conf:
        return wanted
    if not env.features.offers(Feature.OPTION_ZEROCONF):
        raise ChannelError(ErrorCode.BAD_PARAMETERS, "the peer does not offer option_zeroconf")
    return wanted | Features.of(Feature.OPTION_ZEROCONF)


def _check_params(params: OpenParams, anchors: bool, feerate: FeeRatePerKw, reserve: Sat, env: Env) -> None:
    policy, funding = env.policy, params.funding_satoshis
    large = env.features.offers(Feature.OPTION_SUPPORT_LARGE_CHANNEL) or not C_022.enabled
    most = policy.max_large_funding if large else policy.max_funding
    if not policy.min_funding <= funding <= most:
        raise ChannelError(
            ErrorCode.BAD_FUNDING,
            "channel size out of bounds",
            offered=funding,
            allowed=f"{policy.min_funding}..{most}",
        )
    if env.features.offers(Feature.OPTION_DUAL_FUND):
        raise ChannelError(ErrorCode.BAD_PARAMETERS, "the peer wants opening v2 (option_dual_fund)")
    highest = env.highest_feerate
    if not policy.min_feerate <= feerate <= highest:
        raise ChannelError(
            ErrorCode.BAD_FEERATE, "feerate out of bounds", offered=feerate, allowed=f"{policy.min_feerate}..{highest}"
        )
    if not 0 <= params.push_msat <= funding * 1000:
        raise ChannelError(ErrorCode.BAD_PARAMETERS, "push_msat above the funding", offered=params.push_msat)
    ours = funding * 1000 - params.push_msat - funder_cost_msat(anchors, feerate, 0)
    if ours < reserve * 1000:
        raise ChannelError(
            ErrorCode.INSUFFICIENT_BALANCE,
            "after the push our balance would not cover fees and reserve",
            offered=ours,
            allowed=reserve * 1000,
        )


def on_accept_channel(turn: Turn, message: AcceptChannel) -> None:
    channel, proposal = turn.channel, turn.channel.proposal
    if proposal is None:
        return
    check_accept_channel(message, proposal, turn.env)
    config = replace(channel.config, remote=remote_terms(message), minimum_depth=message.minimum_depth)
    keys = remote_keys(message)
    turn.set(
        config=config,
        remote_keys=keys,
        remote_point=message.first_per_commitment_point,
        lifecycle=Lifecycle.AWAIT_FUNDING,
        proposal=None,
    )
    turn.deliver(
        FundingNeeded(
            claim_id=config.claim_id,
            script=p2wsh(funding_script(_local_keys(channel).keys.funding_pubkey, keys.funding_pubkey)),
            amount=config.funding_satoshis,
        )
    )


def on_provide_funding(turn: Turn, command: ProvideFunding) -> None:
    """The wallet built the funding transaction: have the signer sign the peer's first commitment."""
    channel = turn.channel
    tx, vout = command.tx, command.vout
    keys = channel.remote_keys
    if keys is None:
        raise ChannelError(ErrorCode.WRONG_STATE, "the terms are not agreed yet")
    script = p2wsh(funding_script(_local_keys(channel).keys.funding_pubkey, keys.funding_pubkey))
    wanted = TxOut(value=channel.config.funding_satoshis, script=script)
    if not 0 <= vout < min(len(tx.outputs), 1 << 16) or tx.outputs[vout] != wanted:
        raise ChannelError(
            ErrorCode.BAD_FUNDING,
            "that output does not pay the funding script",
            offered=vout,
            allowed=f"{wanted.value} sat to {script.hex()}",
        )
    if not all(txin.witness and not txin.script_sig for txin in tx.inputs):
        raise ChannelError(ErrorCode.BAD_FUNDING, "funding inputs must be signed segwit inputs (their txid is final)")
    _fund(turn, OutPoint(Txid(tx.txid), vout), script, keys)
    turn.set(funding_tx=tx, lifecycle=Lifecycle.FUNDER_SIGNING)
    turn.ask(first_signature_request(turn))


def _local_keys(channel: Channel) -> NewChannelKeys:
    if channel.local_keys is None:
        raise ChannelError(ErrorCode.WRONG_STATE, "the channel is already open")
    return channel.local_keys


def _fund(turn: Turn, outpoint: OutPoint, script: bytes, keys: ChannelKeys) -> None:
    """From here on the funding outpoint is known: the channel gets its id, its setup and its first balances."""
    channel, config = turn.channel, turn.channel.config
    setup = ChannelSetup(
        keys_id=config.keys_id,
        anchors=has_anchors(channel),
        local_is_funder=config.local_is_funder,
        funding_outpoint=outpoint,
        funding_satoshis=config.funding_satoshis,
        push_msat=config.push_msat,
        local_to_self_delay=config.remote.to_self_delay,
        remote_to_self_delay=config.local.to_self_delay,
        local_dust_limit=config.local.dust_limit,
        remote_dust_limit=config.remote.dust_limit,
        local_keys=_local_keys(channel).keys,
        remote_keys=keys,
        local_shutdown_script=config.local.shutdown_script,
        remote_shutdown_script=config.remote.shutdown_script,
    )
    funder_msat = config.funding_satoshis * 1000 - config.push_msat
    local, remote = (funder_msat, config.push_msat) if config.local_is_funder else (config.push_msat, funder_msat)
    turn.set(
        channel_id=channel_id_of(outpoint),
        fundings=(Funding(setup=setup, script=script),),
        local_settled=Msat(local),
        remote_settled=Msat(remote),
    )
    turn.channel = with_computed_totals(turn.channel)


def first_signature_request(turn: Turn) -> SignCounterpartyCommitment:
    return SignCounterpartyCommitment(
        request_id=turn.request_id(OP_SIGN, 0), setup=turn.channel.setup, view=signed_view(turn.channel, REMOTE)
    )


def on_first_signature(turn: Turn, answer: CommitmentSignatures) -> None:
    """The peer's first commitment is signed: hand the signature over."""
    channel = turn.channel
    if channel.config.local_is_funder:
        outpoint = channel.setup.funding_outpoint
        turn.send_now(
            FundingCreated(
                temporary_channel_id=channel.config.temporary_channel_id,
                funding_txid=outpoint.txid,
                funding_output_index=outpoint.vout,
                signature=answer.signature,
            )
        )
        turn.set(lifecycle=Lifecycle.AWAIT_FUNDING_SIGNED)
        return
    turn.send_now(FundingSigned(channel_id=channel.channel_id, signature=answer.signature))
    _funded(turn)


def on_funding_signed(turn: Turn, message: FundingSigned) -> None:
    _take_first_signature(turn, message.signature)
    turn.set(lifecycle=Lifecycle.FUNDER_VALIDATING)


def _take_first_signature(turn: Turn, signature: bytes) -> None:
    """Check the peer's signature on our first commitment (C-030) and have the signer note it."""
    channel = turn.channel
    view = signed_view(channel, LOCAL)
    params = commitment_params(channel.setup, LOCAL)
    commitment = make_commitment(
        params, view.number, view.per_commitment_point, view.owner_msat, view.other_msat, (), view.feerate
    )
    require(
        ecdsa_verify(channel.setup.remote_keys.funding_pubkey, commitment.sighash, signature),
        C_030,
        "bad signature on the first commitment",
        txid=commitment.txid[::-1],
    )
    signatures = Signatures(number=0, signature=signature)
    turn.set(fundings=(replace(channel.funding, signatures=signatures),))
    turn.ask(
        ValidateHolderCommitment(
            request_id=turn.request_id(OP_VALIDATE, 0),
            setup=channel.setup,
            view=view,
            signature=signature,
            htlc_signatures=(),
        )
    )


def on_first_validated(turn: Turn) -> None:
    """The signer knows our first commitment: the funder broadcasts (C-031), the fundee has the peer's signed."""
    channel = turn.channel
    if not channel.config.local_is_funder:
        turn.ask(first_signature_request(turn))
        return
    tx = channel.funding_tx
    if tx is not None:
        turn.emit(Broadcast(tx=tx, kind=BroadcastKind.FUNDING, spent=()))
    turn.set(funding_tx=None)
    _funded(turn)


def _funded(turn: Turn) -> None:
    """Both first commitments exist: the channel is remembered from here on (C-093)."""
    channel, config = turn.channel, turn.channel.config
    outpoint = channel.setup.funding_outpoint
    alias = None
    if not C_033.enabled:
        alias = ShortChannelId(int.from_bytes(outpoint.txid[:8], "big"))
    elif turn.env.features.offers(Feature.OPTION_SCID_ALIAS) or config.channel_type.offers(Feature.OPTION_SCID_ALIAS):
        alias = ShortChannelId(int.from_bytes(turn.env.draw(b"alias")[:8], "big") or 1)
    turn.set(lifecycle=Lifecycle.AWAIT_CONFIRMATION, local_keys=None, remote_keys=None, local_alias=alias)
    turn.emit(Watch(script=channel.funding.script, outpoint=outpoint))
    turn.publish(
        ChannelPending(
            channel_id=channel.channel_id,
            node_id=config.peer,
            funding_txid=outpoint.txid,
            funding_vout=outpoint.vout,
            capacity_sat=config.funding_satoshis,
        )
    )
    ready_if_due(turn)


# -- fundee ------------------------------------------------------------------------------------------------------------


def receive_open_channel(
    message: OpenChannel, keys: NewChannelKeys, env: Env, *, keys_id: KeysId, terms: AcceptTerms | None = None
) -> tuple[Channel, Effects]:
    """Accept a proposal that the policy or a plugin agreed to.

    A proposal that breaks a rule gives an ABANDONED channel and an error to the peer.
    """
    funding = Sat(message.funding_satoshis)
    ours = make_terms(env, funding, terms, Sat(message.dust_limit_satoshis))
    channel_type = Features.from_bytes(message.channel_type or b"")
    depth = env.minimum_depth if terms is None or terms.minimum_depth is None else terms.minimum_depth
    if channel_type.offers(Feature.OPTION_ZEROCONF) and C_026.enabled:
        depth = 0
    config = Config(
        temporary_channel_id=ChannelId(message.temporary_channel_id),
        peer=env.peer,
        keys_id=keys_id,
        local_is_funder=False,
        channel_type=channel_type,
        announce=bool(message.channel_flags & ANNOUNCE_FLAG),
        funding_satoshis=funding,
        push_msat=Msat(message.push_msat),
        initial_feerate=FeeRatePerKw(message.feerate_per_kw),
        local=ours,
        remote=remote_terms(message),
        minimum_depth=depth,
        opened_height=env.height,
    )
    channel = Channel(
        channel_id=config.temporary_channel_id,
        config=config,
        lifecycle=Lifecycle.AWAIT_FUNDING_CREATED,
        local_keys=keys,
        remote_keys=remote_keys(message),
        feerate=config.initial_feerate,
        local_point=keys.first_point,
        local_next_point=keys.second_point,
        remote_point=message.first_per_commitment_point,
    )
    try:
        check_open_channel(message, env)
    except RuleViolation as violation:
        text = one_line(violation)
        error = ErrorMessage(channel_id=channel.channel_id, data=text.encode())
        return replace(channel, lifecycle=Lifecycle.ABANDONED, failure=text), (Send(message=error),)
    answer = make_accept(env, message, ours, depth, keys.keys, keys.first_point)
    return channel, (Send(message=answer),)


def on_funding_created(turn: Turn, message: FundingCreated) -> None:
    channel = turn.channel
    keys = channel.remote_keys
    if keys is None:
        return
    script = p2wsh(funding_script(_local_keys(channel).keys.funding_pubkey, keys.funding_pubkey))
    _fund(turn, OutPoint(Txid(message.funding_txid), message.funding_output_index), script, keys)
    _take_first_signature(turn, message.signature)
    turn.set(lifecycle=Lifecycle.FUNDEE_SIGNING)


# -- giving up ---------------------------------------------------------------------------------------------------------


def abandon(turn: Turn, text: str) -> None:
    """Forget a channel that was never funded; the coins chosen for it are free again."""
    channel = turn.channel
    claim = channel.config.claim_id
    turn.set(lifecycle=Lifecycle.ABANDONED, failure=text, link=Link.DOWN, outbox=(), pending=())
    if claim:
        turn.deliver(FundingAbandoned(claim_id=claim))
    turn.publish(OpenFailed(channel_id=channel.channel_id, node_id=channel.config.peer, reason=text))


__all__ = [
    "OpenParams",
    "abandon",
    "channel_id_of",
    "check_open_channel",
    "first_signature_request",
    "on_accept_channel",
    "on_first_signature",
    "on_first_validated",
    "on_funding_created",
    "on_funding_signed",
    "on_provide_funding",
    "open_channel",
    "receive_open_channel",
]
