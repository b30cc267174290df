"""Ports for programs that are started a moment later, and again after they were killed."""

import socket

_held: list[int] = []
"""File descriptors of the sockets that hold ports, as long as this process lives."""


def free_port() -> int:
    """A port of loopback that nobody else is given until we end, also while whoever serves there is restarted.

    It is held by a socket that never listens: whoever binds with ``SO_REUSEADDR``, as servers do, may listen there and
    the kernel gives it to nobody who asks for just any port. Connections to it are refused as long as no server runs.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port = int(holder.getsockname()[1])
        if _may_listen(port):
            _held.append(holder.detach())
    return port


def _may_listen(port: int) -> bool:
    """Whether a held port can be listened on: so it is on Linux, elsewhere it would be everybody's."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
            server.listen()
        except OSError:
            return False
    return True
