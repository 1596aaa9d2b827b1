"""Pixel grid in millimetres, smooth noise and color: what every drawing step of synth3d shares."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

FIELD_MM = 112.0  # side of the square that the camera sees at its nominal distance


@dataclass(frozen=True)
class Canvas:
    """Square pixel grid over the field of view, lengths in millimetres, x to the right, y down, origin in the middle.

    The field is the same at every size, so a smaller canvas shows the same scene more coarsely.
    """

    size: int

    @property
    def pitch_mm(self) -> float:
        """Side of one pixel on the supporting plane, in millimetres."""
        return FIELD_MM / self.size

    @cached_property
    def x_mm(self) -> np.ndarray:
        """(size, size) float32 horizontal position of each pixel's center."""
        return np.tile(self._axis_mm(), (self.size, 1))

    @cached_property
    def y_mm(self) -> np.ndarray:
        """(size, size) float32 vertical position of each pixel's center."""
        return np.ascontiguousarray(self.x_mm.T)

    def _axis_mm(self) -> np.ndarray:
        return ((np.arange(self.size) - (self.size - 1) / 2) * self.pitch_mm).astype(np.float32)

    def window(self, center_mm: np.ndarray, radius_mm: float) -> tuple[slice, slice]:
        """Row and column slices of the pixels within `radius_mm` of a point, cut at the border of the canvas."""
        middle = np.asarray(center_mm) / self.pitch_mm + (self.size - 1) / 2
        reach = radius_mm / self.pitch_mm
        low = np.clip(np.floor(middle - reach), 0, self.size).astype(int)
        high = np.clip(np.ceil(middle + reach) + 1, 0, self.size).astype(int)
        return slice(low[1], high[1]), slice(low[0], high[0])


@lru_cache(maxsize=8)
def canvas_of(size: int) -> Canvas:
    """The canvas of `size` pixels a side; its coordinate arrays are computed once per process."""
    return Canvas(size)


@dataclass(frozen=True)
class Pose:
    """In-plane position (millimetres) and turn (radians) of an object on the canvas."""

    center_mm: tuple[float, float]
    angle_rad: float

    def to_object(self, x_mm: np.ndarray, y_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Two arrays like the inputs: the same points in the object's own axes."""
        cosine, sine = np.float32(np.cos(self.angle_rad)), np.float32(np.sin(self.angle_rad))
        dx, dy = x_mm - np.float32(self.center_mm[0]), y_mm - np.float32(self.center_mm[1])
        return cosine * dx + sine * dy, cosine * dy - sine * dx

    def to_canvas(self, points_mm: np.ndarray) -> np.ndarray:
        """(N, 2) canvas positions of (N, 2) points given in the object's own axes."""
        cosine, sine = np.cos(self.angle_rad), np.sin(self.angle_rad)
        turn = np.array([[cosine, sine], [-sine, cosine]])
        return points_mm @ turn + np.array(self.center_mm)


def sample_pose(generator: np.random.Generator, reach_mm: float, jitter_mm: float) -> Pose:
    """Pose with free turn and a position jittered by at most `jitter_mm`, less for objects of long reach.

    Args:
        generator: source of randomness.
        reach_mm: largest distance of the object from its own center.
        jitter_mm: largest shift along each axis.
    """
    clearance_mm = 5.6  # 15 of 300 pixels: the border stays plane, as plane removal needs
    room_mm = min(jitter_mm, max(0.0, FIELD_MM / 2 - clearance_mm - reach_mm))
    shift = generator.uniform(-room_mm, room_mm, 2)
    return Pose((float(shift[0]), float(shift[1])), float(generator.uniform(0, 2 * np.pi)))


@lru_cache(maxsize=64)
def _spline_basis(size: int, cells: int) -> np.ndarray:
    """(size, cells + 3) float32 uniform cubic B-spline weights of each pixel center."""
    position = (np.arange(size) + 0.5) / size * cells
    cell = np.minimum(position.astype(int), cells - 1)
    t = position - cell
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], 1) / 6
    basis = np.zeros((size, cells + 3), np.float32)
    np.put_along_axis(basis, cell[:, None] + np.arange(4), weights.astype(np.float32), axis=1)
    return basis


def smooth_noise(
    generator: np.random.Generator, canvas: Canvas, cell_mm: float, cell_y_mm: float | None = None
) -> np.ndarray:
    """(size, size) float32 smooth random field of zero mean and about unit deviation.

    A cubic B-spline through random coefficients: two small matrix products, so it costs a fraction of a
    full-image FFT, and the same generator gives the same field at every canvas size.

    Args:
        generator: source of randomness.
        canvas: the pixel grid.
        cell_mm: distance between knots, which sets the size of the blobs.
        cell_y_mm: the same along y; None = `cell_mm`. Unequal cells give streaks.
    """
    across = max(1, round(FIELD_MM / cell_mm))
    down = across if cell_y_mm is None else max(1, round(FIELD_MM / cell_y_mm))
    coefficients = generator.standard_normal((down + 3, across + 3), dtype=np.float32)
    field = _spline_basis(canvas.size, down) @ coefficients @ _spline_basis(canvas.size, across).T
    return field / np.float32(0.479)  # mean of the summed squared weights over a cell, both axes


def smoothstep(low: float, high: float, values: np.ndarray) -> np.ndarray:
    """Array like `values`: 0 below `low`, 1 above `high`, a cubic between (either order of the limits)."""
    t = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def color(code: str) -> np.ndarray:
    """(3,) float32 linear reflectance of an sRGB color written "#rrggbb"."""
    encoded = np.array([int(code[start : start + 2], 16) for start in (1, 3, 5)], np.float32) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4).astype(np.float32)


def mix(first: np.ndarray, second: np.ndarray, amount: np.ndarray | float) -> np.ndarray:
    """(..., 3) float32 blend of two colors or color images; `amount` is 0 for the first, 1 for the second."""
    amount = np.asarray(amount, np.float32)[..., None]
    return first + amount * (second - first)
