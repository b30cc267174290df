"""Rows of a channel: which change from one state to the next, and the state from its rows.

Keys: area (one byte), channel id (32), then for HTLCs the offerer (0 us, 1 the peer) and the id (8, big-endian), for
secrets the slot (1). Rows exist from the moment the channel must be remembered (C-093) until it is over.
"""

from collections.abc import Iterable
from operator import attrgetter

from msgspec.structs import replace

from leyden.bitcoin import Transaction, funding_script, p2wsh, parse_transaction
from leyden.channel import rows as r
from leyden.channel.errors import ChannelError, ErrorCode
from leyden.channel.limits import LOCAL, REMOTE, with_computed_totals
from leyden.channel.stages import is_unsigned
from leyden.channel.state import (
    OPENING,
    TERMINAL,
    Channel,
    Config,
    Confirmation,
    FeeUpdate,
    Funding,
    Lifecycle,
    Link,
    LiveHtlc,
    Removal,
    ShutdownState,
    Signatures,
    Spend,
    SpendKind,
    Stage,
    Terms,
)
from leyden.commitment import ChannelKeys
from leyden.crypto import FIRST_INDEX, ShachainStore
from leyden.hooks.signing import ChannelSetup
from leyden.hooks.types import RecordChanges
from leyden.types import (
    BlockHeight,
    ChannelId,
    CltvDelta,
    FeeRatePerKw,
    KeysId,
    Msat,
    NodeId,
    OutPoint,
    PaymentHash,
    Preimage,
    Sat,
    ShortChannelId,
    Side,
    Txid,
)
from leyden.types.rules import C_093
from leyden.wire.features import Features

_LIFECYCLES = (
    Lifecycle.AWAIT_CONFIRMATION,
    Lifecycle.NORMAL,
    Lifecycle.CLOSING,
    Lifecycle.FORCE_CLOSING,
    Lifecycle.REMOTE_CLOSED,
    Lifecycle.DATA_LOSS,
)
_SPENDS = tuple(SpendKind)
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
            lifecycle=_LIFECYCLES.index(channel.lifecycle),
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
    )


def _tx_bytes(tx: Transaction | None) -> bytes:
    return tx.serialize() if tx is not None else b""


