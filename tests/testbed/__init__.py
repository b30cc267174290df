"""Real counterparts from package registries, fetched once into ``.cache/testbed`` of the checkout. No root needed."""

import os
from collections.abc import Callable
from typing import TypeVar

import pytest

from tests.testbed.cache import Unavailable

T = TypeVar("T")


def start_or_skip(start: Callable[[], T]) -> T:
    """A counterpart that cannot be had is a reason to skip on a user's machine and a failure in CI."""
    try:
        return start()
    except Unavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
