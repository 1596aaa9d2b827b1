"""Sequences that read an entry when it is asked for, so that a whole dataset needs little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

KEPT_BYTES = 200e6  # of a bank's patches: all of them in the demo, a few samples of a large category


class ReadOnAccess(Sequence):
    """What a function gives for each sample, read when it is asked for: a dataset's patches need little memory.

    Args:
        samples: anything the function takes.
        read: sample to something with `nbytes`: a tensor, a `PatchSet`, `Features`; the same at each call.
        kept_bytes: kept for the next access, the first that are read; the others are read anew.
    """

    def __init__(self, samples: Sequence[Any], read: Callable[[Any], Any], kept_bytes: float = KEPT_BYTES) -> None:
        self.samples, self.read, self.free_bytes = samples, read, kept_bytes
        self.kept: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        if index in self.kept:
            return self.kept[index]
        table = self.read(self.samples[index])
        if table.nbytes <= self.free_bytes:
            self.kept[index] = table
            self.free_bytes -= table.nbytes
        return table

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))
