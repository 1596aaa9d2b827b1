"""The state of a head as one flat mapping of tensors: joined from its parts, taken apart again, kept in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lib.errors import InputError
from lib.runtime import atomic_path

KEY = "head"
State = dict[str, Tensor]


def joined(parts: Mapping[str, Mapping[str, Tensor]]) -> State:
    """Tensors of all parts by "<part>.<name>", on the CPU."""
    return {f"{part}.{name}": value.detach().cpu() for part, state in parts.items() for name, value in state.items()}


def part_of(state: Mapping[str, Tensor], part: str) -> State:
    """Tensors of one part by their own names; empty where the state has no such part."""
    return {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}


def write_state(path: Path | str, facts: dict[str, Any], state: State) -> None:
    """Write tensors and what JSON can say of them as safetensors, whole or not at all."""
    tensors = {name: value.contiguous() for name, value in state.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={KEY: json.dumps(facts)})  # one key: safetensors shuffles several


def read_state(path: Path | str) -> tuple[dict[str, Any], State]:
    """Facts and tensors that `write_state` wrote; `InputError` for a file that is missing, damaged or another's."""
    try:
        with safe_open(path, "pt") as stored:
            facts = json.loads(stored.metadata()[KEY])
            state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - safe_open is no mapping
    except Exception as error:
        raise InputError(f"{path} is not a saved head ({error}); give another file, or fit and save again") from error
    return facts, state
