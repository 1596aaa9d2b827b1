"""Operating points against counting, the exact curves, and thresholds by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import auc, roc_auc_score

from lib.errors import InputError
from lib.operating_points import operating_points, roc_vertices, thresholds_up_to
from lib.pixel_metrics import RankedPixels


def tied_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks and maps (3, 7, 11) with many equal scores; the first image is good."""
    generator = np.random.default_rng(seed)
    masks = generator.random((3, 7, 11)) < 0.25
    masks[0] = False
    return masks, (generator.integers(0, 6, masks.shape) + 2 * masks).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_points_are_what_counting_gives(seed: int) -> None:
    masks, maps = tied_case(seed)
    thresholds = np.array([9.0, 4.0, 3.5, 0.0, -1.0])
    found = operating_points(RankedPixels.from_maps(masks, maps), thresholds)
    for place, threshold in enumerate(thresholds):
        flagged = maps > threshold
        overlaps = []
        for mask, seen in zip(masks, flagged, strict=True):
            regions, count = ndimage.label(mask, np.ones((3, 3)))
            overlaps += [seen[regions == region].mean() for region in range(1, count + 1)]
        assert found.normal_flagged[place] == flagged[~masks].sum()
        assert found.defect_flagged[place] == flagged[masks].sum()
        assert found.false_positive_rate[place] == pytest.approx(flagged[~masks].mean())
        assert found.true_positive_rate[place] == pytest.approx(flagged[masks].mean())
        assert found.per_region_overlap[place] == pytest.approx(np.mean(overlaps))
    assert found.thresholds.tolist() == thresholds.tolist()


def distance_to_polyline(x: float, y: float, xs: np.ndarray, ys: np.ndarray) -> float:
    """Distance of a point to the nearest of a curve's straight pieces."""
    along, up = np.diff(xs), np.diff(ys)
    length = along**2 + up**2
    share = np.where(length > 0, ((x - xs[:-1]) * along + (y - ys[:-1]) * up) / np.where(length > 0, length, 1), 0)
    share = np.clip(share, 0, 1)
    return float(np.hypot(xs[:-1] + share * along - x, ys[:-1] + share * up - y).min())


def test_points_lie_on_the_exact_curves() -> None:
    masks, maps = tied_case(7)
    pixels = RankedPixels.from_maps(masks, maps)
    points, pro, roc = operating_points(pixels, np.linspace(-1, 9, 37)), pixels.pro_curve(), roc_vertices(pixels)
    for rate, overlap, recall in zip(
        points.false_positive_rate, points.per_region_overlap, points.true_positive_rate, strict=True
    ):
        assert distance_to_polyline(rate, overlap, pro.false_positive_rate, pro.per_region_overlap) < 1e-12
        assert distance_to_polyline(rate, recall, *roc) < 1e-12


def test_area_under_the_roc_vertices_is_the_auroc() -> None:
    masks, maps = tied_case(1)
    rates = roc_vertices(RankedPixels.from_maps(masks, maps))
    assert auc(*rates) == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    assert rates[0][[0, -1]].tolist() == rates[1][[0, -1]].tolist() == [0, 1]


def test_thresholds_by_hand() -> None:
    maps = np.arange(1.0, 102.0).reshape(1, 1, 101)  # the defect has the highest score; normal pixels 1 to 100
    masks = maps == 101
    pixels = RankedPixels.from_maps(masks, maps)
    thresholds = thresholds_up_to(pixels, 4, 0.36)  # rates 0, 0.04, 0.16 and 0.36 at most
    assert thresholds.tolist() == [100, 96, 84, 64]
    rates = operating_points(pixels, thresholds).false_positive_rate
    assert rates.tolist() == pytest.approx([0, 0.04, 0.16, 0.36])
    assert thresholds_up_to(pixels, 3, 1.0).tolist() == [100, 75, 1]


def test_ties_leave_fewer_thresholds_and_never_pass_the_limit() -> None:
    masks, maps = tied_case(2)
    pixels = RankedPixels.from_maps(masks, maps)
    thresholds = thresholds_up_to(pixels, 50, 0.3)
    assert len(thresholds) < 7 and (np.diff(thresholds) < 0).all()
    rates = operating_points(pixels, thresholds).false_positive_rate
    assert rates[0] == 0 and rates.max() <= 0.3


def test_bad_input_is_one_line() -> None:
    pixels = RankedPixels.from_maps(*tied_case(0))
    with pytest.raises(InputError, match="thresholds: NaN"):
        operating_points(pixels, np.array([0.0, np.nan]))
    with pytest.raises(InputError, match="num_thresholds 1: use 2 or more"):
        thresholds_up_to(pixels, 1, 0.3)
    for limit in (0.0, 1.1):
        with pytest.raises(InputError, match=f"limit {limit}: .* must lie in"):
            thresholds_up_to(pixels, 5, limit)
