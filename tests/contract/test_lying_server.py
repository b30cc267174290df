"""Electrum servers that lie: a proxy in front of a real one alters its answers. Each lie is detected, the server is
named and left with a reason that a person understands, and nothing false reaches the core."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from leyden.bitcoin import Network, Transaction, p2wsh
from leyden.hooks.types import SourceTrouble, SourceWarning, UtxoFound, UtxoSpent, UtxoUnknown, Watch
from leyden.testing.chain import ChainDriver, anyone_script, spend_anyone
from leyden.types import BlockHeight, OutPoint, Sat
from leyden_electrum import ElectrumNode, histories, parse_address, pool, stream
from leyden_electrum.dial import Dialer
from leyden_electrum.pins import Pins
from leyden_electrum.pool import ServerPool

from tests.testbed import running
from tests.testbed.bitcoind import Bitcoind
from tests.testbed.electrum_control import ElectrumControl
from tests.testbed.electrum_liar import (
    FalseHeader,
    Hiding,
    Instead,
    Invention,
    Liar,
    Lying,
    OldTip,
    Raw,
    Refusal,
    Refused,
    Silence,
    Unproved,
    mined,
    with_bits,
)
from tests.testbed.electrum_server import ElectrumServer

pytestmark = [pytest.mark.slow, pytest.mark.testbed]

PATIENCE = 60
"""Seconds: a limit for what never comes."""


@pytest.fixture(scope="module")
def server(daemon: Bitcoind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ElectrumServer]:
    with running.electrum_server(tmp_path_factory.mktemp("electrum"), daemon) as server:
        yield server


@pytest.fixture
def control(daemon: Bitcoind, server: ElectrumServer) -> ElectrumControl:
    return ElectrumControl(daemon, [server])


class Scene(msgspec.Struct, frozen=True):
    """A script that was paid and whose coin was spent two blocks later; ``birth`` is the block before both."""

    script: bytes
    paid: Transaction
    spent: Transaction
    birth: int
    height: int
    tip: bytes

    @property
    def truth(self) -> set[tuple[int, bytes]]:
        return {(self.birth + 1, self.paid.txid), (self.birth + 3, self.spent.txid)}

    @property
    def watch(self) -> Watch:
        return Watch(script=self.script, outpoint=self.spent.inputs[0].prevout, since_height=BlockHeight(self.birth))


_scenes = 0


@pytest.fixture
async def scene(control: ElectrumControl) -> Scene:
    global _scenes
    _scenes += 1
    witness_script = anyone_script(b"scene %d" % _scenes)
    birth, _ = await control.tip()
    paid = await control.pay(p2wsh(witness_script), Sat(100_000))
    await control.mine(2)
    spent = spend_anyone(paid, Sat(98_000), witness_script)
    await control.submit(spent)
    await control.mine(3)
    height, tip = await control.tip()
    return Scene(p2wsh(witness_script), paid, spent, birth, height, tip)


def node(
    folder: Path,
    *ports: int,
    timeout_seconds: float = PATIENCE,
    compare_seconds: float = 0.1,
    grace_seconds: float = 0.3,
) -> ElectrumNode:
    addresses = [parse_address(f"127.0.0.1:{port}:t") for port in ports]
    servers = ServerPool(addresses, Dialer(Pins(folder)), Network.REGTEST, timeout_seconds=timeout_seconds)
    return ElectrumNode(servers, Network.REGTEST, compare_seconds=compare_seconds, grace_seconds=grace_seconds)


def troubles(driver: ChainDriver) -> list[str]:
    return [notice.reason for notice in driver.notices if isinstance(notice, SourceTrouble)]


def warnings(driver: ChainDriver) -> list[str]:
    return [notice.text for notice in driver.notices if isinstance(notice, SourceWarning)]


async def run_until(driver: ChainDriver, done: Callable[[], bool]) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            while not done():
                await driver.take_event()
    except TimeoutError:
        raise AssertionError(f"not within {PATIENCE} s: {driver}") from None


@asynccontextmanager
async def lying(server: ElectrumServer, lie: Lying | None) -> AsyncIterator[Liar]:
    liar = await Liar(server, lie).start()
    try:
        yield liar
    finally:
        await liar.stop()


@asynccontextmanager
async def following(source: ElectrumNode, scene: Scene) -> AsyncIterator[ChainDriver]:
    driver = ChainDriver(source, scene.birth)
    try:
        await driver.watch([scene.watch])
        await driver.start()
        yield driver
    finally:
        await driver.stop()


# -- lies that the first answer already shows ------------------------------------------------------------------------


def bad_linkage(header: bytes) -> bytes:
    return mined(header[:4] + bytes(32) + header[36:])


def no_work(header: bytes) -> bytes:
    return mined(header, valid=False)


def too_hard(header: bytes) -> bytes:
    return with_bits(header, 0x1F7FFFFF)


def flipped_branch(params: list[Any], answer: Any) -> Any:
    first = bytes.fromhex(answer["merkle"][0])
    return {**answer, "merkle": [bytes([first[0] ^ 1, *first[1:]]).hex(), *answer["merkle"][1:]]}


Lie = tuple[Callable[[ElectrumServer, Scene], Lying], str]
"""How to make one, and what is said of it."""


def refusing(method: str) -> Lie:
    return lambda server, scene: Refused(method), f"it refuses {method}: I would rather not"


LIES: dict[str, Lie] = {
    "bad linkage": (
        lambda server, scene: FalseHeader(scene.height - 1, bad_linkage),
        r"its chain is no chain: header \d+ does not follow the one before",
    ),
    "bad linkage at the tip": (
        lambda server, scene: FalseHeader(scene.height, bad_linkage),
        r"its chain is no chain: header \d+ does not follow the one before",
    ),
    "no work": (
        lambda server, scene: FalseHeader(scene.height - 1, no_work),
        r"its chain is no chain: header \d+ does not (meet its proof of work|follow)",
    ),
    "no work at the tip": (
        lambda server, scene: FalseHeader(scene.height, no_work),
        r"its chain is no chain: header \d+ does not meet its proof of work",
    ),
    "wrong difficulty": (
        lambda server, scene: FalseHeader(scene.height, too_hard),
        r"its chain is no chain: header \d+ has difficulty 0x1f7fffff where 0x207fffff is due",
    ),
    "a short header": (
        lambda server, scene: FalseHeader(scene.height, lambda header: header[:79]),
        r"(names a tip that is no block|sends \d+ bytes)",
    ),
    "a merkle branch that leads elsewhere": (
        lambda server, scene: Instead("blockchain.transaction.get_merkle", flipped_branch),
        r"transaction \w{64} is not in block \d+ as it says: the merkle proof does not lead to the header",
    ),
    "a position outside the tree": (
        lambda server, scene: Instead(
            "blockchain.transaction.get_merkle", lambda params, answer: {**answer, "pos": 1 << 20}
        ),
        r"transaction \w{64} is not in block \d+ as it says: position 1048576 is outside a merkle tree",
    ),
    "a negative position": (
        lambda server, scene: Instead(
            "blockchain.transaction.get_merkle", lambda params, answer: {**answer, "pos": -1}
        ),
        r"transaction \w{64} is not in block \d+ as it says",
    ),
    "another transaction": (
        lambda server, scene: Instead(
            "blockchain.transaction.get", lambda params, answer: scene.spent.serialize().hex()
        ),
        r"asked for transaction \w{64} it sends \w{64}",
    ),
    "no transaction": (
        lambda server, scene: Instead("blockchain.transaction.get", lambda params, answer: "00" * 60),
        r"the transaction \w{64} that it sends is none",
    ),
    "no hexadecimal": (
        lambda server, scene: Instead("blockchain.transaction.get", lambda params, answer: "xyz"),
        r"a transaction that it sends is not hexadecimal",
    ),
    "another kind of answer": (
        lambda server, scene: Instead("blockchain.transaction.get_merkle", lambda params, answer: ["what?"]),
        r"its answer to blockchain.transaction.get_merkle makes no sense",
    ),
    "an invented payment": (
        lambda server, scene: Invention(server, scene.script, scene.height - 1),
        r"transaction \w{64} is not in block \d+ as it says: the merkle proof does not lead to the header",
    ),
    "an invented payment without proof": (
        lambda server, scene: Unproved(server, scene.script, scene.height - 1),
        r"it does not prove transaction \w{64}, of which it says that it is in block \d+",
    ),
    "a history that does not fit its status": (
        lambda server, scene: Instead("blockchain.scripthash.get_history", lambda params, answer: answer[:1]),
        r"the history that it tells of a script is not the one whose status it told",
    ),
    "a proof is refused": (
        lambda server, scene: Refused("blockchain.transaction.get_merkle"),
        r"it does not prove transaction \w{64}",
    ),
    "histories are refused": refusing("blockchain.scripthash.get_history"),
    "everything is refused": refusing("blockchain.headers.subscribe"),
    "headers are refused": refusing("blockchain.block.headers"),
    "garbage": (
        lambda server, scene: Instead("blockchain.scripthash.get_history", lambda params, answer: Raw(b"\xff\x00{]\n")),
        r"it does not speak the Electrum protocol",
    ),
    "deeply nested garbage": (
        lambda server, scene: Instead(
            "blockchain.scripthash.get_history", lambda params, answer: Raw(b"[" * 100_000 + b"\n")
        ),
        r"it does not speak the Electrum protocol",
    ),
    "a line without end": (
        lambda server, scene: Instead(
            "blockchain.scripthash.get_history", lambda params, answer: Raw(b"1" * (17 << 20))
        ),
        r"it sends a message of more than 16 MiB",
    ),
    "numbers of another world": (
        lambda server, scene: Instead(
            "blockchain.headers.subscribe", lambda params, answer: {**answer, "height": 10**30}
        ),
        r"makes no sense|names a tip that is no block",
    ),
}


@pytest.mark.parametrize("name", LIES)
async def test_a_lie_is_named_and_an_honest_server_takes_over(
    name: str, server: ElectrumServer, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PATIENCE", 2)
    make, words = LIES[name]
    async with (
        lying(server, make(server, scene)) as liar,
        following(node(tmp_path, liar.port, server.port, compare_seconds=60), scene) as driver,
    ):
        await driver.run_until(scene.height, scene.tip)
        assert driver.conclusions.found == scene.truth
        assert driver.restarts == 0
        (warning,) = warnings(driver)
        assert warning.startswith(f"Electrum server 127.0.0.1:{liar.port} was left: ")
        assert "\n" not in warning
        assert re.search(words, warning), warning


@pytest.mark.parametrize("name", ["no work", "an invented payment", "garbage", "histories are refused"])
async def test_a_liar_who_is_alone_is_not_believed(
    name: str, server: ElectrumServer, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again, for everything is checked: once it is honest, all is well."""
    monkeypatch.setattr(pool, "ONLY_SECONDS", 0.2)
    make, words = LIES[name]
    async with (
        lying(server, make(server, scene)) as liar,
        following(node(tmp_path, liar.port), scene) as driver,
    ):
        await run_until(driver, lambda: bool(troubles(driver)))
        assert re.search(words, troubles(driver)[0])
        assert driver.conclusions.found <= scene.truth
        liar.lie = None
        await driver.run_until(scene.height, scene.tip)
        assert driver.conclusions.found == scene.truth
        assert troubles(driver)[-1] == ""


