"""Image grids: one padding rule, three resizes that keep pixels registered, and the two blurs of CFM.

Registration. The pixel at index i covers [i, i + 1). Bicubic and bilinear resizing (half-pixel centers) and
the "center" nearest rule agree on where an output pixel looks: at (i + 1/2) * H / S. The "corner" rule of
torch's `nearest` looks at i * H / S, up to half an output pixel up and left of it; it is here because the
released code resizes the cloud by it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch.nn import functional

from lib.config import check_choice
from lib.errors import InputError

PADDING_MODES = {"zeros": "constant", "edge": "edge"}
NEAREST_RULES = ("center", "corner")
GAUSSIAN_RADIUS_SIGMAS = 4  # the tail beyond holds 6e-5 of the kernel


def pad_to_square(array: np.ndarray, multiple: int = 100, mode: str = "zeros") -> np.ndarray:
    """Centred square copy of an image, cloud or mask; its side is max(H, W) rounded up to the multiple.

    One function for all three, so that they cannot drift apart: the offsets depend on (H, W) alone. The
    released code pads the cloud to the next 100 and RGB and mask to max(H, W), which is the same only for
    sizes divisible by 100.

    Args:
        array: (H, W) or (H, W, C), any dtype.
        multiple: the side is a multiple of this many pixels (released preprocessing: 100).
        mode: "zeros" (no return, not anomalous) or "edge" (replicates the outermost pixels).
    """
    check_choice("padding mode", mode, tuple(PADDING_MODES))
    height, width = array.shape[:2]
    side = -(-max(height, width) // multiple) * multiple
    top, left = (side - height) // 2, (side - width) // 2
    margins = [(top, side - height - top), (left, side - width - left)] + [(0, 0)] * (array.ndim - 2)
    return np.pad(array, margins, mode=PADDING_MODES[mode])


def unpadded(square: np.ndarray, height: int, width: int, multiple: int = 100) -> np.ndarray:
    """(H, W) float32 map on the pixels of an image from its map on the padded and resized square, bilinearly.

    The way back of `pad_to_square` and a resize.

    Args:
        square: (S, S) float32.
        height, width: of the image.
        multiple: as for `pad_to_square`.
    """
    side = -(-max(height, width) // multiple) * multiple
    top, left = (side - height) // 2, (side - width) // 2
    enlarged = bilinear_resize(torch.from_numpy(np.ascontiguousarray(square, dtype=np.float32))[None], side)[0].numpy()
    return enlarged[top : top + height, left : left + width].copy()


def resize_rgb(rgb: np.ndarray, side: int) -> np.ndarray:
    """(side, side, 3) uint8 bicubic, antialiased copy (CFM: PIL bicubic to 224).

    Args:
        rgb: (H, W, 3) uint8.
        side: height and width of the result in pixels.
    """
    return np.asarray(Image.fromarray(rgb).resize((side, side), Image.Resampling.BICUBIC))


def nearest_index(length: int, side: int, rule: str) -> np.ndarray:
    """(side,) int64 source index of each output index when `length` pixels become `side`.

    Args:
        length: source pixels along one axis.
        side: output pixels along that axis.
        rule: "center" = floor((i + 1/2) * length / side), as PIL and torch's `nearest-exact`; "corner" =
            floor(i * length / side), as torch's `nearest` (released code for the cloud).
    """
    check_choice("nearest rule", rule, NEAREST_RULES)
    doubled = 2 * np.arange(side, dtype=np.int64) + (1 if rule == "center" else 0)
    return doubled * length // (2 * side)  # whole numbers: no rounding can move a pixel


def resize_nearest(array: np.ndarray, side: int, rule: str = "center") -> np.ndarray:
    """(side, side) or (side, side, C) copy in which every value is one of the input's.

    Clouds must not be averaged: a mean of object and background, or of a point and a missing return, is a
    point that was never there.

    Args:
        array: (H, W) or (H, W, C), any dtype.
        side: height and width of the result in pixels.
        rule: see `nearest_index`; cloud and mask resized by one rule show the same source pixels.
    """
    rows, columns = (nearest_index(length, side, rule) for length in array.shape[:2])
    return array[rows[:, None], columns[None, :]]


def bilinear_resize(maps: torch.Tensor, side: int) -> torch.Tensor:
    """(..., side, side) bilinear, `align_corners=False` resize (CFM: RGB tokens to the pixel grid).

    Args:
        maps: (..., h, w) float32.
        side: height and width of the result in pixels.
    """
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    resized = functional.interpolate(flat, size=(side, side), mode="bilinear", align_corners=False)
    return resized.reshape(*maps.shape[:-2], side, side)


def gaussian_blur(maps: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """(..., H, W) maps after a true, separable Gaussian of radius 4 sigma (CFM, paper: sigma 4).

    Beyond the image the map counts as zero, as it does off the object and as in the released box blur; the
    paper does not say.

    Args:
        maps: (..., H, W) float32, finite; the product spreads a NaN over its map.
        sigma_px: standard deviation in pixels of the given maps, greater than 0.

    Raises:
        InputError: sigma is not positive.
    """
    if not sigma_px > 0:
        raise InputError(f"gaussian_blur: sigma_px is {sigma_px}; give a positive number of pixels")
    down, along = (blur_matrix(length, sigma_px).to(maps) for length in maps.shape[-2:])
    return down @ (maps @ along)


@lru_cache(maxsize=16)
def blur_matrix(length: int, sigma_px: float) -> torch.Tensor:
    """(L, L) float64 symmetric band whose product with L values is their Gaussian blur.

    A product of matrices of a few hundred rows takes a fraction of the time of PyTorch's convolution with one row. The
    last few are kept, since a study blurs thousands of maps of one size; do not write to them.

    Args:
        length: L.
        sigma_px: standard deviation in steps between the values.
    """
    radius = int(GAUSSIAN_RADIUS_SIGMAS * sigma_px + 0.5)
    weights = torch.exp(-0.5 * (torch.arange(radius + 1, dtype=torch.float64) / sigma_px) ** 2)
    weights /= 2 * weights.sum() - weights[0]  # both sides, the middle once
    places = torch.arange(length)
    apart = (places[:, None] - places).abs()
    return torch.where(apart <= radius, weights[apart.clamp(max=radius)], 0.0)


def box_blur(maps: torch.Tensor, kernel_px: int, repeats: int) -> torch.Tensor:
    """(..., H, W) maps after `repeats` zero-padded box means (released CFM: five 5 x 5, then three 7 x 7).

    Zeros beyond the image count in every mean. The released eight passes act like a Gaussian of sigma 4.69.

    Args:
        maps: (..., H, W) float32.
        kernel_px: odd side of the box in pixels.
        repeats: how often the box is applied, 0 or more.

    Raises:
        InputError: the side is not odd and positive.
    """
    if kernel_px < 1 or kernel_px % 2 == 0:
        raise InputError(f"box_blur: kernel_px is {kernel_px}; give an odd number, or the map would shift")
    blurred = maps.reshape(-1, 1, *maps.shape[-2:])
    for _ in range(repeats):
        blurred = functional.avg_pool2d(blurred, kernel_px, stride=1, padding=kernel_px // 2, count_include_pad=True)
    return blurred.reshape(maps.shape)


def quantized_blur(anomaly_map: torch.Tensor, radius_px: float) -> torch.Tensor:
    """(H, W) map blurred by Pillow on 256 gray values, the largest of them the map's maximum (released 3D-ADS, M3DM).

    Values are cut, not rounded, to gray values before the blur, so small anomalies beside a large one are lost.

    Args:
        anomaly_map: (H, W) float32, at least 0.
        radius_px: of Pillow's `GaussianBlur`, an approximation by box means.
    """
    largest = float(anomaly_map.max())
    if largest == 0:
        return anomaly_map
    gray = (anomaly_map / largest * 255).to(torch.uint8).cpu().numpy()
    blurred = np.asarray(Image.fromarray(gray).filter(ImageFilter.GaussianBlur(radius_px)))
    return torch.from_numpy(blurred.astype(np.float32)).to(anomaly_map) / 255 * largest
