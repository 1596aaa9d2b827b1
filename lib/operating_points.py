"""What is flagged at chosen thresholds: the points between which a detector's curves are drawn.

Letters: N normal pixels, L distinct scores of defect pixels, T thresholds, V vertices of a curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from einops import rearrange

from lib.errors import InputError
from lib.pixel_metrics import RankedPixels


@dataclass(frozen=True)
class OperatingPoints:
    """What all images together show at each threshold, a pixel being flagged if its score is greater.

    Attributes:
        thresholds: (T,) float64.
        normal_flagged: (T,) int64, normal pixels over the threshold.
        defect_flagged: (T,) int64, defect pixels over it.
        false_positive_rate: (T,) float64 in [0, 1], share of the normal pixels.
        true_positive_rate: (T,) float64 in [0, 1], share of the defect pixels, all defects pooled.
        per_region_overlap: (T,) float64 in [0, 1], share of a defect region, mean over regions.
    """

    thresholds: np.ndarray
    normal_flagged: np.ndarray
    defect_flagged: np.ndarray
    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    per_region_overlap: np.ndarray


def operating_points(pixels: RankedPixels, thresholds: np.ndarray) -> OperatingPoints:
    """The operating point at each threshold; each lies on the exact PRO and ROC curves.

    Args:
        pixels: ranked pixels of a test set.
        thresholds: (T,) float, in any order.

    Raises:
        InputError: NaN among the thresholds.
    """
    thresholds = np.asarray(thresholds, dtype=np.float64)
    if np.isnan(thresholds).any():
        raise InputError("thresholds: NaN among them; every threshold needs a number")
    normal = pixels.normal_scores.size - np.searchsorted(pixels.normal_scores, thresholds, side="right")
    levels = np.searchsorted(-pixels.level_scores, -thresholds, side="left")
    defect = np.append(0, pixels.defect_at_least)[levels]
    overlap = np.append(0.0, pixels.overlap_at_least)[levels]
    rates = normal / pixels.normal_scores.size, defect / pixels.defect_at_least[-1]
    return OperatingPoints(thresholds, normal, defect, *rates, overlap)


def thresholds_up_to(pixels: RankedPixels, num_thresholds: int, limit: float) -> np.ndarray:
    """At most `num_thresholds` different thresholds (T,), descending, denser where false positives are few.

    The k-th allows a false-positive rate of limit * (k / (number - 1))^2 at most, so that the first flags no normal
    pixel. Ties make some of them equal; these count once.

    Args:
        pixels: ranked pixels of a test set.
        num_thresholds: 2 or more.
        limit: largest false-positive rate, in (0, 1].

    Raises:
        InputError: fewer than 2 thresholds, a limit outside (0, 1].
    """
    if num_thresholds < 2:
        raise InputError(f"num_thresholds {num_thresholds}: use 2 or more, so that there is something to choose from")
    if not 0 < limit <= 1:
        raise InputError(f"limit {limit}: the false positive rate limit must lie in (0, 1], for instance 0.3")
    allowed = limit * np.linspace(0, 1, num_thresholds) ** 2 * pixels.normal_scores.size
    # a whole number of pixels must not be rounded down by the product's last bit
    ranks = np.minimum((allowed + 1e-9).astype(int), pixels.normal_scores.size - 1)
    return np.unique(pixels.normal_scores[::-1][ranks].astype(np.float64))[::-1]


def roc_vertices(pixels: RankedPixels) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of the exact pixel ROC curve: (V,) false- and (V,) true-positive rates from (0, 0) to (1, 1)."""
    normal = np.stack([pixels.normal_above, pixels.normal_at_least]) / pixels.normal_scores.size
    defect = np.stack([np.append(0, pixels.defect_at_least[:-1]), pixels.defect_at_least]) / pixels.defect_at_least[-1]
    rates = (rearrange(side, "side level -> (level side)") for side in (normal, defect))
    return tuple(np.concatenate([[0.0], rate, [1.0]]) for rate in rates)
