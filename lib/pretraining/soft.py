"""Pretraining objects of cloth, foil, dough and free shape: cushion, foil, pasta, terraces, freeform."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lib.pretraining.paint import material, palette, pattern
from lib.pretraining.shapes import (
    cells,
    glyph_depth,
    per_cell,
    pile,
    place,
    rise,
    roughen,
    scatter,
    silhouette,
    solid,
)
from lib.synth3d.canvas import Canvas, mix, smooth_noise, smoothstep
from lib.synth3d.layers import Layers

Primitive = Callable[[np.random.Generator, Canvas], np.ndarray]


def cushion(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """Quilted cloth: pillows between seams, stitches along them, sometimes buttons at the crossings."""
    x, y, depth = silhouette(generator, canvas)
    pitch = generator.uniform(8, 30)
    u, v, row, column = cells(x, y, pitch, pitch * generator.uniform(0.6, 1.2), float(generator.choice([0, 0.5])))
    to_seam = pitch * 0.5 - np.maximum(np.abs(u), np.abs(v) * np.float32(generator.uniform(0.7, 1)))
    puff = np.clip(to_seam / (pitch * 0.5), 0, 1) ** np.float32(generator.uniform(0.3, 0.8))
    wrinkles = smooth_noise(generator, canvas, *generator.uniform(1.5, 8, 2).tolist())
    height = generator.uniform(2, 5) + generator.uniform(2, 8) * puff + generator.uniform(0, 0.4) * wrinkles
    corner = np.hypot(np.abs(u) - pitch / 2, np.abs(v) - pitch / 2)
    button = generator.uniform(1.5, 3.5) - corner
    buttons = (generator.random() < 0.5) * rise(button, 1.0, 2)
    stitch = smoothstep(0.7, 0.3, np.abs(to_seam - 0.9)) * (((u + v) % 2.2) < 1.3) * (generator.random() < 0.6)
    height = (height + 2 * buttons - 0.4 * stitch) * rise(depth, generator.uniform(1, 8), 2)
    thread = 1 + generator.uniform(0, 0.1) * np.sin(x * 5) * np.sin(y * 5)
    colors = palette(generator, 4)
    tints = mix(colors[0], colors[1], per_cell(generator, row, column) > generator.random()) * thread[..., None]
    tints = mix(mix(tints, colors[2], stitch), colors[3], smoothstep(0, 0.4, button) * (buttons > 0))
    return solid(canvas, depth, height, material(generator, canvas, tints), generator.uniform(0, 0.4))


def foil(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """Crumpled foil or paper: flat facets of three sizes that meet in sharp creases."""
    _, _, depth = silhouette(generator, canvas)
    depth = depth + generator.uniform(0, 3) * smooth_noise(generator, canvas, 12.0)
    height = np.full_like(depth, np.float32(generator.uniform(3, 8)))
    for fold_mm, steepest in ((30.0, 0.5), (14.0, 0.6), (6.0, 0.5)):
        for _ in range(3):
            x, _ = place(generator, canvas, 0)
            wavy = x + np.float32(0.18 * fold_mm) * smooth_noise(generator, canvas, fold_mm)
            period = np.float32(fold_mm * generator.uniform(0.7, 1.6))
            height = height + np.float32(generator.uniform(0, steepest)) * np.abs(wavy % period - period / 2)
    height = height - np.percentile(height[::4, ::4], 5) + generator.uniform(1, 5)
    tints = palette(generator, 1)[0]
    return solid(canvas, depth, height, material(generator, canvas, tints), generator.uniform(0.1, 0.8))


def pasta(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """Short ridged tubes thrown together."""
    height, index = np.zeros((canvas.size, canvas.size), np.float32), np.full((canvas.size, canvas.size), -1)
    radius, ridges = generator.uniform(3, 7), generator.uniform(1.2, 3)
    depth_of_groove = generator.uniform(0, 0.5)
    for number in range(int(generator.integers(4, 20))):
        angle, half = generator.uniform(0, np.pi), generator.uniform(11, 24)
        middle, step = generator.uniform(-34, 34, 2), half * np.array([np.cos(angle), np.sin(angle)])
        dx, dy = canvas.x_mm - np.float32(middle[0]), canvas.y_mm - np.float32(middle[1])
        along = (dx * np.float32(step[0]) + dy * np.float32(step[1])) / np.float32(half)
        across = (dy * np.float32(step[0]) - dx * np.float32(step[1])) / np.float32(half)
        bent = across - np.float32(generator.normal(0, 0.004)) * along**2
        cut = half - np.abs(along + np.float32(generator.uniform(-0.5, 0.5)) * bent)
        rest = 1 - (bent / np.float32(radius)) ** 2
        around = np.arcsin(np.clip(bent / np.float32(radius), -1, 1)) * np.float32(radius)
        groove = depth_of_groove * np.cos(around * np.float32(2 * np.pi / ridges))
        top = radius * (1 + np.sqrt(np.maximum(rest, 0))) + groove + generator.uniform(0, 4)
        above = (rest > 0) & (cut > 0) & (top > height)
        height, index = np.where(above, top, height), np.where(above, number, index)
    colors = palette(generator, int(generator.integers(1, 4)))
    tints = colors[generator.integers(0, len(colors), 20)][index]
    depth = np.where(index >= 0, np.float32(1), np.float32(-1))
    return solid(canvas, depth, height, material(generator, canvas, tints), generator.uniform(0, 0.3))


def terraces(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """A relief model in steps, as cut from sheets of board, each level with its color."""
    _, _, depth = silhouette(generator, canvas)
    cell = generator.uniform(9, 35)
    ground = smooth_noise(generator, canvas, cell) + 0.35 * smooth_noise(generator, canvas, cell / 3)
    step = generator.uniform(0.25, 0.8)
    level = np.floor((ground + 3) / np.float32(step))
    softness = generator.uniform(0.02, 1.0)
    ramp = smoothstep(1 - softness, 1.0, (ground + 3) / np.float32(step) - level)
    height = 1.5 + np.maximum(level + ramp - 1, 0) * np.float32(generator.uniform(0.5, 1.6))
    colors = palette(generator, 12)
    tints = colors[np.clip(level, 0, 99).astype(np.int64) % int(generator.integers(1, 13))]
    return solid(canvas, depth, np.minimum(height, 24), material(generator, canvas, tints), generator.uniform(0, 0.4))


def _waves(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    x, _ = place(generator, canvas, 0)
    bend = generator.exponential(0.6) * smooth_noise(generator, canvas, 20.0)
    wave = np.sin(x * np.float32(2 * np.pi / generator.uniform(2.5, 25)) + bend)
    return np.abs(wave) if generator.random() < 0.4 else wave


def _noise(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    field = smooth_noise(generator, canvas, *np.exp(generator.uniform(0.3, 3.4, 2)).tolist())
    return np.abs(field) if generator.random() < 0.3 else field


def _heap(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    """Domes all over: dense, since a few alone would look like the bumps and crumbs of synth3d's defects."""
    size = generator.uniform(6, 16)
    centers = scatter(generator, size * generator.uniform(0.9, 1.4))
    return pile(generator, canvas, centers, (0.4 * size, size), (0.4, 1.5), generator.uniform(0.1, 1.5))[0]


