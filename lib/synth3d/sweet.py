"""The sweet: a glossy swirled drop with twisted wrapper ends and inlays of three kinds, two colors for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lib.synth3d.canvas import Canvas, Pose, color, mix, sample_pose, smooth_noise, smoothstep
from lib.synth3d.layers import Layers, Parts, paint_disc, sample_parts

KIND_NAMES = ("pearl", "star", "cup")
# Two colors for one shape: a color tells the relief, a relief leaves two colors open (the one-to-many case).
KIND_COLORS = (("#c4202e", "#e8791c"), ("#2a8f45", "#2562b8"), ("#6d3a96", "#e3bb22"))
INLAY_RADIUS_MM = 5.2
NUM_OUTER_INLAYS = 8
NECK_HALF_WIDTH_MM, FAN_HALF_WIDTH_MM = 6.5, 16.0


@dataclass(frozen=True)
class SweetLatent:
    """Everything that decides one sweet but the textures, which follow from `texture_seed`."""

    pose: Pose
    radius_mm: float
    length_mm: float
    base_mm: float
    dome_mm: float
    swirl_arms: int
    swirl_twist: float
    inlay_turn: float
    tint: float
    parts: Parts
    texture_seed: int


def sample(generator: np.random.Generator) -> SweetLatent:
    """One sweet of the nominal class."""
    length = generator.uniform(44.0, 46.0)
    return SweetLatent(
        pose=sample_pose(generator, np.hypot(length, FAN_HALF_WIDTH_MM), 4.0),
        radius_mm=generator.uniform(28.0, 29.5),
        length_mm=length,
        base_mm=generator.uniform(11.0, 12.0),
        dome_mm=generator.uniform(6.5, 8.0),
        swirl_arms=int(generator.integers(7, 10)),
        swirl_twist=generator.uniform(0.035, 0.06),
        inlay_turn=generator.uniform(0, 2 * np.pi),
        tint=generator.uniform(0, 1),
        parts=sample_parts(generator, NUM_OUTER_INLAYS + 1, len(KIND_NAMES), num_shades=2),
        texture_seed=int(generator.integers(2**31)),
    )


def inlay_color(kind: int, shade: int) -> np.ndarray:
    """(3,) float32 linear reflectance of an inlay."""
    return color(KIND_COLORS[kind][shade])


def _relief(kind: int, rho: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Height in millimetres of an inlay over the drop, at relative radius `rho` and polar angle `phi`."""
    if kind == 0:
        return 3.2 * np.sqrt(np.maximum(1 - rho**2, 0))
    if kind == 1:
        arms = np.clip(1 - rho / (0.68 + 0.32 * np.cos(5 * phi)), 0, 1)
        return 0.9 * smoothstep(1.0, 0.9, rho) + 2.4 * arms**0.6
    return 2.4 * np.sqrt(np.maximum(1 - ((rho - 0.74) / 0.26) ** 2, 0)) - 0.5 * smoothstep(0.6, 0.3, rho)


def _wrapper(latent: SweetLatent, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance inside the outline of the two twisted ends, and their pleated height, both in millimetres."""
    reach = np.abs(x)
    out = np.clip((reach - latent.radius_mm + 3) / (latent.length_mm - latent.radius_mm + 3), 0, 1)
    spread = NECK_HALF_WIDTH_MM + (FAN_HALF_WIDTH_MM - NECK_HALF_WIDTH_MM) * smoothstep(0.05, 1.0, out)
    across = y / spread
    pleat = np.cos(np.float32(4.2 * np.pi) * across + np.where(x > 0, 0.6, 0).astype(np.float32))
    zigzag = 1.6 * np.abs((across * 3.5) % 1 - 0.5) * 2
    depth = np.minimum(spread - np.abs(y), latent.length_mm - zigzag - reach)
    height = latent.base_mm - 1.6 + 1.2 * pleat * smoothstep(0.0, 0.3, out) + 1.0 * out
    return np.where(reach > latent.radius_mm * 0.8, depth, -1), height


def _drop(latent: SweetLatent, canvas: Canvas) -> Layers:
    """The swirled drop with its wrapper ends, without inlays."""
    generator = np.random.default_rng(latent.texture_seed)
    x, y = latent.pose.to_object(canvas.x_mm, canvas.y_mm)
    radius, theta = np.hypot(x, y), np.arctan2(y, x)
    drop_depth = latent.radius_mm - radius
    fan_depth, fan_height = _wrapper(latent, x, y)
    q = np.minimum(radius / np.float32(latent.radius_mm), 1)
    edge = np.clip(1 - drop_depth / 4.0, 0, 1)
    drop_height = latent.base_mm * np.sqrt(1 - 0.55 * edge**2) + latent.dome_mm * (1 - q**2)
    drop = drop_depth > 0
    soft = smooth_noise(generator, canvas, 6.0)
    height = np.where(drop, drop_height, np.where(fan_depth > 0, fan_height, 0)) + 0.03 * soft
    depth = np.maximum(drop_depth, fan_depth)
    height = np.where(depth > 0, height, 0).astype(np.float32)
    swirl = np.sin(latent.swirl_arms * theta + latent.swirl_arms * np.float32(latent.swirl_twist) * radius)
    pink = mix(color("#e58ba6"), color("#e79a8e"), latent.tint)
    white = color("#efe6dc")
    albedo = mix(np.broadcast_to(white, (*height.shape, 3)), pink, smoothstep(-0.25, 0.25, swirl))
    foil = mix(pink, white, smoothstep(-0.2, 0.6, np.cos(y * np.float32(1.1))))
    albedo = mix(foil, albedo, smoothstep(-0.3, 0.3, drop_depth))
    coverage = smoothstep(-0.5 * canvas.pitch_mm, 0.5 * canvas.pitch_mm, depth)
    return Layers(height, albedo.astype(np.float32), np.where(drop, 0.75, 0.5).astype(np.float32), coverage)


def inlay_centers(latent: SweetLatent) -> np.ndarray:
    """(9, 2) canvas positions of the inlays in millimetres: one in the middle, eight round it."""
    angles = latent.inlay_turn + np.arange(NUM_OUTER_INLAYS) * (2 * np.pi / NUM_OUTER_INLAYS)
    circle = 0.66 * latent.radius_mm * np.stack([np.cos(angles), np.sin(angles)], 1)
    return latent.pose.to_canvas(np.concatenate([np.zeros((1, 2)), circle]))


def build(latent: SweetLatent, canvas: Canvas) -> Layers:
    """Layers of one sweet."""
    layers = _drop(latent, canvas)
    parts = latent.parts
    for index, center in enumerate(inlay_centers(latent)):
        kind, factor = int(parts.kinds[index]), parts.reliefs[index]
        tint = inlay_color(kind, parts.shades[index]) * parts.tones[index]
        paint_disc(
            layers, canvas, center, INLAY_RADIUS_MM,
            lambda rho, phi, k=kind, f=factor: f * _relief(k, rho, phi), tint, 0.8, parts.turns[index],
        )  # fmt: skip
    return layers
