"""Sphinx extension: the pages need nothing from outside, and say which profile made them.

plotly.js and MathJax are copied from installed Python packages, each once for the whole site. Pages load plotly.js
only where they draw with it. The live-code script that Jupyter Book 1 always adds points to a public server and is
taken out.
"""

from __future__ import annotations

import os
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import plotly
from sphinx.application import Sphinx

PLOTLY_DIVISION = 'class="plotly-graph-div"'
PLOTLY_FILE = "plotly.min.js"
MATHJAX_FOLDER = "mathjax"
# tex-svg.js fetches rarer TeX macros from the folder beside it
MATHJAX_PARTS = ("tex-svg.js", "input/tex/extensions")
DEMO_BANNER = "Demo pages: embedded synthetic data, not a reproduction of the papers' numbers."


def set_banner(app: Sphinx, config: Any) -> None:
    """Put the profile's banner over every page."""
    banner = DEMO_BANNER if config.book_profile == "demo" else f"Pages computed with profile {config.book_profile}."
    config.html_theme_options = {**config.html_theme_options, "announcement": banner}


def choose_scripts(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Add plotly.js to a page that draws with it and drop the live-code scripts."""
    scripts = context["script_files"]  # the list that add_js_file appends to
    scripts[:] = [script for script in scripts if not is_live_code(script)]
    if PLOTLY_DIVISION in context.get("body", ""):
        app.add_js_file(PLOTLY_FILE, priority=1)


def is_live_code(script: Any) -> bool:
    """True for the scripts of sphinx-thebe, given by name or as text."""
    attributes = getattr(script, "attributes", {})
    return "thebe" in f"{getattr(script, 'filename', script)} {attributes.get('body', '')}".lower()


def copy_scripts(app: Sphinx, error: Exception | None) -> None:
    """Copy plotly.js and MathJax into the site's static folder."""
    if error is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    shutil.copyfile(Path(plotly.__file__).parent / "package_data" / PLOTLY_FILE, static / PLOTLY_FILE)
    package = metadata.distribution("sphinx-mathjax-offline")
    for part in MATHJAX_PARTS:
        source = Path(str(package.locate_file(f"sphinx-mathjax-offline/static/mathjax/{part}")))
        target = static / MATHJAX_FOLDER / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.add_config_value("book_profile", os.environ.get("STUDY_PROFILE", "demo"), "html")
    app.connect("config-inited", set_banner)
    app.connect("html-page-context", choose_scripts, priority=900)
    app.connect("build-finished", copy_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
