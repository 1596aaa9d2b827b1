"""Losses of the two methods, on pairs of feature rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

COSINE_EPS = 1e-6  # of the cosine similarity [released code]


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
