"""What a hook specification promises, as data: the dispatcher obeys it and the docs are made from it."""

import enum
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from pluggy import HookimplMarker, HookspecMarker

PROJECT = "leyden"

hookimpl = HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook of the same name; it may be ``async``."""

_pluggy_spec = HookspecMarker(PROJECT)

SECTIONS = (
    "Called when",
    "Arguments",
    "Answer",
    "Deadline",
    "Result policy",
    "Order",
    "On None",
    "On exception",
    "On timeout",
    "On wrong type",
    "Repeated after restart",
    "Since",
)
"""The headings every hook specification has, in this order."""


class ResultPolicy(enum.Enum):
    """How the answers of several plugins become one."""

    ANY_VETO = "any veto"
    """All must accept; what is not an acceptance is a no. Without any plugin the config's policy answers."""
    EACH_ALONE = "each alone"
    """A notice: every plugin gets it, none sees the other's outcome, answers other than ``None`` are faults."""


class HookContract(msgspec.Struct, frozen=True, kw_only=True):
    """The machine-readable part of a hook specification. ``deadline`` in seconds; ``accepts``: types that say yes."""

    name: str
    policy: ResultPolicy
    deadline: float | None
    accepts: tuple[type, ...] = ()
    is_async: bool = True


_F = TypeVar("_F", bound=Callable[..., Any])
_CONTRACTS: dict[str, HookContract] = {}


def hookspec(
    *, policy: ResultPolicy, deadline: float | None, accepts: tuple[type, ...] = (), is_async: bool = True
) -> Callable[[_F], _F]:
    """Declare a hook: a pluggy specification plus its ``HookContract``."""

    def declare(function: _F) -> _F:
        name = function.__name__
        _CONTRACTS[name] = HookContract(name=name, policy=policy, deadline=deadline, accepts=accepts, is_async=is_async)
        return _pluggy_spec(function)

    return declare


def contracts() -> dict[str, HookContract]:
    """Every declared hook by name, in the order of declaration."""
    return dict(_CONTRACTS)
