"""The site: a two-page book built with the project's own configuration, and the check that guards it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from data_scripts.check_site import check_site, is_outside, main, summary
from data_scripts.run_notebook import run_notebook
from lib.config import project_root

ROOT = project_root()
INTRO = """# A mini book

Text with $a^2$, a link to [the page](page.ipynb) and a source {cite}`mini`.

$$
b = \\sqrt{c}
$$ (eq-mini)

```{glossary}
bank
  A set of rows.
```

```{bibliography}
```
"""
PAGE_CELLS = (
    new_markdown_cell("# A page\n\nEquation {eq}`eq-mini` again, and a {term}`bank`."),
    new_code_cell('profile = "demo"', metadata={"tags": ["parameters"]}),
    new_code_cell("from lib.notebooks import open_notebook\n\nchosen = open_notebook(In, profile)"),
    new_code_cell(
        "import plotly.graph_objects as go\n\n"
        "go.Figure(go.Scatter(x=[1, 2], y=[2, 1]), {'meta': {'alt': 'A falling line.'}})"
    ),
    new_code_cell(
        "import matplotlib.pyplot as plt\n\nplt.plot([1, 2], [2, 1]);",
        metadata={"mystnb": {"image": {"alt": "A falling line."}}},
    ),
    new_code_cell("from tqdm.auto import tqdm\n\nsum(tqdm([1, 2, 3], desc='adding'))"),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built mini book: prose with math, and a notebook with a Plotly and a matplotlib figure."""
    folder = tmp_path_factory.mktemp("site")
    book = folder / "book"
    shutil.copytree(ROOT / "book" / "_static", book / "_static")
    shutil.copytree(ROOT / "book" / "_ext", book / "_ext")
    shutil.copy(ROOT / "_config.yml", folder)
    (book / "intro.md").write_text(INTRO)
    (book / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters:\n  - file: page\n")
    (book / "references.bib").write_text("@book{mini, author={A. Bee}, title={A}, year={2020}, publisher={C}}")
    nbformat.write(new_notebook(cells=list(PAGE_CELLS)), folder / "page.ipynb")
    run_notebook(folder / "page.ipynb", book / "page.ipynb", {"profile": "demo"}, folder / "failed")
    command = [Path(sys.executable).parent / "jupyter-book", "build", "book", "--config", "_config.yml"]
    options = ["--path-output", ".", "-W", "-n", "--keep-going"]
    environment = {**os.environ, "STUDY_PROFILE": "demo"}
    process = subprocess.run(
        [*command, *options], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return folder / "_build" / "html"


@pytest.fixture
def broken(site, tmp_path):
    """A function that replaces a text of one page in a copy of the site and returns the problems found."""
    copy = tmp_path / "html"
    shutil.copytree(site, copy)

    def replace(page: str, old: str, new: str) -> list[str]:
        text = (copy / page).read_text(encoding="utf-8")
        assert old in text
        (copy / page).write_text(text.replace(old, new, 1), encoding="utf-8")
        return check_site(copy)

    return replace


def test_site_is_whole_and_needs_nothing_from_outside(site, capsys, monkeypatch):
    assert check_site(site) == []
    assert "nothing comes from outside" in summary(site)
    monkeypatch.setattr(sys, "argv", ["check_site", str(site)])
    assert main() == 0


def test_only_pages_that_draw_with_plotly_load_it(site):
    assert "plotly.min.js" in (site / "page.html").read_text()
    assert "plotly.min.js" not in (site / "intro.html").read_text()
    assert (site / "_static" / "plotly.min.js").stat().st_size > 1e6


def test_math_is_drawn_by_a_local_file(site):
    assert 'src="_static/mathjax/tex-svg.js"' in (site / "intro.html").read_text()
    assert (site / "_static" / "mathjax" / "tex-svg.js").is_file()


def test_every_page_says_that_it_is_a_demo(site):
    for page in ("intro.html", "page.html", "search.html"):
        assert "Demo pages: embedded synthetic data" in (site / page).read_text()


def test_pages_carry_no_live_code_server_and_no_injected_cell(site):
    page = (site / "page.html").read_text()
    assert "unpkg.com" not in page
    assert page.count("demo&quot;") + page.count('"demo"') == 1  # not shown again as an injected cell


BREAKAGES = {
    "outside script": ("</body>", '<script src="https://cdn.example/x.js"></script></body>', "from outside"),
    "outside style": ("</head>", '<link rel="stylesheet" href="//fonts.example/a.css"></head>', "from outside"),
    "outside font": ("</head>", "<style>@font-face{src:url(https://a.example/b.woff2)}</style></head>", "from outside"),
    "outside picture": ("</body>", '<img src="http://a.example/b.png" alt="A bee."></body>', "from outside"),
    "outside import": ("</body>", '<script>import("https://a.example/b.js")</script></body>', "from outside"),
    "missing picture": ("</body>", '<img src="_images/none.png" alt="Nothing."></body>', "which is not there"),
    "dead link": ("</body>", '<a href="gone.html">x</a></body>', "links to gone.html"),
    "dead anchor": ("</body>", '<a href="intro.html#gone">x</a></body>', "no such anchor"),
    "dead anchor here": ("</body>", '<a href="#gone">x</a></body>', "no such anchor"),
    "no text": ('alt="A falling line."', "", "has no text"),
    "empty text": ('alt="A falling line."', 'alt=" "', "has no text"),
    "file name as text": ('alt="A falling line."', 'alt="_images/0a1b.png"', "a file name as its text"),
    "failed cell": ("</body>", "<pre>Traceback (most recent call last):</pre></body>", "failed cell"),
    "warning": ("</body>", '<div class="output stderr"><pre>x.py:1: UserWarning: a</pre></div></body>', "a warning"),
    "no plotly": ("plotly.min.js", "other.js", "does not load plotly.min.js"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_check_finds(broken, name):
    old, new, message = BREAKAGES[name]
    problems = broken("page.html", old, new)
    assert any(problem.startswith("page.html: ") and message in problem for problem in problems), problems


def test_check_finds_missing_search_and_missing_site(site, tmp_path):
    shutil.copytree(site, tmp_path / "html")
    (tmp_path / "html" / "searchindex.js").unlink()
    assert any("search cannot work" in problem for problem in check_site(tmp_path / "html"))
    assert "run `make book` first" in check_site(tmp_path / "none")[0]


@pytest.mark.parametrize(
    ("address", "outside"),
    [
        ("https://a.example/b", True),
        ("//a.example/b", True),
        ("_static/a.js", False),
        ("data:image/png;base64,AA", False),
        ("#a", False),
        ("../a.html#b", False),
    ],
)
def test_outside_addresses(address, outside):
    assert is_outside(address) is outside