def _stored_spend(spend: Spend | None) -> r.StoredSpend | None:
    if spend is None:
        return None
    return r.StoredSpend(
        kind=_SPENDS.index(spend.kind),
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


# -- from rows ---------------------------------------------------------------------------------------------------------


def load(rows: Iterable[tuple[bytes, bytes]]) -> Channel:
    """The channel of these rows (all rows of one channel, any order); ``link`` is down. Tell it ``Restarted`` next.

    ``ChannelError`` (BAD_RECORD) when rows are missing, damaged, of several channels, or of a newer program.
    """
    by_area: dict[bytes, list[tuple[bytes, bytes]]] = {area: [] for area in r.AREAS}
    ids = set()
    for key, value in sorted(rows):
        if key[:1] not in by_area:
            raise ChannelError(ErrorCode.BAD_RECORD, "not a row of a channel", offered=key)
        by_area[key[:1]].append((key, value))
        ids.add(key[1:33])
    if len(ids) != 1 or any(len(by_area[area]) != 1 for area in (r.AREA_CONFIG, r.AREA_DYNAMIC, r.AREA_SIGNATURES)):
        raise ChannelError(ErrorCode.BAD_RECORD, "rows of a channel are missing or mixed with others", offered=len(ids))
    stored = r.decode_row(r.ConfigRow, by_area[r.AREA_CONFIG][0][1])
    dynamic = r.decode_row(r.DynamicRow, by_area[r.AREA_DYNAMIC][0][1])
    signed = r.decode_row(r.SignaturesRow, by_area[r.AREA_SIGNATURES][0][1])
    try:
        channel = _channel(ChannelId(ids.pop()), stored, dynamic, signed)
    except (IndexError, ValueError) as error:
        raise ChannelError(ErrorCode.BAD_RECORD, f"a channel row holds an unknown value: {error}") from error
    local: dict[int, LiveHtlc] = {}
    remote: dict[int, LiveHtlc] = {}
    for key, value in by_area[r.AREA_HTLC]:
        htlc = _load_htlc(int.from_bytes(key[34:42], "big"), r.decode_row(r.HtlcRow, value))
        (remote if key[33] else local)[htlc.id] = htlc
    secrets = tuple(r.decode_row(r.SecretRow, value).secret for _, value in by_area[r.AREA_SECRET])
    store = ShachainStore(next_index=FIRST_INDEX - channel.remote_revoked, secrets=secrets)
    channel = replace(channel, local_htlcs=local, remote_htlcs=remote, secrets=store)
    channel = with_computed_totals(channel)
    return replace(channel, unsigned=is_unsigned(channel))


def _channel(id: ChannelId, stored: r.ConfigRow, row: r.DynamicRow, signed: r.SignaturesRow) -> Channel:
    dance, flags = row.dance, row.dance.flags
    config = _load_config(stored)
    setup = _load_setup(stored, config)
    where = row.confirmation
    funding = Funding(
        setup=setup,
        script=p2wsh(funding_script(setup.local_keys.funding_pubkey, setup.remote_keys.funding_pubkey)),
        confirmation=Confirmation(height=BlockHeight(where.height), tx_index=where.tx_index) if where else None,
        signatures=Signatures(
            number=signed.number, signature=signed.signature, htlc_signatures=tuple(signed.htlc_signatures)
        ),
    )
    return Channel(
        channel_id=id,
        config=config,
        lifecycle=_LIFECYCLES[dance.lifecycle],
        link=Link.DOWN,
        fundings=(funding,),
        local_ready_sent=bool(flags & r.FLAG_LOCAL_READY),
        remote_ready=bool(flags & r.FLAG_REMOTE_READY),
        local_alias=None if row.local_alias is None else ShortChannelId(row.local_alias),
        remote_alias=None if row.remote_alias is None else ShortChannelId(row.remote_alias),
        local_number=dance.local_number,
        local_revoked=dance.local_revoked,
        remote_number=dance.remote_number,
        remote_revoked=dance.remote_revoked,
        revocation_noted=dance.revocation_noted,
        remote_point=dance.remote_point,
        remote_next_point=row.remote_next_point or b"",
        local_point=dance.local_point,
        local_next_point=dance.local_next_point,
        commitment_sent_last=bool(flags & r.FLAG_COMMITMENT_LAST),
        local_settled=Msat(dance.local_settled),
        remote_settled=Msat(dance.remote_settled),
        next_local_id=dance.next_local_id,
        next_remote_id=dance.next_remote_id,
        feerate=FeeRatePerKw(dance.feerate),
        fee_updates=tuple(
            FeeUpdate(feerate=FeeRatePerKw(u.feerate), stage=u.stage, order=u.order) for u in row.fee_updates
        ),
        next_order=dance.next_order,
        refused=tuple(row.refused.split("\n")) if row.refused else (),
        shutdown=ShutdownState(
            wanted=bool(flags & r.FLAG_SHUTDOWN_WANTED),
            sent=bool(flags & r.FLAG_SHUTDOWN_SENT),
            local_script=row.local_script,
            remote_script=row.remote_script,
            initiator=REMOTE if flags & r.FLAG_REMOTE_INITIATED else LOCAL,
            target_feerate=FeeRatePerKw(row.close_feerate),
            max_fee=Sat(row.close_max_fee),
            agreed_fee=None if row.close_agreed_fee is None else Sat(row.close_agreed_fee),
        ),
        closing_tx=parse_transaction(row.closing_tx) if row.closing_tx else None,
        spend=_load_spend(row),
        failure=row.failure,
    )


def _load_config(stored: r.ConfigRow) -> Config:
    return Config(
        temporary_channel_id=ChannelId(stored.temporary_channel_id),
        peer=NodeId(stored.peer),
        keys_id=KeysId(stored.keys_id),
        local_is_funder=stored.local_is_funder,
        channel_type=Features.from_bytes(stored.channel_type),
        announce=stored.announce,
        funding_satoshis=Sat(stored.funding_satoshis),
        push_msat=Msat(stored.push_msat),
        initial_feerate=FeeRatePerKw(stored.initial_feerate),
        local=_load_terms(stored.local),
        remote=_load_terms(stored.remote),
        minimum_depth=stored.minimum_depth,
        opened_height=BlockHeight(stored.opened_height),
        claim_id=stored.claim_id,
    )


def _load_setup(stored: r.ConfigRow, config: Config) -> ChannelSetup:
    outpoint = stored.funding_outpoint
    return ChannelSetup(
        keys_id=config.keys_id,
        anchors=True,
        local_is_funder=config.local_is_funder,
        funding_outpoint=OutPoint(Txid(outpoint.txid), outpoint.vout),
        funding_satoshis=config.funding_satoshis,
        push_msat=config.push_msat,
        local_to_self_delay=config.remote.to_self_delay,
        remote_to_self_delay=config.local.to_self_delay,
        local_dust_limit=config.local.dust_limit,
        remote_dust_limit=config.remote.dust_limit,
        local_keys=_load_keys(stored.local_keys),
        remote_keys=_load_keys(stored.remote_keys),
        local_shutdown_script=config.local.shutdown_script,
        remote_shutdown_script=config.remote.shutdown_script,
    )


def _load_terms(terms: r.StoredTerms) -> Terms:
    return Terms(
        dust_limit=Sat(terms.dust_limit),
        reserve=Sat(terms.reserve),
        htlc_minimum_msat=Msat(terms.htlc_minimum_msat),
        max_in_flight_msat=Msat(terms.max_in_flight_msat),
        max_accepted_htlcs=terms.max_accepted_htlcs,
        to_self_delay=CltvDelta(terms.to_self_delay),
        shutdown_script=terms.shutdown_script,
    )


def _load_keys(keys: r.StoredKeys) -> ChannelKeys:
    return ChannelKeys(
        funding_pubkey=keys.funding_pubkey,
        revocation_basepoint=keys.revocation_basepoint,
        payment_basepoint=keys.payment_basepoint,
        delayed_payment_basepoint=keys.delayed_payment_basepoint,
        htlc_basepoint=keys.htlc_basepoint,
    )


def _load_spend(row: r.DynamicRow) -> Spend | None:
    stored = row.spend
    if stored is None:
        return None
    tx = parse_transaction(stored.tx)
    return Spend(
        tx=tx,
        height=BlockHeight(stored.height),
        kind=_SPENDS[stored.kind],
        number=stored.number,
        point=row.spend_point or b"",
        sweep_outpoint=None if row.sweep_vout is None else OutPoint(tx.txid, row.sweep_vout),
        sweep=parse_transaction(row.sweep) if row.sweep else None,
        swept=bool(row.dance.flags & r.FLAG_SWEPT),
        sweep_height=BlockHeight(stored.sweep_height),
    )


def _load_htlc(id: int, row: r.HtlcRow) -> LiveHtlc:
    removal = None
    if row.preimage is not None or row.reason is not None or row.sha256_of_onion is not None:
        removal = Removal(
            preimage=None if row.preimage is None else Preimage(row.preimage),
            reason=row.reason,
            sha256_of_onion=row.sha256_of_onion,
            failure_code=row.failure_code,
        )
    stored = row.htlc
    return LiveHtlc(
        id=id,
        amount_msat=Msat(stored.amount_msat),
        payment_hash=PaymentHash(stored.payment_hash),
        cltv_expiry=BlockHeight(stored.cltv_expiry),
        stage=stored.stage,
        onion_routing_packet=row.onion_routing_packet,
        path_key=row.path_key,
        removal=removal,
        order=stored.order,
        must_fail=row.must_fail,
    )
