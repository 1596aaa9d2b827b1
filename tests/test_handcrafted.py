import dataclasses

import numpy as np
import pytest
import torch

from lib.config import ExtractorSpec
from lib.data import IMAGENET_MEAN, IMAGENET_STD, Sample
from lib.errors import InputError
from lib.extractors import get_extractor
from lib.extractors.handcrafted import (
    OPPONENT,
    HandcraftedRgbConfig,
    HandcraftedXyzConfig,
    cell_means,
    center_rows,
    color_tokens,
    gradient_tokens,
    rgb_tokens,
    xyz_tokens,
)
from lib.extractors.surface import sample_surface
from tests.surfaces import bumpy_cloud

RGB, XYZ = HandcraftedRgbConfig(), HandcraftedXyzConfig()
PAIR = get_extractor(ExtractorSpec("handcrafted", "handcrafted"))
SIDE = 44


def normalized(colors):
    """(3, S, S) ImageNet-normalised image of colors in [0, 1]."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (colors - mean) / std


def made_sample(seed=3):
    cloud, mask = bumpy_cloud(height=SIDE, width=SIDE, seed=seed, missing=0.03)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    mask &= (np.abs(rows - 21) < 16) & (np.abs(columns - 24) < 13)
    colors = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return Sample(
        sample_id=f"test/bump/{seed:03d}",
        category="thing",
        split="test",
        defect="bump",
        label=1,
        rgb=normalized(colors),
        cloud=torch.from_numpy((cloud * mask[..., None]).astype(np.float32).transpose(2, 0, 1).copy()),
        foreground=torch.from_numpy(mask),
        gt_mask=torch.zeros(SIDE, SIDE, dtype=torch.bool),
        depth=torch.zeros(SIDE, SIDE),
        rgb_padded=np.zeros((SIDE, SIDE, 3), dtype=np.uint8),
    )


def window(row, column, window_cells, cells=SIDE // 4):
    """Pixel slices of the window of cells around one cell, cut at the border."""
    reach = window_cells // 2
    return tuple(slice(4 * max(0, k - reach), 4 * min(cells, k + reach + 1)) for k in (row, column))


def test_opponent_matrix_is_orthonormal_and_gray_is_intensity_alone():
    matrix = np.array(OPPONENT)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(matrix @ np.ones(3), [0, 0, np.sqrt(3)], atol=1e-12)


@pytest.mark.parametrize("window_cells", [1, 3, 7])
def test_cell_means_equal_slices_of_the_image(window_cells):
    maps = torch.rand(2, SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = cell_means(maps, 4, window_cells)
    for row, column in ((0, 0), (0, 10), (5, 4), (10, 7)):
        rows, columns = window(row, column, window_cells)
        torch.testing.assert_close(found[:, row, column], maps[:, rows, columns].mean(dim=(1, 2)))


def test_color_tokens_are_mean_and_deviation_of_each_window():
    opponent = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = color_tokens(opponent, RGB)
    for k, window_cells in enumerate(RGB.color_windows_cells):
        for row, column in ((0, 3), (6, 6), (10, 10)):
            rows, columns = window(row, column, window_cells)
            patch = opponent[:, rows, columns].flatten(1)
            expected = torch.cat([patch.mean(dim=1), patch.std(dim=1, correction=0)]).float()
            torch.testing.assert_close(found[6 * k : 6 * k + 6, row, column], expected, atol=1e-6, rtol=1e-5)


def test_a_plain_image_has_no_deviation_and_no_gradient():
    tokens = rgb_tokens(normalized(torch.full((3, SIDE, SIDE), 0.4)), RGB)
    color, gradient = tokens[:18].reshape(3, 6, 11, 11), tokens[18:]
    assert color[:, 2].sub(0.4 * 3**0.5).abs().max() < 1e-5
    assert color[:, :2].abs().max() < 1e-5
    assert color[:, 3:].abs().max() < 1e-5
    assert gradient.abs().max() < 1e-4


def test_gradient_tokens_equal_a_loop_over_pixels():
    intensity = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = gradient_tokens(intensity, RGB)
    image = np.pad(intensity.numpy(), 1, mode="edge")
    for k, window_cells in enumerate(RGB.gradient_windows_cells):
        for row, column in ((0, 0), (5, 8)):
            rows, columns = window(row, column, window_cells)
            votes, pixels = np.zeros(9), 0
            for r in range(rows.start, rows.stop):
                for c in range(columns.start, columns.stop):
                    down, right = (
                        (image[r + 2, c + 1] - image[r, c + 1]) / 2,
                        (image[r + 1, c + 2] - image[r + 1, c]) / 2,
                    )
                    degrees = np.degrees(np.arctan2(down, right)) % 180
                    away = np.abs(degrees - (10 + 20 * np.arange(9)))
                    votes += np.hypot(down, right) * np.maximum(0, 1 - np.minimum(away, 180 - away) / 20)
                    pixels += 1
            strength = votes.sum() / pixels
            expected = np.append(votes / pixels / (strength + RGB.gradient_noise), strength)
            np.testing.assert_allclose(found[10 * k : 10 * k + 10, row, column], expected, rtol=1e-5, atol=1e-6)


def test_a_ramp_to_the_right_votes_for_the_two_bins_around_zero_degrees():
    tokens = gradient_tokens(torch.arange(SIDE).double().repeat(SIDE, 1) * 0.01, RGB)[:10, 5, 5]
    share = 0.5 * 0.01 / (0.01 + RGB.gradient_noise)
    torch.testing.assert_close(tokens, torch.tensor([share, *[0.0] * 7, share, 0.01]), atol=1e-6, rtol=1e-6)


def test_center_rows_are_the_points_nearest_the_middle_of_their_cells():
    sample = made_sample()
    cloud = sample.cloud.permute(1, 2, 0).numpy()
    surface = sample_surface(cloud, sample.foreground.numpy(), XYZ.normal_radius_m, 2)
    pixels = np.argwhere(surface.index_grid >= 0) * 2
    chosen = center_rows(surface, 4)
    by_cell = {}
    for row, (r, c) in enumerate(pixels.tolist()):
        squared = (r % 4 - 1.5) ** 2 + (c % 4 - 1.5) ** 2
        if squared < by_cell.get((r // 4, c // 4), (np.inf, 0))[0]:
            by_cell[r // 4, c // 4] = (squared, row)
    assert chosen.tolist() == [row for _, (_, row) in sorted(by_cell.items())]


def test_the_extractor_gives_the_dimensions_it_promises_with_finite_real_centers():
    sample = made_sample()
    extractor = PAIR
    features = extractor(sample)
    assert features.rgb_tokens.shape == (extractor.rgb_dim, 11, 11) == (38, 11, 11)
    assert features.xyz_tokens.shape == (len(features.centers), extractor.xyz_dim)
    assert extractor.xyz_dim == 73
    assert features.rgb_tokens.dtype == features.xyz_tokens.dtype == features.centers.dtype == torch.float32
    points = sample.cloud[:, sample.foreground].T
    gaps = torch.cdist(features.centers.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist")
    assert gaps.min(dim=1).values.max() < 1e-6
    rgb, xyz = features.at_pixels()
    assert len(rgb) == len(xyz) == int(sample.foreground.sum())


def test_two_runs_are_identical_and_leave_the_sample_alone():
    sample = made_sample()
    before = sample.rgb.clone(), sample.cloud.clone()
    first, second = PAIR(sample), PAIR(sample)
    assert torch.equal(first.rgb_tokens, second.rgb_tokens)
    assert torch.equal(first.xyz_tokens, second.xyz_tokens)
    assert torch.equal(sample.rgb, before[0])
    assert torch.equal(sample.cloud, before[1])


def test_points_off_the_object_and_missing_returns_do_not_reach_the_3d_tokens():
    sample = made_sample()
    littered = sample.cloud + (~sample.foreground) * torch.tensor([0.01, 0.02, 0.5]).view(3, 1, 1)
    clean, dirty = PAIR(sample), PAIR(dataclasses.replace(sample, cloud=littered))
    assert torch.equal(clean.xyz_tokens, dirty.xyz_tokens)
    assert torch.equal(clean.centers, dirty.centers)
    wide = dataclasses.replace(sample, foreground=torch.ones_like(sample.foreground))  # holes called object
    assert torch.equal(PAIR(wide).xyz_tokens, clean.xyz_tokens)


def test_3d_tokens_do_not_read_colors_nor_rgb_tokens_the_cloud():
    sample = made_sample()
    gray = PAIR(dataclasses.replace(sample, rgb=torch.zeros_like(sample.rgb)))
    flat = PAIR(dataclasses.replace(sample, cloud=made_sample(9).cloud))
    features = PAIR(sample)
    assert torch.equal(gray.xyz_tokens, features.xyz_tokens)
    assert torch.equal(flat.rgb_tokens, features.rgb_tokens)


def test_height_is_in_millimetres_over_the_median():
    sample = made_sample()
    tokens, _ = xyz_tokens(sample.cloud.permute(1, 2, 0).numpy(), sample.foreground.numpy(), XYZ)
    depth_mm = 1000 * sample.cloud[2][sample.foreground]
    assert float(tokens[:, -1].max() - tokens[:, -1].min()) == pytest.approx(
        float(depth_mm.max() - depth_mm.min()), rel=0.3
    )
    assert abs(float(tokens[:, -1].median())) < 0.2


def test_settings_and_names_that_cannot_work_are_refused():
    with pytest.raises(InputError, match="give odd numbers"):
        HandcraftedRgbConfig(color_windows_cells=(2,))
    with pytest.raises(InputError, match="must divide cell_px 4"):
        HandcraftedXyzConfig(stride_px=3)


def test_samples_that_hold_no_object_are_named():
    sample = made_sample()
    with pytest.raises(InputError, match="test/bump/003: no foreground pixel has a return"):
        PAIR(dataclasses.replace(sample, foreground=torch.zeros_like(sample.foreground)))
    speck = torch.zeros_like(sample.foreground)
    speck[20, 20:22] = True
    with pytest.raises(InputError, match="test/bump/003: cloud: the object spans too few distinct points"):
        PAIR(dataclasses.replace(sample, foreground=speck))
    with pytest.raises(InputError, match=r"test/bump/003: radius .* check that the cloud is in metres"):
        PAIR(dataclasses.replace(sample, cloud=sample.cloud / 1000))
    with pytest.raises(InputError, match=r"\(42, 44\) pixels do not divide into cells of 4"):
        rgb_tokens(sample.rgb[:, :42], RGB)
