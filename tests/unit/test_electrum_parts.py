"""Parts of the Electrum plugin that need no server: addresses, settings, certificates, proofs, headers, words, fees."""

import hashlib
import json
from pathlib import Path

import pytest
from chain_blocks import GENESIS, make_block, make_chain, make_tx
from leyden.bitcoin import Network, merkle_branch
from leyden.chain import ChainSourceError
from leyden.chain.checkpoints import genesis_header
from leyden.hooks.errors import PluginError
from leyden.hooks.refusals import is_known
from leyden.hooks.registry import ServiceContext, load_plugins
from leyden.hooks.settings import read_settings
from leyden.hooks.types import BroadcastRefusal, FeeTarget, Watch
from leyden.types import BlockHeight, OutPoint, Txid
from leyden_electrum import fees, parse_address
from leyden_electrum.dial import parse_proxy
from leyden_electrum.errors import ServerUnusable
from leyden_electrum.headers import HeaderStore
from leyden_electrum.pins import FILE_NAME, Pins, fingerprint
from leyden_electrum.plugin import ElectrumSettings, make_node
from leyden_electrum.proofs import proof_mistake
from leyden_electrum.scripts import ScriptBook
from leyden_electrum.server import Proof, script_hash, status_of
from leyden_electrum.submitting import refused

# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port", "tls"),
    [
        ("electrum.example:50002:s", "electrum.example", 50002, True),
        ("127.0.0.1:50001:t", "127.0.0.1", 50001, False),
        ("[2001:db8::1]:50002:s", "2001:db8::1", 50002, True),
        ("  Electrum.Example:1:t ", "electrum.example", 1, False),
    ],
)
def test_addresses(text: str, host: str, port: int, tls: bool) -> None:
    address = parse_address(text)
    assert (address.host, address.port, address.tls) == (host, port, tls)
    assert str(address) == text.strip().lower()[:-2]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("electrum.example", "it must end with :t for TCP or :s for TLS"),
        ("electrum.example:50002", "it must end with :t for TCP or :s for TLS"),
        ("electrum.example:s", "the port is a number from 1 to 65535"),
        ("electrum.example:http:s", "the port is a number from 1 to 65535"),
        ("electrum.example:70000:s", "the port is a number from 1 to 65535"),
        (":50002:s", "the host is missing or no host name"),
        ("https://electrum.example:50002:s", "an IPv6 address stands in brackets"),
        ("2001:db8::1:50002:s", "an IPv6 address stands in brackets"),
        ("user@electrum.example:50002:s", "the host is missing or no host name"),
    ],
)
def test_addresses_that_are_none(text: str, why: str) -> None:
    with pytest.raises(PluginError) as refusal:
        parse_address(text)
    assert str(refusal.value) == (f"[electrum] servers: {text!r} is no server: {why}, as in host.example:50002:s")


def test_proxies() -> None:
    assert (parse_proxy("socks5://127.0.0.1:9050").host, parse_proxy("socks5://127.0.0.1:9050").port) == (
        "127.0.0.1",
        9050,
    )
    full = parse_proxy("socks5://me:secret@proxy.example:1080")
    assert (full.user, full.password) == ("me", "secret")
    assert "secret" not in repr(full)
    for text in ("127.0.0.1:9050", "http://127.0.0.1:9050", "socks5://127.0.0.1", "socks5://127.0.0.1:x", ""):
        with pytest.raises(PluginError, match=r"proxy must look like"):
            parse_proxy(text)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"servers": []}, "servers is empty"),
        ({"servers": ["a.example:1:t", "A.example:1:t"]}, "servers names a.example:1 twice"),
        ({"servers": ["abc.onion:50001:t"]}, 'abc.onion:50001 needs a proxy: set proxy = "socks5://127.0.0.1:9050"'),
        ({"servers": ["a.example:1:t"], "timeout_seconds": 0}, "timeout_seconds and compare_seconds must be above 0"),
        ({"servers": ["a.example:1:s"], "ca_file": "missing.pem"}, "missing.pem does not exist"),
        ({"servers": ["a.example:1:s"], "proxy": "tor"}, "proxy must look like"),
        ({"server": ["a.example:1:s"]}, "[electrum] has no setting 'server' (did you mean 'servers'?)"),
        ({"servers": "a.example:1:s"}, "Expected `array`, got `str`"),
        ({}, "missing required field `servers`"),
    ],
)
def test_mistakes_in_the_config_are_named(table: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError) as refusal:
        make_node(
            read_settings(table, ElectrumSettings, "electrum"),
            ServiceContext(folder=tmp_path, network=Network.REGTEST),
        )
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_plugin_is_found_and_makes_one_object_for_all_its_services(tmp_path: Path) -> None:
    registry = load_plugins(["electrum"])
    context = ServiceContext(folder=tmp_path, network=Network.REGTEST)
    tables = {"electrum": {"servers": ["127.0.0.1:50001:t"]}}
    kinds = ("chain_source", "broadcaster", "fee_estimator")
    made = [registry.make(kind, "electrum", tables, context) for kind in kinds]
    assert made[0] is made[1] is made[2]
    assert made[0].info.proofs  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())


