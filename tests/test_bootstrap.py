"""Bootstrap intervals: make-up of the resamples, determinism, coverage on simulated data, pairing."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from lib.bootstrap import (
    BinnedPRO,
    BootstrapConfig,
    Interval,
    PairwiseAUROC,
    bootstrap_image_auroc,
    bootstrap_mean,
    paired_bootstrap_difference,
    paired_bootstrap_mean_difference,
    resample_counts,
)
from lib.errors import InputError
from lib.metrics import image_auroc

LABELS = np.repeat([0, 1], [30, 90])
DEFECTS = np.repeat(["good", "hole", "bump", "cut", "stain"], [30, 30, 20, 25, 15])


def scores_of(seed: int, separation: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(LABELS.size) + separation * LABELS


def test_each_stratum_keeps_its_size_in_every_resample():
    counts = resample_counts(DEFECTS, 50, np.random.default_rng(0))
    for defect in np.unique(DEFECTS):
        members = np.isin(DEFECTS, defect)
        assert (counts[:, members].sum(axis=1) == members.sum()).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=6 * 50**-0.5)


def test_same_seed_gives_the_same_interval_and_another_seed_another():
    first, again, other = (
        bootstrap_image_auroc(LABELS, scores_of(1), np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    assert first == again != other
    assert first.low < first.estimate < first.high


def test_estimate_is_the_metric_of_the_test_set():
    interval = bootstrap_image_auroc(LABELS, scores_of(1), np.random.default_rng(0), strata=DEFECTS)
    assert interval.estimate == pytest.approx(image_auroc(LABELS, scores_of(1)))


def test_interval_covers_the_true_auroc_about_as_often_as_it_says():
    truth = NormalDist().cdf(1 / 2**0.5)
    generator, config = np.random.default_rng(7), BootstrapConfig(num_resamples=300, confidence=0.9)
    intervals = [bootstrap_image_auroc(LABELS, scores_of(seed), generator, None, config) for seed in range(200)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.82 < covered < 0.96


def test_finer_strata_narrow_the_interval_when_defects_differ_in_difficulty():
    scores = scores_of(2, separation=0.0) + 3.0 * np.isin(DEFECTS, ["hole", "bump"])
    coarse = bootstrap_image_auroc(LABELS, scores, np.random.default_rng(0))
    fine = bootstrap_image_auroc(LABELS, scores, np.random.default_rng(0), strata=DEFECTS)
    assert fine.high - fine.low < coarse.high - coarse.low


def test_identical_methods_differ_by_exactly_zero():
    scores = scores_of(3)
    interval = paired_bootstrap_difference(LABELS, scores, scores, np.random.default_rng(0), DEFECTS)
    assert interval == Interval(0.0, 0.0, 0.0)


def test_pairing_narrows_the_difference_of_two_similar_methods():
    scores = scores_of(4)
    similar = scores + 0.1 * np.random.default_rng(0).standard_normal(scores.size)
    difference = paired_bootstrap_difference(LABELS, scores, similar, np.random.default_rng(0))
    alone = bootstrap_image_auroc(LABELS, scores, np.random.default_rng(0))
    assert difference.high - difference.low < (alone.high - alone.low) / 2
    assert difference.estimate == pytest.approx(image_auroc(LABELS, scores) - image_auroc(LABELS, similar))


def test_clearly_better_method_has_its_interval_over_zero():
    interval = paired_bootstrap_difference(LABELS, scores_of(5, 3.0), scores_of(6), np.random.default_rng(0))
    assert interval.low > 0


def test_mean_over_categories_is_unweighted_and_narrower_than_one_category():
    categories = [PairwiseAUROC.from_scores(LABELS, scores_of(seed)) for seed in range(4)]
    small = PairwiseAUROC.from_scores([0, 0, 1], [0.0, 1.0, 0.5])
    mean = bootstrap_mean(categories, np.random.default_rng(0))
    one = bootstrap_mean(categories[:1], np.random.default_rng(0))
    assert mean.high - mean.low < 0.7 * (one.high - one.low)
    expected = (image_auroc(LABELS, scores_of(0)) + 0.5) / 2
    assert bootstrap_mean([categories[0], small], np.random.default_rng(0)).estimate == pytest.approx(expected)


def test_mean_difference_of_one_category_is_its_paired_difference():
    first, second = scores_of(8), scores_of(9)
    whole = paired_bootstrap_mean_difference(
        [PairwiseAUROC.from_scores(LABELS, first, DEFECTS)],
        [PairwiseAUROC.from_scores(LABELS, second, DEFECTS)],
        np.random.default_rng(2),
    )
    assert whole == paired_bootstrap_difference(LABELS, first, second, np.random.default_rng(2), DEFECTS)


def test_aupro_goes_through_the_same_bootstrap():
    generator = np.random.default_rng(0)
    masks = np.zeros((9, 17, 19), dtype=bool)
    masks[4:, 3:9, 5:11] = True
    noise = generator.standard_normal(masks.shape)
    better, worse = (BinnedPRO.from_maps(masks, noise + gain * masks, 0.3) for gain in (3.0, 1.0))
    interval = paired_bootstrap_mean_difference([better] * 2, [worse] * 2, generator)
    assert 0 < interval.low < interval.estimate < interval.high < 1
    same = paired_bootstrap_mean_difference([better], [better], generator)
    assert same == Interval(0.0, 0.0, 0.0)


def test_bad_input_gets_one_clear_line():
    category = PairwiseAUROC.from_scores(LABELS, scores_of(0))
    by_defect = PairwiseAUROC.from_scores(LABELS, scores_of(0), DEFECTS)
    generator = np.random.default_rng(0)
    with pytest.raises(InputError, match="none given"):
        bootstrap_mean([], generator)
    with pytest.raises(InputError, match="1 and 2 categories"):
        paired_bootstrap_mean_difference([category], [category] * 2, generator)
    with pytest.raises(InputError, match="strata of category 0 differ"):
        paired_bootstrap_mean_difference([category], [by_defect], generator)
    with pytest.raises(InputError, match="no good image"):
        bootstrap_image_auroc(np.ones(3), np.arange(3), generator)
    for bad in ({"num_resamples": 0}, {"confidence": 1.0}):
        with pytest.raises(InputError, match="at least one resample"):
            BootstrapConfig(**bad)
