"""Pixel AUROC, average precision, F1-max, PRO curves and AUPRO, exact and in the papers' convention.

All of them need only two facts about each distinct score of a defect pixel: how many normal pixels lie above
it and how many lie at or above it. `RankedPixels` gathers these with one plain sort of the normal scores, so all
of them together cost a fraction of one of scikit-learn's, which argsorts every pixel.

Letters: B images, H W pixels, N normal pixels, L distinct scores of defect pixels, V vertices of a curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from einops import rearrange
from scipy import ndimage

from lib.errors import InputError

AUPRO_LIMITS = (0.3, 0.1, 0.05, 0.01)

# 8-connectivity inside an image and none between images, so that one call labels the whole stack.
_IN_IMAGE_NEIGHBORS = np.zeros((3, 3, 3), dtype=bool)
_IN_IMAGE_NEIGHBORS[1] = True


def checked_scores(name: str, scores: np.ndarray) -> np.ndarray:
    """Scores as float32 or wider, of any shape.

    Raises:
        InputError: NaN or inf; the line opens with `name`.
    """
    scores = np.asarray(scores)
    # At least float32: float16 sorts and searches slowly, and the widening is exact.
    scores = scores.astype(np.result_type(scores.dtype, np.float32), copy=False)
    if not np.isfinite(scores).all():
        raise InputError(f"{name}: NaN or inf among the scores; every image and pixel needs a number")
    return scores


def checked_masks_and_maps(gt_masks: np.ndarray, anomaly_maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ground-truth masks (B, H, W) bool and anomaly maps (B, H, W) float, with defect and normal pixels.

    Raises:
        InputError: shapes differ, no defect pixel, no normal pixel, NaN or inf.
    """
    masks, maps = np.asarray(gt_masks) != 0, checked_scores("anomaly_maps", anomaly_maps)
    if masks.ndim != 3 or masks.shape != maps.shape:
        raise InputError(f"gt_masks {masks.shape} and anomaly_maps {maps.shape}: give both as (images, H, W)")
    if not masks.any():
        raise InputError("gt_masks: no defect pixel; pixel metrics need at least one anomalous image")
    if masks.all():
        raise InputError("gt_masks: every pixel is a defect; pixel metrics need at least one normal pixel")
    return masks, maps


def label_regions(gt_masks: np.ndarray) -> tuple[np.ndarray, int]:
    """Defect regions: (B, H, W) int32 with 0 for normal and 1..R per 8-connected region of an image, and R.

    Source: official MVTec evaluator (3x3 structure of ones).
    """
    return ndimage.label(gt_masks, structure=_IN_IMAGE_NEIGHBORS)


@dataclass(frozen=True)
class PROCurve:
    """Per-region overlap against false positive rate, in order of rising rate.

    Attributes:
        false_positive_rate: (V,) float64 in [0, 1], share of normal pixels over the threshold.
        per_region_overlap: (V,) float64 in [0, 1], mean over defect regions of the share over it.
    """

    false_positive_rate: np.ndarray
    per_region_overlap: np.ndarray


@dataclass(frozen=True)
class RankedPixels:
    """Pixels of a test set, ranked: all that the pixel metrics need.

    Attributes:
        normal_scores: (N,) float, ascending.
        level_scores: (L,) float, distinct scores of defect pixels, descending.
        normal_above: (L,) int64, normal pixels scoring > the level.
        normal_at_least: (L,) int64, normal pixels scoring >= the level.
        defect_at_least: (L,) int64, defect pixels scoring >= the level.
        overlap_at_least: (L,) float64, per-region overlap of the pixels scoring >= the level.
    """

    normal_scores: np.ndarray
    level_scores: np.ndarray
    normal_above: np.ndarray
    normal_at_least: np.ndarray
    defect_at_least: np.ndarray
    overlap_at_least: np.ndarray

    @classmethod
    def from_maps(cls, gt_masks: np.ndarray, anomaly_maps: np.ndarray) -> RankedPixels:
        """Ranked pixels of all images pooled, good ones included.

        Args:
            gt_masks: (B, H, W), nonzero = defect.
            anomaly_maps: (B, H, W) float, higher = more anomalous.

        Raises:
            InputError: see `checked_masks_and_maps`.
        """
        masks, maps = checked_masks_and_maps(gt_masks, anomaly_maps)
        normal_scores = np.sort(maps[~masks])
        region_of_pixel = label_regions(masks)[0][masks]
        order = np.argsort(-maps[masks], kind="stable")
        defect_scores = maps[masks][order]
        ends_level = np.append(defect_scores[1:] != defect_scores[:-1], True)
        overlap = np.cumsum(1.0 / np.bincount(region_of_pixel)[region_of_pixel[order]])[ends_level]
        level_scores = defect_scores[ends_level]
        return cls(
            normal_scores=normal_scores,
            level_scores=level_scores,
            normal_above=normal_scores.size - np.searchsorted(normal_scores, level_scores, side="right"),
            normal_at_least=normal_scores.size - np.searchsorted(normal_scores, level_scores, side="left"),
            defect_at_least=np.flatnonzero(ends_level) + 1,
            overlap_at_least=overlap / overlap[-1],
        )

    def auroc(self) -> float:
        """Pixel AUROC: chance that a defect pixel scores above a normal one, ties counting half."""
        defects = np.diff(self.defect_at_least, prepend=0)
        losses = defects @ (self.normal_above + self.normal_at_least) / 2
        return float(1 - losses / (self.normal_scores.size * self.defect_at_least[-1]))

    def average_precision(self) -> float:
        """Pixel average precision; recall moves only at the scores of defect pixels, so they suffice."""
        precision = self.defect_at_least / (self.defect_at_least + self.normal_at_least)
        return float(np.diff(self.defect_at_least, prepend=0) @ precision / self.defect_at_least[-1])

    def f1_max(self) -> float:
        """Pixel F1-max; between two defect scores a lower threshold only adds false positives."""
        flagged = self.defect_at_least + self.normal_at_least
        return float(np.max(2 * self.defect_at_least / (flagged + self.defect_at_least[-1])))

    def pro_curve(self, num_thresholds: int | None = None) -> PROCurve:
        """PRO curve, exact or in the convention of the official evaluator; see `pro_curve`."""
        if num_thresholds is None:
            return self._exact_pro_curve()
        if num_thresholds < 2:
            raise InputError(f"num_thresholds {num_thresholds}: use 2 or more, or None for the exact curve")
        ranks = np.linspace(0, self.normal_scores.size - 1, num=num_thresholds, dtype=int)[::-1]
        levels_above = np.searchsorted(-self.level_scores, -self.normal_scores[ranks], side="left")
        overlap = np.append(0.0, self.overlap_at_least)[levels_above]
        return PROCurve(np.append(1 - (ranks + 1) / self.normal_scores.size, 1.0), np.append(overlap, 1.0))

    def _exact_pro_curve(self) -> PROCurve:
        # Normal pixels at the level's own score join together with its defect pixels: one diagonal segment.
        rate = np.stack([self.normal_above, self.normal_at_least]) / self.normal_scores.size
        overlap = np.stack([np.append(0.0, self.overlap_at_least[:-1]), self.overlap_at_least])
        vertices = (rearrange(side, "side level -> (level side)") for side in (rate, overlap))
        return PROCurve(*(np.concatenate([[0.0], values, [1.0]]) for values in vertices))


