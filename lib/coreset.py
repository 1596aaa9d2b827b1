"""Greedy coreset: few rows that lie near all (k-center, Gonzalez 1985; PatchCore sec. 3.2).

Letters: M rows, C channels, S selected rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.random_projection import SparseRandomProjection, johnson_lindenstrauss_min_dim
from torch import Tensor
from tqdm.auto import tqdm

from lib.errors import InputError

ROUNDING = 4  # margin of a float32 inner product, in units of root C, machine epsilon and the largest squared norm
CENTER_ROWS = 1024  # that stand for all where only a rough middle is wanted
CANDIDATES_AT_ONCE = 16  # whose distances to the selected rows are held at once


@torch.no_grad()
def greedy_coreset(rows: Tensor, num_selected: int, start: int = 0, progress: bool = False) -> Tensor:
    """(S,) int64 rows, each the farthest from those before it; the first of equally far ones wins.

    The textbook loop takes M differences at each step. Here a step is one product of a matrix and a vector by the
    expanded square |x|^2 - 2 x.s + |s|^2, on a copy of the rows moved to about their middle, so that little cancels.
    Where several rows are farthest within the rounding of that product, `farthest` decides in float64, so that the
    picks are those of the textbook loop in float64.

    Args:
        rows: (M, C) float32, on any device.
        num_selected: S, from 1 to M.
        start: the first row.
        progress: show a bar over selections.

    Raises:
        InputError: more rows are asked for than there are, or none, or the first is not among them.
    """
    if not (1 <= num_selected <= len(rows) and 0 <= start < len(rows)):
        raise InputError(
            f"greedy_coreset: {num_selected} of {len(rows)} rows from row {start} on; ask for at least one row and "
            "no more than there are, and start at one of them"
        )
    centered = rows - rough_middle(rows)
    norms = centered.square().sum(dim=1)
    margin = ROUNDING * rows.shape[1] ** 0.5 * torch.finfo(rows.dtype).eps * float(norms.max())
    nearest = torch.full_like(norms, torch.inf)  # squared distance of each row to the selected ones
    distance = torch.empty_like(norms)
    selected = torch.full((num_selected,), start, device=rows.device)
    taken = torch.empty(num_selected, rows.shape[1], device=rows.device)  # the selected rows, centered
    for rank in tqdm(range(1, num_selected), desc="coreset", disable=not progress):
        last = int(selected[rank - 1])  # a number gives views below, a tensor would give copies
        taken[rank - 1] = centered[last]
        torch.addmv(norms, centered, centered[last], alpha=-2, out=distance)
        torch.minimum(nearest, distance.add_(norms[last]), out=nearest)
        nearest[last] = -torch.inf  # a selected row is never taken again, even among duplicates
        largest = nearest.max()
        candidates = (nearest >= largest - margin).nonzero().flatten()
        clear = len(candidates) == 1 or largest <= margin  # or what is left lies on selected rows, within rounding
        picked = selected[:rank], taken[:rank]
        selected[rank] = candidates[0] if clear else farthest(rows, centered, norms, candidates, *picked, margin)
    return selected


def farthest(
    rows: Tensor,
    centered: Tensor,
    norms: Tensor,
    candidates: Tensor,
    selected: Tensor,
    taken: Tensor,
    margin: float,
) -> Tensor:
    """() int64 candidate farthest from its nearest selected row, by float64 differences; the first of equal ones.

    Only selected rows that may be a candidate's nearest within the rounding of float32 are looked at in float64.

    Args:
        rows: (M, C) float32.
        centered: (M, C) float32, the rows moved to about their middle.
        norms: (M,) float32, squared lengths of `centered`.
        candidates: (K,) int64 rows, ascending.
        selected: (S,) int64 rows.
        taken: (S, C) float32, those of `centered` selected so far.
        margin: twice the largest error of a float32 squared distance.
    """
    exact = []
    for part in candidates.split(CANDIDATES_AT_ONCE):
        shifted = torch.addmm(norms[selected, None], taken, centered[part].T, alpha=-2)  # less their own norms
        near, of_candidate = (shifted <= shifted.min(dim=0).values + margin).nonzero(as_tuple=True)
        squares = (rows[selected[near]].double() - rows[part[of_candidate]].double()).square().sum(dim=1)
        unknown = squares.new_full((len(part),), torch.inf)
        exact.append(unknown.scatter_reduce(0, of_candidate, squares, "amin"))
    return candidates[torch.cat(exact).argmax()]


def rough_middle(rows: Tensor) -> Tensor:
    """(C,) float32 column medians of some rows, spread evenly.

    A median is a coordinate that occurs, unlike a mean: on a lattice differences from it, their squares and sums are
    exact, and ties stay ties.

    Args:
        rows: (M, C) float32.
    """
    return rows[:: -(-len(rows) // CENTER_ROWS)].median(dim=0).values


def project(rows: Tensor, eps: float, seed: int) -> Tensor:
    """(M, D) float32 sparse random projection that keeps squared distances to within a factor 1 +- eps [M3DM].

    D is the Johnson-Lindenstrauss dimension of M rows. Where that is above C, the rows come back as they are.

    Args:
        rows: (M, C) float32, on any device.
        eps: distortion, between 0 and 1.
        seed: of the projection.
    """
    return project_tables([rows], eps, seed)


def project_tables(tables: Sequence[Tensor], eps: float | None, seed: int) -> Tensor:
    """`project` of the rows of several tables, of which no joined copy is made.

    Args:
        tables: (Q, C) float32 each, on one device; M is the number of all their rows.
        eps, seed: as for `project`; without eps the rows are joined as they are.
    """
    num_rows, dim = sum(map(len, tables)), tables[0].shape[1]
    wanted = dim if eps is None else projected_dim(num_rows, dim, eps)
    if wanted == dim:
        return torch.cat(list(tables))
    shape_only = np.zeros((1, dim), dtype=np.float32)  # all that the fit reads of the rows
    projection = SparseRandomProjection(wanted, random_state=seed).fit(shape_only)
    components = torch.from_numpy(projection.components_.toarray()).to(tables[0])
    projected = torch.empty(num_rows, len(components), device=tables[0].device)
    start = 0
    for table in tables:
        torch.matmul(table, components.T, out=projected[start : start + len(table)])
        start += len(table)
    return projected


def projected_dim(num_rows: int, dim: int, eps: float) -> int:
    """Columns after the projection of rows with some columns; as many as before where that would be no fewer.

    Args:
        num_rows: M.
        dim: C.
        eps: as for `project`.
    """
    return dim if num_rows == 1 else min(dim, int(johnson_lindenstrauss_min_dim(num_rows, eps=eps)))
