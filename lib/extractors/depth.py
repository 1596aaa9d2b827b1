"""Depth as AST prepares it: the relief of the object, folded into channels of a coarse grid.

[released] is AST's public code, known to us from notes on it. Letters: H W pixels of the sample, S side of the depth
map, h = w = S / cell_px grid, G = h w cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from scipy.ndimage import binary_closing, distance_transform_edt, uniform_filter
from torch import Tensor

from lib.config import check_choice, check_positive
from lib.data import Sample
from lib.errors import InputError
from lib.features import object_cloud
from lib.grids import resize_nearest
from lib.sampling import pixel_cells

BOX = np.ones((3, 3), dtype=bool)
NOWHERE_M = 1e3  # coordinates of a cell without object points: no point of an object has it among its nearest


@dataclass(frozen=True)
class DepthConfig:
    """Settings of the depth tokens.

    Attributes:
        mask: whose background is left out: "foreground" = this study's, found from the whole cloud, its small holes
            closed [ours], or
            "corners" = what lies near the surface through the four corners of the depth map [released].
        side_px: S, 192 [released].
        cell_px: side of a cell, 8, whose pixels become its 64 channels [released].
        fill_rounds: 3 x 3 means that close missing returns, 3 and at least 1 [released].
        corner_threshold_m: distance from that surface that makes an object, 7e-3 m [released].
        scale: of the depth about the object's mean, 100 a metre, which makes centimetres [released].
    """

    mask: str = "foreground"
    side_px: int = 192
    cell_px: int = 8
    fill_rounds: int = 3
    corner_threshold_m: float = 7e-3
    scale: float = 100.0

    def __post_init__(self) -> None:
        check_choice("mask of the depth", self.mask, ("foreground", "corners"))
        check_positive(self, ("side_px", "cell_px", "fill_rounds"), whole=True)
        check_positive(self, ("corner_threshold_m", "scale"))
        if self.side_px % self.cell_px:
            raise InputError(f"side_px {self.side_px} is no multiple of cell_px {self.cell_px}; give one that is")


DEPTH_CONFIGS = {"depth": DepthConfig(), "depth_corners": DepthConfig(mask="corners")}


def fill_holes(depth: np.ndarray, num_rounds: int) -> np.ndarray:
    """(H, W) float64 depth in which a missing pixel took the mean of what is around it, round by round.

    Args:
        depth: (H, W) metres, 0 = no return.
        num_rounds: each closes a hole by one pixel from every side.
    """
    filled = depth.astype(np.float64)
    for _ in range(num_rounds):
        known = filled != 0
        shares = uniform_filter(known.astype(np.float64), 3, mode="constant")
        means = uniform_filter(filled, 3, mode="constant") / np.maximum(shares, 1e-9)
        filled = np.where(known, filled, np.where(shares > 1 / 18, means, 0.0))
    return filled


def closed(mask: np.ndarray, num_rounds: int) -> np.ndarray:
    """(H, W) bool mask without the holes that as many rounds of `fill_holes` close."""
    padded = np.pad(mask, num_rounds)  # else the closing would wear off an object at the border
    inner = slice(num_rounds, len(padded) - num_rounds), slice(num_rounds, padded.shape[1] - num_rounds)
    return binary_closing(padded, BOX, num_rounds)[inner]


def corner_surface(depth: np.ndarray) -> np.ndarray:
    """(H, W) float64 bilinear surface through the depth at the four corners of the box that holds all returns.

    The box leaves out the padding, which has none; beyond it the surface is 0. A corner without a return takes the
    depth of the pixel nearest to it that has one [ours].

    Args:
        depth: (H, W) metres, 0 = no return, not all of it.
    """
    rows, columns = (np.flatnonzero((depth != 0).any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    nearest = distance_transform_edt(depth[box] == 0, return_distances=False, return_indices=True)
    known = depth[box][tuple(nearest)]
    down, across = (np.linspace(0, 1, length) for length in known.shape)
    left = (1 - down) * known[0, 0] + down * known[-1, 0]
    right = (1 - down) * known[0, -1] + down * known[-1, -1]
    surface = np.zeros(depth.shape)
    surface[box] = (1 - across) * left[:, None] + across * right[:, None]
    return surface


def object_depth(depth: np.ndarray, inside: np.ndarray, config: DepthConfig) -> np.ndarray:
    """(S, S) float32 depth about the object's mean, scaled; 0 in the background.

    Depth and mask are resized to the nearest pixel: a mean over the object's rim would be a depth that is nowhere.

    Args:
        depth: (H, W) metres.
        inside: (H, W) bool, the object.
        config: reads side_px and scale.
    """
    small, kept = resize_nearest(depth, config.side_px), resize_nearest(inside, config.side_px)
    if not kept.any():
        raise InputError("depth: nothing is left of the object after resizing; check the cloud and its preparation")
    return np.where(kept, (small - small[kept].mean()) * config.scale, 0.0).astype(np.float32)


class DepthExtractor:
    """The relief as 3D tokens: one a grid cell, its channels the cell's pixels."""

    def __init__(self, config: DepthConfig) -> None:
        self.config = config

    @property
    def xyz_dim(self) -> int:
        """Channels of the tokens."""
        return self.config.cell_px**2

    def __call__(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """(G, C3) float32 tokens in row-major order, all 0 in the background, and (G, 3) float32 centers in metres.

        A center is the mean of a cell's object points; cells without any are put far away.

        Raises:
            InputError: there is no depth, or no object in it.
        """
        config = self.config
        cloud, usable = object_cloud(sample)
        as_seen = cloud[..., 2] if config.mask == "foreground" else sample.depth.numpy()
        depth = fill_holes(as_seen, config.fill_rounds)
        if not depth.any():
            raise InputError(f"{sample.sample_id}: its depth has no return; check the cloud")
        if config.mask == "foreground":
            inside = closed(usable, config.fill_rounds)
        else:
            inside = (depth != 0) & (np.abs(depth - corner_surface(depth)) > config.corner_threshold_m)
        folded = rearrange(
            object_depth(depth, inside, config), "(i a) (j b) -> (i j) (a b)", a=config.cell_px, b=config.cell_px
        )
        return torch.from_numpy(folded), self._centers(cloud, usable)

    def _centers(self, cloud: np.ndarray, usable: np.ndarray) -> Tensor:
        side = self.config.side_px // self.config.cell_px
        cells = pixel_cells(torch.from_numpy(np.flatnonzero(usable)), usable.shape, (side, side))
        points = torch.from_numpy(cloud[usable]).double()
        counts = torch.bincount(cells, minlength=side * side)
        sums = torch.zeros(side * side, 3, dtype=torch.float64).index_add_(0, cells, points)
        means = sums / counts.clamp(min=1)[:, None]
        return torch.where(counts[:, None] > 0, means, NOWHERE_M).float()
