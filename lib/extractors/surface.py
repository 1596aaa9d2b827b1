"""Neighborhoods and local shape on an organised cloud: window tables, PCA normals, slope, curvature, roughness.

Letters: H, W pixels; P surface points (every `stride_px`-th pixel of the object); K window offsets; Q query points.
Neighbors come from a pixel window and are then kept by their distance in space, so a missing return, the background or
the far side of a depth step never enters a neighborhood.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from einops import rearrange

from lib.errors import InputError

PITCH_SPAN_PX = 4  # nearest-neighbor resizing makes single steps uneven; four together are even enough
PITCH_PERCENTILE = 10  # a low one: depth steps lengthen distances between pixels and nothing shortens them
WINDOW_MARGIN = 1.1  # nearer parts of an object are sampled more finely than its pitch says
MAX_WINDOW_PX = 64
MIN_PLANE_POINTS = 4  # three points always lie on a plane and say nothing of noise


@dataclass(frozen=True, eq=False)
class Surface:
    """Object points that have a normal, on every `stride_px`-th pixel of an organised cloud.

    Attributes:
        points: (P, 3) float, metres, the object's centroid at the origin.
        normals: (P, 3) float, unit length, towards the sensor.
        index_grid: (ceil(H / stride_px), ceil(W / stride_px)) int64, row of `points` at a pixel, -1 = none.
        centroid_m: (3,) float64, what was subtracted.
        pitch_m: distance between adjacent pixels of the whole cloud on the object.
        stride_px: pixels from one surface point to the next.
    """

    points: np.ndarray
    normals: np.ndarray
    index_grid: np.ndarray
    centroid_m: np.ndarray
    pitch_m: float
    stride_px: int


def grid_pitch_m(cloud: np.ndarray, mask: np.ndarray) -> float:
    """Distance in metres between adjacent pixels where the object is flat and faces the sensor (ours).

    Args:
        cloud: (H, W, 3) float, metres.
        mask: (H, W) bool, object pixels with a return.

    Raises:
        InputError: the object is narrower than five pixels both ways, or its points coincide.
    """
    span = PITCH_SPAN_PX
    steps = []
    for far, near in ((np.s_[span:], np.s_[:-span]), (np.s_[:, span:], np.s_[:, :-span])):
        both = mask[far] & mask[near]
        steps.append(np.linalg.norm(cloud[far][both] - cloud[near][both], axis=1))
    steps = np.concatenate(steps)
    pitch = float(np.percentile(steps, PITCH_PERCENTILE)) / PITCH_SPAN_PX if len(steps) else 0.0
    if pitch <= 0:
        raise InputError("cloud: the object spans too few distinct points; check foreground and cloud")
    return pitch


def disc_offsets(radius_m: float, pitch_m: float) -> np.ndarray:
    """(K, 2) int64 row and column offsets of a disc that covers a radius, (0, 0) left out.

    Args:
        radius_m: radius of the neighborhood in metres.
        pitch_m: distance between adjacent pixels of the grid in metres.

    Raises:
        InputError: the radius is not positive or spans more than 64 pixels, as when units are mixed up.
    """
    reach_px = WINDOW_MARGIN * radius_m / pitch_m
    if not 0 < reach_px <= MAX_WINDOW_PX:
        raise InputError(
            f"radius {radius_m} m spans {reach_px:.3g} grid pixels, not more than 0 and at most {MAX_WINDOW_PX}; "
            "check that the cloud is in metres, or raise stride_px"
        )
    side = np.arange(-int(reach_px), int(reach_px) + 1)
    offsets = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    squared = (offsets**2).sum(axis=1)
    return offsets[(squared > 0) & (squared <= reach_px**2)]


def window_table(index_grid: np.ndarray, pixels: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(Q, K) int64 point index at each offset from each pixel, -1 where there is no point or no pixel.

    Args:
        index_grid: (H, W) int64 point index of each pixel, -1 = none.
        pixels: (Q, 2) int64 rows and columns.
        offsets: (K, 2) int64 from `disc_offsets`.
    """
    margin = int(np.abs(offsets).max(initial=0))
    padded = np.pad(index_grid, margin, constant_values=-1)
    width = padded.shape[1]
    start = (pixels[:, 0] + margin) * width + pixels[:, 1] + margin
    return padded.ravel()[start[:, None] + (offsets[:, 0] * width + offsets[:, 1])]


