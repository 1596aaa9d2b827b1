"""Copies of the notebooks for a class: no solution is left, nothing else is lost, and answers are safe."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from data_scripts.make_class_notebooks import PROMPT, class_cells, make_class, without_solutions
from lib.config import project_root
from lib.errors import InputError

NOTEBOOKS = project_root() / "notebooks"
TWO = """## Exercises

```{exercise}
:label: ex-a
Why?
```
```{solution} ex-a
:class: dropdown
Because.
```

```{exercise}
:label: ex-b
How?
```
```{solution} ex-b
:class: dropdown
So.
```

## Provenance"""


def test_a_cell_with_two_solutions_becomes_five() -> None:
    first, empty, second, empty_again, rest = class_cells(new_markdown_cell(TWO, id="cell"))
    assert first.source == f"## Exercises\n\n```{{exercise}}\n:label: ex-a\nWhy?\n```\n\n{PROMPT}"
    assert second.source == f"```{{exercise}}\n:label: ex-b\nHow?\n```\n\n{PROMPT}"
    assert (empty.cell_type, empty.source, empty_again.source) == ("code", "", "")
    assert (rest.cell_type, rest.source, rest.id) == ("markdown", "## Provenance", "cell")


def test_nothing_follows_a_solution_at_the_end_and_other_cells_stay() -> None:
    assert [cell.cell_type for cell in class_cells(new_markdown_cell(TWO.removesuffix("## Provenance")))] == [
        "markdown", "code", "markdown", "code",
    ]  # fmt: skip
    for cell in (new_markdown_cell("Text"), new_markdown_cell(""), new_code_cell("text = '```{solution} x'")):
        assert class_cells(cell) == [cell]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a\n````{solution} x\n```python\n1\n```\nstill\n````\nb", ["a", "b"]),
        (":::{solution} x\n```\ncode\n```\n:::", ["", ""]),
        ("a\n```{solution} x\nb\n`````\nc", ["a", "c"]),
        ("no solution", ["no solution"]),
    ],
)
def test_fences_of_all_kinds_end_where_they_end(text: str, pieces: list[str]) -> None:
    assert without_solutions(text) == pieces


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```{solution} x\nnever closed", "is not closed; end it with ```"),
        ("```{solution-start} x\n```\nBecause.\n```{solution-end}\n```", "a solution would stay"),
    ],
)
def test_a_solution_that_would_stay_is_refused(tmp_path: Path, text: str, message: str) -> None:
    nbformat.write(new_notebook(cells=[new_markdown_cell(text)]), tmp_path / "a.ipynb")
    with pytest.raises(InputError, match=rf"a\.ipynb: .*{message}"):
        make_class(tmp_path, tmp_path / "class")
    assert not (tmp_path / "class").exists()


def test_every_notebook_keeps_its_code_and_its_prose_but_no_solution(tmp_path: Path) -> None:
    for path in make_class(NOTEBOOKS, tmp_path / "class"):
        before = json.loads((NOTEBOOKS / path.name).read_text(encoding="utf-8"))["cells"]
        copy = nbformat.read(path, as_version=4)
        nbformat.validate(copy)
        code = [cell.source for cell in copy.cells if cell.cell_type == "code" and cell.source]
        assert code == ["".join(cell["source"]) for cell in before if cell["cell_type"] == "code"]
        text = "\n".join("".join(cell["source"]) for cell in before if cell["cell_type"] == "markdown")
        solutions = re.findall(r"^```\{solution\}.*?^```$", text, re.DOTALL | re.MULTILINE)
        kept = re.sub(r"^```\{solution\}.*?^```$", PROMPT, text, flags=re.DOTALL | re.MULTILINE)
        copied = "\n".join(cell.source for cell in copy.cells if cell.cell_type == "markdown")
        assert copied.split() == kept.split() and "{solution}" not in copied
        assert sum(cell.cell_type == "code" and not cell.source for cell in copy.cells) == len(solutions) >= 2
    assert {path.name for path in (tmp_path / "class").iterdir()} == {path.name for path in NOTEBOOKS.glob("*.ipynb")}


def test_answers_of_a_student_are_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "class"
    first, *_ = make_class(NOTEBOOKS, target)
    assert make_class(NOTEBOOKS, target)[0] == first
    answered = first.read_text(encoding="utf-8").replace(PROMPT, "Forty-two.", 1)
    first.write_text(answered, encoding="utf-8")
    with pytest.raises(InputError, match=f"{first.name} differs from the copy to be made; move it away"):
        make_class(NOTEBOOKS, target)
    assert first.read_text(encoding="utf-8") == answered


def test_a_folder_without_notebooks_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no notebook in it"):
        make_class(tmp_path, tmp_path / "class")