async def test_silence_is_not_waited_for(server: ElectrumServer, scene: Scene, tmp_path: Path) -> None:
    def silent(method: str, params: list[Any], answer: Any) -> Any:
        if method == "blockchain.scripthash.get_history":
            raise Silence
        return answer

    async with (
        lying(server, silent) as liar,
        following(node(tmp_path, liar.port, server.port, timeout_seconds=1, compare_seconds=60), scene) as driver,
    ):
        await driver.run_until(scene.height, scene.tip)
        assert driver.conclusions.found == scene.truth
        assert driver.source._stream.server is not None  # type: ignore[attr-defined]
        assert driver.source._stream.server.address.port == server.port  # type: ignore[attr-defined]


async def test_a_busy_server_is_no_liar(server: ElectrumServer, scene: Scene, tmp_path: Path) -> None:
    """It is left for a moment only, and nobody is alarmed."""

    def busy(method: str, params: list[Any], answer: Any) -> Any:
        if method == "blockchain.scripthash.get_history":
            raise Refusal("excessive resource usage", -101)
        return answer

    async with (
        lying(server, busy) as liar,
        following(node(tmp_path, liar.port), scene) as driver,
    ):
        await run_until(driver, lambda: bool(troubles(driver)))
        assert "it refuses blockchain.scripthash.get_history: excessive resource usage" in troubles(driver)[0]
        liar.lie = None
        await driver.run_until(scene.height, scene.tip)
        assert driver.conclusions.found == scene.truth
        assert warnings(driver) == []


