"""Settings and layers of Point-MAE: a mini-PointNet makes a token of each group, transformer blocks relate the tokens.

Source: Pang et al., "Masked Autoencoders for Point Cloud Self-supervised Learning", ECCV 2022. Written from the facts;
the names in the state dict are those of the official checkpoint. Letters: B clouds; G groups; K points per group;
M groups of one or several clouds; D token dimension.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.config import ADDED_LATER, FIRST_POINTS, check_choice, check_positive
from lib.errors import InputError

# Blocks whose output is read, by the number of blocks kept (released code; CFM sec. 3.4 for fewer than 12).
TAPS = {12: (3, 7, 11), 8: (1, 4, 7), 4: (1, 2, 3), 1: (0,)}
ROWS_PER_CHUNK = {"cpu": 8192, "cuda": 131072}  # points whose widest layer stays in a processor's cache; one cloud


@dataclass(frozen=True)
class PointMAEConfig:
    """Settings of a Point-MAE-style extractor.

    Attributes:
        num_groups: tokens of a cloud, 1024 [released CFM, M3DM; pre-trained with 64].
        group_size: points of a group, 128 [released CFM, M3DM; pre-trained with 32].
        stride_px: every stride_px-th row and column of the image gives points, 1 = all [released]; the embedded network
            takes every second, so that its 32 points reach half way to the next center [ours].
        dim: token dimension D, 384 [Point-MAE].
        depth: transformer blocks of the published network, 12 [Point-MAE]; `drop_path` rates are spread over them.
        num_blocks: blocks kept, 12, 8, 4 or 1 [CFM sec. 3.4]; the others are not built.
        num_heads: attention heads, 6 [Point-MAE].
        encoder_widths: widths of the mini-PointNet's hidden layers [Point-MAE].
        position_width: hidden width of the position embedding, 128 [Point-MAE].
        mlp_ratio: hidden width of a block's MLP over D, 4 [Point-MAE].
        batch_statistics: True normalizes the mini-PointNet by each cloud's own statistics, as the released CFM and M3DM
            code does (it never calls `eval()` and feeds one cloud at a time); False by the stored ones [LSFA].
        drop_path: True drops residual branches at random while features are extracted [released CFM, M3DM].
        drop_path_rate: of the last block of the published network, 0.1; linear from 0 at the first [Point-MAE].
        unit_m: metres that count as 1; 1.0 feeds metric coordinates [released CFM, M3DM].
        centered: True subtracts the mean of a cloud's centers before the position embedding [ours], so that moving the
            object changes nothing; False embeds camera coordinates [released CFM, M3DM].
        weights: name in the weights registry.
        first_point: where the farthest point sample starts: "first" point [released CFM, M3DM], or one drawn at
            "random" [anomalib].
    """

    num_groups: int = 1024
    group_size: int = 128
    stride_px: int = 1
    dim: int = 384
    depth: int = 12
    num_blocks: int = 12
    num_heads: int = 6
    encoder_widths: tuple[int, int, int] = (128, 256, 512)
    position_width: int = 128
    mlp_ratio: int = 4
    batch_statistics: bool = False
    drop_path: bool = False
    drop_path_rate: float = 0.1
    unit_m: float = 1.0
    centered: bool = False
    weights: str = "point_mae"
    first_point: str = field(default="first", metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        check_choice("first_point", self.first_point, FIRST_POINTS)
        sizes = ("num_groups", "group_size", "stride_px", "dim", "depth", "num_blocks", "num_heads")
        check_positive(self, (*sizes, "position_width", "mlp_ratio"), whole=True)
        check_positive(self, ("unit_m", "drop_path_rate"))
        if self.num_blocks not in TAPS or self.num_blocks > self.depth:
            kept = ", ".join(str(number) for number in TAPS if number <= self.depth)
            raise InputError(f"PointMAEConfig.num_blocks is {self.num_blocks} of {self.depth}; give one of {kept}")
        if self.dim % self.num_heads:
            raise InputError(f"PointMAEConfig: {self.num_heads} heads do not divide dim {self.dim}; change one of them")

    @property
    def taps(self) -> tuple[int, ...]:
        """Blocks whose output is read, counted from 0."""
        return TAPS[self.num_blocks]

    @property
    def xyz_dim(self) -> int:
        """Channels C3 of the concatenated taps."""
        return self.dim * len(self.taps)


def pointwise(layer: nn.Conv1d, points: Tensor) -> Tensor:
    """A convolution of width 1 as what it is, a linear map of each point: (..., in) float32 to (..., out)."""
    return functional.linear(points, layer.weight[:, :, 0], layer.bias)


class GroupEncoder(nn.Module):
    """Mini-PointNet 3 -> 128 -> 256, joined by the group's maximum -> 512 -> D, and the maximum over the group.

    In training mode it normalizes by the whole batch and updates its running statistics, as PyTorch does. In eval mode
    it reads the running statistics, or with `own_statistics` each cloud's own, and changes nothing.
    """

    def __init__(self, widths: tuple[int, int, int], dim: int, own_statistics: bool) -> None:
        super().__init__()
        narrow, middle, wide = widths
        self.own_statistics = own_statistics
        self.first_conv = nn.Sequential(
            nn.Conv1d(3, narrow, 1), nn.BatchNorm1d(narrow), nn.ReLU(inplace=True), nn.Conv1d(narrow, middle, 1)
        )
        self.second_conv = nn.Sequential(
            nn.Conv1d(2 * middle, wide, 1), nn.BatchNorm1d(wide), nn.ReLU(inplace=True), nn.Conv1d(wide, dim, 1)
        )

    def forward(self, groups: Tensor) -> Tensor:
        """Tokens (B, G, D) float32 of groups (B, G, K, 3) float32."""
        num_clouds, num_groups, size, _ = groups.shape
        if self.training:
            chunks = [groups.flatten(0, 1)]  # (M, K, 3)
        elif self.own_statistics:
            chunks = list(groups)
        else:
            chunks = groups.flatten(0, 1).split(max(1, ROWS_PER_CHUNK[groups.device.type] // size))
        return torch.cat([self._tokens(chunk) for chunk in chunks]).unflatten(0, (num_clouds, num_groups))

    def _tokens(self, groups: Tensor) -> Tensor:
        """(M, D) from (M, K, 3); the maximum's half of the joining layer is computed once a group, not once a point."""
        widen, norm, relu, lift = self.first_conv
        local = pointwise(lift, relu(self._normalize(norm, pointwise(widen, groups))))  # (M, K, 256)
        join, norm, relu, project = self.second_conv
        of_maximum, of_point = join.weight[:, :, 0].chunk(2, dim=1)
        shared = functional.linear(local.amax(dim=1), of_maximum, join.bias)  # (M, 512)
        hidden = relu(self._normalize(norm, functional.linear(local, of_point).add_(shared[:, None])))
        return pointwise(project, hidden).amax(dim=1)

    def _normalize(self, norm: nn.BatchNorm1d, values: Tensor) -> Tensor:
        rows = values.flatten(0, 1)  # (M K, C)
        if self.own_statistics and not self.training:
            rows = functional.batch_norm(rows, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
        else:
            rows = norm(rows)
        return rows.view_as(values)


class Attention(nn.Module):
    """Multi-head self-attention without bias on queries, keys and values."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, G, D) from (B, G, D)."""
        query, key, value = self.qkv(tokens).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)  # (B, heads, G, D / heads)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, G, D) from (B, G, D)."""
        return self.fc2(functional.gelu(self.fc1(tokens)))


def drop_path(branch: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    """The residual branch with whole clouds zeroed at the given rate and the others scaled by 1 / (1 - rate).

    Args:
        branch: (B, G, D) float32.
        rate: probability of dropping; 0 draws nothing.
        generator: on the CPU whatever the branch's device, so that every device drops the same clouds.
    """
    if rate == 0:
        return branch
    kept = torch.rand(len(branch), generator=generator) >= rate
    return branch * (kept / (1 - rate)).to(branch)[:, None, None]


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, mlp_ratio * dim)

    def forward(self, tokens: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, G, D) from (B, G, D)."""
        tokens = tokens + drop_path(self.attn(self.norm1(tokens)), self.rate, generator)
        return tokens + drop_path(self.mlp(self.norm2(tokens)), self.rate, generator)


class Blocks(nn.Module):
    """Blocks in a row; a module of its own because the checkpoint calls them `blocks.blocks.I`."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, tokens: Tensor, positions: Tensor, generator: torch.Generator | None = None) -> list[Tensor]:
        """Output (B, G, D) of every block; the positions (B, G, D) are added before every block."""
        outputs = []
        for block in self.blocks:
            tokens = block(tokens + positions, generator)
            outputs.append(tokens)
        return outputs
