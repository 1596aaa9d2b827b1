"""The ring: a rubber tyre with lugs round its rim and colored tread blocks of three kinds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lib.synth3d.canvas import Canvas, Pose, color, mix, sample_pose, smooth_noise, smoothstep
from lib.synth3d.layers import Layers, Parts, sample_parts

KIND_NAMES = ("blue plain", "orange ribbed", "white stepped")
KIND_COLORS = (("#2a62b5",), ("#e0701e",), ("#e4e0d4",))
BLOCK_HALF_LENGTH = 0.46  # radial, as a share of half the width of the ring


@dataclass(frozen=True)
class RingLatent:
    """Everything that decides one ring but the textures, which follow from `texture_seed`."""

    pose: Pose
    outer_mm: float
    inner_mm: float
    thickness_mm: float
    num_lugs: int
    rubber: float
    parts: Parts
    texture_seed: int


def sample(generator: np.random.Generator) -> RingLatent:
    """One ring of the nominal class."""
    outer = generator.uniform(43.0, 46.5)
    return RingLatent(
        pose=sample_pose(generator, outer, 5.0),
        outer_mm=outer,
        inner_mm=outer - generator.uniform(25.5, 27.5),
        thickness_mm=generator.uniform(15.0, 17.0),
        num_lugs=int(generator.integers(34, 39)),
        rubber=generator.uniform(0, 1),
        parts=sample_parts(generator, int(generator.integers(12, 14)), len(KIND_NAMES)),
        texture_seed=int(generator.integers(2**31)),
    )


def _block_relief(kind: np.ndarray, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """(S, S) millimetres of the block under each pixel over the sidewall.

    Args:
        kind: (S, S) int64 kind of the nearest block.
        along: (S, S) float32 position round the ring inside the block, -1 to 1.
        across: (S, S) float32 radial position inside the block, -1 to 1.
    """
    edge = smoothstep(1.0, 0.80, np.maximum(np.abs(along), np.abs(across)))
    ribs = 1.0 + 2.2 * smoothstep(-0.35, 0.35, np.cos(np.float32(3.5 * np.pi) * along))
    stepped = 1.0 + 2.4 * smoothstep(-0.1, 0.1, along)
    return edge * np.choose(kind, [np.full_like(along, 2.8), ribs, stepped])


def _tyre(latent: RingLatent, canvas: Canvas, radius: np.ndarray, theta: np.ndarray) -> Layers:
    """The rubber ring without blocks."""
    generator = np.random.default_rng(latent.texture_seed)
    half = (latent.outer_mm - latent.inner_mm) / 2
    lug = smoothstep(-0.35, 0.15, np.cos(latent.num_lugs * theta))
    outer = latent.outer_mm - 1.5 * (1 - lug)
    q = (radius - (latent.outer_mm + latent.inner_mm) / 2) / np.float32(half)
    depth = np.minimum(outer - radius, radius - latent.inner_mm)
    medium, fine = smooth_noise(generator, canvas, 4.0), smooth_noise(generator, canvas, 1.0)
    height = np.float32(latent.thickness_mm) * (1 - np.minimum(np.abs(q), 1) ** 5) ** 0.5
    height -= 1.9 * (1 - lug) * smoothstep(0.66, 0.76, q)  # grooves between the lugs, on the shoulder
    beads = smoothstep(0.03, 0.015, np.abs(q + 0.62)) + smoothstep(0.03, 0.015, np.abs(q + 0.74))
    height += 0.55 * (beads + smoothstep(0.022, 0.01, np.abs(q - 0.58))) + 0.05 * medium + 0.035 * fine
    height = np.where(depth > 0, np.maximum(height, 0), 0).astype(np.float32)
    rubber = mix(color("#3b3c40"), color("#4c4a48"), latent.rubber)
    dust = np.clip(0.05 + 0.05 * medium + 0.03 * fine, 0, 1)
    albedo = mix(np.broadcast_to(rubber, (*height.shape, 3)), color("#a39c90"), dust)
    coverage = smoothstep(-0.5 * canvas.pitch_mm, 0.5 * canvas.pitch_mm, depth)
    return Layers(height, albedo.astype(np.float32), np.full_like(height, 0.16), coverage)


def build(latent: RingLatent, canvas: Canvas) -> Layers:
    """Layers of one ring."""
    x, y = latent.pose.to_object(canvas.x_mm, canvas.y_mm)
    radius, theta = np.hypot(x, y), np.arctan2(y, x)
    layers = _tyre(latent, canvas, radius, theta)
    middle = (latent.outer_mm + latent.inner_mm) / 2
    half = (latent.outer_mm - latent.inner_mm) / 2
    turns = (theta / np.float32(2 * np.pi)) % 1 * len(latent.parts)
    block = np.minimum(turns.astype(np.int64), len(latent.parts) - 1)
    pitch_at_middle = 2 * np.pi * middle / len(latent.parts)
    along = (turns - block - 0.5) * np.float32(2 / 0.78) * (0.72 + 0.28 * middle / np.maximum(radius, 1))
    along *= np.float32(min(1.0, pitch_at_middle / 15.5))
    across = (radius - middle + 1.2) / np.float32(half * BLOCK_HALF_LENGTH)
    shape = np.maximum(np.abs(along), np.abs(across))
    soft = 0.6 * canvas.pitch_mm / (half * BLOCK_HALF_LENGTH)
    alpha = smoothstep(1 + soft, 1 - soft, shape)
    kinds = latent.parts.kinds[block]
    relief = _block_relief(kinds, along, across) * latent.parts.reliefs[block]
    layers.height[...] += np.where(shape < 1, relief, 0).astype(np.float32)
    palette = np.stack([color(code) for (code,) in KIND_COLORS])
    tint = palette[kinds] * latent.parts.tones[block]
    layers.albedo[...] = mix(layers.albedo, tint, alpha)
    layers.gloss[...] += 0.12 * alpha
    return layers
