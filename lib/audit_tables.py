"""Tables of the audit that are no records: the width of a blur, and what float32 does far from the origin.

Letters: N points, G group centers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.heads.cfm import blur
from lib.methods import Scoring
from lib.neighbors import expanded_weights, interpolation_weights

IMPULSE_SIDE_PX = 129  # far wider than any blur here


def effective_sigma_px(scoring: Scoring) -> float:
    """Standard deviation along one axis, in pixels, of what a scoring's blur makes of a single bright pixel.

    Args:
        scoring: whose `blur` and `blur_sigma_px` count.
    """
    impulse = torch.zeros(IMPULSE_SIDE_PX, IMPULSE_SIDE_PX)
    impulse[IMPULSE_SIDE_PX // 2, IMPULSE_SIDE_PX // 2] = 1
    spread = blur(impulse, scoring).sum(dim=0).double()
    offsets = torch.arange(IMPULSE_SIDE_PX).double() - IMPULSE_SIDE_PX // 2
    return float(((spread * offsets**2).sum() / spread.sum()).sqrt())


def mixture_error(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """How far the expanded square moves each point's mixture of tokens, and whether one of its weights is negative.

    The error is half the sum of absolute differences between both mixtures: 0 = the same, 1 = no token in common. It
    exceeds 1 where rounding makes a squared distance negative, since weights then leave [0, 1].

    Args:
        points: (N, 3) float32, metres.
        centers: (G, 3) float32, metres, G >= 3.

    Returns:
        Errors, (N,) float32, and (N,) bool, True for a point with a negative weight.
    """
    (exact_rows, exact), (rows, weights) = interpolation_weights(points, centers), expanded_weights(points, centers)
    same = exact_rows[:, :, None] == rows[:, None, :]  # (N, 3, 3)
    kept = (weights[:, None, :] * same).sum(dim=2)
    foreign = weights.abs() * ~same.any(dim=1)
    return ((exact - kept).abs().sum(dim=1) + foreign.sum(dim=1)) / 2, (weights < 0).any(dim=1)


def far_from_origin(clouds: Sequence[tuple[np.ndarray, np.ndarray]], moved_m: Sequence[float]) -> pd.DataFrame:
    """What the released code's float32 square does to interpolation, by how far a cloud is moved along the view axis.

    Columns: "distance from the origin, m", of the centers' mean; "median error of the mixture" over points, see
    `mixture_error`; "negative weight" and "other nearest center", shares of the points with a negative weight and with
    another token first.

    Args:
        clouds: points (N, 3) and centers (G, 3) of some samples, float32, metres.
        moved_m: distances to move by, added to the third coordinate in float32.
    """
    rows = {}
    for moved in moved_m:
        away = np.float32([0, 0, moved])
        pairs = [tuple(torch.from_numpy(part + away) for part in pair) for pair in clouds]
        errors, negative = (torch.cat(parts) for parts in zip(*(mixture_error(*pair) for pair in pairs), strict=True))
        nearest = torch.cat([
            interpolation_weights(*pair)[0][:, 0] != expanded_weights(*pair)[0][:, 0] for pair in pairs
        ])  # fmt: skip
        distance = np.mean([float(centers.double().mean(dim=0).norm()) for _, centers in pairs])
        shares = [float(part.float().mean()) for part in (negative, nearest)]
        rows[f"moved by {moved:g} m"] = [distance, float(errors.median()), *shares]
    columns = ["distance from the origin, m", "median error of the mixture", "negative weight", "other nearest center"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)
