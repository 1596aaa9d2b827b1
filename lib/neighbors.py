"""Exact neighborhoods of points on CPU and CUDA: farthest point sampling, groups of nearest points, 3-NN interpolation.

Differences are taken in float64 from the given float32 coordinates. On a 2^-20 m grid they, their squares and sums
are exact: a tie is then a real tie, both kinds of device find the same indices,
and moving the cloud changes none. Letters: N points; Q queries; G group centers; K points per group.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from lib.errors import InputError

INTERPOLATION_EPSILON_M2 = 1e-8  # added to squared distances (released code, point features)
SPARE_CANDIDATES = 3  # neighbors asked of the tree beyond those wanted: few ties reach farther
ROUNDING = 1e-12  # relative; far more than the tree's own sums err
DISTANCES_PER_CHUNK = 2**24  # float64 distances held at once on CUDA: 134 MB


def _check_points(name: str, points: Tensor, at_least: int) -> None:
    """Raise `InputError` unless there are enough points, three finite coordinates each."""
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"{name}: shape {tuple(points.shape)}, not (number, 3); give one row of x, y, z a point")
    if len(points) < at_least:
        raise InputError(
            f"{name}: {len(points)} given, {at_least} needed; give a larger cloud, or settings that need fewer"
        )
    if not torch.isfinite(points).all():
        raise InputError(f"{name}: some coordinates are not finite; drop the pixels without a return first")


def farthest_points(points: Tensor, num: int, first: int = 0) -> Tensor:
    """(G,) int64 rows of a greedy farthest point sample from a given row on; the first of equally far points wins.

    The textbook loop (Eldar et al. 1997). The operator of the released code also never chooses a point within 0.032 m
    of the origin; in camera coordinates no object is there. Asked for more points than differ, it repeats row 0,
    whichever the first was.

    Args:
        points: (N, 3) float32, metres, on any device.
        num: G, at most N.
        first: row of the point that starts the sample.

    Raises:
        InputError: fewer than `num` points, a wrong shape, coordinates that are not finite, or no such row.
    """
    _check_points("points", points, num)
    if not 0 <= first < max(len(points), 1):
        raise InputError(f"farthest_points: first is {first} of {len(points)} points; give a row that is there")
    on_cpu = points.device.type == "cpu"
    return _farthest_on_cpu(points, num, first) if on_cpu else _farthest_on_device(points, num, first)


def _farthest_on_cpu(points: Tensor, num: int, first: int = 0) -> Tensor:
    axes = np.ascontiguousarray(points.numpy().T, dtype=np.float64)  # NumPy starts an operation sooner than torch
    nearest = np.full(axes.shape[1], np.inf)  # squared distance of each point to the sample so far
    chosen = np.zeros(num, dtype=np.int64)
    chosen[:1] = first
    for rank in range(1, num):
        x, y, z = np.square(axes - axes[:, chosen[rank - 1], None])
        np.minimum(nearest, x + y + z, out=nearest)
        chosen[rank] = nearest.argmax()
    return torch.from_numpy(chosen)


def _farthest_on_device(points: Tensor, num: int, first: int = 0) -> Tensor:
    axes = points.T.double().contiguous()
    nearest = torch.full_like(axes[0], torch.inf)
    chosen = torch.zeros(num, dtype=torch.int64, device=points.device)
    chosen[:1] = first
    for rank in range(1, num):
        x, y, z = (axes - axes[:, chosen[rank - 1], None]).square()
        torch.minimum(nearest, x + y + z, out=nearest)
        chosen[rank] = nearest.argmax()
    return chosen


def nearest_points(points: Tensor, queries: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Rows of the nearest points of each query, (Q, num) int64, and squared distances in m^2, (Q, num) float64.

    Nearest first. Equally near points are taken in the order of their coordinates (x, then y, then z), so that which
    points are chosen does not depend on the order of the rows, unless points coincide.

    Args:
        points: (N, 3) float32, metres, on any device.
        queries: (Q, 3) float32, metres, on the same device.
        num: at most N.

    Raises:
        InputError: fewer than `num` points, a wrong shape, or coordinates that are not finite.
    """
    _check_points("points", points, num)
    _check_points("queries", queries, 0)
    points, queries = points.double(), queries.double()
    if points.device.type != "cpu":
        return _nearest_by_table(points, queries, num)
    rows, squared = _nearest_by_tree(points.numpy(), queries.numpy(), num)
    return torch.from_numpy(rows), torch.from_numpy(squared)


