"""LND's REST interface: JSON over HTTP on loopback; 64-bit numbers are strings, bytes are base64."""

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from typing import Any

from tests.interop.peer import PeerRefused
from tests.testbed.program import PATIENCE


def b64(hexed: str) -> str:
    """Bytes as its JSON bodies want them."""
    return base64.b64encode(bytes.fromhex(hexed)).decode()


def b64_path(hexed: str) -> str:
    """Bytes as its paths want them."""
    return base64.urlsafe_b64encode(bytes.fromhex(hexed)).decode()


class Rest:
    """Calls of one node. ``PeerRefused`` with its reason; ``OSError`` while nothing listens."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, *, timeout: float = PATIENCE) -> Any:
        with self._open(method, path, body, timeout) as response, _whole(path):
            return json.load(response)

    @contextmanager
    def stream(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, timeout: float = PATIENCE
    ) -> Iterator[Iterator[Any]]:
        """What it says line by line; ``timeout`` seconds for each."""
        with self._open(method, path, body, timeout) as response:
            yield self._lines(response, path)

    def _open(self, method: str, path: str, body: dict[str, Any] | None, timeout: float) -> HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=method)
        with _whole(path):
            try:
                found: HTTPResponse = urllib.request.urlopen(request, timeout=timeout)
            except urllib.error.HTTPError as error:
                with error:
                    raise PeerRefused(f"{path}: {_reason(error.read())}") from None
        return found

    def _lines(self, response: HTTPResponse, path: str) -> Iterator[Any]:
        with _whole(path):
            for line in response:
                said = json.loads(line)
                if "error" in said:
                    raise PeerRefused(f"{path}: {_reason(line)}")
                yield said["result"]


@contextmanager
def _whole(path: str) -> Iterator[None]:
    """Half an answer is what a node leaves that is killed over it."""
    try:
        yield
    except (HTTPException, ValueError) as error:
        raise ConnectionError(f"{path}: {error!r}") from None


def _reason(body: bytes) -> str:
    try:
        said = json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
    error = said.get("error", said)
    return str(error.get("message", error)) if isinstance(error, dict) else str(said.get("message", error))
