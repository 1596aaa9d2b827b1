"""Which files a module depends on, and the fingerprint of their text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib.config import project_root
from lib.sources import code_fingerprint, imported_modules, module_files, python_source, source_closure

FILES = {
    "lib/__init__.py": "",
    "lib/top.py": "import os\nfrom lib import middle\n",
    "lib/middle.py": "def f():\n    from lib.package import leaf\n",
    "lib/package/__init__.py": "",
    "lib/package/leaf.py": "import lib.top\n",  # a circle does no harm
    "lib/unrelated.py": "x = 1\n",
    "lib/notes.txt": "not code",
}
NEEDED = ["lib/__init__.py", "lib/middle.py", "lib/package/__init__.py", "lib/package/leaf.py", "lib/top.py"]


def write_project(root: Path, **changes: str) -> Path:
    """A little project at `root`; changes are texts of files by stem."""
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(changes.get(path.stem, text))
    return root


def test_closure_follows_imports_at_any_depth(tmp_path: Path) -> None:
    found = source_closure([write_project(tmp_path) / "lib/top.py"], tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == NEEDED


def test_closure_without_project_imports_is_the_file_itself(tmp_path: Path) -> None:
    write_project(tmp_path)
    assert source_closure([tmp_path / "lib/unrelated.py"], tmp_path) == [tmp_path / "lib/unrelated.py"]


def test_module_files_hold_the_packages_above(tmp_path: Path) -> None:
    found = [
        path.relative_to(tmp_path).as_posix() for path in module_files("lib.package.leaf", write_project(tmp_path))
    ]
    assert found == ["lib/__init__.py", "lib/package/__init__.py", "lib/package/leaf.py"]
    assert list(module_files("numpy.linalg", tmp_path)) == []


def test_names_imported_from_a_module_may_be_modules() -> None:
    assert imported_modules("from lib import a as b, c\nimport lib.d as e") == {"lib", "lib.a", "lib.c", "lib.d"}


def test_imports_are_found_at_any_depth() -> None:
    source = (
        "class A:\n try:\n  import a\n except E:\n  import b\n else:\n  import c\n finally:\n  import d\n"
        "async def f(x=lambda: 1):\n with x:\n  import e\n for y in x:\n  if y:\n   import g\n  else:\n   import h\n"
        "match v:\n case 1:\n  import i\n"
    )
    assert imported_modules(source) == set("abcdeghi")


def test_notebook_text_is_its_code_without_magics(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["from lib import nothing"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "import lib.top\n", "!ls"]},
        {"cell_type": "code", "source": "x = 1"},
    ]
    (tmp_path / "page.ipynb").write_text(json.dumps({"cells": cells}))
    assert python_source(tmp_path / "page.ipynb") == "import lib.top\nx = 1"


@pytest.mark.parametrize("stem", ["top", "middle", "leaf"])
def test_fingerprint_changes_with_every_imported_file(tmp_path: Path, stem: str) -> None:
    plain = code_fingerprint(("lib.top",), write_project(tmp_path / "plain"))
    text = FILES[next(name for name in FILES if name.endswith(f"/{stem}.py"))]
    changed = write_project(tmp_path / "changed", **{stem: text + "# a changed line\n"})
    assert code_fingerprint(("lib.top",), changed) != plain


@pytest.mark.parametrize("stem", ["unrelated", "notes"])
def test_fingerprint_does_not_change_with_other_files_or_places(tmp_path: Path, stem: str) -> None:
    plain = code_fingerprint(("lib.top",), write_project(tmp_path / "plain"))
    assert code_fingerprint(("lib.top",), write_project(tmp_path / "changed", **{stem: "y = 2\n"})) == plain


def test_fingerprint_changes_with_a_files_name(tmp_path: Path) -> None:
    plain = code_fingerprint(("lib.top",), write_project(tmp_path / "plain"))
    moved = write_project(tmp_path / "moved", middle="def f():\n    from lib.package import leaf\n")
    (moved / "lib/middle.py").unlink()
    (moved / "lib/middle").mkdir()
    (moved / "lib/middle/__init__.py").write_text(FILES["lib/middle.py"])
    assert code_fingerprint(("lib.top",), moved) != plain


def test_experiments_depend_on_what_makes_their_numbers_and_on_no_figure() -> None:
    roots = [file for name in ("lib.experiment", "lib.heads.cfm") for file in module_files(name, project_root())]
    found = {path.relative_to(project_root()).as_posix() for path in source_closure(roots, project_root())}
    needed = {"config", "features", "preparation", "metrics", "pixel_metrics", "extractors/fpfh", "heads/cfm", "losses"}
    assert {f"lib/{name}.py" for name in needed} <= found
    assert not {f"lib/{name}.py" for name in ("figures", "tables", "notebooks", "comparisons", "bootstrap")} & found