def _nearest_by_tree(points: np.ndarray, queries: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """`nearest_points` by a k-d tree, asked for more candidates where the last ones tie."""
    order = np.lexsort(points.T[::-1])
    ordered = points[order]
    tree = cKDTree(ordered)
    rows, squared = np.empty((len(queries), num), dtype=np.int64), np.empty((len(queries), num))
    open_queries, num_candidates = np.arange(len(queries)), num + SPARE_CANDIDATES
    while len(open_queries):
        num_candidates = min(num_candidates, len(points))
        ranks = list(range(1, num_candidates + 1))  # a list keeps the second axis when there is one candidate
        candidates = np.sort(tree.query(queries[open_queries], k=ranks)[1], axis=1)
        x, y, z = np.square(np.moveaxis(ordered[candidates] - queries[open_queries, None], 2, 0))
        distance = x + y + z
        by_distance = distance.argsort(axis=1, kind="stable")
        distance = np.take_along_axis(distance, by_distance, axis=1)
        rows[open_queries] = order[np.take_along_axis(candidates, by_distance[:, :num], axis=1)]
        squared[open_queries] = distance[:, :num]
        tied = distance[:, -1] <= distance[:, num - 1] * (1 + ROUNDING)
        open_queries = open_queries[tied & (num_candidates < len(points))]
        num_candidates *= 2
    return rows, squared


def _nearest_by_table(points: Tensor, queries: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """`nearest_points` by all distances, some queries at a time."""
    order = torch.arange(len(points), device=points.device)
    for axis in (2, 1, 0):
        order = order[points[order, axis].argsort(stable=True)]
    columns, found = points[order].T, []
    for chunk in queries.split(max(1, DISTANCES_PER_CHUNK // len(points))):
        x, y, z = ((columns[axis] - chunk[:, axis, None]).square() for axis in range(3))
        distance = x + y + z  # (chunk, N)
        last = distance.kthvalue(num, dim=1, keepdim=True).values
        nearer, tied = distance < last, distance == last
        chosen = nearer | (tied & (tied.cumsum(dim=1) <= num - nearer.sum(dim=1, keepdim=True)))
        candidates = chosen.nonzero()[:, 1].view(-1, num)
        squared, by_distance = distance.gather(1, candidates).sort(dim=1, stable=True)
        found.append((order[candidates.gather(1, by_distance)], squared))
    rows, squared = zip(*found, strict=True)
    return torch.cat(rows), torch.cat(squared)


def group_neighbors(points: Tensor, centers: Tensor, size: int) -> Tensor:
    """(G, K) int64 rows of the `size` nearest points of each center, nearest first; see `nearest_points` for ties.

    Args:
        points: (N, 3) float32, metres, on any device.
        centers: (G, 3) float32, metres, on the same device.
        size: K, at most N.

    Raises:
        InputError: fewer than `size` points, a wrong shape, or coordinates that are not finite.
    """
    return nearest_points(points, centers, size)[0]


def group_points(points: Tensor, num_groups: int, size: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Groups (G, K, 3) float32 of points, metres from their centers, and the centers (G, 3) float32, metres.

    Centers are a farthest point sample, groups their nearest points; centered, never scaled (released code).

    Args:
        points: (N, 3) float32, metres, on any device.
        num_groups: G, at most N.
        size: K, at most N.
        first: row of the point that starts the farthest point sample.

    Raises:
        InputError: fewer points than groups or than points of a group. A smaller cloud would repeat points, in the
            released code without a word; this study asks for settings that fit the cloud.
    """
    centers = points[farthest_points(points, num_groups, first)]
    return points[group_neighbors(points, centers, size)] - centers[:, None], centers


def interpolation_weights(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Three nearest centers of each point, (N, 3) int64, and their weights, (N, 3) float32, which sum to 1.

    Weights are 1 / (squared distance in m^2 + 1e-8), normalised (released code). Distances are exact, where the
    released code's expanded square of uncentered coordinates in float32 loses digits and can go negative. With fewer
    than three centers the nearest one fills the row with weight 0.

    Args:
        points: (N, 3) float32, metres, on any device.
        centers: (G, 3) float32, metres, on the same device, G >= 1.

    Raises:
        InputError: no centers, a wrong shape, or coordinates that are not finite.
    """
    if len(centers) == 0:
        raise InputError("centers: none given; three_nearest needs at least one group center")
    found = min(3, len(centers))
    nearest, squared = nearest_points(centers, points, found)
    neighbors = nearest[:, [*range(found), 0, 0][:3]]
    weights = torch.zeros(neighbors.shape, dtype=torch.float64, device=points.device)
    weights[:, :found] = 1.0 / (squared + INTERPOLATION_EPSILON_M2)
    return neighbors, (weights / weights.sum(dim=1, keepdim=True)).float()


def expanded_weights(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """`interpolation_weights` as the released code takes them: |p|^2 - 2 p.c + |c|^2 in float32, which can go negative.

    Far from the origin the three terms are large and nearly cancel, so what is left has few correct digits. A weight
    whose denominator is exactly zero would be infinite; it is cut to the largest finite number.

    Args:
        points: (N, 3) float32, metres.
        centers: (G, 3) float32, metres, G >= 3.

    Raises:
        InputError: fewer than three centers, a wrong shape, or coordinates that are not finite.
    """
    _check_points("points", points, 0)
    _check_points("centers", centers, 3)
    found = []
    for chunk in points.float().split(max(1, DISTANCES_PER_CHUNK // len(centers))):
        squared = -2 * (chunk @ centers.T) + chunk.square().sum(dim=1)[:, None] + centers.square().sum(dim=1)
        found.append(squared.topk(3, dim=1, largest=False))
    squared, neighbors = (torch.cat([getattr(part, name) for part in found]) for name in ("values", "indices"))
    weights = torch.nan_to_num(1.0 / (squared + INTERPOLATION_EPSILON_M2))
    return neighbors, weights / weights.sum(dim=1, keepdim=True)


def three_nearest(points: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`interpolation_weights` of NumPy arrays: (N, 3) int64 and (N, 3) float32 from (N, 3) and (G, 3) float32."""
    neighbors, weights = interpolation_weights(torch.from_numpy(points), torch.from_numpy(centers))
    return neighbors.numpy(), weights.numpy()
