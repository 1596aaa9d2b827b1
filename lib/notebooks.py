"""What every notebook does first and last: check its parameters, set the style, say what it ran on."""

from __future__ import annotations

import ast
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from itertools import dropwhile, takewhile

import matplotlib as mpl
import pandas as pd
import plotly.io as pio
import torch
from IPython.display import HTML, display
from plotly.io._base_renderers import MimetypeRenderer

from lib.config import project_root
from lib.datasets import DATASETS
from lib.errors import InputError
from lib.feature_store import dataset_name
from lib.profiles import Profile, load_profile
from lib.runtime import cpu_name, git_commit, package_versions

RENDERER_VARIABLE = "STUDY_RENDERER"  # "book" while the site is built; JupyterLab keeps Plotly's own choice
LONGEST_LINE = 30  # characters; a column with a longer text is one of sentences, which wrap and stand on the left
SENTENCE_STYLE = "min-width: 9rem; text-align: left; white-space: normal;"
STYLE = {
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": mpl.cycler(color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00"]),
    "image.interpolation": "nearest",
    "figure.constrained_layout.use": True,
}


class BookRenderer(MimetypeRenderer):
    """Plotly figures as plain HTML without a copy of plotly.js: the site carries one file for all pages."""

    def to_mimebundle(self, fig_dict: dict) -> dict[str, str]:
        """The figure's HTML division with its text for those who cannot see it, to be drawn by plotly.min.js.

        Raises:
            InputError: the figure's layout has no `meta={"alt": ...}`.
        """
        alt = (fig_dict["layout"].get("meta") or {}).get("alt")
        if not alt:
            raise InputError('Plotly figure: no text for those who cannot see it; give its layout meta={"alt": "..."}')
        html = pio.to_html(fig_dict, full_html=False, include_plotlyjs=False, include_mathjax=False, validate=False)
        return {"text/html": f'<div role="img" aria-label="{escape(alt)}">{html}</div>'}


def open_notebook(inputs: Sequence[str], profile: str) -> Profile:
    """The profile a notebook runs with; parameters are checked and the figure style is set.

    Args:
        inputs: IPython's `In`: the sources of the cells run so far.
        profile: name of the profile.

    Raises:
        InputError: papermill was given a parameter the notebook does not have, or the profile is unknown.
    """
    check_parameters(inputs)
    mpl.rcParams.update(STYLE)
    if os.environ.get(RENDERER_VARIABLE) == "book":
        pio.renderers["book"] = BookRenderer()
        pio.renderers.default = "book"
    chosen = load_profile(profile)
    torch.set_num_threads(chosen.threads)
    return chosen


def check_parameters(inputs: Sequence[str]) -> None:
    """Raise `InputError` when an injected cell assigns a name that the parameters cell does not.

    papermill itself only logs an unknown parameter, so a typing slip would run with the default.

    Args:
        inputs: IPython's `In`. The first cell run is the parameters cell; cells between it and the first call of
            this check are papermill's. Calls that came too early, before any other cell, are passed over.
    """
    sources = dropwhile(opens_notebook, (source for source in inputs if source.strip()))
    before = list(takewhile(lambda source: not opens_notebook(source), sources))
    if not before:
        raise InputError("the parameters cell has not run; run the notebook from its first cell")
    known = assigned_names(before[0])
    if unknown := [name for source in before[1:] for name in assigned_names(source) if name not in known]:
        raise InputError(f"parameter {unknown[0]!r} is unknown; this notebook has {', '.join(known)}")


def opens_notebook(source: str) -> bool:
    """True for the cell that calls `open_notebook`."""
    return "open_notebook" in source


def assigned_names(source: str) -> tuple[str, ...]:
    """Names that the top level of a cell assigns, in order."""
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.Assign | ast.AnnAssign)]
    targets = [target for node in nodes for target in (node.targets if isinstance(node, ast.Assign) else [node.target])]
    return tuple(target.id for target in targets if isinstance(target, ast.Name))


def provenance(profile: Profile) -> pd.DataFrame:
    """Table of what the page was made with: profile, data, machine, versions, commit and time."""
    facts = {
        "profile": profile.name,
        "dataset": dataset_name(profile),
        **data_rights(profile.dataset),
        "extractor": profile.extractor.slug,
        "seeds, where a method names none": ", ".join(map(str, profile.seeds)),
        "threads per job": profile.threads,
        "processor": cpu_name(),
        "Python": platform.python_version(),
        **package_versions(),
        "commit": git_commit(project_root()),
        "run at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return pd.DataFrame({"": [str(value) for value in facts.values()]}, index=pd.Index(facts, name="fact"))


def data_rights(dataset: str) -> dict[str, str]:
    """Licence and attribution of a real dataset, to be printed wherever something is made from it."""
    if dataset not in DATASETS:
        return {}
    facts = DATASETS[dataset]
    return {"data licence": f"{facts.license} ({facts.license_url})", "attribution": facts.attribution}


def longest_text(column: pd.Series) -> int:
    """Characters of a column's longest text that can be broken into lines; 0 where it holds none."""
    return max((len(value) for value in column if isinstance(value, str) and " " in value), default=0)


def show_table(table: pd.DataFrame, caption: str, decimals: int = 3) -> None:
    """Display a table with a caption; floats with `decimals` decimals, missing values as a dash; sentences wrap."""
    unnamed = table.rename_axis(index=[None] * table.index.nlevels)
    styled = unnamed.style.format(precision=decimals, na_rep="-").set_caption(caption)
    if isinstance(table.index, pd.RangeIndex):
        styled = styled.hide(axis="index")
    sentences = [place for place in range(table.shape[1]) if longest_text(table.iloc[:, place]) > LONGEST_LINE]
    for place in sentences:
        cells, head = f"td.col{place}", f"th.col_heading.col{place}"
        styled = styled.set_table_styles([{"selector": f"{cells}, {head}", "props": SENTENCE_STYLE}], overwrite=False)
    display(HTML(styled.to_html()))
