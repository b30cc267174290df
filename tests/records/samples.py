"""The samples on disk: ``samples/*.bin``, what each means in ``samples/index.json``, layouts in ``layouts.json``."""

import json
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).parent / "samples"
LAYOUTS = Path(__file__).parent / "layouts.json"


def read_index() -> dict[str, dict[str, Any]]:
    """File name to ``kind``, ``version``, ``key`` (hex) and ``means``."""
    path = SAMPLES / "index.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def read_layouts() -> dict[str, Any] | None:
    return dict(json.loads(LAYOUTS.read_text())) if LAYOUTS.exists() else None
