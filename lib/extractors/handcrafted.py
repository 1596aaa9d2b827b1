"""Features made by hand, which need no weights: colors and gradients on a grid of cells, FPFH and local shape in 3D.

All choices here are ours unless a source is named; the papers use pre-trained networks. Letters: S pixels along a side,
h cells along a side (h = S / cell_px), G group centers, B orientation bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lib.data import Sample, denormalize_rgb
from lib.errors import InputError
from lib.extractors.fpfh import FPFH_DIM, fpfh
from lib.extractors.surface import Surface, height_m, local_shape, sample_surface
from lib.features import object_cloud

# Opponent colors: red - green, yellow - blue, intensity; orthonormal (van de Sande et al., TPAMI 2010, eq. 1).
OPPONENT = (
    (2**-0.5, -(2**-0.5), 0.0),
    (6**-0.5, 6**-0.5, -2 * 6**-0.5),
    (3**-0.5, 3**-0.5, 3**-0.5),
)
SHAPE_DIM = 3  # slope, curvature, surface variation
MM_PER_M = 1000.0


@dataclass(frozen=True)
class HandcraftedRgbConfig:
    """Settings of the hand-made RGB tokens (all ours).

    Attributes:
        cell_px: side of a token cell in pixels; 4 makes 56 x 56 cells of 224 px.
        color_windows_cells: odd sides of the windows, in cells, for mean and deviation of the colors (4, 12, 28 px).
        gradient_windows_cells: odd sides of the windows, in cells, for the orientation histograms (12 and 28 px).
        num_orientations: bins of unsigned gradient orientation over 180 degrees (Dalal and Triggs 2005: 9).
        gradient_noise: intensity change per pixel, of an intensity in [0, sqrt(3)], below which orientation fades out.
    """

    cell_px: int = 4
    color_windows_cells: tuple[int, ...] = (1, 3, 7)
    gradient_windows_cells: tuple[int, ...] = (3, 7)
    num_orientations: int = 9
    gradient_noise: float = 0.01

    def __post_init__(self) -> None:
        for window in (*self.color_windows_cells, *self.gradient_windows_cells):
            if window < 1 or window % 2 == 0:
                raise InputError(f"HandcraftedRgbConfig: window of {window} cells has no middle; give odd numbers")


@dataclass(frozen=True)
class HandcraftedXyzConfig:
    """Settings of the hand-made 3D tokens (all ours).

    Attributes:
        cell_px: side in pixels of the cells of which each gives one group center.
        fpfh_radii_m: radii of the FPFH and of slope, curvature and surface variation, in metres.
        normal_radius_m: radius of the plane fit behind the normals, in metres.
        stride_px: every stride_px-th pixel serves as FPFH neighbor; it divides cell_px, or some cells would stay empty.
    """

    cell_px: int = 4
    fpfh_radii_m: tuple[float, ...] = (0.003, 0.006)
    normal_radius_m: float = 0.002
    stride_px: int = 2

    def __post_init__(self) -> None:
        if self.stride_px < 1 or self.cell_px % self.stride_px:
            raise InputError(f"HandcraftedXyzConfig: stride_px {self.stride_px} must divide cell_px {self.cell_px}")


def cell_means(maps: Tensor, cell_px: int, window_cells: int) -> Tensor:
    """(C, h, w) means of pixel maps over windows of cells around each cell; windows are cut at the image border.

    Args:
        maps: (C, S, S) float.
        cell_px: side of a cell in pixels.
        window_cells: odd side of the window in cells.
    """
    cells = functional.avg_pool2d(maps[None], cell_px)
    return functional.avg_pool2d(cells, window_cells, stride=1, padding=window_cells // 2, count_include_pad=False)[0]


def color_tokens(opponent: Tensor, config: HandcraftedRgbConfig) -> Tensor:
    """Mean and standard deviation of each opponent color over each window, (6 * windows, h, w) float32.

    Args:
        opponent: (3, S, S) float64; in float32 the difference of squares would drown small deviations.
        config: reads cell_px and color_windows_cells.
    """
    tokens = [opponent.new_zeros(0, *(side // config.cell_px for side in opponent.shape[1:]))]  # without any window
    for window in config.color_windows_cells:
        mean, mean_square = cell_means(torch.cat([opponent, opponent**2]), config.cell_px, window).split(3)
        tokens += [mean, (mean_square - mean**2).clamp(min=0).sqrt()]
    return torch.cat(tokens).float()


def gradient_tokens(intensity: Tensor, config: HandcraftedRgbConfig) -> Tensor:
    """Orientation histogram and mean strength of the gradients in each window, ((B + 1) * windows, h, w) float32.

    As in Dalal and Triggs 2005: unsigned orientation, votes by magnitude, shared linearly between the two nearest bins.
    A histogram is divided by the total strength in its window plus `gradient_noise`.

    Args:
        intensity: (S, S) float64.
        config: reads cell_px, gradient_windows_cells, num_orientations and gradient_noise.
    """
    bins = config.num_orientations
    padded = functional.pad(intensity[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    down, right = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2, (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2
    magnitude = torch.hypot(down, right)
    position = torch.atan2(down, right).remainder(torch.pi) * (bins / torch.pi) - 0.5
    share = position - position.floor()
    lower = position.floor().long().remainder(bins)
    votes = torch.zeros(bins, *intensity.shape, dtype=intensity.dtype)
    votes.scatter_add_(0, lower[None], ((1 - share) * magnitude)[None])
    votes.scatter_add_(0, ((lower + 1) % bins)[None], (share * magnitude)[None])
    tokens = []
    for window in config.gradient_windows_cells:
        histogram = cell_means(votes, config.cell_px, window)
        strength = histogram.sum(dim=0, keepdim=True)
        tokens += [histogram / (strength + config.gradient_noise), strength]
    return torch.cat(tokens).float()


def rgb_tokens(rgb: Tensor, config: HandcraftedRgbConfig) -> Tensor:
    """Color and gradient tokens of the whole image, background included as in CFM, (C2, h, h) float32.

    Args:
        rgb: (3, S, S) float32, ImageNet-normalised.
        config: settings.

    Raises:
        InputError: the side is no multiple of cell_px.
    """
    if rgb.shape[1] % config.cell_px or rgb.shape[2] % config.cell_px:
        size = tuple(rgb.shape[1:])
        raise InputError(f"rgb: {size} pixels do not divide into cells of {config.cell_px} pixels; resize the image")
    opponent = torch.einsum("oc,chw->ohw", torch.tensor(OPPONENT, dtype=torch.float64), denormalize_rgb(rgb).double())
    return torch.cat([color_tokens(opponent, config), gradient_tokens(opponent[2], config)])


def center_rows(surface: Surface, cell_px: int) -> np.ndarray:
    """(G,) int64 rows of the surface points that stand for their cells: in each cell the one nearest its middle.

    Args:
        surface: from `sample_surface`.
        cell_px: side of a cell in pixels.
    """
    pixels = np.argwhere(surface.index_grid >= 0) * surface.stride_px
    cells = pixels // cell_px
    offset = pixels - cells * cell_px - (cell_px - 1) / 2
    order = np.lexsort(((offset**2).sum(axis=1), cells[:, 1], cells[:, 0]))
    ordered = cells[order]
    is_first = np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)]
    return order[is_first]


def xyz_tokens(cloud: np.ndarray, usable: np.ndarray, config: HandcraftedXyzConfig) -> tuple[Tensor, Tensor]:
    """3D tokens (G, C3) float32 and their centers (G, 3) float32 in metres, one a cell that holds the object.

    Columns: FPFH at each radius; slope (radians), curvature (times the radius), surface variation at each radius;
    height in millimetres. Pixels without a return and the background are in no neighborhood.

    Args:
        cloud: (S, S, 3) float32, metres.
        usable: (S, S) bool, object pixels with a return.
        config: settings.

    Raises:
        InputError: too few points.
    """
    surface = sample_surface(cloud, usable, config.normal_radius_m, config.stride_px)
    rows = center_rows(surface, config.cell_px)
    shapes = [local_shape(surface, rows, radius) for radius in config.fpfh_radii_m]
    height = MM_PER_M * height_m(surface, rows)[:, None]
    tokens = np.concatenate([fpfh(surface, config.fpfh_radii_m, rows), *shapes, height], axis=1)
    centers = surface.points[rows] + surface.centroid_m
    return torch.from_numpy(tokens.astype(np.float32)), torch.from_numpy(centers.astype(np.float32))


class HandcraftedRgb:
    """Hand-made colors and gradients: 38 dimensions on 56 x 56 cells with the default settings."""

    def __init__(self, config: HandcraftedRgbConfig | None = None) -> None:
        self.config = config or HandcraftedRgbConfig()

    @property
    def rgb_dim(self) -> int:
        """Channels of the RGB tokens."""
        return 6 * len(self.config.color_windows_cells) + (self.config.num_orientations + 1) * len(
            self.config.gradient_windows_cells
        )

    def __call__(self, sample: Sample) -> Tensor:
        """RGB tokens (C2, h, w) float32 of one prepared sample; see `rgb_tokens`."""
        return rgb_tokens(sample.rgb, self.config)


class HandcraftedXyz:
    """Hand-made local shape: 73 dimensions with the default settings."""

    def __init__(self, config: HandcraftedXyzConfig | None = None) -> None:
        self.config = config or HandcraftedXyzConfig()

    @property
    def xyz_dim(self) -> int:
        """Channels of the 3D tokens."""
        return (FPFH_DIM + SHAPE_DIM) * len(self.config.fpfh_radii_m) + 1

    def __call__(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """3D tokens (G, C3) and centers (G, 3), both float32, of one prepared sample; see `xyz_tokens`."""
        return xyz_tokens(*object_cloud(sample), self.config)
