"""Pixel metrics against the official evaluator, a slow reference, scikit-learn and cases computed by hand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from lib.errors import InputError
from lib.pixel_metrics import (
    AUPRO_LIMITS,
    PROCurve,
    aupro,
    aupro_many,
    label_regions,
    pixel_auroc,
    pixel_average_precision,
    pixel_f1_max,
    pro_curve,
)

CASES = Path(__file__).parent / "cases"


def flood_fill_regions(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """8-connected regions of one mask, by walking from pixel to pixel."""
    unseen, regions = {tuple(pixel) for pixel in np.argwhere(mask).tolist()}, []
    while unseen:
        frontier, region = [unseen.pop()], []
        while frontier:
            row, column = frontier.pop()
            region.append((row, column))
            around = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & unseen
            unseen -= around
            frontier += around
        regions.append(region)
    return regions


def slow_exact_aupro(masks: np.ndarray, maps: np.ndarray, limit: float) -> float:
    """AUPRO by visiting every distinct score, one trapezoid at a time."""
    regions = [
        [maps[image][pixel] for pixel in region]
        for image in range(len(masks))
        for region in flood_fill_regions(masks[image])
    ]
    normal = maps[~masks].tolist()
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        rate = sum(score >= threshold for score in normal) / len(normal)
        shares = [sum(score >= threshold for score in region) / len(region) for region in regions]
        points.append((rate, sum(shares) / len(shares)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 >= limit or x0 == x1:
            continue
        end = min(x1, limit)
        area += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
    return area / limit


def random_case(seed: int, num_scores: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks and maps (3, 7, 11) with many ties; the first image is good."""
    generator = np.random.default_rng(seed)
    masks = generator.random((3, 7, 11)) < 0.25
    masks[0] = False
    return masks, (generator.integers(0, num_scores, masks.shape) + masks).astype(np.float32)


def one_square(score_inside: float, score_outside: float) -> tuple[np.ndarray, np.ndarray]:
    """One good image and one with a 2x3 defect, both of 5x7 pixels."""
    masks = np.zeros((2, 5, 7), dtype=bool)
    masks[1, 1:3, 2:5] = True
    return masks, np.where(masks, score_inside, score_outside).astype(np.float32)


