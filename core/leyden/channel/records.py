"""Rows of a channel: which change from one state to the next (``leyden.channel.loading`` is the way back).

Keys: area (one byte), channel id (32), then for HTLCs the offerer (0 us, 1 the peer) and the id (8, big-endian), for
secrets the slot (1). Rows exist from the moment the channel must be remembered (C-093) until it is over.
"""

from operator import attrgetter

from msgspec.structs import replace

from leyden.bitcoin import Transaction
from leyden.channel import rows as r
from leyden.channel.limits import LOCAL, REMOTE
from leyden.channel.state import (
    OPENING,
    TERMINAL,
    Announcement,
    Channel,
    FeeUpdate,
    Lifecycle,
    LiveHtlc,
    Removal,
    Signatures,
    Spend,
    SpendKind,
    Stage,
    Terms,
)
from leyden.commitment import ChannelKeys
from leyden.hooks.types import RecordChanges
from leyden.types import (
    ChannelId,
    Side,
)
from leyden.types.rules import C_093

LIFECYCLES = (
    Lifecycle.AWAIT_CONFIRMATION,
    Lifecycle.NORMAL,
    Lifecycle.CLOSING,
    Lifecycle.FORCE_CLOSING,
    Lifecycle.REMOTE_CLOSED,
    Lifecycle.DATA_LOSS,
)
SPENDS = tuple(SpendKind)
"""Both by position: append only."""

_NOTHING = RecordChanges()

_dynamic_fields = attrgetter(
    "lifecycle",
    "local_ready_sent",
    "remote_ready",
    "local_alias",
    "remote_alias",
    "local_number",
    "local_revoked",
    "remote_number",
    "remote_revoked",
    "revocation_noted",
    "remote_point",
    "remote_next_point",
    "local_point",
    "local_next_point",
    "commitment_sent_last",
    "local_settled",
    "remote_settled",
    "next_local_id",
    "feerate",
    "next_order",
    "closing_tx",
    "spend",
    "failure",
    "refused",
    "local_announcement",
    "remote_announcement",
)


def is_stored(channel: Channel | None) -> bool:
    """Whether this state has rows at all."""
    if channel is None or channel.lifecycle in TERMINAL:
        return False
    return channel.lifecycle not in OPENING and bool(C_093.enabled)


def records(old: Channel | None, new: Channel | None) -> RecordChanges:
    """Rows to put and delete so that the store holds ``new`` where it held ``old``; empty if no row changes."""
    if old is new:
        return _NOTHING
    before = old if is_stored(old) else None
    if new is None or not is_stored(new):
        return RecordChanges(deletes=tuple(_all_keys(before))) if before is not None else _NOTHING
    puts: list[tuple[bytes, bytes]] = []
    deletes: list[bytes] = []
    id = new.channel_id
    if before is None or before.config is not new.config or before.setup is not new.setup:
        puts.append((r.AREA_CONFIG + id, r.encode_row(_config_row(new))))
    _dynamic_changes(before, new, puts)
    signatures = new.funding.signatures
    if signatures is not None and (before is None or before.funding.signatures is not signatures):
        puts.append((r.AREA_SIGNATURES + id, r.encode_row(_signatures_row(signatures))))
    for offerer in (LOCAL, REMOTE):
        _htlc_changes(before, new, offerer, puts, deletes)
    _secret_changes(before, new, puts)
    if not puts and not deletes:
        return _NOTHING
    return RecordChanges(puts=tuple(puts), deletes=tuple(deletes))


def _dynamic_changes(before: Channel | None, new: Channel, puts: list[tuple[bytes, bytes]]) -> None:
    if before is None or _is_dynamic_changed(before, new):
        puts.append((r.AREA_DYNAMIC + new.channel_id, r.encode_row(_dynamic_row(new))))


def _is_dynamic_changed(before: Channel, new: Channel) -> bool:
    """Whether the stored part differs; what is only of this connection does not count."""
    return (
        _dynamic_fields(before) != _dynamic_fields(new)
        or before.funding.confirmation != new.funding.confirmation
        or (before.fee_updates is not new.fee_updates and _stored_fees(before) != _stored_fees(new))
        or (before.shutdown is not new.shutdown and before.shutdown.durable() != new.shutdown.durable())
    )


def _stored_fees(channel: Channel) -> list[FeeUpdate]:
    """Without what the peer proposed and has not signed for."""
    ours = channel.config.local_is_funder
    return [update for update in channel.fee_updates if ours or update.stage != Stage.ADD_PROPOSED]


