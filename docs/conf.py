"""Sphinx settings. ``make docs`` builds with warnings as errors."""

import re
from importlib.metadata import version as _version
from pathlib import Path

from sphinx.application import Sphinx

project = "Leyden"
author = "The Leyden contributors"
copyright = "The Leyden contributors"
release = version = _version("leyden-core")

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = True
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
highlight_language = "text"

html_theme = "furo"
html_title = f"Leyden {release}"
html_show_sourcelink = False
html_copy_source = False

ROOT = Path(__file__).parents[1]
ROOT_PAGES = {"architecture": "ARCHITECTURE.md", "glossary": "GLOSSARY.md", "contributing": "CONTRIBUTING.md"}
"""Pages of the site whose text is a file of the root folder, where readers of the repository look for it."""


def _from_root(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the root file in place of the page, with its links as seen from here."""
    name = ROOT_PAGES.get(page)
    if name is None:
        return
    app.env.note_dependency(str(ROOT / name))
    text = (ROOT / name).read_text("utf-8").replace("](docs/", "](")
    for target, other in ROOT_PAGES.items():
        text = re.sub(rf"\]\({re.escape(other)}([#)])", rf"]({target}.md\1", text)
    source[0] = text


def setup(app: Sphinx) -> None:
    app.connect("source-read", _from_root)
