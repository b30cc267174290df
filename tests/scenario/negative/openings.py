"""What goes wrong while a channel is opened, in both roles."""

from typing import Any

from leyden.wire import (
    AcceptChannel,
    ChannelReady,
    CommitmentSigned,
    FundingCreated,
    FundingSigned,
    Message,
    OpenChannel,
    Shutdown,
)
from leyden.wire.features import Feature, Features

from tests.scenario.negative.kit import (
    POINT,
    SIGNATURE,
    SIGNATURES,
    UNKNOWN,
    Deed,
    O,
    Place,
    Scene,
    Violation,
    change,
    say,
    spoil,
)
from tests.scenario.sim_kit import BusyNode

ANCHORS = Features.of(Feature.OPTION_STATIC_REMOTEKEY, Feature.OPTION_ANCHORS)
ALIAS = Features.of(Feature.OPTION_SCID_ALIAS)
ZEROCONF = Features.of(Feature.OPTION_ZEROCONF)
P2PKH = b"\x76\xa9\x14" + bytes(20) + b"\x88\xac"
POINTS = (
    "funding_pubkey",
    "revocation_basepoint",
    "payment_basepoint",
    "delayed_payment_basepoint",
    "htlc_basepoint",
    "first_per_commitment_point",
)


def opening(role: str, before: type[Message], without: tuple[Feature, ...], **params: Any) -> Place:
    def place(busy: BusyNode, name: str) -> Scene:
        peer = busy.script(name).without(*without).connect()
        channel = getattr(peer, role)(**params)
        peer.run(channel, before=before)
        return Scene(busy, peer, channel)

    return place


def proposing(before: type[Message] = OpenChannel, without: tuple[Feature, ...] = (), **params: Any) -> Place:
    """The script opens, and is about to send this message."""
    return opening("propose", before, without, **params)


def answering(before: type[Message] = AcceptChannel, without: tuple[Feature, ...] = (), **params: Any) -> Place:
    """The node opens, and the script is about to send this message."""
    return opening("answer", before, without, **params)


def dual_funded(busy: BusyNode, name: str) -> Scene:
    """A node that has negotiated opening v2 (this version never offers it: the test puts it among its features)."""
    scene = proposing()(busy, name)
    peer = busy.core.peers.get(scene.peer.node_id)
    assert peer is not None
    channels = busy.core.channels
    ours, theirs = channels._local_features, peer.features
    both = Features.of(Feature.OPTION_DUAL_FUND + 1)
    channels._local_features = ours | both
    peer.features = theirs | both

    def restore() -> None:
        channels._local_features = ours

    scene.kept["restore"] = restore
    return scene


def then_restore(deed: Deed) -> Deed:
    def done(scene: Scene) -> None:
        try:
            deed(scene)
        finally:
            scene.kept["restore"]()

    return done


