"""A node's folder and what lies in it; the data folder is private to its owner, for one node at a time."""

import fcntl
import os
from pathlib import Path
from types import TracebackType

import platformdirs

from leyden_cli.errors import CliError, ConfigError

CONFIG_NAME = "leyden.toml"
SOCKET_NAME = "leyden.sock"
LOCK_NAME = "leyden.lock"


def default_folder() -> Path:
    """Where a node lives when nobody says otherwise."""
    return platformdirs.user_data_path("leyden")


def config_path(folder: Path) -> Path:
    return folder / CONFIG_NAME


def make_private_folder(folder: Path) -> None:
    """Make ``folder`` with mode 0700, or check that the existing one is private."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigError(f"{folder} is no folder") from None
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}") from None
    check_private_folder(folder)


def check_private_folder(folder: Path) -> None:
    """``ConfigError`` unless ``folder`` is ours and closed to everybody else."""
    try:
        facts = folder.stat()
    except OSError as error:
        raise ConfigError(f"no data folder at {folder}: {error.strerror} (run `leyden init`)") from None
    if facts.st_uid != os.geteuid():
        raise ConfigError(f"{folder} belongs to another user")
    if facts.st_mode & 0o077:
        raise ConfigError(f"{folder} is open to other users: run `chmod 700 {folder}`")


class FolderLock:
    """Held while a node runs on the folder; the system releases it however the process ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME
        self._descriptor = -1

    def __enter__(self) -> "FolderLock":
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CliError(f"cannot open {self._path}: {error.strerror}") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip()
            self._close()
            raise CliError(
                f"a node is running on {self._path.parent} already (process {owner or 'unknown'}): stop it first"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
