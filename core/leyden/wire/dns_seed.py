"""Names that DNS seeds understand, and node ids in the names they answer with (BOLT 10). No network here.

Whatever a seed says is a hint: it may ignore any condition, and only the handshake of BOLT 8 proves a node id.
"""

from collections.abc import Iterable

from msgspec import Struct

from leyden.bitcoin.bech32 import bech32_decode, bech32_encode, from_base32, to_base32
from leyden.bitcoin.errors import Bech32Error
from leyden.crypto import is_valid_point
from leyden.types import LeydenError, NodeId
from leyden.types.rules import C_240
from leyden.wire.node_addresses import AddressType

BITCOIN_REALM = 0
DEFAULT_COUNT = 25
_HRP = "ln"
_MAX_LABEL = 63
_MAX_NAME = 253
_MAX_DIGITS = 9
_NUMBERS = {"r": "realm", "a": "address_types", "n": "count"}


class SeedError(LeydenError):
    """A name that is none of a seed, or conditions that no name can carry."""


def address_types(types: Iterable[AddressType]) -> int:
    """The bit field of condition ``a``: bit n stands for descriptor type n (BOLT 7)."""
    return sum(1 << kind for kind in set(types))


DEFAULT_ADDRESS_TYPES = address_types((AddressType.IPV4, AddressType.IPV6))


class SeedQuery(Struct, frozen=True, kw_only=True):
    """Conditions of a query; ``node_id`` asks for one node instead of a random choice."""

    realm: int = BITCOIN_REALM
    address_types: int = DEFAULT_ADDRESS_TYPES
    node_id: NodeId | None = None
    count: int = DEFAULT_COUNT


class SeedRecord(Struct, frozen=True, kw_only=True):
    """One SRV record of an answer: a node that may be found at ``host`` (ask for its A or AAAA record)."""

    node_id: NodeId
    host: str
    port: int


_DEFAULTS = SeedQuery()


def query_name(root: str, query: SeedQuery = _DEFAULTS) -> str:
    """The name to look up below the ``root`` of a seed, defaults left out (C-240).

    ``SeedError`` when the name would be too long, a number is negative or the node id is no key.
    """
    labels = [
        f"{key}{getattr(query, name)}"
        for key, name in _NUMBERS.items()
        if getattr(query, name) != getattr(_DEFAULTS, name) or not C_240.enabled
    ]
    if min(query.realm, query.address_types, query.count) < 0:
        raise SeedError("conditions of a seed query are not negative")
    if query.node_id is not None:
        labels.append(node_label(query.node_id))
    name = ".".join([*labels, root.rstrip(".")])
    if len(name) > _MAX_NAME or not all(0 < len(label) <= _MAX_LABEL for label in name.split(".")):
        raise SeedError(f"no DNS name: {name[:80]!r}")
    return name


def parse_query_name(name: str, root: str) -> SeedQuery:
    """The conditions in a name below ``root``; of a repeated one the leftmost counts, unknown ones are ignored (C-240).

    ``SeedError`` for a name elsewhere, a number that is none, or a label with an invalid node id.
    """
    found: dict[str, int] = {}
    node_id: NodeId | None = None
    for label in reversed(_labels_below(name, root)):
        key, value = label[:1], label[1:]
        if key == "l":
            node_id = parse_node_label(label)
        elif key in _NUMBERS:
            if not value.isascii() or not value.isdigit() or len(value) > _MAX_DIGITS:
                raise SeedError(f"no number: {label[:80]!r}")
            found[_NUMBERS[key]] = int(value)
    return SeedQuery(
        realm=found.get("realm", BITCOIN_REALM),
        address_types=found.get("address_types", DEFAULT_ADDRESS_TYPES),
        node_id=node_id,
        count=found.get("count", DEFAULT_COUNT),
    )


def _labels_below(name: str, root: str) -> list[str]:
    name, root = name.rstrip(".").lower(), root.rstrip(".").lower()
    if name == root:
        return []
    if not name.endswith("." + root) or len(name) > _MAX_NAME:
        raise SeedError(f"not a name of {root[:80]}: {name[:80]!r}")
    return name[: -len(root) - 1].split(".")


def node_label(node_id: NodeId) -> str:
    """The condition ``l``, and first label of a virtual host: a node id in bech32, 62 characters."""
    if not is_valid_point(node_id):
        raise SeedError("a node id is a valid compressed key")
    return bech32_encode(_HRP, to_base32(node_id))


def parse_node_label(label: str) -> NodeId:
    """The inverse of ``node_label``; ``SeedError`` for anything else."""
    try:
        prefix, symbols = bech32_decode(label, max_length=_MAX_LABEL)
        node_id = from_base32(symbols)
    except Bech32Error as error:
        raise SeedError(f"no node id: {label[:80]!r} ({error})") from error
    if prefix != _HRP or not is_valid_point(node_id):
        raise SeedError(f"no node id: {label[:80]!r}")
    return NodeId(node_id)


def parse_record(target: str, port: int, root: str) -> SeedRecord:
    """An SRV record of an answer; ``SeedError`` when its target is no virtual host below ``root`` or port is none."""
    labels = _labels_below(target, root)
    if len(labels) != 1 or not 0 < port < 1 << 16:
        raise SeedError(f"no node behind {target[:80]!r}, port {port}")
    return SeedRecord(node_id=parse_node_label(labels[0]), host=target.rstrip(".").lower(), port=port)
