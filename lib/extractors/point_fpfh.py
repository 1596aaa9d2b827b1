"""FPFH on unorganised points as Open3D computes it, 33 bins = 3 angles x 11, in NumPy and SciPy.

BTF (Horwitz and Hoshen, CVPRW 2023) takes normals and FPFH from Open3D, of no stated version; ours are checked against
the output of 0.20.0 (`tests/test_point_fpfh.py`). Unlike `lib.extractors.fpfh`, neighbors are the nearest points in
space, a bin takes a whole count, neighbors weigh 1 / squared distance, the bins of an angle sum to 200 (100 of the
point itself, 100 of its neighbors), and the angles' order is theta, alpha, phi.
Letters: N points; K neighbors, the point itself the first; M pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.spatial import cKDTree
from torch import Tensor

from lib.clouds import organised_points
from lib.config import check_choice, check_positive
from lib.data import Sample
from lib.errors import InputError
from lib.extractors.fpfh import BINS_PER_ANGLE, FPFH_DIM, Pairs, pair_angles
from lib.features import object_cloud

ORIENTATIONS = ("released", "camera")
MIN_NORMAL_POINTS = 3  # with fewer, the point itself counted, Open3D says (0, 0, 1)
UNIT_TOLERANCE = 1e-3
POINTS_PER_CHUNK = 2048  # their pairs stay in the cache: at least twice as fast as all at once


@dataclass(frozen=True)
class FPFHConfig:
    """Settings of FPFH on points; numbers of neighbors count the point itself, as Open3D does.

    Attributes:
        normal_radius_m: radius of the plane fit in metres, 0.1 [released BTF]; larger than the objects of MVTec 3D-AD,
            so there the number of neighbors decides.
        normal_max_neighbors: points of the plane fit at most, 30 [released BTF].
        radius_m: radius of the histograms in metres, 0.25 [released BTF]; as above.
        max_neighbors: points of a histogram at most, 100 [released BTF].
        orientation: sign of the normals, "released" [BTF orients none, so Open3D's eigenvectors decide] or "camera",
            towards the origin [ours]; see `estimate_normals`.
    """

    normal_radius_m: float = 0.1
    normal_max_neighbors: int = 30
    radius_m: float = 0.25
    max_neighbors: int = 100
    orientation: str = "released"

    def __post_init__(self) -> None:
        check_positive(self, ("normal_radius_m", "radius_m"))
        check_positive(self, ("normal_max_neighbors", "max_neighbors"), whole=True)
        check_choice("orientation", self.orientation, ORIENTATIONS)


def checked_points(name: str, points: np.ndarray) -> np.ndarray:
    """The points as (N, 3) float64.

    Raises:
        InputError: another shape, no point, or coordinates that are not finite.
    """
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
        raise InputError(f"{name}: shape {points.shape}; give (N, 3) with at least one row")
    if not np.isfinite(points).all():
        raise InputError(f"{name}: holds values that are not finite; drop the points without a return first")
    return points.astype(np.float64)


def hybrid_search(points: np.ndarray, radius_m: float, max_neighbors: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest points within a radius, (N, K) int64 rows and (N, K) float64 squared distances in m^2, ascending.

    The first is the point itself or one that coincides with it. Where there are fewer than K, the point's own row
    stands with an infinite distance. Of several points at the same distance any may take the last place.

    Args:
        points: (N, 3) float64, metres.
        radius_m: neighbors lie nearer than this; exactly at it is too far, as in Open3D.
        max_neighbors: K, the point itself counted, at least 2.

    Raises:
        InputError: the radius is not positive, or the number leaves no neighbor.
    """
    if not (radius_m > 0 and max_neighbors >= 2):
        raise InputError(f"neighbors: {max_neighbors} within {radius_m} m; give at least 2, and a positive radius")
    ranks = list(range(1, min(max_neighbors, len(points)) + 1))  # a list keeps the second axis when there is one
    distance_m, index = cKDTree(points).query(points, k=ranks, distance_upper_bound=radius_m)
    near = distance_m < radius_m
    return np.where(near, index, np.arange(len(points))[:, None]), np.where(near, distance_m**2, np.inf)


def estimate_normals(
    points: np.ndarray, radius_m: float, max_neighbors: int, orientation: str = "released"
) -> np.ndarray:
    """Unit normals (N, 3) float64: the direction of least variance of each point's neighbors, itself included.

    A plane has no sign. "released" gives each normal the one that Open3D's closed-form eigenvector happens to have
    (`released_signs`): it depends on the axes and jumps from point to point, and FPFH feels it. "camera" turns all
    normals to the origin. Fewer than three points, or all of them in one place, make (0, 0, 1) before that turn.

    Args:
        points: (N, 3) float, metres, the sensor at the origin.
        radius_m, max_neighbors: as in `hybrid_search`.
        orientation: one of `ORIENTATIONS`.

    Raises:
        InputError: the points are no (N, 3) finite numbers, or a setting is wrong.
    """
    check_choice("orientation", orientation, ORIENTATIONS)
    points = checked_points("points", points)
    index, squared_m2 = hybrid_search(points, radius_m, max_neighbors)
    count = np.isfinite(squared_m2).sum(axis=1)
    offsets = points[index] - points[:, None]  # from the point: 0 where nothing was found, or where all coincide
    mean = offsets.sum(axis=1) / count[:, None]
    second = np.einsum("nkc,nkd->ncd", offsets, offsets) / count[:, None, None]
    eigenvalues, axes = np.linalg.eigh(second - mean[:, :, None] * mean[:, None, :])
    normals = axes[:, :, 0] * released_signs(eigenvalues, axes)[:, None]
    normals[(count < MIN_NORMAL_POINTS) | (eigenvalues[:, 2] == 0)] = (0, 0, 1)
    if orientation == "camera":
        normals[np.einsum("nc,nc->n", normals, points) > 0] *= -1
    return normals


def signed_by_largest(vectors: np.ndarray) -> np.ndarray:
    """The vectors, (N, 3), turned so that their largest component is positive, or negative if that is y.

    Open3D takes the longest of three cross products of rows for an eigenvector; they are it times its own z, -y, x.
    """
    largest = np.abs(vectors).argmax(axis=1)
    component = np.take_along_axis(vectors, largest[:, None], axis=1)
    return vectors * np.sign(component) * np.where(largest == 1, -1, 1)[:, None]


def released_signs(eigenvalues: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """(N,) signs, 1 or -1, which give the axes of least variance the direction of Open3D's normals.

    Source: Eberly, "A Robust Eigensolver for 3 x 3 Symmetric Matrices", as Open3D 0.20.0 uses it, reduced to signs.
    Where the middle eigenvalue exceeds the mean of all three, as on a flat round neighborhood, the normal is turned by
    its largest component. Otherwise the axis of most variance is, then the middle axis within a basis (u, v) across it,
    and the normal is the middle axis x the one of most variance.

    Args:
        eigenvalues: (N, 3) float64, ascending.
        axes: (N, 3, 3) float64, eigenvectors as columns.
    """
    normal, middle = axes[:, :, 0], axes[:, :, 1]
    along = signed_by_largest(axes[:, :, 2])
    x, y, z = along.T
    zero = np.zeros_like(x)
    across_u = np.where(np.abs(x) > np.abs(y), [-z, zero, x], [zero, z, -y]).T
    share_u = np.einsum("nc,nc->n", middle, across_u)
    share_v = np.einsum("nc,nc->n", middle, np.cross(along, across_u))  # the cross product is v, as long as u
    backwards = np.where(np.abs(share_v) >= np.abs(share_u), share_v > 0, share_u < 0)
    by_middle = np.cross(np.where(backwards[:, None], -middle, middle), along)
    is_flat = eigenvalues[:, 1] > eigenvalues.mean(axis=1)
    turned = np.where(is_flat[:, None], signed_by_largest(normal), by_middle)
    return np.where(np.einsum("nc,nc->n", turned, normal) < 0, -1.0, 1.0)


def hard_bins(points: np.ndarray, normals: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Bins of theta, alpha and phi of each pair, (3, M) int64 in [0, 33).

    All three angles are 0 where a pair has no frame, because its points coincide or its line runs along the normal.

    Args:
        points, normals: (N, 3) float64; normals of unit length.
        pairs: M of them, each point with its neighbor; unlike `grid_pairs` the distance may be 0.
    """
    apart = pairs.distance_m > 0
    measured = Pairs(pairs.first, pairs.second, np.where(apart, pairs.distance_m, 1))
    alpha, phi, theta = pair_angles(points, normals, measured)
    position = BINS_PER_ANGLE * np.stack([(theta + np.pi) / (2 * np.pi), (alpha + 1) / 2, (phi + 1) / 2])
    bins = np.clip(np.floor(position).astype(np.int64), 0, BINS_PER_ANGLE - 1)
    bins[:, ~apart | (np.abs(phi) >= 1)] = BINS_PER_ANGLE // 2
    return bins + BINS_PER_ANGLE * np.arange(3)[:, None]


def hard_histograms(points: np.ndarray, normals: np.ndarray, index: np.ndarray, squared_m2: np.ndarray) -> np.ndarray:
    """SPFH (N, 33) float64 of each point; the bins of an angle sum to 100, or to 0 without neighbors.

    Args:
        points, normals: (N, 3) float64; normals of unit length.
        index, squared_m2: (N, K - 1) neighbors from `hybrid_search`, the point itself left out.
    """
    histograms = np.empty((len(points), FPFH_DIM))
    for start in range(0, len(points), POINTS_PER_CHUNK):
        chunk = slice(start, start + POINTS_PER_CHUNK)
        found = np.isfinite(squared_m2[chunk])
        row = np.nonzero(found)[0]
        pairs = Pairs(start + row, index[chunk][found], np.sqrt(squared_m2[chunk][found]))
        bins = row * FPFH_DIM + hard_bins(points, normals, pairs)
        counts = np.bincount(bins.ravel(), minlength=found.shape[0] * FPFH_DIM).reshape(-1, FPFH_DIM)
        histograms[chunk] = counts * (100 / np.maximum(found.sum(axis=1, keepdims=True), 1))
    return histograms


def point_fpfh(points: np.ndarray, normals: np.ndarray, radius_m: float, max_neighbors: int) -> np.ndarray:
    """FPFH (N, 33) float64: a point's own SPFH plus its neighbors' mean with weights 1 / squared distance.

    Rusu 2009, eq. 2, as Open3D's `compute_fpfh_feature` has it. The bins of an angle sum to 200; to 100 where all
    neighbors coincide with the point, and to 0 where there is none. Parallel normals tie, as in `pair_angles`: points
    with the same neighbors have such normals, and rounding decides the sign of their phi.

    Args:
        points: (N, 3) float, metres.
        normals: (N, 3) float, unit length.
        radius_m, max_neighbors: as in `hybrid_search`.

    Raises:
        InputError: points or normals are no (N, 3) finite numbers, normals are not of unit length, a setting is wrong,
            or no two points lie within the radius.
    """
    points, normals = checked_points("points", points), checked_points("normals", normals)
    if points.shape != normals.shape or np.abs(np.linalg.norm(normals, axis=1) - 1).max() > UNIT_TOLERANCE:
        raise InputError(f"normals: shape {normals.shape}; give one of length 1 for each of the {len(points)} points")
    index, squared_m2 = (column[:, 1:] for column in hybrid_search(points, radius_m, max_neighbors))
    if not np.isfinite(squared_m2).any():
        raise InputError(f"cloud: no two points lie within {radius_m} m; check that it is in metres")
    histograms = hard_histograms(points, normals, index, squared_m2)
    closeness = np.divide(1, squared_m2, where=squared_m2 > 0, out=np.zeros_like(squared_m2))
    row_ends = np.arange(len(points) + 1) * closeness.shape[1]
    weights = csr_array((closeness.ravel(), index.ravel(), row_ends), shape=(len(points), len(points)))
    total = closeness.sum(axis=1, keepdims=True)
    return histograms + np.divide(weights @ histograms, total, where=total > 0, out=np.zeros_like(histograms))


class PointFPFHExtractor:
    """FPFH of every foreground point, 33 dimensions, as in BTF; 3D only."""

    xyz_dim = FPFH_DIM

    def __init__(self, config: FPFHConfig | None = None) -> None:
        self.config = config or FPFHConfig()

    def __call__(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Tokens (N, 33) and their centers (N, 3) in metres, both float32: the foreground pixels in row-major order.

        Raises:
            InputError: the sample has no foreground, or too few points.
        """
        config, (points, _) = self.config, organised_points(*object_cloud(sample))
        normals = estimate_normals(points, config.normal_radius_m, config.normal_max_neighbors, config.orientation)
        tokens = point_fpfh(points, normals, config.radius_m, config.max_neighbors)
        return torch.from_numpy(tokens.astype(np.float32)), torch.from_numpy(points)
