"""The eight metrics of multi-class anomaly detection in the conventions of ADer, the code that ViTAD reports with.

Image AUROC, average precision (AP) and F1-max from the maximum of each map; pixel AUROC and AP over pooled pixels,
as elsewhere; pixel F1-max and AUPRO at thresholds that are equally spaced between the lowest and the highest score;
and mAD, the mean of these seven. Source: ADer, released code, `util/metric.py`.

AUROC and AP look at the order of the scores alone. ADer's pixel F1-max and AUPRO look at their size too: squaring a
map changes them. So they must never share a column with those of `lib.pixel_metrics`.

Letters: B images, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lib.errors import InputError
from lib.metrics import average_precision, f1_max, image_auroc
from lib.operating_points import operating_points
from lib.pixel_metrics import PROCurve, RankedPixels, area_up_to

ADER_AUPRO_THRESHOLDS = 200
ADER_AUPRO_LIMIT = 0.3
ADER_F1_THRESHOLDS = 21
SEVEN_METRICS = ("I-AUROC", "I-AP", "I-F1max", "P-AUROC", "P-AP", "P-F1max", "AUPRO")


def ranked_with_spread(gt_masks: np.ndarray, anomaly_maps: np.ndarray) -> RankedPixels:
    """Ranked pixels of a category, whose scores are not all the same.

    Args:
        gt_masks: (B, H, W), nonzero = defect.
        anomaly_maps: (B, H, W) float, higher = more anomalous.

    Raises:
        InputError: see `lib.pixel_metrics.checked_masks_and_maps`; every pixel has the same score.
    """
    pixels = RankedPixels.from_maps(gt_masks, anomaly_maps)
    low, high = score_range(pixels)
    if low == high:
        raise InputError(f"anomaly_maps: every pixel has the score {low:g}; ADer's thresholds need two scores or more")
    return pixels


def score_range(pixels: RankedPixels) -> tuple[float, float]:
    """Lowest and highest score of all pixels, normal ones and defects."""
    low = min(pixels.normal_scores[0], pixels.level_scores[-1])
    high = max(pixels.normal_scores[-1], pixels.level_scores[0])
    return float(low), float(high)


def ader_pro_curve(gt_masks: np.ndarray, anomaly_maps: np.ndarray) -> PROCurve:
    """The points of the PRO curve that ADer computes and keeps, before it stretches the rates.

    200 thresholds lie equally spaced from the lowest score, which is one of them, to the highest, which is not. Points
    with a false-positive rate of 0.3 or more are dropped; nothing is added at either end.

    Args and Raises: as `ranked_with_spread`.
    """
    return _kept_points(ranked_with_spread(gt_masks, anomaly_maps))


def _kept_points(pixels: RankedPixels) -> PROCurve:
    low, high = score_range(pixels)
    # Multiples of one step, in float64: the original adds up its steps, and may gain a 201st by rounding.
    steps = np.arange(ADER_AUPRO_THRESHOLDS)[::-1] / ADER_AUPRO_THRESHOLDS
    points = operating_points(pixels, low + (high - low) * steps)
    kept = points.false_positive_rate < ADER_AUPRO_LIMIT
    return PROCurve(points.false_positive_rate[kept], points.per_region_overlap[kept])


def ader_aupro(gt_masks: np.ndarray, anomaly_maps: np.ndarray) -> float:
    """ADer's AUPRO: the area under the kept points, their false-positive rates stretched to reach from 0 to 1.

    NaN where the kept points share one rate, or none is kept: the original divides by zero there, or stops. A map of
    two values, such as the blind detector's, is such a case.

    Args and Raises: as `ranked_with_spread`.
    """
    return _stretched_area(ader_pro_curve(gt_masks, anomaly_maps))


def _stretched_area(curve: PROCurve) -> float:
    rate = curve.false_positive_rate
    if rate.size == 0 or rate[0] == rate[-1]:
        return float("nan")
    return float(area_up_to((rate - rate[0]) / (rate[-1] - rate[0]), curve.per_region_overlap, 1.0))


def ader_pixel_f1max(gt_masks: np.ndarray, anomaly_maps: np.ndarray) -> float:
    """ADer's pixel F1-max: the best F1 at 0, 0.05, ..., 1 on maps scaled to [0, 1] over the whole category.

    Args and Raises: as `ranked_with_spread`.
    """
    return _f1_at_21(ranked_with_spread(gt_masks, anomaly_maps))


def _f1_at_21(pixels: RankedPixels) -> float:
    low, high = score_range(pixels)
    points = operating_points(pixels, low + (high - low) * np.linspace(0, 1, ADER_F1_THRESHOLDS))
    flagged = points.normal_flagged + points.defect_flagged
    return float(np.max(2 * points.defect_flagged / (flagged + pixels.defect_at_least[-1])))


def mean_anomaly_detection(metrics: Mapping[str, float]) -> float:
    """mAD: the plain mean of the seven metrics.

    Args:
        metrics: at least `SEVEN_METRICS`; others are left out.

    Raises:
        InputError: one of the seven is missing.
    """
    if missing := [name for name in SEVEN_METRICS if name not in metrics]:
        raise InputError(f"metrics: {', '.join(missing)} missing; mAD is the mean of {', '.join(SEVEN_METRICS)}")
    return float(np.mean([metrics[name] for name in SEVEN_METRICS]))


def ader_metrics(gt_masks: np.ndarray, anomaly_maps: np.ndarray) -> dict[str, float]:
    """ADer's eight metrics of one category, by name: `SEVEN_METRICS` and "mAD".

    An image's score is the maximum of its map, and it is anomalous if its mask has a defect pixel.

    Args and Raises: as `ranked_with_spread`; no good image among the masks.
    """
    pixels = ranked_with_spread(gt_masks, anomaly_maps)
    labels, scores = (np.asarray(values).max(axis=(1, 2)) for values in (gt_masks, anomaly_maps))
    of_images = [metric(labels != 0, scores) for metric in (image_auroc, average_precision, f1_max)]
    of_pixels = [pixels.auroc(), pixels.average_precision(), _f1_at_21(pixels), _stretched_area(_kept_points(pixels))]
    seven = dict(zip(SEVEN_METRICS, of_images + of_pixels, strict=True))
    return {**seven, "mAD": mean_anomaly_detection(seven)}


def exact_eight(metrics: Mapping[str, float]) -> dict[str, float]:
    """The same eight names filled from our exact metrics, AUPRO being the exact one at 30 %.

    Args:
        metrics: by the names of `lib.tables.flat_metrics`.
    """
    seven = {name: metrics["AUPRO@30%" if name == "AUPRO" else name] for name in SEVEN_METRICS}
    return {**seven, "mAD": mean_anomaly_detection(seven)}
