"""Where a node can be reached, and what it calls itself: fields inside ``node_announcement`` (BOLT 7)."""

import enum
from base64 import b32encode
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct

from leyden.types import clean_text
from leyden.types.rules import C_219, C_220, C_221
from leyden.wire.errors import EncodeError, refuse

ALIAS_SIZE = 32
"""Bytes of an alias, filled up with zeros."""


class AddressType(enum.IntEnum):
    """Types of descriptors."""

    IPV4 = 1
    IPV6 = 2
    TOR_V2 = 3
    TOR_V3 = 4
    DNS = 5


BODY_SIZES = {AddressType.IPV4: 6, AddressType.IPV6: 18, AddressType.TOR_V2: 12, AddressType.TOR_V3: 37}
"""Bytes behind the type, port included; a DNS name brings its length."""


class NodeAddress(Struct, frozen=True, kw_only=True):
    """One descriptor. ``host`` is the packed IP address, the 35 bytes of an onion service, or an ASCII name."""

    type: AddressType
    host: bytes
    port: int

    def __str__(self) -> str:
        """``1.2.3.4:9735``, ``[::1]:9735``, ``example.org:9735``; a Tor address is base32 with ``.onion``."""
        match self.type:
            case AddressType.IPV4:
                return f"{IPv4Address(self.host)}:{self.port}"
            case AddressType.IPV6:
                return f"[{IPv6Address(self.host)}]:{self.port}"
            case AddressType.DNS:
                return f"{clean_text(self.host.decode('ascii', 'replace'))}:{self.port}"
            case _:
                return f"{b32encode(self.host).decode().lower()}.onion:{self.port}"


class NodeAddresses(Struct, frozen=True, kw_only=True):
    """All usable descriptors of an announcement; ``may_relay`` is False when the announcement breaks a rule."""

    addresses: tuple[NodeAddress, ...]
    may_relay: bool = True


def decode_addresses(data: bytes) -> NodeAddresses:
    """Read the field ``addresses``; ``WireError`` (C-219) when a descriptor of known type is cut short.

    C-220: reading stops at the first unknown type and at a second DNS name (then the announcement is not relayed);
    Tor v2 and port 0 are skipped.
    """
    found: list[NodeAddress] = []
    offset, names = 0, 0
    while offset < len(data):
        try:
            kind = AddressType(data[offset])
        except ValueError:
            break
        offset += 1
        if kind is AddressType.DNS:
            names += 1
            if names > 1 and C_220.enabled:
                return NodeAddresses(addresses=tuple(found), may_relay=False)
            size = 1 + (data[offset] if offset < len(data) else 0) + 2
        else:
            size = BODY_SIZES[kind]
        if offset + size > len(data):
            refuse(C_219, "address descriptors are cut short", type=kind.name, offered=len(data) - offset, allowed=size)
            break
        start = offset + (kind is AddressType.DNS)
        offset += size
        address = NodeAddress(
            type=kind, host=data[start : offset - 2], port=int.from_bytes(data[offset - 2 : offset], "big")
        )
        if (address.port and kind is not AddressType.TOR_V2) or not C_220.enabled:
            found.append(address)
    return NodeAddresses(addresses=tuple(found))


def encode_addresses(addresses: Sequence[NodeAddress]) -> bytes:
    """Our own field ``addresses``, in ascending order of type (C-221).

    ``EncodeError`` for Tor v2, port 0, a second DNS name, a name that is not ASCII, or a host of the wrong length.
    """
    if sum(address.type is AddressType.DNS for address in addresses) > 1:
        raise EncodeError("only one DNS name can be announced")
    ordered = sorted(addresses, key=lambda address: address.type) if C_221.enabled else addresses
    return b"".join(map(_encode_address, ordered))


def _encode_address(address: NodeAddress) -> bytes:
    kind, host = address.type, address.host
    if kind is AddressType.TOR_V2:
        raise EncodeError("Tor v2 services are gone")
    if not 0 < address.port < 1 << 16:
        raise EncodeError(f"port {address.port} cannot be announced")
    if kind is AddressType.DNS:
        if not host.isascii() or not 0 < len(host) < 256:
            raise EncodeError("a DNS name has 1 to 255 ASCII characters (use the punycode form)")
        host = bytes((len(host),)) + host
    elif len(host) != BODY_SIZES[kind] - 2:
        raise EncodeError(f"{len(host)} bytes are no {kind.name} address")
    return bytes((kind,)) + host + address.port.to_bytes(2, "big")


def encode_alias(alias: str) -> bytes:
    """The 32 bytes of our alias; ``EncodeError`` when its UTF-8 form is longer or contains a NUL."""
    try:
        raw = alias.encode()
    except UnicodeEncodeError as error:
        raise EncodeError("an alias is text") from error
    if len(raw) > ALIAS_SIZE or b"\0" in raw:
        raise EncodeError(f"an alias has at most {ALIAS_SIZE} bytes and no NUL")
    return raw.ljust(ALIAS_SIZE, b"\0") if C_221.enabled else raw


def next_timestamp(now: int, newest: int) -> int:
    """The time to put into our next announcement or update: ``now``, but always above the ``newest`` ever sent (C-221).

    Both in Unix seconds; the caller stores what it gets before sending, so that it grows across restarts.
    """
    return max(now, newest + 1) if C_221.enabled else now


def decode_alias(alias: bytes) -> str:
    """The alias for screens and logs: padding gone, whatever is no text or no plain character replaced (C-223)."""
    return clean_text(alias.rstrip(b"\0").decode(errors="replace"))
