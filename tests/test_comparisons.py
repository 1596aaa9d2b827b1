"""Who is better: means over seeds and categories, intervals of differences, and the words for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lib import comparisons
from lib.bootstrap import BootstrapConfig, Interval, PairwiseAUROC
from lib.comparisons import SeedMean, auroc_by_category, difference_interval, mean_interval, verdict, verdict_text
from lib.errors import InputError
from lib.metrics import image_auroc
from lib.pixel_metrics import aupro, pro_curve

DEFECTS = np.repeat(["good", "hole", "stain"], [11, 7, 5])
LABELS = (DEFECTS != "good").astype(int)
QUICK = BootstrapConfig(num_resamples=200)


def made_record(category: str, seed: int, shift: float = 1.0, method: str = "m", variant: str = "v") -> dict[str, Any]:
    """Record with random scores; anomalous images score `shift` higher on average."""
    generator = np.random.default_rng([ord(category), seed])
    scores = generator.standard_normal(LABELS.size) + shift * LABELS
    facts = zip(DEFECTS.tolist(), LABELS.tolist(), scores.tolist(), strict=True)
    return {
        "key": {"profile": "p", "method": method, "category": category, "variant": variant, "seed": seed},
        "per_image": [{"id": "x", "defect": defect, "label": label, "score": score} for defect, label, score in facts],
    }


def record_auroc(record: dict[str, Any], defects: tuple[str, ...] = ("good", "hole", "stain")) -> float:
    images = [image for image in record["per_image"] if image["defect"] in defects]
    return image_auroc(np.array([i["label"] for i in images]), np.array([i["score"] for i in images]))


def test_mean_over_seeds_is_the_mean_of_the_parts_at_every_resample() -> None:
    scores = np.random.default_rng(0).standard_normal((3, LABELS.size))
    parts = tuple(PairwiseAUROC.from_scores(LABELS, row, DEFECTS) for row in scores)
    counts = np.random.default_rng(1).integers(1, 4, size=(13, LABELS.size))
    mean = SeedMean(parts)
    np.testing.assert_allclose(mean.at_counts(counts), sum(part.at_counts(counts) for part in parts) / 3)
    np.testing.assert_array_equal(mean.strata, DEFECTS)


def test_one_entry_a_category_in_alphabetical_order_over_all_its_seeds() -> None:
    records = [made_record(category, seed) for seed in (2, 0, 1) for category in ("b", "a")]
    found = auroc_by_category(records)
    once = np.ones((1, LABELS.size), dtype=int)
    expected = [
        np.mean([record_auroc(record) for record in records if record["key"]["category"] == category])
        for category in ("a", "b")
    ]
    np.testing.assert_allclose([float(entry.at_counts(once)[0]) for entry in found], expected)
    assert mean_interval(found, QUICK).estimate == pytest.approx(np.mean(expected))


def test_one_defect_type_is_compared_with_good_images_only() -> None:
    record = made_record("a", 0)
    (entry,) = auroc_by_category([record], "stain")
    assert set(entry.strata) == {"good", "stain"}
    assert mean_interval([entry], QUICK).estimate == pytest.approx(record_auroc(record, ("good", "stain")))


@pytest.mark.parametrize("other", [{"variant": "w"}, {"method": "n"}, None], ids=["variant", "method", "none"])
def test_mixed_or_no_records_are_refused(other: dict[str, str] | None) -> None:
    records = [] if other is None else [made_record("a", 0), made_record("a", 0, **other)]
    with pytest.raises(InputError, match="exactly one method and variant"):
        auroc_by_category(records)


def test_aupro_of_each_category_in_alphabetical_order() -> None:
    generator = np.random.default_rng(3)
    gt_masks = {name: np.zeros((5, 17, 13), dtype=bool) for name in ("b", "a")}
    for index, masks in enumerate(gt_masks.values()):
        masks[2:, 3 : 7 + index, 4:9] = True
    maps = {name: generator.random(masks.shape) + 0.5 * masks for name, masks in gt_masks.items()}
    defects = {name: ["good", "good", "hole", "stain", "stain"] for name in gt_masks}
    found = comparisons.aupro_by_category(gt_masks, maps, defects, 0.3)
    for name, entry in zip(("a", "b"), found, strict=True):
        expected = aupro(pro_curve(gt_masks[name], maps[name]), 0.3)
        assert mean_interval([entry], QUICK).estimate == pytest.approx(expected, abs=1e-4)
        assert entry.strata.tolist() == defects[name]


def test_intervals_are_the_same_at_every_call() -> None:
    first, second = ([auroc_by_category([made_record("a", s)])[0] for s in pair] for pair in ((0, 1), (2, 3)))
    assert mean_interval(first, QUICK) == mean_interval(first, QUICK)
    assert difference_interval(first, second, QUICK) == difference_interval(first, second, QUICK)


def test_difference_is_paired_and_signed() -> None:
    good, poor = (auroc_by_category([made_record("a", 0, shift)]) for shift in (3.0, 0.0))
    found = difference_interval(good, poor, QUICK)
    assert found.estimate == pytest.approx(mean_interval(good, QUICK).estimate - mean_interval(poor, QUICK).estimate)
    assert 0 < found.low < found.estimate < found.high
    assert difference_interval(good, good, QUICK) == Interval(0.0, 0.0, 0.0)
    mirrored = difference_interval(poor, good, QUICK)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


VERDICTS = [
    ((0.01, 0.03), "better"),
    ((-0.03, -0.01), "worse"),
    ((-0.01, 0.03), "no difference shown"),
    ((0.0, 0.03), "no difference shown"),
    ((-0.03, 0.0), "no difference shown"),
    ((0.0, 0.0), "no difference shown"),
]


@pytest.mark.parametrize(("ends", "word"), VERDICTS)
def test_verdict_is_whether_the_interval_holds_zero(ends: tuple[float, float], word: str) -> None:
    assert verdict(Interval(sum(ends) / 2, *ends)) == word


def test_verdict_text_names_each_in_the_order_asked() -> None:
    found = {"A": Interval(0.0123, 0.01, 0.02), "B": Interval(-0.5, -0.6, -0.4), "C": Interval(0.001, -0.1, 0.1)}
    assert verdict_text(found, ["B", "A", "C"]) == (
        "worse than B (-0.500), better than A (+0.012), not shown to differ from C (+0.001)"
    )
    assert verdict_text(found, ["A"]) == "better than A (+0.012)"
