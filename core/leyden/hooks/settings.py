"""Tables of a config as typed records: an unknown key is an error that names the nearest right one."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from leyden.hooks.errors import SettingsError

S = TypeVar("S", bound=msgspec.Struct)


class NoSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For a service that has nothing to set."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` or, when nothing is near, an empty string."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {found[0]!r}?)" if found else ""


def read_settings(table: Mapping[str, object], settings: type[S], where: str) -> S:
    """``table`` as a ``settings`` record. ``SettingsError`` names the table ``where`` it stands and what is wrong."""
    known = [field.encode_name for field in msgspec.structs.fields(settings)]
    for key in table:
        if key not in known:
            hint = nearest(key, known) or (f"; it has {', '.join(known)}" if known else "; it has no settings")
            raise SettingsError(f"[{where}] has no setting {key!r}{hint}")
    try:
        return msgspec.convert(dict(table), settings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"[{where}] is wrong: {error}") from None
