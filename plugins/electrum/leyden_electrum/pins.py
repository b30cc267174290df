"""What is remembered about the certificates of servers: a file in the node's folder that a person can edit.

A server met for the first time is taken at its word. If a certificate authority vouches for it, that is what is
remembered (such certificates change every few weeks); otherwise the certificate itself.
"""

import hashlib
import os
from pathlib import Path

import msgspec

from leyden_electrum.address import ServerAddress
from leyden_electrum.errors import ServerUnusable

FILE_NAME = "electrum-certificates.json"
AUTHORITY = "authority"
"""Remembered instead of a fingerprint: a certificate authority vouches for this server."""


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a certificate in DER, in hex."""
    return hashlib.sha256(certificate).hexdigest()


class Pins:
    """Read once, written whenever a server is met for the first time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self._known: dict[str, str] | None = None

    def get(self, address: ServerAddress) -> str | None:
        """``AUTHORITY``, a fingerprint, or ``None`` for a stranger. ``ServerUnusable`` if the file cannot be read."""
        return self._load().get(str(address))

    def remember(self, address: ServerAddress, pin: str) -> None:
        known = {**self._load(), str(address): pin}
        temporary = self.path.with_suffix(".new")
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(known)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            raise ServerUnusable(f"its certificate cannot be noted in {self.path}: {error.strerror}") from error
        self._known = known

    def check(self, address: ServerAddress, certificate: bytes) -> None:
        """``ServerUnusable`` unless this is the certificate that was seen before; a first one is remembered."""
        pinned, offered = self.get(address), fingerprint(certificate)
        if pinned is None:
            self.remember(address, offered)
        elif pinned != offered:
            raise ServerUnusable(
                f"its certificate has changed from {_short(pinned)} to {_short(offered)}: somebody may stand "
                f"between us and {address}; if its operator has renewed it, remove {address} from {self.path}"
            )

    def _load(self) -> dict[str, str]:
        if self._known is None:
            try:
                self._known = msgspec.json.decode(self.path.read_bytes(), type=dict[str, str])
            except FileNotFoundError:
                self._known = {}
            except OSError as error:
                raise ServerUnusable(f"the known certificates cannot be read: {self.path}: {error.strerror}") from error
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise ServerUnusable(f"{self.path} is damaged: repair or remove it ({error})") from error
        return self._known


def _short(pin: str) -> str:
    return f"{pin[:16]}…" if len(pin) > 16 else pin
