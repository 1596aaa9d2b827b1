"""The recipe of the embedded point network on tiny clouds, and the stored network with its card."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lib.config import stored_settings
from lib.errors import InputError
from lib.extractors.point_mae import POINT_MAE_EMBEDDED, load_point_mae
from lib.pretraining import point_views, training, xyz
from lib.pretraining.families import FAMILIES
from lib.pretraining.point_views import draw_batch, random_turn, scene_views
from lib.pretraining.scenes import render_scene
from lib.runtime import file_sha256
from lib.synth3d import CATEGORIES
from tests.surfaces import sphere_cloud

TINY = dataclasses.replace(
    POINT_MAE_EMBEDDED, num_groups=13, group_size=7, dim=15, num_heads=5, encoder_widths=(3, 5, 7), position_width=4
)
RECIPE = xyz.XyzRecipe(num_scenes=2, tokens_per_step=26, crop_sizes=(5, 13), learning_rate=5e-3, warmup_steps=3)
EMBEDDED = Path(xyz.__file__).parents[1] / "extractors" / "embedded"


@pytest.fixture(scope="module")
def scene():
    return render_scene(np.random.default_rng(3), size=112, family="pebbles")


@pytest.fixture(scope="module")
def views(scene):
    return scene_views(scene, 13, 7)


def test_groups_are_the_nearest_points_of_each_sampling(scene, views):
    usable = scene.foreground & (scene.cloud[..., 2] != 0)
    middle = scene.cloud[usable].mean(axis=0, dtype=np.float64)
    for view, offset in enumerate((0, 1)):
        mask = np.zeros_like(usable)
        mask[offset::2, offset::2] = usable[offset::2, offset::2]
        points = scene.cloud[mask] - middle
        for center, group in zip(views.centers[view].numpy(), views.groups[view].numpy(), strict=True):
            distance = np.sort(np.linalg.norm(points - center, axis=1))
            assert distance[0] < 1e-6
            np.testing.assert_allclose(np.linalg.norm(group, axis=1), distance[:7], atol=1e-6)


def test_rows_of_both_samplings_are_the_same_places(views):
    assert torch.linalg.vector_norm(views.centers[0] - views.centers[1], dim=1).max() < 0.004
    assert not torch.equal(views.centers[0], views.centers[1])


def test_curvature_of_a_sphere_is_the_radius_over_its_own(scene):
    cloud, mask = sphere_cloud(0.03, 61, 61)
    views = scene_views(dataclasses.replace(scene, cloud=cloud, foreground=mask), 29, 7)
    inner = views.centers[0, :, :2].norm(dim=1) < 0.009  # no neighborhood of 6 mm is cut by the border
    assert int(inner.sum()) > 3
    curvature = views.shape[inner][:, [1, 4]]
    torch.testing.assert_close(curvature, torch.tensor([[0.1, 0.2]]).expand_as(curvature), rtol=0.15, atol=0)


def test_random_turn_keeps_lengths_and_nearly_the_camera_axis():
    generator = np.random.default_rng(0)
    turns = torch.stack([random_turn(generator) for _ in range(40)])
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3).expand(40, 3, 3), atol=1e-6, rtol=0)
    assert turns[:, 2, 2].min() > 0.95
    assert {round(float(value)) for value in torch.linalg.det(turns)} == {-1, 1}


def test_crops_are_turned_pieces_with_their_own_targets(views):
    groups, centers, shape = draw_batch([views], 26, (5,), np.random.default_rng(1))
    assert (groups.shape, centers.shape, shape.shape) == ((5, 5, 7, 3), (5, 5, 3), (5, 5, 9))
    for crop, target in zip(centers, shape, strict=True):
        rows = [int((views.shape == row).all(dim=1).nonzero()[0]) for row in target]
        gaps = [torch.cdist(crop, crop), *(torch.cdist(view[rows], view[rows]) for view in views.centers)]
        assert min(float((gaps[0] - gap).abs().max()) for gap in gaps[1:]) < 1e-5


def test_targets_are_scaled_limited_and_hold_the_depth(views):
    scale = point_views.TargetScale.fit([views])
    centers = views.centers[:1] * 3
    targets = scale.targets(views.shape[None], centers)
    assert targets.shape == (1, 13, 10)
    assert float(targets.abs().max()) <= point_views.TARGET_LIMIT
    depth = (centers[0, :, 2] - centers[0, :, 2].mean()) / point_views.HEIGHT_UNIT_M
    torch.testing.assert_close(targets[0, :, 9], depth.clamp(-point_views.TARGET_LIMIT, point_views.TARGET_LIMIT))


def test_codes_are_normalized_tokens_and_keep_directions():
    axes = point_views.code_axes(5, 11, np.random.default_rng(0))
    targets = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(0))
    codes = point_views.shape_codes(targets, axes)
    torch.testing.assert_close(codes.mean(dim=-1), torch.zeros(3, 7), atol=1e-6, rtol=0)
    torch.testing.assert_close(codes.square().mean(dim=-1), torch.ones(3, 7))
    back = codes @ axes.T
    torch.testing.assert_close(back[..., :4] / back[..., 4:] * point_views.CODE_CONSTANT, targets)


def test_a_masked_group_is_not_seen():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = xyz.ShapePredictor(TINY).eval()
        groups, centers = torch.randn(1, 13, 7, 3) / 500, torch.randn(1, 13, 3) / 100
    masked = torch.arange(13)[None] == 4
    changed = groups.clone()
    changed[0, 4] *= -2
    assert torch.equal(model(groups, centers, masked), model(changed, centers, masked))
    assert not torch.equal(model(groups, centers, ~masked), model(changed, centers, ~masked))


def test_loss_falls_and_seed_and_steps_decide_everything(views):
    first, losses = xyz.train([views], TINY, RECIPE, seed=5, steps=20, device="cpu", progress=False)
    again, repeated = xyz.train([views], TINY, RECIPE, seed=5, steps=20, device="cpu", progress=False)
    other, _ = xyz.train([views], TINY, RECIPE, seed=6, steps=2, device="cpu", progress=False)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])
    assert losses == repeated
    states = [network.state_dict() for network in (first, again, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["pos_embed.0.weight"], states[2]["pos_embed.0.weight"])
    assert not first.training
    assert torch.equal(first.norm.weight, torch.ones(15))


def test_curve_is_thinned_to_means():
    assert training.thinned([4.0, 2.0, 1.0, 3.0, 7.0], 2) == [2.3333, 5.0]
    assert training.thinned([1.0, 2.0], 200) == [1.0, 2.0]


def test_pretrain_writes_weights_and_card(tmp_path, monkeypatch, views):
    monkeypatch.setattr(xyz, "POINT_MAE_EMBEDDED", TINY)
    monkeypatch.setattr(xyz, "XyzRecipe", lambda: RECIPE)
    monkeypatch.setattr(xyz, "render_views", lambda num, config, seed, progress: [views] * num)
    card = xyz.pretrain(tmp_path, seed=2, steps=3, progress=False)
    path = tmp_path / "embedded_point.safetensors"
    assert json.loads(json.dumps(card)) == json.loads(path.with_suffix(".json").read_text())
    assert card["sha256"] == file_sha256(path)
    assert (card["seed"], card["steps"], len(card["curve"])) == (2, 3, 3)
    with pytest.raises(InputError, match="0 steps"):
        xyz.pretrain(tmp_path, seed=2, steps=0)


def test_scenes_depend_on_the_seed_and_their_number_only():
    config = dataclasses.replace(TINY, num_groups=5, group_size=3)
    one, two = (xyz.render_views(num, config, 4, progress=False)[0] for num in (1, 2))
    assert torch.equal(one.groups, two.groups)


def test_stored_network_is_the_one_its_card_describes():
    path = EMBEDDED / "embedded_point.safetensors"
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    state = load_file(path)
    network = load_point_mae(POINT_MAE_EMBEDDED, state)
    assert path.stat().st_size < 12e6
    assert card["sha256"] == file_sha256(path)
    assert all(tensor.dtype == torch.float16 for tensor in state.values() if tensor.is_floating_point())
    assert card["architecture"]["parameters"] == sum(each.numel() for each in network.parameters())
    settings = json.loads(json.dumps(stored_settings(POINT_MAE_EMBEDDED)))
    assert settings.pop("stride_px") == card["views"]["stride_px"]
    assert settings.items() <= card["architecture"].items()
    assert card["recipe"] == json.loads(json.dumps(dataclasses.asdict(xyz.XyzRecipe())))
    assert card["curve"][-1] < card["curve"][0]
    assert len(card["curve"]) <= 200
    assert re.fullmatch(r"[\d.]+", card["torch"])


def test_families_of_the_card_are_the_scenes_and_none_is_tested_on():
    card = json.loads((EMBEDDED / "embedded_point.json").read_text(encoding="utf-8"))
    assert card["families"] == list(FAMILIES)
    assert not set(card["families"]) & set(CATEGORIES)
