"""Transactions: parsing and writing are inverse, garbage is refused with ``BitcoinError`` only."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.bitcoin import (
    SEQUENCE_RBF,
    BitcoinError,
    Transaction,
    TxIn,
    TxOut,
    finalize_hooks,
    finalize_transaction,
    p2pkh,
    p2wpkh,
    parse_transaction,
    read_transaction,
    read_varint,
    serialize_outpoint,
    write_varint,
)
from leyden.bitcoin.script import P2A_SCRIPT
from leyden.types import MAX_MONEY_SAT, OutPoint, Sat, Txid

u32 = st.integers(0, 2**32 - 1)
outpoints = st.builds(OutPoint, st.binary(min_size=32, max_size=32).map(Txid), u32)
witnesses = st.lists(st.binary(max_size=80), max_size=4).map(tuple)
inputs = st.builds(TxIn, prevout=outpoints, script_sig=st.binary(max_size=300), sequence=u32, witness=witnesses)
outputs = st.builds(TxOut, value=st.integers(0, MAX_MONEY_SAT).map(Sat), script=st.binary(max_size=300))
transactions = st.builds(
    Transaction,
    version=u32,
    inputs=st.lists(inputs, min_size=1, max_size=4).map(tuple),
    outputs=st.lists(outputs, max_size=4).map(tuple),
    locktime=u32,
)

PREVOUT = OutPoint(Txid(bytes(range(32))), 7)
SIGNED = Transaction(
    version=2,
    inputs=(TxIn(prevout=PREVOUT, sequence=SEQUENCE_RBF, witness=(b"signature", b"key")),),
    outputs=(TxOut(value=Sat(1000), script=b"\x51"),),
    locktime=0,
)


@settings(deadline=None, max_examples=100)
@given(transactions)
def test_round_trip(tx: Transaction) -> None:
    raw = tx.serialize()
    again = parse_transaction(raw)
    assert again == tx
    assert again.serialize() == raw
    assert again.txid == tx.txid
    assert (tx.txid == tx.wtxid) == (not tx.has_witness)
    assert read_transaction(b"xx" + raw + b"yy", 2) == (tx, 2 + len(raw))
    unsigned = parse_transaction(tx.serialize_legacy())
    assert unsigned.txid == tx.txid
    assert not unsigned.has_witness


@settings(deadline=None, max_examples=30)
@given(transactions, st.data())
def test_cut_off_anywhere(tx: Transaction, data: st.DataObject) -> None:
    raw = tx.serialize()
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(BitcoinError):
        parse_transaction(raw[:cut])
    with pytest.raises(BitcoinError, match="too many"):
        parse_transaction(raw + b"\0")


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=120) | st.binary(max_size=80).map(lambda b: bytes.fromhex("0200000001") + bytes(36) + b))
def test_garbage(raw: bytes) -> None:
    try:
        tx = parse_transaction(raw)
    except BitcoinError:
        return
    assert tx.serialize() == raw


@settings(deadline=None, max_examples=200)
@given(transactions, st.data())
def test_changed_byte(tx: Transaction, data: st.DataObject) -> None:
    raw = bytearray(tx.serialize())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        again = parse_transaction(bytes(raw))
    except BitcoinError:
        return
    assert again.serialize() == bytes(raw)


def _raw(*, marker: str = "", inputs: str, outputs: str, witness: str = "") -> bytes:
    return bytes.fromhex("02000000" + marker + inputs + outputs + witness + "00000000")


ONE_INPUT = "01" + "11" * 32 + "00000000" + "00" + "ffffffff"
ONE_OUTPUT = "01" + "e803000000000000" + "0151"


def test_smallest() -> None:
    tx = parse_transaction(_raw(inputs=ONE_INPUT, outputs=ONE_OUTPUT))
    assert (tx.version, len(tx.inputs), tx.outputs[0].value, tx.locktime) == (2, 1, 1000, 0)
    assert parse_transaction(_raw(marker="0001", inputs=ONE_INPUT, outputs=ONE_OUTPUT, witness="0101aa")).has_witness


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (_raw(inputs="00", outputs=ONE_OUTPUT), "no inputs|end of data"),
        (_raw(inputs="00", outputs="00"), "no inputs"),
        (_raw(marker="0001", inputs="00", outputs=ONE_OUTPUT, witness=""), "needs an input"),
        (_raw(marker="0002", inputs=ONE_INPUT, outputs=ONE_OUTPUT, witness="0101aa"), "unknown extension"),
        (_raw(marker="0001", inputs=ONE_INPUT, outputs=ONE_OUTPUT, witness="00"), "all are empty"),
        (_raw(inputs="fd0100" + ONE_INPUT[2:], outputs=ONE_OUTPUT), "shortest form"),
        (_raw(inputs=ONE_INPUT, outputs="01" + "014007 5af0750700".replace(" ", "") + "0151"), "cannot hold"),
        (_raw(inputs=ONE_INPUT, outputs="01" + "ff" * 8 + "0151"), "cannot hold"),
        (_raw(inputs="ff" + "ff" * 8 + ONE_INPUT[2:], outputs=ONE_OUTPUT), "end of data"),
        (_raw(inputs=ONE_INPUT, outputs="01" + "e803000000000000" + "fe00000080" + "51"), "end of data"),
        (b"", "end of data"),
        (bytes(4), "end of data"),
        (bytes(5), "end of data"),
    ],
)
def test_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(BitcoinError, match=reason):
        parse_transaction(raw)


def _changed(**fields: object) -> Transaction:
    values = {name: getattr(SIGNED, name) for name in SIGNED.__struct_fields__}
    return Transaction(**{**values, **fields})


@pytest.mark.parametrize(
    "tx",
    [
        _changed(inputs=()),
        _changed(version=-1),
        _changed(version=2**32),
        _changed(locktime=2**32),
        _changed(outputs=(TxOut(value=Sat(-1), script=b""),)),
        _changed(outputs=(TxOut(value=Sat(MAX_MONEY_SAT + 1), script=b""),)),
        _changed(inputs=(TxIn(prevout=PREVOUT, sequence=2**32),)),
        _changed(inputs=(TxIn(prevout=OutPoint(Txid(bytes(31)), 0), sequence=0),)),
        _changed(inputs=(TxIn(prevout=OutPoint(PREVOUT.txid, -1), sequence=0),)),
    ],
)
def test_unwritable(tx: Transaction) -> None:
    for call in (tx.serialize, tx.serialize_legacy):
        with pytest.raises(BitcoinError):
            call()


def test_ids_take_no_part_in_comparison() -> None:
    fresh = _changed()
    assert SIGNED.txid
    assert fresh == SIGNED
    assert hash(fresh) == hash(SIGNED)
    assert _changed(version=3) != SIGNED
    assert _changed(version=3).txid != SIGNED.txid
    with pytest.raises(AttributeError):
        SIGNED.version = 3


def test_sizes() -> None:
    assert SIGNED.weight == 4 * len(SIGNED.serialize_legacy()) + 2 + 1 + 1 + 9 + 1 + 3
    assert SIGNED.vsize == -(-SIGNED.weight // 4)
    assert not SIGNED.is_coinbase
    null = OutPoint(Txid(bytes(32)), 0xFFFFFFFF)
    assert _changed(inputs=(TxIn(prevout=null, sequence=0),)).is_coinbase
    assert serialize_outpoint(PREVOUT) == PREVOUT.txid + bytes((7, 0, 0, 0))


# --- variable-length integers


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1) | st.sampled_from([0, 0xFC, 0xFD, 0xFFFF, 0x10000, 0xFFFFFFFF, 2**32, 2**64 - 1]))
def test_varint(value: int) -> None:
    data = write_varint(value)
    assert read_varint(b"x" + data + b"y", 1) == (value, 1 + len(data))
    for cut in range(len(data)):
        with pytest.raises(BitcoinError, match="end of data"):
            read_varint(data[:cut])


@pytest.mark.parametrize("data", ["fdfc00", "fd0000", "feffff0000", "ffffffffff00000000"])
def test_varint_shortest_form(data: str) -> None:
    with pytest.raises(BitcoinError, match="shortest"):
        read_varint(bytes.fromhex(data))


@pytest.mark.parametrize("value", [-1, 2**64])
def test_varint_range(value: int) -> None:
    with pytest.raises(BitcoinError):
        write_varint(value)


# --- the gate to the network

KEY_HASH = bytes(20)
SPENT = TxOut(value=Sat(2000), script=p2wpkh(KEY_HASH))


@pytest.mark.no_kernel_verdict("made-up signatures")
def test_finalize_calls_hooks() -> None:
    seen: list[tuple[Transaction, tuple[TxOut, ...]]] = []
    finalize_hooks.append(lambda tx, spent: seen.append((tx, spent)))
    try:
        assert finalize_transaction(SIGNED, [SPENT]) is SIGNED
    finally:
        finalize_hooks.pop()
    assert seen == [(SIGNED, (SPENT,))]


@pytest.mark.no_kernel_verdict("made-up signatures")
def test_finalize_accepts_what_needs_no_witness() -> None:
    plain = _changed(inputs=(TxIn(prevout=PREVOUT, sequence=0, script_sig=b"signature"),))
    finalize_transaction(plain, [TxOut(value=Sat(2000), script=p2pkh(KEY_HASH))])
    bare = _changed(inputs=(TxIn(prevout=PREVOUT, sequence=0),))
    finalize_transaction(bare, [TxOut(value=Sat(1000), script=P2A_SCRIPT)])


@pytest.mark.parametrize(
    ("tx", "spent", "reason"),
    [
        (SIGNED, [], "previous outputs"),
        (SIGNED, [SPENT, SPENT], "previous outputs"),
        (SIGNED, [TxOut(value=Sat(999), script=SPENT.script)], "more than it spends"),
        (_changed(outputs=()), [SPENT], "without outputs"),
        (_changed(inputs=(TxIn(prevout=PREVOUT, sequence=0),)), [SPENT], "not signed"),
        (
            _changed(inputs=(TxIn(prevout=PREVOUT, sequence=0, script_sig=b"x", witness=(b"y",)),)),
            [SPENT],
            "although",
        ),
        (_changed(inputs=SIGNED.inputs * 2), [SPENT, SPENT], "twice"),
    ],
)
def test_finalize_refuses(tx: Transaction, spent: list[TxOut], reason: str) -> None:
    with pytest.raises(BitcoinError, match=reason):
        finalize_transaction(tx, spent)
