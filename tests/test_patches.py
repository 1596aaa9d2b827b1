"""Patches of a grid against `on_grid`, the way back to features, and maps of cell values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib.features import Features
from lib.grids import bilinear_resize, gaussian_blur
from lib.patches import PatchSet, dense_map, enlarged_mask, fill_cells, read_patches, to_features, touched_cells
from tests.factories import make_features

SIDES = [None, 1, 5, 7, 9, 28]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled_by_loop(grid: Tensor, cells: Tensor) -> Tensor:
    """(C, h, w) map: object cells as they are, others the mean of their object neighbors, 0 without one."""
    found = torch.zeros_like(grid)
    height, width = cells.shape
    for i in range(height):
        for j in range(width):
            around = [
                (a, b)
                for a in range(max(i - 1, 0), min(i + 2, height))
                for b in range(max(j - 1, 0), min(j + 2, width))
                if cells[a, b]
            ]
            if cells[i, j]:
                found[:, i, j] = grid[:, i, j]
            elif around:
                found[:, i, j] = torch.stack([grid[:, a, b] for a, b in around]).mean(dim=0)
    return found


@pytest.mark.parametrize("side", SIDES)
def test_patches_are_the_object_cells_in_row_major_order(side: int | None) -> None:
    sample = make_features(seed=1)
    patch_set = read_patches(sample, side)
    rgb_map, xyz_map, cells = sample.on_grid(side or 7)
    assert torch.equal(patch_set.cells, cells)
    assert patch_set.foreground is sample.foreground and patch_set.sample_id == sample.sample_id
    places = [(i, j) for i in range(len(cells)) for j in range(len(cells)) if cells[i, j]]
    assert len(patch_set.rgb) == len(patch_set.xyz) == len(places)
    for row, (i, j) in enumerate(places):
        assert torch.equal(patch_set.rgb[row], rgb_map[:, i, j])
        assert torch.equal(patch_set.xyz[row], xyz_map[:, i, j])


@pytest.mark.parametrize("side", SIDES)
def test_features_made_of_patches_read_as_those_patches(side: int | None) -> None:
    sample = make_features(seed=2)
    patch_set = read_patches(sample, side)
    found = read_patches(to_features(patch_set, sample), side or 7)
    assert torch.equal(found.cells, patch_set.cells)
    assert torch.equal(found.rgb, patch_set.rgb)
    torch.testing.assert_close(found.xyz, patch_set.xyz)


def test_features_may_have_other_channels_than_the_sample() -> None:
    sample = make_features(seed=2)
    read = read_patches(sample, 5)
    patch_set = PatchSet(drawn(len(read.rgb), 2), drawn(len(read.xyz), 7, seed=1), *_rest(read))
    features = to_features(patch_set, sample)
    found = read_patches(features)
    assert torch.equal(found.rgb, patch_set.rgb)
    torch.testing.assert_close(found.xyz, patch_set.xyz)
    for name in ("pixel_index", "foreground", "sample_id", "label", "gt_mask"):
        assert getattr(features, name) is getattr(sample, name)


def _rest(patch_set: PatchSet) -> tuple[Tensor, Tensor, str]:
    return patch_set.cells, patch_set.foreground, patch_set.sample_id


@pytest.fixture
def by_cell() -> tuple[Features, Features, list[tuple[int, int]]]:
    """A sample, its features by the cells of a 5 x 5 grid, and the cell of each foreground pixel."""
    sample = make_features(seed=3)
    places = [(int(p) // 28 * 5 // 28, int(p) % 28 * 5 // 28) for p in sample.pixel_index]
    return sample, to_features(read_patches(sample, 5), sample), places


def test_each_pixel_reads_its_own_cell(by_cell: tuple) -> None:
    sample, features, places = by_cell
    _, xyz_map, _ = sample.on_grid(5)
    _, xyz = features.at_pixels()
    expected = torch.stack([xyz_map[:, i, j] for i, j in places])
    torch.testing.assert_close(xyz, expected)


def test_the_center_of_a_cell_is_the_mean_of_its_pixels_interpolated_centers(by_cell: tuple) -> None:
    sample, features, places = by_cell
    points = [w @ sample.centers[n] for n, w in zip(sample.neighbors, sample.weights, strict=True)]
    for place, center in zip(sorted(set(places)), features.centers, strict=True):
        inside = [point for point, other in zip(points, places, strict=True) if other == place]
        torch.testing.assert_close(center, torch.stack(inside).mean(dim=0))


def test_rgb_at_the_rim_meets_no_zeros() -> None:
    sample = make_features(seed=4)
    patch_set = read_patches(sample)
    ones = PatchSet(torch.ones_like(patch_set.rgb), patch_set.xyz, *_rest(patch_set))
    rgb, _ = to_features(ones, sample).at_pixels()
    torch.testing.assert_close(rgb, torch.ones_like(rgb))


def test_cells_beside_the_object_take_the_mean_of_their_neighbors() -> None:
    cells = torch.tensor([[True, True, False], [False, False, False]])
    filled = fill_cells(torch.tensor([2.0, 4.0]), cells)
    torch.testing.assert_close(filled, torch.tensor([[2.0, 4.0, 4.0], [3.0, 3.0, 4.0]]))


@pytest.mark.parametrize("channels", [1, 3])
def test_filled_cells_match_the_loop(channels: int) -> None:
    cells = drawn(5, 7, seed=1) > 0.7
    values = drawn(int(cells.sum()), channels, seed=2)
    grid = torch.zeros(channels, 5, 7)
    grid[:, cells] = values.T
    torch.testing.assert_close(fill_cells(values, cells), filled_by_loop(grid, cells))
    torch.testing.assert_close(fill_cells(values[:, 0], cells), fill_cells(values, cells)[0])


def test_dense_map_is_resized_then_cut_then_blurred() -> None:
    patch_set = read_patches(make_features(seed=5))
    values = drawn(len(patch_set.rgb)).abs()
    sharp = dense_map(values, patch_set, 0.1)
    resized = bilinear_resize(fill_cells(values, patch_set.cells), 28)
    torch.testing.assert_close(sharp, torch.where(patch_set.foreground, resized, 0.0))
    blurred = dense_map(values, patch_set, 1.5)
    torch.testing.assert_close(blurred, gaussian_blur(sharp, 1.5))
    assert blurred.shape == (28, 28) and blurred.dtype == torch.float32


def test_touched_cells_are_those_with_a_foreground_pixel_and_grow_back_to_whole_cells():
    sample = make_features(seed=1)
    found = touched_cells(sample, 5)
    expected = torch.zeros(5, 5, dtype=torch.bool)
    for row, column in sample.foreground.nonzero().tolist():
        expected[row * 5 // 28, column * 5 // 28] = True
    assert torch.equal(found, expected)
    large = enlarged_mask(found, (10, 15))
    assert torch.equal(large, found.repeat_interleave(2, 0).repeat_interleave(3, 1))
