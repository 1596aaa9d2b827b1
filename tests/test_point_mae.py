"""Point-MAE against the reference's numbers, plain loops over groups and heads, and its own properties."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from lib import neighbors
from lib.data import Sample
from lib.errors import InputError
from lib.extractors import point_mae, point_network
from lib.extractors.point_mae import (
    POINT_MAE_EMBEDDED,
    POINT_MAE_EVAL,
    POINT_MAE_PRESETS,
    POINT_MAE_RELEASED,
    PointMAE,
    PointMAEExtractor,
    load_point_mae,
    random_point_mae,
)
from lib.extractors.point_network import PointMAEConfig, drop_path
from tests.surfaces import bumpy_cloud

CASE = np.load(Path(__file__).parent / "cases" / "point_mae_case.npz")
TINY = PointMAEConfig(
    num_groups=11, group_size=7, dim=12, num_heads=3, encoder_widths=(5, 6, 9), position_width=4, mlp_ratio=2
)
RELEASED_TINY = dataclasses.replace(TINY, batch_statistics=True, drop_path=True)
SHIFT_M = torch.tensor([8.0, -8.0, 8.0])


def rule_weight(name: str, stored: torch.Tensor) -> torch.Tensor:
    """Weight of the reference case: drawn from a generator seeded by the tensor's name (`cases/README.md`)."""
    if not stored.is_floating_point():
        return stored
    a = np.random.default_rng([7, zlib.crc32(name.encode())]).standard_normal(tuple(stored.shape)).astype(np.float32)
    if name.endswith("running_var"):
        a = abs(a) * np.float32(0.1) + np.float32(0.5)
    elif name.endswith("weight") and ("norm" in name or stored.ndim == 1):
        a = 1 + np.float32(0.1) * a
    elif stored.ndim >= 2:
        a = a / np.float32(np.sqrt(np.prod(stored.shape[1:])))
    else:
        a = np.float32(0.05) * a
    return torch.from_numpy(a)


def rule_network(config: PointMAEConfig) -> PointMAE:
    """The network in eval mode, its weights by the rule."""
    network = random_point_mae(config, seed=0)
    network.load_state_dict({name: rule_weight(name, stored) for name, stored in network.state_dict().items()})
    return network


