"""What the RGB training trains and towards what: the masked network, and the fixed readout that its loss goes through.

Letters: B crops, S side of a crop in pixels, N tokens of a crop, C channels, D descriptors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.config import check_positive
from lib.extractors.embedded_vit import DIM
from lib.pretraining.rgb_views import descriptors
from lib.pretraining.training import zero_sum_frame


@dataclass(frozen=True)
class RgbRecipe:
    """Settings of the training (all ours).

    Attributes:
        num_scenes: pictures rendered; each is seen many times, cropped, turned and disturbed.
        crops: (side in pixels, number of crops) of the batches, taken in turn; about 1000 tokens each.
        hidden_share: of the tokens of every second crop.
        cut_depths: blocks after which the tokens are read.
        frame_share: root mean square of the descriptors' part of a token; that of a whole token is 1.
        target_limit: standard deviations; descriptors are cut there.
        huber_beta: error, in standard deviations, above which it counts linearly.
        whitening_floor: variance added to that of small patches before the first filters whiten them.
        learning_rate: peak of a cosine schedule.
        warmup_share: of the steps, with linear rise.
        weight_decay: of AdamW, on matrices and filters.
        gradient_limit: largest norm of the gradient.
    """

    num_scenes: int = 1200
    crops: tuple[tuple[int, int], ...] = ((64, 16), (96, 7), (64, 16), (128, 4))
    hidden_share: float = 0.3
    cut_depths: tuple[int, ...] = (1, 4, 8, 12)
    frame_share: float = 0.7
    target_limit: float = 4.0
    huber_beta: float = 0.5
    whitening_floor: float = 0.01
    learning_rate: float = 1.5e-3
    warmup_share: float = 0.06
    weight_decay: float = 0.02
    gradient_limit: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self, ("num_scenes",), whole=True)
        check_positive(self, ("learning_rate", "gradient_limit", "frame_share", "warmup_share"))


def orthonormal_frame(dim: int, num_descriptors: int, generator: np.random.Generator) -> Tensor:
    """(C, D + 1) float32 with orthonormal columns that sum to zero, as the tokens of a LayerNorm do.

    The last column is for no descriptor: a token's length is fixed, and there goes what the descriptors leave of it.

    Args:
        dim: C >= D + 2.
        num_descriptors: D.
        generator: source of the random directions.
    """
    drawn = generator.standard_normal((dim, num_descriptors + 2))  # the stored weights' stream: one column is not used
    return zero_sum_frame(drawn[:, 1:])


def whitening_filters(crops: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Filters (54, 3, 3, 3) and biases (54,) that whiten 3 x 3 pixel patches, and their negatives, for the first layer.

    Fine contrast is a hundred times fainter than brightness; random filters would drown it, and with it the gradients.

    Args:
        crops: (B, 3, S, S) float32, normalised.
        floor: added to every variance, so that noise is not blown up.
    """
    patches = functional.unfold(crops, 3, stride=2).transpose(1, 2).flatten(0, 1)
    mean = patches.mean(dim=0)
    variances, directions = torch.linalg.eigh(torch.cov(patches.T))
    whitening = directions.T / (variances + floor).sqrt()[:, None]
    both = torch.cat([whitening, -whitening])
    return both.unflatten(1, (3, 3, 3)), -both @ mean


@dataclass(frozen=True, eq=False)
class Readout:
    """Fixed way from tokens to standardised descriptors.

    Attributes:
        frame: (C, D + 1) float32, see `orthonormal_frame`.
        mean, std: (D,) float32 of the descriptors over the pictures.
        recipe: reads frame_share, target_limit and huber_beta.
    """

    frame: Tensor
    mean: Tensor
    std: Tensor
    recipe: RgbRecipe

    def targets(self, crops: Tensor) -> Tensor:
        """(B, N, D) float32 standardised descriptors of clean crops (B, 3, S, S)."""
        limit = self.recipe.target_limit
        return ((descriptors(crops) - self.mean) / self.std).clamp(-limit, limit)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Huber loss of the descriptors plus the mean square of what a token holds outside the frame.

        Args:
            tokens: (B, N, C) float32 after the final norm.
            targets: (B, N, D) float32.
        """
        share = self.recipe.frame_share
        inside = tokens @ self.frame
        scale = share * math.sqrt(self.frame.shape[0] / targets.shape[-1])
        error = functional.smooth_l1_loss(inside[..., :-1] / scale, targets, beta=self.recipe.huber_beta)
        return error + (tokens - inside @ self.frame.T).square().mean() / share**2


class MaskedPredictor(nn.Module):
    """The network and the token that stands in for hidden patches."""

    def __init__(self, network: nn.Module, cut_depths: Sequence[int]) -> None:
        super().__init__()
        self.network, self.cut_depths = network, tuple(cut_depths)
        self.mask_token = nn.Parameter(0.02 * torch.randn(DIM))
        for block in network.blocks:
            block.attn.fused_attn = False  # on so few tokens the fused kernel's backward pass is the slower one

    def forward(self, pictures: Tensor, hidden: Tensor) -> list[Tensor]:
        """Tokens (B, N, C) float32 through the final norm, after each of the cut depths.

        Args:
            pictures: (B, 3, S, S) float32, normalised.
            hidden: (B, N) bool.
        """
        with torch.autocast(pictures.device.type, torch.bfloat16):
            tokens, rotary = self.network._pos_embed(self.network.patch_embed(pictures))
            tokens = torch.where(hidden[..., None], self.mask_token.to(tokens.dtype), tokens)
            outputs = []
            for depth, block in enumerate(self.network.blocks, start=1):
                tokens = block(tokens, rope=rotary)
                if depth in self.cut_depths:
                    outputs.append(self.network.norm(tokens).float())
        return outputs
