"""Editions of real profiles: which pages they have, and no link that leads nowhere."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from data_scripts import assemble_book
from data_scripts.assemble_book import DOC_LINK, assemble, contents, without_dead_links
from lib.config import project_root
from lib.errors import InputError
from lib.profiles import load_profile

WHOLE = {
    "format": "jb-book",
    "root": "intro",
    "parts": [
        {"caption": "Start", "chapters": [{"file": "how"}]},
        {"caption": "Toy", "chapters": [{"file": "part_1_toy"}, {"file": "chapters/01_toy"}]},
        {"caption": "Study", "chapters": [{"file": "part_2_study"}, {"file": "chapters/02_data"}]},
        {"caption": "More", "chapters": [{"file": "chapters/03_more"}, {"file": "teaching"}, {"file": "cheat_sheet"}]},
    ],
}
PROFILE: Any = SimpleNamespace(name="mine", chapters=("02_data",))


def test_contents_keep_the_profiles_chapters_but_no_page_for_teaching_and_no_empty_part() -> None:
    found = contents(PROFILE, WHOLE)
    assert found["root"] == "intro_real" and found["format"] == "jb-book"
    assert [[entry["file"] for entry in part["chapters"]] for part in found["parts"]] == [["how"], ["chapters/02_data"]]
    assert WHOLE["root"] == "intro"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see {doc}`chapters/02_data`.", "see {doc}`chapters/02_data`."),
        ("see {doc}`../how` and {doc}`02_data`", "see {doc}`../how` and {doc}`02_data`"),
        ("see {doc}`03_more`, {doc}`chapters/01_toy`", "see *03_more*, *01_toy*"),
        ("see {doc}`the rest <../chapters/03_more>`", "see *03_more*"),
        ("see {doc}`the data <chapters/02_data>`", "see {doc}`the data <chapters/02_data>`"),
    ],
)
def test_links_to_missing_pages_become_text(text: str, expected: str) -> None:
    assert without_dead_links(text, ("how", "chapters/02_data")) == expected


@pytest.mark.parametrize("name", ["mvtec3d", "eyecandies"])
def test_editions_of_real_data_have_their_chapters_and_link_to_nothing_missing(name: str) -> None:
    book = project_root() / "book"
    profile = load_profile(name)
    toc = contents(profile, yaml.safe_load((book / "_toc.yml").read_text(encoding="utf-8")))
    pages = [toc["root"], *(entry["file"] for part in toc["parts"] for entry in part["chapters"])]
    assert [page.removeprefix("chapters/") for page in pages if "/" in page] == list(profile.chapters)
    assert not {"teaching", "cheat_sheet"} & set(pages) and not any(page.startswith("part_") for page in pages)
    for page in pages:
        path = project_root() / page.replace("chapters", "notebooks") if "/" in page else book / page
        (found,) = path.parent.glob(f"{path.name}.*")
        links = DOC_LINK.findall(without_dead_links(found.read_text(encoding="utf-8"), pages))
        assert {Path(link).name for link in links} <= {Path(kept).name for kept in pages}, page


def made_project(root: Path) -> None:
    """A small book with two pages, a style and an executed chapter."""
    for folder in ("book/_static", "runs/chapters"):
        (root / folder).mkdir(parents=True)
    (root / "book" / "_toc.yml").write_text(yaml.safe_dump(WHOLE), encoding="utf-8")
    (root / "book" / "intro_real.md").write_text("# PROFILE_NAME\n{doc}`chapters/01_toy`", encoding="utf-8")
    (root / "book" / "how.md").write_text("# How\n", encoding="utf-8")
    (root / "book" / "references.bib").write_text("@misc{a}", encoding="utf-8")
    (root / "book" / "_static" / "custom.css").write_text("p {}", encoding="utf-8")
    chapter = {"cells": [{"source": ["# Data\n", "{doc}`03_more` and {doc}`../how`"]}]}
    (root / "runs" / "chapters" / "02_data.ipynb").write_text(json.dumps(chapter), encoding="utf-8")


def test_pages_are_put_together_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_project(tmp_path)
    monkeypatch.setattr(assemble_book, "project_root", lambda: tmp_path)
    target = tmp_path / "runs"
    for _ in range(2):
        assemble(PROFILE, target)
    names = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert names == {
        "_toc.yml", "_static/custom.css", "references.bib", "intro_real.md", "how.md", "chapters/02_data.ipynb",
    }  # fmt: skip
    assert (target / "intro_real.md").read_text() == "# mine\n*01_toy*"
    chapter = json.loads((target / "chapters" / "02_data.ipynb").read_text())
    assert chapter["cells"][0]["source"][1] == "*03_more* and {doc}`../how`"
    assert yaml.safe_load((target / "_toc.yml").read_text()) == contents(PROFILE, WHOLE)


def test_a_chapter_that_was_not_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_project(tmp_path)
    (tmp_path / "runs" / "chapters" / "02_data.ipynb").unlink()
    monkeypatch.setattr(assemble_book, "project_root", lambda: tmp_path)
    with pytest.raises(InputError, match=r"02_data\.ipynb does not exist; run the notebook first"):
        assemble(PROFILE, tmp_path / "runs")
