"""Features read by the cells of a patch grid, and values of cells brought back to pixels.

Letters: Q object cells, h w cells, H W pixels, C channels (C2 RGB, C3 3D).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from lib.features import Features
from lib.grids import bilinear_resize, gaussian_blur
from lib.reading import ReadOnAccess
from lib.sampling import pixel_cells

KEPT_TRAINING_BYTES = 4e9  # of patches that stay in memory from epoch to epoch


@dataclass(frozen=True, eq=False)
class PatchSet:
    """Both modalities' patch features of one sample, one row an object cell in row-major order.

    Attributes:
        rgb: (Q, C2) float32.
        xyz: (Q, C3) float32.
        cells: (h, w) bool, True where a row belongs.
        foreground: (H, W) bool, as in `Features`.
        sample_id: as in `Features`.
    """

    rgb: Tensor
    xyz: Tensor
    cells: Tensor
    foreground: Tensor
    sample_id: str

    @property
    def nbytes(self) -> int:
        """Memory of both modalities' features."""
        return self.rgb.nbytes + self.xyz.nbytes


def read_patches(sample: Features, side: int | None = None) -> PatchSet:
    """Patches of a sample on a square grid; see `Features.on_grid`.

    Args:
        sample: tokens and the way from them to pixels.
        side: cells along each axis; None = the RGB tokens' own grid.
    """
    rgb_map, xyz_map, cells = sample.on_grid(sample.rgb_tokens.shape[-1] if side is None else side)
    rgb, xyz = (feature_map[:, cells].T.contiguous() for feature_map in (rgb_map, xyz_map))
    return PatchSet(rgb, xyz, cells, sample.foreground, sample.sample_id)


def patches_of(
    by_category: Mapping[str, Sequence[Features]], read: Callable[[Features], PatchSet]
) -> dict[str, Sequence[PatchSet]]:
    """Patches of every category's samples, read as training asks for them and kept as far as memory allows."""
    kept_bytes = KEPT_TRAINING_BYTES / len(by_category)
    return {category: ReadOnAccess(samples, read, kept_bytes) for category, samples in by_category.items()}


def to_features(patch_set: PatchSet, sample: Features) -> Features:
    """Features that read as the given patches, for heads that read pixels: each cell is an RGB and a 3D token.

    RGB cells off the object are filled from their object neighbors, so that a bilinear reading of the object's rim
    does not meet zeros. Every pixel takes the 3D token of its own cell alone.

    Args:
        patch_set: of this sample, on any grid.
        sample: what is not a token is taken from here; the center of a cell is the mean of its pixels' centers.
    """
    cells = patch_set.cells
    token_of_cell = cells.flatten().cumsum(dim=0) - 1
    own = token_of_cell[pixel_cells(sample.pixel_index, tuple(sample.foreground.shape), tuple(cells.shape))]
    points = (sample.centers[sample.neighbors] * sample.weights[:, :, None]).sum(dim=1)
    sums = torch.zeros(len(patch_set.xyz), 3).index_add_(0, own, points)
    return replace(
        sample,
        rgb_tokens=fill_cells(patch_set.rgb, cells),
        xyz_tokens=patch_set.xyz,
        centers=sums / torch.bincount(own, minlength=len(sums))[:, None],
        neighbors=own[:, None].repeat(1, 3),
        weights=torch.tensor([1.0, 0.0, 0.0]).repeat(len(own), 1),
    )


def fill_cells(values: Tensor, cells: Tensor) -> Tensor:
    """(h, w) or (C, h, w) float32 map of cell values; cells off the object take the mean of their object neighbors.

    Without it bilinear resizing would pull the object's rim towards zero.

    Args:
        values: (Q,) or (Q, C) float32.
        cells: (h, w) bool with Q True entries.
    """
    grid = torch.zeros(*values.shape[1:], *cells.shape)
    grid[..., cells] = values if values.ndim == 1 else rearrange(values, "q c -> c q")
    weight = F.avg_pool2d(cells[None, None].float(), 3, stride=1, padding=1)[0, 0]
    mean = F.avg_pool2d(grid.reshape(1, -1, *cells.shape), 3, stride=1, padding=1).reshape(grid.shape)
    return torch.where(cells, grid, mean / weight.clamp_min(1e-6))


def dense_map(values: Tensor, patch_set: PatchSet, blur_sigma_px: float) -> Tensor:
    """(H, W) float32 anomaly map: cell values brought to pixels bilinearly, cut to the object, blurred.

    Args:
        values: (Q,) float32.
        patch_set: the cells they belong to.
        blur_sigma_px: standard deviation of the Gaussian in pixels.
    """
    grid = fill_cells(values, patch_set.cells)
    dense = bilinear_resize(grid, len(patch_set.foreground)) * patch_set.foreground
    return gaussian_blur(dense, blur_sigma_px)


def touched_cells(sample: Features, side: int) -> Tensor:
    """(side, side) bool cells of a square grid that hold at least one foreground pixel."""
    cells = pixel_cells(sample.pixel_index, tuple(sample.foreground.shape), (side, side))
    return rearrange(torch.bincount(cells, minlength=side * side) > 0, "(i j) -> i j", i=side)


def enlarged_mask(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W) bool pixels that lie in True cells (h, w)."""
    return F.interpolate(cells[None, None].float(), size=size, mode="nearest")[0, 0] > 0
