"""Nearest-neighbor and blind baselines and PatchCore against loops and hand-made banks."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from lib.bank_search import nearest_distances
from lib.coreset import greedy_coreset
from lib.errors import InputError
from lib.features import Features
from lib.grids import gaussian_blur
from lib.heads import Prediction
from lib.heads.blind import Blind
from lib.heads.memory_bank import NearestNeighbor, PatchCore, joint_rows
from lib.heads.patch_bank import reweighted
from lib.heads.score_fusion import OneClassFusion, Standardization, average
from lib.methods import PATCHCORE_VARIANTS, BlindConfig, NearestNeighborConfig, PatchCoreConfig
from lib.patches import dense_map, read_patches
from tests.factories import make_features

SMALL = PatchCoreConfig(grid_side=5, coreset_fraction=0.3, blur_sigma_px=1.5)


def test_training_sample_with_the_whole_bank_scores_zero() -> None:
    samples = [make_features(seed=s) for s in range(3)]
    head = NearestNeighbor(NearestNeighborConfig(bank_rows=None, blur_sigma_px=1.0), *dims(samples[0]))
    head.fit(samples, seed=0)
    for prediction in head.predict(samples[1]).values():
        assert prediction.image_score == pytest.approx(0.0, abs=1e-6)
    assert head.predict(make_features(seed=9))["concat"].image_score > 0


def test_modalities_see_only_their_own_columns() -> None:
    samples = [make_features(seed=s) for s in range(3)]
    head = NearestNeighbor(NearestNeighborConfig(bank_rows=None), *dims(samples[0]))
    head.fit(samples, seed=0)
    queries = joint_rows(read_patches(samples[0]))
    widths = [len(range(*cut.indices(head.bank.shape[1]))) for cut in head.parts.values()]
    assert sum(widths) == head.bank.shape[1] == queries.shape[1]
    changed = make_features(seed=0, xyz_offset=3.0)
    before, after = head.predict(samples[0]), head.predict(changed)
    assert torch.equal(before["rgb"].anomaly_map, after["rgb"].anomaly_map)
    assert after["xyz"].image_score > before["xyz"].image_score


def test_late_fusion_is_the_mean_of_the_scaled_maps() -> None:
    samples = [make_features(seed=s) for s in range(4)]
    head = NearestNeighbor(NearestNeighborConfig(bank_rows=29), *dims(samples[0]))
    head.fit(samples[:3], seed=2)
    found = head.predict(samples[3])
    expected = sum(found[name].anomaly_map / head.late_scale[name] for name in ("rgb", "xyz")) / 2
    torch.testing.assert_close(found["late"].anomaly_map, expected)


def test_both_modalities_weigh_alike_in_the_concatenation() -> None:
    sample = make_features(seed=0)
    head = NearestNeighbor(NearestNeighborConfig(bank_rows=1), *dims(sample))
    head.fit([sample], seed=3)
    patch_set = read_patches(sample)
    queries, cells = joint_rows(patch_set), patch_set.cells
    found = nearest_distances(queries, head.bank, head.parts, ("rgb", "xyz", "concat"))
    squares = {name: distances.square() for name, distances in found.items()}
    torch.testing.assert_close(squares["concat"], squares["rgb"] + squares["xyz"])
    (kept,) = squares["concat"].eq(0).nonzero().flatten()
    for name, feature_map in zip(("rgb", "xyz"), sample.on_grid(7)[:2], strict=True):
        rows = feature_map[:, cells].T
        torch.testing.assert_close(squares[name], (rows - rows[kept]).square().sum(dim=1) / rows.shape[1])


def test_map_is_cut_to_the_object_before_the_blur() -> None:
    samples = [make_features(seed=s) for s in range(3)]
    maps = {}
    for sigma_px in (0.1, 2.0):
        head = NearestNeighbor(NearestNeighborConfig(blur_sigma_px=sigma_px), *dims(samples[0]))
        head.fit(samples[:2], seed=0)
        maps[sigma_px] = head.predict(samples[2], ("rgb",))["rgb"].anomaly_map
    assert maps[0.1][~samples[2].foreground].eq(0).all() and maps[0.1][samples[2].foreground].gt(0).all()
    torch.testing.assert_close(maps[2.0], gaussian_blur(maps[0.1], 2.0))
    assert maps[2.0][~samples[2].foreground].max() > 0


def test_late_scale_is_the_mean_distance_from_whole_held_out_samples_to_the_others() -> None:
    samples = [make_features(seed=s) for s in range(10)]
    head = NearestNeighbor(NearestNeighborConfig(bank_rows=5), *dims(samples[0]))
    head.fit(samples, seed=0)
    rows = [joint_rows(read_patches(sample)) for sample in samples]
    held_out, others = torch.cat([rows[0], rows[8]]), torch.cat([*rows[1:8], rows[9]])
    for name, columns in {"rgb": slice(0, 3), "xyz": slice(3, 8)}.items():
        expected = torch.cdist(held_out[:, columns].double(), others[:, columns].double()).min(dim=1).values.mean()
        assert head.late_scale[name] == pytest.approx(float(expected), rel=1e-5)
    assert head.late_scale["rgb"] != pytest.approx(head.late_scale["xyz"], rel=0.01)


def test_late_scale_of_a_single_sample_is_one() -> None:
    sample = make_features(seed=0)
    head = NearestNeighbor(NearestNeighborConfig(), *dims(sample))
    head.fit([sample], seed=0)
    assert head.late_scale == {"rgb": 1.0, "xyz": 1.0}


def test_bank_draw_depends_on_the_seed_alone() -> None:
    samples = [make_features(seed=s) for s in range(3)]
    banks = []
    for seed in (5, 5, 6):
        head = NearestNeighbor(NearestNeighborConfig(bank_rows=11), *dims(samples[0]))
        head.fit(samples, seed=seed)
        banks.append(head.bank)
    assert torch.equal(banks[0], banks[1]) and not torch.equal(banks[0], banks[2])


def test_blind_head_is_the_outline() -> None:
    sample = make_features(seed=0)
    prediction = Blind(BlindConfig(), *dims(sample)).predict(sample)["outline"]
    assert torch.equal(prediction.anomaly_map > 0, sample.foreground) and prediction.image_score == 1.0


@pytest.fixture
def samples() -> list[Features]:
    return [make_features(seed=seed) for seed in range(8)]


def fitted(config: PatchCoreConfig, samples: list[Features], seed: int = 0) -> PatchCore:
    """Head of the first four samples, validated by the next three."""
    head = PatchCore(config, *dims(samples[0]))
    assert head.fit(samples[:4], seed, validation=samples[4:7]) == {}
    return head


def looped_prediction(head: PatchCore, name: str, sample: Features) -> Prediction:
    """One modality's prediction patch by patch in float64; the score by M3DM's formula as it is written."""
    patch_set, bank = read_patches(sample, head.config.grid_side), head.banks[name].double()
    queries, root = getattr(patch_set, name).double(), bank.shape[1] ** 0.5
    table = torch.stack([torch.stack([(query - row).norm() for row in bank]) for query in queries])
    distances, nearest = table.min(dim=1)
    worst = int(distances.argmax())
    around = sorted(range(len(bank)), key=lambda row: float((bank[row] - bank[nearest[worst]]).norm()))
    total = sum(math.exp(table[worst, row] / root) for row in around[1 : head.config.reweight_rows])
    weight = 1 - math.exp(distances[worst] / root) / total
    anomaly_map = dense_map(distances.float(), patch_set, head.config.blur_sigma_px)
    return Prediction(anomaly_map, weight * float(distances[worst]))


@pytest.mark.parametrize("name", ["rgb", "xyz"])
def test_each_bank_is_the_greedy_coreset_of_its_modalitys_patches(samples: list[Features], name: str) -> None:
    rows = torch.cat([getattr(read_patches(sample, 5), name) for sample in samples[:4]])
    bank = fitted(SMALL, samples).banks[name]
    assert len(bank) == int(0.3 * len(rows))
    assert torch.equal(bank, rows[greedy_coreset(rows, len(bank))])  # so few columns are not projected


@pytest.mark.parametrize("reweight_rows", [2, 3, 5])
@pytest.mark.parametrize("name", ["rgb", "xyz"])
def test_single_modality_matches_the_loop(samples: list[Features], name: str, reweight_rows: int) -> None:
    head = fitted(dataclasses.replace(SMALL, reweight_rows=reweight_rows), samples)
    found, expected = head.predict(samples[7], (name,))[name], looped_prediction(head, name, samples[7])
    assert found.image_score == pytest.approx(expected.image_score, rel=1e-5)
    torch.testing.assert_close(found.anomaly_map, expected.anomaly_map, rtol=1e-5, atol=1e-5)


def test_without_re_weighting_the_score_is_the_largest_distance(samples: list[Features]) -> None:
    head = fitted(dataclasses.replace(SMALL, reweight_rows=None), samples)
    queries = read_patches(samples[7], 5).xyz.double()
    expected = float(torch.cdist(queries, head.banks["xyz"].double()).min(dim=1).values.max())
    assert head.predict(samples[7], ("xyz",))["xyz"].image_score == pytest.approx(expected, rel=1e-5)


def test_map_score_is_the_maximum_of_the_blurred_map(samples: list[Features]) -> None:
    head = fitted(dataclasses.replace(SMALL, image_score="map", reweight_rows=None), samples)
    for prediction in head.predict(samples[7], ("rgb", "xyz")).values():
        assert prediction.image_score == float(prediction.anomaly_map.max())


def test_re_weighting_survives_distances_whose_exponential_overflows() -> None:
    bank = torch.tensor([[0.0], [-2.0], [-3.0], [-9.0]])
    found = reweighted(torch.tensor([3000.0]), bank, nearest=0, reweight_rows=3)
    assert found == pytest.approx(3000 * (1 - 1 / (math.exp(2) + math.exp(3))), rel=1e-6)


def test_re_weighting_never_raises_a_score_nor_makes_it_negative() -> None:
    generator = torch.Generator().manual_seed(1)
    for reweight_rows in (2, 3, 7, 99):
        bank, query = torch.randn(19, 3, generator=generator), torch.randn(3, generator=generator)
        distances = (bank - query).norm(dim=1)
        found = reweighted(query, bank, int(distances.argmin()), reweight_rows)
        assert 0 <= found < distances.min()
        assert found >= distances.min() * (1 - 1 / (min(reweight_rows, 19) - 1)) - 1e-6


def test_a_bank_of_one_row_is_not_re_weighted() -> None:
    assert reweighted(torch.tensor([3.0, 4.0]), torch.zeros(1, 2), nearest=0, reweight_rows=3) == 5


def test_plain_average_is_the_mean_of_both(samples: list[Features]) -> None:
    found = fitted(SMALL, samples).predict(samples[7])
    expected = average(found["rgb"], found["xyz"])
    assert found["plain_average"].image_score == expected.image_score
    assert torch.equal(found["plain_average"].anomaly_map, expected.anomaly_map)


def test_average_is_that_of_predictions_standardized_by_validation_samples(samples: list[Features]) -> None:
    head = fitted(SMALL, samples)
    held_out, found = [head.predict(sample, ("rgb", "xyz")) for sample in samples[4:7]], head.predict(samples[7])
    foregrounds = [sample.foreground for sample in samples[4:7]]
    standardized = [
        Standardization.fit([prediction[name] for prediction in held_out], foregrounds).apply(found[name])
        for name in ("rgb", "xyz")
    ]
    expected = average(*standardized)
    assert found["average"].image_score == pytest.approx(expected.image_score, rel=1e-6)
    torch.testing.assert_close(found["average"].anomaly_map, expected.anomaly_map)


def test_average_does_not_heed_the_units_of_a_modality(samples: list[Features]) -> None:
    def scaled(sample: Features) -> Features:
        return dataclasses.replace(sample, xyz_tokens=sample.xyz_tokens * 64)

    config = dataclasses.replace(SMALL, image_score="map", reweight_rows=None)
    before, after = fitted(config, samples), fitted(config, [scaled(sample) for sample in samples])
    variants = ("average", "plain_average")
    found, other = before.predict(samples[7], variants), after.predict(scaled(samples[7]), variants)
    torch.testing.assert_close(found["average"].anomaly_map, other["average"].anomaly_map, rtol=1e-4, atol=1e-4)
    assert found["average"].image_score == pytest.approx(other["average"].image_score, rel=1e-4)
    assert other["plain_average"].image_score > 10 * found["plain_average"].image_score


def test_average_needs_validation_samples_and_the_others_do_not(samples: list[Features]) -> None:
    head = PatchCore(SMALL, *dims(samples[0]))
    head.fit(samples[:4], seed=0)
    assert set(head.predict(samples[7], ("rgb", "xyz", "plain_average", "svm"))) == {
        "rgb",
        "xyz",
        "plain_average",
        "svm",
    }
    with pytest.raises(InputError, match="validation samples"):
        head.predict(samples[7], ("average",))


def test_svm_is_fitted_on_training_samples_scored_against_their_own_bank(samples: list[Features]) -> None:
    head = fitted(SMALL, samples)
    train = [head.predict(sample, ("rgb", "xyz")) for sample in samples[:4]]
    parts = {name: [prediction[name] for prediction in train] for name in ("rgb", "xyz")}
    fusion = OneClassFusion.fit(parts, [s.foreground for s in samples[:4]])
    found = head.predict(samples[7])
    expected = fusion.combine(found)
    assert found["svm"].image_score == expected.image_score
    assert torch.equal(found["svm"].anomaly_map, expected.anomaly_map)


def test_another_fit_forgets_the_svm_and_the_scales(samples: list[Features]) -> None:
    head = fitted(SMALL, samples)
    head.predict(samples[7])
    head.fit(samples[3:6], seed=0, validation=samples[:2])
    other = PatchCore(SMALL, *dims(samples[0]))
    other.fit(samples[3:6], seed=0, validation=samples[:2])
    assert scores(head, samples[7]) == scores(other, samples[7])


def scores(head: PatchCore, sample: Features) -> dict[str, float]:
    return {name: prediction.image_score for name, prediction in head.predict(sample).items()}


def test_a_bank_of_all_patches_knows_its_samples_and_has_no_svm(samples: list[Features]) -> None:
    head = fitted(dataclasses.replace(SMALL, coreset_fraction=1.0), samples)
    rows = torch.cat([read_patches(sample, 5).rgb for sample in samples[:4]])
    assert torch.equal(head.banks["rgb"], rows)
    assert head.predict(samples[2], ("rgb",))["rgb"].image_score == 0
    assert head.predict(samples[7], ("rgb",))["rgb"].image_score > 0
    with pytest.raises(InputError, match="coreset_fraction"):
        head.predict(samples[7], ("svm",))


def test_a_tiny_fraction_keeps_one_row(samples: list[Features]) -> None:
    head = fitted(dataclasses.replace(SMALL, coreset_fraction=1e-6), samples)
    assert {len(bank) for bank in head.banks.values()} == {1}
    assert all(np.isfinite(value) for value in scores(head, samples[7]).values())


def test_the_grid_is_the_tokens_own_unless_a_side_is_given(samples: list[Features]) -> None:
    own = fitted(dataclasses.replace(SMALL, grid_side=None), samples)
    assert scores(own, samples[7]) == scores(fitted(dataclasses.replace(SMALL, grid_side=7), samples), samples[7])
    assert scores(own, samples[7]) != scores(fitted(SMALL, samples), samples[7])


def test_a_seed_draws_the_projection_and_nothing_else(samples: list[Features]) -> None:
    assert scores(fitted(SMALL, samples, seed=1), samples[7]) == scores(fitted(SMALL, samples, seed=2), samples[7])
    mixing = torch.randn(3, 400, generator=torch.Generator().manual_seed(0))
    wide = [
        dataclasses.replace(sample, rgb_tokens=torch.einsum("chw,cd->dhw", sample.rgb_tokens, mixing).tanh())
        for sample in samples
    ]
    banks = [fitted(SMALL, wide, seed).banks["rgb"] for seed in (1, 1, 2)]
    assert torch.equal(banks[0], banks[1]) and not torch.equal(banks[0], banks[2])
    everything = torch.cat([read_patches(sample, 5).rgb for sample in wide[:4]])
    assert (banks[2][:, None] == everything).all(dim=2).any(dim=1).all()  # rows before the projection
    unprojected = fitted(dataclasses.replace(SMALL, projection_eps=None), wide).banks["rgb"]
    assert torch.equal(unprojected, everything[greedy_coreset(everything, len(unprojected))])


def test_patches_read_beforehand_give_the_same(samples: list[Features]) -> None:
    head = PatchCore(SMALL, *dims(samples[0]))
    read = [read_patches(sample, 5) for sample in samples]
    head.fit_patches(read[:4], seed=0, validation=read[4:7])
    expected = fitted(SMALL, samples).predict(samples[7])
    for name, prediction in head.predict_patches(read[7], PATCHCORE_VARIANTS).items():
        assert torch.equal(prediction.anomaly_map, expected[name].anomaly_map)
        assert prediction.image_score == expected[name].image_score


def test_each_variant_is_the_same_alone_and_among_others(samples: list[Features]) -> None:
    head = fitted(SMALL, samples)
    together = head.predict(samples[7])
    assert tuple(together) == PATCHCORE_VARIANTS == PatchCore.variants
    for name in PATCHCORE_VARIANTS:
        (alone,) = head.predict(samples[7], (name,)).values()
        assert torch.equal(alone.anomaly_map, together[name].anomaly_map)
        assert alone.image_score == together[name].image_score
        assert isinstance(alone.image_score, float) and alone.anomaly_map.dtype == torch.float32


def test_a_defect_that_rgb_does_not_show_raises_all_but_the_rgb_score(samples: list[Features]) -> None:
    head = fitted(SMALL, samples)
    before, after = head.predict(samples[7]), head.predict(make_features(seed=7, xyz_offset=3.0))
    assert torch.equal(before["rgb"].anomaly_map, after["rgb"].anomaly_map)
    for name in ("xyz", "average", "plain_average", "svm"):
        assert after[name].image_score > before[name].image_score
        assert after[name].anomaly_map.max() > before[name].anomaly_map.max()


def test_an_unknown_variant_is_refused(samples: list[Features]) -> None:
    with pytest.raises(InputError, match="late"):
        fitted(SMALL, samples).predict(samples[7], ("late",))


def test_re_weighting_by_the_nearest_row_alone_is_refused() -> None:
    with pytest.raises(InputError, match="give 2 or more"):
        PatchCoreConfig(reweight_rows=1)


def dims(sample: Features) -> tuple[int, int]:
    return sample.rgb_tokens.shape[0], sample.xyz_tokens.shape[1]
