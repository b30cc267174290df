"""Looking through a block finds what parsing it finds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.bitcoin import (
    BitcoinError,
    Block,
    Header,
    Transaction,
    TxIn,
    TxOut,
    merkle_root,
    p2wpkh,
    p2wsh,
    parse_block,
    scan_block,
)
from leyden.bitcoin.transaction import serialize_outpoint
from leyden.types import BlockHash, OutPoint, Sat, Txid

lengths = st.one_of(st.integers(0, 40), st.sampled_from([71, 252, 253, 300, 520, 70_000]))
scripts = lengths.map(lambda length: bytes(n % 251 for n in range(length)))
outpoints = st.builds(OutPoint, st.binary(min_size=32, max_size=32).map(Txid), st.integers(0, (1 << 32) - 1))
inputs = st.builds(
    TxIn,
    prevout=outpoints,
    script_sig=scripts,
    sequence=st.integers(0, (1 << 32) - 1),
    witness=st.lists(scripts, max_size=3).map(tuple),
)
outputs = st.builds(TxOut, value=st.integers(0, 10**8).map(Sat), script=scripts)
transactions = st.builds(
    Transaction,
    version=st.integers(0, 3),
    inputs=st.lists(inputs, min_size=1, max_size=3).map(tuple),
    outputs=st.lists(outputs, max_size=3).map(tuple),
    locktime=st.integers(0, (1 << 32) - 1),
)
many_outputs = st.just(
    Transaction(
        version=2,
        inputs=tuple(TxIn(prevout=OutPoint(Txid(bytes(32)), n), sequence=n) for n in range(260)),
        outputs=tuple(TxOut(value=Sat(n), script=b"\x51") for n in range(300)),
        locktime=0,
    )
)


def block_of(body: list[Transaction]) -> Block:
    root = merkle_root([tx.txid for tx in body])
    header = Header(version=4, prev_hash=BlockHash(bytes(32)), merkle_root=root, time=1, bits=0x207FFFFF, nonce=0)
    return Block(header=header, transactions=tuple(body))


class Asked:
    """Notes what is looked for, and says that it is."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []

    def __contains__(self, key: object) -> bool:
        assert isinstance(key, bytes)
        self.keys.append(key)
        return True


def shown_script(witness: tuple[bytes, ...]) -> bytes:
    return p2wpkh(witness[-1]) if len(witness) == 2 and len(witness[-1]) == 33 else p2wsh(witness[-1])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(transactions, many_outputs), min_size=1, max_size=6, unique_by=lambda tx: tx.txid))
def test_a_scan_finds_what_parsing_finds(body: list[Transaction]) -> None:
    raw = block_of(body).serialize()
    scripts, spent = Asked(), Asked()
    found, parsed = scan_block(raw, scripts, spent), parse_block(raw)
    assert found.transactions() == parsed.transactions
    assert found.header == parsed.header.serialize()
    assert found.txids == [tx.txid for tx in parsed.transactions]
    paid = [[output.script for output in tx.outputs] for tx in body]
    shown = [[shown_script(txin.witness) for txin in tx.inputs if txin.witness] for tx in body]
    assert scripts.keys == [script for both in zip(paid, shown, strict=True) for each in both for script in each]
    assert spent.keys == [serialize_outpoint(txin.prevout) for tx in body for txin in tx.inputs]
    counts = [len(tx.inputs) + len(paid[n]) + len(shown[n]) for n, tx in enumerate(body)]
    assert found.hits == [n for n, count in enumerate(counts) for _ in range(count)]
    assert len(found) == len(body)
    found.check()


@settings(deadline=None, max_examples=60)
@given(body=st.lists(transactions, min_size=1, max_size=6, unique_by=lambda tx: tx.txid), data=st.data())
def test_only_what_is_looked_for_is_a_hit(body: list[Transaction], data: st.DataObject) -> None:
    paid = [(n, output.script) for n, tx in enumerate(body) for output in tx.outputs]
    shown = [(n, shown_script(txin.witness)) for n, tx in enumerate(body) for txin in tx.inputs if txin.witness]
    spent = [(n, serialize_outpoint(txin.prevout)) for n, tx in enumerate(body) for txin in tx.inputs]
    scripts = data.draw(st.sets(st.sampled_from([script for _, script in paid + shown] or [b""])))
    outpoints = data.draw(st.sets(st.sampled_from([outpoint for _, outpoint in spent])))
    expected = [n for n, script in paid + shown if script in scripts]
    expected += [n for n, outpoint in spent if outpoint in outpoints]
    assert scan_block(block_of(body).serialize(), scripts, outpoints).hits == sorted(expected)


def tx(number: int) -> Transaction:
    txin = TxIn(prevout=OutPoint(Txid(bytes(32)), number), sequence=0, witness=(b"a", b"bc"))
    return Transaction(version=2, inputs=(txin,), outputs=(TxOut(value=Sat(1), script=b"\x51"),), locktime=0)


def test_every_cut_is_noticed() -> None:
    raw = block_of([tx(0), tx(1)]).serialize()
    for length in range(len(raw)):
        with pytest.raises(BitcoinError):
            scan_block(raw[:length])
    with pytest.raises(BitcoinError):
        scan_block(raw + b"\x00")


@given(st.data())
def test_a_changed_byte_outside_witnesses_never_passes(data: st.DataObject) -> None:
    """Either its form is broken or its ids are; a witness is not covered by the header."""
    raw = bytearray(block_of([tx(0), tx(1), tx(2)]).serialize())
    before = scan_block(bytes(raw)).txids
    place = data.draw(st.integers(80, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    try:
        found = scan_block(bytes(raw))
        found.check()
    except BitcoinError:
        return
    assert found.txids == before


def test_a_body_that_is_not_the_headers_is_refused() -> None:
    good = block_of([tx(0), tx(1), tx(2)])
    repeated = Block(header=good.header, transactions=(*good.transactions, good.transactions[2]))
    swapped = Block(header=good.header, transactions=(good.transactions[1], good.transactions[0], good.transactions[2]))
    short = Block(header=good.header, transactions=good.transactions[:2])
    for bad in (repeated, swapped, short):
        with pytest.raises(BitcoinError):
            scan_block(bad.serialize()).check()
    empty = scan_block(good.serialize()[:80] + b"\x00")
    with pytest.raises(BitcoinError, match="no transactions"):
        empty.check()


@pytest.mark.parametrize("tail", [b"\xff" + b"\xff" * 8, b"\xfe\xff\xff\xff\xff", b"\x01" + bytes(4) + b"\x00\x02"])
def test_absurd_counts_and_flags_are_refused(tail: bytes) -> None:
    with pytest.raises(BitcoinError):
        scan_block(block_of([tx(0)]).serialize()[:80] + tail)