# -- certificates ------------------------------------------------------------------------------------------------------


def test_certificates_are_remembered_by_server(tmp_path: Path) -> None:
    first, second = parse_address("a.example:50002:s"), parse_address("b.example:50002:s")
    pins = Pins(tmp_path)
    assert pins.get(first) is None
    pins.check(first, b"certificate")
    pins.check(first, b"certificate")
    pins.check(second, b"another")
    again = Pins(tmp_path)
    assert again.get(first) == fingerprint(b"certificate")
    with pytest.raises(
        ServerUnusable, match=r"its certificate has changed from \w{16}… to \w{16}…: somebody may stand"
    ):
        again.check(first, b"another")
    assert json.loads((tmp_path / FILE_NAME).read_text()).keys() == {"a.example:50002", "b.example:50002"}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a.example:50002": 1}', b"\xff"])
def test_a_damaged_file_of_certificates_is_no_reason_to_trust_anybody(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(ServerUnusable, match="is damaged: repair or remove it"):
        Pins(tmp_path).check(parse_address("a.example:50002:s"), b"certificate")
    assert (tmp_path / FILE_NAME).read_bytes() == content


# -- proofs and headers --------------------------------------------------------------------------------------------


def test_a_proof_must_lead_from_the_transaction_to_the_header() -> None:
    block = make_block(GENESIS, 1, [make_tx(1), make_tx(2), make_tx(3)])
    txids = [one.tx.txid for one in block.transactions]
    root = block.header[36:68]
    for found in block.transactions:
        proof = Proof(position=found.position, branch=merkle_branch(txids, found.position))
        assert proof_mistake(found.tx, proof, root) == ""
        assert proof_mistake(found.tx, proof, bytes(32)) != ""
        assert proof_mistake(make_tx(9), proof, root) != ""
    for position in (0, 2, 4, -1):
        assert proof_mistake(block.transactions[1].tx, Proof(position=position, branch=proof.branch), root) != ""


def test_a_transaction_of_64_bytes_proves_nothing() -> None:
    small = make_tx(4, script=b"\x51\x51\x51\x51")
    assert len(small.serialize_legacy()) == 64
    block = make_block(GENESIS, 1, [small])
    txids = [one.tx.txid for one in block.transactions]
    proof = Proof(position=1, branch=merkle_branch(txids, 1))
    assert "64 bytes" in proof_mistake(small, proof, block.header[36:68])


def test_a_proof_deeper_than_any_block_is_refused() -> None:
    tx = make_tx(1)
    assert "deeper than any block" in proof_mistake(tx, Proof(position=0, branch=(bytes(32),) * 25), bytes(32))


def headers_of(count: int) -> bytes:
    return b"".join(block.header for block in make_chain(count, previous=GENESIS, first=1))


def test_headers_are_kept_forwards_and_backwards() -> None:
    whole = genesis_header(Network.REGTEST) + headers_of(20)
    store = HeaderStore(Network.REGTEST, 0, whole[:80])
    store.extend(whole[80:], now=1 << 31)
    assert store.height == 20
    assert store.has(20, store.tip.hash)
    assert not store.has(21, store.tip.hash)
    late = HeaderStore(Network.REGTEST, 15, whole[15 * 80 :])
    with pytest.raises(ChainSourceError):
        late.extend_down(whole[4 * 80 : 14 * 80])
    late.extend_down(whole[5 * 80 : 15 * 80])
    assert (late.base, late.height) == (5, 20)
    assert late.header(7) == store.header(7)
    assert late.work_above(10) == store.work_above(10) > 0
    with pytest.raises(IndexError):
        late.header(4)


# -- the book of scripts ---------------------------------------------------------------------------------------------


def test_a_script_is_watched_from_the_lowest_height_and_with_all_its_outputs() -> None:
    book = ScriptBook()
    one, two = OutPoint(Txid(b"\x01" * 32), 0), OutPoint(Txid(b"\x02" * 32), 1)
    book.add([Watch(script=b"a", outpoint=one, since_height=BlockHeight(50))])
    book.add([Watch(script=b"a", outpoint=two, since_height=BlockHeight(40)), Watch(script=b"a", outpoint=one)])
    (found,) = book.values()
    assert (found.since, found.again_from, found.outputs) == (0, 0, (one, two))
    assert list(book.fresh) == [script_hash(b"a")]


def test_what_is_known_above_a_fork_is_forgotten_and_asked_for_again() -> None:
    book = ScriptBook()
    book.add([Watch(script=b"a"), Watch(script=b"b")])
    first, second = book.values()
    first.note(Txid(b"\x01" * 32), 10)
    first.note(Txid(b"\x02" * 32), 20)
    second.note(Txid(b"\x03" * 32), 10)
    book.forget_from(11)
    assert first.known == {Txid(b"\x01" * 32): 10}
    assert second.known == {Txid(b"\x03" * 32): 10}
    assert list(book.doubtful) == [script_hash(b"a")]


def test_every_script_has_its_turn() -> None:
    book = ScriptBook()
    book.add([Watch(script=b"%d" % number) for number in range(10)])
    turns = [book.next_turn(4) for _ in range(5)]
    assert [len(turn) for turn in turns] == [4] * 5
    assert sorted(key for turn in turns for key in turn) == sorted(
        2 * [script_hash(found.script) for found in book.values()]
    )
    assert len(book.next_turn(10)) == 10


def test_a_status_is_the_hash_of_a_history() -> None:
    assert status_of([]) is None
    assert status_of([("ab" * 32, 5), ("cd" * 32, 0)]) == (
        hashlib.sha256((f"{'ab' * 32}:5:{'cd' * 32}:0:").encode()).hexdigest()
    )


# -- words and fees ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "reason", "refusal"),
    [
        (
            "the transaction was rejected by network rules.\n\nmin relay fee not met, 0 < 110\n[0200aabb]",
            "min relay fee not met, 0 < 110",
            BroadcastRefusal.LOW_FEE,
        ),
        ("bad-txns-inputs-missingorspent", "bad-txns-inputs-missingorspent", BroadcastRefusal.MISSING_INPUTS),
        ("sendrawtransaction RPC error: Missing inputs", "sendrawtransaction RPC error: Missing inputs",
         BroadcastRefusal.MISSING_INPUTS),
        ("txn-mempool-conflict", "txn-mempool-conflict", BroadcastRefusal.CONFLICT),
        ("non-BIP68-final", "non-BIP68-final", BroadcastRefusal.TOO_EARLY),
        ("mandatory-script-verify-flag-failed (...)", "mandatory-script-verify-flag-failed (...)",
         BroadcastRefusal.INVALID),
        ("server busy", "server busy", BroadcastRefusal.OTHER),
        ("", "it does not say why", BroadcastRefusal.OTHER),
        ("[0200aabb]", "it does not say why", BroadcastRefusal.OTHER),
    ],
)  # fmt: skip
def test_refusals_keep_the_words_of_bitcoind(words: str, reason: str, refusal: BroadcastRefusal) -> None:
    result = refused(words)
    assert (result.accepted, result.reason, result.refusal) == (False, reason, refusal)