SMALL = {"funding_satoshis": 20_000, "channel_reserve_satoshis": 1_000}
OPEN_CHANNEL: list[tuple[str, str, dict[str, Any], str]] = [
    ("C-019", "another chain", {"chain_hash": bytes(32)}, "unknown chain"),
    ("C-019", "a push above the funding", {"push_msat": 1_000_001_000}, "push_msat above the funding"),
    ("C-020", "no channel type", {"channel_type": None}, "without channel_type"),
    ("C-020", "a channel type of an odd bit", {"channel_type": b"\x20\x00"}, "unsuitable channel_type"),
    ("C-020", "a channel type of its own", {"channel_type": b"\x01"}, "unsuitable channel_type"),
    ("C-020", "an empty channel type", {"channel_type": b""}, "unsuitable channel_type"),
    ("C-020", "anchors alone", {"channel_type": Features.of(Feature.OPTION_ANCHORS).to_bytes()}, "unsuitable"),
    (
        "C-020",
        "an alias on a public channel",
        {"channel_type": (ANCHORS | ALIAS).to_bytes(), "channel_flags": 1},
        "scid_alias type on a public channel",
    ),
    ("C-022", "more than we ever take", {"funding_satoshis": 1_000_000_001}, "channel too large"),
    ("C-023", "too many HTLCs", {"max_accepted_htlcs": 484}, "absurd max_accepted_htlcs"),
    ("C-023", "no HTLCs", {"max_accepted_htlcs": 0}, "absurd max_accepted_htlcs"),
    ("C-023", "a delay of months", {"to_self_delay": 65_535}, "absurd to_self_delay"),
    ("C-023", "no fee", {"feerate_per_kw": 0}, "absurd feerate"),
    ("C-023", "the highest fee", {"feerate_per_kw": 2**32 - 1}, "absurd feerate"),
    ("C-023", "a reserve of nearly all", {"channel_reserve_satoshis": 900_000}, "absurd channel_reserve"),
    ("C-023", "an HTLC minimum of all", {"htlc_minimum_msat": 1_000_000_000}, "absurd htlc_minimum"),
    ("C-023", "a tiny channel", SMALL | {"funding_satoshis": 19_999, "push_msat": 0}, "channel too small"),
    ("C-024", "dust below what is relayed", {"dust_limit_satoshis": 353}, "dust limit too low"),
    ("C-024", "dust worth having", {"dust_limit_satoshis": 10_001}, "dust limit too high"),
    ("C-024", "dust worth a lot", {"dust_limit_satoshis": 50_000}, "dust limit too high"),
    ("C-024", "a reserve below our dust", {"channel_reserve_satoshis": 353}, "dust limit above a channel reserve"),
    ("C-024", "a reserve below its dust", {"dust_limit_satoshis": 9_999, "channel_reserve_satoshis": 9_998}, "reserve"),
    ("C-025", "all pushed", {"push_msat": 1_000_000_000}, "funder cannot pay the first commitment"),
    (
        "C-025",
        "a fee that takes more than is left",
        SMALL | {"push_msat": 10_000_000, "feerate_per_kw": 9_000},
        "funder cannot pay the first commitment",
    ),
    (
        "C-025",
        "nothing above the reserve",
        {
            "funding_satoshis": 19_500,
            "dust_limit_satoshis": 3_900,
            "channel_reserve_satoshis": 3_900,
            "push_msat": 3_900_000,
            "feerate_per_kw": 10_000,
        },
        "both first balances at or below the reserve",
    ),
    (
        "C-026",
        "zeroconf without trust",
        {"channel_type": (ANCHORS | ALIAS | ZEROCONF).to_bytes()},
        "not trusted",
    ),
    ("C-062", "an upfront script of one byte", {"upfront_shutdown_script": b"\x51"}, "upfront shutdown script"),
    ("C-062", "an upfront P2PKH", {"upfront_shutdown_script": P2PKH}, "upfront shutdown script"),
]
ACCEPT_CHANNEL: list[tuple[str, str, dict[str, Any], str]] = [
    ("C-020", "another channel type", {"channel_type": b"\x10\x00"}, "another channel_type"),
    ("C-020", "no channel type", {"channel_type": None}, "another channel_type"),
    ("C-023", "no HTLCs", {"max_accepted_htlcs": 0}, "absurd max_accepted_htlcs"),
    ("C-023", "too many HTLCs", {"max_accepted_htlcs": 484}, "absurd max_accepted_htlcs"),
    ("C-023", "a delay of months", {"to_self_delay": 2_017}, "absurd to_self_delay"),
    ("C-023", "a reserve of nearly all", {"channel_reserve_satoshis": 200_001}, "absurd channel_reserve"),
    ("C-023", "an HTLC minimum of all", {"htlc_minimum_msat": 1_000_000_000}, "absurd htlc_minimum"),
    ("C-023", "a depth of weeks", {"minimum_depth": 145}, "minimum_depth too large"),
    ("C-024", "dust below what is relayed", {"dust_limit_satoshis": 353}, "dust limit too low"),
    ("C-024", "dust worth having", {"dust_limit_satoshis": 10_001}, "dust limit too high"),
    ("C-024", "a reserve below our dust", {"channel_reserve_satoshis": 353}, "dust limit above a channel reserve"),
    ("C-062", "an upfront script of one byte", {"upfront_shutdown_script": b"\x51"}, "upfront shutdown script"),
]