@pytest.mark.parametrize("num_thresholds", [99, 100, 300])
def test_official_evaluator_is_met(num_thresholds):
    case = np.load(CASES / "aupro_case.npz")
    curve = pro_curve(case["gts"], case["maps"], num_thresholds=num_thresholds)
    found = list(aupro_many(curve, case["limits"].tolist()).values())
    np.testing.assert_allclose(found, case[f"aupro_{num_thresholds}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("limit", AUPRO_LIMITS)
def test_official_evaluator_at_every_rank_exceeds_the_exact_value_by_half_a_step(limit):
    case = np.load(CASES / "aupro_case.npz")
    num_normal = int((case["gts"] == 0).sum())
    every_rank, exact = (pro_curve(case["gts"], case["maps"], num) for num in (num_normal, None))
    rate, overlap = every_rank.false_positive_rate, every_rank.per_region_overlap
    # Its trapezoids slant each upright step over the 1 / N before it, and so add half of that rectangle.
    rise = np.interp(limit, rate, overlap) - overlap[rate == 0].max()
    excess = aupro(every_rank, limit) - aupro(exact, limit)
    assert excess == pytest.approx(rise / (2 * num_normal * limit), abs=1e-7)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("num_scores", [2, 5, 200])
def test_exact_aupro_equals_the_slow_reference(seed, num_scores):
    masks, maps = random_case(seed, num_scores)
    curve = pro_curve(masks, maps)
    for limit in (*AUPRO_LIMITS, 1.0):
        assert aupro(curve, limit) == pytest.approx(slow_exact_aupro(masks, maps, limit), abs=1e-12)


def test_regions_are_those_of_a_flood_fill_and_stay_inside_their_image():
    masks = np.random.default_rng(5).random((4, 13, 11)) < 0.3
    regions, num_regions = label_regions(masks)
    walked = [(image, region) for image in range(4) for region in flood_fill_regions(masks[image])]
    assert num_regions == len(walked)
    assert {frozenset((image, *pixel) for pixel in region) for image, region in walked} == {
        frozenset(map(tuple, np.argwhere(regions == region).tolist())) for region in range(1, num_regions + 1)
    }


def test_perfect_map_gets_one():
    assert set(aupro_many(pro_curve(*one_square(1.0, 0.0))).values()) == {1.0}
    assert pixel_auroc(*one_square(1.0, 0.0)) == pixel_f1_max(*one_square(1.0, 0.0)) == 1.0
    assert pixel_average_precision(*one_square(1.0, 0.0)) == 1.0


def test_constant_map_gets_the_diagonal():
    curve = pro_curve(*one_square(0.5, 0.5))
    for limit in AUPRO_LIMITS:
        assert aupro(curve, limit) == pytest.approx(limit / 2)
    assert pixel_auroc(*one_square(0.5, 0.5)) == 0.5
    assert pixel_average_precision(*one_square(0.5, 0.5)) == pytest.approx(6 / 70)


def test_official_evaluator_gives_a_constant_map_zero():
    # Nothing is greater than the constant, yet the rates by rank spread over [0, 1).
    assert set(aupro_many(pro_curve(*one_square(0.5, 0.5), num_thresholds=99)).values()) == {0.0}


def test_inverted_map_gets_zero():
    assert set(aupro_many(pro_curve(*one_square(0.0, 1.0)), (1.0, *AUPRO_LIMITS)).values()) == {0.0}
    assert pixel_auroc(*one_square(0.0, 1.0)) == 0.0


def test_blind_level_of_a_map_that_only_knows_the_object():
    masks, maps = one_square(1.0, 0.0)
    maps[:, :3] = 1.0  # the object: 42 pixels, 6 of them defect
    share = 36 / 64
    assert aupro(pro_curve(masks, maps), 0.3) == pytest.approx(0.3 / (2 * share))
    assert aupro(pro_curve(masks, maps), 0.9) == pytest.approx(1 - share / (2 * 0.9))


def test_one_pixel_defect_by_hand():
    masks, maps = np.zeros((1, 1, 5), dtype=bool), np.array([[[5.0, 4.0, 3.0, 2.0, 1.0]]])
    masks[0, 0, 1] = True
    curve = pro_curve(masks, maps)
    # One normal pixel of four scores higher: PRO jumps from 0 to 1 at a false positive rate of 1/4.
    assert aupro(curve, 0.25) == 0.0
    assert aupro(curve, 0.3) == pytest.approx(0.05 / 0.3)
    assert aupro(curve, 1.0) == pytest.approx(0.75) == pixel_auroc(masks, maps)


def test_tie_of_defect_and_normal_pixel_is_one_diagonal():
    masks, maps = np.zeros((1, 1, 5), dtype=bool), np.array([[[2.0, 2.0, 1.0, 1.0, 1.0]]])
    masks[0, 0, 1] = True
    assert aupro(pro_curve(masks, maps), 0.25) == pytest.approx(0.5)
    assert aupro(pro_curve(masks, maps), 1.0) == pytest.approx(1 - 0.25 / 2)


def test_regions_of_different_size_weigh_the_same():
    masks = np.zeros((1, 7, 11), dtype=bool)
    masks[0, 1:5, 1:6] = True
    masks[0, 5, 9] = True
    for found in ((slice(1, 5), slice(1, 6)), (5, 9)):
        maps = np.zeros(masks.shape)
        maps[0][found] = 1.0
        rest = aupro(pro_curve(masks, maps), 0.1)
        # Half of the overlap at once, the other half along the diagonal of the background.
        assert rest == pytest.approx(0.5 + 0.5 * 0.1 / 2)


def test_diagonal_neighbors_are_one_region_and_images_never_join():
    masks = np.zeros((2, 3, 5), dtype=bool)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[1, 1, 1] = True
    assert label_regions(masks)[1] == 2


def test_99_thresholds_cap_aupro_at_one_percent():
    # Near perfect: only 0.2 % of the normal pixels score above the defects, yet PRO(0) = 0.
    masks = np.zeros((1, 100, 110), dtype=bool)
    masks[0, 3:13, 5:15] = True
    maps = np.linspace(0, 1, masks.size).reshape(masks.shape)
    maps[masks] = np.quantile(maps, 0.998)
    assert aupro(pro_curve(masks, maps, num_thresholds=99), 0.01) == pytest.approx(0.49, abs=0.005)
    assert aupro(pro_curve(masks, maps, num_thresholds=99), 0.3) == pytest.approx(0.983, abs=0.001)
    assert aupro(pro_curve(masks, maps), 0.01) == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize("num_scores", [2, 5, 200])
def test_pixel_metrics_agree_with_scikit_learn(num_scores):
    masks, maps = random_case(11, num_scores)
    labels, scores = masks.ravel(), maps.ravel()
    assert pixel_auroc(masks, maps) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert pixel_average_precision(masks, maps) == pytest.approx(average_precision_score(labels, scores))
    best = max(f1_score(labels, scores >= threshold) for threshold in np.unique(scores))
    assert pixel_f1_max(masks, maps) == pytest.approx(best)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), steps=st.lists(st.floats(0.01, 100.0), min_size=8, max_size=8))
