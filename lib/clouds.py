"""Organised point clouds in NumPy: valid pixels, supporting plane, components.

Letters: H, W pixels; N points; T hypotheses. An organised cloud is (H, W, 3) float32 in metres and
(0, 0, 0) means that the sensor returned nothing at that pixel. No function here changes its arguments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from sklearn.cluster import DBSCAN

from lib.config import check_choice
from lib.errors import InputError

VALID_RULES = ("any", "all")
RANSAC_CONFIDENCE = 0.99999999  # Open3D's default: stop early once a better plane is this unlikely
RANSAC_CHUNK = 50  # hypotheses scored at once: 13 MB of distances for the border of an 800 x 800 cloud
MIN_SPREAD_RATIO = 1e-10  # middle over largest eigenvalue under which a sample is a line and spans no plane


def valid_mask(cloud: np.ndarray, rule: str = "any") -> np.ndarray:
    """(H, W) bool mask of the pixels where the sensor returned a point.

    Args:
        cloud: (..., 3) float32, metres.
        rule: "any" coordinate nonzero (ours: what (0, 0, 0) = no return means), or "all" nonzero (released
            code, which therefore drops a point that lies exactly on a coordinate plane).
    """
    check_choice("valid rule", rule, VALID_RULES)
    x, y, z = (cloud[..., axis] != 0 for axis in range(3))
    return x | y | z if rule == "any" else x & y & z


def border_mask(height: int, width: int, border_px: int) -> np.ndarray:
    """(H, W) bool mask of the outer `border_px` rows and columns."""
    border = np.ones((height, width), dtype=bool)
    border[border_px : height - border_px, border_px : width - border_px] = False
    return border


def border_points(cloud: np.ndarray, border_px: int, rule: str = "any") -> np.ndarray:
    """(N, 3) float32 valid points of the outer rows and columns, in metres.

    Each pixel counts once; the released code counts the four corners twice, which no plane fit notices.

    Args:
        cloud: (H, W, 3) float32, metres.
        border_px: width of the frame in pixels of the given cloud (released code: 10 at full resolution).
        rule: of `valid_mask`.
    """
    height, width, _ = cloud.shape
    return cloud[border_mask(height, width, border_px) & valid_mask(cloud, rule)]


def organised_points(cloud: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points under the mask, (N, 3) float32 metres, and their flat row-major pixel index, (N,) int64.

    Args:
        cloud: (H, W, 3) float32, metres.
        mask: (H, W) bool.
    """
    return cloud[mask], np.flatnonzero(mask).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Plane:
    """Plane `normal . p + offset = 0`: unit normal (3,) float64 towards the sensor, offset >= 0 in metres."""

    normal: np.ndarray
    offset: float


def plane_distance(points: np.ndarray, plane: Plane) -> np.ndarray:
    """Unsigned distance of each point to the plane in metres, (...,) float64.

    Args:
        points: (..., 3) float, metres.
        plane: from `fit_plane_ransac`.
    """
    return np.abs(points.astype(np.float64) @ plane.normal + plane.offset)


