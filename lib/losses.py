"""Losses of the two methods, on rows of features.

Letters: N rows (pixels, patches or instances), C channels, M bank rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lib.bank_search import nearest_rows

COSINE_EPS = 1e-6  # of the cosine similarity [released code]
ROWS_PER_BLOCK = 2048  # of a table of logits; more rows are computed again in the backward pass instead of kept


def cosine_distance(prediction: Tensor, observation: Tensor) -> Tensor:
    """Cosine distance of each pair of rows, in [0, 2].

    Args:
        prediction: (..., C) float32.
        observation: (..., C) float32.

    Returns:
        (...) float32, 1 - cos (CFM eq. 3).
    """
    return 1.0 - F.cosine_similarity(prediction, observation, dim=-1, eps=COSINE_EPS)


def unit_distance(prediction: Tensor, observation: Tensor) -> Tensor:
    """Euclidean distance of each pair of rows after both are scaled to unit length, in [0, 2].

    Args:
        prediction: (..., C) float32.
        observation: (..., C) float32.

    Returns:
        (...) float32 (CFM eq. 4). A zero row stays zero.
    """
    return torch.linalg.vector_norm(F.normalize(prediction, dim=-1) - F.normalize(observation, dim=-1), dim=-1)


def crossmodal_contrast(first: Tensor, second: Tensor, temperature: float, softmax: str) -> Tensor:
    """Contrastive loss between two modalities: row i of one belongs to row i of the other (LSFA, LA and GA).

    Args:
        first: (N, C) float32, projected features of one modality.
        second: (N, C) float32, those of the other.
        temperature: divides the inner products.
        softmax: "joint" = one softmax over all N x N pairs, mean over the N positives; its minimum is log N [LSFA, as
            its public summary prints it]. "rows" = cross-entropy of each row and of each column, added and multiplied
            by twice the temperature, as in MoCo v3 [released].

    Returns:
        Scalar.
    """
    positives = (first * second).sum(dim=1) / temperature
    by_row = row_logsumexp(first, second, temperature)
    if softmax == "joint":
        return torch.logsumexp(by_row, dim=0) - positives.mean()
    by_column = row_logsumexp(second, first, temperature)
    return 2 * temperature * (by_row + by_column - 2 * positives).mean()


def row_logsumexp(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """(N,) float32 log of the summed exponentials of each row of `first` against all rows of `second`.

    Args:
        first, second: (N, C) and (M, C) float32.
        temperature: divides the inner products.
    """

    def block(rows: Tensor) -> Tensor:
        return torch.logsumexp(rows @ second.T / temperature, dim=1)

    if len(first) <= ROWS_PER_BLOCK:
        return block(first)
    return torch.cat([checkpoint(block, rows, use_reentrant=False) for rows in first.split(ROWS_PER_BLOCK)])


def compactness(features: Tensor, bank: Tensor) -> Tensor:
    """Euclidean distance of each row to its nearest bank row (LSFA, LC and GC); the bank gets no gradient.

    Args:
        features: (N, C) float32.
        bank: (M, C) float32, M >= 1.

    Returns:
        (N,) float32. The gradient at distance 0 is 0.
    """
    nearest = bank[nearest_rows(features.detach(), bank)].detach()
    return torch.linalg.vector_norm(features - nearest, dim=1)


def effective_rank(features: Tensor) -> float:
    """Exponential of the entropy of the centered rows' singular values, from 1 (a line) to C (Roy & Vetterli 2007).

    Rows that are all equal have rank 0.

    Args:
        features: (N, C) float32, N >= 2.
    """
    rows = features.double()  # float32 sums round, and rows that are all equal would not be their mean
    centered = rows - rows.mean(dim=0)
    values = torch.linalg.eigvalsh(centered.T @ centered).clamp_min(0).sqrt()
    if float(values.sum()) == 0:
        return 0.0
    return float(torch.special.entr(values / values.sum()).sum().exp())
