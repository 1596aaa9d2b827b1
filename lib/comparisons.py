"""Who is better, and is it more than chance: paired bootstrap over the test images of all categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.bootstrap import BOOTSTRAP, BinnedPRO, BootstrapConfig, Interval, PairwiseAUROC, Resampled, bootstrap_mean
from lib.bootstrap import paired_bootstrap_mean_difference as paired_difference
from lib.errors import InputError
from lib.runtime import seeded_generator

Record = dict[str, Any]


@dataclass(frozen=True)
class SeedMean:
    """A metric averaged over the training seeds of one method, read at the same resamples of test images.

    Attributes:
        parts: one metric a seed, on the same images.
    """

    parts: tuple[Resampled, ...]

    @property
    def strata(self) -> np.ndarray:
        """(B,) what is exchanged with what, the same for every seed."""
        return self.parts[0].strata

    def at_counts(self, image_counts: np.ndarray) -> np.ndarray:
        """Mean over seeds (R,) at image counts (R, B)."""
        return np.mean([part.at_counts(image_counts) for part in self.parts], axis=0)


def auroc_by_category(records: Sequence[Record], defect: str | None = None) -> list[SeedMean]:
    """Image AUROC of one method variant, one entry a category in alphabetical order, ready for the bootstrap.

    Args:
        records: of one method and variant, any number of seeds a category.
        defect: only good images and this defect type; None = all images.

    Raises:
        InputError: no records, or records of several variants.
    """
    if len({(record["key"]["method"], record["key"]["variant"]) for record in records}) != 1:
        raise InputError("records: give records of exactly one method and variant")
    categories = sorted({record["key"]["category"] for record in records})
    return [
        SeedMean(tuple(_pairwise(r, defect) for r in records if r["key"]["category"] == category))
        for category in categories
    ]


def _pairwise(record: Record, defect: str | None) -> PairwiseAUROC:
    images = [entry for entry in record["per_image"] if defect is None or entry["defect"] in ("good", defect)]
    labels, scores, strata = (np.array([entry[name] for entry in images]) for name in ("label", "score", "defect"))
    return PairwiseAUROC.from_scores(labels, scores, strata)


def aupro_by_category(
    gt_masks: Mapping[str, np.ndarray],
    maps: Mapping[str, np.ndarray],
    defects: Mapping[str, Sequence[str]],
    limit: float,
) -> list[BinnedPRO]:
    """AUPRO of one method variant, one entry a category in alphabetical order, ready for the bootstrap.

    Args:
        gt_masks: (B, H, W) bool by category.
        maps: (B, H, W) float anomaly maps by category.
        defects: defect type of each image by category; resampling stays inside each.
        limit: false-positive rate at which the area stops.
    """
    return [BinnedPRO.from_maps(gt_masks[c], maps[c], limit, np.asarray(defects[c])) for c in sorted(maps)]


def mean_interval(categories: Sequence[Resampled], config: BootstrapConfig = BOOTSTRAP) -> Interval:
    """Mean over categories with its bootstrap interval; the resamples are the same at every call."""
    return bootstrap_mean(categories, seeded_generator("bootstrap"), config)


def difference_interval(
    first: Sequence[Resampled], second: Sequence[Resampled], config: BootstrapConfig = BOOTSTRAP
) -> Interval:
    """Mean over categories of first - second on the same images, with its bootstrap interval."""
    return paired_difference(first, second, seeded_generator("bootstrap"), config)


def verdict(interval: Interval) -> str:
    """Word for a difference by its interval: "better", "worse", or "no difference shown" where it holds zero."""
    if interval.low > 0:
        return "better"
    return "worse" if interval.high < 0 else "no difference shown"


def verdict_text(differences: Mapping[str, Interval], names: Sequence[str]) -> str:
    """The verdict on each named difference as one clause: "better than A (+0.012), worse than B (-0.034)"."""
    words = {"better": "better than", "worse": "worse than", "no difference shown": "not shown to differ from"}
    return ", ".join(f"{words[verdict(differences[n])]} {n} ({differences[n].estimate:+.3f})" for n in names)
