"""BIP 39 words and the seed file: ``seed.json``, readable by its owner only."""

import json
import os
import secrets
import stat
from pathlib import Path

import msgspec
from leyden.bitcoin import Network
from leyden.types import LeydenError
from mnemonic import Mnemonic

from leyden_inmemory.derivation import DERIVATION_VERSION

SEED_FORMAT = "leyden-seed"
_ENTROPY_BYTES = 32
_MAX_FILE = 65_536


class SeedError(LeydenError):
    """The words or the seed file cannot be used; the text says what to do. It never holds a secret."""


class SeedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``seed.json`` holds. ``derivation`` is the version of the scheme that made the keys in use."""

    format: str
    derivation: int
    network: str
    mnemonic: str

    def __repr__(self) -> str:
        return f"SeedFile(network={self.network!r}, ...)"


def generate_mnemonic() -> str:
    """24 new words from 32 bytes of the system's randomness."""
    return mnemonic_from_entropy(secrets.token_bytes(_ENTROPY_BYTES))


def mnemonic_from_entropy(entropy: bytes) -> str:
    """The words of 16, 20, 24, 28 or 32 bytes of entropy (BIP 39, English list)."""
    if len(entropy) not in (16, 20, 24, 28, 32):
        raise SeedError(f"entropy has 16, 20, 24, 28 or 32 bytes, not {len(entropy)}")
    words: str = Mnemonic("english").to_mnemonic(entropy)
    return words


def seed_from_mnemonic(mnemonic: str, passphrase: str = "") -> bytes:
    """The 64-byte seed; ``SeedError`` for unknown words or a wrong checksum."""
    words = " ".join(mnemonic.lower().split())
    if not Mnemonic("english").check(words):
        raise SeedError("these are not BIP 39 words with a correct checksum: check spelling and order")
    return bytes(Mnemonic.to_seed(words, passphrase))


def create_seed_file(path: Path, network: Network, mnemonic: str | None = None) -> str:
    """Write a new seed file (0600, in a folder made 0700 if it does not exist) and return its words.

    Without ``mnemonic`` new words are made. ``SeedError`` if the file exists: a seed is never overwritten. The words
    are on disk when this returns.
    """
    words = generate_mnemonic() if mnemonic is None else " ".join(mnemonic.lower().split())
    seed_from_mnemonic(words)
    content = SeedFile(format=SEED_FORMAT, derivation=DERIVATION_VERSION, network=network.label, mnemonic=words)
    text = json.dumps(msgspec.to_builtins(content), indent=2) + "\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(path, text.encode())
    except FileExistsError:
        raise SeedError(f"{path} exists already: it is never overwritten, move it away first") from None
    except OSError as error:
        raise SeedError(f"cannot write {path}: {error.strerror}") from None
    return words


def _write_new(path: Path, data: bytes) -> None:
    """All or nothing: written and synced under another name, then linked to its own."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # fails if the name is taken, unlike a rename
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load_seed_file(path: Path, network: Network) -> bytes:
    """The 64-byte seed in ``path``. ``SeedError`` if it is missing, readable by others, foreign or damaged."""
    content = _parse(path, _read_private(path))
    if content.format != SEED_FORMAT or content.derivation > DERIVATION_VERSION:
        raise SeedError(
            f"{path} was made by a newer program (derivation {content.derivation}): upgrade leyden-inmemory"
        )
    if content.derivation != DERIVATION_VERSION:
        raise SeedError(f"{path} names derivation {content.derivation}, which does not exist")
    if content.network != network.label:
        raise SeedError(
            f"{path} belongs to {content.network[:20]}, this node runs on {network.label}: use another folder"
        )
    return seed_from_mnemonic(content.mnemonic)


def _read_private(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise SeedError(f"no seed at {path}: run `leyden init` to make one") from None
    except OSError as error:
        raise SeedError(f"cannot read {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise SeedError(f"{path} is no regular file")
        if facts.st_uid != os.geteuid():
            raise SeedError(f"{path} belongs to another user: only its owner may use it")
        if facts.st_mode & 0o077:
            raise SeedError(f"{path} can be read by others: run `chmod 600 {path}`")
        if path.parent.stat().st_mode & 0o022:
            raise SeedError(f"{path.parent} can be written by others: run `chmod 700 {path.parent}`")
        return file.read(_MAX_FILE)


def _parse(path: Path, data: bytes) -> SeedFile:
    try:
        return msgspec.json.decode(data, type=SeedFile)
    except msgspec.MsgspecError:
        # The decoder's own message could quote the words.
        raise SeedError(f"{path} is no seed file: restore it from your words") from None
