"""The test bed itself: ports that stay ours, programs that are fetched or built once, whoever asks for them."""

import socket
import sys

import pytest

from tests.testbed.bitcoind import free_port


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody could listen on a port that is held")
def test_a_port_is_given_to_nobody_else() -> None:
    port = free_port()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))


def test_a_server_may_listen_on_its_port_again_and_again() -> None:
    port = free_port()
    for _ in range(3):
        with socket.create_server(("127.0.0.1", port)) as server, socket.create_connection(("127.0.0.1", port)) as one:
            other, _ = server.accept()
            other.close()  # the server's end is the one that lingers
            assert one.recv(1) == b""
    with socket.socket() as late:
        assert late.connect_ex(("127.0.0.1", port)) != 0
