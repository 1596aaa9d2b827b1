"""Image metrics against scikit-learn and by hand; the nested record of a test set, whole and by defect."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from lib.errors import InputError
from lib.metrics import (
    aupro_many,
    average_precision,
    evaluate,
    evaluate_by_defect,
    f1_max,
    image_auroc,
    pixel_auroc,
    pixel_average_precision,
    pixel_f1_max,
    pro_curve,
)

DEFECTS = np.array(["good"] * 5 + ["hole"] * 3 + ["stain"] * 2)


@pytest.fixture
def test_set() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(3)
    masks = np.zeros((10, 13, 11), dtype=bool)
    masks[5:, 2:5, 3:9] = True
    masks[7:, 9:11, 1:3] = True
    maps = (generator.standard_normal(masks.shape) + masks).astype(np.float32)
    return {"image_scores": maps.max(axis=(1, 2)), "gt_masks": masks, "anomaly_maps": maps}


def test_hand_computed_image_metrics():
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    assert image_auroc(labels, scores) == pytest.approx(3 / 4)
    assert average_precision(labels, scores) == pytest.approx((1 + 2 / 3) / 2)
    assert f1_max(labels, scores) == pytest.approx(0.8)


def test_tie_between_the_classes_counts_half():
    assert image_auroc([0, 1], [0.5, 0.5]) == 0.5
    assert f1_max([0, 1], [0.5, 0.5]) == pytest.approx(2 / 3)


def test_image_metrics_agree_with_direct_use_of_scikit_learn():
    generator = np.random.default_rng(0)
    labels, scores = generator.integers(0, 2, 37), generator.integers(0, 9, 37) / 8
    assert image_auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores))
    best = max(f1_score(labels, scores >= threshold) for threshold in np.unique(scores))
    assert f1_max(labels, scores) == pytest.approx(best)


@pytest.mark.parametrize("metric", [image_auroc, average_precision, f1_max])
@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [0.1, 0.2, 0.3], "one of each per image"),
        ([[0, 1]], [[0.1, 0.2]], "one of each per image"),
        ([0, 0], [0.1, 0.2], "no anomalous image"),
        ([1, 1], [0.1, 0.2], "no good image"),
        ([], [], "no anomalous image"),
        ([0, 2], [0.1, 0.2], "values other than 0 and 1"),
        ([0, 1], [0.1, np.nan], "NaN or inf"),
        ([0, 1], [-np.inf, 0.1], "NaN or inf"),
    ],
)
def test_bad_image_input_gets_one_clear_line(metric, labels, scores, message):
    with pytest.raises(InputError, match=message) as caught:
        metric(np.array(labels), np.array(scores))
    assert "\n" not in str(caught.value)


def test_evaluate_holds_every_metric_under_its_record_name(test_set):
    labels, scores = DEFECTS != "good", test_set["image_scores"]
    pixels = test_set["gt_masks"], test_set["anomaly_maps"]
    assert evaluate(labels, **test_set) == {
        "image_auroc": image_auroc(labels, scores),
        "image_ap": average_precision(labels, scores),
        "image_f1max": f1_max(labels, scores),
        "pixel_auroc": pixel_auroc(*pixels),
        "pixel_ap": pixel_average_precision(*pixels),
        "pixel_f1max": pixel_f1_max(*pixels),
        "aupro": {
            "exact": aupro_many(pro_curve(*pixels)),
            "t99": aupro_many(pro_curve(*pixels, num_thresholds=99)),
        },
    }
    assert list(evaluate(labels, **test_set)["aupro"]["exact"]) == ["0.3", "0.1", "0.05", "0.01"]


def test_by_defect_takes_all_good_images_and_those_of_the_defect(test_set):
    by_defect = evaluate_by_defect(DEFECTS.tolist(), **test_set)
    assert list(by_defect) == ["hole", "stain"]
    rows = [0, 1, 2, 3, 4, 8, 9]
    assert by_defect["stain"] == evaluate(
        [0] * 5 + [1] * 2, **{name: values[rows] for name, values in test_set.items()}
    )


def test_anomalous_image_may_have_lost_its_region_in_the_resize(test_set):
    test_set["gt_masks"][9] = False
    assert 0 < evaluate(DEFECTS != "good", **test_set)["pixel_auroc"] < 1


def test_good_image_with_a_defect_is_an_error(test_set):
    test_set["gt_masks"][2, 0, 0] = True
    with pytest.raises(InputError, match="image 2 is good but has a defect"):
        evaluate(DEFECTS != "good", **test_set)


def test_other_number_of_masks_than_labels_is_an_error(test_set):
    fewer = test_set | {name: test_set[name][1:] for name in ("gt_masks", "anomaly_maps")}
    with pytest.raises(InputError, match="9 masks for 10 labels"):
        evaluate(DEFECTS != "good", **fewer)
    with pytest.raises(InputError, match="one of each per image"):
        evaluate_by_defect(DEFECTS, **fewer)


def test_no_defect_type_is_an_error(test_set):
    with pytest.raises(InputError, match='every image is "good"'):
        evaluate_by_defect(["good"] * 10, **test_set)


def test_pixel_scales_touch_the_pixel_metrics_and_not_aupro() -> None:
    generator = np.random.default_rng(5)
    masks = np.zeros((4, 7, 5), dtype=bool)
    masks[2:, 1:4, 2:] = True
    maps = generator.random(masks.shape) + masks
    labels, scores, scales = np.array([0, 0, 1, 1]), generator.random(4), np.array([1.0, 3.0, 0.5, 1.0])
    plain, scaled = evaluate(labels, scores, masks, maps), evaluate(labels, scores, masks, maps, scales)
    assert scaled["aupro"] == plain["aupro"] and scaled["image_auroc"] == plain["image_auroc"]
    assert scaled["pixel_auroc"] == pytest.approx(roc_auc_score(masks.ravel(), (maps * scales[:, None, None]).ravel()))
    by_defect = evaluate_by_defect(["good", "good", "cut", "cut"], scores, masks, maps, scales)
    assert by_defect["cut"] == scaled


def test_a_defect_type_without_a_pixel_is_left_out_and_told(test_set):
    test_set["gt_masks"][DEFECTS == "stain"] = False
    with pytest.warns(RuntimeWarning, match="no pixel of stain"):
        assert list(evaluate_by_defect(DEFECTS.tolist(), **test_set)) == ["hole"]
