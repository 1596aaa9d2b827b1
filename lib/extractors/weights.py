"""Weights from files that are what they claim to be: found, verified, and read without running anything inside them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import safe_open
from torch import Tensor

from lib.config import check_choice, project_root
from lib.downloads import HTML, download, is_html
from lib.errors import InputError
from lib.extractors.weight_registry import WEIGHTS, WeightFile
from lib.runtime import file_sha256

__all__ = ["WEIGHTS", "WeightFile", "download_weights", "find_weights", "load_state", "read_tensors", "weights_sha256"]

WEIGHTS_VARIABLE = "ANOMALY_WEIGHTS"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded"


def registered(name: str) -> WeightFile:
    """The file of that name; `InputError` lists those there are."""
    check_choice("weights", name, tuple(WEIGHTS))
    return WEIGHTS[name]


def weights_folders(file: WeightFile, folder: Path | str | None = None) -> list[Path]:
    """Where a file is looked for, in this order: `folder`, $ANOMALY_WEIGHTS, and weights/ of the project.

    The last place of an embedded file is the package instead. A download goes to the first.
    """
    given = [Path(folder)] if folder else []
    variable = os.environ.get(WEIGHTS_VARIABLE)
    last = project_root() / "weights" if file.urls else EMBEDDED_FOLDER
    return [*given, *([Path(variable).expanduser()] if variable else []), last]


def find_weights(name: str, folder: Path | str | None = None) -> Path:
    """The file of that name in the first folder that has one; whether it is the right one is not looked at.

    Args:
        name: key of `WEIGHTS`.
        folder: searched first.

    Raises:
        InputError: the name is unknown, no folder has the file, or a folder lies in its place.
    """
    file = registered(name)
    folders = weights_folders(file, folder)
    for path in (place / file.filename for place in folders):
        if path.is_dir():
            raise InputError(f"{path} is a folder, where the weights {name} should lie as a file; remove it")
        if path.exists():
            return path
    places = ", ".join(map(str, folders))
    raise InputError(f"weights {name}: no file {file.filename} in {places}; {how_to_get(file)}")


def how_to_get(file: WeightFile) -> str:
    """What a reader does to get the right file."""
    if not file.urls:
        return "restore it from the repository, which it is part of"
    urls = " or ".join(file.urls)
    return (
        f"run python data_scripts/get_weights.py {file.name}, or fetch {urls} by hand and save it as {file.filename} "
        f"there or in a folder that ${WEIGHTS_VARIABLE} names"
    )


def download_weights(name: str, folder: Path | str | None = None, progress: bool = False) -> Path:
    """The verified file of that name in any of its folders, fetched into the first where none has it.

    Args:
        name: key of `WEIGHTS`.
        folder: where to; None = $ANOMALY_WEIGHTS, or weights/ of the project.
        progress: show a bar.

    Raises:
        InputError: the name is unknown, or the file could not be had; the line names file, folder and URLs.
    """
    file = registered(name)
    if not file.urls:
        weights_sha256(name)
        return find_weights(name)
    folders = weights_folders(file, folder)
    for path in (place / file.filename for place in folders):
        if path.is_file() and _sha256_of(path, path.stat().st_size, path.stat().st_mtime_ns).startswith(file.sha256):
            return path
    return download(file.urls, folders[0] / file.filename, expected_sha256(file), file.size_bytes, progress)


def expected_sha256(file: WeightFile) -> str:
    """Hexadecimal SHA-256 of the file, or its beginning: the registry's, or the one in an embedded file's card."""
    if file.sha256 is not None:
        return file.sha256
    card = (EMBEDDED_FOLDER / file.filename).with_suffix(".json")
    try:
        return json.loads(card.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{card} gives no sha256 of {file.filename} ({error!r}); {how_to_get(file)}") from error


def weights_sha256(name: str, folder: Path | str | None = None) -> str:
    """SHA-256 of the file that `load_state` would read, verified; computed once as long as the file is not touched.

    Arguments and errors as for `load_state`.
    """
    return verified(registered(name), find_weights(name, folder))


def verified(file: WeightFile, path: Path) -> str:
    """The SHA-256 of `path`; `InputError` says what the file is instead where it is not the registered one."""
    expected, stat = expected_sha256(file), path.stat()
    found = _sha256_of(path, stat.st_size, stat.st_mtime_ns)
    if not found.startswith(expected):
        what = damage(path) or "another file or another version"
        raise InputError(
            f"{path} is not the weights {file.name} but {what}: SHA-256 {found}, expected {expected}; "
            f"delete it, then {how_to_get(file)}"
        )
    return found


@cache
def _sha256_of(path: Path, size_bytes: int, mtime_ns: int) -> str:
    """SHA-256 of a file in one state: size and time of change are there to tell states apart."""
    return file_sha256(path)


def load_state(name: str, folder: Path | str | None = None) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, of a registered file whose SHA-256 was verified.

    Args:
        name: key of `WEIGHTS`.
        folder: searched first.

    Raises:
        InputError: no such name or file, or the file is damaged, an HTML page, or another one than registered.
    """
    file = registered(name)
    path = find_weights(name, folder)
    verified(file, path)
    return read_tensors(path, file.inside, file.prefix)


