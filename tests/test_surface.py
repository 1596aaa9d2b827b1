import dataclasses

import numpy as np
import pytest

from lib.errors import InputError
from lib.extractors.surface import (
    disc_offsets,
    grid_pitch_m,
    height_m,
    local_moments,
    local_shape,
    plane_axes,
    sample_surface,
    window_table,
)
from tests.surfaces import bumpy_cloud, plane_cloud, rotation, sphere_cloud

RADIUS_M = 0.002


def test_pitch_of_a_tilted_plane_lies_between_its_two_steps_and_of_a_flat_one_is_exact():
    cloud, mask, _ = plane_cloud(normal=(0, 0, -1))
    assert grid_pitch_m(cloud, mask) == pytest.approx(5e-4)
    cloud, mask, normal = plane_cloud()
    steps = [5e-4 * np.hypot(1, normal[axis] / normal[2]) for axis in (0, 1)]
    assert min(steps) * 0.999 <= grid_pitch_m(cloud, mask) <= max(steps) * 1.001


def test_pitch_needs_an_object_of_distinct_points():
    cloud, mask = bumpy_cloud()
    with pytest.raises(InputError, match="too few distinct points"):
        grid_pitch_m(cloud, np.zeros_like(mask))
    with pytest.raises(InputError, match="too few distinct points"):
        grid_pitch_m(np.ones_like(cloud), mask)


def test_disc_offsets_cover_the_radius_and_leave_out_the_middle():
    offsets = disc_offsets(0.002, 0.001)
    found = {tuple(offset) for offset in offsets.tolist()}
    assert found == {(r, c) for r in range(-2, 3) for c in range(-2, 3) if 0 < r * r + c * c <= 2.2**2}


@pytest.mark.parametrize(("radius_m", "pitch_m"), [(0.0, 1e-3), (-1.0, 1e-3), (1.0, 1e-3)])
def test_disc_offsets_refuse_radii_that_do_not_suit_the_grid(radius_m, pitch_m):
    with pytest.raises(InputError, match="check that the cloud is in metres"):
        disc_offsets(radius_m, pitch_m)


def test_window_table_reads_neighbors_and_marks_holes_and_borders():
    index_grid = np.array([[0, -1, 1], [2, 3, 4]])
    table = window_table(index_grid, np.array([[0, 0], [1, 1]]), np.array([[0, 1], [1, 0], [-1, -1], [2, 2], [-1, 1]]))
    assert table.tolist() == [[-1, 2, -1, -1, -1], [4, -1, 0, -1, 1]]


def test_moments_and_normals_equal_a_loop_over_true_neighbors():
    cloud, mask = bumpy_cloud()
    points = cloud[mask]
    index_grid = np.where(mask, np.cumsum(mask).reshape(mask.shape) - 1, -1)
    pixels = np.argwhere(mask)[::13]
    queries = cloud[mask][::13]
    table = window_table(index_grid, pixels, disc_offsets(RADIUS_M, grid_pitch_m(cloud, mask)))
    count, mean, covariance = local_moments(points, table, queries, RADIUS_M)
    normals, variation = plane_axes(covariance, queries)
    for row, query in enumerate(queries):
        near = points[np.linalg.norm(points - query, axis=1) <= RADIUS_M]
        assert count[row] == len(near)
        np.testing.assert_allclose(mean[row], near.mean(axis=0) - query, atol=1e-12)
        np.testing.assert_allclose(covariance[row], np.cov(near.T, bias=True), atol=1e-15)
        _, spread, axes = np.linalg.svd(near - near.mean(axis=0))
        assert abs(axes[2] @ normals[row]) == pytest.approx(1, abs=1e-9)
        assert normals[row] @ query < 0  # towards the sensor at the origin
        assert variation[row] == pytest.approx(spread[2] ** 2 / (spread**2).sum(), rel=1e-6)


def test_a_plane_has_its_own_normal_no_slope_no_curvature_and_no_height():
    cloud, mask, normal = plane_cloud()
    surface = sample_surface(cloud, mask, RADIUS_M, 2)
    np.testing.assert_allclose(surface.normals, np.broadcast_to(normal, surface.normals.shape), atol=1e-7)
    rows = np.arange(len(surface.points))
    np.testing.assert_allclose(local_shape(surface, rows, 0.003), 0, atol=1e-5)
    np.testing.assert_allclose(height_m(surface, rows), 0, atol=1e-9)


def test_a_sphere_has_curvature_radius_over_its_radius_and_slope_by_angle():
    sphere_radius_m, scale_m = 0.05, 0.004
    cloud, mask = sphere_cloud(sphere_radius_m)
    surface = sample_surface(cloud, mask, RADIUS_M, 1)
    middle = np.array([len(surface.points) // 2])
    slope, curvature, variation = local_shape(surface, middle, scale_m)[0]
    assert slope == pytest.approx(0, abs=1e-3)
    assert curvature == pytest.approx(scale_m / sphere_radius_m, rel=0.1)
    assert 0 <= variation < 1e-3
    hollow = dataclasses.replace(surface, points=surface.points * [1, 1, -1], normals=surface.normals * [-1, -1, 1])
    assert local_shape(hollow, middle, scale_m)[0, 1] == pytest.approx(-curvature, rel=1e-6)
    row = int(np.abs(surface.points[:, 1]).argmin() // 33 * 33) + 26  # ten pixels right of the middle
    expected = np.arcsin(10 * 5e-4 / sphere_radius_m)
    assert local_shape(surface, np.array([row]), 0.002)[0, 0] == pytest.approx(expected, rel=0.05)


def test_shape_and_height_do_not_depend_on_how_the_object_lies():
    cloud, mask = bumpy_cloud()
    surface = sample_surface(cloud, mask, RADIUS_M, 2)
    turn = rotation()
    turned = dataclasses.replace(surface, points=surface.points @ turn.T, normals=surface.normals @ turn.T)
    rows = np.arange(0, len(surface.points), 3)
    np.testing.assert_allclose(local_shape(turned, rows, 0.003), local_shape(surface, rows, 0.003), atol=1e-7)
    np.testing.assert_allclose(height_m(turned, rows), height_m(surface, rows), atol=1e-12)


def test_surface_points_are_the_strided_pixels_with_a_return_and_the_cloud_is_left_alone():
    cloud, mask = bumpy_cloud()
    before = cloud.copy()
    surface = sample_surface(cloud, mask, RADIUS_M, 2)
    assert np.array_equal(cloud, before)
    pixels = np.argwhere(surface.index_grid >= 0) * 2
    assert mask[pixels[:, 0], pixels[:, 1]].all()
    assert len(pixels) == mask[::2, ::2].sum()
    np.testing.assert_allclose(surface.points + surface.centroid_m, cloud[pixels[:, 0], pixels[:, 1]], atol=1e-12)
    assert np.array_equal(surface.index_grid[surface.index_grid >= 0], np.arange(len(pixels)))


def test_a_lonely_point_gets_no_normal_and_lonely_points_alone_are_an_error():
    cloud, mask = bumpy_cloud()
    mask[:, :12] = False
    mask[0, 0] = True
    surface = sample_surface(cloud, mask, RADIUS_M, 2)
    assert surface.index_grid[0, 0] == -1
    sparse = np.zeros_like(mask)
    sparse[::4, ::4] = True
    with pytest.raises(InputError, match=r"no point has 3 neighbors within 0\.001 m"):
        sample_surface(cloud, sparse, 0.001, 2)