def local_moments(
    points: np.ndarray, table: np.ndarray, queries: np.ndarray, radius_m: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count (Q,), mean offset (Q, 3) and covariance (Q, 3, 3) of the points within a radius, the query included.

    Args:
        points: (P, 3) float, metres.
        table: (Q, K) int64 candidates from `window_table`.
        queries: (Q, 3) float, metres; themselves points of the cloud.
        radius_m: neighbors lie at most this far away.
    """
    # One array an axis is several times faster than rows of three.
    x, y, z = offsets = [np.take(points[:, axis], table) - queries[:, axis, None] for axis in range(3)]
    inside = (table >= 0) & (x * x + y * y + z * z <= radius_m**2)
    for axis in offsets:
        axis *= inside
    count = 1 + inside.sum(axis=1)
    share = (1 / count).astype(points.dtype)
    mean = np.stack([axis.sum(axis=1) for axis in offsets], axis=1) * share[:, None]
    second = np.array([[np.einsum("qk,qk->q", a, b) for b in offsets] for a in offsets]) * share
    return count, mean, rearrange(second, "i j q -> q i j") - mean[:, :, None] * mean[:, None, :]


def plane_axes(covariance: np.ndarray, view: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals (Q, 3) of the least-squares planes, turned to the sensor, and surface variation (Q,) in [0, 1/3].

    The normal is the eigenvector of the smallest eigenvalue (Rusu 2009, thesis sec. 4.3); surface variation is that
    eigenvalue over the sum of all three (Pauly et al. 2002, eq. 4).

    Args:
        covariance: (Q, 3, 3) float.
        view: (Q, 3) float, from the sensor to each point, any length.
    """
    eigenvalues, axes = np.linalg.eigh(covariance)
    normals = axes[:, :, 0]
    away = np.einsum("qc,qc->q", normals, view) > 0
    variation = eigenvalues[:, 0] / np.maximum(eigenvalues.sum(axis=1), np.finfo(eigenvalues.dtype).tiny)
    return np.where(away[:, None], -normals, normals), np.clip(variation, 0, 1 / 3)


def sample_surface(cloud: np.ndarray, mask: np.ndarray, normal_radius_m: float, stride_px: int) -> Surface:
    """Points with normals on every `stride_px`-th pixel; normals are fitted to all pixels of the full grid.

    Args:
        cloud: (H, W, 3) float, metres, the sensor at the origin.
        mask: (H, W) bool, object pixels with a return.
        normal_radius_m: radius of the plane fit in metres.
        stride_px: step of the subsampled grid in pixels.

    Raises:
        InputError: the object has too few points for a single normal.
    """
    pitch = grid_pitch_m(cloud, mask)
    centroid = cloud[mask].mean(axis=0, dtype=np.float64)
    points = (cloud[mask] - centroid).astype(cloud.dtype)  # centred: squares of metres would cost float32 its digits
    full_index = np.where(mask, np.cumsum(mask).reshape(mask.shape) - 1, -1)
    chosen = np.zeros_like(mask)
    chosen[::stride_px, ::stride_px] = mask[::stride_px, ::stride_px]
    table = window_table(full_index, np.argwhere(chosen), disc_offsets(normal_radius_m, pitch))
    queries = points[full_index[chosen]]
    count, _, covariance = local_moments(points, table, queries, normal_radius_m)
    flat = count >= MIN_PLANE_POINTS
    if not flat.any():
        raise InputError(
            f"cloud: no point has {MIN_PLANE_POINTS - 1} neighbors within {normal_radius_m} m; check the foreground"
        )
    normals, _ = plane_axes(covariance[flat], cloud[chosen][flat])
    chosen[chosen] = flat
    strided = chosen[::stride_px, ::stride_px]
    index_grid = np.where(strided, np.cumsum(strided).reshape(strided.shape) - 1, -1)
    return Surface(queries[flat], normals, index_grid, centroid, pitch, stride_px)


def local_shape(surface: Surface, rows: np.ndarray, radius_m: float) -> np.ndarray:
    """Slope (radians), curvature (dimensionless) and surface variation of chosen points at one scale, (Q, 3) float.

    Slope is the angle between the local plane's normal and the object's mean normal, so it does not depend on how the
    object lies. Curvature is mean curvature times the radius, positive on a dome: over a disc of radius r a surface of
    mean curvature k sinks k r^2 / 4 below its tangent plane on average. All three are ours.

    Args:
        surface: from `sample_surface`.
        rows: (Q,) int64 rows of `surface.points`.
        radius_m: radius of the neighborhood in metres.
    """
    pixels = np.argwhere(surface.index_grid >= 0)[rows]
    table = window_table(surface.index_grid, pixels, disc_offsets(radius_m, surface.pitch_m * surface.stride_px))
    queries = surface.points[rows]
    _, mean, covariance = local_moments(surface.points, table, queries, radius_m)
    normals, variation = plane_axes(covariance, -surface.normals[rows])
    slope = np.arccos(np.clip(normals @ mean_normal(surface), -1, 1))
    curvature = -4 / radius_m * np.einsum("qc,qc->q", normals, mean)
    return np.stack([slope, curvature, variation], axis=1)


def height_m(surface: Surface, rows: np.ndarray) -> np.ndarray:
    """Height of chosen points along the object's mean normal over the object's median height, (Q,) float metres (ours).

    Args:
        surface: from `sample_surface`.
        rows: (Q,) int64 rows of `surface.points`.
    """
    heights = surface.points @ mean_normal(surface)
    return heights[rows] - np.median(heights)


def mean_normal(surface: Surface) -> np.ndarray:
    """(3,) unit vector: the mean of all normals, which the object's own surface calls up."""
    mean = surface.normals.mean(axis=0)
    return mean / np.linalg.norm(mean)
