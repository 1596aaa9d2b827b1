"""Padding, resizing and blurring against loops, SciPy, PIL, torch and the reference case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from torch.nn import functional

from lib import grids
from lib.errors import InputError

CFM_CASE = Path(__file__).parent / "cases" / "cfm_case.npz"


def slow_box_mean(image: np.ndarray, kernel_px: int) -> np.ndarray:
    """Mean of a box around each pixel by four loops; pixels beyond the image count as zeros."""
    height, width = image.shape
    half, blurred = kernel_px // 2, np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            for r in range(max(0, row - half), min(height, row + half + 1)):
                for c in range(max(0, column - half), min(width, column + half + 1)):
                    blurred[row, column] += image[r, c] / kernel_px**2
    return blurred


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 41), st.integers(1, 37), st.integers(1, 17), st.sampled_from([(), (3,)]))
def test_padding_is_square_centred_and_keeps_the_pixels(height, width, multiple, tail):
    array = np.arange(1, 1 + np.prod((height, width, *tail))).reshape(height, width, *tail)
    padded = grids.pad_to_square(array, multiple)
    side, longest = padded.shape[0], max(height, width)
    assert padded.shape == (side, side, *tail)
    assert side % multiple == 0
    assert longest <= side < longest + multiple
    top, left = (side - height) // 2, (side - width) // 2
    np.testing.assert_array_equal(padded[top : top + height, left : left + width], array)
    assert padded.sum() == array.sum()  # all else is zero


def test_edge_padding_replicates_the_border():
    padded = grids.pad_to_square(np.array([[1, 2], [3, 4], [5, 6], [7, 8]]), multiple=1, mode="edge")
    np.testing.assert_array_equal(padded, [[1, 1, 2, 2], [3, 3, 4, 4], [5, 5, 6, 6], [7, 7, 8, 8]])


def test_full_square_needs_no_padding_and_is_still_a_copy():
    array = np.ones((100, 100))
    padded = grids.pad_to_square(array)
    padded[0, 0] = 5
    assert array[0, 0] == 1
    assert padded.shape == (100, 100)


@pytest.mark.parametrize(("rule", "tolerance_px"), [("center", 0.5), ("corner", 1.0)])
def test_rgb_cloud_and_mask_stay_registered_from_256x200_to_224(rule, tolerance_px):
    block = (slice(90, 130), slice(60, 85))
    rgb, cloud = np.zeros((256, 200, 3), np.uint8), np.zeros((256, 200, 3), np.float32)
    mask = np.zeros((256, 200), bool)
    rgb[block], cloud[block], mask[block] = 255, (0.1, 0.2, 0.5), True
    small_rgb = grids.resize_rgb(grids.pad_to_square(rgb, mode="edge"), 224).mean(axis=2) / 255
    small_cloud = grids.resize_nearest(grids.pad_to_square(cloud), 224, rule)[..., 2] / 0.5
    small_mask = grids.resize_nearest(grids.pad_to_square(mask), 224, rule).astype(float)
    np.testing.assert_array_equal(small_cloud > 0, small_mask > 0)
    expected = (np.array([110 + 22, 72.5 + 50]) * 224 / 300) - 0.5  # the block's middle, moved by the padding
    np.testing.assert_allclose(ndimage.center_of_mass(small_rgb), expected, atol=0.05)
    np.testing.assert_allclose(ndimage.center_of_mass(small_mask), expected, atol=tolerance_px)
    disagreement = (small_rgb > 0.5) != (small_mask > 0)
    assert disagreement.sum() <= 0.5 * (2 * 30 + 2 * 19)  # at most part of the one-pixel outline


def test_center_rule_has_no_bias_and_corner_rule_half_a_pixel():
    ramp = np.arange(800.0)[:, None].repeat(800, axis=1)
    wanted = (np.arange(224) + 0.5) * 800 / 224 - 0.5
    center, corner = ((grids.resize_nearest(ramp, 224, rule)[:, 0] - wanted).mean() for rule in ("center", "corner"))
    assert abs(center) < 0.2  # source pixels of 3.6 to an output pixel
    assert corner == pytest.approx(-0.5 * 800 / 224, abs=0.2)


@settings(max_examples=80, deadline=None)
@given(length=st.integers(1, 911), side=st.integers(1, 300))
def test_nearest_rules_are_those_of_torch_and_pil(length, side):
    source = torch.arange(length, dtype=torch.float32)[None, None]
    exact = functional.interpolate(source, size=side, mode="nearest-exact")[0, 0].numpy()
    center, corner = (grids.nearest_index(length, side, rule) for rule in ("center", "corner"))
    # torch and PIL multiply by a rounded scale: an index exactly between two pixels may go either way
    on_the_edge = ((2 * np.arange(side) + 1) * length) % (2 * side) == 0
    np.testing.assert_array_equal(center[~on_the_edge], exact[~on_the_edge])
    picture = Image.fromarray(np.arange(length, dtype=np.int32)[None]).resize((side, 1), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(center[~on_the_edge], np.array(picture)[0][~on_the_edge])
    np.testing.assert_array_equal(corner, [index * length // side for index in range(side)])


@pytest.mark.parametrize("length", [300, 400, 500, 600, 800, 900])
def test_corner_rule_is_torch_nearest_at_the_dataset_sizes(length):
    source = torch.arange(length, dtype=torch.float32)[None, None]
    expected = functional.interpolate(source, size=224, mode="nearest")[0, 0]
    np.testing.assert_array_equal(grids.nearest_index(length, 224, "corner"), expected)


def test_resize_rgb_keeps_a_constant_and_removes_fine_stripes():
    stripes = np.zeros((300, 300, 3), np.uint8)
    stripes[:, ::2] = 255
    assert (grids.resize_rgb(np.full((91, 91, 3), 77, np.uint8), 224) == 77).all()
    assert np.ptp(grids.resize_rgb(stripes, 50)[5:-5, 5:-5].astype(int)) < 40  # antialiased: no moire


def test_bilinear_resize_by_hand():
    resized = grids.bilinear_resize(torch.tensor([[0.0, 4.0], [0.0, 4.0]]), 4)
    torch.testing.assert_close(resized, torch.tensor([0.0, 1.0, 3.0, 4.0]).repeat(4, 1))


def test_bilinear_resize_takes_any_leading_axes():
    maps = torch.rand(2, 5, 7, 11)
    resized = grids.bilinear_resize(maps, 13)
    assert resized.shape == (2, 5, 13, 13)
    torch.testing.assert_close(resized[1, 3], grids.bilinear_resize(maps[1, 3], 13))


@pytest.mark.parametrize("sigma_px", [0.7, 1.5, 4.0])
@pytest.mark.parametrize("shape", [(7, 11), (2, 3, 41, 37)])
def test_gaussian_blur_equals_scipy(sigma_px, shape):
    maps = np.random.default_rng(0).random(shape).astype(np.float32)
    axes = (len(shape) - 2, len(shape) - 1)
    expected = ndimage.gaussian_filter(maps.astype(np.float64), sigma_px, mode="constant", truncate=4.0, axes=axes)
    np.testing.assert_allclose(grids.gaussian_blur(torch.from_numpy(maps), sigma_px), expected, atol=1e-6)


def test_gaussian_blur_of_a_spike_is_the_kernel():
    spike = torch.zeros(101, 101)
    spike[50, 50] = 1
    blurred = grids.gaussian_blur(spike, 4.0)
    offsets = torch.arange(101) - 50.0
    assert blurred.sum() == pytest.approx(1, abs=1e-5)
    assert (blurred.sum(0) * offsets**2).sum().sqrt() == pytest.approx(4.0, abs=0.01)


@pytest.mark.parametrize("kernel_px", [1, 3, 5, 7])
def test_box_blur_equals_loops(kernel_px):
    image = np.random.default_rng(1).random((11, 13))
    expected = slow_box_mean(slow_box_mean(image, kernel_px), kernel_px)
    np.testing.assert_allclose(grids.box_blur(torch.from_numpy(image), kernel_px, 2), expected, atol=1e-12)


def test_box_blur_meets_the_reference_case():
    case = np.load(CFM_CASE)
    blurred = grids.box_blur(grids.box_blur(torch.from_numpy(case["product"]), 5, 5), 7, 3)
    np.testing.assert_allclose(blurred, case["product_boxblur"], rtol=1e-4)


def test_released_box_blurs_act_like_a_gaussian_of_sigma_4_69():
    spike = torch.zeros(101, 101, dtype=torch.float64)
    spike[50, 50] = 1
    blurred = grids.box_blur(grids.box_blur(spike, 5, 5), 7, 3)
    variance = (blurred.sum(0) * (torch.arange(101) - 50.0) ** 2).sum()
    assert float(variance) ** 0.5 == pytest.approx(4.69, abs=0.005)
    assert (blurred > 0).any(0).sum() == 39


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), name=st.sampled_from(["gaussian", "box"]))
def test_blurs_are_linear_and_never_exceed_the_maximum(seed, name):
    blur = {"gaussian": lambda m: grids.gaussian_blur(m, 2.0), "box": lambda m: grids.box_blur(m, 5, 3)}[name]
    maps = torch.rand(2, 17, 19, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(blur(maps[0] + 3 * maps[1]), blur(maps[0]) + 3 * blur(maps[1]))
    assert blur(maps).max() <= maps.max() + 1e-6
    assert blur(maps).min() >= 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: grids.pad_to_square(np.zeros((2, 2)), mode="reflect"),
        lambda: grids.nearest_index(5, 5, "round"),
        lambda: grids.gaussian_blur(torch.zeros(3, 3), 0.0),
        lambda: grids.gaussian_blur(torch.zeros(3, 3), float("nan")),
        lambda: grids.box_blur(torch.zeros(3, 3), 4, 1),
    ],
)
def test_bad_settings_get_one_line(call):
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
