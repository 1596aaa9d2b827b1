"""BTF against a loop over patches, its scalings, and settings and samples that cannot work."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lib.coreset import greedy_coreset
from lib.errors import InputError
from lib.heads.bank_grid import read_grid
from lib.heads.btf import BTF, BTF_DEMO, BTF_PAPER, BTF_RELEASED, BTFConfig
from lib.patches import dense_map, read_patches
from tests.factories import make_features

SMALL = BTFConfig(grid_side=5, coreset_fraction=0.3, blur_sigma_px=1.5)
TRAIN = [make_features(seed=seed) for seed in range(4)]
SAMPLE = make_features(seed=7)


def fitted(config: BTFConfig, seed: int = 0) -> BTF:
    head = BTF(config, 3, 5)
    assert head.fit(TRAIN, seed) == {}
    return head


def joined(sample, config: BTFConfig) -> torch.Tensor:
    """Both modalities side by side, cell by cell."""
    patch_set = read_grid(sample, config, 5)
    scale = (3**0.5, 5**0.5) if config.scaling == "balanced" else (1.0, 1.0)
    pairs = zip(patch_set.rgb, patch_set.xyz, strict=True)
    return torch.stack([torch.tensor([*(rgb / scale[0]).tolist(), *(xyz / scale[1]).tolist()]) for rgb, xyz in pairs])


@pytest.mark.parametrize("scaling", ["none", "balanced"])
@pytest.mark.parametrize("cells", ["object", "all"])
def test_the_joined_bank_is_the_coreset_of_both_side_by_side(scaling: str, cells: str) -> None:
    config = dataclasses.replace(SMALL, scaling=scaling, cells=cells)
    rows = torch.cat([joined(sample, config) for sample in TRAIN])
    bank = fitted(config).banks["both"]
    torch.testing.assert_close(bank, rows[greedy_coreset(rows, int(0.3 * len(rows)))])


def test_predictions_match_the_loop() -> None:
    head = fitted(dataclasses.replace(SMALL, reweight_rows=None))
    patch_set = read_patches(SAMPLE, 5)
    for name, queries in {"both": joined(SAMPLE, SMALL), "rgb": patch_set.rgb, "xyz": patch_set.xyz}.items():
        distances = torch.cdist(queries.double(), head.banks[name].double()).min(dim=1).values
        found = head.predict(SAMPLE)[name]
        assert found.image_score == pytest.approx(float(distances.max()), rel=1e-5)
        torch.testing.assert_close(
            found.anomaly_map, dense_map(distances.float(), patch_set, 1.5), rtol=1e-4, atol=1e-5
        )


def test_each_part_has_a_bank_of_its_own_and_variants_do_not_touch_each_other() -> None:
    head = fitted(SMALL)
    together = head.predict(SAMPLE)
    assert tuple(together) == BTF.variants == BTFConfig.variants == ("both", "rgb", "xyz")
    for name in BTF.variants:
        assert torch.equal(head.predict(SAMPLE, (name,))[name].anomaly_map, together[name].anomaly_map)
    changed = head.predict(make_features(seed=7, xyz_offset=3.0))
    assert torch.equal(changed["rgb"].anomaly_map, together["rgb"].anomaly_map)
    assert changed["xyz"].image_score > together["xyz"].image_score
    assert changed["both"].image_score > together["both"].image_score


def test_unscaled_features_let_the_larger_numbers_rule() -> None:
    large = [dataclasses.replace(sample, xyz_tokens=sample.xyz_tokens * 1000) for sample in (*TRAIN, SAMPLE)]
    head = BTF(SMALL, 3, 5)
    head.fit(large[:4], seed=0)
    found = head.predict(large[4])
    torch.testing.assert_close(found["both"].anomaly_map, found["xyz"].anomaly_map, rtol=1e-2, atol=1e-1)


def test_instances_say_what_the_paper_the_code_and_the_demo_do() -> None:
    assert (BTF_PAPER.grid_side, BTF_PAPER.coreset_fraction, BTF_PAPER.scaling) == (28, 0.1, "none")
    assert (BTF_RELEASED.cells, BTF_RELEASED.blur) == ("all", "quantized")
    assert dataclasses.replace(BTF_DEMO, scaling="none", image_score="patch", reweight_rows=3) == BTF_PAPER
    assert not BTFConfig.needs_validation


def test_what_cannot_work_is_one_line() -> None:
    with pytest.raises(InputError, match="scaling 'unit' is unknown"):
        BTFConfig(scaling="unit")
    with pytest.raises(InputError, match="no training features"):
        BTF(SMALL, 3, 5).fit([], 0)
    with pytest.raises(InputError, match="BTF variant 'late' is unknown"):
        fitted(SMALL).predict(SAMPLE, ("late",))
