"""Fitted heads as files: settings, channels and tensors in one safetensors file, which runs no code when read."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

from lib.errors import InputError
from lib.heads import build_head
from lib.heads.state import read_state, write_state


def save_head(path: Path | str, head: Any, rgb_dim: int, xyz_dim: int) -> None:
    """Write a fitted head, whole or not at all.

    Args:
        path: of the file, `*.safetensors`.
        head: any head of `lib.heads`.
        rgb_dim, xyz_dim: channels C2 and C3 that it was made for.
    """
    write_state(path, {"settings": to_json(head.config), "rgb_dim": rgb_dim, "xyz_dim": xyz_dim}, head.state())


def load_head(path: Path | str, device: str = "cpu") -> Any:
    """The head that `save_head` wrote, ready to predict.

    Args:
        path: of the file.
        device: where it works.

    Raises:
        InputError: the file is missing, damaged, or no head of this version.
    """
    facts, state = read_state(path)
    try:
        head = build_head(from_json(facts["settings"]), facts["rgb_dim"], facts["xyz_dim"], device)
        head.load_state(state)
    except Exception as error:
        raise InputError(f"{path} is not a saved head ({error}); give another file, or fit and save again") from error
    return head


def to_json(settings: Any) -> Any:
    """Settings as JSON holds them: a dataclass becomes its class and its fields, settings within settings too."""
    if not dataclasses.is_dataclass(settings):
        return settings
    kind = type(settings)
    fields = {field.name: to_json(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
    return {"class": f"{kind.__module__}:{kind.__qualname__}", "fields": fields}


def from_json(stored: Any) -> Any:
    """Settings that `to_json` wrote; their own checks run again.

    Raises:
        InputError: a class is not one of this project's dataclasses, which are data and no more.
    """
    if not isinstance(stored, dict):
        return stored
    module, _, name = stored["class"].partition(":")
    kind = getattr(importlib.import_module(module), name) if module.startswith("lib.") else None
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise InputError(f"{stored['class']} is no settings class of lib")
    return kind(**{key: from_json(value) for key, value in stored["fields"].items()})
