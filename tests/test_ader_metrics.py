"""ADer's conventions against loops over thresholds and regions, and against cases computed by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from lib.ader_metrics import (
    SEVEN_METRICS,
    ader_aupro,
    ader_metrics,
    ader_pixel_f1max,
    ader_pro_curve,
    exact_eight,
    mean_anomaly_detection,
    ranked_with_spread,
)
from lib.errors import InputError
from lib.metrics import evaluate
from lib.pixel_metrics import aupro, pixel_f1_max, pro_curve
from lib.tables import flat_metrics


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks and maps (4, 13, 17); the first image is good, defects score higher on average."""
    generator = np.random.default_rng(seed)
    masks = np.zeros((4, 13, 17), dtype=bool)
    for image in masks[1:]:
        row, column = generator.integers(0, 9, 2)
        image[row : row + 3, column : column + 5] = True
        image[12, generator.integers(0, 17)] = True
    return masks, generator.random(masks.shape) + 0.6 * masks * generator.random(masks.shape)


def slow_aupro(masks: np.ndarray, maps: np.ndarray) -> float:
    """One threshold, one image and one region at a time."""
    low, high = maps.min(), maps.max()
    points = []
    for step in range(200):
        flagged = maps > low + step * (high - low) / 200
        overlaps = []
        for mask, found in zip(masks, flagged, strict=True):
            regions, count = ndimage.label(mask, np.ones((3, 3)))
            overlaps += [found[regions == region].mean() for region in range(1, count + 1)]
        rate = flagged[~masks].mean()
        if rate < 0.3:
            points.append((rate, sum(overlaps) / len(overlaps)))
    points.sort()
    first, last = points[0][0], points[-1][0]
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        area += (x1 - x0) / (last - first) * (y0 + y1) / 2
    return area


def slow_f1max(masks: np.ndarray, maps: np.ndarray) -> float:
    """F1 from precision and recall at each of the 21 thresholds."""
    scaled = (maps - maps.min()) / (maps.max() - maps.min())
    best = 0.0
    for threshold in np.arange(0, 1 + 1e-3, 0.05):
        flagged = scaled > threshold
        hits = (flagged & masks).sum()
        if hits:
            precision, recall = hits / flagged.sum(), hits / masks.sum()
            best = max(best, 2 * precision * recall / (precision + recall))
    return best


@pytest.mark.parametrize("seed", range(5))
def test_aupro_and_f1_agree_with_the_loops(seed: int) -> None:
    masks, maps = random_case(seed)
    assert ader_aupro(masks, maps) == pytest.approx(slow_aupro(masks, maps), abs=1e-12)
    assert ader_pixel_f1max(masks, maps) == pytest.approx(slow_f1max(masks, maps), abs=1e-12)


