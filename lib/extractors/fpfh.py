"""Fast point feature histograms (FPFH) on an organised cloud, 33 bins = 3 angles x 11.

Source: Rusu, Blodow, Beetz, "Fast Point Feature Histograms (FPFH) for 3D Registration", ICRA 2009. Written for the
image grid: neighbors come from a pixel window, each pair of points is treated once and serves both its points and every
radius. Two choices are ours: a value is shared linearly between the two nearest bins, so that no rounding error moves a
whole count and smooth surfaces, which all fall into the middle bins, still differ; and the neighbors' histograms are
averaged with weights 1 / distance that sum to 1 (the paper divides by their number, which leaves a unit of 1 / metres).
Letters: P surface points; M pairs; Q query points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from lib.errors import InputError
from lib.extractors.surface import Surface, disc_offsets, window_table

BINS_PER_ANGLE = 11
FPFH_DIM = 3 * BINS_PER_ANGLE
ANGLE_RANGES = ((-1.0, 1.0), (-1.0, 1.0), (-np.pi, np.pi))  # alpha, phi, theta; only theta is circular


@dataclass(frozen=True, eq=False)
class Pairs:
    """Unordered pairs of points, each once.

    Attributes:
        first, second: (M,) int64 rows of the points.
        distance_m: (M,) float, metres, greater than 0.
    """

    first: np.ndarray
    second: np.ndarray
    distance_m: np.ndarray

    def kept(self, chosen: np.ndarray) -> Pairs:
        """The pairs where `chosen`, (M,) bool, is True."""
        return Pairs(*(np.compress(chosen, column) for column in (self.first, self.second, self.distance_m)))


def grid_pairs(surface: Surface, radius_m: float) -> Pairs:
    """All pairs of surface points at most `radius_m` apart; points that coincide form no pair.

    Args:
        surface: from `sample_surface`.
        radius_m: largest distance in metres.
    """
    offsets = disc_offsets(radius_m, surface.pitch_m * surface.stride_px)
    half = offsets[(offsets[:, 0] > 0) | ((offsets[:, 0] == 0) & (offsets[:, 1] > 0))]
    table = window_table(surface.index_grid, np.argwhere(surface.index_grid >= 0), half)
    found = np.flatnonzero(table >= 0)
    first, second = found // len(half), np.take(table, found)
    step = np.take(surface.points, second, axis=0) - np.take(surface.points, first, axis=0)
    distance = np.sqrt(np.einsum("mc,mc->m", step, step))
    return Pairs(first, second, distance).kept((distance > 0) & (distance <= radius_m))


def pair_angles(points: np.ndarray, normals: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Angular features (alpha, phi, theta) of each pair, (3, M) float (Rusu 2009, eq. 1).

    With the source s (the point whose normal makes the smaller angle with the line to the other, t), d the unit vector
    from s to t and the frame u = n_s, v = d x u / |d x u|, w = u x v: alpha = v . n_t in [-1, 1], phi = u . d in
    [-1, 1], theta = atan2(w . n_t, u . n_t) in [-pi, pi]. The products below are those, written without the frame:
    the triple product d . (n_1 x n_2) does not change when source and target trade places. Parallel normals tie, and
    rounding decides the sign of phi, as in the paper.

    Args:
        points: (P, 3) float, metres.
        normals: (P, 3) float, unit length.
        pairs: M pairs of them.
    """
    points, normals = np.ascontiguousarray(points.T), np.ascontiguousarray(normals.T)  # axes apart: four times as fast
    normal_1, normal_2 = np.take(normals, pairs.first, axis=1), np.take(normals, pairs.second, axis=1)
    line = (np.take(points, pairs.second, axis=1) - np.take(points, pairs.first, axis=1)) / pairs.distance_m
    slant_1, slant_2 = (normal_1 * line).sum(axis=0), (normal_2 * line).sum(axis=0)
    cosine = (normal_1 * normal_2).sum(axis=0)
    triple = (line * np.cross(normal_1, normal_2, axis=0)).sum(axis=0)
    traded = np.abs(slant_1) < np.abs(slant_2)
    phi = np.where(traded, -slant_2, slant_1)
    across = np.where(traded, -slant_1, slant_2)  # d . n_t
    sine = np.sqrt(np.maximum(1 - phi**2, np.finfo(phi.dtype).eps))  # 0 when the line runs along the normal
    return np.stack([triple / sine, phi, np.arctan2((across - phi * cosine) / sine, cosine)])


