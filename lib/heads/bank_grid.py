"""How BTF and M3DM read a sample into patches and draw a map of patch distances: our way, and the released one.

Both methods share the code of 3D-ADS. Letters: Q cells, h w cells along each axis, C channels, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from lib.config import check_choice
from lib.errors import InputError
from lib.features import Features
from lib.grids import bilinear_resize, quantized_blur
from lib.heads import Prediction
from lib.heads.patch_bank import patch_score
from lib.methods import PatchCoreConfig
from lib.patches import PatchSet, dense_map, read_patches, touched_cells
from lib.pixel_mean import axis_means

RELEASED_BLUR_RADIUS_PX = 4  # [released]


@dataclass(frozen=True)
class GridBankConfig(PatchCoreConfig):
    """Memory banks in the manner of 3D-ADS, with what its code does differently from `PatchCoreConfig`.

    Attributes:
        cells: "object" = cells that show the object, a 3D cell being the mean over its object pixels [ours]; "all" =
            the background's cells too, and 3D cells that average its zeros in, after a 3 x 3 mean [released].
        blur: "gaussian" with `blur_sigma_px` [PatchCore sec. 4]; "quantized" = Pillow's, radius 4, on 256 gray values
            of each map, and the map not cut to the object [released].
    """

    needs_validation = False

    cells: str = "object"
    blur: str = "gaussian"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("cells", self.cells, ("object", "all"))
        check_choice("blur", self.blur, ("gaussian", "quantized"))
        if self.blur == "quantized" and self.blur_sigma_px != GridBankConfig.blur_sigma_px:
            raise InputError("blur quantized has a radius of its own; leave blur_sigma_px out")


def read_grid(sample: Features, config: GridBankConfig, side: int | None) -> PatchSet:
    """Patches of a sample, of its object cells or of all cells as `config.cells` says.

    Args:
        sample: tokens and the way from them to pixels.
        config: reads cells.
        side: cells along each axis; None = the RGB tokens' own grid.
    """
    if config.cells == "object":
        return read_patches(sample, side)
    side = sample.rgb_tokens.shape[-1] if side is None else side
    rgb = F.adaptive_avg_pool2d(sample.rgb_tokens, (side, side))
    rows = (rearrange(feature_map, "c h w -> (h w) c") for feature_map in (rgb, pooled_xyz(sample, side)))
    cells = torch.ones(side, side, dtype=torch.bool)
    return PatchSet(*rows, cells, sample.foreground, sample.sample_id)


def object_patches(sample: Features, config: GridBankConfig) -> PatchSet:
    """Patches of a sample's object cells as `read_grid` reads them: what fusion networks learn from.

    Args:
        sample: tokens and the way from them to pixels.
        config: reads cells and grid_side.
    """
    patch_set = read_grid(sample, config, config.grid_side)
    cells = touched_cells(sample, len(patch_set.cells))
    kept = cells[patch_set.cells]
    return replace(patch_set, rgb=patch_set.rgb[kept], xyz=patch_set.xyz[kept], cells=cells)


def pooled_xyz(sample: Features, side: int) -> Tensor:
    """(C3, side, side) float32 3D features: zeros off the object, a 3 x 3 mean without margin, then cell means.

    Adaptive pooling as in 3D-ADS, CFM and M3DM [released]: cells of the map that is two pixels smaller. All of it is
    linear in the tokens, so each cell's shares of them are added up and no map of all pixels is made.
    """
    return rearrange(pooled_shares(sample, side) @ sample.xyz_tokens, "(i j) c -> c i j", i=side)


def pooled_shares(sample: Features, side: int) -> Tensor:
    """(side * side, G) float32, how much of each of the G tokens `pooled_xyz` puts into each cell."""
    height, width = sample.foreground.shape
    row_cells, row_shares = axis_pooling(height, side, sample.pixel_index // width)
    column_cells, column_shares = axis_pooling(width, side, sample.pixel_index % width)
    cells = row_cells[:, :, None, None] * side + column_cells[:, None, :, None]
    shares = row_shares[:, :, None, None] * column_shares[:, None, :, None] * sample.weights[:, None, None]
    places = cells * len(sample.xyz_tokens) + sample.neighbors[:, None, None]
    table = torch.zeros(side * side * len(sample.xyz_tokens))
    return table.index_add_(0, places.flatten(), shares.flatten()).view(side * side, -1)


def axis_pooling(length: int, side: int, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Cells (n, k) int64 along one axis that hold each of n pixels after `axis_means`, and its share (n, k) in them.

    Args:
        length: of the axis in pixels.
        side: cells along it.
        pixels: (n,) int64 in [0, length).
    """
    means = axis_means(length, side)
    shares, cells = means.topk(int((means > 0).sum(dim=1).max()))
    return cells[pixels], shares[pixels]


def grid_map(distances: Tensor, patch_set: PatchSet, config: GridBankConfig) -> Tensor:
    """(H, W) float32 anomaly map of patch distances (Q,) float32 on the CPU, blurred as `config.blur` says."""
    if config.blur == "gaussian":
        return dense_map(distances, patch_set, config.blur_sigma_px)
    grid = torch.zeros(patch_set.cells.shape)
    grid[patch_set.cells] = distances
    return quantized_blur(bilinear_resize(grid, len(patch_set.foreground)), RELEASED_BLUR_RADIUS_PX)


def bank_prediction(queries: Tensor, bank: Tensor, patch_set: PatchSet, config: GridBankConfig) -> Prediction:
    """What one bank says of a sample: the map of its patches' distances, and the image score.

    Args:
        queries: (Q, C) float32, rows of the cells of `patch_set`.
        bank: (M, C) float32; distances are computed on its device.
        patch_set: whose cells they are.
        config: reads image_score, reweight_rows, blur and blur_sigma_px.
    """
    distances, score = patch_score(queries.to(bank.device), bank, config.reweight_rows)
    anomaly_map = grid_map(distances.cpu(), patch_set, config)
    return Prediction(anomaly_map, float(anomaly_map.max()) if config.image_score == "map" else score)
