"""Depth tokens against loops and planes whose answer is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lib.config import ExtractorSpec
from lib.data import Sample
from lib.errors import InputError
from lib.extractors import extractor_settings, get_extractor
from lib.extractors.depth import (
    NOWHERE_M,
    DepthConfig,
    DepthExtractor,
    closed,
    corner_surface,
    fill_holes,
    object_depth,
)

SMALL = DepthConfig(side_px=12, cell_px=4)


def bump_sample(height: int = 24, width: int = 24, missing: tuple[int, int] = (11, 13)) -> Sample:
    """A board that slopes both ways with a round bump on it, one return missing within the bump."""
    rows, columns = np.mgrid[:height, :width].astype(float)
    board = 0.5 + 0.001 * rows - 0.0005 * columns
    bump = (rows - 11) ** 2 + (columns - 12) ** 2 < 36
    depth = np.where(bump, board - 0.02 - 0.0002 * rows, board)
    depth[missing] = 0
    x, y = columns * 0.001, rows * 0.001
    object_there = bump & (depth != 0)
    cloud = np.stack([x, y, depth]) * object_there
    return Sample(
        sample_id="test/bump/000",
        category="board",
        split="test",
        defect="bump",
        label=1,
        rgb=torch.zeros(3, height, width),
        cloud=torch.from_numpy(cloud.astype(np.float32)),
        foreground=torch.from_numpy(object_there),
        gt_mask=torch.zeros(height, width, dtype=torch.bool),
        depth=torch.from_numpy(depth.astype(np.float32)),
        rgb_padded=np.zeros((height, width, 3), dtype=np.uint8),
    )


def slow_fill(depth: np.ndarray, num_rounds: int) -> np.ndarray:
    for _ in range(num_rounds):
        after = depth.copy()
        for row, column in np.argwhere(depth == 0):
            around = depth[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            if around.any():
                after[row, column] = around[around != 0].mean()
        depth = after
    return depth


def test_holes_close_by_a_pixel_a_round_as_in_the_loop() -> None:
    generator = np.random.default_rng(0)
    depth = generator.uniform(0.4, 0.6, (17, 13)) * (generator.random((17, 13)) < 0.6)
    depth[4:11, 3:9] = 0
    for num_rounds in (0, 1, 3):
        np.testing.assert_allclose(fill_holes(depth, num_rounds), slow_fill(depth, num_rounds), rtol=1e-9)
    assert (fill_holes(depth, 3)[4:11, 3:9] == 0).sum() == 0 < (fill_holes(depth, 1)[4:11, 3:9] == 0).sum()
    assert not fill_holes(np.zeros((3, 5)), 3).any()


def test_closing_fills_small_holes_and_wears_nothing_off_at_the_border() -> None:
    mask = np.zeros((21, 17), dtype=bool)
    mask[:, 3:] = True
    mask[9:12, 8] = mask[0, 12] = mask[5, 16] = False
    whole = np.zeros_like(mask)
    whole[:, 3:] = True
    np.testing.assert_array_equal(closed(mask, 3), whole)
    mask[2:15, 5:15] = False
    assert not closed(mask, 3)[8, 10]


def test_a_plane_is_its_own_corner_surface() -> None:
    rows, columns = np.mgrid[:11, :7]
    plane = 0.3 + 0.01 * rows - 0.02 * columns + 0.003 * rows * columns
    np.testing.assert_allclose(corner_surface(plane), plane, rtol=1e-12)
    padded = np.pad(np.full((11, 7), 0.4), 3)
    np.testing.assert_allclose(corner_surface(padded)[3:-3, 3:-3], 0.4)


def test_object_is_centered_and_scaled_and_the_background_0() -> None:
    depth, inside = np.full((12, 12), 0.9), np.zeros((12, 12), dtype=bool)
    inside[2:5, 3:9] = True
    depth[2:5, 3:9] = np.linspace(0.40, 0.42, 6)
    found = object_depth(depth, inside, SMALL)
    assert found.dtype == np.float32 and not found[~inside].any()
    np.testing.assert_allclose(found[3, 3:9], np.linspace(-1, 1, 6), atol=1e-5)


def test_both_masks_find_the_bump() -> None:
    sample = bump_sample()
    for mask in ("foreground", "corners"):
        config = dataclasses.replace(SMALL, mask=mask, side_px=24)
        tokens, _ = DepthExtractor(config)(sample)
        assert tokens.shape == (36, 16) and tokens.dtype == torch.float32
        folded = tokens.view(6, 6, 4, 4).permute(0, 2, 1, 3).reshape(24, 24)
        bump = np.hypot(*np.mgrid[-11:13, -12:12]) < 6
        np.testing.assert_array_equal(folded.numpy() != 0, bump)  # the missing return is filled
        around = folded[10:13, 12:15].clone()
        around[1, 1] = 0
        assert float(folded[11, 13]) == pytest.approx(float(around.sum()) / 8, abs=1e-3)
        assert abs(float(folded[torch.from_numpy(bump)].mean())) < 0.05


def test_tokens_are_the_pixels_of_their_cells_and_centers_their_mean_points() -> None:
    sample = bump_sample()
    config = dataclasses.replace(SMALL, side_px=24)
    tokens, centers = DepthExtractor(config)(sample)
    filled = sample.cloud[2].double()
    filled[11, 13] = (filled[10:13, 12:15].sum() / 8).item()  # of a missing return's neighbors
    mean = filled[filled > 0].mean()
    for cell in range(36):
        rows, columns = slice(4 * (cell // 6), 4 * (cell // 6) + 4), slice(4 * (cell % 6), 4 * (cell % 6) + 4)
        inside = sample.foreground[rows, columns]
        expected = ((filled[rows, columns] - mean) * 100 * (filled[rows, columns] > 0)).flatten().float()
        torch.testing.assert_close(tokens[cell], expected, rtol=1e-4, atol=1e-4)
        points = sample.cloud[:, rows, columns][:, inside]
        want = points.mean(dim=1) if inside.any() else torch.full((3,), NOWHERE_M)
        torch.testing.assert_close(centers[cell], want)


@pytest.mark.parametrize("name", ["depth", "depth_corners"])
def test_features_with_depth_are_whole_and_cells_without_an_object_are_nobodys_neighbors(name: str) -> None:
    extractor = get_extractor(ExtractorSpec("handcrafted", name))
    sample = bump_sample(224, 224, missing=(0, 0))
    features = extractor(sample)
    assert features.xyz_tokens.shape == (576, 64) and extractor.xyz_dim == 64
    real = features.centers.norm(dim=1) < NOWHERE_M
    weight_off = features.weights[~real[features.neighbors]]
    assert weight_off.numel() == 0 or float(weight_off.max()) < 1e-6
    assert extractor_settings(ExtractorSpec("handcrafted", name))["xyz"]["name"] == name


def test_what_cannot_work_is_one_line() -> None:
    with pytest.raises(InputError, match="mask of the depth 'none' is unknown"):
        DepthConfig(mask="none")
    with pytest.raises(InputError, match="side_px 13 is no multiple of cell_px 8"):
        DepthConfig(side_px=13)
    empty = dataclasses.replace(bump_sample(), depth=torch.zeros(24, 24))
    with pytest.raises(InputError, match="test/bump/000: its depth has no return"):
        DepthExtractor(dataclasses.replace(SMALL, mask="corners"))(empty)
    flat = dataclasses.replace(bump_sample(), depth=torch.full((24, 24), 0.5))
    with pytest.raises(InputError, match="nothing is left of the object"):
        DepthExtractor(dataclasses.replace(SMALL, mask="corners"))(flat)


def test_padding_does_not_tilt_the_corner_surface() -> None:
    rows, columns = np.mgrid[:11, :5]
    plane = 0.3 + 0.01 * rows - 0.02 * columns
    padded = np.pad(plane, ((0, 0), (3, 3)))
    np.testing.assert_allclose(corner_surface(padded)[:, 3:-3], plane, rtol=1e-12)
    assert not corner_surface(padded)[:, :3].any()