def test_rising_transform_of_the_scores_changes_no_exact_metric(seed, steps):
    masks, maps = random_case(seed, num_scores=7)
    transformed = np.cumsum(steps)[maps.astype(int)]
    before, after = pro_curve(masks, maps), pro_curve(masks, transformed)
    np.testing.assert_array_equal(before.false_positive_rate, after.false_positive_rate)
    np.testing.assert_array_equal(before.per_region_overlap, after.per_region_overlap)
    for metric in (pixel_auroc, pixel_average_precision, pixel_f1_max):
        assert metric(masks, maps) == metric(masks, transformed)


@pytest.mark.parametrize("num_thresholds", [None, 99])
def test_order_of_the_images_does_not_matter(num_thresholds):
    masks, maps = random_case(2, num_scores=50)
    before, after = (pro_curve(masks[order], maps[order], num_thresholds) for order in ([0, 1, 2], [2, 0, 1]))
    assert aupro_many(before) == pytest.approx(aupro_many(after), abs=1e-12)


def test_curve_rises_from_the_origin_to_one_and_one():
    curve = pro_curve(*random_case(4, num_scores=50))
    assert (curve.false_positive_rate[0], curve.per_region_overlap[0]) == (0, 0)
    assert (curve.false_positive_rate[-1], curve.per_region_overlap[-1]) == (1, 1)
    assert (np.diff(curve.false_positive_rate) >= 0).all()
    assert (np.diff(curve.per_region_overlap) >= 0).all()


def test_half_precision_and_integer_maps_are_read_exactly():
    masks, maps = random_case(6, num_scores=50)
    expected = aupro_many(pro_curve(masks, maps))
    for dtype in (np.float16, np.int64, np.uint8, np.float64):
        assert aupro_many(pro_curve(masks.astype(np.uint8) * 255, maps.astype(dtype))) == expected


def test_input_arrays_are_left_as_they_are():
    masks, maps = random_case(6, num_scores=50)
    kept = masks.copy(), maps.copy()
    pro_curve(masks, maps)
    np.testing.assert_array_equal(masks, kept[0])
    np.testing.assert_array_equal(maps, kept[1])


@pytest.mark.parametrize("metric", [pro_curve, pixel_auroc, pixel_average_precision, pixel_f1_max])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda masks, maps: (masks, maps[:1]), "give both as"),
        (lambda masks, maps: (masks[0], maps[0]), "give both as"),
        (lambda masks, maps: (masks & False, maps), "no defect pixel"),
        (lambda masks, maps: (masks | True, maps), "every pixel is a defect"),
        (lambda masks, maps: (masks, np.where(masks, np.nan, maps)), "NaN or inf"),
        (lambda masks, maps: (masks, np.where(masks, np.inf, maps)), "NaN or inf"),
    ],
)
def test_bad_pixel_input_gets_one_clear_line(metric, change, message):
    with pytest.raises(InputError, match=message) as caught:
        metric(*change(*one_square(1.0, 0.0)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.01, np.nan])
def test_limit_outside_its_range_is_an_error(limit):
    with pytest.raises(InputError, match="limit"):
        aupro(PROCurve(np.array([0.0, 1.0]), np.array([0.0, 1.0])), limit)


def test_fewer_than_two_thresholds_is_an_error():
    with pytest.raises(InputError, match="num_thresholds 1"):
        pro_curve(*one_square(1.0, 0.0), num_thresholds=1)