def _least_squares_planes(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals (T, 3) and offsets (T,) of the planes nearest to samples (T, n, 3); lines are dropped."""
    centroids = samples.mean(axis=1)
    centered = samples - centroids[:, None]
    eigenvalues, axes = np.linalg.eigh(np.einsum("tni,tnj->tij", centered, centered))  # ascending
    spans_a_plane = eigenvalues[:, 1] > MIN_SPREAD_RATIO * eigenvalues[:, 2]
    normals = axes[spans_a_plane, :, 0]
    return normals, -np.einsum("ti,ti->t", normals, centroids[spans_a_plane])


def _hypotheses_needed(inlier_fraction: float, sample_size: int) -> int:
    """Hypotheses after which an all-inlier sample has been drawn with `RANSAC_CONFIDENCE`."""
    all_inliers = min(max(inlier_fraction**sample_size, 1e-12), 1 - 1e-12)
    return math.ceil(math.log(1 - RANSAC_CONFIDENCE) / math.log1p(-all_inliers))


def _most_inliers(
    points: np.ndarray, threshold_m: float, sample_size: int, num_iterations: int, generator: np.random.Generator
) -> np.ndarray:
    """(N,) bool: the inliers of the best hypothesis; none where no sample spans a plane."""
    tried, needed, best = 0, num_iterations, np.zeros(len(points), dtype=bool)
    while tried < min(needed, num_iterations):
        drawn = generator.integers(len(points), size=(min(RANSAC_CHUNK, num_iterations - tried), sample_size))
        tried += len(drawn)
        normals, offsets = _least_squares_planes(points[drawn])
        inliers = np.abs(points @ normals.T + offsets) < threshold_m  # (N, T)
        counts = inliers.sum(axis=0)
        if counts.max(initial=0) > best.sum():
            best = inliers[:, counts.argmax()]
            needed = _hypotheses_needed(best.mean(), sample_size)
    return best


def fit_plane_ransac(
    points: np.ndarray,
    distance_threshold_m: float,
    sample_size: int,
    num_iterations: int,
    generator: np.random.Generator,
) -> Plane:
    """Plane with the most inliers among random hypotheses, refitted to its inliers by least squares.

    As Open3D's `segment_plane`, which the released code calls with `sample_size` 50: each hypothesis is itself a
    least-squares fit, and the search stops early by the same confidence rule. Samples are drawn with replacement;
    nothing but the generator decides the draws.

    Args:
        points: (N, 3) float, metres.
        distance_threshold_m: a point nearer than this is an inlier.
        sample_size: points per hypothesis; 3 is the classic choice and bears more outliers.
        num_iterations: most hypotheses tried.
        generator: the only source of randomness.

    Raises:
        InputError: fewer than three points, or no plane through them (all on one line).
    """
    if len(points) < 3:
        raise InputError(f"points: {len(points)} given, a plane needs at least 3; check the border of the cloud")
    points = points.astype(np.float64)
    inliers = points[_most_inliers(points, distance_threshold_m, sample_size, num_iterations, generator)]
    normals, offsets = _least_squares_planes(inliers[None]) if len(inliers) >= 3 else ([], [])
    if len(normals) == 0:
        raise InputError(f"points: no plane holds three of the {len(points)} points; check the border of the cloud")
    sign = 1.0 if offsets[0] >= 0 else -1.0
    return Plane(normal=sign * normals[0], offset=float(sign * offsets[0]))


def largest_component_grid(mask: np.ndarray, gap_px: int) -> np.ndarray:
    """(H, W) bool: the largest group of True pixels that hang together on the image grid (ours).

    Two pixels hang together when at most `gap_px` pixels lie between them along rows and along columns, so a
    thin seam of missing returns does not split an object; 0 is plain 8-connectivity. The largest group is
    counted in pixels of the mask itself, the first in row-major order wins a tie, and applying the function
    twice changes nothing.

    Args:
        mask: (H, W) bool.
        gap_px: most missing pixels bridged, in pixels of the given mask.
    """
    # Every pixel grows to a box of side gap_px + 1: boxes touch exactly when the rule above holds. They grow
    # down and right only, so labels keep the row-major order of their first pixels.
    grown = ndimage.maximum_filter(mask, size=gap_px + 1, mode="constant", cval=0, origin=gap_px // 2)
    labels, num_components = ndimage.label(grown, structure=np.ones((3, 3)))
    if num_components == 0:
        return np.zeros_like(mask)
    return mask & (labels == np.bincount(labels[mask]).argmax())


def largest_component_dbscan(mask: np.ndarray, cloud: np.ndarray, eps_m: float, min_points: int) -> np.ndarray:
    """(H, W) bool: the pixels of the largest DBSCAN label (released code).

    The noise label -1 competes as if it were a cluster, as in the released code: a cloud of mostly scattered
    points keeps its noise. Slow and hungry on dense clouds (1 s and 1 GB for 56,000 points); the grid variant
    takes 3 ms.

    Args:
        mask: (H, W) bool, the candidate pixels.
        cloud: (H, W, 3) float32, metres.
        eps_m: neighborhood radius (released code: 0.006).
        min_points: neighbors, itself included, that make a core point (released code: 30).
    """
    points, pixel_index = organised_points(cloud, mask)
    component = np.zeros(mask.size, dtype=bool)
    if len(points):
        clustering = DBSCAN(eps=eps_m, min_samples=min_points, algorithm="kd_tree")
        labels = clustering.fit_predict(points.astype(np.float64))
        names, counts = np.unique(labels, return_counts=True)
        component[pixel_index[labels == names[counts.argmax()]]] = True
    return component.reshape(mask.shape)
