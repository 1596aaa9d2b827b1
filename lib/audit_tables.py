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


def wrong_share(points: Tensor, centers: Tensor) -> Tensor:
    """(N,) float32 share of each point's mixture of tokens that the expanded square gives to the wrong tokens.

    Half the sum of absolute differences between both mixtures: 0 = the same, 1 = nothing in common.

    Args:
        points: (N, 3) float32, metres.
        centers: (G, 3) float32, metres, G >= 3.
    """
    (exact_rows, exact), (rows, weights) = interpolation_weights(points, centers), expanded_weights(points, centers)
    same = exact_rows[:, :, None] == rows[:, None, :]  # (N, 3, 3)
    common = torch.minimum(exact[:, :, None], weights[:, None, :]) * same
    return (1 - common.sum(dim=(1, 2))).clamp(min=0)


def far_from_origin(clouds: Sequence[tuple[np.ndarray, np.ndarray]], moved_m: Sequence[float]) -> pd.DataFrame:
    """What the released code's float32 square does to interpolation, by how far a cloud is moved along the view axis.

    Columns: "distance from the origin, m", of the centers' mean; "wrong share", mean over points, see `wrong_share`;
    "other nearest center", the share of points whose heaviest token is another one.

    Args:
        clouds: points (N, 3) and centers (G, 3) of some samples, float32, metres.
        moved_m: distances to move by, added to the third coordinate in float32.
    """
    rows = []
    for moved in moved_m:
        away = np.float32([0, 0, moved])
        pairs = [tuple(torch.from_numpy(part + away) for part in pair) for pair in clouds]
        wrong = torch.cat([wrong_share(*pair) for pair in pairs])
        nearest = torch.cat([
            interpolation_weights(*pair)[0][:, 0] != expanded_weights(*pair)[0][:, 0] for pair in pairs
        ])  # fmt: skip
        distance = np.mean([float(centers.double().mean(dim=0).norm()) for _, centers in pairs])
        rows.append([distance, float(wrong.mean()), float(nearest.float().mean())])
    columns = ["distance from the origin, m", "wrong share", "other nearest center"]
    return pd.DataFrame(rows, columns=columns, index=pd.Index(moved_m, name="moved by, m"))
