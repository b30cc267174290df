"""pytest plugin: a test in which the guarding signer refused an unsafe order fails, whoever swallowed the refusal."""

from collections.abc import Generator
from typing import Any

import pytest

from leyden.testing.guard_ledger import take_violations


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    result = yield
    violations = take_violations()
    if violations:
        pytest.fail("unsafe orders to the signer:\n" + "\n".join(map(str, violations)), pytrace=False)
    return result
