"""Token grids read at scattered pixels, and statistics of tables read one at a time.

Letters: H, W pixels; h, w token grid; n scattered pixels; C channels.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

MIN_STD = 1e-6  # under this a column counts as constant


def bilinear_corners(pixel_index: Tensor, image: tuple[int, int], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Flat token indices (n, 4) int64 around each pixel and their bilinear shares (n, 4) float32.

    Args:
        pixel_index: (n,) int64 flat row-major pixels.
        image: H, W.
        grid: h, w; half-pixel centers (`align_corners=False`), tokens repeated beyond the outermost.
    """
    rows = axis_corners(pixel_index // image[1], image[0], grid[0])
    columns = axis_corners(pixel_index % image[1], image[1], grid[1])
    corners = [row * grid[1] + column for row, _ in rows for column, _ in columns]
    shares = [row_share * column_share for _, row_share in rows for _, column_share in columns]
    return torch.stack(corners, dim=1), torch.stack(shares, dim=1)


def axis_corners(pixels: Tensor, length: int, cells: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(lower cell, share), (upper cell, share) of each pixel along one axis; all (n,).

    Args:
        pixels: (n,) int64 positions in [0, length).
        length: pixels along the axis.
        cells: tokens along the axis.
    """
    position = ((pixels + 0.5) * (cells / length) - 0.5).clamp(min=0)
    lower = position.long()
    share = position - lower
    return (lower, 1 - share), ((lower + 1).clamp(max=cells - 1), share)


def pixel_cells(pixel_index: Tensor, image: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """(n,) int64 flat cell of each pixel on an h x w grid laid over the image: row r is in cell row floor(r * h / H).

    Args:
        pixel_index: (n,) int64 flat row-major pixels.
        image: H, W.
        grid: h, w.
    """
    rows = torch.div((pixel_index // image[1]) * grid[0], image[0], rounding_mode="floor")
    columns = torch.div((pixel_index % image[1]) * grid[1], image[1], rounding_mode="floor")
    return rows * grid[1] + columns


def column_statistics(tables: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) float32 of the rows of all tables; 1 where a column is constant.

    Args:
        tables: (n_i, C) float32 each.
    """
    total, mean, squares = 0, 0.0, 0.0
    for table in (table.double() for table in tables):  # pairwise update (Chan et al. 1979): no squares cancel
        count, shift = len(table), table.mean(dim=0) - mean
        squares = squares + ((table - table.mean(dim=0)) ** 2).sum(dim=0) + shift**2 * (total * count / (total + count))
        mean = mean + shift * (count / (total + count))
        total += count
    std = (squares / total).sqrt()
    return mean.float(), torch.where(std < MIN_STD, torch.ones_like(std), std).float()


def table_statistics(tables: Iterable[Tensor]) -> tuple[float, float]:
    """Mean and standard deviation of all values of all tables; a deviation of 1 where they are constant.

    Args:
        tables: (n_i, C) float32 each.
    """
    mean, std = column_statistics(table.reshape(-1, 1) for table in tables)
    return float(mean), float(std)