# -- lies that only another server shows -----------------------------------------------------------------------------


async def test_a_hidden_spend_is_found_by_the_other_server(
    server: ElectrumServer, scene: Scene, tmp_path: Path
) -> None:
    hiding = Hiding(server, scene.spent.txid[::-1].hex())
    async with (
        lying(server, hiding) as liar,
        following(node(tmp_path, liar.port, server.port), scene) as driver,
    ):
        await driver.run_until(scene.height, scene.tip)
        assert driver.conclusions.found == {(scene.birth + 1, scene.paid.txid)}
        await run_until(driver, lambda: driver.conclusions.found == scene.truth)
        (warning,) = warnings(driver)
        outpoint = scene.spent.inputs[0].prevout
        assert warning == (
            f"Electrum server 127.0.0.1:{liar.port} was left: it hides transaction {scene.spent.txid[::-1].hex()} of "
            f"block {scene.birth + 3}, which 127.0.0.1:{server.port} proves: it concerns output "
            f"{outpoint.txid[::-1].hex()}:{outpoint.vout}"
        )
        assert driver.restarts == 0


async def test_hidden_histories_are_found_by_the_other_server(
    server: ElectrumServer, scene: Scene, tmp_path: Path
) -> None:
    async with (
        lying(server, Hiding(server)) as liar,
        following(node(tmp_path, liar.port, server.port), scene) as driver,
    ):
        await driver.run_until(scene.height, scene.tip)
        assert driver.conclusions.found == set()
        await run_until(driver, lambda: driver.conclusions.found == scene.truth)
        assert "it hides transaction" in warnings(driver)[0]
        await driver.run_until_synced()


