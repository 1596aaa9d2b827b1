"""Raw colors as RGB tokens: each cell's pixels, unprocessed; the simplest rival of a network's features (ours)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from lib.config import check_positive
from lib.data import Sample
from lib.errors import InputError


@dataclass(frozen=True)
class ColorPatchesConfig:
    """Settings of the color patches.

    Attributes:
        cell_px: side of a cell in pixels, 8 as a patch of DINO's ViT-B/8 [ours].
    """

    cell_px: int = 8

    def __post_init__(self) -> None:
        check_positive(self, ("cell_px",), whole=True)


class ColorPatches:
    """The pixels of each cell one after the other: 192 dimensions on 28 x 28 cells with the default settings."""

    def __init__(self, config: ColorPatchesConfig | None = None) -> None:
        self.config = config or ColorPatchesConfig()

    @property
    def rgb_dim(self) -> int:
        """Channels of the RGB tokens."""
        return 3 * self.config.cell_px**2

    def __call__(self, sample: Sample) -> Tensor:
        """RGB tokens (C2, h, w) float32 of one prepared sample, in the units of its normalised image.

        Raises:
            InputError: the side is no multiple of cell_px.
        """
        if any(side % self.config.cell_px for side in sample.rgb.shape[1:]):
            size = tuple(sample.rgb.shape[1:])
            raise InputError(
                f"rgb: {size} pixels do not divide into cells of {self.config.cell_px} pixels; resize the image"
            )
        return functional.pixel_unshuffle(sample.rgb, self.config.cell_px)
