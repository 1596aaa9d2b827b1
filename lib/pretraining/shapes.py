"""Outlines, edges, grids and piles: the geometry that the families of pretraining objects share. Lengths in mm."""

from __future__ import annotations

import numpy as np

from lib.synth3d.canvas import FIELD_MM, Canvas, sample_pose, smooth_noise, smoothstep
from lib.synth3d.layers import Layers, harmonics, outline

JITTER_MM = 25.0  # largest shift of an object from the middle, as far as it stays in view
TABLE_SIDE = 61  # cells beyond repeat; prime, so that no grid of ours repeats with it


def place(generator: np.random.Generator, canvas: Canvas, reach_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Two (S, S) arrays: the pixels in the axes of an object of that reach, anywhere in view and turned freely."""
    return sample_pose(generator, reach_mm, JITTER_MM).to_object(canvas.x_mm, canvas.y_mm)


def silhouette(
    generator: np.random.Generator, canvas: Canvas, whole_share: float = 0.4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three (S, S) arrays: object axes x and y, and the depth inside the outline of a sheet, negative outside.

    Args:
        generator: source of randomness.
        canvas: the pixel grid.
        whole_share: chance that the sheet goes beyond the field of view on all sides.
    """
    if generator.random() < whole_share:
        x, y = place(generator, canvas, 0.0)
        return x, y, np.full_like(x, 99.0)
    half = generator.uniform(24, 40, 2)
    x, y = place(generator, canvas, float(np.hypot(*half)))
    kind = generator.integers(3)
    if kind == 0:
        return x, y, box_depth(x, y, half[0], half[1], generator.uniform(0.5, 0.6 * half.min()))
    waves = harmonics(generator, range(2, 9), 0.0 if kind == 1 else 0.07)
    return x, y, np.float32(half.mean() * 1.25) * outline(waves, np.arctan2(y, x)) - np.hypot(x, y)


def box_depth(x: np.ndarray, y: np.ndarray, half_width: float, half_height: float, corner: float) -> np.ndarray:
    """Array like `x`: distance to the outline of a rectangle with rounded corners, positive inside."""
    dx, dy = np.abs(x) - np.float32(half_width - corner), np.abs(y) - np.float32(half_height - corner)
    return np.float32(corner) - np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) - np.minimum(np.maximum(dx, dy), 0)


def polygon_depth(x: np.ndarray, y: np.ndarray, sides: int, apothem: float) -> np.ndarray:
    """Array like `x`: depth inside a regular polygon, positive inside."""
    angles = 2 * np.pi * np.arange(sides) / sides
    away = [x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)) for angle in angles]
    return np.float32(apothem) - np.maximum.reduce(away)


