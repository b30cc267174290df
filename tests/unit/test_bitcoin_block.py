"""Headers, proof of work, merkle trees, blocks and the networks' constants."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.bitcoin import (
    BitcoinError,
    Block,
    Header,
    Network,
    Transaction,
    TxIn,
    TxOut,
    check_block,
    check_proof_of_work,
    merkle_branch,
    merkle_root,
    merkle_root_from_branch,
    parse_block,
    parse_header,
    push_data,
    push_int,
    target_from_bits,
    witness_commitment,
    work_from_bits,
)
from leyden.crypto import sha256d
from leyden.types import BlockHash, OutPoint, Sat, Txid

TIMES = b"The Times 03/Jan/2009 Chancellor on brink of second bailout for banks"
TESTNET4 = b"03/May/2024 000000000000000000001ebd58c244970b3aa9d783bb001011fbe8ea8e98e00e"
SATOSHI = bytes.fromhex(
    "04678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb6"
    "49f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5f"
)


def _genesis(message: bytes, key: bytes, time: int, bits: int, nonce: int) -> Block:
    coinbase = Transaction(
        version=1,
        inputs=(
            TxIn(
                prevout=OutPoint(Txid(bytes(32)), 0xFFFFFFFF),
                script_sig=push_int(0x1D00FFFF) + b"\x01\x04" + push_data(message),
                sequence=0xFFFFFFFF,
            ),
        ),
        outputs=(TxOut(value=Sat(50 * 100_000_000), script=push_data(key) + b"\xac"),),
        locktime=0,
    )
    header = Header(
        version=1,
        prev_hash=BlockHash(bytes(32)),
        merkle_root=coinbase.txid,
        time=time,
        bits=bits,
        nonce=nonce,
    )
    return Block(header=header, transactions=(coinbase,))


GENESIS = {
    Network.MAINNET: _genesis(TIMES, SATOSHI, 1231006505, 0x1D00FFFF, 2083236893),
    Network.TESTNET4: _genesis(TESTNET4, bytes(33), 1714777860, 0x1D00FFFF, 393743547),
    Network.SIGNET: _genesis(TIMES, SATOSHI, 1598918400, 0x1E0377AE, 52613770),
    Network.REGTEST: _genesis(TIMES, SATOSHI, 1296688602, 0x207FFFFF, 2),
}
REGTEST = GENESIS[Network.REGTEST]


@pytest.mark.parametrize("network", Network)
def test_genesis(network: Network) -> None:
    block = GENESIS[network]
    check_block(block, network)
    assert block.hash == network.chain_hash
    assert parse_block(block.serialize()) == block
    assert Network.from_name(network.label) is network
    assert Network.from_chain_hash(block.hash) is network


def test_unknown_network() -> None:
    with pytest.raises(BitcoinError, match="unknown network"):
        Network.from_name("testnet")
    assert Network.from_chain_hash(bytes(32)) is None
    assert len({n.invoice_hrp for n in Network}) == len(Network)


@pytest.mark.parametrize(
    ("bits", "target"),
    [
        (0x1D00FFFF, 0xFFFF << 208),
        (0x207FFFFF, 0x7FFFFF << 232),
        (0x03123456, 0x123456),
        (0x02123456, 0x1234),
        (0x01120000, 0x12),
        (0x05009234, 0x92340000),
    ],
)
def test_target(bits: int, target: int) -> None:
    assert target_from_bits(bits) == target
    assert work_from_bits(bits) == 2**256 // (target + 1)


@pytest.mark.parametrize("bits", [0, 0x01003456, 0x04923456, 0x1D000000, 0x22123456, 0xFF123456, 0x03800001])
def test_no_target(bits: int) -> None:
    with pytest.raises(BitcoinError, match="difficulty"):
        target_from_bits(bits)


def _header(**fields: object) -> Header:
    header = REGTEST.header
    return Header(**{**{name: getattr(header, name) for name in header.__struct_fields__}, **fields})


def test_proof_of_work() -> None:
    check_proof_of_work(REGTEST.header, Network.REGTEST)
    with pytest.raises(BitcoinError, match="too low for mainnet"):
        check_proof_of_work(REGTEST.header, Network.MAINNET)
    failing = next(h for h in (_header(nonce=n) for n in range(100)) if h.hash[31] >= 0x80)
    with pytest.raises(BitcoinError, match="does not meet"):
        check_proof_of_work(failing, Network.REGTEST)
    with pytest.raises(BitcoinError, match="does not meet"):
        check_proof_of_work(_header(bits=0x1D00FFFF), Network.MAINNET)


@settings(deadline=None)
@given(st.binary(min_size=80, max_size=80))
def test_header_round_trip(data: bytes) -> None:
    header = parse_header(data)
    assert header.serialize() == data
    assert header.hash == sha256d(data)


def test_header_refuses() -> None:
    for data in (b"", bytes(79), bytes(81)):
        with pytest.raises(BitcoinError):
            parse_header(data)
    for header in (_header(nonce=-1), _header(time=2**32), _header(version=2**31), _header(merkle_root=bytes(31))):
        with pytest.raises(BitcoinError):
            header.serialize()


# --- merkle trees

hashes = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=20, unique=True)


@settings(deadline=None)
@given(hashes)
def test_merkle(txids: list[bytes]) -> None:
    root = merkle_root(txids)
    for index, txid in enumerate(txids):
        branch = merkle_branch(txids, index)
        assert merkle_root_from_branch(txid, index, branch) == root
        for wrong in range(1 << len(branch)):
            if wrong != index:
                try:
                    assert merkle_root_from_branch(txid, wrong, branch) != root or wrong >= len(txids)
                except BitcoinError:
                    pass


def test_merkle_by_hand() -> None:
    a, b, c = (bytes((i,)) * 32 for i in range(3))
    assert merkle_root([a]) == a
    assert merkle_root([a, b]) == sha256d(a + b)
    assert merkle_root([a, b, c]) == sha256d(sha256d(a + b) + sha256d(c + c))
    assert merkle_branch([a, b, c], 2) == (c, sha256d(a + b))


def test_merkle_refuses() -> None:
    a, b = bytes(32), b"\1" * 32
    for call in (
        lambda: merkle_root([]),
        lambda: merkle_branch([a], 1),
        lambda: merkle_branch([a], -1),
        lambda: merkle_root_from_branch(a, 2, [b]),
        lambda: merkle_root_from_branch(a, -1, [b]),
        lambda: merkle_root_from_branch(a, 0, [b[1:]]),
        lambda: merkle_root_from_branch(a, 1, [a]),
    ):
        with pytest.raises(BitcoinError):
            call()


# --- blocks


def _transaction(number: int) -> Transaction:
    return Transaction(
        version=2,
        inputs=(TxIn(prevout=OutPoint(Txid(bytes(32)), number), sequence=0, witness=(bytes((number,)),)),),
        outputs=(TxOut(value=Sat(number), script=b"\x51"),),
        locktime=0,
    )


def _mined(*transactions: Transaction) -> Block:
    root = merkle_root([tx.txid for tx in transactions])
    header = next(h for h in (_header(merkle_root=root, nonce=n) for n in range(1000)) if h.hash[31] < 0x7F)
    return Block(header=header, transactions=transactions)


def test_block_commits_to_its_transactions() -> None:
    block = _mined(*map(_transaction, range(3)))
    check_block(block, Network.REGTEST)
    assert parse_block(block.serialize()) == block
    with pytest.raises(BitcoinError, match="not those"):
        check_block(Block(header=block.header, transactions=block.transactions[:2]), Network.REGTEST)
    repeated = Block(header=block.header, transactions=(*block.transactions, block.transactions[2]))
    assert merkle_root([tx.txid for tx in repeated.transactions]) == block.header.merkle_root
    with pytest.raises(BitcoinError, match="repeats"):
        check_block(repeated, Network.REGTEST)
    with pytest.raises(BitcoinError, match="no transactions"):
        check_block(Block(header=block.header, transactions=()), Network.REGTEST)


def test_block_bytes_refused() -> None:
    raw = _mined(*map(_transaction, range(2))).serialize()
    for cut in range(len(raw)):
        with pytest.raises(BitcoinError):
            parse_block(raw[:cut])
    with pytest.raises(BitcoinError, match="too many"):
        parse_block(raw + b"\0")


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_block_garbage(tail: bytes) -> None:
    raw = REGTEST.header.serialize() + tail
    try:
        block = parse_block(raw)
    except BitcoinError:
        return
    assert block.serialize() == raw


def test_witness_commitment() -> None:
    transactions = [_transaction(1), _transaction(2)]
    output = witness_commitment(transactions)
    root = merkle_root([bytes(32), *(tx.wtxid for tx in transactions)])
    assert output.script == bytes.fromhex("6a24aa21a9ed") + sha256d(root + bytes(32))
    assert output.value == 0
    assert witness_commitment([]).script.endswith(sha256d(bytes(64)))
    assert witness_commitment(transactions, b"\1" * 32) != output
