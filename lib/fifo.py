"""A first-in-first-out bank of feature rows in constant memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lib.errors import InputError


class FIFOBank:
    """The last rows that were put in; every new row drops the oldest once the bank is full (LSFA, IFC).

    Args:
        capacity: rows that fit, at least 1.
        dim: channels C of a row.
        device: where the rows live.

    Raises:
        InputError: the capacity is less than 1.
    """

    def __init__(self, capacity: int, dim: int, device: torch.device | str = "cpu") -> None:
        if capacity < 1:
            raise InputError(f"FIFOBank: capacity is {capacity}; give a whole number of at least 1")
        self._buffer = torch.zeros(capacity, dim, device=device)
        self._next = 0
        self._count = 0

    @property
    def capacity(self) -> int:
        """Rows that fit."""
        return len(self._buffer)

    @property
    def is_full(self) -> bool:
        """True once as many rows went in as fit."""
        return self._count == self.capacity

    @property
    def rows(self) -> Tensor:
        """(M, C) float32, the rows held now, in no particular order and without gradient; a view, not a copy."""
        return self._buffer[: self._count]

    def oldest_first(self) -> Tensor:
        """(M, C) float32 copy of the rows in the order in which they went in."""
        return self.rows.roll(-self._next, dims=0) if self.is_full else self.rows.clone()

    def push(self, rows: Tensor) -> None:
        """Put rows (n, C) float32 in, the first as the oldest; of more than fit, the last are kept."""
        kept = rows.detach()[-self.capacity :]
        places = (self._next + torch.arange(len(kept), device=self._buffer.device)) % self.capacity
        self._buffer[places] = kept.to(self._buffer)
        self._next = (self._next + len(kept)) % self.capacity
        self._count = min(self._count + len(kept), self.capacity)

    def state_dict(self) -> dict[str, Tensor | int]:
        """The rows and where the next one goes."""
        return {"rows": self.rows, "next": self._next}

    def load_state_dict(self, state: Mapping[str, Tensor | int]) -> None:
        """Take over what `state_dict` of a bank of this size gave."""
        self._count, self._next = len(state["rows"]), state["next"]
        self._buffer[: self._count] = state["rows"].to(self._buffer)
