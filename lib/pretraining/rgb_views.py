"""What the RGB training sees of a scene and what it has to predict: crops, disturbed pictures, local descriptors.

Letters: B crops, S side of a crop in pixels, t = S / 8 tokens along a side, D = 42 descriptors.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn import functional

from lib.data import IMAGENET_MEAN, IMAGENET_STD
from lib.extractors.embedded_vit import PATCH_PX
from lib.extractors.handcrafted import OPPONENT

OBJECT_SHARE = 0.85  # of the crops lie about an object pixel, the others anywhere
WINDOWS_PATCHES = (1, 3)  # a descriptor sums over the patch, and over it and its neighbors
NUM_ORIENTATIONS = 9  # Dalal and Triggs 2005; HOG of MaskFeat
DEVIATION_FLOOR = 0.005  # intensity; below it a deviation is noise, and its logarithm would tell nothing
GRADIENT_FLOOR = 0.001  # intensity per pixel, likewise
NUM_DESCRIPTORS = len(WINDOWS_PATCHES) * (3 + 3 + NUM_ORIENTATIONS) + 3 * 4
# Half-widths of the uniform draws that disturb a picture; logarithms of factors, but for the noise.
GAMMA, EXPOSURE, TINT, SHADING, NOISE = 0.07, 0.084, 0.021, 0.07, 0.014


def draw_crops(
    pictures: np.ndarray, objects: np.ndarray, side_px: int, num_crops: int, generator: np.random.Generator
) -> Tensor:
    """(B, 3, S, S) float32 crops of random pictures in [0, 1], turned by quarters and mirrored at random.

    Their scale is that of the pictures, so that a patch means the same here and in use.

    Args:
        pictures: (N, H, W, 3) uint8, H = W.
        objects: (N, H, W) bool, True on the object.
        side_px: S, at most H.
        num_crops: B.
        generator: source of the draws.
    """
    full = pictures.shape[1]
    crops = []
    for number in generator.integers(len(pictures), size=num_crops):
        candidates = np.flatnonzero(objects[number])
        on_object = generator.random() < OBJECT_SHARE and len(candidates) > 0
        center = generator.choice(candidates) if on_object else generator.integers(full * full)
        offset = generator.integers(-(side_px // 4), side_px // 4 + 1, size=2) - side_px // 2
        row, column = np.clip(np.array(divmod(int(center), full)) + offset, 0, full - side_px)
        crop = np.rot90(pictures[number, row : row + side_px, column : column + side_px], generator.integers(4))
        crops.append(crop[:, ::-1] if generator.random() < 0.5 else crop)
    return rearrange(torch.from_numpy(np.stack(crops)), "b h w c -> b c h w").float() / 255


def disturb(crops: Tensor, generator: np.random.Generator) -> Tensor:
    """(B, 3, S, S) float32 in [0, 1]: crops under another exposure, tint and shading; half of them with more noise.

    Args:
        crops: (B, 3, S, S) float32 in [0, 1].
        generator: source of the draws.
    """
    num_crops, side = len(crops), crops.shape[-1]

    def uniform(half_width: float, channels: int = 1) -> Tensor:
        return torch.from_numpy(generator.uniform(-half_width, half_width, (num_crops, channels, 1, 1))).float()

    slope = torch.linspace(-1, 1, side)
    shading = uniform(SHADING) * slope + uniform(SHADING) * slope[:, None]
    light = torch.exp(uniform(EXPOSURE) + uniform(TINT, 3) + shading)
    noise = torch.from_numpy(generator.standard_normal(crops.shape, dtype=np.float32))
    disturbed = crops.clamp_min(1e-3) ** torch.exp(uniform(GAMMA)) * light + noise * uniform(NOISE).clamp_min(0)
    return disturbed.clamp(0, 1)


def normalized(crops: Tensor) -> Tensor:
    """(B, 3, S, S) float32, ImageNet-normalised as prepared samples are."""
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return (crops - mean[:, None, None]) / std[:, None, None]


def orientation_maps(intensity: Tensor) -> Tensor:
    """(B, 9, S, S) float32 strength of the gradient, shared between the two nearest of 9 unsigned orientations.

    Args:
        intensity: (B, 1, S, S) float32.
    """
    padded = functional.pad(intensity, (1, 1, 1, 1), mode="replicate")
    across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    strength = (across.square() + down.square()).sqrt()
    bins = torch.atan2(down, across) / math.pi * NUM_ORIENTATIONS % NUM_ORIENTATIONS
    lower = bins.floor()
    upper_share, lower = bins - lower, lower.long() % NUM_ORIENTATIONS
    maps = intensity.new_zeros(len(intensity), NUM_ORIENTATIONS, *intensity.shape[2:])
    maps.scatter_add_(1, lower, strength * (1 - upper_share))
    return maps.scatter_add_(1, (lower + 1) % NUM_ORIENTATIONS, strength * upper_share)


def descriptors(crops: Tensor) -> Tensor:
    """(B, t * t, D) float32: HOG and color of each patch, what MaskFeat predicts, on logarithmic scales [ours].

    By window: mean and log deviation of the opponent colors, log orientation histogram; then the colors of the four
    quarters of the patch. Logarithms, so that faint and strong texture weigh alike: on them the nearest neighbor finds
    far more defects of the development data than on the values themselves.

    Args:
        crops: (B, 3, S, S) float32 in [0, 1], S a multiple of the patch.
    """
    colors = torch.einsum("kc,bchw->bkhw", torch.tensor(OPPONENT), crops)
    oriented = orientation_maps(colors[:, 2:])

    def pooled(maps: Tensor, window: int) -> Tensor:
        cells = functional.avg_pool2d(maps, PATCH_PX)
        return functional.avg_pool2d(cells, window, stride=1, padding=window // 2, count_include_pad=False)

    found = []
    for window in WINDOWS_PATCHES:
        mean = pooled(colors, window)
        deviation = (pooled(colors.square(), window) - mean.square()).clamp_min(0).sqrt()
        histogram = pooled(oriented, window)
        found += [mean, (deviation + DEVIATION_FLOOR).log(), (histogram + GRADIENT_FLOOR).log()]
    found.append(functional.pixel_unshuffle(functional.avg_pool2d(colors, PATCH_PX // 2), 2))
    return rearrange(torch.cat(found, dim=1), "b d h w -> b (h w) d")


def draw_hidden(num_crops: int, num_tokens: int, share: float, generator: np.random.Generator) -> Tensor:
    """(B, t * t) bool, True where a token is hidden: each with probability `share` in a random half of the crops.

    The other half is whole, as pictures are in use.
    """
    some = repeat(generator.random(num_crops) < 0.5, "b -> b n", n=num_tokens)
    return torch.from_numpy(some & (generator.random((num_crops, num_tokens)) < share))