def made_groups(config: PointMAEConfig, num_clouds: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Groups (B, G, K, 3) and centers (B, G, 3) of bumpy clouds on a grid of 2^-20 m."""
    clouds = [gridded(bumpy_points(seed + 100 * i)) for i in range(num_clouds)]
    groups, centers = zip(
        *(neighbors.group_points(cloud, config.num_groups, config.group_size) for cloud in clouds), strict=True
    )
    return torch.stack(groups), torch.stack(centers)


def bumpy_points(seed: int) -> torch.Tensor:
    cloud, mask = bumpy_cloud(height=19, width=17, seed=seed)
    return torch.from_numpy(cloud[mask].astype(np.float32))


def gridded(points: torch.Tensor) -> torch.Tensor:
    """The points rounded to a grid on which a shift of 8 m is exact in float32."""
    return (points.double() * 2**20).round().div(2**20).float()


def made_sample(seed: int = 3, sample_id: str = "train/good/000", side: int = 23) -> Sample:
    cloud, mask = bumpy_cloud(height=side, width=side, seed=seed)
    return Sample(
        sample_id=sample_id,
        category="relief",
        split="train",
        defect="good",
        label=0,
        rgb=torch.zeros(3, side, side),
        cloud=torch.from_numpy(cloud.astype(np.float32)).permute(2, 0, 1).contiguous(),
        foreground=torch.from_numpy(mask),
        gt_mask=torch.zeros(side, side, dtype=torch.bool),
        depth=torch.zeros(side, side),
        rgb_padded=np.zeros((side, side, 3), dtype=np.uint8),
    )


def forward(network: PointMAE, *inputs: torch.Tensor, seed: int | None = None) -> torch.Tensor:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return network(*inputs, generator)


# The reference's numbers


@pytest.fixture(scope="module")
def case_groups() -> tuple[torch.Tensor, torch.Tensor]:
    points = torch.from_numpy(CASE["points"])
    groups, centers = neighbors.group_points(points, 64, 32)
    return groups[None], centers[None]


def test_case_indices_are_met_exactly():
    points = torch.from_numpy(CASE["points"])
    chosen = neighbors.farthest_points(points, 64)
    np.testing.assert_array_equal(chosen, CASE["center_idx"])
    np.testing.assert_array_equal(points[chosen], CASE["centers"])
    rows = neighbors.group_neighbors(points, points[chosen], 32)
    np.testing.assert_array_equal(rows.sort(dim=1).values, CASE["group_idx"])


@pytest.mark.parametrize(("name", "own_statistics"), [("features_eval", False), ("features_batchstats", True)])
def test_case_features_are_met(case_groups, name, own_statistics):
    network = rule_network(PointMAEConfig(num_groups=64, group_size=32, batch_statistics=own_statistics))
    features = forward(network, *case_groups)[0].T
    np.testing.assert_allclose(features, CASE[name], atol=1e-4, rtol=0)  # measured: 2e-6 and 5e-5


def interpolate(found: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(31, 1152) mix of the case's own features."""
    return np.einsum("nkc,nk->nc", CASE["features_eval"].T[found], weights)


def test_case_interpolation_differs_from_the_exact_one_by_the_rounding_of_its_formula():
    points, centers = CASE["points"][CASE["interp_rows"]], CASE["centers"]
    found, weights = neighbors.three_nearest(points, centers)
    difference = np.abs(interpolate(found, weights) - CASE["interp_eval"]).max()
    assert 5e-6 < difference < 1e-5  # measured 7.3e-6, features up to 4.0

    # |p|^2 + |c|^2 - 2 p.c in float32 on camera coordinates, half a metre away
    expanded = (points**2).sum(1)[:, None] + (centers**2).sum(1) - 2 * (points @ centers.T)
    theirs = np.argsort(expanded, axis=1, kind="stable")[:, :3]
    inverse = 1 / (np.take_along_axis(expanded, theirs, axis=1) + np.float32(1e-8))
    rounded = inverse / inverse.sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(theirs, found)
    assert expanded.min() < 0  # a squared distance that cancels
    assert np.abs(rounded - weights).max() > 1e-4

    # the reference's order of additions, to the last bit but for the mix itself
    p, c = torch.from_numpy(points), torch.from_numpy(centers)
    squared = -2 * p @ c.T + (p**2).sum(1)[:, None] + (c**2).sum(1)[None]
    inverse = 1 / (squared.gather(1, torch.from_numpy(found)) + 1e-8)
    replica = interpolate(found, (inverse / inverse.sum(dim=1, keepdim=True)).numpy())
    assert np.abs(replica - CASE["interp_eval"]).max() < 1e-6


# Plain loops


def slow_token(network: PointMAE, group: torch.Tensor, statistics: dict[str, tuple]) -> torch.Tensor:
    """Token of one group (K, 3), point by point; `statistics` holds mean and variance of both normalizations."""
    first, second = network.encoder.first_conv, network.encoder.second_conv

    def layer(conv, vector):
        return conv.weight[:, :, 0] @ vector + conv.bias

    def normalized(norm, vector, name):
        mean, variance = statistics[name]
        return (vector - mean) / torch.sqrt(variance + 1e-5) * norm.weight + norm.bias

    local = [layer(first[3], normalized(first[1], layer(first[0], p), "first").clamp(min=0)) for p in group]
    whole = torch.stack(local).max(dim=0).values
    hidden = [layer(second[0], torch.cat([whole, vector])) for vector in local]
    hidden = [normalized(second[1], vector, "second").clamp(min=0) for vector in hidden]
    return torch.stack([layer(second[3], vector) for vector in hidden]).max(dim=0).values


def slow_attention(block: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Attention of (G, D) head by head and query by query."""
    dim, heads = tokens.shape[1], block.num_heads
    query, key, value = (tokens @ block.qkv.weight[i * dim : (i + 1) * dim].T for i in range(3))
    mixed = torch.zeros_like(tokens)
    for columns in torch.arange(dim).chunk(heads):
        for row in range(len(tokens)):
            shares = torch.softmax(key[:, columns] @ query[row, columns] / (dim / heads) ** 0.5, dim=0)
            mixed[row, columns] = shares @ value[:, columns]
    return mixed @ block.proj.weight.T + block.proj.bias


def slow_forward(network: PointMAE, groups: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """(G, C3) of one cloud from (G, K, 3) and (G, 3)."""
    first, second = network.encoder.first_conv[1], network.encoder.second_conv[1]
    statistics = {n: (b.running_mean, b.running_var) for n, b in (("first", first), ("second", second))}
    tokens = torch.stack([slow_token(network, group, statistics) for group in groups])
    positions, outputs = network.pos_embed(centers), []
    for block in network.blocks.blocks:
        tokens = tokens + positions
        tokens = tokens + slow_attention(block.attn, block.norm1(tokens))
        tokens = tokens + block.mlp.fc2(functional.gelu(block.mlp.fc1(block.norm2(tokens))))
        outputs.append(functional.layer_norm(tokens, (tokens.shape[1],), network.norm.weight, network.norm.bias))
    return torch.cat([outputs[tap] for tap in network.config.taps], dim=1)


@pytest.mark.parametrize("num_blocks", [1, 4, 12])
def test_network_equals_loops_over_groups_points_heads_and_queries(num_blocks):
    network = rule_network(dataclasses.replace(TINY, num_blocks=num_blocks))
    groups, centers = made_groups(TINY, num_clouds=2)
    features = forward(network, groups * 100, centers)
    with torch.no_grad():
        for i in range(2):
            expected = slow_forward(network, groups[i] * 100, centers[i])
            torch.testing.assert_close(features[i], expected, atol=1e-5, rtol=0)


def test_own_statistics_are_each_clouds_mean_and_biased_variance():
    network = rule_network(dataclasses.replace(TINY, batch_statistics=True))
    groups = made_groups(TINY, num_clouds=3)[0] * 100
    (widen, norm, _, lift), (join, _, _, _) = network.encoder.first_conv, network.encoder.second_conv

    def moments(rows):
        return rows.mean(dim=0), rows.var(dim=0, unbiased=False)

    with torch.no_grad():
        tokens = network.embed(groups)
        for cloud, found in zip(groups, tokens, strict=True):
            rows = cloud.flatten(0, 1) @ widen.weight[:, :, 0].T + widen.bias
            mean, variance = moments(rows)
            local = ((rows - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias).clamp(min=0)
            local = (local @ lift.weight[:, :, 0].T + lift.bias).unflatten(0, cloud.shape[:2])
            joined = torch.cat([local.amax(dim=1, keepdim=True).expand_as(local), local], dim=2).flatten(0, 1)
            statistics = {"first": (mean, variance), "second": moments(joined @ join.weight[:, :, 0].T + join.bias)}
            expected = torch.stack([slow_token(network, group, statistics) for group in cloud])
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_chunks_of_groups_change_nothing(monkeypatch):
    network, (groups, _) = rule_network(TINY), made_groups(TINY, num_clouds=3)
    with torch.no_grad():
        whole = network.embed(groups)
        for rows in (1, 4 * TINY.group_size):
            monkeypatch.setitem(point_network.ROWS_PER_CHUNK, "cpu", rows)
            torch.testing.assert_close(network.embed(groups), whole, atol=1e-6, rtol=0)


# Properties


@pytest.mark.parametrize("own_statistics", [False, True])
@pytest.mark.parametrize("centered", [False, True])
def test_a_batch_equals_its_clouds_one_by_one(own_statistics, centered):
    network = rule_network(dataclasses.replace(TINY, batch_statistics=own_statistics, centered=centered))
    groups, centers = made_groups(TINY, num_clouds=3)
    batch = forward(network, groups, centers)
    for i in range(3):
        single = forward(network, groups[i : i + 1], centers[i : i + 1])[0]
        torch.testing.assert_close(batch[i], single, atol=1e-5, rtol=0)


def test_with_centers_fixed_the_order_of_points_groups_and_members_changes_nothing_but_order():
    network, points = rule_network(TINY), bumpy_points(seed=1)
    centers = points[neighbors.farthest_points(points, TINY.num_groups)]
    shuffle = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    groups = [p[neighbors.group_neighbors(p, centers, 7)] - centers[:, None] for p in (points, points[shuffle])]
    features = [forward(network, group[None], centers[None]) for group in groups]
    assert torch.equal(*features)
    order = torch.randperm(TINY.num_groups, generator=torch.Generator().manual_seed(1))
    moved = forward(network, groups[0][None, order], centers[None, order])
    torch.testing.assert_close(moved, features[0][:, order], atol=1e-5, rtol=0)
    torch.testing.assert_close(forward(network, groups[0][None].flip(2), centers[None]), features[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("config", [TINY, RELEASED_TINY])
def test_a_shift_of_eight_metres_changes_features_unless_positions_are_centered(config):
    points = gridded(bumpy_points(seed=2))
    clouds = [neighbors.group_points(p, 11, 7) for p in (points, points + SHIFT_M)]
    assert torch.equal(clouds[0][0], clouds[1][0])
    differences = []
    for centered in (True, False):
        network = rule_network(dataclasses.replace(config, centered=centered, unit_m=0.005))
        here, there = (forward(network, groups[None], centers[None], seed=0) for groups, centers in clouds)
        differences.append(float((here - there).abs().max()))
    assert differences[0] <= 1e-5
    assert differences[1] > 0.1  # the released code embeds where in front of the camera the object lies


def test_unit_divides_every_coordinate():
    groups, centers = made_groups(TINY, num_clouds=2)
    network = rule_network(dataclasses.replace(TINY, unit_m=0.25))  # a power of 2: the division is exact
    assert torch.equal(forward(network, groups, centers), forward(rule_network(TINY), groups * 4, centers * 4))


def test_centered_positions_read_the_offset_from_the_mean_of_the_centers():
    network, (_, centers) = rule_network(dataclasses.replace(TINY, centered=True)), made_groups(TINY, num_clouds=2)
    offsets = torch.stack([cloud - cloud.double().mean(dim=0) for cloud in centers]).float()
    with torch.no_grad():
        torch.testing.assert_close(network.embed_positions(centers), network.pos_embed(offsets), atol=1e-6, rtol=0)


def test_training_mode_is_pytorchs_own_and_eval_mode_never_moves_the_running_statistics():
    network = rule_network(RELEASED_TINY)
    inputs = made_groups(TINY, num_clouds=3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    forward(network, *inputs, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network.train()
    forward(network, *inputs, seed=0)
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert moved == {f"encoder.{part}.1.{name}" for part in ("first_conv", "second_conv") for name in statistics}


def test_gradients_reach_every_parameter_of_the_kept_blocks():
    network = random_point_mae(TINY, seed=0).train()
    network(*made_groups(TINY, num_clouds=2)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


# Stochastic depth


def test_drop_path_zeroes_whole_clouds_and_scales_the_others():
    branch = torch.ones(2000, 3, 2)
    dropped = drop_path(branch, 0.2, torch.Generator().manual_seed(0))
    assert set(dropped.unique().tolist()) == {0.0, 1.25}
    assert torch.equal(dropped, dropped[:, :1, :1].expand_as(dropped))
    assert float((dropped == 0).float().mean()) == pytest.approx(0.2, abs=0.02)
    assert drop_path(branch, 0.0, None) is branch


@pytest.mark.parametrize("num_blocks", [1, 4, 8, 12])
def test_drop_rates_are_those_of_the_published_depth(num_blocks):
    network = PointMAE(dataclasses.replace(RELEASED_TINY, num_blocks=num_blocks))
    rates = [block.rate for block in network.blocks.blocks]
    assert rates == pytest.approx([0.1 * i / 11 for i in range(num_blocks)])
    assert {block.rate for block in PointMAE(TINY).blocks.blocks} == {0}


def test_drop_path_depends_on_the_generator_only():
    network = rule_network(dataclasses.replace(TINY, drop_path=True, drop_path_rate=0.9))
    inputs = made_groups(TINY, num_clouds=3)
    torch.manual_seed(0)
    first, again, other = (forward(network, *inputs, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(1)
    assert torch.equal(forward(network, *inputs, seed=1), first)


def test_drop_path_without_a_generator_is_refused():
    with pytest.raises(InputError, match="drop_path is set and no generator given"):
        forward(rule_network(RELEASED_TINY), *made_groups(TINY, num_clouds=1))


# Pruning and settings


@pytest.mark.parametrize(
    ("num_blocks", "taps", "xyz_dim"),
    [(12, (3, 7, 11), 1152), (8, (1, 4, 7), 1152), (4, (1, 2, 3), 1152), (1, (0,), 384)],
)
def test_pruned_networks_keep_the_first_blocks_and_their_taps(num_blocks, taps, xyz_dim):
    config = dataclasses.replace(POINT_MAE_EVAL, num_blocks=num_blocks)
    assert (config.taps, config.xyz_dim) == (taps, xyz_dim)
    tiny = dataclasses.replace(TINY, num_blocks=num_blocks)
    whole, pruned = rule_network(TINY), rule_network(tiny)
    inputs = made_groups(TINY, num_clouds=2)
    with torch.no_grad():
        outputs = whole.block_tokens(whole.embed(inputs[0]), whole.embed_positions(inputs[1]))
        expected = torch.cat([whole.norm(outputs[tap]) for tap in taps], dim=2)
    assert torch.equal(forward(pruned, *inputs), expected)
    assert len(pruned.blocks.blocks) == num_blocks


def test_pruning_frees_the_parameters_of_the_blocks_dropped():
    configs = [dataclasses.replace(TINY, num_blocks=number) for number in (1, 4, 8, 12)]
    counts = [PointMAEExtractor(config, weights="random").num_parameters for config in configs]
    block = sum(parameter.numel() for parameter in PointMAE(TINY).blocks.blocks[5].parameters())
    assert np.diff(counts).tolist() == [3 * block, 4 * block, 4 * block]


def test_presets_differ_where_the_papers_code_does():
    changed = dataclasses.replace(POINT_MAE_EVAL, batch_statistics=True, drop_path=True)
    assert changed == POINT_MAE_RELEASED
    for (name, mode), config in POINT_MAE_PRESETS.items():
        assert (config.batch_statistics, config.drop_path) == ((True, True) if mode == "released" else (False, False))
        assert config.weights == name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_blocks": 3}, "num_blocks is 3 of 12; give one of 12, 8, 4, 1"),
        ({"num_blocks": 12, "depth": 8}, "num_blocks is 12 of 8; give one of 8, 4, 1"),
        ({"num_heads": 5}, "5 heads do not divide dim 12"),
        ({"group_size": 0}, "PointMAEConfig.group_size is 0"),
        ({"unit_m": 0.0}, "PointMAEConfig.unit_m is 0.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(TINY, **changes)


# Weights


BESIDE = (
    "mask_token", "decoder_pos_embed.0.weight", "MAE_decoder.blocks.0.norm1.weight", "MAE_decoder.norm.bias",
    "increase_dim.0.weight",
)  # fmt: skip


def official_state() -> dict[str, torch.Tensor]:
    """Tensors laid out as the official checkpoint's: wrapped, and beside those that only pre-training needs."""
    encoder = rule_network(TINY).state_dict()
    return {f"module.MAE_encoder.{name}": value for name, value in encoder.items()} | {
        f"module.{name}": torch.ones(3) for name in BESIDE
    }


@pytest.mark.parametrize("num_blocks", [1, 4, 8, 12])
def test_official_checkpoint_loads_into_every_depth(num_blocks):
    config = dataclasses.replace(TINY, num_blocks=num_blocks)
    network, inputs = load_point_mae(config, official_state()), made_groups(TINY, num_clouds=2)
    assert torch.equal(forward(network, *inputs), forward(rule_network(config), *inputs))
    assert not network.training


def test_plain_half_precision_state_loads():
    state = {name: value.half() for name, value in rule_network(TINY).state_dict().items()}
    network = load_point_mae(TINY, state)
    assert network.norm.weight.dtype == torch.float32
    assert torch.equal(network.norm.weight, state["norm.weight"].float())


def test_every_tensor_that_does_not_fit_is_listed_at_once():
    tensors = official_state()
    del tensors["module.MAE_encoder.norm.weight"], tensors["module.MAE_encoder.blocks.blocks.3.attn.qkv.weight"]
    tensors["module.MAE_encoder.blocks.blocks.12.norm1.weight"] = torch.ones(12)
    tensors["module.cls_token"] = torch.ones(1, 1, 12)
    tensors["module.MAE_encoder.pos_embed.0.weight"] = torch.ones(4, 2)
    with pytest.raises(InputError) as raised:
        load_point_mae(TINY, tensors, source="pretrain.pth")
    line = str(raised.value)
    assert line.startswith("pretrain.pth: ")
    assert "\n" not in line
    for expected in (
        "2 missing: blocks.blocks.3.attn.qkv.weight, norm.weight",
        "2 unexpected: blocks.blocks.12.norm1.weight, cls_token",
        "1 mis-shaped: pos_embed.0.weight is (4, 2), not (4, 3)",
    ):
        assert expected in line


def test_a_pruned_network_checks_the_blocks_it_will_not_keep():
    state = official_state()
    del state["module.MAE_encoder.blocks.blocks.9.attn.proj.bias"]
    with pytest.raises(InputError, match=r"1 missing: blocks\.blocks\.9\.attn\.proj\.bias"):
        load_point_mae(dataclasses.replace(TINY, num_blocks=4), state)


def test_another_network_is_refused():
    with pytest.raises(InputError, match="missing"):
        load_point_mae(TINY, torch.nn.Linear(3, 5).state_dict())


def test_random_weights_depend_on_the_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    first, again, other = (random_point_mae(TINY, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["blocks.blocks.0.attn.qkv.weight"], other["blocks.blocks.0.attn.qkv.weight"])


# Extractor


@pytest.mark.parametrize("preset", [POINT_MAE_EVAL, POINT_MAE_RELEASED, POINT_MAE_EMBEDDED])
def test_presets_run_offline_with_random_weights(preset):
    extractor = PointMAEExtractor(dataclasses.replace(preset, num_groups=13, group_size=5), weights="random")
    tokens, centers = extractor(made_sample())
    assert tokens.shape == (13, extractor.xyz_dim)
    assert extractor.xyz_dim == 3 * preset.dim
    assert tokens.dtype == centers.dtype == torch.float32
    assert torch.isfinite(tokens).all()
    assert extractor.num_parameters == sum(p.numel() for p in PointMAE(preset).parameters())


def test_extractor_reads_the_object_points_in_row_major_order():
    sample = made_sample()
    tokens, centers = PointMAEExtractor(TINY, weights="random", seed=5)(sample)
    points = sample.cloud.permute(1, 2, 0)[sample.foreground]
    groups, expected_centers = neighbors.group_points(points, 11, 7)
    assert torch.equal(centers, expected_centers)
    assert torch.equal(centers[0], points[0])
    assert torch.equal(tokens, forward(random_point_mae(TINY, 5), groups[None], centers[None])[0])
    assert not tokens.is_inference()  # heads train on it


def test_released_features_are_random_by_sample_and_seed_but_reproducible():
    config = dataclasses.replace(RELEASED_TINY, drop_path_rate=0.9)
    extractor = PointMAEExtractor(config, weights="random")
    first, again = extractor(made_sample())[0], extractor(made_sample())[0]
    other = extractor(made_sample(sample_id="train/good/001"))[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_released_features_differ_from_visit_to_visit_and_come_back():
    extractor = PointMAEExtractor(dataclasses.replace(RELEASED_TINY, drop_path_rate=0.9), weights="random")
    found = []
    for extractor.visit in (0, 1, 2, 1):
        found.append(extractor(made_sample())[0])
    assert torch.equal(found[1], found[3])
    assert not any(torch.equal(found[a], found[b]) for a, b in ((0, 1), (1, 2), (0, 2)))


def test_extractor_reads_the_registry_and_the_folder_given(monkeypatch, tmp_path):
    asked = []

    def load_state(name, folder=None):
        asked.append((name, folder))
        return official_state()

    monkeypatch.setattr(point_mae, "load_state", load_state)
    extractor = PointMAEExtractor(dataclasses.replace(TINY, num_blocks=4), weights_folder=tmp_path)
    assert asked == [("point_mae", tmp_path)]
    assert torch.equal(extractor.network.norm.weight, rule_network(TINY).norm.weight)


def test_extractor_refuses_what_it_cannot_do():
    with pytest.raises(InputError, match="weights 'none' is unknown; choose one of registry, random"):
        PointMAEExtractor(TINY, weights="none")
    small = made_sample(side=3)
    num_points = int(small.foreground.sum())
    with pytest.raises(InputError, match=f"points: {num_points} given, 11 needed"):
        PointMAEExtractor(TINY, weights="random")(small)
