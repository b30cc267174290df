"""Every hook specification is complete, and its data agrees with its words."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
from leyden.hooks import hookspecs
from leyden.hooks.contract import SECTIONS, ResultPolicy, contracts
from leyden.hooks.types import AcceptTerms

HOOKS = {name: value for name, value in vars(hookspecs).items() if name.startswith("leyden_")}


def sections(hook: Callable[..., Any]) -> dict[str, str]:
    """Heading to text, in order, of the indented sections of a hook's docstring."""
    text = inspect.cleandoc(hook.__doc__ or "")
    parts = re.split(r"^([A-Z][A-Za-z ]+):\n", text, flags=re.M)[1:]
    return {name: inspect.cleandoc(body).strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def test_the_hooks_of_this_release() -> None:
    assert list(HOOKS) == list(contracts())
    assert set(HOOKS) == {
        "leyden_accept_peer",
        "leyden_accept_channel",
        "leyden_accept_payment",
        "leyden_approve_spend",
        "leyden_event",
        "leyden_register_services",
        "leyden_start",
        "leyden_stop",
    }


@pytest.mark.parametrize("name", HOOKS)
def test_every_section_is_there(name: str) -> None:
    found = sections(HOOKS[name])
    assert tuple(found) == SECTIONS
    assert all(found.values()), f"{name} has an empty section"
    first_line = inspect.cleandoc(HOOKS[name].__doc__ or "").splitlines()[0]
    assert first_line
    assert first_line[-1] in "?."


@pytest.mark.parametrize("name", HOOKS)
def test_words_and_data_agree(name: str) -> None:
    contract, found = contracts()[name], sections(HOOKS[name])
    expected = "None" if contract.deadline is None else f"{contract.deadline:g} seconds"
    assert found["Deadline"].startswith(expected)
    policy = {ResultPolicy.ANY_VETO: "Any veto", ResultPolicy.EACH_ALONE: "Each alone"}[contract.policy]
    assert found["Result policy"].startswith(policy)
    for argument in inspect.signature(HOOKS[name]).parameters:
        assert f"{argument}:" in found["Arguments"]
    if contract.policy is ResultPolicy.ANY_VETO:
        for section in ("On None", "On exception", "On timeout", "On wrong type"):
            assert "refusal" in found[section].lower(), section
        assert "Without a plugin" in found["Result policy"]
    assert (AcceptTerms in contract.accepts) == ("AcceptTerms" in found["Answer"])


def test_a_missing_section_is_noticed() -> None:
    def leyden_bad() -> None:
        """Something?

        Called when:
            Never.
        """

    assert tuple(sections(leyden_bad)) != SECTIONS
