"""pytest plugin of the checklist report: switches off the rules named in ``LEYDEN_RULE_OFF`` (comma separated)."""

import os

import pytest

import leyden.types.rules  # noqa: F401  (declares every rule)
from leyden.types import all_rules


def pytest_configure(config: pytest.Config) -> None:
    names = [name for name in os.environ.get("LEYDEN_RULE_OFF", "").split(",") if name]
    rules = all_rules()
    for name in names:
        if name not in rules:
            raise pytest.UsageError(f"LEYDEN_RULE_OFF names {name}, which is no rule")
        rules[name].enabled = False