def funding_created(scene: Scene) -> Message:
    return FundingCreated(
        temporary_channel_id=scene.channel.channel.config.temporary_channel_id,
        funding_txid=UNKNOWN,
        funding_output_index=0,
        signature=SIGNATURE,
    )


def of_another_channel(scene: Scene) -> None:
    """The funding output of the unrelated channel."""
    txid, vout = scene.busy.channel.setup.funding_outpoint
    scene.peer.send(scene.channel.changed(funding_txid=txid, funding_output_index=vout))


def shutdown(scene: Scene) -> Message:
    return Shutdown(channel_id=scene.id, scriptpubkey=b"\x00\x14" + bytes(20))


ZERO_CONF_DEPTH = "zeroconf channel with a minimum_depth"
OPENINGS: tuple[Violation, ...] = (
    *(
        Violation(rule, name, proposing(), change(**fields), O.REFUSED, says)
        for rule, name, fields, says in OPEN_CHANNEL
    ),
    *(
        Violation(rule, f"{name} in accept_channel", answering(), change(**fields), O.REFUSED, says)
        for rule, name, fields, says in ACCEPT_CHANNEL
    ),
    Violation("C-021", "v1 although v2 is negotiated", dual_funded, then_restore(change()), O.REFUSED, "dual_fund"),
    Violation(
        "C-022",
        "large without the feature",
        proposing(without=(Feature.OPTION_SUPPORT_LARGE_CHANNEL,)),
        change(funding_satoshis=2**24, channel_reserve_satoshis=160_000),
        O.REFUSED,
        "channel too large",
    ),
    Violation(
        "C-020",
        "an alias that was not negotiated",
        proposing(without=(Feature.OPTION_SCID_ALIAS, Feature.OPTION_ZEROCONF)),
        change(channel_type=(ANCHORS | ALIAS).to_bytes()),
        O.REFUSED,
        "not negotiated",
    ),
    Violation(
        "C-026", "a depth for zeroconf", answering(zero_conf=True), change(minimum_depth=1), O.REFUSED, ZERO_CONF_DEPTH
    ),
    *(
        Violation("C-030", f"{name} in {message.NAME}", place(message), spoil("signature", how), O.REFUSED, "signature")
        for place, message in ((proposing, FundingCreated), (answering, FundingSigned))
        for name, how in SIGNATURES
    ),
    Violation(
        "",
        "the funding of another channel",
        proposing(FundingCreated),
        of_another_channel,
        O.REFUSED,
        "another channel",
    ),
    Violation("C-060", "shutdown before funding", proposing(FundingCreated), say(shutdown), O.REFUSED, "shutdown"),
    Violation("C-060", "shutdown after accept_channel", answering(FundingSigned), say(shutdown), O.REFUSED, "shutdown"),
    Violation("", "funding_created to the funder", answering(), say(funding_created), O.REFUSED, "not expected"),
    Violation(
        "",
        "commitment_signed before funding",
        proposing(FundingCreated),
        say(lambda s: CommitmentSigned(channel_id=s.id, signature=SIGNATURE, htlc_signature=())),
        O.REFUSED,
        "not expected",
    ),
    Violation(
        "",
        "channel_ready before funding",
        proposing(FundingCreated),
        say(lambda s: ChannelReady(channel_id=s.id, second_per_commitment_point=POINT)),
        O.REFUSED,
        "not expected",
    ),
)
