"""The biscuit: baked base with a browned rim, icing, and sugar pieces of three kinds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lib.synth3d.canvas import Canvas, Pose, color, mix, sample_pose, smooth_noise, smoothstep
from lib.synth3d.layers import Layers, Parts, harmonics, outline, paint_disc, sample_parts

KIND_NAMES = ("raspberry dome", "turquoise disc", "yellow ring")
KIND_COLORS = (("#b3215c",), ("#22918f",), ("#e6b422",))
PIECE_SPACING_MM = 11.4


@dataclass(frozen=True)
class BiscuitLatent:
    """Everything that decides one biscuit but the textures, which follow from `texture_seed`."""

    pose: Pose
    radius_mm: float
    thickness_mm: float
    icing_ratio: float
    bake: float
    icing_tint: float
    num_scallops: int
    base_waves: np.ndarray
    icing_waves: np.ndarray
    piece_centers_mm: np.ndarray
    piece_radii_mm: np.ndarray
    parts: Parts
    texture_seed: int


def _scatter_pieces(generator: np.random.Generator, reach_mm: float) -> np.ndarray:
    """(N, 2) points inside a circle, no two closer than `PIECE_SPACING_MM`, by dart throwing."""
    points: list[np.ndarray] = []
    for candidate in generator.uniform(-reach_mm, reach_mm, (160, 2)):
        clear = all(np.hypot(*(candidate - point)) > PIECE_SPACING_MM for point in points)
        if clear and np.hypot(*candidate) < reach_mm:
            points.append(candidate)
    return np.array(points[:13])


def sample(generator: np.random.Generator) -> BiscuitLatent:
    """One biscuit of the nominal class."""
    radius = generator.uniform(39.0, 43.0)
    base_waves = harmonics(generator, range(2, 7), 0.022)
    reach = radius * (1 + float(np.abs(base_waves[:, 1]).sum()))
    icing_ratio = generator.uniform(0.78, 0.84)
    centers = _scatter_pieces(generator, radius * icing_ratio - 6.2)
    return BiscuitLatent(
        pose=sample_pose(generator, reach, 6.0),
        radius_mm=radius,
        thickness_mm=generator.uniform(11.5, 13.0),
        icing_ratio=icing_ratio,
        bake=generator.uniform(0, 1),
        icing_tint=generator.uniform(0, 1),
        num_scallops=int(generator.integers(26, 31)),
        base_waves=base_waves,
        icing_waves=harmonics(generator, range(2, 9), 0.028),
        piece_centers_mm=centers,
        piece_radii_mm=generator.uniform(4.5, 5.1, len(centers)),
        parts=sample_parts(generator, len(centers), len(KIND_NAMES)),
        texture_seed=int(generator.integers(2**31)),
    )


def _relief(kind: int, rho: np.ndarray) -> np.ndarray:
    """Height in millimetres of a sugar piece over the icing at relative radius `rho`."""
    if kind == 0:
        return 3.4 * np.sqrt(np.maximum(1 - rho**2, 0))
    if kind == 1:
        return 1.7 * smoothstep(1.0, 0.78, rho)
    return 2.6 * np.sqrt(np.maximum(1 - ((rho - 0.66) / 0.34) ** 2, 0))


def _base(latent: BiscuitLatent, canvas: Canvas) -> Layers:
    """The baked base without icing."""
    generator = np.random.default_rng(latent.texture_seed)
    x, y = latent.pose.to_object(canvas.x_mm, canvas.y_mm)
    theta = np.arctan2(y, x)
    depth = latent.radius_mm * outline(latent.base_waves, theta) - np.hypot(x, y)
    coarse, medium = smooth_noise(generator, canvas, 9.0), smooth_noise(generator, canvas, 3.0)
    fine = smooth_noise(generator, canvas, 1.1)
    edge = np.clip(1 - depth / 5.0, 0, 1)
    turns = (theta + np.float32(latent.base_waves[0, 2])) * np.float32(latent.num_scallops / (2 * np.pi))
    depth = depth - 0.8 * (1 - np.abs(np.cos(np.float32(np.pi) * turns)) ** 0.6)
    to_pit = np.hypot((turns % 1 - 0.5) * 2 * np.pi * latent.radius_mm / latent.num_scallops, depth - 3.6)
    height = np.float32(latent.thickness_mm) * np.sqrt(1 - edge**2) + 0.25 * coarse + 0.20 * medium + 0.12 * fine
    crumb = np.maximum(smoothstep(0.9, 1.9, medium + 0.7 * fine), 1.3 * smoothstep(1.0, 0.5, to_pit))
    height = np.where(depth > 0, np.maximum(height - 0.5 * crumb, 0), 0).astype(np.float32)
    browned = np.clip(smoothstep(9.5, 0.5, depth) * (0.75 + 0.25 * latent.bake) + 0.10 * coarse + 0.12 * medium, 0, 1)
    albedo = mix(color("#d9a25c"), color("#7d451c"), browned)
    albedo = albedo * (1 + 0.07 * fine - 0.35 * crumb)[..., None]
    coverage = smoothstep(-0.5 * canvas.pitch_mm, 0.5 * canvas.pitch_mm, depth)
    return Layers(height, albedo.astype(np.float32), np.full_like(height, 0.03), coverage)


def build(latent: BiscuitLatent, canvas: Canvas) -> Layers:
    """Layers of one biscuit."""
    layers = _base(latent, canvas)
    generator = np.random.default_rng(latent.texture_seed + 1)
    x, y = latent.pose.to_object(canvas.x_mm, canvas.y_mm)
    reach = latent.radius_mm * latent.icing_ratio * outline(latent.icing_waves, np.arctan2(y, x))
    depth = reach - np.hypot(x, y)
    edge = np.clip(1 - depth / 2.2, 0, 1)
    iced = smoothstep(0.0, 0.5, depth)
    waves = smooth_noise(generator, canvas, 7.0)
    smooth_top = np.float32(latent.thickness_mm + 1.5) + 0.16 * waves
    poured = np.maximum(smooth_top * np.sqrt(1 - 0.035 * edge**2) - 0.9 * edge**3, layers.height)
    layers.height[...] = np.where(depth > 0, poured, layers.height)
    icing = mix(color("#efe3d2"), color("#efc3cb"), latent.icing_tint)
    layers.albedo[...] = mix(layers.albedo, icing * (1 + 0.015 * waves[..., None]), iced)
    layers.gloss[...] += iced * np.float32(0.22)
    for center, radius, kind, tone, relief in zip(
        latent.pose.to_canvas(latent.piece_centers_mm), latent.piece_radii_mm,
        latent.parts.kinds, latent.parts.tones, latent.parts.reliefs, strict=True,
    ):  # fmt: skip
        tint = color(KIND_COLORS[kind][0]) * tone
        paint_disc(layers, canvas, center, radius, lambda rho, _, k=kind, f=relief: f * _relief(k, rho), tint, 0.5)
    return layers
