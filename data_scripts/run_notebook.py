"""Run one notebook with papermill into the book: parameters checked, whole files only, a few lines when it fails."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from lib.config import project_root
from lib.errors import InputError, run_command_line
from lib.gpu_slots import own_gpu
from lib.profiles import load_profile
from lib.runtime import atomic_path

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
NOISE = (
    "Kernel is running over TCP without encryption",
    "KeyboardInterrupt caught in kernel",
    "(src/signaler.cpp:",  # ZeroMQ in a kernel that is told to end while its threads still talk; the notebook is done
)
ENVIRONMENT = {
    "STUDY_RENDERER": "book",  # lib.notebooks: Plotly figures share the site's one plotly.min.js
    "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment, whatever the user has installed elsewhere
    "PYTHONHASHSEED": "0",
    "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm.auto's complaint that a page is no live notebook
}
SHOWN_LINES = 12


def load_notebook(source: Path) -> nbformat.NotebookNode:
    """The notebook with a kernel named in it, so that sources need no kernel metadata.

    Raises:
        InputError: the file is missing or not a notebook.
    """
    try:
        notebook = nbformat.read(source, as_version=4)
    except FileNotFoundError as error:
        raise InputError(f"notebook {source} does not exist; notebooks lie in notebooks/") from error
    except nbformat.reader.NotJSONError as error:
        raise InputError(f"{source} is not a notebook; save it again as .ipynb from JupyterLab") from error
    notebook.metadata.setdefault("kernelspec", KERNEL)
    return notebook


def check_parameters(source: Path, notebook: Path, given: dict[str, Any]) -> None:
    """Raise `InputError` unless the notebook's parameters cell has every given name; papermill would only log it."""
    known = papermill.inspect_notebook(str(notebook))
    if unknown := [name for name in given if name not in known]:
        raise InputError(f"{source} has no parameter {unknown[0]!r}; it has {', '.join(known) or 'none'}")


def publish(notebook: nbformat.NotebookNode) -> None:
    """Prepare an executed notebook for the book, in place: injected parameters hidden, no paths or times of the run."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            cell.metadata["tags"] = [*tags, "remove-cell"]
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not is_empty_stream(output)]


def is_empty_stream(output: nbformat.NotebookNode) -> bool:
    """True for printed text without a visible character: what a progress bar leaves when it clears itself."""
    return output.output_type == "stream" and not output.text.strip()


@contextmanager
def filtered_stderr() -> Iterator[None]:
    """Block in which standard error, the kernel's included, is held back and printed at the end without known noise."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines():
                if not any(noise in line for noise in NOISE):
                    print(line, file=sys.stderr)


def kernel_connection(scratch: Path) -> Config:
    """Settings for talking to the kernel through files in `scratch` instead of network ports.

    Kernels that start at the same moment can pick the same port, and one of them then fails. Windows has no such files.
    """
    return Config() if sys.platform == "win32" else Config(KernelManager={"transport": "ipc", "ip": str(scratch / "k")})


def run_notebook(
    source: Path, target: Path, parameters: dict[str, Any], failed_folder: Path, examples: dict[str, Any] | None = None
) -> None:
    """Execute a notebook in the project root and put the result at `target`, whole or not at all.

    Args:
        source: the notebook without outputs.
        target: where the executed copy goes.
        parameters: values for its parameters cell.
        failed_folder: keeps the executed part when a cell fails.
        examples: values for those of its parameters that it has.

    Raises:
        InputError: no such notebook or parameter.
        PapermillExecutionError: a cell failed; the copy lies in `failed_folder`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        prepared, executed = Path(scratch) / source.name, Path(scratch) / "executed.ipynb"
        nbformat.write(load_notebook(source), prepared)
        check_parameters(source, prepared, parameters)
        known = papermill.inspect_notebook(str(prepared))
        parameters = {name: value for name, value in (examples or {}).items() if name in known} | parameters
        os.environ.update(ENVIRONMENT, IPYTHONDIR=str(Path(scratch) / "ipython"))  # no personal start-up files
        try:
            with filtered_stderr():
                papermill.execute_notebook(
                    str(prepared),
                    str(executed),
                    parameters,
                    progress_bar=False,
                    cwd=str(project_root()),
                    coalesce_streams=True,  # a progress bar leaves its last state only
                    config=kernel_connection(Path(scratch)),
                )
        except PapermillExecutionError:
            move_notebook(executed, failed_folder / source.name)
            raise
        move_notebook(executed, target)


def move_notebook(executed: Path, target: Path) -> None:
    """Write the executed notebook, prepared for the book, to `target` in one step."""
    notebook = nbformat.read(executed, as_version=4)
    publish(notebook)
    with atomic_path(target) as temporary:
        nbformat.write(notebook, temporary)


def failure_text(source: Path, failed_folder: Path, error: PapermillExecutionError) -> str:
    """A few lines for a failed run: notebook, cell, its source, the error, where the copy lies."""
    head = f"{source}, cell {error.cell_index + 1}: {error.ename}: {error.evalue}"
    if error.ename == "InputError":
        return head
    lines = [f"    {line}" for line in error.source.splitlines()[:SHOWN_LINES]]
    return "\n".join([head, *lines, f"executed as far as it went: {failed_folder / source.name}"])


def parse_parameter(name: str, text: str) -> tuple[str, Any]:
    """Parameter name and value; the value is read as YAML, so that 3 is a number and [a, b] a list."""
    return name, yaml.safe_load(text)


def main() -> int:
    """Command line: SOURCE TARGET [-p NAME VALUE]... [--example NAME VALUE]... [--failed FOLDER]; 1 on failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument(
        "--example", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="a parameter that is set only in notebooks that have it",
    )  # fmt: skip
    parser.add_argument("--failed", type=Path, default=Path("runs/failed"), help="folder for notebooks that fail")
    arguments = parser.parse_args()
    parameters = dict(parse_parameter(name, text) for name, text in arguments.parameter)
    examples = dict(parse_parameter(name, text) for name, text in arguments.example)
    device = load_profile(parameters["profile"]).device if "profile" in parameters else "cpu"
    try:
        with own_gpu(device):  # the kernel inherits it
            run_notebook(arguments.source, arguments.target, parameters, arguments.failed, examples)
    except PapermillExecutionError as error:
        print(failure_text(arguments.source, arguments.failed, error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run_command_line(main))
