"""Links of the hand-written pages: every page, label, source and file that they name is there."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from data_scripts.assemble_book import ROOT_PAGE
from lib.config import project_root

ROOT = project_root()
BOOK = ROOT / "book"
PAGES = {f"book/{path.name}": path for path in sorted(BOOK.glob("*.md"))}
CHAPTERS = {f"book/chapters/{path.name}": path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
OTHERS = {name: ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")}
MADE = {"book/chapters/figures/overview.png"}  # by data_scripts/make_overview.py

FENCE = re.compile(r"\s*(`{3,})(.*)")
CODE = re.compile(r"(\{[\w:]+\})?(?<!`)(`{1,2})(?!`)(?:.|\n(?!\s*\n))+?(?<!`)\2(?!`)")  # after a role it is its text
ROLE = re.compile(r"\{(doc|ref|numref|eq|cite(?::\w+)?)\}`(?:[^`<]*<)?([^`>]+)>?`")
LINK = re.compile(r"\]\(<?([^)\s>]+)>?\)")
LABEL = re.compile(r"^\((\S+)\)=$|^:(?:name|label): (\S+)$|^\$\$ \((\S+)\)$", re.MULTILINE)
BIBLIOGRAPHY = (BOOK / "references.bib").read_text(encoding="utf-8")
BIBLIOGRAPHY_KEYS = re.findall(r"^@\w+\{([^,\s]+),", BIBLIOGRAPHY, re.MULTILINE)


def prose(path: Path) -> str:
    """Markdown of a page or of a notebook, without code but with roles."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return CODE.sub(lambda code: code[0] if code[1] else "", without_listings(text))


def without_listings(text: str) -> str:
    """The text without fenced code; what stands in directives stays."""
    kept, open_fences = [], []  # of directives and listings around a line: fence, whether it is a listing
    for line in text.splitlines():
        fence = FENCE.fullmatch(line)
        if fence and open_fences and not fence[2].strip() and len(fence[1]) >= len(open_fences[-1][0]):
            kept += [] if open_fences.pop()[1] else [line]
        elif fence and not (open_fences and open_fences[-1][1]):
            open_fences.append((fence[1], not fence[2].startswith("{")))
            kept += [] if open_fences[-1][1] else [line]
        elif not (open_fences and open_fences[-1][1]):
            kept.append(line)
    return "\n".join(kept)


TEXTS = {name: prose(path) for name, path in (PAGES | CHAPTERS | OTHERS).items()}
PAGE, CHAPTER = "book/intro.md", "book/chapters/04_cfm.ipynb"
LABELS = Counter(label for text in TEXTS.values() for found in LABEL.findall(text) for label in found if label)


def dead_links(name: str, text: str) -> list[str]:
    """Links of a text that lead nowhere.

    Args:
        name: where the page lies when the book is built, from the project root, such as "book/chapters/04_cfm.ipynb".
        text: its prose.
    """
    folder, dead = (ROOT / name).parent, []
    there = {Path(page).with_suffix("").as_posix() for page in PAGES.keys() | CHAPTERS.keys()} - {f"book/{ROOT_PAGE}"}
    for role, target in ROLE.findall(text):
        if role == "doc":
            page = (BOOK / target[1:] if target.startswith("/") else folder / target).resolve()
            alive = page.is_relative_to(ROOT) and page.relative_to(ROOT).as_posix() in there
        elif role.startswith("cite"):
            alive = all(key.strip() in BIBLIOGRAPHY_KEYS for key in target.split(","))
        else:
            alive = target in LABELS
        dead += [] if alive else [f"{role} {target}"]
    for target in LINK.findall(text):
        path, _, anchor = target.partition("#")
        if re.match(r"(https?|mailto):", target):
            continue
        file = (folder / path).resolve()
        alive = str(file.relative_to(ROOT)) in PAGES | CHAPTERS or file.exists() if path else anchor in LABELS
        dead += [] if alive else [f"link {target}"]
    figures = re.findall(r"^`{3,}\{(?:figure|image)\} (\S+)$", text, re.MULTILINE)
    dead += [f"figure {file}" for file in figures if f"book/{file}" not in MADE and not (folder / file).is_file()]
    return dead


@pytest.mark.parametrize("name", TEXTS)
def test_no_link_is_dead(name: str) -> None:
    assert dead_links(name, TEXTS[name]) == []


def test_labels_and_sources_have_one_place_each() -> None:
    assert [label for label, count in LABELS.items() if count > 1] == []
    assert [key for key, count in Counter(BIBLIOGRAPHY_KEYS).items() if count > 1] == []


@pytest.mark.parametrize(
    ("name", "text", "dead"),
    [
        (PAGE, "{doc}`04_cfm`, {doc}`chapters/04_cfm`", ["doc 04_cfm"]),
        (CHAPTER, "{doc}`05_all_categories`, {doc}`the text <../teaching>`", []),
        (CHAPTER, "{doc}`the text <../teachin>`, {doc}`teaching`", ["doc ../teachin", "doc teaching"]),
        (PAGE, f"{{doc}}`{ROOT_PAGE}`, {{doc}}`../README`", [f"doc {ROOT_PAGE}", "doc ../README"]),
        (PAGE, "{ref}`ex-few`, {ref}`an exercise <ex-fw>`", ["ref ex-fw"]),
        (PAGE, "{cite}`tu2024lsfa, costanzino2024cfm` {cite:t}`tu2024`", ["cite:t tu2024"]),
        (PAGE, "[a](notation.md), [b](notatio.md), [c](https://example.org)", ["link notatio.md"]),
        ("README.md", "[a](LICENSE), [b](LICENCE), ![c](book/_static/logo.svg)", ["link LICENCE"]),
        ("README.md", "[d](#none)", ["link #none"]),
        (PAGE, "```{image} _static/logo.svg\n```\n```{figure} _static/a.png\n```", ["figure _static/a.png"]),
    ],
)
def test_dead_links_are_found(name: str, text: str, dead: list[str]) -> None:
    assert dead_links(name, text) == dead


def test_code_is_no_link_and_roles_are_no_code(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`a[0](b)` {doc}`here`\n\n```bash\n[c](d)\n```\n\n```{note}\n[e](f)\n```\n", encoding="utf-8")
    assert LINK.findall(prose(page)) == ["f"] and ROLE.findall(prose(page)) == [("doc", "here")]
