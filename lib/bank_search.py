"""Exact nearest rows of a bank, block by block, so that memory stays bounded however many rows there are.

Letters: Q queries, M bank rows, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

QUERIES_PER_BLOCK, BANK_ROWS_PER_BLOCK = 1024, 768  # rows and distances, 3 MB each, stay in the processor's cache
CUDA_BLOCK = 8192, 16384  # 537 MB: small blocks would leave the device waiting for the next launch
WHOLE = "concat"


def nearest_rows(queries: Tensor, bank: Tensor) -> Tensor:
    """(Q,) int64 nearest bank row of each query, without gradient; the first of equally near ones wins.

    Rows whose squared distances differ by less than the rounding of a float32 inner product count as equally near.

    Args:
        queries: (Q, C) float32.
        bank: (M, C) float32 on the same device, M >= 1; a view into a larger tensor will do.
    """
    return nearest_rows_by_part(queries, bank, {"all": slice(None)}, ("all",))["all"]


def nearest_distances(
    queries: Tensor, bank: Tensor, parts: Mapping[str, slice], names: Sequence[str]
) -> dict[str, Tensor]:
    """Euclidean distance of each query to its nearest bank row, by single parts of the columns and by all of them.

    The row is found by `nearest_rows_by_part`. Its distance is then recomputed from the difference, which is exact
    where the expanded square cancels.

    Args:
        queries, bank, parts, names: as for `nearest_rows_by_part`.

    Returns:
        (Q,) float32 by name.
    """
    nearest = nearest_rows_by_part(queries, bank, parts, names)
    cuts = {name: parts.get(name, slice(None)) for name in names}
    return {name: torch.linalg.vector_norm((queries - bank[nearest[name]])[:, cuts[name]], dim=1) for name in names}


@torch.no_grad()
def nearest_rows_by_part(
    queries: Tensor, bank: Tensor, parts: Mapping[str, slice], names: Sequence[str]
) -> dict[str, Tensor]:
    """Nearest bank row of each query, by single parts of the columns and by all of them.

    Rows are compared by the expanded square |q|^2 - 2 q.b + |b|^2 about the bank's mean, which is quick, and whose
    value for all columns is the sum of those of the parts.

    Args:
        queries: (Q, C) float32.
        bank: (M, C) float32, M >= 1.
        parts: columns of each part; together they cover every column once.
        names: which parts to search, and `WHOLE` for all columns.

    Returns:
        (Q,) int64 by name.
    """
    mean = bank.mean(dim=0)
    centered = queries - mean
    queries_per_block, rows_per_block = block_shape(bank.device)
    sides = min(len(queries), queries_per_block), min(len(bank), rows_per_block)
    # Written over in every round: new memory for each block would cost as much as what is computed in it.
    rows_of_block = bank.new_empty(sides[1], bank.shape[1])
    tables = {part: bank.new_empty(sides) for part in parts}
    best = {name: queries.new_full((len(queries),), torch.inf) for name in names}
    nearest = {name: torch.zeros(len(queries), dtype=torch.int64, device=queries.device) for name in names}
    for start in range(0, len(bank), rows_per_block):
        taken = bank[start : start + rows_per_block]
        block = torch.sub(taken, mean, out=rows_of_block[: len(taken)])
        columns = {part: block[:, cut].T for part, cut in parts.items()}
        half_norms = {part: torch.einsum("cm,cm->m", values, values) / 2 for part, values in columns.items()}
        for first in range(0, len(queries), queries_per_block):
            rows = slice(first, min(first + queries_per_block, len(queries)))
            halves = {
                part: torch.addmm(
                    half_norms[part],
                    centered[rows, cut],
                    columns[part],
                    alpha=-1,
                    out=tables[part][: rows.stop - first, : len(taken)],
                )
                for part, cut in parts.items()
            }
            for name in names:
                values, found = row_minimum(sum(halves.values()) if name == WHOLE else halves[name])
                better = values < best[name][rows]
                best[name][rows][better] = values[better]
                nearest[name][rows][better] = found[better] + start
    return nearest


def k_nearest_rows(query: Tensor, bank: Tensor, num: int) -> Tensor:
    """(K,) int64 bank rows nearest to one query, nearest first, the first of equally near ones first.

    Distances are those of the differences.

    Args:
        query: (C,) float32.
        bank: (M, C) float32 on the same device.
        num: rows wanted; K is the smaller of this and M.
    """
    _, rows_per_block = block_shape(bank.device)
    distances = [torch.linalg.vector_norm(block - query, dim=1) for block in bank.split(rows_per_block)]
    return torch.cat(distances).argsort(stable=True)[:num]


def block_shape(device: torch.device) -> tuple[int, int]:
    """Queries and bank rows whose distances are held at once."""
    return (QUERIES_PER_BLOCK, BANK_ROWS_PER_BLOCK) if device.type == "cpu" else CUDA_BLOCK


def row_minimum(values: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest entry of each row and its column; on the CPU by NumPy, which vectorizes the search and torch does not.

    Args:
        values: (Q, M) float32.
    """
    if values.device.type != "cpu":
        return values.min(dim=1)
    columns = torch.from_numpy(values.numpy().argmin(axis=1))
    return values.gather(1, columns[:, None])[:, 0], columns