async def test_a_spend_hidden_from_one_moment_on(
    server: ElectrumServer, scene: Scene, control: ElectrumControl, tmp_path: Path
) -> None:
    """Honest for as long as it takes to be trusted."""
    async with (
        lying(server, None) as liar,
        following(node(tmp_path, liar.port, server.port), scene) as driver,
    ):
        await driver.run_until(scene.height, scene.tip)
        assert driver.conclusions.found == scene.truth
        again = await control.pay(scene.script, Sat(70_000))
        liar.lie = Hiding(server, again.txid[::-1].hex())
        await control.mine(1)
        await run_until(driver, lambda: (scene.height + 1, again.txid) in driver.conclusions.found)
        assert "it hides transaction" in warnings(driver)[0]


async def test_a_server_that_hides_what_it_proved_before_is_caught_by_itself(
    server: ElectrumServer, scene: Scene, tmp_path: Path, control: ElectrumControl
) -> None:
    async with (
        lying(server, None) as liar,
        following(node(tmp_path, liar.port), scene) as driver,
    ):
        await driver.run_until(scene.height, scene.tip)
        liar.lie = Hiding(server, scene.spent.txid[::-1].hex())
        await control.mine(1)
        await run_until(driver, lambda: bool(warnings(driver)))
        assert f"it hides transaction {scene.spent.txid[::-1].hex()}, which is in block" in warnings(driver)[0]
        assert driver.conclusions.found == scene.truth