def soft_bins(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower bin, upper bin, both (3, M) int64 in [0, 33), and the upper bin's share, (3, M) float in [0, 1].

    Args:
        angles: (3, M) float from `pair_angles`.
    """
    low, high = (np.array(ends, angles.dtype)[:, None] for ends in zip(*ANGLE_RANGES, strict=True))
    position = (angles - low) * (BINS_PER_ANGLE / (high - low)) - angles.dtype.type(0.5)
    position[:2] = np.clip(
        position[:2], 0, BINS_PER_ANGLE - 1
    )  # alpha, phi: no bin to share with beyond the outer ones
    floor = np.floor(position)
    lower = floor.astype(np.int64)
    upper = lower + 1
    upper[:2] = np.minimum(upper[:2], BINS_PER_ANGLE - 1)
    lower[2] += BINS_PER_ANGLE * (lower[2] < 0)  # theta: the circle closes between the last bin and the first
    upper[2] -= BINS_PER_ANGLE * (upper[2] == BINS_PER_ANGLE)
    first_bin = BINS_PER_ANGLE * np.arange(3)[:, None]
    return lower + first_bin, upper + first_bin, position - floor


def simplified_histograms(angles: np.ndarray, pairs: Pairs, num_points: int) -> np.ndarray:
    """SPFH (P, 33) float of each point over its pairs; the bins of each angle sum to 1, or to 0 without neighbors.

    Args:
        angles: (3, M) float from `pair_angles`.
        pairs: the same M pairs.
        num_points: P.
    """
    lower, upper, share = soft_bins(angles)
    counts = np.zeros(num_points * FPFH_DIM)
    for end in (pairs.first, pairs.second):
        for bins, weights in ((lower, 1 - share), (upper, share)):
            counts += np.bincount((end * FPFH_DIM + bins).ravel(), weights.ravel(), minlength=counts.size)
    degree = np.bincount(pairs.first, minlength=num_points) + np.bincount(pairs.second, minlength=num_points)
    return (counts.reshape(num_points, FPFH_DIM) / np.maximum(degree, 1)[:, None]).astype(angles.dtype)


def weighted_histograms(histograms: np.ndarray, pairs: Pairs, rows: np.ndarray) -> np.ndarray:
    """FPFH (Q, 33) float: half a point's own SPFH, half its neighbors' mean with weights 1 / distance.

    Rusu 2009, eq. 2, up to scale (see the module's note): the bins of each angle sum to 1.

    Args:
        histograms: (P, 33) float from `simplified_histograms`.
        pairs: the pairs they were counted over.
        rows: (Q,) int64 points for which the result is wanted.
    """
    num_points = len(histograms)
    place = np.full(num_points, -1)
    place[rows] = np.arange(len(rows))
    source = np.concatenate([pairs.first, pairs.second])
    wanted = place[source] >= 0
    neighbor = np.concatenate([pairs.second, pairs.first])[wanted]
    closeness = np.tile(1 / pairs.distance_m, 2)[wanted]
    weights = csr_array((closeness, (place[source[wanted]], neighbor)), shape=(len(rows), num_points))
    total = np.maximum(weights.sum(axis=1), np.finfo(histograms.dtype).tiny)
    return (histograms[rows] + weights @ histograms / total[:, None]) / 2


def fpfh(surface: Surface, radii_m: Sequence[float], rows: np.ndarray) -> np.ndarray:
    """FPFH of chosen points at several radii side by side, (Q, 33 * len(radii_m)) float.

    A point without a neighbor within a radius has zeros there.

    Args:
        surface: from `sample_surface`.
        radii_m: radii in metres; every pair of the largest one is treated once for all.
        rows: (Q,) int64 rows of `surface.points`.

    Raises:
        InputError: no two points lie within the largest radius.
    """
    pairs = grid_pairs(surface, max(radii_m))
    if len(pairs.first) == 0:
        raise InputError(f"cloud: no two points lie within {max(radii_m)} m; check that it is in metres")
    angles = pair_angles(surface.points, surface.normals, pairs)
    descriptors = []
    for radius in radii_m:
        near = pairs.distance_m <= radius
        histograms = simplified_histograms(np.compress(near, angles, axis=1), pairs.kept(near), len(surface.points))
        descriptors.append(weighted_histograms(histograms, pairs.kept(near), rows))
    return np.concatenate(descriptors, axis=1)
