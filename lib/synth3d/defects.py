"""Defects drawn into the layers of a nominal object, each with its exact mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from lib.synth3d.canvas import Canvas, Pose, color, mix, smooth_noise, smoothstep
from lib.synth3d.families import Family
from lib.synth3d.layers import Layers, harmonics, outline

FLOOR_MM = 7.0  # pits end here: preparation cuts everything below 5 mm away with the plane
HEIGHT_THRESHOLD_MM = 0.15  # smaller differences drown in the sensor's noise and do not count as defective
ALBEDO_THRESHOLD = 0.035  # same for color, in square roots of reflectance (about the eye's scale)


@dataclass(frozen=True)
class Brush:
    """Where and how one defect is drawn.

    Attributes:
        layers: the nominal object.
        canvas: the pixel grid.
        family: the object's family.
        generator: source of the defect's randomness.
        along: (S, S) float32 millimetres from the defect's center along its own first axis.
        across: (S, S) float32 the same along the second axis.
    """

    layers: Layers
    canvas: Canvas
    family: Family
    generator: np.random.Generator
    along: np.ndarray
    across: np.ndarray

    def blob(self, radius_mm: float, deviation: float = 0.12) -> np.ndarray:
        """(S, S) float32 distance from the center relative to an irregular, slightly long outline."""
        aspect = np.sqrt(self.generator.uniform(1.0, 1.7))
        x, y = self.along / np.float32(aspect), self.across * np.float32(aspect)
        waves = harmonics(self.generator, range(2, 7), deviation)
        return np.hypot(x, y) / (np.float32(radius_mm) * outline(waves, np.arctan2(y, x)))

    def pick(self, codes: tuple[str, ...]) -> np.ndarray:
        """(3,) float32 one of the colors, slightly changed."""
        tint = color(codes[int(self.generator.integers(len(codes)))])
        return tint * np.exp(self.generator.normal(0, 0.08, 3)).astype(np.float32)


def _place(layers: Layers, canvas: Canvas, family: Family, generator: np.random.Generator, margin_mm: float) -> Brush:
    """Brush at a uniformly drawn point at least `margin_mm` inside the outline, at a random turn."""
    inner = distance_transform_edt(layers.inside) * canvas.pitch_mm
    rows, columns = np.nonzero(inner >= min(margin_mm, 0.9 * float(inner.max())))
    # The draw is a share of the area, so the same generator picks the same place at every canvas size.
    index = int(generator.random() * len(rows))
    center = (float(canvas.x_mm[rows[index], columns[index]]), float(canvas.y_mm[rows[index], columns[index]]))
    pose = Pose(center, float(generator.uniform(0, 2 * np.pi)))
    return Brush(layers, canvas, family, generator, *pose.to_object(canvas.x_mm, canvas.y_mm))


def _lowered(height: np.ndarray, depth_mm: np.ndarray) -> np.ndarray:
    return np.minimum(height, np.maximum(height - depth_mm, FLOOR_MM))


def _hole(brush: Brush) -> Layers:
    generator, layers = brush.generator, brush.layers
    rho = brush.blob(generator.uniform(2.4, 4.8))
    opened = smoothstep(1.05, 0.75, rho)
    rough = smooth_noise(generator, brush.canvas, 1.5)
    depth = np.float32(generator.uniform(1.8, 4.5)) * opened * (1 + 0.12 * rough)
    inner = brush.pick((brush.family.flesh,)) * (1 + 0.12 * rough)[..., None]
    albedo = mix(layers.albedo, inner, 0.9 * opened)
    return replace(layers, height=_lowered(layers.height, depth), albedo=albedo, gloss=layers.gloss * (1 - opened))


def _bump(brush: Brush) -> Layers:
    rho = brush.blob(brush.generator.uniform(4.2, 7.5), deviation=0.06)
    raised = np.float32(brush.generator.uniform(1.8, 3.8)) * np.maximum(1 - rho**2, 0) ** 0.6
    return replace(brush.layers, height=brush.layers.height + raised)


def _cut(brush: Brush) -> Layers:
    generator, layers = brush.generator, brush.layers
    half_length, half_width = generator.uniform(6.5, 12.0), generator.uniform(0.7, 1.1)
    bend = brush.across - np.float32(generator.normal(0, 0.012)) * brush.along**2
    taper = np.sqrt(np.maximum(1 - (brush.along / np.float32(half_length)) ** 2, 0))
    wall = (taper > 0) * np.maximum(1 - np.abs(bend) / np.maximum(half_width * taper, 1e-3), 0) ** 0.6
    depth = np.float32(generator.uniform(1.8, 3.6)) * wall
    inner = brush.pick((brush.family.flesh,))
    albedo = mix(layers.albedo, inner * 0.8, 0.8 * smoothstep(0.0, 0.5, wall))
    return replace(layers, height=_lowered(layers.height, depth), albedo=albedo)


def _stain(brush: Brush) -> Layers:
    generator, layers = brush.generator, brush.layers
    patchy = smooth_noise(generator, brush.canvas, 2.5)
    rho = brush.blob(generator.uniform(3.8, 7.5), deviation=0.16) + 0.06 * patchy
    soaked = smoothstep(1.05, 0.85, rho) * np.clip(0.9 + 0.12 * patchy, 0, 1)
    tint = brush.pick(brush.family.stains)
    return replace(layers, albedo=mix(layers.albedo, tint, np.float32(generator.uniform(0.6, 0.95)) * soaked))


def _contamination(brush: Brush) -> Layers:
    generator, layers = brush.generator, brush.layers
    if generator.random() < 0.5:
        half_length, half_width = generator.uniform(4.0, 7.0), generator.uniform(0.9, 1.6)
        beyond = np.maximum(np.abs(brush.along) - half_length, 0)
        rho = np.hypot(beyond, brush.across) / np.float32(half_width)
    else:
        rho = brush.blob(generator.uniform(2.2, 3.6), deviation=0.2)
    bed = gaussian_filter(layers.height, 1.2 / brush.canvas.pitch_mm)
    top = np.maximum(bed + np.float32(generator.uniform(1.2, 2.8)), layers.height + 0.3)
    covered = smoothstep(1.08, 0.92, rho)
    height = np.where(rho < 1, top * (1 - 0.03 * rho**2), layers.height)
    albedo = mix(layers.albedo, brush.pick(brush.family.debris), covered)
    shine = np.float32(generator.uniform(0.1, 0.6))
    gloss = layers.gloss + covered * (shine - layers.gloss)
    return replace(layers, height=height.astype(np.float32), albedo=albedo, gloss=gloss)


@dataclass(frozen=True)
class _Recipe:
    draw: Callable[[Brush], Layers]
    margin_mm: float


_RECIPES = {
    "hole": _Recipe(_hole, 5.5),
    "bump": _Recipe(_bump, 6.5),
    "cut": _Recipe(_cut, 5.0),
    "stain": _Recipe(_stain, 5.5),
    "contamination": _Recipe(_contamination, 5.5),
}
DEFECTS = (*_RECIPES, "swap")


def height_disagreement(first: Layers, second: Layers) -> np.ndarray:
    """(S, S) bool pixels of the object where two height fields differ by more than the sensor could hide."""
    return (np.abs(first.height - second.height) > HEIGHT_THRESHOLD_MM) & first.inside


def _perceptible(before: Layers, after: Layers) -> np.ndarray:
    """(S, S) bool pixels of the object where surface or reflectance differ perceptibly."""
    tone = np.abs(np.sqrt(np.maximum(after.albedo, 0)) - np.sqrt(np.maximum(before.albedo, 0))).max(-1)
    return height_disagreement(before, after) | ((tone > ALBEDO_THRESHOLD) & before.inside)


def spoil(
    layers: Layers, defect: str, canvas: Canvas, family: Family, generator: np.random.Generator
) -> tuple[Layers, np.ndarray]:
    """Layers with one local defect, and its (S, S) bool mask; nothing changes outside the mask.

    Args:
        layers: the nominal object; not changed.
        defect: "hole", "bump", "cut", "stain" or "contamination".
        canvas: the pixel grid.
        family: the object's family.
        generator: source of place, size and look.
    """
    recipe = _RECIPES[defect]
    drawn = recipe.draw(_place(layers, canvas, family, generator, recipe.margin_mm))
    mask = _perceptible(layers, drawn)
    confined = Layers(
        height=np.where(mask, drawn.height, layers.height),
        albedo=np.where(mask[..., None], drawn.albedo, layers.albedo),
        gloss=np.where(mask, drawn.gloss, layers.gloss),
        coverage=layers.coverage,
    )
    return confined, mask
