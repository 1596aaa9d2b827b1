"""How BTF and M3DM read a sample into patches and draw a map of patch distances: our way, and the released one.

Both methods share the code of 3D-ADS. Letters: Q cells, h w cells along each axis, C channels, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from lib.config import check_choice
from lib.features import Features
from lib.grids import bilinear_resize, quantized_blur
from lib.heads import Prediction
from lib.heads.patch_bank import patch_score
from lib.methods import PatchCoreConfig
from lib.patches import PatchSet, dense_map, read_patches

RELEASED_BLUR_RADIUS_PX = 4  # [released]
CHANNELS_PER_CHUNK = 128  # of the dense 3D map held at once: 26 MB at 224 pixels


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


def pooled_xyz(sample: Features, side: int) -> Tensor:
    """(C3, side, side) float32 3D features: zeros off the object, a 3 x 3 mean without margin, then cell means.

    Adaptive pooling as in 3D-ADS, CFM and M3DM [released]: cells of the map that is two pixels smaller.
    """
    _, xyz = sample.at_pixels()
    down, across = (pooling_matrix(length, side) for length in sample.foreground.shape)
    pooled = []
    for channels in xyz.split(CHANNELS_PER_CHUNK, dim=1):
        dense = torch.zeros(channels.shape[1], sample.foreground.numel())
        dense[:, sample.pixel_index] = channels.T
        pooled.append(down @ (dense.view(-1, *sample.foreground.shape) @ across.T))
    return torch.cat(pooled)


def pooling_matrix(length: int, side: int) -> Tensor:
    """(side, length) float32 shares of pixels in cells along one axis: both means in one, which is twice as quick."""
    return F.adaptive_avg_pool1d(F.avg_pool1d(torch.eye(length), 3, stride=1), side).T


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
