"""``HOST:PORT`` and ``NODE_ID@HOST:PORT`` as people write them."""

from leyden.crypto import is_valid_point
from leyden.types import NodeId

from leyden_cli.errors import ConfigError


def parse_host_port(text: str, what: str) -> tuple[str, int]:
    """``127.0.0.1:9735``, ``[::1]:9735``, ``name:9735``; ``ConfigError`` for anything else."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not host or (":" in host and not bracketed) or not (port.isascii() and port.isdigit()):
        raise ConfigError(f"{what} must be HOST:PORT, such as 127.0.0.1:9735, not {text[:80]!r}")
    if int(port) > 65_535:
        raise ConfigError(f"{what}: there is no port {port[:20]}")
    return host, int(port)


def parse_node_id(text: str) -> NodeId:
    """66 hexadecimal digits that are a public key."""
    try:
        node_id = bytes.fromhex(text)
    except ValueError:
        node_id = b""
    if len(node_id) != 33 or not is_valid_point(node_id):
        raise ConfigError(f"{text[:80]!r} is no node id: it is a public key of 66 hexadecimal digits")
    return NodeId(node_id)


def parse_peer(text: str) -> tuple[NodeId, str, int]:
    """``NODE_ID@HOST:PORT``."""
    node_id, at, address = text.partition("@")
    if not at:
        raise ConfigError(f"a peer is written NODE_ID@HOST:PORT, not {text[:80]!r}")
    host, port = parse_host_port(address, "the address of a peer")
    return parse_node_id(node_id), host, port


def show_host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
