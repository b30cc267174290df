"""Channels named on the command line by the first digits of their id, and how they are closed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner
from leyden.bitcoin import Network
from leyden.node.host import run_inline
from leyden_cli.client import CallFailed, Client
from leyden_cli.commands import channels as verbs
from leyden_cli.commands.channels import _full_id
from leyden_cli.errors import CliError
from leyden_cli.rpc.methods import NodeMethods
from leyden_cli.rpc.server import RpcServer


def client(*ids: str) -> Client:
    async def channels() -> list[Any]:
        return [SimpleNamespace(channel_id=each) for each in ids]

    return cast(Client, SimpleNamespace(channels=channels))


async def test_the_first_digits_will_do() -> None:
    assert await _full_id(client("ab12", "ac34"), "AB") == "ab12"
    assert await _full_id(client("ab12"), "ab12") == "ab12"


@pytest.mark.parametrize(("start", "says"), [("a", "2 channels begin with 'a'"), ("ff", "no channels begin")])
async def test_one_channel_must_be_meant(start: str, says: str) -> None:
    with pytest.raises(CliError, match=says):
        await _full_id(client("ab12", "ac34"), start)


@pytest.mark.parametrize("ids", [(), ("ab12",), ("ab12", "ac34")])
async def test_no_digits_name_no_channel(ids: tuple[str, ...]) -> None:
    """``leyden close "$CHANNEL"`` with the variable unset must not close the only one."""
    with pytest.raises(CliError, match="empty"):
        await _full_id(client(*ids), "")


# -- close -------------------------------------------------------------------------------------------------------------

CHANNEL = "ab" * 32


class ClosingNode:
    """Notes how it is asked to close."""

    def __init__(self) -> None:
        self.core = SimpleNamespace(config=SimpleNamespace(network=Network.REGTEST))
        self.asked: list[dict[str, Any]] = []

    async def close_channel(self, channel_id: bytes, **how: Any) -> None:
        self.asked.append({"channel_id": channel_id.hex(), **how})


async def test_the_most_that_we_pay_for_a_close_reaches_the_node(tmp_path: Path) -> None:
    node = ClosingNode()
    server = RpcServer(tmp_path / "s.sock", NodeMethods(cast(Any, node), cast(Any, None), lambda: None).table)
    await server.start()
    async with await Client.connect(tmp_path / "s.sock") as client:
        await client.close_channel(CHANNEL, feerate_per_kw=500, max_fee_sat=1_200)
        await client.close_channel(CHANNEL)
        for limited in ({"max_fee_sat": 1_200}, {"feerate_per_kw": 500}):
            with pytest.raises(CallFailed, match="a forced close"):  # a limit that nobody keeps must not be accepted
                await client.close_channel(CHANNEL, force=True, **limited)
        with pytest.raises(CallFailed, match="max_fee_sat"):
            await client.close_channel(CHANNEL, max_fee_sat=0)
        await client.close_channel(CHANNEL, force=True)
    await server.close()
    plain = {"channel_id": CHANNEL, "force": False, "script": b"", "feerate": None, "max_fee": None}
    assert node.asked == [plain | {"feerate": 500, "max_fee": 1_200}, plain, plain | {"force": True}]


def test_close_takes_the_most_that_we_pay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    class Asked:
        async def channels(self) -> list[Any]:
            return [SimpleNamespace(channel_id=CHANNEL)]

        async def close_channel(self, channel_id: str, **how: Any) -> None:
            asked.append({"channel_id": channel_id, **how})

    monkeypatch.setattr(verbs, "ask", lambda _folder, work: run_inline(work(Asked())))
    result = CliRunner().invoke(verbs.close, ["--dir", str(tmp_path), "ab", "--max-fee", "1200"])
    assert result.exit_code == 0, result.output
    plain = {"channel_id": CHANNEL, "force": False, "address": None, "feerate_per_kw": None, "max_fee_sat": 1200}
    assert asked == [plain]
    assert CliRunner().invoke(verbs.close, ["--dir", str(tmp_path), "ab", "--max-fee", "0"]).exit_code == 2
