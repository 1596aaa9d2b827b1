"""Image AUROC, average precision and F1-max, and all metrics of a test set as a record holds them.

The pixel metrics live in `lib.pixel_metrics` and are offered here too, so that one import serves a notebook.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from lib.errors import InputError
from lib.pixel_metrics import (
    AUPRO_LIMITS,
    PROCurve,
    RankedPixels,
    aupro,
    aupro_many,
    checked_masks_and_maps,
    checked_scores,
    pixel_auroc,
    pixel_average_precision,
    pixel_f1_max,
    pro_curve,
)

__all__ = [
    "AUPRO_LIMITS",
    "CFM_NUM_THRESHOLDS",
    "PROCurve",
    "RankedPixels",
    "aupro",
    "aupro_many",
    "average_precision",
    "checked_labels_and_scores",
    "evaluate",
    "evaluate_by_defect",
    "f1_max",
    "image_auroc",
    "pixel_auroc",
    "pixel_average_precision",
    "pixel_f1_max",
    "pro_curve",
]

CFM_NUM_THRESHOLDS = 99  # CFM, released code; 3D-ADS, M3DM and LSFA use 100
Metrics = dict[str, float | dict[str, dict[str, float]]]


def checked_labels_and_scores(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (B,) bool and scores (B,) float, both classes present.

    Raises:
        InputError: shapes differ, labels other than 0 and 1, a single class, NaN or inf.
    """
    labels, scores = np.asarray(labels), checked_scores("scores", scores)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise InputError(f"labels {labels.shape} and scores {scores.shape}: give one of each per image")
    if not np.isin(labels, (0, 1)).all():
        raise InputError("labels: values other than 0 and 1; use 0 for good and 1 for anomalous")
    labels = labels.astype(bool)
    if labels.all() or not labels.any():
        missing = "good" if labels.size and labels.all() else "anomalous"
        raise InputError(f"labels: no {missing} image; the metric needs both good and anomalous images")
    return labels, scores


def image_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """I-AUROC: chance that an anomalous image scores above a good one, ties counting half.

    Args:
        labels: (B,) 0 good, 1 anomalous.
        scores: (B,) float, higher = more anomalous.

    Raises:
        InputError: see `checked_labels_and_scores`.
    """
    return float(roc_auc_score(*checked_labels_and_scores(labels, scores)))


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Image average precision: the step-wise sum of precision over gains in recall, without interpolation.

    Args and Raises as in `image_auroc`.
    """
    return float(average_precision_score(*checked_labels_and_scores(labels, scores)))


def f1_max(labels: np.ndarray, scores: np.ndarray) -> float:
    """Image F1-max: the best F1 over every distinct score as threshold (>=).

    Args and Raises as in `image_auroc`.
    """
    precision, recall, _ = precision_recall_curve(*checked_labels_and_scores(labels, scores))
    total = precision + recall
    return float(np.max(2 * precision * recall / np.where(total > 0, total, 1)))


def evaluate(
    labels: np.ndarray,
    image_scores: np.ndarray,
    gt_masks: np.ndarray,
    anomaly_maps: np.ndarray,
    pixel_scales: np.ndarray | None = None,
) -> Metrics:
    """All metrics of one test set, nested as in a record.

    An anomalous image may have an empty mask (a defect can vanish in the resize); a good image may not have a
    defect.

    Args:
        labels: (B,) 0 good, 1 anomalous.
        image_scores: (B,) float, higher = more anomalous.
        gt_masks: (B, H, W), nonzero = defect.
        anomaly_maps: (B, H, W) float, higher = more anomalous.
        pixel_scales: (B,) float, factor on each map before pixel AUROC, AP and F1-max only; None = 1. The released
            CFM code rescales each image once for AUPRO and once more for the pixel AUROC.

    Raises:
        InputError: see `checked_labels_and_scores`, `checked_masks_and_maps`; a good image with a defect.
    """
    is_anomalous, image_scores = checked_labels_and_scores(labels, image_scores)
    masks, maps = checked_masks_and_maps(gt_masks, anomaly_maps)
    if len(masks) != len(is_anomalous):
        raise InputError(f"gt_masks: {len(masks)} masks for {len(is_anomalous)} labels; give one per image")
    contradictory = ~is_anomalous & masks.any(axis=(1, 2))
    if contradictory.any():
        raise InputError(f"gt_masks: image {contradictory.argmax()} is good but has a defect; mend mask or label")
    regions = pixels = RankedPixels.from_maps(masks, maps)
    if pixel_scales is not None and (np.asarray(pixel_scales) != 1).any():
        pixels = RankedPixels.from_maps(masks, maps * np.asarray(pixel_scales, dtype=maps.dtype)[:, None, None])
    return {
        "image_auroc": image_auroc(is_anomalous, image_scores),
        "image_ap": average_precision(is_anomalous, image_scores),
        "image_f1max": f1_max(is_anomalous, image_scores),
        "pixel_auroc": pixels.auroc(),
        "pixel_ap": pixels.average_precision(),
        "pixel_f1max": pixels.f1_max(),
        "aupro": {
            "exact": aupro_many(regions.pro_curve()),
            f"t{CFM_NUM_THRESHOLDS}": aupro_many(regions.pro_curve(CFM_NUM_THRESHOLDS)),
        },
    }


def evaluate_by_defect(
    defects: Sequence[str],
    image_scores: np.ndarray,
    gt_masks: np.ndarray,
    anomaly_maps: np.ndarray,
    pixel_scales: np.ndarray | None = None,
) -> dict[str, Metrics]:
    """`evaluate` for each defect type: all good images and the images of that defect.

    A type whose masks are all empty (small defects can vanish in the resize) has no pixel metrics and is left out,
    with a warning.

    Args:
        defects: (B,) "good" or the name of the defect type.
        image_scores: (B,) float, higher = more anomalous.
        gt_masks: (B, H, W), nonzero = defect.
        anomaly_maps: (B, H, W) float, higher = more anomalous.
        pixel_scales: as in `evaluate`.

    Raises:
        InputError: as in `evaluate`; a different number of defects, scores, masks and maps; no defect type.
    """
    defects = np.asarray(defects)
    scales = np.ones(len(defects)) if pixel_scales is None else pixel_scales
    per_image = [np.asarray(values) for values in (image_scores, gt_masks, anomaly_maps, scales)]
    counts = [len(defects), *(len(values) for values in per_image)]
    if len(set(counts)) > 1:
        raise InputError(f"defects, scores, masks and maps: {counts} of them; give one of each per image")
    types = sorted(set(defects.tolist()) - {"good"})
    if not types:
        raise InputError('defects: every image is "good"; metrics by defect need at least one defect type')
    has_defect = per_image[1].reshape(len(defects), -1).any(axis=1)
    rows = {defect: np.isin(defects, ("good", defect)) for defect in types if has_defect[defects == defect].any()}
    if vanished := [defect for defect in types if defect not in rows]:
        warnings.warn(f"no pixel of {', '.join(vanished)} is left in any mask; left out", RuntimeWarning, stacklevel=2)
    return {
        defect: evaluate(defects[kept] != "good", *(values[kept] for values in per_image))
        for defect, kept in rows.items()
    }
