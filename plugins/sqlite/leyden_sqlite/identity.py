"""On which machine and in which file a database lives.

A copy that was restored from a backup cannot know that it is old. That it is a *copy* shows: another inode, or another
machine.
"""

from pathlib import Path

_MACHINE_ID_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


def machine_id() -> str:
    """The system's own id; empty where there is none (some containers), leaving the inode alone to tell."""
    for path in _MACHINE_ID_FILES:
        try:
            text = path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text:
            return text
    return ""


def file_identity(path: Path) -> str:
    """Machine and inode as one comparable text."""
    return f"{machine_id()}:{path.stat().st_ino}"
