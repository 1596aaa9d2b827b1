"""The networks between modalities: CFM's MLP, and the others its paper and its author speak of.

Letters: C channels. Each network has a first linear layer, `input`, apart from the rest, because it may be applied to
tokens before they are mixed into pixels.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from lib.methods import CFMConfig

SEVEN = 7


class MappingMLP(nn.Module):
    """Three linear layers with GELU between them (CFM sec. 3.2): features of one modality to the other's."""

    def __init__(self, in_dim: int, out_dim: int, hidden_dim: int | None = None) -> None:
        super().__init__()
        hidden_dim = hidden_dim or (in_dim + out_dim) // 2
        self.widths = (in_dim, hidden_dim, hidden_dim, out_dim)
        self.input = nn.Linear(in_dim, hidden_dim)
        self.projection = nn.Linear(hidden_dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, out_dim)
        self.activation = nn.GELU()

    def forward(self, features: Tensor) -> Tensor:
        """Predicted features (..., out_dim) float32 from features (..., in_dim) float32."""
        return self.after_input(self.input(features))

    def after_input(self, hidden: Tensor) -> Tensor:
        """The same from what the first linear layer gives, (..., hidden_dim)."""
        return self.output(self.activation(self.projection(self.activation(hidden))))


class LinearStack(nn.Module):
    """Linear layers of given widths with GELU between them.

    Args:
        widths: of the input, of each layer's output; three or more.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.widths = widths
        self.input = nn.Linear(widths[0], widths[1])
        self.rest = nn.Sequential(*(part for pair in pairwise(widths[1:]) for part in (nn.GELU(), nn.Linear(*pair))))

    def forward(self, features: Tensor) -> Tensor:
        """Predicted features (..., out_dim) float32 from features (..., in_dim) float32."""
        return self.after_input(self.input(features))

    def after_input(self, hidden: Tensor) -> Tensor:
        """The same from what the first linear layer gives."""
        return self.rest(hidden)


def mapping_network(config: CFMConfig, in_dim: int, out_dim: int) -> MappingMLP | LinearStack:
    """Untrained network that `config.network` names.

    "encoder_decoder" halves its input's width twice, keeps the quarter once, doubles it, and ends at the output's
    width: 768, 384, 192, 192, 384, 1152 (CFM suppl. B). "seven_layers" has six hidden
    layers of the MLP's width (released code).
    """
    if config.network == "encoder_decoder":
        half, quarter = max(in_dim // 2, 1), max(in_dim // 4, 1)
        return LinearStack((in_dim, half, quarter, quarter, half, out_dim))
    if config.network == "seven_layers":
        hidden_dim = config.hidden_dim or (in_dim + out_dim) // 2
        return LinearStack((in_dim, *[hidden_dim] * (SEVEN - 1), out_dim))
    return MappingMLP(in_dim, out_dim, config.hidden_dim)
