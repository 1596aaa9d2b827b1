"""Percentile bootstrap intervals over test images, of one method or of the paired difference of two.

Images are the unit of resampling, drawn with replacement inside each stratum (good / anomalous, or each
defect type), so every resample keeps the make-up of the test set. The intervals hold the trained model fixed:
they say how far a number could move with other test images, not with another training seed.

Letters: B images, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lib.errors import InputError
from lib.resampled_metrics import BinnedPRO, PairwiseAUROC

__all__ = [
    "BOOTSTRAP",
    "BinnedPRO",
    "BootstrapConfig",
    "Interval",
    "PairwiseAUROC",
    "Resampled",
    "bootstrap_image_auroc",
    "bootstrap_mean",
    "paired_bootstrap_difference",
    "paired_bootstrap_mean_difference",
    "resample_counts",
]


@dataclass(frozen=True)
class BootstrapConfig:
    """Settings of the percentile bootstrap (ours; the papers give no intervals).

    Attributes:
        num_resamples: resamples drawn.
        confidence: coverage asked of the interval, in (0, 1).
    """

    num_resamples: int = 2000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Reject settings that give no interval."""
        if self.num_resamples < 1 or not 0 < self.confidence < 1:
            raise InputError(f"{self}: use at least one resample and a confidence inside (0, 1)")


BOOTSTRAP = BootstrapConfig()


@dataclass(frozen=True)
class Interval:
    """A metric on the test set as it is, and the percentile interval of its resamples."""

    estimate: float
    low: float
    high: float


class Resampled(Protocol):
    """A metric of one category that can be read at any image counts."""

    strata: np.ndarray

    def at_counts(self, image_counts: np.ndarray) -> np.ndarray:
        """Metric (R,) of test sets that hold image b image_counts[r, b] times."""
        ...


def resample_counts(strata: np.ndarray, num_resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Image counts (R, B) int64 of resamples drawn with replacement inside each stratum.

    Args:
        strata: (B,) any sortable values; images of one value are exchanged with each other only.
        num_resamples: R.
        generator: source of all randomness.
    """
    counts = np.zeros((num_resamples, len(strata)), dtype=np.int64)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        counts[:, members] = generator.multinomial(
            members.size, np.full(members.size, 1 / members.size), size=num_resamples
        )
    return counts


def bootstrap_mean(
    categories: Sequence[Resampled], generator: np.random.Generator, config: BootstrapConfig = BOOTSTRAP
) -> Interval:
    """Interval of the unweighted mean over categories, images resampled inside each.

    Args:
        categories: one `PairwiseAUROC` or `BinnedPRO` per category.
        generator: source of all randomness.
        config: number of resamples and confidence.
    """
    return _interval_of_mean([(c.strata, c.at_counts) for c in categories], generator, config)


def paired_bootstrap_mean_difference(
    first: Sequence[Resampled],
    second: Sequence[Resampled],
    generator: np.random.Generator,
    config: BootstrapConfig = BOOTSTRAP,
) -> Interval:
    """Interval of first - second, mean over categories, both methods read at the same resamples.

    Args:
        first: one `PairwiseAUROC` or `BinnedPRO` per category.
        second: the same categories and images in the same order.
        generator: source of all randomness.
        config: number of resamples and confidence.

    Raises:
        InputError: the two sides differ in the number of categories or in their strata.
    """
    if len(first) != len(second):
        raise InputError(f"first and second: {len(first)} and {len(second)} categories; give the same ones")
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        if not np.array_equal(one.strata, other.strata):
            raise InputError(f"first and second: strata of category {index} differ; give the same images")

    def difference(one: Resampled, other: Resampled) -> Callable[[np.ndarray], np.ndarray]:
        return lambda counts: one.at_counts(counts) - other.at_counts(counts)

    pairs = [(one.strata, difference(one, other)) for one, other in zip(first, second, strict=True)]
    return _interval_of_mean(pairs, generator, config)


def _interval_of_mean(
    categories: Sequence[tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]],
    generator: np.random.Generator,
    config: BootstrapConfig,
) -> Interval:
    if not categories:
        raise InputError("categories: none given; a bootstrap mean needs at least one")
    as_it_is, resampled = [], []
    for strata, at_counts in categories:
        as_it_is.append(at_counts(np.ones((1, len(strata)), dtype=np.int64))[0])
        resampled.append(at_counts(resample_counts(strata, config.num_resamples, generator)))
    tail = (1 - config.confidence) / 2
    low, high = np.quantile(np.mean(resampled, axis=0), [tail, 1 - tail])
    return Interval(float(np.mean(as_it_is)), float(low), float(high))


def bootstrap_image_auroc(
    labels: np.ndarray,
    scores: np.ndarray,
    generator: np.random.Generator,
    strata: np.ndarray | None = None,
    config: BootstrapConfig = BOOTSTRAP,
) -> Interval:
    """Interval of one category's image AUROC.

    Arguments as in `PairwiseAUROC.from_scores` and `bootstrap_mean`.
    """
    return bootstrap_mean([PairwiseAUROC.from_scores(labels, scores, strata)], generator, config)


def paired_bootstrap_difference(
    labels: np.ndarray,
    first_scores: np.ndarray,
    second_scores: np.ndarray,
    generator: np.random.Generator,
    strata: np.ndarray | None = None,
    config: BootstrapConfig = BOOTSTRAP,
) -> Interval:
    """Interval of one category's image AUROC of the first method minus that of the second.

    Arguments as in `PairwiseAUROC.from_scores` and `paired_bootstrap_mean_difference`.
    """
    first = PairwiseAUROC.from_scores(labels, first_scores, strata)
    second = PairwiseAUROC.from_scores(labels, second_scores, strata)
    return paired_bootstrap_mean_difference([first], [second], generator, config)
