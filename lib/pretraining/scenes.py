"""One pretraining scene: an object of a random family under random light, photographed and scanned as in synth3d.

Camera, pitch, sensor and boards are synth3d's, so that what is learned here has the right scale; objects are not (see
`lib.pretraining.families`), and light, colors and relief vary more widely.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lib.errors import InputError
from lib.pretraining.families import FAMILIES
from lib.pretraining.paint import palette, patterned
from lib.synth3d.canvas import Canvas, canvas_of, mix, smooth_noise
from lib.synth3d.layers import Layers
from lib.synth3d.render import Light, photograph, shade
from lib.synth3d.sensor import sample_support, scan
from lib.synth3d.supports import BOARDS, board_albedo

HIGHEST_MM = 25.0
LOWEST_MM = 0.5  # of an object, so that it stands out from the board's depth noise
FREEFORM_SHARE = 0.2  # of all scenes; the other families share the rest equally


@dataclass(frozen=True)
class Scene:
    """One scene for pretraining.

    Attributes:
        rgb: (H, W, 3) uint8 sRGB picture.
        cloud: (H, W, 3) float32 organized cloud in metres, camera frame, board included, (0, 0, 0) = no return.
        foreground: (H, W) bool, True on the object; exact, also where there is no return.
        family: name of the object family.
    """

    rgb: np.ndarray
    cloud: np.ndarray
    foreground: np.ndarray
    family: str


def _sample_light(generator: np.random.Generator) -> Light:
    """A lamp from any side, lower or higher, larger or smaller and more colorful than in synth3d."""
    azimuth, elevation = generator.uniform(0, 2 * np.pi), np.deg2rad(generator.uniform(35, 72))
    direction = [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    return Light(
        direction=np.array(direction, np.float32),
        exposure=float(generator.uniform(0.65, 1.1)),
        tint=np.clip(1 + generator.normal(0, 0.06, 3), 0.8, 1.2).astype(np.float32),
        box_half_width=float(generator.uniform(0.08, 0.24)),
    )


def _vary(layers: Layers, generator: np.random.Generator, canvas: Canvas) -> Layers:
    """The same object with stretched, tilted and bent relief, and now and then a printed pattern."""
    height = layers.height * np.float32(np.exp(generator.uniform(-0.5, 0.3)))
    if generator.random() < 0.5:
        tilt = generator.normal(0, 0.07, 2)
        slant = canvas.x_mm * np.float32(tilt[0]) + canvas.y_mm * np.float32(tilt[1])
        height = height + slant - slant[layers.inside].min()
    if generator.random() < 0.4:
        cell_mm, strength = float(generator.uniform(20, 50)), np.float32(generator.exponential(0.8))
        bend = strength * smooth_noise(generator, canvas, cell_mm)
        height = height + bend - bend[layers.inside].min()
    height = np.where(layers.inside, np.clip(height, LOWEST_MM, HIGHEST_MM), 0).astype(np.float32)
    albedo = layers.albedo
    if generator.random() < 0.35:
        albedo = patterned(generator, canvas, albedo)
    return replace(layers, height=height, albedo=np.clip(albedo, 0.012, 0.95).astype(np.float32))


def _board(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    """(S, S, 3) float32 linear reflectance of a board of synth3d, half of the time tinted."""
    albedo = board_albedo(generator, canvas, tuple(BOARDS))
    if generator.random() < 0.5:
        albedo = mix(albedo, albedo.mean(-1, keepdims=True) * 2 * palette(generator, 1)[0], generator.random())
    return np.clip(albedo, 0.01, 0.95).astype(np.float32)


def sample_family(generator: np.random.Generator) -> str:
    """Name of the family of the next scene: freeform more often, the others equally often."""
    if generator.random() < FREEFORM_SHARE:
        return "freeform"
    others = [name for name in FAMILIES if name != "freeform"]
    return others[int(generator.integers(len(others)))]


def render_scene(generator: np.random.Generator, size: int = 224, family: str | None = None) -> Scene:
    """One scene; equal generators give equal scenes.

    Args:
        generator: source of all randomness; it must allow `spawn`.
        size: side of the square image in pixels; the scene keeps its size in millimetres.
        family: one of `FAMILIES`; None = drawn at random.

    Raises:
        InputError: unknown family, or a size below 64 pixels.
    """
    name = sample_family(generator) if family is None else family
    if name not in FAMILIES:
        raise InputError(f"family {name!r}: no such pretraining family; use one of {', '.join(FAMILIES)}")
    if size < 64:
        raise InputError(f"size {size}: too few pixels to draw a scene; use 64 or more")
    canvas = canvas_of(size)
    shape_stream, change_stream, board_stream, light_stream, color_stream, depth_stream = generator.spawn(6)
    layers = _vary(FAMILIES[name](shape_stream, canvas), change_stream, canvas)
    radiance = shade(layers, _board(board_stream, canvas), canvas, _sample_light(light_stream))
    cloud = scan(layers, canvas, sample_support(depth_stream), depth_stream)
    return Scene(photograph(radiance, color_stream, canvas), cloud, layers.inside, name)
