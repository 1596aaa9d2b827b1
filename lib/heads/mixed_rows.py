"""Features of many pixels as mixtures of few tokens, so that a linear layer can be applied to the tokens instead.

Letters: T rows of a table, n rows that mix them, k table rows in each mixture, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from lib.features import Features


@dataclass(frozen=True, eq=False)
class MixedRows:
    """Rows that are weighted means of the rows of a table.

    Attributes:
        table: (T, C) float32.
        rows: (n, k) int64, which table rows each mixes.
        shares: (n, k) float32, how much of each; every row sums to 1.
    """

    table: Tensor
    rows: Tensor
    shares: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, part: slice = slice(None)) -> Tensor:
        """(n, C) float32 mixed rows, or those of a part of them."""
        return F.embedding_bag(self.rows[part], self.table, per_sample_weights=self.shares[part], mode="sum")

    def through(self, layer: Callable[[Tensor], Tensor]) -> MixedRows:
        """The same rows after an affine layer, which is applied wherever there is clearly less to multiply.

        The layer of a mixture is the mixture of the layer's outputs, its bias included, because shares sum to 1. With
        the paper's sizes that takes a quarter off the multiplications of CFM's training.

        Args:
            layer: (m, C) to (m, D), affine.
        """
        if 2 * len(self.table) <= len(self.rows):
            return replace(self, table=layer(self.table))
        return each_alone(layer(self.read()))


def each_alone(table: Tensor) -> MixedRows:
    """Mixtures that are one row of the table (T, C) each."""
    rows = torch.arange(len(table), device=table.device)[:, None]
    return MixedRows(table, rows, torch.ones(len(table), 1, device=table.device))


def pixel_rows(samples: Sequence[Features], drawn: Sequence[Tensor | None]) -> tuple[MixedRows, MixedRows]:
    """RGB and 3D features of foreground pixels of several samples, one sample under the other.

    Args:
        samples: on one device.
        drawn: of each sample the rows of its `pixel_index` to read; None = all.
    """
    pairs = [sample.mixtures(rows) for sample, rows in zip(samples, drawn, strict=True)]
    return joined([rgb for rgb, _ in pairs]), joined([xyz for _, xyz in pairs])


def joined(parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> MixedRows:
    """Mixtures of several tables, given as table, rows and shares, over the tables one under the other.

    Where some mix more rows than others, these take shares of 0 in any row.
    """
    tables, rows, shares = zip(*parts, strict=True)
    most = max(mixed.shape[1] for mixed in rows)
    rows, shares = ([F.pad(part, (0, most - part.shape[1])) for part in column] for column in (rows, shares))
    offsets = accumulate([0, *map(len, tables[:-1])])
    moved = [part + offset for part, offset in zip(rows, offsets, strict=True)]
    return MixedRows(torch.cat(tables), torch.cat(moved), torch.cat(shares))
