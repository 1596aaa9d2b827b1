"""Neighborhoods against loops over points, on clouds whose ties are real."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import neighbors
from lib.errors import InputError

GRID_M = 2.0**-20
SHIFT_M = torch.tensor([8.0, -8.0, 8.0])


def random_cloud(seed: int, num: int) -> torch.Tensor:
    """Points of a dented disc half a metre from the camera, (num, 3) float32."""
    generator = np.random.default_rng(seed)
    x, y = generator.uniform(-0.05, 0.05, (2, num))
    return torch.from_numpy(np.stack([x, y, 0.5 + 5 * x**2 - 3 * x * y], axis=1).astype(np.float32))


def gridded(points: torch.Tensor) -> torch.Tensor:
    """The cloud rounded to a grid of 2^-20 m, on which a shift of 8 m is exact in float32."""
    return (points.double() / GRID_M).round().mul(GRID_M).float()


def lattice(rows: int, columns: int) -> torch.Tensor:
    """A flat lattice of 2^-11 m in shuffled order: almost every distance is shared by several points."""
    row, column = np.mgrid[:rows, :columns].reshape(2, -1) * 2.0**-11
    points = np.stack([column, row, np.full(row.shape, 0.5)], axis=1).astype(np.float32)
    return torch.from_numpy(np.random.default_rng(5).permutation(points))


CLOUDS = {"random": random_cloud(0, 613), "gridded": gridded(random_cloud(1, 613)), "lattice": lattice(23, 29)}


def textbook_farthest(points: torch.Tensor, num: int) -> list[int]:
    """Greedy loop in exact integers: the first of the points farthest from those chosen, from point 0."""
    units = [[round(value / GRID_M) for value in point] for point in points.tolist()]
    chosen, nearest = [0], [float("inf")] * len(units)
    while len(chosen) < num:
        last = units[chosen[-1]]
        nearest = [
            min(d, sum((a - b) ** 2 for a, b in zip(u, last, strict=True))) for d, u in zip(nearest, units, strict=True)
        ]
        chosen.append(nearest.index(max(nearest)))
    return chosen


def brute_force_nearest(points: torch.Tensor, queries: torch.Tensor, num: int) -> list[list[int]]:
    """Rows sorted by squared distance in float64, then by coordinates."""
    points, rows = points.double().tolist(), []
    for query in queries.double().tolist():
        squared = [(p[0] - query[0]) ** 2 + (p[1] - query[1]) ** 2 + (p[2] - query[2]) ** 2 for p in points]
        rows.append(sorted(range(len(points)), key=lambda i: (squared[i], points[i]))[:num])
    return rows


@pytest.mark.parametrize("name", ["gridded", "lattice"])
@pytest.mark.parametrize("variant", ["_farthest_on_cpu", "_farthest_on_device"])
def test_farthest_points_equal_the_textbook_loop_in_integers(name, variant):
    chosen = getattr(neighbors, variant)(CLOUDS[name], 67)
    assert chosen.tolist() == textbook_farthest(CLOUDS[name], 67)
    assert chosen.dtype == torch.int64


def test_farthest_points_of_any_cloud_are_those_of_the_textbook_loop_on_centered_coordinates():
    centered = CLOUDS["random"].double() - CLOUDS["random"].double().mean(dim=0)
    chosen = [0]
    while len(chosen) < 101:
        distances = (centered[:, None] - centered[chosen]).norm(dim=2)
        chosen.append(int(distances.amin(dim=1).argmax()))
    assert neighbors.farthest_points(CLOUDS["random"], 101).tolist() == chosen


def test_farthest_points_repeat_row_0_once_every_place_is_taken():
    points = torch.tensor([[0.0, 0, 1], [1, 0, 1], [0, 0, 1], [1, 0, 1]])
    assert neighbors.farthest_points(points, 4).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("variant", ["tree", "table"])
def test_nearest_points_equal_a_sort_by_distance_and_coordinates(name, variant):
    points, queries = CLOUDS[name], CLOUDS[name][::41] + GRID_M
    if variant == "tree":
        rows, squared = neighbors.nearest_points(points, queries, 37)
    else:
        rows, squared = neighbors._nearest_by_table(points.double(), queries.double(), 37)
    assert rows.tolist() == brute_force_nearest(points, queries, 37)
    expected = (points[rows].double() - queries[:, None].double()).square().sum(dim=2)
    torch.testing.assert_close(squared, expected, rtol=1e-12, atol=0)


def test_nearest_points_of_queries_tied_with_every_point():
    angle = torch.arange(12) % 4 * (torch.pi / 2)
    ring = torch.stack([angle.cos().round(), angle.sin().round(), torch.arange(12) // 4 * 0.0], dim=1)
    points = torch.cat([ring, torch.tensor([[0.0, 0, 1]])])  # 13 points, all 1 m from the origin
    rows, squared = neighbors.nearest_points(points, torch.zeros(1, 3), 2)
    assert points[rows[0]].tolist() == [[-1, 0, 0], [-1, 0, 0]]
    assert squared.tolist() == [[1, 1]]


def test_nearest_points_in_chunks_are_the_same(monkeypatch):
    points = CLOUDS["lattice"].double()
    whole = neighbors._nearest_by_table(points, points[:31], 11)
    monkeypatch.setattr(neighbors, "DISTANCES_PER_CHUNK", 7 * len(points))
    for expected, found in zip(whole, neighbors._nearest_by_table(points, points[:31], 11), strict=True):
        assert torch.equal(expected, found)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), name=st.sampled_from(sorted(CLOUDS)), size=st.integers(1, 71))
def test_with_centers_fixed_the_order_of_the_points_changes_no_group(seed, name, size):
    points = CLOUDS[name]
    centers = points[neighbors.farthest_points(points, 19)]
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(points)))
    rows = neighbors.group_neighbors(points, centers, size)
    assert torch.equal(order[neighbors.group_neighbors(points[order], centers, size)], rows)


@pytest.mark.parametrize("name", ["gridded", "lattice"])
def test_a_shift_of_eight_metres_changes_neither_indices_nor_groups(name):
    points, moved = CLOUDS[name], CLOUDS[name] + SHIFT_M
    assert torch.equal(moved - SHIFT_M, points)  # the shift itself is exact
    assert torch.equal(neighbors.farthest_points(points, 67), neighbors.farthest_points(moved, 67))
    for of_points, of_moved in zip(
        neighbors.interpolation_weights(points, points[:53]),
        neighbors.interpolation_weights(moved, moved[:53]),
        strict=True,
    ):
        assert torch.equal(of_points, of_moved)
    groups, centers = neighbors.group_points(points, 67, 31)
    moved_groups, moved_centers = neighbors.group_points(moved, 67, 31)
    assert torch.equal(groups, moved_groups)
    assert torch.equal(centers + SHIFT_M, moved_centers)


def test_groups_are_points_around_their_centers():
    points = CLOUDS["gridded"]
    groups, centers = neighbors.group_points(points, 17, 29)
    chosen = textbook_farthest(points, 17)
    assert torch.equal(centers, points[chosen])
    for center, group, rows in zip(centers, groups, brute_force_nearest(points, centers, 29), strict=True):
        assert torch.equal(group, points[rows] - center)
    assert not groups[:, 0].any()  # a center is its own nearest point


def brute_force_three_nearest(points: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points, centers = points.astype(np.float64), centers.astype(np.float64)
    rows, weights = [], []
    for point in points:
        squared = [float(((point - center) ** 2).sum()) for center in centers]
        nearest = sorted(range(len(centers)), key=squared.__getitem__)[:3]
        inverse = [1 / (squared[index] + 1e-8) for index in nearest]
        rows.append(nearest)
        weights.append([value / sum(inverse) for value in inverse])
    return np.array(rows), np.array(weights)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), num_centers=st.integers(3, 23))
def test_three_nearest_equals_brute_force_far_from_the_origin(seed, num_centers):
    generator = np.random.default_rng(seed)
    points = generator.normal((0.1, -0.1, 0.5), 0.02, size=(37, 3)).astype(np.float32)
    centers = points[generator.permutation(37)[:num_centers]]
    found, weights = neighbors.three_nearest(points, centers)
    expected_found, expected_weights = brute_force_three_nearest(points, centers)
    np.testing.assert_array_equal(found, expected_found)
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-6)
    assert found.dtype == np.int64
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)


def test_three_nearest_where_the_expanded_square_in_float32_fails():
    steps = np.arange(200, dtype=np.float32) * np.float32(4e-4)  # 0.4 mm apart, half a metre away
    points = np.stack([steps, steps[::-1], np.full(200, 0.5, np.float32)], axis=1)
    found, _ = neighbors.three_nearest(points, points)
    np.testing.assert_array_equal(found[:, 0], np.arange(200))


@pytest.mark.parametrize(("num_centers", "expected"), [(1, [1, 0, 0]), (2, [0.8, 0.2, 0])])
def test_three_nearest_with_fewer_than_three_centers(num_centers, expected):
    points = np.array([[1, 0, 0]], dtype=np.float32)
    centers = np.array([[0, 0, 0], [3, 0, 0]], dtype=np.float32)[:num_centers]
    found, weights = neighbors.three_nearest(points, centers)
    np.testing.assert_allclose(weights, [expected], atol=1e-6)
    assert found.shape == (1, 3)
    assert found.max() < num_centers


def test_three_nearest_needs_a_center():
    with pytest.raises(InputError, match="centers: none given"):
        neighbors.three_nearest(np.zeros((4, 3), np.float32), np.zeros((0, 3), np.float32))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.zeros(4, 2), r"points: shape \(4, 2\), not \(number, 3\)"),
        (torch.zeros(4), r"points: shape \(4,\), not"),
        (torch.zeros(4, 3), "points: 4 given, 5 needed"),
        (torch.full((5, 3), torch.nan), "points: some coordinates are not finite"),
        (torch.full((5, 3), torch.inf), "points: some coordinates are not finite"),
    ],
)
def test_bad_points_are_refused(points, message):
    with pytest.raises(InputError, match=message):
        neighbors.farthest_points(points, 5)
    with pytest.raises(InputError, match=message):
        neighbors.group_neighbors(points, torch.zeros(2, 3), 5)


def test_a_cloud_smaller_than_a_group_is_refused():
    with pytest.raises(InputError, match="points: 7 given, 8 needed"):
        neighbors.group_points(CLOUDS["random"][:7], 2, 8)


def test_centers_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="queries: some coordinates are not finite"):
        neighbors.group_neighbors(CLOUDS["random"], torch.full((2, 3), torch.nan), 3)
