"""Which of the project's source files a script or notebook depends on, read from its imports."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path


def python_source(path: Path) -> str:
    """Python text of a script, or of a notebook's code cells without lines that only IPython reads."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = [cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    lines = "\n".join("".join(cell) for cell in cells).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


@cache
def imported_modules(source: str) -> frozenset[str]:
    """Dotted names that a Python text imports anywhere; `from a import b` gives both `a` and `a.b`.

    Kept, since the study's graph asks for the same files again for every notebook.
    """
    names = set()
    for node in statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Statements of a syntax tree at any depth; imports are among them, and expressions, most of a tree, are not."""
    for child in ast.iter_child_nodes(tree):
        if not isinstance(child, ast.expr):
            yield child
            yield from statements(child)


def module_files(name: str, root: Path) -> Iterator[Path]:
    """Files under `root` that importing the dotted name runs: the module and the packages above it."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        base = root.joinpath(*parts[:depth])
        yield from (path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file())


def source_closure(paths: Iterable[Path], root: Path) -> list[Path]:
    """The given files and every project file they import, directly or through others, sorted.

    Args:
        paths: scripts, modules or notebooks.
        root: the project; only imports that lead to files under it count.
    """
    found: set[Path] = set()
    waiting = list(paths)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            names = imported_modules(python_source(path))
            waiting += [file for name in names for file in module_files(name, root)]
    return sorted(found)


@cache
def code_fingerprint(modules: tuple[str, ...], root: Path) -> str:
    """SHA-256 over modules' sources and all they import from the project: a changed line makes stored results stale.

    Args:
        modules: dotted names, for instance "lib.experiment".
        root: the project.
    """
    digest = hashlib.sha256()
    for path in source_closure((file for module in modules for file in module_files(module, root)), root):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()
