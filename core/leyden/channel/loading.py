"""A channel from its rows: the inverse of ``leyden.channel.records``."""

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import astuple, replace

from leyden.bitcoin import funding_script, p2wsh, parse_transaction
from leyden.channel import rows as r
from leyden.channel.limits import LOCAL, REMOTE, with_computed_totals
from leyden.channel.records import LIFECYCLES, SPENDS
from leyden.channel.stages import is_unsigned
from leyden.channel.state import (
    Announcement,
    Channel,
    Config,
    Confirmation,
    FeeUpdate,
    Funding,
    Link,
    LiveHtlc,
    Removal,
    ShutdownState,
    Signatures,
    Spend,
    Stage,
    Terms,
)
from leyden.commitment import ChannelKeys
from leyden.crypto import FIRST_INDEX, ShachainStore, is_valid_point
from leyden.hooks.signing import ChannelSetup
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
    RecordError,
    Sat,
    ShortChannelId,
    Txid,
)
from leyden.wire.features import Feature, Features
from leyden.wire.stored import DAMAGES


def load(rows: Iterable[tuple[bytes, bytes]]) -> Channel:
    """The channel of these rows (all rows of one channel, any order); ``link`` is down. Tell it ``Restarted`` next.

    ``RecordError`` when rows are missing, damaged, of several channels, or of a newer program.
    """
    by_area: dict[bytes, list[tuple[bytes, bytes]]] = {area: [] for area in r.AREAS}
    ids = set()
    for key, value in sorted(rows):
        area = key[:1]
        if area not in by_area or len(key) != 33 + _SUFFIXES.get(area, 0):
            raise RecordError("CHANNEL", f"{key.hex()} is no key of a channel")
        by_area[area].append((key, value))
        ids.add(key[1:33])
    if len(ids) != 1 or any(len(by_area[area]) != 1 for area in (r.AREA_CONFIG, r.AREA_DYNAMIC, r.AREA_SIGNATURES)):
        names = ", ".join(sorted(id.hex() for id in ids))
        raise RecordError("CHANNEL", f"rows of channel {names} are missing or mixed with others")
    id = ChannelId(ids.pop())
    try:
        return _load(id, by_area)
    except RecordError:
        raise
    except DAMAGES as error:
        raise RecordError("CHANNEL", f"the rows of channel {id.hex()} make no sense ({error})") from error


_SUFFIXES = {r.AREA_HTLC: 9, r.AREA_SECRET: 1}
"""Bytes of a key behind area and channel id."""


def _load(id: ChannelId, by_area: Mapping[bytes, Sequence[tuple[bytes, bytes]]]) -> Channel:
    stored = r.decode_row(r.ConfigRow, by_area[r.AREA_CONFIG][0][1])
    dynamic = r.decode_row(r.DynamicRow, by_area[r.AREA_DYNAMIC][0][1])
    signed = r.decode_row(r.SignaturesRow, by_area[r.AREA_SIGNATURES][0][1])
    channel = _channel(id, stored, dynamic, signed)
    local: dict[int, LiveHtlc] = {}
    remote: dict[int, LiveHtlc] = {}
    for key, value in by_area[r.AREA_HTLC]:
        htlc = _load_htlc(int.from_bytes(key[34:42], "big"), r.decode_row(r.HtlcRow, value))
        (local, remote)[key[33]][htlc.id] = htlc
    secrets = tuple(r.decode_row(r.SecretRow, value).secret for _, value in by_area[r.AREA_SECRET])
    if [key[33] for key, _ in by_area[r.AREA_SECRET]] != list(range(channel.remote_revoked.bit_length())):
        raise RecordError("CHANNEL_SECRET", f"secrets of channel {id.hex()} are missing or too many")
    _check_points(stored, dynamic)
    store = ShachainStore(next_index=FIRST_INDEX - channel.remote_revoked, secrets=secrets)
    channel = replace(channel, local_htlcs=local, remote_htlcs=remote, secrets=store)
    channel = with_computed_totals(channel)
    return replace(channel, unsigned=is_unsigned(channel))


def _check_points(stored: r.ConfigRow, dynamic: r.DynamicRow) -> None:
    """A point that is none would stop the channel much later, in the middle of a step."""
    dance = dynamic.dance
    points = [*astuple(stored.local_keys), *astuple(stored.remote_keys)]
    points += [dance.remote_point, dance.local_point, dance.local_next_point]
    points += [point for point in (dynamic.remote_next_point, dynamic.spend_point) if point is not None]
    for point in points:
        if not is_valid_point(point):
            raise ValueError(f"{point.hex()} is no point")


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
        lifecycle=LIFECYCLES[dance.lifecycle],
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
            FeeUpdate(feerate=FeeRatePerKw(u.feerate), stage=_stage(u.stage, Stage.COMMITTED), order=u.order)
            for u in row.fee_updates
        ),
        next_order=dance.next_order,
        refused=tuple(row.refused.split("\n")) if row.refused else (),
        local_announcement=_load_announcement(row.local_announcement),
        remote_announcement=_load_announcement(row.remote_announcement),
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


def _load_announcement(stored: r.StoredAnnouncement | None) -> Announcement | None:
    if stored is None:
        return None
    return Announcement(
        short_channel_id=ShortChannelId(stored.short_channel_id),
        node_signature=stored.node_signature,
        bitcoin_signature=stored.bitcoin_signature,
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
        anchors=config.channel_type.offers(Feature.OPTION_ANCHORS),
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
        kind=SPENDS[stored.kind],
        number=stored.number,
        point=row.spend_point or b"",
        sweep_outpoint=None if row.sweep_vout is None else OutPoint(tx.txid, row.sweep_vout),
        sweep=parse_transaction(row.sweep) if row.sweep else None,
        swept=bool(row.dance.flags & r.FLAG_SWEPT),
        sweep_height=BlockHeight(stored.sweep_height),
    )


def _stage(number: int, last: Stage) -> int:
    if not Stage.ADD_PROPOSED <= number <= last:
        raise ValueError(f"there is no stage {number}")
    return number


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
        stage=_stage(stored.stage, Stage.REMOVE_SIGNED_BY_OFFERER),
        onion_routing_packet=row.onion_routing_packet,
        path_key=row.path_key,
        removal=removal,
        order=stored.order,
        must_fail=row.must_fail,
    )