async def test_an_old_tip_is_found_by_the_other_server(server: ElectrumServer, scene: Scene, tmp_path: Path) -> None:
    async with (
        lying(server, OldTip(server, scene.height - 3)) as liar,
        following(node(tmp_path, liar.port, server.port), scene) as driver,
    ):
        await run_until(driver, lambda: driver.follower.height == scene.height - 3)
        await driver.run_until(scene.height, scene.tip)
        assert driver.conclusions.found == scene.truth
        (warning,) = warnings(driver)
        assert warning == (
            f"Electrum server 127.0.0.1:{liar.port} was left: it is stale: its chain ends at block {scene.height - 3}, "
            f"while 127.0.0.1:{server.port} shows a chain with more work up to block {scene.height}"
        )


async def test_a_tip_that_stands_still_is_found_by_the_other_server(
    server: ElectrumServer, scene: Scene, control: ElectrumControl, tmp_path: Path
) -> None:
    async with (
        lying(server, None) as liar,
        following(node(tmp_path, liar.port, server.port), scene) as driver,
    ):
        await driver.run_until(scene.height, scene.tip)
        liar.lie = OldTip(server, scene.height)
        await control.mine(2)
        height, tip = await control.tip()
        await driver.run_until(height, tip)
        assert "it is stale" in warnings(driver)[0]


async def test_a_tip_that_goes_back_is_not_followed(
    server: ElectrumServer, scene: Scene, control: ElectrumControl, tmp_path: Path
) -> None:
    """A chain with less work than we know of is none to change to, whoever shows it."""
    async with (
        lying(server, None) as liar,
        following(node(tmp_path, liar.port), scene) as driver,
    ):
        await driver.run_until(scene.height, scene.tip)
        before = driver.conclusions
        liar.lie = OldTip(server, scene.height - 3)
        await liar.hang_up()
        behind = f"it is behind: its chain ends at block {scene.height - 3}"
        await run_until(driver, lambda: any(behind in text for text in troubles(driver)))
        assert driver.conclusions == before
        liar.lie = None
        await control.mine(1)
        await driver.run_until(*(await control.tip()))


async def test_a_branch_of_ones_own_needs_more_work(
    server: ElectrumServer, scene: Scene, control: ElectrumControl, tmp_path: Path
) -> None:
    """Another block in the place of our tip, mined well: as much work as ours, which is not more."""
    async with (
        lying(server, None) as liar,
        following(node(tmp_path, liar.port), scene) as driver,
    ):
        await driver.run_until(scene.height, scene.tip)
        liar.lie = FalseHeader(scene.height, lambda header: mined(header[:36] + bytes(32) + header[68:]))
        await liar.hang_up()
        await run_until(driver, lambda: any("it is on a weaker chain" in text for text in troubles(driver)))
        assert driver.follower.best_hash == scene.tip


@pytest.mark.parametrize("lie", ["hides", "invents", "no work", "old tip"])
async def test_the_other_server_may_be_the_liar(lie: str, server: ElectrumServer, scene: Scene, tmp_path: Path) -> None:
    """Proofs decide, not numbers: the one that is followed is honest and is kept."""
    lies: dict[str, Lying] = {
        "hides": Hiding(server, scene.spent.txid[::-1].hex()),
        "invents": Invention(server, scene.script, scene.height - 1),
        "no work": FalseHeader(scene.height, no_work),
        "old tip": OldTip(server, scene.height - 4),
    }
    words = {
        "hides": r"it hides transaction \w{64}, which is in block \d+",
        "invents": r"transaction \w{64} is not in block \d+ as it says",
        "no work": r"its chain is no chain: header \d+ does not meet its proof of work",
        "old tip": r"it is stale: its chain ends at block \d+, we know block \d+",
    }
    async with (
        lying(server, lies[lie]) as liar,
        following(node(tmp_path, server.port, liar.port), scene) as driver,
    ):
        await driver.run_until(scene.height, scene.tip)
        await run_until(driver, lambda: bool(warnings(driver)))
        (warning,) = warnings(driver)
        assert warning.startswith(f"Electrum server 127.0.0.1:{liar.port} was left: ")
        assert re.search(words[lie], warning), warning
        assert driver.conclusions.found == scene.truth
        assert driver.source._stream.server.address.port == server.port  # type: ignore[attr-defined]