def _strokes(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    """One sign of a few strokes in every cell of a grid: repeated, since a lone stroke would look like a cut."""
    x, y = place(generator, canvas, 0)
    pitch = generator.uniform(6, 26)
    u, v, _, _ = cells(x, y, pitch, pitch * generator.uniform(0.6, 1.2), float(generator.choice([0, 0.5])))
    sign = glyph_depth(generator, u, v, pitch * generator.uniform(0.6, 1.0))
    return rise(sign, generator.uniform(0.2, 3), int(generator.integers(4)))


def _stamped(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    return pattern(generator, canvas)


PRIMITIVES: tuple[Primitive, ...] = (_waves, _noise, _heap, _strokes, _stamped)


def freeform(generator: np.random.Generator, canvas: Canvas) -> Layers:
    """A random program: two to five height fields added, cut out, multiplied or joined by the larger one."""
    _, _, depth = silhouette(generator, canvas)
    relief, colors = np.zeros_like(depth), palette(generator, 6)
    albedo = np.zeros((*depth.shape, 3), np.float32) + colors[5]
    for number in range(int(generator.integers(2, 6))):
        field = PRIMITIVES[int(generator.integers(len(PRIMITIVES)))](generator, canvas).astype(np.float32)
        field = field * np.float32(generator.choice([-1, 1]) * np.exp(generator.uniform(-1.2, 1.1)))
        join = generator.integers(4)
        if join == 0:
            relief = np.maximum(relief, field)
        elif join == 1:
            relief = np.minimum(relief, field + 1)
        else:
            relief = relief + field * (smoothstep(-0.5, 0.5, relief) if join == 3 else 1)
        if generator.random() < 0.7:
            albedo = mix(albedo, colors[number], np.clip(0.5 + field, 0, 1))
    height = relief - np.percentile(relief[::4, ::4], 2) + generator.uniform(1, 7)
    height = (height + roughen(generator, canvas, 1.5, generator.exponential(0.1))) * rise(depth, 2.0, 2)
    return solid(canvas, depth, height, material(generator, canvas, albedo), generator.uniform(0, 0.7))
