"""From layers to an organized cloud: pinhole geometry and a believable depth sensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from lib.synth3d.canvas import FIELD_MM, Canvas, smoothstep
from lib.synth3d.layers import Layers

WORKING_DISTANCE_MM = 400.0
DEPTH_STEP_MM = 0.1
DEPTH_NOISE_MM = 0.06
RANDOM_DROP_SHARE = 0.0008


@dataclass(frozen=True)
class Camera:
    """Pinhole camera of square pixels; lengths in pixels, pixel centers at whole numbers."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int


def camera_for(canvas: Canvas) -> Camera:
    """The camera that sees the whole canvas at the working distance."""
    focal = WORKING_DISTANCE_MM / FIELD_MM * canvas.size
    middle = (canvas.size - 1) / 2
    return Camera(focal, focal, middle, middle, canvas.size, canvas.size)


@dataclass(frozen=True)
class Support:
    """The supporting plane in the camera frame: points p (mm) with normal . p = distance_mm."""

    normal: np.ndarray
    distance_mm: float


def sample_support(generator: np.random.Generator) -> Support:
    """A board about 0.4 m below the camera, tilted by a few degrees."""
    tilt = generator.normal(0, 0.018, 2)
    normal = np.array([tilt[0], tilt[1], 1.0])
    return Support(normal / np.linalg.norm(normal), float(WORKING_DISTANCE_MM + generator.uniform(-5, 5)))


def true_depth_mm(height_mm: np.ndarray, camera: Camera, support: Support) -> np.ndarray:
    """(S, S) float64 z coordinate of the surface point each pixel sees.

    The surface lies `height_mm` above the plane, so its points satisfy normal . (ray * z) = distance - height.
    """
    columns = (np.arange(camera.width) - camera.cx) / camera.fx
    rows = (np.arange(camera.height) - camera.cy) / camera.fy
    slant = support.normal[0] * columns[None, :] + support.normal[1] * rows[:, None] + support.normal[2]
    return (support.distance_mm - height_mm) / slant


def lost_returns(layers: Layers, slope: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(S, S) bool pixels without a return: steep edges mostly, mirror-like spots sometimes, a few anywhere."""
    ragged = gaussian_filter(generator.standard_normal(slope.shape, dtype=np.float32), 0.8) * 3
    chance = 0.85 * smoothstep(5.0, 11.0, slope + 1.5 * ragged)
    flat_and_glossy = layers.gloss * layers.coverage * (slope < 0.25)
    chance = chance + 0.006 * flat_and_glossy + RANDOM_DROP_SHARE
    return generator.random(slope.shape, dtype=np.float32) < chance


def scan(layers: Layers, canvas: Canvas, support: Support, generator: np.random.Generator) -> np.ndarray:
    """(S, S, 3) float32 organized cloud in metres, camera frame, (0, 0, 0) = no return.

    Noise grows with the slope, neighboring pixels share part of it, and depth comes in steps of 0.1 mm.

    Args:
        layers: the object whose surface is measured.
        canvas: the pixel grid.
        support: the plane it lies on.
        generator: source of the sensor's noise; shared with nothing that draws the picture.
    """
    camera = camera_for(canvas)
    down, right = np.gradient(layers.height, np.float32(canvas.pitch_mm))
    slope = np.hypot(down, right)
    noise = generator.standard_normal((2, canvas.size, canvas.size), dtype=np.float32)
    shared = gaussian_filter(noise[0], 1.2) * 3.5
    deviation = DEPTH_NOISE_MM * (1 + 0.6 * np.minimum(slope, 4))
    depth = true_depth_mm(layers.height, camera, support) + deviation * (0.7 * noise[1] + 0.7 * shared)
    depth = np.rint(depth / DEPTH_STEP_MM) * DEPTH_STEP_MM / 1000
    depth[lost_returns(layers, slope, generator)] = 0
    columns = (np.arange(camera.width) - camera.cx) / camera.fx
    rows = (np.arange(camera.height) - camera.cy) / camera.fy
    return np.stack([columns[None, :] * depth, rows[:, None] * depth, depth], -1).astype(np.float32)
