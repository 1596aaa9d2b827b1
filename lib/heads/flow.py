"""The two networks of AST: a conditional normalizing flow of convolutional couplings, and a plain student.

The flow is ours, because no library fits: FrEIA, normflows and nflows ship no wheel, and zuko's flows are of vectors.
Letters: B batch, C channels, h w grid, P channels of the condition.
"""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from lib.seeding import torch_seed

ATAN_SCALE = 2 / torch.pi  # the clamped log-scale stays within plus and minus the clamp
LONGEST_WAVE = 10_000.0  # of the position encoding, in cells times 2 pi (Vaswani et al. 2017)


def position_encoding(height: int, width: int, channels: int) -> Tensor:
    """(P, h, w) float32 sines and cosines of the row in one half of the channels and of the column in the other.

    Args:
        height, width: of the grid.
        channels: P, divisible by 4.
    """
    rates = LONGEST_WAVE ** (-torch.arange(0, channels // 2, 2) / (channels // 2))

    def waves(length: int) -> Tensor:
        angles = torch.arange(length)[None] * rates[:, None]
        return torch.cat([angles.sin(), angles.cos()])

    rows = repeat(waves(height), "p h -> p h w", w=width)
    columns = repeat(waves(width), "p w -> p h w", h=height)
    return torch.cat([rows, columns])


class Subnet(nn.Module):
    """Scale and shift of one half of the channels from the other half and the condition: two convolutions.

    Their output is multiplied by a learned number that starts at 0, so that the flow starts as the identity [ours; the
    number itself is the released code's].
    """

    def __init__(self, in_channels: int, out_channels: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, hidden, kernel, padding=kernel // 2)
        self.second = nn.Conv2d(hidden, 2 * out_channels, kernel, padding=kernel // 2)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, half: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Scale before the clamp and shift, (B, out_channels, h, w) each, of (B, C', h, w) and (B, P, h, w)."""
        hidden = nn.functional.leaky_relu(self.first(torch.cat([half, condition], dim=1)))
        scale, shift = (self.gamma * self.second(hidden)).chunk(2, dim=1)
        return scale, shift


class Coupling(nn.Module):
    """Both halves of the channels in turn, each scaled and shifted by what the other shows.

    Args:
        channels: C; an odd one goes to the second half.
        condition_channels: P.
        hidden: channels between the convolutions.
        kernel: side of the convolutions, odd.
        clamp: largest size of a log-scale.
    """

    def __init__(self, channels: int, condition_channels: int, hidden: int, kernel: int, clamp: float) -> None:
        super().__init__()
        self.halves = channels // 2, channels - channels // 2
        self.clamp = clamp
        first, second = self.halves
        self.on_first = Subnet(second + condition_channels, first, hidden, kernel)
        self.on_second = Subnet(first + condition_channels, second, hidden, kernel)

    def _moves(self, subnet: Subnet, half: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = subnet(half, condition)
        return self.clamp * ATAN_SCALE * torch.atan(scale / self.clamp), shift

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Moved map (B, C, h, w) and the log-determinant's share of each position (B, h, w)."""
        first, second = x.split(self.halves, dim=1)
        log_scale, shift = self._moves(self.on_first, second, condition)
        first = first * log_scale.exp() + shift
        log_det = log_scale.sum(dim=1)
        log_scale, shift = self._moves(self.on_second, first, condition)
        second = second * log_scale.exp() + shift
        return torch.cat([first, second], dim=1), log_det + log_scale.sum(dim=1)

    def inverse(self, z: Tensor, condition: Tensor) -> Tensor:
        """The map (B, C, h, w) that `forward` moved to `z`."""
        first, second = z.split(self.halves, dim=1)
        log_scale, shift = self._moves(self.on_second, first, condition)
        second = (second - shift) * (-log_scale).exp()
        log_scale, shift = self._moves(self.on_first, second, condition)
        return torch.cat([(first - shift) * (-log_scale).exp(), second], dim=1)


class Flow(nn.Module):
    """Couplings with a fixed random permutation of the channels before each.

    Args:
        channels: C.
        condition_channels: P.
        hidden: channels within the subnets.
        kernels: side of the convolutions of each coupling.
        clamp: largest size of a log-scale of one coupling.
        seed: of permutations and first weights.
    """

    def __init__(
        self, channels: int, condition_channels: int, hidden: int, kernels: list[int], clamp: float, seed: int
    ) -> None:
        super().__init__()
        with torch_seed(seed):
            orders = torch.stack([torch.randperm(channels) for _ in kernels])
            couplings = [Coupling(channels, condition_channels, hidden, kernel, clamp) for kernel in kernels]
        self.register_buffer("orders", orders)
        self.couplings = nn.ModuleList(couplings)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Latent map (B, C, h, w) of a map of that shape, and the log-determinant's share of each position (B, h, w).

        The share of a position is the sum of its own log-scales; over all positions they add up to the logarithm of
        the absolute determinant of the whole map's Jacobian.

        Args:
            x: (B, C, h, w) float32.
            condition: (B, P, h, w) float32.
        """
        log_det = x.new_zeros(x.shape[0], *x.shape[2:])
        for order, coupling in zip(self.orders, self.couplings, strict=True):
            x, share = coupling(x[:, order], condition)
            log_det = log_det + share
        return x, log_det

    def inverse(self, z: Tensor, condition: Tensor) -> Tensor:
        """The map (B, C, h, w) whose latent map is `z`; see `forward`."""
        for order, coupling in zip(reversed(self.orders), reversed(self.couplings), strict=True):
            z = coupling.inverse(z, condition)[:, order.argsort()]
        return z


class Student(nn.Module):
    """A plain convolutional network with residual blocks, no flow, so that it need not follow the teacher on defects.

    Args:
        channels: C of input and output.
        condition_channels: P.
        width: channels within.
        num_blocks: residual blocks.
        seed: of the first weights.
    """

    def __init__(self, channels: int, condition_channels: int, width: int, num_blocks: int, seed: int) -> None:
        super().__init__()
        with torch_seed(seed):
            self.input = nn.Conv2d(channels + condition_channels, width, 3, padding=1)
            self.blocks = nn.ModuleList(residual_layers(width) for _ in range(num_blocks))
            self.output = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Guess at the teacher's latent map, (B, C, h, w), from the map of that shape and the condition."""
        x = nn.functional.leaky_relu(self.input(torch.cat([x, condition], dim=1)))
        for block in self.blocks:
            x = nn.functional.leaky_relu(x + block(x))
        return self.output(x)


def residual_layers(width: int) -> nn.Sequential:
    """Two 3 x 3 convolutions with batch normalization, LeakyReLU between them, (B, width, h, w) to the same."""
    convolutions = [nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2)]
    return nn.Sequential(convolutions[0], nn.BatchNorm2d(width), nn.LeakyReLU(), convolutions[1], nn.BatchNorm2d(width))


def token_map(tokens: Tensor) -> Tensor:
    """(C, h, w) map with h = w of tokens (h w, C) in row-major order."""
    return rearrange(tokens, "(i j) c -> c i j", i=round(len(tokens) ** 0.5))