def segment_distance(x: np.ndarray, y: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Array like `x`: distance to the segment between two different points."""
    along = np.asarray(end, np.float32) - np.asarray(start, np.float32)
    dx, dy = x - np.float32(start[0]), y - np.float32(start[1])
    t = np.clip((dx * along[0] + dy * along[1]) / np.dot(along, along), 0, 1)
    return np.hypot(dx - t * along[0], dy - t * along[1])


def rise(depth: np.ndarray, width: float, kind: int) -> np.ndarray:
    """Array like `depth`: from 0 at the outline to 1 `width` inside it; kind 0 step, 1 chamfer, 2 fillet, 3 cove."""
    t = np.clip(depth / np.float32(max(width, 1e-3)), 0, 1)
    if kind == 0:
        return (depth > 0).astype(np.float32)
    if kind == 1:
        return t
    return np.sqrt(1 - (1 - t) ** 2) if kind == 2 else t * t * (3 - 2 * t)


def cells(
    x: np.ndarray, y: np.ndarray, pitch_x: float, pitch_y: float, shift: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Position inside the cell (two float32 arrays, 0 in its middle) and its row and column (int64) of a grid.

    Odd rows are shifted by the share `shift` of a cell: 0 for a square grid, 0.5 for a running bond.
    """
    row = np.floor(y / np.float32(pitch_y))
    across = x / np.float32(pitch_x) + np.float32(shift) * (row % 2)
    column = np.floor(across)
    u = (across - column - np.float32(0.5)) * np.float32(pitch_x)
    v = (y / np.float32(pitch_y) - row - np.float32(0.5)) * np.float32(pitch_y)
    return u, v, row.astype(np.int64), column.astype(np.int64)


def per_cell(generator: np.random.Generator, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Array like `row`: one uniform random number in [0, 1) per cell of a grid."""
    return generator.random((TABLE_SIDE, TABLE_SIDE), np.float32)[row % TABLE_SIDE, column % TABLE_SIDE]


def pick(colors: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """(..., 3) color of each pixel: the uniform numbers `chance` choose among (N, 3) colors."""
    return colors[(chance * len(colors)).astype(np.int64)]


def glyph_depth(generator: np.random.Generator, x: np.ndarray, y: np.ndarray, size_mm: float) -> np.ndarray:
    """Array like `x`: depth inside an invented letter of a few strokes around the origin, positive inside."""
    lattice = np.array([(i, j) for i in (-0.5, 0, 0.5) for j in (-0.5, 0, 0.5)]) * size_mm * np.array([0.7, 1])
    half_stroke = generator.uniform(0.07, 0.13) * size_mm
    distance = np.full_like(x, 99.0)
    corner = int(generator.integers(9))
    for _ in range(int(generator.integers(2, 5))):
        following = (corner + int(generator.integers(1, 9))) % 9
        distance = np.minimum(distance, segment_distance(x, y, lattice[corner], lattice[following]))
        corner = following
    return np.float32(half_stroke) - distance


def scatter(generator: np.random.Generator, spacing_mm: float, jitter: float = 0.35) -> np.ndarray:
    """(N, 2) points over the field and a little beyond, in random order: a jittered triangular lattice."""
    half = int(60 / spacing_mm) + 1
    columns, rows = np.meshgrid(np.arange(-half, half + 1), np.arange(-half, half + 1))
    points = np.stack([columns + 0.5 * (rows % 2), rows * 0.866], -1).reshape(-1, 2) * spacing_mm
    points = points + generator.normal(0, jitter * spacing_mm / 2, points.shape)
    return generator.permutation(points[np.abs(points).max(1) < FIELD_MM / 2 + spacing_mm])


def pile(
    generator: np.random.Generator, canvas: Canvas, centers_mm: np.ndarray, radius_mm: tuple[float, float],
    height_mm: tuple[float, float], power: float, lift_mm: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(S, S) float32 height of a heap of ellipsoids, and (S, S) int64 which of them is seen, -1 for none.

    Args:
        generator: source of randomness.
        canvas: the pixel grid.
        centers_mm: (N, 2) middles.
        radius_mm: range of both half axes.
        height_mm: range of the height of one ellipsoid.
        power: of the profile (1 - rho^2)^power: 0.5 is an ellipsoid, less is flatter, 1 is a paraboloid.
        lift_mm: largest height at which an ellipsoid begins.
    """
    height = np.zeros((canvas.size, canvas.size), np.float32)
    index = np.full((canvas.size, canvas.size), -1)
    for number, center in enumerate(centers_mm):
        half = generator.uniform(*radius_mm, 2)
        tall, lift, turn = generator.uniform(*height_mm), generator.uniform(0, lift_mm), generator.uniform(0, np.pi)
        spot = canvas.window(center, float(half.max()))
        dx, dy = canvas.x_mm[spot] - np.float32(center[0]), canvas.y_mm[spot] - np.float32(center[1])
        cosine, sine = np.float32(np.cos(turn) / half), np.float32(np.sin(turn) / half)
        rest = 1 - (dx * cosine[0] + dy * sine[0]) ** 2 - (dy * cosine[1] - dx * sine[1]) ** 2
        top = (np.float32(tall) * np.maximum(rest, 0) ** np.float32(power) + np.float32(lift)) * (rest > 0)
        above = top > height[spot]
        height[spot] = np.where(above, top, height[spot])
        index[spot] = np.where(above, number, index[spot])
    return height, index


def roughen(generator: np.random.Generator, canvas: Canvas, cell_mm: float, amount_mm: float) -> np.ndarray:
    """(S, S) float32 rough relief of two scales, a share of `amount_mm` on either side of zero."""
    coarse, fine = smooth_noise(generator, canvas, cell_mm), smooth_noise(generator, canvas, max(0.9, cell_mm / 3))
    return np.float32(0.6 * amount_mm) * coarse + np.float32(0.3 * amount_mm) * fine


def solid(
    canvas: Canvas, depth: np.ndarray, height: np.ndarray, albedo: np.ndarray, gloss: np.ndarray | float
) -> Layers:
    """Layers of an object: everything within the outline (`depth` > 0), at least 0.5 mm high there."""
    coverage = smoothstep(-0.5 * canvas.pitch_mm, 0.5 * canvas.pitch_mm, depth).astype(np.float32)
    tall = np.where(coverage > 0.5, np.maximum(height, 0.5), 0).astype(np.float32)
    colors = np.broadcast_to(np.asarray(albedo, np.float32), (*depth.shape, 3))
    shine = np.broadcast_to(np.asarray(gloss, np.float32), depth.shape)
    return Layers(tall, np.clip(colors, 0.012, 0.95), np.clip(shine, 0, 0.9), coverage)
