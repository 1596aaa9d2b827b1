"""UFF: what its networks compute, that it learns pairs, and that its chance comes from the seed alone."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from lib.errors import InputError
from lib.heads.feature_fusion import FeatureFusion, UFFConfig, batch_loss, drawn_pairs, train_fusion
from lib.patches import read_patches
from tests.factories import make_features

SMALL = UFFConfig(projection_dim=4, num_epochs=3, batch_size=2, accumulate=1, scope="category")
PATCHES = [read_patches(make_features(seed=seed), 5) for seed in range(5)]


def gelu(value: torch.Tensor) -> torch.Tensor:
    return value * (1 + torch.erf(value / math.sqrt(2))) / 2


def by_hand(layers, rows: torch.Tensor) -> torch.Tensor:
    """Normalized, widened by four, GELU, narrowed: row by row in float64."""
    norm, first, _, second = (layer.double() for layer in layers)
    out = []
    for row in rows.double():
        unit = (row - row.mean()) / (row.var(correction=0) + norm.eps).sqrt() * norm.weight + norm.bias
        out.append(second.weight @ gelu(first.weight @ unit + first.bias) + second.bias)
    return torch.stack(out)


def test_fused_patches_are_the_two_mlps_side_by_side_3d_first() -> None:
    fusion = FeatureFusion(SMALL, 3, 5, seed=1)
    found = fusion.fuse(PATCHES[0])
    assert found.shape == (len(PATCHES[0].rgb), 8) and not found.requires_grad
    expected = torch.cat([by_hand(fusion.xyz, PATCHES[0].xyz), by_hand(fusion.rgb, PATCHES[0].rgb)], dim=1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_loss_is_the_cross_entropy_of_each_row_and_each_column_of_the_batch() -> None:
    fusion = FeatureFusion(SMALL, 3, 5, seed=1)
    rgb, xyz = (torch.cat([getattr(p, name) for p in PATCHES[:2]]) for name in ("rgb", "xyz"))
    q, k = fusion(rgb, xyz)
    table = (q @ k.T).double().detach()
    rows = [
        -table[i, i] + torch.logsumexp(table[i], 0) - table[i, i] + torch.logsumexp(table[:, i], 0)
        for i in range(len(q))
    ]
    found = batch_loss(fusion, PATCHES[:2], SMALL, torch.Generator().manual_seed(0))
    assert float(found.detach()) == pytest.approx(2 * float(torch.stack(rows).mean()), rel=1e-5)


def test_aligned_pairs_are_of_one_cell_and_scrambled_ones_are_not() -> None:
    generator = torch.Generator().manual_seed(3)
    patch_set = PATCHES[0]
    cut = dataclasses.replace(SMALL, patches_per_image=7)
    rgb, xyz = drawn_pairs(patch_set, cut, generator)
    owners = [int((patch_set.rgb == row).all(dim=1).nonzero()[0]) for row in rgb]
    assert len(set(owners)) == 7 and torch.equal(xyz, patch_set.xyz[owners])
    rgb, xyz = drawn_pairs(patch_set, dataclasses.replace(SMALL, pairing="scrambled"), generator)
    assert torch.equal(rgb, patch_set.rgb)
    same_place = (xyz == patch_set.xyz).all(dim=1).double().mean()
    assert same_place < 0.3


def test_training_finds_the_pairs_it_is_given() -> None:
    longer = dataclasses.replace(SMALL, num_epochs=40)
    aligned = train_fusion(longer, {"own": PATCHES}, seed=0)[1]["uff"]
    scrambled = train_fusion(dataclasses.replace(longer, pairing="scrambled"), {"own": PATCHES}, seed=0)[1]["uff"]
    assert len(aligned) == 40 and aligned[-1] < aligned[0] - 0.3
    assert aligned[-1] < scrambled[-1] - 0.3


def test_a_seed_decides_everything() -> None:
    cut = dataclasses.replace(SMALL, patches_per_image=5)
    first, again, other = (train_fusion(cut, {"own": PATCHES}, seed=seed)[0] for seed in (4, 4, 5))
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b) and (a.numel() < 2 or not torch.equal(a, c))


def test_accumulated_steps_move_the_weights_once() -> None:
    """With all steps of an epoch added up, one AdamW step of the first rate follows, whatever the gradient's size."""
    config = dataclasses.replace(SMALL, num_epochs=1, warmup_epochs=0, accumulate=99, weight_decay=0.0)
    before = FeatureFusion(config, 3, 5, seed=2)
    after, _ = train_fusion(config, {"own": PATCHES}, seed=2)
    moved = (after.rgb_projection.weight - before.rgb_projection.weight).abs()
    assert float(moved.detach().max()) == pytest.approx(config.learning_rate, rel=1e-3)


def test_no_epochs_give_the_first_weights() -> None:
    fusion, history = train_fusion(dataclasses.replace(SMALL, num_epochs=0), {"own": PATCHES}, seed=2)
    expected = FeatureFusion(SMALL, 3, 5, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(fusion.parameters(), expected.parameters(), strict=True))
    assert history == {"uff": []}


def test_a_loss_that_is_not_finite_is_one_line() -> None:
    broken = [dataclasses.replace(PATCHES[0], rgb=PATCHES[0].rgb * torch.nan)]
    with pytest.raises(InputError, match="loss is not finite in epoch 1; lower learning_rate"):
        train_fusion(SMALL, {"own": broken}, seed=0)


@pytest.mark.parametrize("change", [{"pairing": "random"}, {"scope": "some"}, {"accumulate": 0}, {"temperature": 0}])
def test_settings_that_cannot_work_are_refused(change: dict) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        UFFConfig(**change)
