"""Copies of the notebooks for a class: each solution is gone, and in its place are a prompt and an empty cell.

    python data_scripts/make_class_notebooks.py --target dist/class

The copies run as the originals do. A copy that somebody has changed is never overwritten.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

from data_scripts.run_notebook import load_notebook
from lib.config import project_root
from lib.errors import InputError, run_command_line
from lib.runtime import atomic_path

OPENING = re.compile(r"\s*(?P<fence>`{3,}|~{3,}|:{3,})\s*\{solution\}")
ANY_SOLUTION = re.compile(r"\{solution(-start|-end)?\}")
PROMPT = "**Your answer.**"


def without_solutions(text: str) -> list[str]:
    """The pieces of a Markdown text between its solutions, one more than it has solutions, without outer blank lines.

    Raises:
        InputError: a solution is not closed, or written in a form that is not understood and would stay.
    """
    pieces: list[list[str]] = [[]]
    fence = ""
    for line in text.splitlines():
        opening = OPENING.match(line)
        if fence:
            closes = line.strip().startswith(fence) and not line.strip().strip(fence[0])
            fence = "" if closes else fence
        elif opening:
            fence = opening["fence"]
            pieces.append([])
        else:
            pieces[-1].append(line)
    if fence:
        raise InputError(f"a solution is not closed; end it with {fence}")
    texts = ["\n".join(piece).strip("\n") for piece in pieces]
    if any(ANY_SOLUTION.search(piece) for piece in texts):
        raise InputError("a solution would stay; write it as a block that opens with ```{solution} label")
    return texts


def class_cells(cell: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """A cell as the class gets it: with a prompt and an empty code cell where a Markdown cell has a solution."""
    if cell.cell_type != "markdown":
        return [cell]
    *answered, rest = without_solutions(cell.source)
    cells = []
    for place, text in enumerate(answered):
        name = f"{cell.id}-{place}"  # the same in every copy
        cells += [new_markdown_cell(f"{text}\n\n{PROMPT}", id=f"{name}-text"), new_code_cell("", id=f"{name}-answer")]
    return [*cells, *([new_markdown_cell(rest, id=cell.id, metadata=cell.metadata)] if rest or not cells else [])]


def class_notebook(source: Path) -> str:
    """JSON text of a notebook without solutions.

    Raises:
        InputError: no notebook, or a solution in it that cannot be taken out.
    """
    notebook = load_notebook(source)
    try:
        notebook.cells = [part for cell in notebook.cells for part in class_cells(cell)]
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    return nbformat.writes(notebook) + "\n"


def make_class(source: Path, target: Path) -> list[Path]:
    """Write the copy of every notebook of one folder into another, all or none; gives what was written.

    Raises:
        InputError: no such folder, no notebook in it, a solution that would stay, or a copy that somebody has changed.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give the folder that holds the notebooks")
    texts = {target / path.name: class_notebook(path) for path in sorted(source.glob("*.ipynb"))}
    if not texts:
        raise InputError(f"{source}: no notebook in it; give the folder that holds the notebooks")
    for path, text in texts.items():
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise InputError(f"{path} differs from the copy to be made; move it away or give another --target")
    for path, text in texts.items():
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return list(texts)


def main() -> None:
    """Command line: --source FOLDER --target FOLDER."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=project_root() / "notebooks")
    parser.add_argument("--target", type=Path, default=Path("dist/class"))
    arguments = parser.parse_args()
    written = make_class(arguments.source, arguments.target)
    print(f"{arguments.target}: {len(written)} notebooks without solutions")


if __name__ == "__main__":
    sys.exit(run_command_line(main))