def _htlc_changes(
    before: Channel | None, new: Channel, offerer: Side, puts: list[tuple[bytes, bytes]], deletes: list[bytes]
) -> None:
    htlcs = new.htlcs(offerer)
    known = before.htlcs(offerer) if before is not None else {}
    if htlcs is known:
        return
    prefix = _htlc_prefix(new.channel_id, offerer)
    for id, htlc in htlcs.items():
        old = known.get(id)
        if old is htlc:
            continue
        form = _stored_form(htlc, offerer)
        if form is not None and (old is None or form != _stored_form(old, offerer)):
            puts.append((prefix + id.to_bytes(8, "big"), r.encode_row(_htlc_row(form))))
    for id, htlc in known.items():
        if id not in htlcs and _stored_form(htlc, offerer) is not None:
            deletes.append(prefix + id.to_bytes(8, "big"))


def _stored_form(htlc: LiveHtlc, offerer: Side) -> LiveHtlc | None:
    """What of an HTLC survives a crash: nothing that the peer proposed and has not signed for (C-092)."""
    if offerer is REMOTE:
        return None if htlc.stage == Stage.ADD_PROPOSED else htlc
    if htlc.stage == Stage.REMOVE_PROPOSED:
        return replace(htlc, stage=int(Stage.COMMITTED), removal=None)
    return htlc


def _secret_changes(before: Channel | None, new: Channel, puts: list[tuple[bytes, bytes]]) -> None:
    secrets = new.secrets.secrets
    known = before.secrets.secrets if before is not None else ()
    if secrets is known:
        return
    for slot, secret in enumerate(secrets):
        if slot >= len(known) or known[slot] != secret:
            key = r.AREA_SECRET + new.channel_id + bytes((slot,))
            puts.append((key, r.encode_row(r.SecretRow(secret=secret))))


def _all_keys(channel: Channel) -> list[bytes]:
    id = channel.channel_id
    keys = [r.AREA_CONFIG + id, r.AREA_DYNAMIC + id]
    if channel.funding.signatures is not None:
        keys.append(r.AREA_SIGNATURES + id)
    for offerer in (LOCAL, REMOTE):
        prefix = _htlc_prefix(id, offerer)
        keys += [
            prefix + h.id.to_bytes(8, "big")
            for h in channel.htlcs(offerer).values()
            if _stored_form(h, offerer) is not None
        ]
    keys += [r.AREA_SECRET + id + bytes((slot,)) for slot in range(len(channel.secrets.secrets))]
    return keys


def _htlc_prefix(id: ChannelId, offerer: Side) -> bytes:
    return r.AREA_HTLC + id + (b"\0" if offerer is LOCAL else b"\1")


def channel_id_of(key: bytes) -> ChannelId:
    """The channel id inside a row key."""
    return ChannelId(key[1:33])


# -- to rows -----------------------------------------------------------------------------------------------------------


def _config_row(channel: Channel) -> r.ConfigRow:
    config, setup = channel.config, channel.setup
    return r.ConfigRow(
        temporary_channel_id=config.temporary_channel_id,
        peer=config.peer,
        keys_id=config.keys_id,
        channel_type=config.channel_type.to_bytes(),
        funding_satoshis=config.funding_satoshis,
        push_msat=config.push_msat,
        initial_feerate=config.initial_feerate,
        local=_stored_terms(config.local),
        remote=_stored_terms(config.remote),
        local_keys=_stored_keys(setup.local_keys),
        remote_keys=_stored_keys(setup.remote_keys),
        minimum_depth=config.minimum_depth,
        opened_height=config.opened_height,
        funding_outpoint=r.StoredOutpoint(txid=setup.funding_outpoint.txid, vout=setup.funding_outpoint.vout),
        local_is_funder=config.local_is_funder,
        announce=config.announce,
        claim_id=config.claim_id,
    )


def _stored_terms(terms: Terms) -> r.StoredTerms:
    return r.StoredTerms(
        dust_limit=terms.dust_limit,
        reserve=terms.reserve,
        htlc_minimum_msat=terms.htlc_minimum_msat,
        max_in_flight_msat=terms.max_in_flight_msat,
        max_accepted_htlcs=terms.max_accepted_htlcs,
        to_self_delay=terms.to_self_delay,
        shutdown_script=terms.shutdown_script,
    )


def _stored_keys(keys: ChannelKeys) -> r.StoredKeys:
    return r.StoredKeys(
        funding_pubkey=keys.funding_pubkey,
        revocation_basepoint=keys.revocation_basepoint,
        payment_basepoint=keys.payment_basepoint,
        delayed_payment_basepoint=keys.delayed_payment_basepoint,
        htlc_basepoint=keys.htlc_basepoint,
    )


