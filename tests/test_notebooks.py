"""What notebooks do first and last: parameters checked, style and renderer set, provenance shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import pytest
import torch

from data_scripts.check_site import load_problems, read_page
from lib import notebooks
from lib.errors import InputError
from lib.notebooks import check_parameters, open_notebook, provenance, show_table
from lib.profiles import load_profile
from lib.synth3d import SYNTH3D_VERSION
from tests.fixture_study import study_in

PARAMETERS = 'profile = "demo"\ncategory: str = "ring"\nseed = 0'
OPEN = "from lib.notebooks import open_notebook\nstudy = open_notebook(In, profile)"

FINE = {
    "no injected cell": ["", PARAMETERS, OPEN],
    "injected by papermill": ["", PARAMETERS, '# Parameters\nseed = 3\ncategory = "cord"\n', OPEN],
    "cell opened again in JupyterLab": ["", PARAMETERS, OPEN, "x = 1\nanother = 2", OPEN],
    "all cells again": ["", PARAMETERS, OPEN, "x = 1", PARAMETERS, OPEN, "x = 1"],
    "empty cells": ["", "\n", PARAMETERS, "", "  ", OPEN],
    "names below the top level": ["", PARAMETERS, "def f():\n    y = 1\nseed = 1", OPEN],
    "opened too early, then in order": ["", OPEN, OPEN, PARAMETERS, OPEN],
}


@pytest.mark.parametrize("inputs", FINE.values(), ids=FINE)
def test_known_parameters_pass(inputs: list[str]) -> None:
    check_parameters(inputs)


SLIPS = {
    "papermill": (["", PARAMETERS, "seeed = 3", OPEN], "seeed"),
    "second name": (["", PARAMETERS, "seed = 3\ncatgory = 'cord'", OPEN], "catgory"),
    "annotated": (["", PARAMETERS, "seeed: int = 3", OPEN], "seeed"),
    "chained": (["", PARAMETERS, "seed = sed = 3", OPEN], "sed"),
}


@pytest.mark.parametrize(("inputs", "name"), SLIPS.values(), ids=SLIPS)
def test_slip_is_one_line_that_names_it_and_lists_the_known(inputs: list[str], name: str) -> None:
    message = rf"^parameter '{name}' is unknown; this notebook has profile, category, seed$"
    with pytest.raises(InputError, match=message):
        check_parameters(inputs)


@pytest.mark.parametrize("inputs", [["", OPEN], ["", "", OPEN], [""], []])
def test_missing_parameters_cell_is_one_line(inputs: list[str]) -> None:
    with pytest.raises(InputError, match="the parameters cell has not run; run the notebook from its first cell"):
        check_parameters(inputs)


@pytest.fixture
def renderer(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Plotly's renderers, matplotlib's settings and torch's threads are put back afterwards."""
    before, threads = pio.renderers.default, torch.get_num_threads()
    with mpl.rc_context():
        yield monkeypatch
    pio.renderers.default = before
    torch.set_num_threads(threads)


def test_opening_gives_the_profile_and_sets_style_and_threads(renderer: pytest.MonkeyPatch) -> None:
    renderer.delenv(notebooks.RENDERER_VARIABLE, raising=False)
    before = pio.renderers.default
    assert open_notebook(FINE["no injected cell"], "demo") == load_profile("demo")
    assert mpl.rcParams["figure.facecolor"] == "white" and mpl.rcParams["font.size"] == 9
    assert torch.get_num_threads() == 1 and pio.renderers.default == before


def test_opening_for_the_book_chooses_its_renderer(renderer: pytest.MonkeyPatch) -> None:
    renderer.setenv(notebooks.RENDERER_VARIABLE, "book")
    open_notebook(FINE["no injected cell"], "demo")
    assert pio.renderers.default == "book" and isinstance(pio.renderers["book"], notebooks.BookRenderer)


