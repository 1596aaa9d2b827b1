"""A toy world in which features can be seen: boards of colored tiles whose relief obeys a law.

The color of a tile is its RGB feature (3 numbers), its relief code the 3D feature (3 numbers). So the whole of CFM
runs on it in seconds, through the same `Features` and the same head as real samples. Ours; the four cases are those
of CFM Figure 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lib.config import check_choice
from lib.features import Features

SIDE = 36  # pixels
TILE = 12  # pixels
NOISE = 0.06
COLORS = np.array([[0.9, -0.5, -0.5], [-0.6, 0.6, -0.5], [-0.7, -0.2, 0.9]])  # red, green, blue, minus mid grey
SECOND_COLORS = np.array([[0.8, 0.5, -0.8], [-0.6, 0.6, -0.5], [-0.7, -0.2, 0.9]])  # kind 0 may also be yellow
RELIEFS = np.array([[1.0, 0.2, 0.1], [0.1, 1.0, 0.2], [0.2, 0.1, 1.0]])  # dome, ridge, flat
STRANGE_COLOR = np.array([0.5, -0.9, 0.6])  # purple, no nominal tile
STRANGE_RELIEF = np.array([0.7, -0.6, 0.4])
CASES = ("nominal", "color anomaly", "shape anomaly", "wrong co-occurrence")
DEFECT_TILE = (1, 1)


def toy_board(generator: np.random.Generator, case: str = "nominal", two_colors: bool = False) -> Features:
    """Features of one board of 3 x 3 tiles, one pixel a token.

    Args:
        generator: source of the layout and the noise.
        case: one of `CASES`; the tile in the middle is changed unless "nominal".
        two_colors: tiles of kind 0 are red or yellow at random, the one-to-many law.
    """
    check_choice("toy case", case, CASES)
    kinds = generator.integers(len(COLORS), size=(3, 3))
    kinds[DEFECT_TILE] = generator.integers(1, len(COLORS)) if case != "nominal" else kinds[DEFECT_TILE]
    yellow = generator.random((3, 3)) < (0.5 if two_colors else 0.0)
    colors = np.where(yellow[..., None], SECOND_COLORS[kinds], COLORS[kinds])
    reliefs = RELIEFS[kinds]
    if case == "color anomaly":
        colors[DEFECT_TILE] = STRANGE_COLOR
    elif case == "shape anomaly":
        reliefs[DEFECT_TILE] = STRANGE_RELIEF
    elif case == "wrong co-occurrence":
        reliefs[DEFECT_TILE] = RELIEFS[kinds[DEFECT_TILE] % 2 + 1]  # the other of kinds 1 and 2
    return _board_features(_spread(colors, generator), _spread(reliefs, generator), case)


def _spread(tiles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(3, SIDE, SIDE) float32 noisy map from (3, 3, 3) tile values."""
    dense = tiles.repeat(TILE, axis=0).repeat(TILE, axis=1)
    return (dense + NOISE * generator.standard_normal(dense.shape)).astype(np.float32).transpose(2, 0, 1)


def _board_features(colors: np.ndarray, reliefs: np.ndarray, case: str) -> Features:
    pixel_index = torch.arange(SIDE * SIDE)
    gt_mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    if case != "nominal":
        row, column = (TILE * index for index in DEFECT_TILE)
        gt_mask[row : row + TILE, column : column + TILE] = True
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return Features(
        rgb_tokens=torch.from_numpy(colors),
        xyz_tokens=torch.from_numpy(reliefs).flatten(1).T.contiguous(),
        centers=torch.stack([columns, rows, torch.zeros_like(rows)], dim=-1).reshape(-1, 3) * 1e-3,
        neighbors=pixel_index[:, None].repeat(1, 3),  # every pixel has its own 3D token
        weights=torch.full((SIDE * SIDE, 3), 1 / 3),
        pixel_index=pixel_index,
        foreground=torch.ones(SIDE, SIDE, dtype=torch.bool),
        sample_id=f"toy/{case}/000",
        label=int(case != "nominal"),
        gt_mask=gt_mask,
    )


def toy_pictures(board: Features) -> tuple[np.ndarray, np.ndarray]:
    """The board's two modalities as (SIDE, SIDE, 3) pictures in [0, 1]: its colors, and its relief code as colors."""
    colors = 0.5 + 0.45 * board.rgb_tokens.numpy().transpose(1, 2, 0)
    reliefs = 0.15 + 0.7 * board.xyz_tokens.numpy().reshape(SIDE, SIDE, 3)
    return np.clip(colors, 0, 1), np.clip(reliefs, 0, 1)


def toy_training_set(generator: np.random.Generator, count: int, two_colors: bool = False) -> Sequence[Features]:
    """`count` nominal boards."""
    return [toy_board(generator, two_colors=two_colors) for _ in range(count)]


def toy_tile_means(board: Features, psi_2d: Tensor, psi_3d: Tensor, kind: str = "middle") -> dict[str, float]:
    """Mean of both discrepancy maps and of their product over some tiles of a board.

    Args:
        board: from `toy_board`.
        psi_2d, psi_3d: (SIDE, SIDE) float32, from `CFM.discrepancies`.
        kind: "middle" = the tile that is changed in the defective cases, "domes" = every tile with relief of kind 0.
    """
    check_choice("kind of tiles", kind, ("middle", "domes"))
    chosen = board.xyz_tokens.argmax(dim=1).view(SIDE, SIDE) == 0
    if kind == "middle":
        chosen = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        chosen[tuple(slice(TILE * index, TILE * (index + 1)) for index in DEFECT_TILE)] = True
    maps = {"psi_2d": psi_2d, "psi_3d": psi_3d, "product": psi_2d * psi_3d}
    return {name: float(values[chosen].mean()) for name, values in maps.items()}


def nearly_perfect_maps(gt_masks: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Anomaly maps (B, H, W) float32 of a detector that knows the masks, but for one hot good pixel.

    Args:
        gt_masks: (B, H, W) bool.
        generator: source of the small noise that orders the pixels of each class.
    """
    maps = generator.random(gt_masks.shape, dtype=np.float32) * 0.5 + gt_masks
    row, column = np.argwhere(~gt_masks[0])[0]
    maps[0, row, column] = 2.0
    return maps
