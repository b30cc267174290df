"""Connecting: TCP or TLS, directly or through a SOCKS5 proxy, with certificates checked."""

import asyncio
import secrets
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
from leyden.hooks.errors import PluginError
from leyden.types import LeydenError
from python_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError, ProxyType
from python_socks.async_.asyncio import Proxy

from leyden_electrum.address import ServerAddress
from leyden_electrum.errors import ServerUnavailable, ServerUnusable
from leyden_electrum.pins import AUTHORITY, Pins

P = TypeVar("P", bound=asyncio.Protocol)


class Dialer:
    """How servers are reached. ``ca_file``: trust only certificates that this file vouches for, and pin nothing."""

    def __init__(self, pins: Pins, *, proxy: str | None = None, ca_file: Path | None = None) -> None:
        self._pins = pins
        self._proxy: SocksProxy | None = None if proxy is None else parse_proxy(proxy)
        self._ca_file = ca_file

    async def connect(
        self, address: ServerAddress, make: Callable[[], P], seconds: float
    ) -> tuple[asyncio.Transport, P]:
        """``ServerUnavailable`` if it cannot be reached, ``ServerUnusable`` if its certificate is not the right one."""
        if address.is_onion and self._proxy is None:
            raise ServerUnusable("an .onion server needs a proxy: set proxy in [electrum]")
        try:
            async with asyncio.timeout(seconds):
                if not address.tls:
                    return await self._open(address, make, None)
                return await self._open_tls(address, make)
        except TimeoutError:
            raise ServerUnavailable(f"it cannot be reached within {seconds:g} s") from None
        except ssl.SSLError as error:
            raise ServerUnavailable(f"no TLS connection comes about: {_words(error)}") from error
        except ProxyError as error:
            raise ServerUnavailable(f"the proxy cannot reach it: {error}") from error
        except OSError as error:
            raise ServerUnavailable(f"it cannot be reached: {_words(error)}") from error

    async def _open_tls(self, address: ServerAddress, make: Callable[[], P]) -> tuple[asyncio.Transport, P]:
        if self._ca_file is not None:
            return await self._open_vouched(address, make, ssl.create_default_context(cafile=str(self._ca_file)))
        pinned = self._pins.get(address)
        if pinned == AUTHORITY:
            return await self._open_vouched(address, make, ssl.create_default_context())
        if pinned is None and not address.is_onion:
            try:
                made = await self._open(address, make, ssl.create_default_context())
            except ssl.SSLCertVerificationError:
                pass  # nobody vouches for it: from now on it is known by this certificate
            else:
                self._pins.remember(address, AUTHORITY)
                return made
        anybody = ssl.create_default_context()
        anybody.check_hostname = False
        anybody.verify_mode = ssl.CERT_NONE
        transport, protocol = await self._open(address, make, anybody)
        try:
            encrypted = transport.get_extra_info("ssl_object")
            self._pins.check(address, encrypted.getpeercert(binary_form=True) or b"")
        except LeydenError:
            transport.abort()
            raise
        return transport, protocol

    async def _open_vouched(
        self, address: ServerAddress, make: Callable[[], P], context: ssl.SSLContext
    ) -> tuple[asyncio.Transport, P]:
        try:
            return await self._open(address, make, context)
        except ssl.SSLCertVerificationError as error:
            raise ServerUnusable(
                f"no certificate authority vouches for it any more ({error.verify_message}): "
                f"somebody may stand between us and {address}"
                if self._ca_file is None
                else f"{self._ca_file} does not vouch for its certificate: {error.verify_message}"
            ) from error

    async def _open(
        self, address: ServerAddress, make: Callable[[], P], context: ssl.SSLContext | None
    ) -> tuple[asyncio.Transport, P]:
        loop = asyncio.get_running_loop()
        if self._proxy is None:
            made = await loop.create_connection(make, address.host, address.port, ssl=context)
        else:
            made = await loop.create_connection(
                make,
                sock=await self._through_proxy(address, self._proxy),
                ssl=context,
                server_hostname=address.host if context is not None else None,
            )
        return made

    async def _through_proxy(self, address: ServerAddress, proxy: "SocksProxy") -> socket.socket:
        """Names are resolved by the proxy. Without a user of its own each connection gets a fresh one: Tor then uses
        another circuit for each server."""
        user, password = proxy.user, proxy.password
        if user is None:
            user, password = secrets.token_hex(8), secrets.token_hex(8)
        opened = Proxy.create(ProxyType.SOCKS5, proxy.host, proxy.port, username=user, password=password, rdns=True)
        try:
            return await opened.connect(address.host, address.port)
        except (ProxyConnectionError, ProxyTimeoutError) as error:
            raise ServerUnavailable(
                f"the proxy {proxy.host}:{proxy.port} cannot be reached: {_words(error)}"
            ) from error


class SocksProxy(msgspec.Struct, frozen=True, kw_only=True):
    """A SOCKS5 proxy. The password is never shown."""

    host: str
    port: int
    user: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"SocksProxy({self.host}:{self.port}, user={self.user!r})"


def parse_proxy(text: str) -> SocksProxy:
    """Of ``socks5://[USER:PASSWORD@]HOST:PORT``; ``PluginError`` for anything else."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or port is None or parts.scheme not in ("socks5", "socks5h") or parts.path.strip("/"):
        raise PluginError('[electrum] proxy must look like "socks5://127.0.0.1:9050"')
    return SocksProxy(host=host, port=port, user=parts.username, password=parts.password)


def _words(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
