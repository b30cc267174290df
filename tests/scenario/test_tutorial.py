"""The tutorial word by word: a fresh environment, the plugin installed with pip, the kit, a payment over it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import blocks, run_page

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/tutorial/chain-source.md"
PASSED_ON = (
    "PIP_INDEX_URL",
    "PIP_CACHE_DIR",
    "PIP_CERT",
    "PIP_DEFAULT_TIMEOUT",
    "HTTPS_PROXY",
    "https_proxy",
    "SSL_CERT_FILE",
)
"""How this machine reaches the package index is not the tutorial's business."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short (a Unix socket's path may have 107 bytes) and of mode 0700."""
    with tempfile.TemporaryDirectory(prefix="lt", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tutorial_word_by_word(folder: Path) -> None:
    variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    cache = os.environ.get("PIP_CACHE_DIR", str(Path.home() / ".cache/pip"))
    variables |= {
        "LEYDEN": str(ROOT),
        "PIP_CACHE_DIR": cache,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_RETRIES": "10",
    }
    assert run_page(PAGE.read_text(), folder, variables, patience=240.0) > 20


def test_the_source_is_as_short_as_the_tutorial_says() -> None:
    parts = [block for block in blocks(PAGE.read_text()) if block.mark.endswith(("/source.py", "/plugin.py"))]
    lines = [line for block in parts for line in block.text.splitlines() if line.strip()]
    assert len(parts) > 5
    assert "less\nthan 150 lines" in PAGE.read_text()
    assert len(lines) < 150
