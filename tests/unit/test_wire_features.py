"""Feature bits: what is accepted from a peer (C-138), what we present (C-139), what both have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leyden.wire import EncodeError, WireError
from leyden.wire.features import (
    ANCHORS_ZERO_FEE,
    FEATURES,
    STATIC_REMOTEKEY,
    Context,
    Feature,
    Features,
    base_channel_type,
    channel_type_name,
    check_init_features,
    is_defined_channel_type,
    make_features,
    missing_dependencies,
    negotiated,
    received_features,
)

OURS = Features.of(Feature.BASIC_MPP + 1, Feature.OPTION_ANCHORS + 1, Feature.OPTION_SCID_ALIAS + 1)
ASSUMED = [feature for feature, info in FEATURES.items() if info.assumed]


@given(st.binary(max_size=40))
def test_bitmaps(data: bytes) -> None:
    features = Features.from_bytes(data)
    assert features.to_bytes() == data.lstrip(b"\0")
    assert Features.of(*features) == features
    for bit in features:
        assert features.offers(bit)
        assert features.requires(bit) == (bit % 2 == 0 or bit - 1 in features)


def test_names() -> None:
    assert str(Features()) == "none"
    assert str(Features.of(16, 23, 1000)) == "basic_mpp (required), option_anchors, bit 1000"
    assert len(str(Features.from_bytes(b"\xff" * 65535))) < 2000


@pytest.mark.proves("C-138")
@pytest.mark.parametrize("bit", [2, Feature.OPTION_DUAL_FUND, 100, 5000, 65535 * 8 - 2])
def test_required_feature_that_we_lack(bit: int) -> None:
    with pytest.raises(WireError) as caught:
        check_init_features(OURS, Features.of(bit))
    assert caught.value.rule.id == "C-138"
    assert caught.value.details["offered"] == bit
    with pytest.raises(WireError):
        check_init_features(OURS, Features.of(bit, bit + 1))


def test_optional_feature_that_we_lack() -> None:
    for bit in (3, Feature.OPTION_DUAL_FUND + 1, 101, 5001):
        check_init_features(OURS, Features.of(bit))


def test_required_feature_that_we_offer() -> None:
    for feature in (Feature.BASIC_MPP, Feature.OPTION_ANCHORS, Feature.GOSSIP_QUERIES):
        check_init_features(OURS, Features.of(feature))
        check_init_features(Features.of(feature), Features.of(feature))


@pytest.mark.parametrize("feature", ASSUMED)
def test_assumed_features_are_accepted_either_way(feature: Feature) -> None:
    check_init_features(Features(), Features.of(feature))
    check_init_features(Features(), Features.of(feature + 1))
    assert negotiated(Features(), Features(), feature)


@pytest.mark.proves("C-138")
@pytest.mark.parametrize(
    ("offered", "needed"),
    [
        (Feature.OPTION_ZEROCONF, Feature.OPTION_SCID_ALIAS),
        (Feature.OPTION_SIMPLE_CLOSE, Feature.OPTION_SHUTDOWN_ANYSEGWIT),
        (Feature.OPTION_SIMPLE_TAPROOT, Feature.OPTION_SIMPLE_CLOSE),
    ],
)
def test_feature_without_its_dependency(offered: Feature, needed: Feature) -> None:
    theirs = Features.of(offered + 1)
    assert (offered, needed) in missing_dependencies(theirs)
    with pytest.raises(WireError) as caught:
        check_init_features(OURS, theirs)
    assert caught.value.rule.id == "C-138"


def test_dependency_that_is_assumed() -> None:
    assert missing_dependencies(Features.of(Feature.BASIC_MPP + 1)) == ()


@pytest.mark.proves("C-139")
def test_both_bitmaps_count() -> None:
    both = received_features(bytes.fromhex("020000"), bytes.fromhex("80"))
    assert both == Features.of(17, 7)


def test_a_full_pair_is_required() -> None:
    pair = Features.of(Feature.BASIC_MPP, Feature.BASIC_MPP + 1)
    assert pair.requires(Feature.BASIC_MPP)
    assert pair.offers(Feature.BASIC_MPP)


@pytest.mark.proves("C-139")
def test_what_we_present() -> None:
    wanted = {Feature.BASIC_MPP, Feature.OPTION_ZEROCONF, Feature.OPTION_PAYMENT_METADATA, Feature.VAR_ONION_OPTIN}
    init = make_features(Context.INIT, optional=wanted)
    # Dependencies come along; payment_metadata belongs into invoices only.
    assert set(init) == {9, 15, 17, 47, 51}
    assert missing_dependencies(init) == ()
    invoice = make_features(
        Context.INVOICE,
        optional=[Feature.BASIC_MPP, Feature.OPTION_ANCHORS],
        required=[Feature.PAYMENT_SECRET, Feature.VAR_ONION_OPTIN],
    )
    assert set(invoice) == {8, 14, 17}
    assert invoice.to_bytes().hex() == "024100"


def test_one_bit_of_a_pair() -> None:
    with pytest.raises(EncodeError):
        make_features(Context.INIT, optional=[Feature.BASIC_MPP], required=[Feature.BASIC_MPP])


@given(st.sets(st.sampled_from(Feature)), st.sampled_from([Context.INIT, Context.NODE_ANNOUNCEMENT, Context.INVOICE]))
def test_what_we_present_is_in_order(wanted: set[Feature], context: Context) -> None:
    features = make_features(context, optional=wanted)
    for bit in features:
        info = FEATURES[Feature(bit & ~1)]
        assert (info.contexts | info.former) & context
        assert bit & 1
    assert not features.to_bytes().startswith(b"\0")


def test_negotiated() -> None:
    optional, required = Features.of(Feature.OPTION_SPLICE + 1), Features.of(Feature.OPTION_SPLICE)
    assert negotiated(optional, optional, Feature.OPTION_SPLICE)
    assert negotiated(optional, required, Feature.OPTION_SPLICE)
    assert negotiated(required, Features(), Feature.OPTION_SPLICE)
    assert not negotiated(optional, Features(), Feature.OPTION_SPLICE)
    assert not negotiated(Features(), required, Feature.OPTION_SPLICE)


def test_channel_types() -> None:
    assert Features.of(12, 22) == ANCHORS_ZERO_FEE
    assert Features.of(12) == STATIC_REMOTEKEY
    aliased = ANCHORS_ZERO_FEE | Features.of(Feature.OPTION_SCID_ALIAS)
    assert base_channel_type(aliased) == ANCHORS_ZERO_FEE
    for bits in ((), (13,), (22,), (12, 22, 60), (46,)):
        assert not is_defined_channel_type(Features.of(*bits))
    assert channel_type_name(Features.of(12, 60)).startswith("unknown")