def test_what_is_known_already_is_no_refusal() -> None:
    assert is_known("the transaction was rejected by network rules.\n\nTransaction already in block chain\n[00]")
    assert is_known("txn-already-in-mempool")
    assert not is_known("bad-txns-inputs-missingorspent")


class Estimates:
    """A server with these estimates, by blocks."""

    address = "a.example:1"

    def __init__(self, by_blocks: dict[int, float], minimum: float = 0.00001) -> None:
        self.by_blocks = by_blocks
        self.minimum = minimum

    async def estimate_fee(self, blocks: int) -> float:
        return self.by_blocks.get(blocks, -1)

    async def minimum_fee(self) -> float:
        return self.minimum


async def test_feerates_come_per_weight_and_not_below_what_is_relayed() -> None:
    async def rate(target: FeeTarget, server: Estimates, network: Network = Network.MAINNET) -> int | None:
        return await fees.estimate(server, network, target)

    server = Estimates({12: 0.0001, 1008: 0.00002})
    assert await rate(FeeTarget.FUNDING, server) == 2500
    assert await rate(FeeTarget.ANCHOR_CHANNEL, server) == 500
    assert await rate(FeeTarget.URGENT_SWEEP, server) == 2500  # none for 6 blocks, but for 12
    assert await rate(FeeTarget.MAXIMUM, server) == 500  # better a floor than nothing
    assert await rate(FeeTarget.FUNDING, Estimates({12: 0.0000001})) == 253
    assert await rate(FeeTarget.FUNDING, Estimates({12: 0.00002}, minimum=0.00005)) == 1250
    for nonsense in (float("nan"), float("inf"), -5.0, 1e30):
        assert await rate(FeeTarget.FUNDING, Estimates({12: nonsense})) is None
    assert await rate(FeeTarget.FUNDING, Estimates({})) is None
    assert await rate(FeeTarget.FUNDING, Estimates({}), Network.REGTEST) == 1000