def read_tensors(path: Path | str, inside: str | None = None, prefix: str = "") -> dict[str, Tensor]:
    """Tensors by name, on the CPU, of a safetensors file or a PyTorch checkpoint of which no code is run.

    Args:
        path: read as safetensors by that suffix, else by `torch.load(weights_only=True)`.
        inside: key of the table of tensors in a PyTorch checkpoint; None = the checkpoint is that table.
        prefix: only tensors whose names begin so are given, and it is cut off.

    Raises:
        InputError: the file is missing, damaged, an HTML page or no table of tensors, or it asks to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is {'a folder' if path.is_dir() else 'missing'}; give a file of weights")
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path, prefix)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path} was not loaded: it is {damage(path) or refusal(error)}") from error
    table = content if inside is None else content.get(inside) if isinstance(content, Mapping) else None
    if not isinstance(table, Mapping) or not all(isinstance(value, Tensor) for value in table.values()):
        where = "" if inside is None else f" under {inside!r}"
        raise InputError(f"{path} holds no table of tensors{where}; check that it is the right checkpoint")
    return {name.removeprefix(prefix): tensor for name, tensor in table.items() if name.startswith(prefix)}


def _read_safetensors(path: Path, prefix: str) -> dict[str, Tensor]:
    with safe_open(path, "pt") as stored:
        names = [name for name in stored.keys() if name.startswith(prefix)]  # noqa: SIM118 - safe_open is no mapping
        return {name.removeprefix(prefix): stored.get_tensor(name) for name in names}


def refusal(error: Exception) -> str:
    """One phrase for a reader's error; PyTorch's own fills ten lines and names the switch that would run the code."""
    if asked := re.search(r"GLOBAL (\S+)", str(error)):
        return f"a pickle that asks to run {asked[1]}, which was not done; take it from a source you trust"
    return f"no weights that can be read without running code ({type(error).__name__}); take it from its source again"


def damage(path: Path) -> str | None:
    """What is visibly wrong with a file of weights, or None."""
    if not path.stat().st_size:
        return "an empty file"
    if is_html(path):
        return HTML
    missing = _missing_of_safetensors(path) if path.suffix == ".safetensors" else _missing_of_zip(path)
    return missing and f"truncated: {missing}"


def _missing_of_zip(path: Path) -> str | None:
    """What a PyTorch checkpoint, which is a zip archive unless it is very old, lacks at its end."""
    with open(path, "rb") as stream:
        is_zip = stream.read(2) == b"PK"
    return f"a zip archive of {path.stat().st_size} bytes without its end" if is_zip and not is_zipfile(path) else None


def _missing_of_safetensors(path: Path) -> str | None:
    """What a safetensors file (8 bytes of header size, header in JSON, values) lacks at its end."""
    size = path.stat().st_size
    with open(path, "rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
        header = stream.read(min(header_bytes, size))
    if not header.startswith(b"{"):
        return None
    if len(header) < header_bytes:
        return f"it has {size} bytes and ends within its header"
    try:
        ends = [entry["data_offsets"][1] for name, entry in json.loads(header).items() if name != "__metadata__"]
        whole = 8 + header_bytes + max(ends, default=0)
    except (ValueError, KeyError, TypeError):
        return None
    return f"it has {size} of {whole} bytes" if size < whole else None
