"""Organised clouds against hand-made planes and flood fill."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lib import clouds
from lib.errors import InputError

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 11), st.integers(1, 13)))


def flood_fill_largest(mask: np.ndarray, gap_px: int) -> np.ndarray:
    """Largest component by breadth-first search over all pixels within gap_px + 1; the first found wins a tie."""
    unseen = {tuple(pixel) for pixel in np.argwhere(mask)}
    best: list[tuple[int, int]] = []
    for start in map(tuple, np.argwhere(mask)):
        if start not in unseen:
            continue
        unseen.remove(start)
        component = [start]
        for row, column in component:
            near = {p for p in unseen if max(abs(p[0] - row), abs(p[1] - column)) <= gap_px + 1}
            unseen -= near
            component.extend(near)
        best = component if len(component) > len(best) else best
    filled = np.zeros_like(mask)
    for pixel in best:
        filled[pixel] = True
    return filled


def tilted_points(generator: np.random.Generator, count: int, noise_m: float) -> np.ndarray:
    """Points on z = 0.5 + 0.1 x - 0.2 y with Gaussian noise along z."""
    x, y = generator.uniform(-0.1, 0.1, size=(2, count))
    z = 0.5 + 0.1 * x - 0.2 * y + generator.normal(0, noise_m, count)
    return np.stack([x, y, z], axis=1).astype(np.float32)


def test_valid_mask_rules_differ_only_on_coordinate_planes():
    cloud = np.zeros((2, 3, 3), dtype=np.float32)
    cloud[0, 1] = (0, 0.1, 0.5)
    cloud[1, 2] = (0.1, 0.1, 0.5)
    assert np.argwhere(clouds.valid_mask(cloud)).tolist() == [[0, 1], [1, 2]]
    assert np.argwhere(clouds.valid_mask(cloud, "all")).tolist() == [[1, 2]]
    with pytest.raises(InputError, match="valid rule 'most' is unknown"):
        clouds.valid_mask(cloud, "most")


def test_border_points_are_the_valid_outer_frame_once_each():
    cloud = np.arange(1, 7 * 11 * 3 + 1, dtype=np.float32).reshape(7, 11, 3)
    cloud[0, 0] = 0
    inside = {(row, column) for row in range(2, 5) for column in range(2, 9)}
    expected = [cloud[p] for p in np.ndindex(7, 11) if p not in inside and p != (0, 0)]
    np.testing.assert_array_equal(clouds.border_points(cloud, 2), expected)


def test_border_wider_than_the_image_is_the_whole_image():
    assert clouds.border_mask(7, 11, 10).all()


def test_organised_points_come_back_to_their_pixels():
    cloud = np.random.default_rng(0).normal(size=(7, 11, 3)).astype(np.float32)
    mask = np.random.default_rng(1).random((7, 11)) < 0.4
    points, pixel_index = clouds.organised_points(cloud, mask)
    assert pixel_index.dtype == np.int64
    assert points.dtype == np.float32
    np.testing.assert_array_equal(cloud.reshape(-1, 3)[pixel_index], points)
    assert mask.reshape(-1)[pixel_index].all()
    assert len(points) == mask.sum()


def test_plane_distance_by_hand():
    plane = clouds.Plane(normal=np.array([0.0, 0.0, -1.0]), offset=0.5)
    distances = clouds.plane_distance(np.array([[1, 2, 0.5], [0, 0, 0.4], [3, 0, 0.7]]), plane)
    np.testing.assert_allclose(distances, [0, 0.1, 0.2], atol=1e-12)


@pytest.mark.parametrize("sample_size", [3, 50])
def test_ransac_finds_the_plane_beside_outliers(sample_size):
    generator = np.random.default_rng(3)
    points = tilted_points(generator, 1900, noise_m=0.0005)
    points[:60, 2] -= generator.uniform(0.01, 0.2, 60).astype(np.float32)
    plane = clouds.fit_plane_ransac(points, 0.004, sample_size, 1000, np.random.default_rng(0))
    normal = np.array([0.1, -0.2, -1]) / np.sqrt(1.05)
    np.testing.assert_allclose(plane.normal, normal, atol=1e-3)
    assert plane.offset == pytest.approx(0.5 / np.sqrt(1.05), abs=1e-4)
    assert plane.offset > 0
    assert np.linalg.norm(plane.normal) == pytest.approx(1)


def test_ransac_three_point_samples_bear_what_fifty_cannot():
    generator = np.random.default_rng(4)
    points = tilted_points(generator, 1000, noise_m=0.0005)
    points[:400, 2] -= generator.uniform(0.03, 0.2, 400).astype(np.float32)
    three, fifty = (clouds.fit_plane_ransac(points, 0.004, n, 1000, np.random.default_rng(0)) for n in (3, 50))
    on_plane = points[400:]
    assert clouds.plane_distance(on_plane, three).max() < 0.004 < clouds.plane_distance(on_plane, fifty).max()


def test_ransac_is_refitted_to_its_inliers_by_least_squares():
    points = tilted_points(np.random.default_rng(5), 500, noise_m=0.0005)
    plane = clouds.fit_plane_ransac(points, 0.1, 3, 50, np.random.default_rng(0))  # every point is an inlier
    centered = points.astype(np.float64) - points.astype(np.float64).mean(axis=0)
    smallest = np.linalg.svd(centered)[2][-1]
    np.testing.assert_allclose(np.abs(plane.normal @ smallest), 1, atol=1e-12)


def test_ransac_depends_on_the_generator_only():
    points = tilted_points(np.random.default_rng(6), 300, noise_m=0.003)
    before = points.copy()
    seeds = (1, 1, 2)
    first, again, other = (clouds.fit_plane_ransac(points, 0.002, 3, 100, np.random.default_rng(s)) for s in seeds)
    np.testing.assert_array_equal(first.normal, again.normal)
    assert first.offset == again.offset
    assert first.offset != other.offset
    np.testing.assert_array_equal(points, before)


@pytest.mark.parametrize("points", [np.zeros((2, 3)), np.outer(np.arange(9), [1, 2, 3]), np.ones((9, 3))])
def test_ransac_refuses_what_spans_no_plane(points):
    with pytest.raises(InputError, match=r"^points: "):
        clouds.fit_plane_ransac(points, 0.004, 3, 100, np.random.default_rng(0))


@settings(max_examples=150, deadline=None)
@given(mask=MASKS, gap_px=st.integers(0, 3))
def test_grid_component_equals_flood_fill(mask, gap_px):
    component = clouds.largest_component_grid(mask, gap_px)
    np.testing.assert_array_equal(component, flood_fill_largest(mask, gap_px))
    np.testing.assert_array_equal(component, clouds.largest_component_grid(component, gap_px))  # twice = once


def test_grid_component_bridges_a_seam_only_when_told():
    mask = np.ones((7, 11), dtype=bool)
    mask[:, 5:7] = False  # 35 pixels left of a two-pixel seam, 28 right of it
    assert clouds.largest_component_grid(mask, 1).sum() == 35
    assert clouds.largest_component_grid(mask, 2).sum() == 63


def test_grid_component_counts_pixels_not_grown_area():
    mask = np.zeros((9, 40), dtype=bool)
    mask[1:5, 1:5] = True  # 16 dense pixels
    mask[1, 12:40:3] = True  # 10 sparse ones that cover more area once grown
    assert clouds.largest_component_grid(mask, 2)[2, 2]


def test_grid_component_gives_a_tie_to_the_first_in_row_major_order():
    mask = np.zeros((7, 11), dtype=bool)
    mask[0, 5] = mask[1, 1] = True
    assert np.argwhere(clouds.largest_component_grid(mask, 2)).tolist() == [[0, 5]]


@pytest.mark.parametrize(
    "component",
    [
        lambda mask, cloud: clouds.largest_component_grid(mask, 2),
        lambda mask, cloud: clouds.largest_component_dbscan(mask, cloud, 0.006, 30),
    ],
)
def test_no_candidates_no_component(component):
    assert not component(np.zeros((7, 11), dtype=bool), np.zeros((7, 11, 3), dtype=np.float32)).any()


def grid_cloud(height: int, width: int, pitch_m: float) -> np.ndarray:
    rows, columns = np.mgrid[1 : height + 1, 1 : width + 1] * pitch_m
    return np.stack([columns, rows, np.full(rows.shape, 0.5)], axis=-1).astype(np.float32)


def test_dbscan_and_grid_agree_on_two_clear_objects():
    cloud = grid_cloud(30, 50, 0.001)
    mask = np.zeros((30, 50), dtype=bool)
    mask[3:20, 3:20] = mask[5:15, 35:45] = True
    expected = mask.copy()
    expected[:, 30:] = False
    np.testing.assert_array_equal(clouds.largest_component_dbscan(mask, cloud, 0.006, 30), expected)
    np.testing.assert_array_equal(clouds.largest_component_grid(mask, 4), expected)


def test_dbscan_noise_competes_as_if_it_were_a_cluster():
    cloud = grid_cloud(30, 400, 0.001)
    mask = np.zeros((30, 400), dtype=bool)
    mask[:7, :7] = True  # a cluster of 49
    mask[::10, 40::20] = True  # 54 lonely points: the released rule keeps these
    component = clouds.largest_component_dbscan(mask, cloud, 0.006, 30)
    assert component.sum() == 54
    assert not component[:7, :7].any()
