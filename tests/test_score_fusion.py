"""Fusions of two predictions against their formulas and against scikit-learn itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import SGDOneClassSVM

from lib.errors import InputError
from lib.heads import Prediction, score_fusion
from lib.heads.score_fusion import OneClassFusion, Standardization, average, one_class_weights

PAIR = ("rgb", "xyz")


def drawn_predictions(number: int, scale: float, seed: int, size: tuple[int, int] = (11, 13)) -> list[Prediction]:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(number, *size, generator=generator) * scale
    return [Prediction(anomaly_map, float(anomaly_map.max()) * 1.1) for anomaly_map in maps]


def drawn_foregrounds(number: int, size: tuple[int, int] = (11, 13)) -> list[torch.Tensor]:
    return list(torch.rand(number, *size, generator=torch.Generator().manual_seed(9)) > 0.4)


def test_average_is_the_mean_of_maps_and_of_scores() -> None:
    first, second = Prediction(torch.tensor([[1.0, 2.0]]), 3.0), Prediction(torch.tensor([[5.0, 0.0]]), 4.0)
    found = average(first, second)
    assert found.anomaly_map.tolist() == [[3.0, 1.0]] and found.image_score == 3.5


def test_standardized_validation_samples_have_mean_0_and_deviation_1() -> None:
    predictions, foregrounds = drawn_predictions(5, 7.0, seed=1), drawn_foregrounds(5)
    standardization = Standardization.fit(predictions, foregrounds)
    found = [standardization.apply(prediction) for prediction in predictions]
    scores = np.array([prediction.image_score for prediction in found])
    pixels = torch.cat([p.anomaly_map[inside] for p, inside in zip(found, foregrounds, strict=True)])
    assert scores.mean() == pytest.approx(0, abs=1e-5) and scores.std() == pytest.approx(1, rel=1e-5)
    assert float(pixels.mean()) == pytest.approx(0, abs=1e-5)
    assert float(pixels.std(correction=0)) == pytest.approx(1, rel=1e-5)


def test_standardization_keeps_order_dtype_and_the_background_lowest() -> None:
    predictions, foregrounds = drawn_predictions(3, 2.0, seed=2), drawn_foregrounds(3)
    prediction = Prediction(predictions[0].anomaly_map * foregrounds[0], 1.5)
    found = Standardization.fit(predictions, foregrounds).apply(prediction).anomaly_map
    assert found.dtype == torch.float32
    assert torch.equal(found.flatten().argsort(stable=True), prediction.anomaly_map.flatten().argsort(stable=True))
    assert found[~foregrounds[0]].max() <= found.min()


def test_statistics_leave_the_background_out() -> None:
    predictions, foregrounds = drawn_predictions(3, 2.0, seed=3), drawn_foregrounds(3)
    pairs = zip(predictions, foregrounds, strict=True)
    cut = [Prediction(torch.where(inside, p.anomaly_map, 99.0), p.image_score) for p, inside in pairs]
    assert Standardization.fit(cut, foregrounds) == Standardization.fit(predictions, foregrounds)


def test_a_single_sample_is_divided_by_1() -> None:
    (prediction,), (foreground,) = drawn_predictions(1, 3.0, seed=4), drawn_foregrounds(1)
    standardization = Standardization.fit([prediction], [foreground])
    assert standardization.score_std == 1
    assert standardization.apply(prediction).image_score == pytest.approx(0, abs=1e-6)


def test_standardization_needs_samples() -> None:
    with pytest.raises(InputError, match="validation samples"):
        Standardization.fit([], [])


def test_one_class_weights_give_scikit_learns_scores_of_scaled_columns() -> None:
    generator = np.random.default_rng(5)
    table, queries = generator.gamma(3, size=(47, 2)) * (20, 3), generator.gamma(3, size=(13, 2)) * (20, 3)
    svm = SGDOneClassSVM(nu=0.5, max_iter=1000, random_state=42).fit(np.stack([table[:, 0] * 0.1, table[:, 1]], axis=1))
    expected = svm.score_samples(np.stack([queries[:, 0] * 0.1, queries[:, 1]], axis=1))
    np.testing.assert_allclose(queries @ one_class_weights(table, PAIR), expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_larger_values_are_never_less_anomalous(scale: float) -> None:
    table = np.random.default_rng(6).gamma(2, size=(31, 2)) * scale
    rgb, xyz = one_class_weights(table, PAIR)
    assert rgb > 0 and xyz > 0


def test_all_zeros_are_refused() -> None:
    with pytest.raises(InputError, match="coreset_fraction"):
        one_class_weights(np.zeros((7, 2)), PAIR)


def test_one_class_fusion_fits_scores_and_foreground_pixels_apart() -> None:
    rgb, xyz, foregrounds = drawn_predictions(6, 9.0, 7), drawn_predictions(6, 2.0, 8), drawn_foregrounds(6)
    fusion = OneClassFusion.fit({"rgb": rgb, "xyz": xyz}, foregrounds)
    scores = np.array([[first.image_score, second.image_score] for first, second in zip(rgb, xyz, strict=True)])
    pixels = [
        [float(first.anomaly_map[row, column]), float(second.anomaly_map[row, column])]
        for first, second, inside in zip(rgb, xyz, foregrounds, strict=True)
        for row, column in inside.nonzero()
    ]
    assert fusion.score_weights == one_class_weights(scores, PAIR)
    assert fusion.map_weights == one_class_weights(np.array(pixels), PAIR)
    found = fusion.combine({"rgb": rgb[2], "xyz": xyz[2]})
    assert found.image_score == pytest.approx(float(scores[2] @ fusion.score_weights))
    both = torch.stack([rgb[2].anomaly_map, xyz[2].anomaly_map], dim=2).double()
    expected = both @ torch.tensor(fusion.map_weights, dtype=torch.float64)
    torch.testing.assert_close(found.anomaly_map, expected.float())
    assert found.anomaly_map.dtype == torch.float32


def test_many_pixels_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb, xyz, foregrounds = drawn_predictions(6, 9.0, 7), drawn_predictions(6, 2.0, 8), drawn_foregrounds(6)
    tables = []
    monkeypatch.setattr(score_fusion, "MAX_FUSION_PIXELS", 50)
    monkeypatch.setattr(score_fusion, "one_class_weights", lambda table, names: tables.append(table) or (1.0, 1.0))
    OneClassFusion.fit({"rgb": rgb, "xyz": xyz}, foregrounds)
    pixels = torch.cat([p.anomaly_map[inside] for p, inside in zip(rgb, foregrounds, strict=True)]).numpy()
    step = -(-len(pixels) // 50)
    np.testing.assert_array_equal(tables[1][:, 0], pixels[::step])
    assert 25 < len(tables[1]) <= 50


def test_fusion_is_the_same_each_time() -> None:
    rgb, xyz, foregrounds = drawn_predictions(4, 9.0, 7), drawn_predictions(4, 2.0, 8), drawn_foregrounds(4)
    assert OneClassFusion.fit({"rgb": rgb, "xyz": xyz}, foregrounds) == OneClassFusion.fit(
        {"rgb": rgb, "xyz": xyz}, foregrounds
    )


def test_three_banks_are_fused_as_scikit_learn_fuses_scaled_columns() -> None:
    parts = {name: drawn_predictions(6, 3.0 + seed, seed) for seed, name in enumerate(("rgb", "xyz", "fused"))}
    fusion = OneClassFusion.fit(parts, drawn_foregrounds(6))
    scores = np.array([[p.image_score for p in sample] for sample in zip(*parts.values(), strict=True)])
    svm = SGDOneClassSVM(nu=0.5, max_iter=1000, random_state=42).fit(scores * (0.1, 1.0, 1.0))
    found = [fusion.combine({name: parts[name][row] for name in parts}).image_score for row in range(6)]
    np.testing.assert_allclose(found, svm.score_samples(scores * (0.1, 1.0, 1.0)), rtol=1e-12)


def test_a_divisor_acts_before_the_svm_and_on_what_it_scores() -> None:
    parts = {"rgb": drawn_predictions(6, 900.0, 7), "xyz": drawn_predictions(6, 500.0, 8)}
    divided = OneClassFusion.fit(parts, drawn_foregrounds(6), score_divisor=1000.0)
    scores = np.array([[p.image_score for p in sample] for sample in zip(*parts.values(), strict=True)])
    expected = np.array(one_class_weights(scores / 1000, PAIR)) / 1000
    np.testing.assert_allclose(divided.score_weights, expected, rtol=1e-12)
    assert divided.map_weights == OneClassFusion.fit(parts, drawn_foregrounds(6)).map_weights


def test_states_bring_back_the_same_numbers() -> None:
    parts, foregrounds = (
        {"rgb": drawn_predictions(6, 9.0, 7), "fused": drawn_predictions(6, 2.0, 8)},
        drawn_foregrounds(6),
    )
    fusion, scale = OneClassFusion.fit(parts, foregrounds), Standardization.fit(parts["rgb"], foregrounds)
    assert OneClassFusion.from_state(fusion.state()) == fusion
    assert Standardization.from_state(scale.state()) == scale