def strip(good: list[float], defect: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """A good image of one row with the scores `good`, and one of the same width with `defect` in its first pixels."""
    maps = np.zeros((2, 1, len(good)))
    maps[0, 0], maps[1, 0, : len(defect)] = good, defect
    masks = np.zeros(maps.shape, dtype=bool)
    masks[1, 0, : len(defect)] = True
    return masks, maps


def test_aupro_by_hand() -> None:
    # 18 normal pixels at 0, one at 50, one at 100 = the highest, two defect pixels at 75 and 25. Thresholds 0, 0.5,
    # ..., 99.5. Rates 2/20 under 50 (overlap 1 under 25, then 1/2) and 1/20 from 50 on (1/2 under 75, then 0).
    masks, maps = strip([0.0] * 9 + [50.0, 100.0], [75.0, 25.0])
    curve = ader_pro_curve(masks, maps)
    assert sorted(set(curve.false_positive_rate.tolist())) == [1 / 20, 2 / 20]
    assert len(curve.false_positive_rate) == 200
    # Stretched, the two rates are 0 and 1; the one segment between them joins overlaps 1/2 and 1/2.
    assert ader_aupro(masks, maps) == pytest.approx(0.5)
    # The exact curve starts at rate 0, reaches 0 until 1/20, 1/2 until 2/20 and then 1, up to 0.3.
    assert aupro(pro_curve(masks, maps), 0.3) == pytest.approx((0.05 * 0.5 + 0.2) / 0.3)


def test_f1_by_hand() -> None:
    # Scaled scores: defects 1.0 and 0.52, good ones 0.51 and 0. Any cut between 0.51 and 0.52 is perfect, but the
    # nearest thresholds are 0.5 (two hits of three flagged) and 0.55 (one hit of two): F1 0.8 and 2/3.
    masks, maps = strip([0.0, 0.51], [1.0, 0.52])
    assert ader_pixel_f1max(masks, maps) == pytest.approx(0.8)
    assert pixel_f1_max(masks, maps) == 1


def test_a_rate_at_the_limit_is_left_out() -> None:
    masks, maps = strip([0.0] * 4 + [1.0, 1.0, 1.0], [1.0, 0.5, 0.0, 0.0])
    # 3 of 10 normal pixels at 1: the rate is exactly 0.3 at every threshold but none is below it.
    assert ader_pro_curve(masks, maps).false_positive_rate.size == 0
    assert math.isnan(ader_aupro(masks, maps))


def test_one_rate_only_has_no_area() -> None:
    masks, maps = strip([0.0] * 9 + [1.0], [1.0, 1.0])
    assert math.isnan(ader_aupro(masks, maps))
    assert math.isnan(ader_metrics(masks, maps)["mAD"])


def test_order_decides_the_exact_values_and_size_decides_aders() -> None:
    masks, maps = random_case(3)
    curved = maps**6
    assert aupro(pro_curve(masks, curved), 0.3) == pytest.approx(aupro(pro_curve(masks, maps), 0.3), abs=1e-12)
    assert abs(ader_aupro(masks, curved) - ader_aupro(masks, maps)) > 0.001
    stretched = 3 * maps + 7  # a change of scale and zero is none to either
    assert ader_aupro(masks, stretched) == pytest.approx(ader_aupro(masks, maps), abs=1e-9)
    masks, maps = strip([0.0, 0.51], [1.0, 0.54])  # cubed, 0.15 lies between the two in the middle
    assert ader_pixel_f1max(masks, maps) == pytest.approx(0.8) and ader_pixel_f1max(masks, maps**3) == 1
    assert pixel_f1_max(masks, maps) == pixel_f1_max(masks, maps**3) == 1


def test_eight_metrics_score_images_by_the_maximum_of_the_map() -> None:
    masks, maps = random_case(11)
    found = ader_metrics(masks, maps)
    labels, scores = [0, 1, 1, 1], [image.max() for image in maps]
    precision, recall, _ = precision_recall_curve(labels, scores)
    assert found["I-AUROC"] == pytest.approx(roc_auc_score(labels, scores))
    assert found["I-AP"] == pytest.approx(average_precision_score(labels, scores))
    assert found["I-F1max"] == pytest.approx(max(2 * precision * recall / (precision + recall + 1e-12)))
    assert found["P-AUROC"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    assert found["P-AP"] == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()))
    assert found["P-F1max"] == ader_pixel_f1max(masks, maps) and found["AUPRO"] == ader_aupro(masks, maps)
    assert found["mAD"] == pytest.approx(sum(found[name] for name in SEVEN_METRICS) / 7)
    assert list(found) == [*SEVEN_METRICS, "mAD"]


def test_our_eight_take_the_exact_values() -> None:
    masks, maps = random_case(2)
    flat = flat_metrics(evaluate(np.array([0, 1, 1, 1]), np.array([0.0, 3.0, 2.0, 1.0]), masks, maps))
    found = exact_eight(flat)
    assert found["AUPRO"] == aupro(pro_curve(masks, maps), 0.3) and found["P-F1max"] == pixel_f1_max(masks, maps)
    assert found["I-AUROC"] == 1


def test_mad_is_a_plain_mean_of_seven_and_names_what_is_missing() -> None:
    seven = dict(zip(SEVEN_METRICS, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7), strict=True))
    assert mean_anomaly_detection({**seven, "mAD": 9.0, "AUPRO@1%": 9.0}) == pytest.approx(0.4)
    del seven["P-AP"]
    with pytest.raises(InputError, match=r"^metrics: P-AP missing; mAD is the mean of I-AUROC"):
        mean_anomaly_detection(seven)


@pytest.mark.parametrize("metric", [ranked_with_spread, ader_aupro, ader_pixel_f1max, ader_metrics])
def test_bad_input_is_one_line(metric) -> None:
    masks, maps = random_case(0)
    with pytest.raises(InputError, match="every pixel has the score 2; ADer's thresholds need two scores or more"):
        metric(masks, np.full(maps.shape, 2.0))
    with pytest.raises(InputError, match="NaN or inf"):
        metric(masks, np.where(masks, np.nan, maps))
    with pytest.raises(InputError, match="no defect pixel"):
        metric(np.zeros_like(masks), maps)
    with pytest.raises(InputError, match=r"gt_masks \(4, 13, 17\) and anomaly_maps \(3, 13, 17\)"):
        metric(masks, maps[1:])


def test_eight_metrics_need_a_good_image() -> None:
    masks, maps = random_case(0)
    with pytest.raises(InputError, match="no good image"):
        ader_metrics(masks[1:], maps[1:])
