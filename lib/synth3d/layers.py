"""What a scene is made of: a height field with its reflectance and gloss, and the interchangeable parts on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lib.synth3d.canvas import Canvas, mix, smoothstep

# Noise-like offsets of one part: the same for every kind, so a swap of kinds leaves them where they are.
TONE_DEVIATION = 0.05
RELIEF_DEVIATION = 0.06


@dataclass(frozen=True)
class Layers:
    """One object on the canvas.

    Attributes:
        height: (S, S) float32 millimetres above the supporting plane, 0 outside the object.
        albedo: (S, S, 3) float32 linear reflectance, meaningful inside the object only.
        gloss: (S, S) float32 strength of the mirror-like reflection, 0 to 1.
        coverage: (S, S) float32, 1 inside the outline, 0 outside, a one-pixel ramp between.
    """

    height: np.ndarray
    albedo: np.ndarray
    gloss: np.ndarray
    coverage: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        """(S, S) bool: pixels of the object."""
        return self.coverage > 0.5


@dataclass(frozen=True)
class Parts:
    """The interchangeable parts of one object: where each sits, and which kind it is.

    The kind decides color and relief together: this is the nominal law that crossmodal detectors can learn.

    Attributes:
        kinds: (N,) int64 kind of each part, independent and uniform over the kinds of the family.
        shades: (N,) int64 which of the colors of its kind the part has (one-to-many families), else zeros.
        tones: (N, 3) float32 factor on the color of each part.
        reliefs: (N,) float32 factor on the relief of each part.
        turns: (N,) float32 turn of each part in radians.
    """

    kinds: np.ndarray
    shades: np.ndarray
    tones: np.ndarray
    reliefs: np.ndarray
    turns: np.ndarray

    def __len__(self) -> int:
        return len(self.kinds)


def sample_parts(generator: np.random.Generator, count: int, num_kinds: int, num_shades: int = 1) -> Parts:
    """Parts with kinds, shades and small individual offsets drawn independently."""
    tones = np.exp(generator.normal(0, TONE_DEVIATION, (count, 1)) + generator.normal(0, 0.03, (count, 3)))
    reliefs = np.exp(generator.normal(0, RELIEF_DEVIATION, count))
    return Parts(
        kinds=generator.integers(0, num_kinds, count),
        shades=generator.integers(0, num_shades, count),
        tones=tones.astype(np.float32),
        reliefs=reliefs.astype(np.float32),
        turns=generator.uniform(0, 2 * np.pi, count).astype(np.float32),
    )


def swap_kinds(generator: np.random.Generator, parts: Parts, num_kinds: int) -> Parts:
    """The same parts with one to three of them changed to another kind.

    Kinds are independent and uniform, and each changed part takes one of the other kinds with equal chance, so the
    result has exactly the nominal distribution too.
    """
    changed = generator.choice(len(parts), size=min(len(parts), int(generator.integers(1, 4))), replace=False)
    kinds = parts.kinds.copy()
    kinds[changed] = (kinds[changed] + generator.integers(1, num_kinds, len(changed))) % num_kinds
    return replace(parts, kinds=kinds)


def paint_disc(
    layers: Layers,
    canvas: Canvas,
    center_mm: np.ndarray,
    radius_mm: float,
    relief: Callable[[np.ndarray, np.ndarray], np.ndarray],
    tint: np.ndarray,
    gloss: float,
    turn_rad: float = 0.0,
) -> None:
    """Put one round part on the layers, in place.

    Args:
        layers: drawn so far; height, albedo and gloss change inside the disc.
        canvas: the pixel grid.
        center_mm: (2,) position on the canvas.
        radius_mm: radius of the footprint.
        relief: from (distance / radius, polar angle) to height in millimetres above the layers' own surface.
        tint: (3,) linear reflectance.
        gloss: 0 to 1.
        turn_rad: turn of the part's own axes.
    """
    rows_columns = canvas.window(center_mm, radius_mm + canvas.pitch_mm)
    dx = canvas.x_mm[rows_columns] - np.float32(center_mm[0])
    dy = canvas.y_mm[rows_columns] - np.float32(center_mm[1])
    rho = np.hypot(dx, dy) / np.float32(radius_mm)
    soft = 0.6 * canvas.pitch_mm / radius_mm
    alpha = smoothstep(1 + soft, 1 - soft, rho)
    layers.height[rows_columns] += relief(np.minimum(rho, 1), np.arctan2(dy, dx) - np.float32(turn_rad)) * (rho < 1)
    layers.albedo[rows_columns] = mix(layers.albedo[rows_columns], tint, alpha)
    layers.gloss[rows_columns] += alpha * (np.float32(gloss) - layers.gloss[rows_columns])


def harmonics(generator: np.random.Generator, orders: range, deviation: float) -> np.ndarray:
    """(len(orders), 3) order, relative amplitude and phase of each angular wave of an irregular outline."""
    waves = [(order, generator.normal(0, deviation / order**0.7), generator.uniform(0, 2 * np.pi)) for order in orders]
    return np.array(waves, np.float32)


def outline(waves: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Array like `theta`: radius of the outline at each polar angle, relative to a circle of radius 1."""
    radius = np.ones_like(theta)
    for order, amplitude, phase in waves:
        radius += amplitude * np.cos(order * theta + phase)
    return radius
