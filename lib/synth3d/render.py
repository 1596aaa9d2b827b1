"""From layers to a photograph: soft light, cast shadow, occlusion, gloss, and the color camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from lib.synth3d.canvas import Canvas, smoothstep
from lib.synth3d.layers import Layers

SHADOW_STEP_MM = 0.75
SHADOW_STEPS = 34
KEY_SHARE = 0.55  # of the light on a flat patch; the rest comes from the tent all round
READ_NOISE = 0.0035
SHOT_NOISE = 0.010


@dataclass(frozen=True)
class Light:
    """One large lamp beside a light tent.

    Attributes:
        direction: (3,) float32 unit vector towards the lamp, x right, y down, z towards the camera.
        exposure: factor on everything.
        tint: (3,) float32 color of the lamp.
        box_half_width: half the side of the lamp's mirror image, in units of the reflected direction.
    """

    direction: np.ndarray
    exposure: float
    tint: np.ndarray
    box_half_width: float


def sample_light(generator: np.random.Generator) -> Light:
    """A lamp from any side, 45 to 62 degrees above the board."""
    azimuth, elevation = generator.uniform(0, 2 * np.pi), np.deg2rad(generator.uniform(45, 62))
    direction = [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    warmth = generator.normal(0, 0.03)
    return Light(
        direction=np.array(direction, np.float32),
        exposure=float(generator.uniform(0.80, 0.94)),
        tint=np.array([1 + warmth, 1, 1 - warmth], np.float32),
        box_half_width=float(generator.uniform(0.10, 0.16)),
    )


def surface_normals(height: np.ndarray, pitch_mm: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three (S, S) float32 components of the unit normals of a height field."""
    down, right = np.gradient(height, np.float32(pitch_mm))
    scale = 1 / np.sqrt(1 + down**2 + right**2)
    return -right * scale, -down * scale, scale


def cast_shadow(height: np.ndarray, canvas: Canvas, direction: np.ndarray) -> np.ndarray:
    """(S, S) float32 share of the lamp each pixel sees, by a march over the height field towards the lamp.

    The penumbra widens with the distance of the occluder, as it does below a large lamp.
    """
    horizontal = float(np.hypot(direction[0], direction[1]))
    climb = float(direction[2]) / horizontal
    pad = int(np.ceil(SHADOW_STEP_MM * SHADOW_STEPS / canvas.pitch_mm)) + 1
    padded = np.pad(height, pad)
    blocked = np.zeros_like(height)
    for step in range(1, SHADOW_STEPS + 1):
        distance = step * SHADOW_STEP_MM
        shift = direction[:2] / horizontal * distance / canvas.pitch_mm
        column, row = pad + int(np.rint(shift[0])), pad + int(np.rint(shift[1]))
        occluder = padded[row : row + canvas.size, column : column + canvas.size]
        above = (occluder - height - np.float32(distance * climb)) * np.float32(1 / (0.5 + 0.22 * distance))
        np.maximum(blocked, above, out=blocked)
    return gaussian_filter(1 - np.minimum(blocked, 1), 0.5 / canvas.pitch_mm, truncate=2)


def ambient_occlusion(height: np.ndarray, canvas: Canvas) -> np.ndarray:
    """(S, S) float32 share of the tent each pixel sees: low where the surroundings rise above it."""
    narrow = gaussian_filter(height, 0.9 / canvas.pitch_mm, truncate=2)
    wide = gaussian_filter(narrow, 4.0 / canvas.pitch_mm, truncate=2)
    sunk = 0.30 * np.maximum(narrow - height, 0) + 0.075 * np.maximum(wide - height, 0)
    return 1 / (1 + sunk)


def _gloss_reflection(normals: tuple[np.ndarray, ...], light: Light) -> np.ndarray:
    """(S, S) float32 brightness of the lamp's mirror image plus a broad sheen round it."""
    nx, ny, nz = normals
    reflected_x, reflected_y = 2 * nz * nx, 2 * nz * ny  # the camera looks straight down
    away_x = np.abs(reflected_x - light.direction[0])
    away_y = np.abs(reflected_y - light.direction[1])
    edge = np.maximum(away_x, away_y) / np.float32(light.box_half_width)
    facing = nz > 0.35
    box = smoothstep(1.25, 0.75, edge) * facing
    sheen = np.exp(-(away_x**2 + away_y**2) * 7.0) * facing
    fresnel = (1 - nz) ** 3
    return 0.75 * box + 0.16 * sheen + 0.20 * fresnel


def shade(layers: Layers, board: np.ndarray, canvas: Canvas, light: Light) -> np.ndarray:
    """(S, S, 3) float32 linear light that leaves the scene towards the camera.

    Args:
        layers: the object.
        board: (S, S, 3) float32 linear reflectance of the board.
        canvas: the pixel grid.
        light: the lamp.
    """
    albedo = board + layers.coverage[..., None] * (layers.albedo - board)
    gloss = layers.gloss * layers.coverage
    normals = surface_normals(layers.height, canvas.pitch_mm)
    lambert = sum(part * np.float32(axis) for part, axis in zip(normals, light.direction, strict=True))
    lambert = np.maximum(lambert / light.direction[2], 0)
    visible = cast_shadow(layers.height, canvas, light.direction)
    occlusion = ambient_occlusion(layers.height, canvas)
    tent = (1 - KEY_SHARE) * occlusion * (0.55 + 0.45 * normals[2])
    key = KEY_SHARE * np.minimum(lambert, 1.45) * visible
    radiance = albedo * (tent[..., None] + key[..., None] * light.tint)
    smooth = surface_normals(gaussian_filter(layers.height, 0.45 / canvas.pitch_mm), canvas.pitch_mm)
    mirror = gloss * _gloss_reflection(smooth, light) * (0.25 + 0.75 * visible)
    return (radiance + mirror[..., None] * light.tint) * np.float32(light.exposure)


def photograph(radiance: np.ndarray, generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    """(S, S, 3) uint8 sRGB picture: lens blur, white balance, shot and read noise, encoding."""
    blurred = gaussian_filter(radiance, (0.2 / canvas.pitch_mm, 0.2 / canvas.pitch_mm, 0))
    balance = (1 + generator.normal(0, 0.012, 3)).astype(np.float32)
    signal = np.maximum(blurred * balance, 0)
    noise = generator.standard_normal(signal.shape, dtype=np.float32)
    signal = signal + noise * np.sqrt(READ_NOISE**2 + SHOT_NOISE**2 * signal)
    signal = np.clip(signal, 0, 1)
    encoded = np.where(signal <= 0.0031308, 12.92 * signal, 1.055 * signal ** np.float32(1 / 2.4) - 0.055)
    return np.rint(encoded * 255).astype(np.uint8)
