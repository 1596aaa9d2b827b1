"""A memory bank of normal patches: how it is chosen, how far a patch lies from it, and what that says of the image.

Letters: M bank rows, Q query patches, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lib.bank_search import k_nearest_rows, nearest_rows
from lib.coreset import greedy_coreset, project_tables, projected_dim
from lib.errors import InputError
from lib.methods import PatchCoreConfig
from lib.training import BYTES_PER_GB, free_gpu_gb

COPIES_IN_SELECTION = 3.2  # of the projected rows: 3.1 GB for 765,184 of 334 columns (results/bench/cuda.json)


def coreset_size(num_rows: int, fraction: float) -> int:
    """Rows that a share of them keeps, at least one."""
    return max(1, int(fraction * num_rows))


def coreset_bank(
    tables: Sequence[Tensor],
    config: PatchCoreConfig,
    seed: int,
    device: torch.device | str = "cpu",
    progress: bool = False,
    num_selected: int | None = None,
) -> Tensor:
    """(M, C) float32 rows that greedy selection keeps of all the tables' rows, on the device.

    Only the projected rows are ever held as one table: at the paper's size (765,000 patches of 1152 channels) a joined
    copy of the features would take 3.5 GB beside the samples themselves.

    Args:
        tables: (Q, C) float32 patches of each training sample, on the CPU.
        config: reads coreset_fraction and projection_eps.
        seed: of the projection, the only chance here: the selection starts at row 0 [M3DM].
        device: where rows are compared.
        progress: show a bar over selections.
        num_selected: M, where the fraction does not say it.

    Raises:
        InputError: the GPU's free memory will not do.
    """
    counts = torch.tensor([len(table) for table in tables])
    wanted = coreset_size(int(counts.sum()), config.coreset_fraction) if num_selected is None else num_selected
    if wanted == int(counts.sum()):
        return torch.cat(list(tables)).to(device)
    check_bank_memory(int(counts.sum()), tables[0].shape[1], config, torch.device(device))
    projected = project_tables(tables, config.projection_eps, seed).to(device)
    return gathered(tables, greedy_coreset(projected, wanted, progress=progress).cpu()).to(device)


def check_bank_memory(num_rows: int, dim: int, config: PatchCoreConfig, device: torch.device) -> None:
    """Stop before a selection that will not fit the GPU's free memory; see `coreset_bank`.

    Args:
        num_rows: of all tables.
        dim: channels C of a row.
        config: reads projection_eps and grid_side.
        device: where rows are compared.
    """
    columns = dim if config.projection_eps is None else projected_dim(num_rows, dim, config.projection_eps)
    need_gb, free_gb = 4 * COPIES_IN_SELECTION * num_rows * columns / BYTES_PER_GB, free_gpu_gb(device)
    if need_gb > free_gb:
        fitting = math.floor((config.grid_side or 28) * (free_gb / need_gb) ** 0.5)  # rows grow with the side's square
        raise InputError(
            f"a memory bank of {num_rows:,} patches needs about {need_gb:.1f} GB of GPU memory to choose from, and "
            f"{free_gb:.1f} GB are free; set grid_side: {fitting} for the method, or device: cpu in the profile"
        )


def gathered(tables: Sequence[Tensor], indices: Tensor) -> Tensor:
    """(S, C) rows of the tables one under the other, without making that long table.

    Args:
        tables: (Q, C) each.
        indices: (S,) int64 rows of it.
    """
    ends = torch.tensor([len(table) for table in tables]).cumsum(dim=0)
    owner = torch.searchsorted(ends, indices, right=True)
    rows = torch.empty(len(indices), tables[0].shape[1], dtype=tables[0].dtype)
    for number in owner.unique().tolist():
        mine = owner == number
        rows[mine] = tables[number][indices[mine] - (ends[number] - len(tables[number]))]
    return rows


def bank_distances(queries: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Distance (Q,) float32 of each patch to its nearest bank row, and that row (Q,) int64.

    Args:
        queries: (Q, C) float32, on the bank's device.
        bank: (M, C) float32.
    """
    nearest = nearest_rows(queries, bank)
    return torch.linalg.vector_norm(queries - bank[nearest], dim=1), nearest


def patch_score(queries: Tensor, bank: Tensor, reweight_rows: int | None) -> tuple[Tensor, float]:
    """Distances (Q,) float32 of an image's patches, and its score: the largest one, re-weighted.

    Args:
        queries, bank: as for `bank_distances`.
        reweight_rows: as for `reweighted`.
    """
    distances, nearest = bank_distances(queries, bank)
    worst = int(distances.argmax())
    return distances, reweighted(queries[worst], bank, int(nearest[worst]), reweight_rows)


def reweighted(query: Tensor, bank: Tensor, nearest: int, reweight_rows: int | None) -> float:
    """Image score w s of the patch farthest from the bank: its distance s, less where normal patches are dense around.

    w = 1 - exp(s / sqrt(C)) / sum of exp(|q - m| / sqrt(C)) over the bank rows m nearest to the patch's nearest row,
    that row itself left out [M3DM, LSFA released]. PatchCore's eq. 7 keeps it in the sum and does not divide by
    sqrt(C). A bank of one row leaves nothing to sum: then w is 1.

    Args:
        query: (C,) float32, the patch.
        bank: (M, C) float32.
        nearest: its nearest bank row.
        reweight_rows: bank rows around that one, itself counted; None = w is 1.
    """
    score = float(torch.linalg.vector_norm(query - bank[nearest]))
    if reweight_rows is None or len(bank) == 1:
        return score
    others = k_nearest_rows(bank[nearest], bank, reweight_rows)[1:]
    farther = torch.linalg.vector_norm(query - bank[others], dim=1).double() - score
    return score * (1 - 1 / float((farther / len(query) ** 0.5).exp().sum()))
