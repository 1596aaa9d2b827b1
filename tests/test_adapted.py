"""Other heads on adapted features, and CFM fused with memory banks: each is what its parts are alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lib.errors import InputError
from lib.features import Features, Standardizer
from lib.heads import build_head
from lib.heads.adapted import AdaptedHead, FusedHead
from lib.heads.cfm import CFM
from lib.heads.lsfa import fit_adaptors
from lib.methods import (
    CFM_VARIANTS,
    FUSION_VARIANTS,
    MODALITIES,
    AdaptedConfig,
    CFMConfig,
    FusionConfig,
    LSFAConfig,
    NearestNeighborConfig,
    PatchCoreConfig,
)
from lib.patches import read_patches, to_features
from tests.factories import make_features
from tests.test_lsfa import RGB_DIM, XYZ_DIM, normal, same

ADAPTORS = LSFAConfig(
    grid_side=7, num_heads=1, projection_dim=4, local_bank_rows=50, global_bank_rows=3, num_epochs=2, batch_size=2
)
BANKS = PatchCoreConfig(grid_side=7, coreset_fraction=0.3, blur_sigma_px=1.0)
HELD_OUT = (10, 11, 12)
INNER = [CFMConfig(hidden_dim=4, num_epochs=2, batch_size=2), NearestNeighborConfig(bank_rows=40, blur_sigma_px=1.0)]


def fitted(
    inner: Any, adaptors: LSFAConfig | None, seed: int = 0, std_floor: float | None = None
) -> tuple[AdaptedHead, dict[str, list[float]]]:
    head = AdaptedHead(AdaptedConfig(inner, adaptors, 7, std_floor), RGB_DIM, XYZ_DIM)
    return head, head.fit(normal(range(4)), seed)


@pytest.mark.parametrize("std_floor", [None, 1.2])
@pytest.mark.parametrize("adaptors", [None, ADAPTORS], ids=["frozen", "adapted"])
@pytest.mark.parametrize("inner", INNER, ids=["cfm", "nearest"])
def test_is_the_inner_head_on_standardized_cells(
    inner: Any, adaptors: LSFAConfig | None, std_floor: float | None
) -> None:
    head, history = fitted(inner, adaptors, 3, std_floor)
    trained, expected_history = None, {}
    if adaptors is not None:
        trained, expected_history = fit_adaptors(adaptors, normal(range(4)), 3, "cpu", False, None)

    def cells_of(sample: Features) -> Features:
        patch_set = read_patches(sample, 7)
        return to_features(patch_set if trained is None else trained.adapt(patch_set), sample)

    standardizer = Standardizer.fit([cells_of(sample) for sample in normal(range(4))], std_floor)
    plain = build_head(inner, RGB_DIM, XYZ_DIM)
    expected_history |= plain.fit([standardizer.apply(cells_of(sample)) for sample in normal(range(4))], seed=3)
    assert history == expected_history
    sample = make_features(seed=20)
    assert same(head.predict(sample), plain.predict(standardizer.apply(cells_of(sample)), head.variants))


@pytest.mark.parametrize(("inner", "variants"), [(INNER[0], tuple(CFM_VARIANTS)), (INNER[1], MODALITIES)])
def test_has_the_variants_of_the_inner_head(inner: Any, variants: tuple[str, ...]) -> None:
    head, _ = fitted(inner, None)
    assert head.variants == variants and tuple(head.predict(make_features(seed=20))) == variants
    assert tuple(head.predict(make_features(seed=20), variants[1:2])) == variants[1:2]


def test_adapted_features_are_those_that_the_head_reads() -> None:
    head, _ = fitted(INNER[0], ADAPTORS)
    sample = make_features(seed=20)
    read, expected = read_patches(head.adapted(sample)), head.adaptors.adapt(read_patches(sample, 7))
    scaled = (expected.rgb - head.standardizer.rgb_mean) / head.standardizer.rgb_std
    torch.testing.assert_close(read.rgb, scaled)
    torch.testing.assert_close(read.xyz, (expected.xyz - head.standardizer.xyz_mean) / head.standardizer.xyz_std)
    train = torch.cat([read_patches(head.adapted(s)).xyz for s in normal(range(4))])
    torch.testing.assert_close(train.mean(dim=0), torch.zeros(XYZ_DIM), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std(dim=0, correction=0), torch.ones(XYZ_DIM))


def test_a_defect_of_the_shape_raises_the_score() -> None:
    head, _ = fitted(INNER[1], ADAPTORS)
    before, after = (head.predict(make_features(seed=20, xyz_offset=offset)) for offset in (0.0, 3.0))
    assert same({"rgb": before["rgb"]}, {"rgb": after["rgb"]})
    for name in ("xyz", "late", "concat"):
        assert after[name].image_score > before[name].image_score


@pytest.mark.parametrize("adaptors", [None, ADAPTORS], ids=["frozen", "adapted"])
def test_a_second_fit_forgets_the_first(adaptors: LSFAConfig | None) -> None:
    head, history = fitted(INNER[0], adaptors, seed=3)
    before = head.predict(make_features(seed=20))
    head.fit([make_features(seed=seed, xyz_offset=5.0) for seed in range(30, 33)], seed=1)
    assert not same(head.predict(make_features(seed=20)), before)
    assert head.fit(normal(range(4)), seed=3) == history and same(head.predict(make_features(seed=20)), before)


def test_histories_of_adaptors_and_head_go_together() -> None:
    _, history = fitted(INNER[0], ADAPTORS)
    assert {"la", "ga", "lc", "gc", "rank_rgb", "rank_xyz", "rgb_to_xyz", "xyz_to_rgb"} <= history.keys()
    assert fitted(INNER[1], None)[1] == {}


def test_adaptors_of_all_categories_are_passed_on() -> None:
    shared = LSFAConfig(**{**vars(ADAPTORS), "scope": "all"})
    head = AdaptedHead(AdaptedConfig(INNER[1], shared, grid_side=7), RGB_DIM, XYZ_DIM)
    with pytest.raises(InputError, match="scope is 'all'; give all_categories"):
        head.fit(normal(range(4)), seed=0)
    by_category = {"cable": normal(range(4)), "peach": normal((7, 8))}
    head.fit(by_category["cable"], seed=0, all_categories=by_category)
    expected, _ = fit_adaptors(shared, normal(range(4)), 0, "cpu", False, by_category)
    assert all(torch.equal(a, b) for a, b in zip(head.adaptors.parameters(), expected.parameters(), strict=True))


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(InputError, match="grid_side is 9, that of adaptors 7; set both"):
        AdaptedConfig(INNER[0], ADAPTORS, grid_side=9)
    with pytest.raises(InputError, match="std_floor is 0; give a positive number"):
        AdaptedConfig(INNER[0], ADAPTORS, grid_side=7, std_floor=0)


@pytest.fixture(scope="module", params=[BANKS, ADAPTORS], ids=["patchcore", "lsfa"])
def fused(request: pytest.FixtureRequest) -> FusedHead:
    head = FusedHead(FusionConfig(INNER[0], request.param), RGB_DIM, XYZ_DIM)
    head.fit(normal(range(4)), seed=2, validation=normal(HELD_OUT))
    return head


def parts_of(fused: FusedHead) -> tuple[Any, Any]:
    """The two heads on their own, fitted as the fusion fits them."""
    cfm = CFM(fused.config.cfm, RGB_DIM, XYZ_DIM)
    banks = build_head(fused.config.banks, RGB_DIM, XYZ_DIM)
    cfm.fit(normal(range(4)), seed=2)
    banks.fit(normal(range(4)), seed=2, validation=normal(HELD_OUT))
    return cfm, banks


def test_fusion_holds_both_parts_as_they_are_alone(fused: FusedHead) -> None:
    found, (cfm, banks) = fused.predict(make_features(seed=20)), parts_of(fused)
    assert tuple(found) == fused.variants == FUSION_VARIANTS
    assert same({"product": found["cfm"]}, cfm.predict(make_features(seed=20), ("product",)))
    assert same({"average": found["banks"]}, banks.predict(make_features(seed=20), ("average",)))
    assert same(fused.predict(make_features(seed=20), ("fusion",)), {"fusion": found["fusion"]})


def test_fusion_is_the_mean_in_units_of_the_validation_samples(fused: FusedHead) -> None:
    sample, held_out = make_features(seed=20), normal(HELD_OUT)
    found, on_held_out = fused.predict(sample), [fused.predict(other) for other in held_out]
    score, anomaly_map = 0.0, torch.zeros(sample.foreground.shape)
    for name in ("cfm", "banks"):
        scores = torch.tensor([prediction[name].image_score for prediction in on_held_out], dtype=torch.float64)
        pairs = zip(on_held_out, held_out, strict=True)
        pixels = torch.cat([prediction[name].anomaly_map[other.foreground] for prediction, other in pairs])
        score += (found[name].image_score - float(scores.mean())) / float(scores.std(correction=0)) / 2
        anomaly_map += (found[name].anomaly_map - pixels.mean()) / pixels.std(correction=0) / 2
    assert found["fusion"].image_score == pytest.approx(score, rel=1e-3, abs=1e-4)
    torch.testing.assert_close(found["fusion"].anomaly_map, anomaly_map, rtol=1e-3, atol=1e-4)


def test_a_defect_of_the_shape_raises_the_fused_score(fused: FusedHead) -> None:
    before, after = (fused.predict(make_features(seed=20, xyz_offset=offset)) for offset in (0.0, 3.0))
    assert after["fusion"].image_score > before["fusion"].image_score


def test_fusion_needs_validation_samples() -> None:
    with pytest.raises(InputError, match="validation samples"):
        FusedHead(FusionConfig(INNER[0], BANKS), RGB_DIM, XYZ_DIM).fit(normal(range(2)), seed=0)


def test_fusion_passes_all_categories_on_and_joins_the_histories() -> None:
    shared = LSFAConfig(**{**vars(ADAPTORS), "scope": "all"})
    head = FusedHead(FusionConfig(INNER[0], shared), RGB_DIM, XYZ_DIM)
    by_category = {"cable": normal(range(4)), "peach": normal((7, 8))}
    history = head.fit(by_category["cable"], 0, validation=normal(HELD_OUT), all_categories=by_category)
    assert {"la", "lc", "rank_xyz", "rgb_to_xyz", "xyz_to_rgb"} <= history.keys()
