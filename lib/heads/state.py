"""The state of a head as one flat mapping of tensors, put together from its parts and taken apart again."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

State = dict[str, Tensor]


def joined(parts: Mapping[str, Mapping[str, Tensor]]) -> State:
    """Tensors of all parts by "<part>.<name>", on the CPU."""
    return {f"{part}.{name}": value.detach().cpu() for part, state in parts.items() for name, value in state.items()}


def part_of(state: Mapping[str, Tensor], part: str) -> State:
    """Tensors of one part by their own names; empty where the state has no such part."""
    return {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
