"""Channels named on the command line by the first digits of their id."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from leyden_cli.client import Client
from leyden_cli.commands.channels import _full_id
from leyden_cli.errors import CliError


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