def pixel_auroc(gt_masks: np.ndarray, anomaly_maps: np.ndarray) -> float:
    """P-AUROC over the pooled pixels of all images; arguments and errors as in `RankedPixels.from_maps`."""
    return RankedPixels.from_maps(gt_masks, anomaly_maps).auroc()


def pixel_average_precision(gt_masks: np.ndarray, anomaly_maps: np.ndarray) -> float:
    """Pixel average precision over pooled pixels; arguments and errors as in `RankedPixels.from_maps`."""
    return RankedPixels.from_maps(gt_masks, anomaly_maps).average_precision()


def pixel_f1_max(gt_masks: np.ndarray, anomaly_maps: np.ndarray) -> float:
    """Pixel F1-max over pooled pixels; arguments and errors as in `RankedPixels.from_maps`."""
    return RankedPixels.from_maps(gt_masks, anomaly_maps).f1_max()


def pro_curve(gt_masks: np.ndarray, anomaly_maps: np.ndarray, num_thresholds: int | None = None) -> PROCurve:
    """PRO curve over the pooled images; every defect region weighs the same, whatever its size.

    Exact (`num_thresholds=None`): the curve through every distinct score, kept at the scores of defect pixels
    only, because it is level between them. Pixels of one score enter together, as one straight segment.

    With `num_thresholds`: the official MVTec evaluator. Thresholds are normal scores at equally spaced ranks r.
    A pixel is flagged if its score is greater, the false positive rate is 1 - (r + 1) / N (by rank, so ties are
    split), and a point (1, 1) is added. With 99, the step of 1 / 98 makes AUPRO@1% a single trapezoid.
    Ties count against a method here: a map of one constant gets 0, where the exact curve is the diagonal.

    Args:
        gt_masks: (B, H, W), nonzero = defect.
        anomaly_maps: (B, H, W) float, higher = more anomalous.
        num_thresholds: 99 in CFM, 100 in 3D-ADS, M3DM and LSFA; None for the exact curve.

    Raises:
        InputError: see `checked_masks_and_maps`; fewer than 2 thresholds.
    """
    return RankedPixels.from_maps(gt_masks, anomaly_maps).pro_curve(num_thresholds)


def area_up_to(x: np.ndarray, y: np.ndarray, limit: float) -> np.ndarray:
    """Trapezoid area under y(x) from 0 to the limit, interpolated there, along the last axis.

    Args:
        x: (..., V) float64, ascending from 0 to 1.
        y: (..., V) float64.
        limit: in (0, 1].

    Raises:
        InputError: limit outside (0, 1].
    """
    if not 0 < limit <= 1:
        raise InputError(f"limit {limit}: the false positive rate limit must lie in (0, 1], for instance 0.3")
    width, used = np.diff(x), np.diff(np.minimum(x, limit))
    share = np.divide(used, width, out=np.zeros_like(used), where=width > 0)
    return np.sum(used * (y[..., :-1] + share * np.diff(y) / 2), axis=-1)


def aupro(curve: PROCurve, limit: float) -> float:
    """AUPRO@limit: area under the PRO curve up to a false positive rate, divided by it, so that 1 is perfect.

    A map of one constant gets limit / 2. A map that is constant on the object and lower outside sees no
    defect, yet gets the "blind level": with f the object's share of the normal pixels, 1 - f / (2 limit) if
    f <= limit, else limit / (2 f), because the background makes room at the high rates. Print it beside every
    pixel metric.

    Source: official MVTec evaluator (linear interpolation at the limit).

    Raises:
        InputError: limit outside (0, 1].
    """
    return float(area_up_to(curve.false_positive_rate, curve.per_region_overlap, limit) / limit)


def aupro_many(curve: PROCurve, limits: Sequence[float] = AUPRO_LIMITS) -> dict[str, float]:
    """AUPRO at each limit, keyed as in a record ("0.3", "0.1", ...)."""
    return {f"{limit:g}": aupro(curve, limit) for limit in limits}
