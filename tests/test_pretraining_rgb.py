"""The recipe of the embedded Vision Transformer: views, descriptors, readout, and a tiny training."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data_scripts import pretrain as script
from lib.errors import InputError
from lib.extractors.embedded_vit import DIM, build_embedded_vit
from lib.pretraining import rgb, rgb_views, training
from lib.pretraining.families import FAMILIES
from lib.pretraining.rgb_model import MaskedPredictor, Readout, RgbRecipe, orthonormal_frame, whitening_filters
from lib.pretraining.rgb_views import NUM_DESCRIPTORS, descriptors, disturb, draw_crops, draw_hidden, normalized
from lib.runtime import file_sha256

RECIPE = RgbRecipe(num_scenes=3, crops=((24, 5), (40, 2)), cut_depths=(1, 2), learning_rate=5e-3)


def generator(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def scenes() -> tuple[np.ndarray, np.ndarray]:
    """Three small pictures of blocks and noise, and their objects."""
    draw = generator(0)
    pictures = draw.integers(40, 200, (3, 14, 14, 3)).repeat(8, axis=1).repeat(8, axis=2)
    pictures = (pictures + draw.normal(0, 6, pictures.shape)).clip(0, 255).astype(np.uint8)
    objects = np.zeros(pictures.shape[:3], bool)
    objects[:, 30:80, 20:70] = True
    return pictures, objects


class TestCrops:
    def test_are_pieces_of_the_pictures_turned_or_mirrored(self, scenes):
        pictures, objects = scenes
        crops = (draw_crops(pictures, objects, 24, 7, generator()) * 255).round().byte().numpy().transpose(0, 2, 3, 1)
        assert crops.shape == (7, 24, 24, 3)
        places = np.lib.stride_tricks.sliding_window_view(pictures[..., 0], (24, 24), axis=(1, 2))
        for crop in crops[..., 0]:
            turned = [np.rot90(each, quarter) for each in (crop, crop[:, ::-1]) for quarter in range(4)]
            candidates = [places[(places[..., 0, :2] == each[0, :2]).all(-1)] for each in turned]
            assert any((found == each).all((1, 2)).any() for found, each in zip(candidates, turned, strict=True))

    def test_most_touch_the_object(self, scenes):
        _, objects = scenes
        marked = np.where(objects[..., None], np.uint8(255), np.uint8(0)).repeat(3, axis=-1)
        touching = draw_crops(marked, objects, 24, 60, generator()).amax((1, 2, 3)) > 0
        assert touching.float().mean() > rgb_views.OBJECT_SHARE - 0.1

    def test_whole_picture_and_empty_object(self, scenes):
        pictures, objects = scenes
        crops = draw_crops(pictures, np.zeros_like(objects), 112, 2, generator())
        assert crops.shape == (2, 3, 112, 112)


class TestDisturb:
    def test_stays_in_range_near_the_crop_and_repeats(self):
        crops = torch.rand(9, 3, 16, 16)
        disturbed = disturb(crops, generator())
        assert disturbed.min() >= 0
        assert disturbed.max() <= 1
        assert 0 < (disturbed - crops).abs().mean() < 0.1
        assert torch.equal(disturbed, disturb(crops, generator()))

    def test_half_of_the_crops_get_no_noise(self):
        flat = torch.full((200, 3, 16, 16), 0.5)
        disturbed = disturb(flat, generator())
        bends = torch.diff(disturbed.log(), n=2, dim=-1).abs().amax((1, 2, 3))  # shading is a log-linear ramp
        assert 0.35 < (bends < 1e-4).float().mean() < 0.65


class TestDescriptors:
    def test_against_loops(self):
        crops = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
        found = descriptors(crops)
        assert found.shape == (2, 9, NUM_DESCRIPTORS)
        expected = slow_descriptor(crops[1].double().numpy(), row=1, column=0)
        np.testing.assert_allclose(found[1, 3].numpy(), expected, atol=2e-3)

    def test_see_orientation(self):
        stripes = (torch.arange(24) // 2 % 2).float().expand(1, 3, 24, 24)
        histogram = slice(6, 6 + rgb_views.NUM_ORIENTATIONS)
        assert descriptors(stripes)[0, 4, histogram].argmax() == 0  # the gradient points across
        assert descriptors(stripes.mT)[0, 4, histogram].argmax() in (4, 5)  # 90 degrees lie between these bins

    def test_are_finite_on_a_flat_picture(self):
        assert torch.isfinite(descriptors(torch.zeros(1, 3, 16, 16))).all()


def slow_descriptor(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    """Descriptor of one patch of a (3, S, S) picture, by loops over pixels."""
    red, green, blue = picture
    colors = np.stack([(red - green) / 2**0.5, (red + green - 2 * blue) / 6**0.5, (red + green + blue) / 3**0.5])
    side, patch = picture.shape[-1], 8
    padded = np.pad(colors[2], 1, mode="edge")
    found = []
    for reach in (0, 1):
        patches = [
            (r, c)
            for r in range(row - reach, row + reach + 1)
            for c in range(column - reach, column + reach + 1)
            if 0 <= r < side // patch and 0 <= c < side // patch
        ]
        pixels = [(r * patch + i, c * patch + j) for r, c in patches for i in range(patch) for j in range(patch)]
        values = np.array([colors[:, y, x] for y, x in pixels])
        histogram = np.zeros(9)
        for y, x in pixels:
            across = (padded[y + 1, x + 2] - padded[y + 1, x]) / 2
            down = (padded[y + 2, x + 1] - padded[y, x + 1]) / 2
            position = math.atan2(down, across) / math.pi * 9 % 9
            lower = int(position) % 9
            histogram[lower] += math.hypot(across, down) * (1 - position % 1)
            histogram[(lower + 1) % 9] += math.hypot(across, down) * (position % 1)
        found += [values.mean(0), np.log(values.std(0) + 0.005), np.log(histogram / len(pixels) + 0.001)]
    quarters = colors[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
    found.append(quarters.reshape(3, 2, 4, 2, 4).mean((2, 4)).ravel())
    return np.concatenate(found)


def test_half_of_the_crops_hide_their_share_of_tokens():
    hidden = draw_hidden(400, 49, 0.3, generator())
    assert hidden.shape == (400, 49)
    touched = hidden.any(dim=1)
    assert 0.4 < touched.float().mean() < 0.6
    assert hidden[touched].float().mean() == pytest.approx(0.3, abs=0.02)


def test_first_filters_whiten_small_patches():
    crops = normalized(torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(2)))
    crops = (crops + crops.roll(1, -1)) * torch.tensor([1.0, 0.2, 3.0])[:, None, None]
    weight, bias = whitening_filters(crops, floor=0.0)
    answers = torch.nn.functional.conv2d(crops, weight, bias, stride=2)[:, :27].transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.cov(answers), torch.eye(27), rtol=0, atol=2e-2)
    torch.testing.assert_close(weight[27:], -weight[:27])


@pytest.fixture(scope="module")
def readout() -> Readout:
    return Readout(orthonormal_frame(23, 7, generator()), torch.zeros(7), torch.ones(7), RECIPE)


class TestReadout:
    def test_frame_is_orthonormal_and_sums_to_zero(self, readout):
        torch.testing.assert_close(readout.frame.T @ readout.frame, torch.eye(8), rtol=0, atol=1e-6)
        assert readout.frame.sum(dim=0).abs().max() < 1e-6

    def test_loss_vanishes_where_tokens_are_the_descriptors_whatever_the_last_column_holds(self, readout):
        targets = torch.randn(2, 5, 7)
        scale = RECIPE.frame_share * math.sqrt(23 / 7)
        inside = torch.cat([targets * scale, torch.randn(2, 5, 1)], dim=-1)
        assert readout.loss(inside @ readout.frame.T, targets) == pytest.approx(0, abs=1e-6)

    def test_what_lies_outside_the_frame_costs(self, readout):
        noise = torch.randn(2, 5, 23)
        outside = noise - noise @ readout.frame @ readout.frame.T
        loss = readout.loss(outside, torch.zeros(2, 5, 7))
        assert loss == pytest.approx(float(outside.square().mean()) / RECIPE.frame_share**2, rel=1e-4)


class TestMaskedPredictor:
    def test_without_masks_it_is_the_network(self):
        torch.manual_seed(0)
        model = MaskedPredictor(build_embedded_vit(num_blocks=2), (1, 2)).eval()
        picture = torch.randn(2, 3, 24, 24)
        with torch.inference_mode():
            last = model(picture, torch.zeros(2, 9, dtype=torch.bool))[-1]
            exact = model.network.forward_features(picture)
        assert (last - exact).abs().max() < 0.1  # bfloat16 in the one, float32 in the other

    def test_a_hidden_patch_is_not_seen(self):
        torch.manual_seed(0)
        model = MaskedPredictor(build_embedded_vit(num_blocks=2), (1, 2)).eval()
        tokens = torch.randn(1, 9, DIM)
        model.network.patch_embed = torch.nn.Identity()
        changed = tokens.clone()
        changed[0, 4] += 3
        hidden = torch.zeros(1, 9, dtype=torch.bool)
        hidden[0, 4] = True
        grid, other = tokens.unflatten(1, (3, 3)), changed.unflatten(1, (3, 3))
        with torch.inference_mode():
            assert torch.equal(model(grid, hidden)[-1], model(other, hidden)[-1])
            assert not torch.equal(model(grid, ~hidden)[-1], model(other, ~hidden)[-1])


@pytest.fixture(scope="module")
def trained(scenes):
    return rgb.train(*scenes, RECIPE, seed=1, steps=24, num_blocks=2)


class TestTraining:
    def test_loss_falls_at_every_depth(self, trained):
        losses = np.array(trained[1])
        assert losses.shape == (24, 2)
        assert (losses[-4:].mean(0) < 0.5 * losses[:2].mean(0)).all()

    def test_repeats_by_seed_and_leaves_the_global_generator_alone(self, scenes, trained):
        torch.manual_seed(99)
        expected = torch.rand(1)
        torch.manual_seed(99)
        again = rgb.train(*scenes, RECIPE, seed=1, steps=24, num_blocks=2)
        assert torch.equal(torch.rand(1), expected)
        assert again[1] == trained[1]
        pairs = zip(again[0].state_dict().values(), trained[0].state_dict().values(), strict=True)
        assert all(torch.equal(left, right) for left, right in pairs)

    def test_another_seed_gives_another_network(self, scenes, trained):
        other = rgb.train(*scenes, RECIPE, seed=2, steps=1, num_blocks=2)
        assert other[1][0] != trained[1][0]


class TestCommand:
    def test_writes_weights_and_card(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(rgb, "RgbRecipe", lambda: dataclasses.replace(RECIPE, num_scenes=1, cut_depths=(4, 12)))
        script.main(["rgb", "--steps", "2", "--seed", "3", "--output", str(tmp_path)])
        card = json.loads((tmp_path / "embedded_vit.json").read_text(encoding="utf-8"))
        assert card["sha256"] == file_sha256(tmp_path / "embedded_vit.safetensors")
        assert card["sha256"] in capsys.readouterr().out
        assert (card["seed"], card["steps"], card["families"]) == (3, 2, list(FAMILIES))
        assert set(card["curve"]) == {"loss after block 4", "loss after block 12"}
        build_embedded_vit().load_state_dict(load_file(tmp_path / "embedded_vit.safetensors"))

    def test_no_steps(self, tmp_path):
        with pytest.raises(InputError, match="0 steps; give at least 1"):
            script.main(["rgb", "--steps", "0", "--output", str(tmp_path)])


class TestShared:
    def test_schedule_rises_and_falls_to_zero(self):
        shares = [training.learning_rate_share(step, 50, 5) for step in range(50)]
        assert shares[0] == pytest.approx(0.2, rel=0.01)
        assert int(np.argmax(shares)) == 4
        assert 0 < shares[-1] < 0.01

    def test_thinned_curve_keeps_the_mean(self):
        values = list(range(1000))
        assert len(training.thinned(values)) == 200
        assert np.mean(training.thinned(values)) == pytest.approx(np.mean(values))
        assert training.thinned([1.0, 2.0]) == [1.0, 2.0]

    def test_decay_spares_vectors(self):
        matrix, vector = torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(3))
        groups = training.adamw([matrix, vector], 0.1, 0.5).param_groups
        assert [(group["weight_decay"], group["params"]) for group in groups] == [(0.5, [matrix]), (0.0, [vector])]
