"""M3DM: its banks, statistics and fusions against their definitions, the slips of the released code by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lib.coreset import greedy_coreset
from lib.errors import InputError
from lib.heads.bank_grid import object_patches, read_grid
from lib.heads.feature_fusion import UFFConfig
from lib.heads.m3dm import BANKS, M3DM, M3DM_PAPER, M3DM_RELEASED, M3DMConfig
from lib.heads.score_fusion import OneClassFusion
from lib.patches import read_patches, touched_cells
from tests.factories import make_features

UFF = UFFConfig(projection_dim=4, num_epochs=2, batch_size=2, accumulate=1, scope="category")
SMALL = M3DMConfig(grid_side=6, rgb_side=5, coreset_fraction=0.3, blur_sigma_px=1.5, uff=UFF)
SLIPS = dataclasses.replace(
    SMALL, statistics="released", sizes="released", triple_xyz="released", double_divisor=1000.0
)
TRAIN = [make_features(seed=seed) for seed in range(5)]
SAMPLE = make_features(seed=9)


def fitted(config: M3DMConfig = SMALL, seed: int = 0) -> M3DM:
    head = M3DM(config, 3, 5)
    head.fit(TRAIN, seed)
    return head


def plain_rows(head: M3DM, name: str, samples=TRAIN) -> torch.Tensor:
    """Patches before shift and scale."""
    if name == "rgb":
        return torch.cat([read_patches(sample, 5).rgb for sample in samples])
    sets = [read_patches(sample, 6) for sample in samples]
    return torch.cat([patch_set.xyz if name == "xyz" else head.fusion.fuse(patch_set) for patch_set in sets])


@pytest.mark.parametrize("name", BANKS)
def test_each_bank_is_the_coreset_of_its_patches_in_its_own_units(name: str) -> None:
    head = fitted()
    rows = plain_rows(head, name)
    rows = (rows - rows.double().mean().float()) / rows.double().std(correction=0).float()
    expected = rows[greedy_coreset(rows, int(0.3 * len(rows)))]
    torch.testing.assert_close(head.banks[name], expected, rtol=1e-4, atol=1e-5)


def test_released_statistics_are_the_mean_of_3d_and_the_deviation_of_rgb_for_all() -> None:
    head = fitted(SLIPS)
    mean, std = plain_rows(head, "xyz").double().mean(), plain_rows(head, "rgb").double().std(correction=0)
    for name in BANKS:
        assert head.statistics[name] == pytest.approx((float(mean), float(std)), rel=1e-5)


def test_released_sizes_follow_the_reduced_3d_bank() -> None:
    head, plain = fitted(SLIPS), fitted()
    num_xyz = int(0.3 * len(plain_rows(head, "xyz")))
    assert [len(head.banks[name]) for name in BANKS] == [int(0.3 * num_xyz), num_xyz, int(0.3 * num_xyz)]
    assert len(plain.banks["fused"]) == num_xyz and len(plain.banks["rgb"]) == int(0.3 * len(plain_rows(head, "rgb")))


def test_released_triple_mode_adds_a_row_of_zeros_to_its_3d_bank() -> None:
    head = fitted(SLIPS)
    bank = head.banks["triple_xyz"]
    assert torch.equal(bank[:-1], head.banks["xyz"]) and bank[-1].eq(0).all()
    assert "triple_xyz" not in fitted().banks


def test_rows_with_a_zero_leave_the_released_triple_bank() -> None:
    config = dataclasses.replace(SLIPS, statistics="own", cells="all")
    head = M3DM(config, 3, 5)
    head.fit(TRAIN, 0)
    assert (head.banks["triple_xyz"][:-1] != 0).all()


@pytest.mark.parametrize("config", [SMALL, SLIPS], ids=["ours", "slips"])
def test_fusions_are_those_of_training_samples_scored_against_their_own_banks(config: M3DMConfig) -> None:
    head = fitted(config)
    inside = [sample.foreground for sample in TRAIN]
    names = {"double": {"rgb": "rgb", "xyz": "xyz"}, "triple": {"rgb": "rgb", "xyz": "xyz", "fused": "fused"}}
    if config is SLIPS:
        names["triple"]["xyz"] = "triple_xyz"
    found = head.predict(SAMPLE, ("double", "triple"))
    for variant, banks in names.items():
        parts = {name: [head._single(sample, bank) for sample in TRAIN] for name, bank in banks.items()}
        fusion = OneClassFusion.fit(parts, inside, config.double_divisor if variant == "double" else 1.0)
        expected = fusion.combine({name: head._single(SAMPLE, bank) for name, bank in banks.items()})
        assert found[variant].image_score == expected.image_score
        assert torch.equal(found[variant].anomaly_map, expected.anomaly_map)


def test_a_single_bank_measures_the_nearest_patch_in_its_units() -> None:
    head = fitted(dataclasses.replace(SMALL, reweight_rows=None))
    for name in BANKS:
        mean, std = head.statistics[name]
        queries = (plain_rows(head, name, [SAMPLE]) - mean) / std
        expected = torch.cdist(queries.double(), head.banks[name].double()).min(dim=1).values.max()
        assert head.predict(SAMPLE, (name,))[name].image_score == pytest.approx(float(expected), rel=1e-4)


def test_variants_do_not_touch_each_other() -> None:
    head = fitted()
    together = head.predict(SAMPLE)
    assert tuple(together) == M3DM.variants == ("rgb", "xyz", "fused", "double", "triple")
    for name in M3DM.variants:
        alone = head.predict(SAMPLE, (name,))[name]
        assert torch.equal(alone.anomaly_map, together[name].anomaly_map)
        assert alone.image_score == together[name].image_score and isinstance(alone.image_score, float)


def test_a_defect_that_rgb_does_not_show_reaches_the_3d_bank_and_both_fusions() -> None:
    """Not the fused bank: its LayerNorm takes out what is added to all channels alike."""
    before, after = (fitted().predict(make_features(seed=9, xyz_offset=offset)) for offset in (0.0, 3.0))
    assert torch.equal(before["rgb"].anomaly_map, after["rgb"].anomaly_map)
    assert all(after[name].image_score > before[name].image_score for name in ("xyz", "double", "triple"))


def test_all_pixels_may_teach_the_svm() -> None:
    every = dataclasses.replace(SMALL, svm_pixels="all", cells="all", blur="quantized", blur_sigma_px=4.0)
    head = fitted(every)
    weights = np.array(head.late_fusions["triple"].map_weights)
    parts = {name: [head._single(sample, name) for sample in TRAIN] for name in BANKS}
    everywhere = [torch.ones_like(sample.foreground) for sample in TRAIN]
    np.testing.assert_array_equal(weights, OneClassFusion.fit(parts, everywhere).map_weights)
    assert read_grid(SAMPLE, every, 6).cells.all()


def test_networks_of_all_categories_learn_from_all() -> None:
    shared = dataclasses.replace(SMALL, uff=dataclasses.replace(UFF, scope="all"))
    head = M3DM(shared, 3, 5)
    with pytest.raises(InputError, match="scope is 'all'; give all_categories"):
        head.fit(TRAIN, 0)
    head.fit(TRAIN, 0, all_categories={"a": TRAIN, "b": [SAMPLE]})
    assert any(
        not torch.equal(a, b) for a, b in zip(head.fusion.parameters(), fitted().fusion.parameters(), strict=True)
    )


def test_fusion_networks_learn_from_object_cells_read_as_the_banks_read_them() -> None:
    every = dataclasses.replace(SMALL, cells="all")
    whole, learned = read_grid(SAMPLE, every, 6), object_patches(SAMPLE, every)
    inside = touched_cells(SAMPLE, 6)
    assert torch.equal(learned.cells, inside) and 0 < int(inside.sum()) < 36
    for name in ("rgb", "xyz"):
        assert torch.equal(getattr(learned, name), getattr(whole, name)[inside.flatten()])
    assert torch.equal(object_patches(SAMPLE, SMALL).xyz, read_patches(SAMPLE, 6).xyz)


def test_banks_of_all_patches_have_single_variants_only() -> None:
    head = fitted(dataclasses.replace(SMALL, coreset_fraction=1.0))
    assert head.predict(TRAIN[0], ("xyz",))["xyz"].image_score == 0
    with pytest.raises(InputError, match="banks hold every patch"):
        head.predict(SAMPLE, ("triple",))


def test_the_released_instance_differs_by_the_known_slips() -> None:
    changed = {
        f.name for f in dataclasses.fields(M3DM_PAPER) if getattr(M3DM_PAPER, f.name) != getattr(M3DM_RELEASED, f.name)
    }
    slips = {"statistics", "sizes", "triple_xyz", "double_divisor"}
    assert changed == slips | {"svm_pixels", "cells", "blur", "uff"}
    assert (M3DM_PAPER.grid_side, M3DM_PAPER.rgb_side, M3DM_RELEASED.uff.pairing) == (56, 28, "scrambled")


def test_what_cannot_work_is_one_line() -> None:
    with pytest.raises(InputError, match="no training features"):
        M3DM(SMALL, 3, 5).fit([], 0)
    with pytest.raises(InputError, match="M3DM variant 'late' is unknown"):
        fitted().predict(SAMPLE, ("late",))
    with pytest.raises(InputError, match="statistics 'none' is unknown"):
        M3DMConfig(statistics="none")
