"""Sphinx settings. ``make docs`` builds with warnings as errors."""

from importlib.metadata import version as _version

project = "Leyden"
author = "The Leyden contributors"
copyright = "The Leyden contributors"
release = version = _version("leyden-core")

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = True
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
highlight_language = "text"

html_theme = "furo"
html_title = f"Leyden {release}"
html_show_sourcelink = False
html_copy_source = False
