"""A bare connection to the peer that stays open beside the scenarios: it answers pings and remembers them."""

import secrets
import socket
import threading

from leyden.bitcoin import Network
from leyden.crypto import sha256
from leyden.testing.scripted_peer import Script
from leyden.transport import ACT_TWO_SIZE, InitiatorHandshake, Session
from leyden.types import NodeId
from leyden.wire import Init, Ping, Pong, decode, encode

AGAIN_SECONDS = 1.0
SOURCE = ("127.0.0.2", 0)
"""LND takes whoever comes from 127.0.0.1 for somebody behind Tor and pings him every three minutes, not every one."""


class Observer:
    """``pings``: how many bytes each ping of the peer asked for; ``answered``: after which it went on talking to us."""

    def __init__(self, node_id: str, host: str, port: int) -> None:
        self.pings: list[int] = []
        self.answered = 0
        self._script = Script("observer", None, NodeId(bytes.fromhex(node_id)))
        self._address = (host, port)
        self._stopping = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)

    def start(self) -> "Observer":
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stopping.set()
        connection = self._socket
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._thread.join(10)

    def _run(self) -> None:
        """Again and again: the peer is killed and restarted meanwhile."""
        while not self._stopping.is_set():
            try:
                with socket.create_connection(self._address, source_address=SOURCE) as connection:
                    self._socket = connection
                    if not self._stopping.is_set():  # ``stop`` may have come too early to see it
                        self._talk(connection)
            except OSError:
                pass
            self._socket = None
            self._stopping.wait(AGAIN_SECONDS)

    def _talk(self, connection: socket.socket) -> None:
        script = self._script
        shake = InitiatorHandshake(script.node_id, script.remote_node_id, sha256(secrets.token_bytes(32)))
        connection.sendall(shake.act_one())
        act = b""
        while len(act) < ACT_TWO_SIZE:
            more = connection.recv(ACT_TWO_SIZE - len(act))
            if not more:
                return
            act += more
        connection.sendall(shake.act_three(script.ecdh(shake.on_act_two(act))))
        session = shake.session()
        init = Init(globalfeatures=b"", features=script.features.to_bytes(), networks=(Network.REGTEST.chain_hash,))
        connection.sendall(session.encrypt(encode(init)))
        waiting = False
        while data := connection.recv(65536):
            for raw in session.feed(data):
                self.answered += waiting
                waiting = self._on_message(connection, session, raw)

    def _on_message(self, connection: socket.socket, session: Session, raw: bytes) -> bool:
        """Whether it was a ping, answered."""
        message = decode(raw)
        if not isinstance(message, Ping):
            return False
        connection.sendall(session.encrypt(encode(Pong(ignored=bytes(message.num_pong_bytes)))))
        self.pings.append(message.num_pong_bytes)
        return True
