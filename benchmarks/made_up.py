"""Made-up inputs of the benchmarks, the same on every machine.

Letters: Q queries, M rows, C channels, B images, H W pixels.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from data_scripts.bench import made_up_sample
from lib.config import ExtractorSpec
from lib.data import Sample
from lib.features import object_cloud

OBJECT_SIDE_PX = 155  # 24,025 foreground points, about those of an object of MVTec 3D-AD
SIZES = {"full": 12, "M": 8, "S": 4, "T": 1}  # blocks that CFM's sizes keep of each network [CFM sec. 3.4]
PATCHES, DIM, PROJECTED_DIM = 784, 768, 244  # of an image; channels; those after the coreset's projection
NUM_CLUSTERS = 64
NUM_IMAGES, NUM_DEFECTIVE, IMAGE_SIDE = 110, 80, 224


def spec(size: str) -> ExtractorSpec:
    """The papers' pair with random weights, cut to one of `SIZES`."""
    return ExtractorSpec("dino_vitb8", "point_mae", weights="random", num_blocks=SIZES[size])


@cache
def sample() -> Sample:
    """A prepared sample at the papers' size."""
    return made_up_sample(OBJECT_SIDE_PX, seed=0)


def object_points() -> Tensor:
    """(N, 3) float32 points of the sample's object, metres."""
    cloud, usable = object_cloud(sample())
    return torch.from_numpy(cloud[usable])


@cache
def clustered(num_rows: int, dim: int, seed: int) -> Tensor:
    """(M, C) float32 rows about a few middles, as patches of parts that look alike are."""
    generator = torch.Generator().manual_seed(seed)
    middles = 4 * torch.randn(NUM_CLUSTERS, dim, generator=torch.Generator().manual_seed(0))
    chosen = torch.randint(NUM_CLUSTERS, (num_rows,), generator=generator)
    return middles[chosen] + torch.randn(num_rows, dim, generator=generator)


@cache
def masks_and_maps() -> tuple[np.ndarray, np.ndarray]:
    """(B, H, W) bool masks with one or two rectangular defects an image, and (B, H, W) float32 maps."""
    generator = np.random.default_rng(20261120)
    masks = np.zeros((NUM_IMAGES, IMAGE_SIDE, IMAGE_SIDE), dtype=bool)
    for mask in masks[:NUM_DEFECTIVE]:
        for _ in range(generator.integers(1, 3)):
            top, left, height, width = generator.integers([20, 20, 8, 8], [180, 180, 32, 32])
            mask[top : top + height, left : left + width] = True
    maps = generator.gamma(2.0, 0.1, size=masks.shape).astype(np.float32)
    maps[masks] += generator.gamma(2.0, 0.2, size=int(masks.sum())).astype(np.float32)
    return masks, maps
