"""Addresses of servers as the config writes them: ``host:port:t`` for plain TCP, ``host:port:s`` for TLS."""

from collections.abc import Sequence

import msgspec
from leyden.hooks.errors import PluginError

ONION = ".onion"


class ServerAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server is and whether it speaks TLS."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_onion(self) -> bool:
        return self.host.endswith(ONION)


def parse_address(text: str) -> ServerAddress:
    """``PluginError`` that says how an address is written."""
    place, _, kind = text.strip().rpartition(":")
    host, _, port = place.rpartition(":")
    if kind not in ("t", "s"):
        raise _mistake(text, "it must end with :t for TCP or :s for TLS")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise _mistake(text, "the port is a number from 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise _mistake(text, "an IPv6 address stands in brackets")
    if not host or any(character.isspace() or character in "/[]@" for character in host):
        raise _mistake(text, "the host is missing or no host name")
    return ServerAddress(host=host.lower(), port=int(port), tls=kind == "s")


def parse_addresses(texts: Sequence[str]) -> tuple[ServerAddress, ...]:
    """At least one, each once; ``PluginError`` otherwise."""
    if not texts:
        raise PluginError('[electrum] servers is empty: write, for example, servers = ["127.0.0.1:50001:t"]')
    addresses = tuple(parse_address(text) for text in texts)
    for index, address in enumerate(addresses):
        if address in addresses[:index]:
            raise PluginError(f"[electrum] servers names {address} twice")
    return addresses


def _mistake(text: str, why: str) -> PluginError:
    return PluginError(f"[electrum] servers: {text[:100]!r} is no server: {why}, as in host.example:50002:s")