# -- questions besides the stream ------------------------------------------------------------------------------------


async def test_outputs_are_looked_up_with_proof(
    server: ElectrumServer, scene: Scene, control: ElectrumControl, tmp_path: Path
) -> None:
    outpoint = scene.spent.inputs[0].prevout
    async with (
        lying(server, None) as liar,
        following(node(tmp_path, liar.port, compare_seconds=60), scene) as driver,
    ):
        await driver.run_until(scene.height, scene.tip)
        source = driver.source
        assert await source.find_utxo(outpoint) == UtxoSpent()
        found = await source.find_utxo(OutPoint(scene.spent.txid, 0))
        assert isinstance(found, UtxoFound)
        assert (found.output, found.height) == (scene.spent.outputs[0], scene.birth + 3)
        liar.lie = Instead("blockchain.transaction.get_merkle", flipped_branch)
        answer = await source.find_utxo(outpoint)
        assert isinstance(answer, UtxoUnknown)
        assert "the merkle proof does not lead to the header" in answer.reason
        await run_until(driver, lambda: bool(warnings(driver)))
        assert "the merkle proof does not lead to the header" in warnings(driver)[0]


@pytest.mark.parametrize("above", [False, True], ids=["up to our tip", "above our tip"])
async def test_a_look_up_in_the_middle_of_a_reorg_accuses_nobody(
    above: bool, server: ElectrumServer, scene: Scene, control: ElectrumControl, tmp_path: Path
) -> None:
    """The server is on its new branch already, and we are not."""
    async with following(node(tmp_path, server.port, compare_seconds=60), scene) as driver:
        await driver.run_until(scene.height, scene.tip)
        if above:
            await control.reorg(2, 3)
        else:
            control.daemon.rpc("invalidateblock", scene.tip[::-1].hex())
        paid = await control.pay(p2wsh(anyone_script(b"elsewhere")), Sat(60_000))
        await control.mine(2)
        vout = next(n for n, output in enumerate(paid.outputs) if output.value == 60_000)
        answer = await driver.source.find_utxo(OutPoint(paid.txid, vout))
        assert isinstance(answer, UtxoUnknown)
        assert "at fault" not in answer.reason
        height, tip = await control.tip()
        await driver.run_until(height, tip)
        assert driver.notices == []
        assert isinstance(await driver.source.find_utxo(OutPoint(paid.txid, vout)), UtxoFound)


async def test_what_changed_is_asked_again_after_a_contradiction(
    server: ElectrumServer, scene: Scene, control: ElectrumControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server spoke of a script once; that its history did not fit then is no reason to forget it."""
    monkeypatch.setattr(histories, "ASKED_PER_BLOCK", 0)
    contradicted = False

    def once(method: str, params: list[Any], answer: Any) -> Any:
        nonlocal contradicted
        if method != "blockchain.scripthash.get_history" or contradicted or answer[-1]["height"] <= scene.height:
            return answer
        contradicted = True
        return answer[:-1]

    async with (
        lying(server, once) as liar,
        following(node(tmp_path, liar.port), scene) as driver,
    ):
        await driver.run_until(scene.height, scene.tip)
        again = await control.pay(scene.script, Sat(70_000))
        await control.mine(1)
        await driver.run_until_found(scene.truth | {(scene.height + 1, again.txid)})
        assert contradicted