def _flags(channel: Channel) -> int:
    state, spend = channel.shutdown, channel.spend
    return (
        r.FLAG_LOCAL_READY * channel.local_ready_sent
        | r.FLAG_REMOTE_READY * channel.remote_ready
        | r.FLAG_COMMITMENT_LAST * channel.commitment_sent_last
        | r.FLAG_SHUTDOWN_WANTED * state.wanted
        | r.FLAG_SHUTDOWN_SENT * state.sent
        | r.FLAG_REMOTE_INITIATED * (state.initiator is REMOTE)
        | r.FLAG_SWEPT * (spend is not None and spend.swept)
    )


def _dynamic_row(channel: Channel) -> r.DynamicRow:
    state, spend, where = channel.shutdown, channel.spend, channel.funding.confirmation
    return r.DynamicRow(
        dance=r.StoredDance(
            lifecycle=LIFECYCLES.index(channel.lifecycle),
            flags=_flags(channel),
            local_number=channel.local_number,
            local_revoked=channel.local_revoked,
            remote_number=channel.remote_number,
            remote_revoked=channel.remote_revoked,
            revocation_noted=channel.revocation_noted,
            remote_point=channel.remote_point,
            local_point=channel.local_point,
            local_next_point=channel.local_next_point,
            local_settled=channel.local_settled,
            remote_settled=channel.remote_settled,
            next_local_id=channel.next_local_id,
            next_remote_id=channel.next_remote_id - channel.remote_uncommitted,
            feerate=channel.feerate,
            next_order=channel.next_order,
        ),
        remote_next_point=channel.remote_next_point or None,
        fee_updates=tuple(r.StoredFee(feerate=u.feerate, stage=u.stage, order=u.order) for u in _stored_fees(channel)),
        confirmation=r.StoredConfirmation(height=where.height, tx_index=where.tx_index) if where else None,
        local_alias=channel.local_alias,
        remote_alias=channel.remote_alias,
        local_script=state.local_script,
        remote_script=state.remote_script,
        close_feerate=state.target_feerate,
        close_max_fee=state.max_fee,
        close_agreed_fee=state.agreed_fee,
        closing_tx=_tx_bytes(channel.closing_tx),
        spend=_stored_spend(spend),
        spend_point=(spend.point or None) if spend is not None else None,
        sweep_vout=spend.sweep_outpoint.vout if spend is not None and spend.sweep_outpoint is not None else None,
        sweep=_tx_bytes(spend.sweep) if spend is not None else b"",
        failure=channel.failure,
        refused="\n".join(channel.refused),
        local_announcement=_stored_announcement(channel.local_announcement),
        remote_announcement=_stored_announcement(channel.remote_announcement),
    )


def _stored_announcement(given: Announcement | None) -> r.StoredAnnouncement | None:
    if given is None:
        return None
    return r.StoredAnnouncement(
        short_channel_id=given.short_channel_id,
        node_signature=given.node_signature,
        bitcoin_signature=given.bitcoin_signature,
    )


def _tx_bytes(tx: Transaction | None) -> bytes:
    return tx.serialize() if tx is not None else b""


def _stored_spend(spend: Spend | None) -> r.StoredSpend | None:
    if spend is None:
        return None
    return r.StoredSpend(
        kind=SPENDS.index(spend.kind),
        height=spend.height,
        number=spend.number,
        sweep_height=spend.sweep_height,
        tx=spend.tx.serialize(),
    )


def _signatures_row(signatures: Signatures) -> r.SignaturesRow:
    return r.SignaturesRow(
        number=signatures.number, signature=signatures.signature, htlc_signatures=signatures.htlc_signatures
    )


def _htlc_row(htlc: LiveHtlc) -> r.HtlcRow:
    removal = htlc.removal or Removal()
    return r.HtlcRow(
        htlc=r.StoredHtlc(
            amount_msat=htlc.amount_msat,
            payment_hash=htlc.payment_hash,
            cltv_expiry=htlc.cltv_expiry,
            stage=htlc.stage,
            order=htlc.order,
        ),
        onion_routing_packet=htlc.onion_routing_packet,
        path_key=htlc.path_key,
        preimage=removal.preimage,
        reason=removal.reason,
        sha256_of_onion=removal.sha256_of_onion,
        failure_code=removal.failure_code,
        must_fail=htlc.must_fail,
    )
