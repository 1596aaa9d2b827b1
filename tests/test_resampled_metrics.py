"""AUROC and AUPRO at image counts: the plain metric at unit counts, else that of duplicated images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lib.errors import InputError
from lib.metrics import image_auroc
from lib.pixel_metrics import AUPRO_LIMITS, aupro, pro_curve
from lib.resampled_metrics import BinnedPRO, PairwiseAUROC


def small_set(shape: tuple[int, int, int] = (7, 11, 13)) -> tuple[np.ndarray, np.ndarray]:
    """Masks and maps with ties; the first three images are good, the others have one or two regions."""
    generator = np.random.default_rng(9)
    masks = np.zeros(shape, dtype=bool)
    for image in range(3, len(masks)):
        row, column = generator.integers(1, 6, 2)
        masks[image, row : row + 3, column : column + 2 + image] = True
    masks[5, -1, -1] = True
    return masks, np.round(generator.standard_normal(shape) + 1.5 * masks, 1).astype(np.float32)


def test_auroc_at_unit_counts_is_the_plain_one():
    generator = np.random.default_rng(1)
    labels, scores = np.arange(17) % 3 == 0, generator.integers(0, 5, 17) / 4
    found = PairwiseAUROC.from_scores(labels, scores).at_counts(np.ones((1, 17), dtype=int))
    assert found[0] == pytest.approx(image_auroc(labels, scores))


def test_auroc_at_counts_is_that_of_duplicated_images():
    generator = np.random.default_rng(2)
    labels, scores = np.arange(17) % 3 == 0, generator.integers(0, 9, 17) / 8
    counts = generator.integers(0, 4, (5, 17))
    found = PairwiseAUROC.from_scores(labels, scores).at_counts(counts)
    expected = [image_auroc(np.repeat(labels, row), np.repeat(scores, row)) for row in counts]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("limit", AUPRO_LIMITS)
def test_binned_aupro_at_unit_counts_is_near_the_exact_one(limit):
    masks, maps = small_set((9, 64, 61))
    maps += np.random.default_rng(3).standard_normal(maps.shape).astype(np.float32)
    found = BinnedPRO.from_maps(masks, maps, limit).at_counts(np.ones((1, 9), dtype=int))
    assert found[0] == pytest.approx(aupro(pro_curve(masks, maps), limit), abs=1e-3)


def test_binned_aupro_keeps_a_wide_tie_among_distinct_scores_as_one_segment():
    masks, _ = small_set((9, 64, 61))
    maps = np.random.default_rng(3).standard_normal(masks.shape) + masks
    maps[(maps > 0) & (maps < 1.2)] = 0.6
    found = BinnedPRO.from_maps(masks, maps, 0.5, num_levels=200).at_counts(np.ones((1, 9), dtype=int))
    assert found[0] == pytest.approx(aupro(pro_curve(masks, maps), 0.5), abs=1e-4)


@pytest.mark.parametrize("limit", [1.0, *AUPRO_LIMITS])
def test_binned_aupro_at_counts_is_that_of_duplicated_images(limit):
    masks, maps = small_set()
    counts = np.random.default_rng(4).integers(0, 4, (6, len(masks)))
    binned = BinnedPRO.from_maps(masks, maps, limit=0.5, num_levels=masks.size)
    found = replace(binned, limit=limit).at_counts(counts)
    duplicated = [np.repeat(np.arange(len(masks)), row) for row in counts]
    expected = [aupro(pro_curve(masks[rows], maps[rows]), limit) for rows in duplicated]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_more_resamples_than_one_block_are_read_in_order():
    masks, maps = small_set()
    binned = BinnedPRO.from_maps(masks, maps, limit=0.3)
    counts = np.random.default_rng(5).integers(1, 4, (301, len(masks)))
    one_by_one = [binned.at_counts(row[None])[0] for row in counts]
    np.testing.assert_allclose(binned.at_counts(counts), one_by_one, atol=1e-12)


def test_resample_without_a_region_is_an_error():
    masks, maps = small_set()
    with pytest.raises(InputError, match="no defect region"):
        BinnedPRO.from_maps(masks, maps, limit=0.3).at_counts(np.array([[1, 1, 1, 0, 0, 0, 0]]))


def test_strata_must_fit_the_images_and_not_mix_the_classes():
    masks, maps = small_set()
    with pytest.raises(InputError, match="one stratum per image"):
        BinnedPRO.from_maps(masks, maps, 0.3, strata=np.arange(3))
    with pytest.raises(InputError, match="one stratum per image"):
        PairwiseAUROC.from_scores([0, 1], [0.1, 0.2], strata=np.arange(3))
    with pytest.raises(InputError, match="hole holds good and anomalous"):
        PairwiseAUROC.from_scores([0, 1], [0.1, 0.2], strata=np.array(["hole", "hole"]))


def test_bad_limit_and_number_of_levels_are_errors():
    masks, maps = small_set()
    with pytest.raises(InputError, match="limit"):
        BinnedPRO.from_maps(masks, maps, limit=0.0).at_counts(np.ones((1, 7), dtype=int))
    with pytest.raises(InputError, match="num_levels"):
        BinnedPRO.from_maps(masks, maps, limit=0.3, num_levels=1)
