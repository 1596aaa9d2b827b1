"""Colors and color patterns of the pretraining objects, over the whole color space."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np

from lib.pretraining.shapes import cells, per_cell, place
from lib.synth3d.canvas import Canvas, mix, smooth_noise, smoothstep

Pattern = Callable[[np.random.Generator, Canvas], np.ndarray]


def palette(generator: np.random.Generator, count: int) -> np.ndarray:
    """(count, 3) float32 linear reflectances: related hues, free hues or tones of one hue, by chance."""
    scheme = generator.integers(3)
    hue, saturation = generator.random(), generator.beta(1.2, 1.2)
    hues = hue + generator.normal(0, (0.06, 0.5, 0.01)[scheme], count)
    saturations = np.clip(saturation + generator.normal(0, 0.15, count), 0, 1)
    values = generator.uniform(0.2, 1.0, count)
    encoded = [colorsys.hsv_to_rgb(h % 1, s, v) for h, s, v in zip(hues, saturations, values, strict=True)]
    return np.clip(np.array(encoded) ** 2.2, 0.015, 0.92).astype(np.float32)


def material(generator: np.random.Generator, canvas: Canvas, tint: np.ndarray) -> np.ndarray:
    """(S, S, 3) float32 reflectance of one stuff: a color (or color image) with tone at two scales."""
    broad = smooth_noise(generator, canvas, float(generator.uniform(6, 30)))
    fine = smooth_noise(generator, canvas, float(generator.uniform(0.8, 3)))
    strength = generator.exponential(0.05, 2).astype(np.float32)
    return tint * (1 + strength[0] * broad + strength[1] * fine)[..., None]


def _stripes(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    x, _ = place(generator, canvas, 0)
    bend = np.float32(generator.exponential(0.5)) * smooth_noise(generator, canvas, 25.0)
    edge = generator.uniform(0.1, 0.9)
    return smoothstep(-edge, edge, np.sin(x * np.float32(2 * np.pi / generator.uniform(2.5, 20)) + bend))


def _checks(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    x, y = place(generator, canvas, 0)
    pitch = generator.uniform(3, 16, 2)
    _, _, row, column = cells(x, y, pitch[0], pitch[1], float(generator.choice([0, 0.5])))
    return ((row + column) % 2).astype(np.float32) if generator.random() < 0.5 else per_cell(generator, row, column)


def _dots(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    x, y = place(generator, canvas, 0)
    pitch = generator.uniform(3, 14)
    u, v, row, column = cells(x, y, pitch, pitch * 0.87, 0.5)
    radius = np.float32(pitch) * (0.2 + np.float32(0.25 * generator.random()) * per_cell(generator, row, column))
    return smoothstep(0.3, -0.3, np.hypot(u, v) - radius)


def _gradient(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    x, y = place(generator, canvas, 0)
    reach = generator.uniform(15, 60)
    return smoothstep(-reach, reach, x if generator.random() < 0.6 else np.hypot(x, y) - np.float32(25))


def _marbled(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    cell = generator.uniform(2.5, 25)
    field = smooth_noise(generator, canvas, cell) + 0.5 * smooth_noise(generator, canvas, cell / 2.7)
    edge = generator.uniform(0.05, 1.2)
    return smoothstep(-edge, edge, np.abs(field) - 0.5 if generator.random() < 0.4 else field)


def _rings(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    x, y = place(generator, canvas, 20.0)
    warp = np.float32(generator.exponential(1.0)) * smooth_noise(generator, canvas, 18.0)
    return 0.5 + 0.5 * np.sin((np.hypot(x, y) + warp) * np.float32(2 * np.pi / generator.uniform(2, 12)))


def _speckle(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    field = smooth_noise(generator, canvas, float(generator.uniform(0.9, 2.5)))
    return smoothstep(0.0, 0.5, field - np.float32(generator.uniform(0.2, 1.2)))


PATTERNS: tuple[Pattern, ...] = (_stripes, _checks, _dots, _gradient, _marbled, _rings, _speckle)


def pattern(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    """(S, S) float32 in [0, 1]: stripes, checks, dots, a gradient, marbling, rings or speckle."""
    return PATTERNS[int(generator.integers(len(PATTERNS)))](generator, canvas)


def patterned(generator: np.random.Generator, canvas: Canvas, albedo: np.ndarray) -> np.ndarray:
    """(S, S, 3) float32 reflectance with a printed pattern of another color, knowing nothing of the relief."""
    strength = np.float32(generator.uniform(0.25, 1.0))
    return mix(albedo, palette(generator, 1)[0], strength * pattern(generator, canvas))