def test_opening_with_a_slip_or_an_unknown_profile_fails(renderer: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="seeed"):
        open_notebook(SLIPS["papermill"][0], "demo")
    with pytest.raises(InputError, match="profile 'dmeo' is unknown"):
        open_notebook(FINE["no injected cell"], "dmeo")


def test_book_figure_without_a_text_is_refused() -> None:
    with pytest.raises(InputError, match="no text for those who cannot see it"):
        notebooks.BookRenderer().to_mimebundle(go.Figure().to_dict())


def test_book_figures_load_nothing_and_carry_no_copy_of_plotly(tmp_path: Path) -> None:
    figure = go.Figure(go.Scatter3d(x=[0, 1], y=[0, 1], z=[2, 3], mode="markers"), {"meta": {"alt": 'a "line"'}})
    bundle = notebooks.BookRenderer().to_mimebundle(figure.to_dict())
    assert bundle.keys() == {"text/html"}
    html = bundle["text/html"]
    assert "plotly-graph-div" in html and "Plotly.newPlot" in html
    assert 'role="img" aria-label="a &quot;line&quot;"' in html
    assert len(html) < 20_000, "a copy of plotly.js has megabytes"
    page = tmp_path / "page.html"
    page.write_text(html)
    assert load_problems(read_page(page)) == [] and read_page(page).loads == []


def test_provenance_names_what_a_number_needs() -> None:
    table = provenance(load_profile("demo"))
    facts = table.iloc[:, 0].to_dict()
    assert (
        facts["profile"] == "demo"
        and facts["dataset"] == f"synth3d {SYNTH3D_VERSION}, seed {load_profile('demo').data_seed}"
    )
    assert facts["seeds, where a method names none"] == "0, 1, 2" and facts["threads per job"] == "1"
    assert facts.keys() >= {"processor", "Python", "torch", "numpy", "commit", "run at", "extractor"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", facts["run at"])
    assert provenance(study_in("anywhere")).loc["dataset"].item() == "fixture"


def test_shown_table_has_caption_decimals_and_dashes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list = []
    monkeypatch.setattr(notebooks, "display", shown.append)
    show_table(pd.DataFrame({"a": [1.23456, None], "n": [3, 4]}, index=["x", "y"]), "Two rows", decimals=2)
    html = shown[0].data
    assert "<caption>Two rows</caption>" in html
    assert re.findall(r"<td[^>]*>([^<]*)</td>", html) == ["1.23", "3", "-", "4"]


def test_bare_row_numbers_are_not_shown(monkeypatch) -> None:
    shown = []
    monkeypatch.setattr("lib.notebooks.display", shown.append)
    show_table(pd.DataFrame({"a": [1.0, 2.0]}), "Rows")
    assert re.findall(r"<th[^>]*>([^<]*)</th>", shown[0].data) == ["a"]


def test_sentences_wrap_and_names_and_numbers_do_not(monkeypatch) -> None:
    shown = []
    monkeypatch.setattr("lib.notebooks.display", shown.append)
    words = ["a name", "long sentences are broken into several lines", "an_address_that_cannot_be_broken_anywhere"]
    show_table(pd.DataFrame([words], columns=["name", "text", "address"]), "Rows")
    selectors = re.findall(r"([^}]*)\{[^}]*white-space: normal", shown[0].data)
    assert re.findall(r"col\d", " ".join(selectors)) == ["col1", "col1"]


def test_a_table_with_two_levels_of_rows_is_shown(monkeypatch) -> None:
    shown = []
    monkeypatch.setattr("lib.notebooks.display", shown.append)
    index = pd.MultiIndex.from_tuples([("BTF", "RGB"), ("BTF", "both"), ("AST", "max")], names=["method", "part"])
    show_table(pd.DataFrame({"a": [1.0, 2.0, 3.0]}, index=index), "Parts")
    assert re.findall(r"<th[^>]*>([^<]*)</th>", shown[0].data)[-5:] == ["BTF", "RGB", "both", "AST", "max"]
