"""Experiment records: what one method gave on one category at one seed, as a small JSON file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lib.errors import InputError
from lib.runtime import atomic_path

SCHEMA = 1
KEYS = ("schema", "key", "config", "inputs", "metrics", "per_image", "history", "run")
MACHINE_INPUTS = ("data", "code", "versions", "precision")  # what other machines, later code or an upgrade change


def record_path(root: Path, method: str, category: str, variant: str, seed: int) -> Path:
    """`<root>/<method>/<category>/<variant>-s<seed>.json`."""
    return root / method / category / f"{variant}-s{seed}.json"


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record, whole or not at all; keys keep their order, floats their full precision."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """The record at `path`.

    Raises:
        InputError: the file is missing, is not JSON, lacks a key, or has another schema.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; run the experiment that writes it") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not JSON ({error}); delete it and run again") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or any(key not in record for key in KEYS):
        raise InputError(f"{path} is not a record of schema {SCHEMA}; delete it and run again")
    return record


def comparable(record: dict[str, Any]) -> dict[str, Any]:
    """The part of a record that two runs with one seed must share: all but `run`, `MACHINE_INPUTS` and the schema."""
    kept = {key: value for key, value in record.items() if key not in ("run", "schema")}
    kept["inputs"] = {key: value for key, value in record["inputs"].items() if key not in MACHINE_INPUTS}
    return kept


def differences(first: Any, second: Any, tolerance: float = 0.0, where: str = "record") -> list[str]:
    """Places where two records, or parts of records, differ; empty when they agree.

    Args:
        first: nested dicts, lists and scalars, as JSON holds them.
        second: the same.
        tolerance: largest absolute difference of two numbers that still agree.
        where: name of the place, for the message.
    """
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return [line for key in first for line in differences(first[key], second[key], tolerance, f"{where}.{key}")]
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, tolerance, f"{where}[{i}]")]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (first, second))
    agree = math.isclose(first, second, rel_tol=0.0, abs_tol=tolerance) if numbers else first == second
    return [] if agree else [f"{where}: {first!r} is not {second!r}"]
