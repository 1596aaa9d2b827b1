"""Image AUROC and AUPRO in a form that a bootstrap can read at thousands of resamples.

A resample is a vector that says how often it holds each image. AUROC is read from the matrix of pairwise
wins, AUPRO from per-image sums at common thresholds; a batch of resamples then costs a matrix product.

Letters: B images, R resamples, T thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lib.errors import InputError
from lib.metrics import checked_labels_and_scores
from lib.pixel_metrics import area_up_to, checked_masks_and_maps, label_regions

_RESAMPLES_PER_BLOCK = 128  # bounds the memory of a (resamples, thresholds) block to a few MB


def _checked_strata(strata: np.ndarray | None, default: np.ndarray) -> np.ndarray:
    strata = default if strata is None else np.asarray(strata)
    if strata.shape != default.shape:
        raise InputError(f"strata {strata.shape} for {default.size} images: give one stratum per image")
    return strata


@dataclass(frozen=True)
class PairwiseAUROC:
    """Image AUROC of one category, ready for resampling: AUROC = w_good^T wins w_anomalous / (sums of w).

    Attributes:
        is_anomalous: (B,) bool.
        wins: (good, anomalous) float64, 1 where the anomalous image scores higher, 0.5 at a tie, else 0.
        strata: (B,) what is exchanged with what.
    """

    is_anomalous: np.ndarray
    wins: np.ndarray
    strata: np.ndarray

    @classmethod
    def from_scores(cls, labels: np.ndarray, scores: np.ndarray, strata: np.ndarray | None = None) -> PairwiseAUROC:
        """Pairwise wins of one category.

        Args:
            labels: (B,) 0 good, 1 anomalous.
            scores: (B,) float, higher = more anomalous.
            strata: (B,) for instance the defect types; None = good / anomalous.

        Raises:
            InputError: see `checked_labels_and_scores`; a stratum with both good and anomalous images.
        """
        is_anomalous, scores = checked_labels_and_scores(labels, scores)
        strata = _checked_strata(strata, default=is_anomalous)
        mixed = np.intersect1d(strata[is_anomalous], strata[~is_anomalous])
        if mixed.size:
            raise InputError(f"strata: {mixed[0]} holds good and anomalous images; use defect types as strata")
        good, anomalous = scores[~is_anomalous, None], scores[None, is_anomalous]
        wins = (anomalous > good) + 0.5 * (anomalous == good)
        return cls(is_anomalous, wins, strata)

    def at_counts(self, image_counts: np.ndarray) -> np.ndarray:
        """Image AUROC (R,) at image counts (R, B)."""
        good, anomalous = image_counts[:, ~self.is_anomalous], image_counts[:, self.is_anomalous]
        num_pairs = good.sum(axis=1) * anomalous.sum(axis=1)
        return np.sum((good @ self.wins) * anomalous, axis=1) / num_pairs


@dataclass(frozen=True)
class BinnedPRO:
    """AUPRO of one category, ready for resampling: per-image sums at common falling thresholds.

    With all counts 1 it agrees with the exact AUPRO to about 1e-5 (exactly, if every normal score is a
    threshold). The last threshold is -inf, so the last column holds the totals. Another limit needs no new
    binning: `dataclasses.replace(binned, limit=...)`.

    Attributes:
        limit: false positive rate at which the area stops, in (0, 1].
        strata: (B,) what is exchanged with what.
        normal_pixels: (B, T) float64, normal pixels of the image over the threshold.
        overlap: (B, T) float64, sum over the image's regions of the share over the threshold.
    """

    limit: float
    strata: np.ndarray
    normal_pixels: np.ndarray
    overlap: np.ndarray

    @classmethod
    def from_maps(
        cls,
        gt_masks: np.ndarray,
        anomaly_maps: np.ndarray,
        limit: float,
        strata: np.ndarray | None = None,
        num_levels: int = 1000,
    ) -> BinnedPRO:
        """Per-image sums of one category.

        Args:
            gt_masks: (B, H, W), nonzero = defect.
            anomaly_maps: (B, H, W) float, higher = more anomalous.
            limit: false positive rate at which the area stops, in (0, 1].
            strata: (B,) for instance the defect types; None = with / without a defect region.
            num_levels: normal scores to cut at, each from both sides so that ties stay one segment.

        Raises:
            InputError: see `checked_masks_and_maps`; strata of another length; fewer than 2 levels.
        """
        masks, maps = checked_masks_and_maps(gt_masks, anomaly_maps)
        has_region = masks.any(axis=(1, 2))
        thresholds = _falling_thresholds(maps[~masks], num_levels)
        normal_pixels = np.stack(
            [_num_above(scores[~mask], thresholds) for scores, mask in zip(maps, masks, strict=True)]
        )
        overlap = np.zeros_like(normal_pixels)
        regions, _ = label_regions(masks)
        for image in np.flatnonzero(has_region):
            for region in np.unique(regions[image][masks[image]]):
                scores = maps[image][regions[image] == region]
                overlap[image] += _num_above(scores, thresholds) / scores.size
        return cls(limit, _checked_strata(strata, default=has_region), normal_pixels, overlap)

    def at_counts(self, image_counts: np.ndarray) -> np.ndarray:
        """AUPRO@limit (R,) at image counts (R, B).

        Raises:
            InputError: limit outside (0, 1]; a resample without a defect region or without a normal pixel.
        """
        num_blocks = -(-len(image_counts) // _RESAMPLES_PER_BLOCK)
        return np.concatenate([self._at_block(block) for block in np.array_split(image_counts, num_blocks)])

    def _at_block(self, image_counts: np.ndarray) -> np.ndarray:
        normal_pixels, overlap = image_counts @ self.normal_pixels, image_counts @ self.overlap
        if not (normal_pixels[:, -1].all() and overlap[:, -1].all()):
            raise InputError("image_counts: a resample has no defect region or normal pixel; widen the strata")
        rate, overlap = normal_pixels / normal_pixels[:, -1:], overlap / overlap[:, -1:]
        return area_up_to(rate, overlap, self.limit) / self.limit


def _falling_thresholds(normal_scores: np.ndarray, num_levels: int) -> np.ndarray:
    """Thresholds (T,) for strict >, falling to -inf, dense near the top where small limits are decided."""
    if num_levels < 2:
        raise InputError(f"num_levels {num_levels}: use 2 or more")
    # Cubic: a fifth of the levels lies below a false positive rate of 1 %.
    ranks = np.linspace(0, 1, num_levels) ** 3 * (normal_scores.size - 1)
    if num_levels >= normal_scores.size:
        ranks = np.arange(normal_scores.size)
    levels = np.sort(normal_scores)[::-1][ranks.astype(int)]
    # Strictly above the next lower number is the same as at or above the level.
    lowest = np.array([-np.inf], dtype=levels.dtype)
    return np.unique(np.concatenate([levels, np.nextafter(levels, lowest), lowest]))[::-1]


def _num_above(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    # Float, so that the products with image counts go through BLAS.
    return (scores.size - np.searchsorted(np.sort(scores), thresholds, side="right")).astype(np.float64)
