"""Small made-up samples for tests of heads and experiments."""

from __future__ import annotations

import torch

from lib.features import Features


def make_features(
    seed: int, height: int = 28, width: int = 28, tokens: int = 7, groups: int = 13, xyz_offset: float = 0.0
) -> Features:
    """Features of one made-up normal sample: 3D tokens are a fixed function of what RGB shows nearby.

    Args:
        seed: of everything random.
        height, width: of the image in pixels.
        tokens: side of the RGB token grid.
        groups: number of 3D tokens.
        xyz_offset: added to every 3D token, to make a defect that RGB does not show.
    """
    generator = torch.Generator().manual_seed(seed)
    rgb_tokens = torch.randn(3, tokens, tokens, generator=generator)
    foreground = torch.zeros(height, width, dtype=torch.bool)
    foreground[4:-5, 6:-3] = True
    pixel_index = foreground.flatten().nonzero().squeeze(1)
    mixing = torch.randn(3, 5, generator=torch.Generator().manual_seed(99))
    cells = torch.randint(tokens * tokens, (groups,), generator=generator)
    weights = torch.rand(len(pixel_index), 3, generator=generator) + 0.1
    return Features(
        rgb_tokens=rgb_tokens,
        xyz_tokens=(rgb_tokens.flatten(1).T[cells] @ mixing).tanh() + 1.5 + xyz_offset,
        centers=torch.randn(groups, 3, generator=generator) * 0.05,
        neighbors=torch.randint(groups, (len(pixel_index), 3), generator=generator),
        weights=weights / weights.sum(dim=1, keepdim=True),
        pixel_index=pixel_index,
        foreground=foreground,
        sample_id=f"train/good/{seed:03d}",
        label=0,
        gt_mask=torch.zeros(height, width, dtype=torch.bool),
    )
