import dataclasses

import numpy as np
import pytest
from scipy.spatial import cKDTree

from lib.errors import InputError
from lib.extractors.fpfh import BINS_PER_ANGLE, Pairs, fpfh, grid_pairs, pair_angles, simplified_histograms, soft_bins
from lib.extractors.surface import sample_surface
from tests.surfaces import bumpy_cloud, plane_cloud, rotation, sphere_cloud

RADII_M = (0.0018, 0.0031)


def angles_by_frame(points, normals, i, j):
    """Rusu's three features of one pair, from the Darboux frame itself."""
    line = (points[j] - points[i]) / np.linalg.norm(points[j] - points[i])
    if np.arccos(min(1, abs(normals[i] @ line))) > np.arccos(min(1, abs(normals[j] @ line))):
        i, j, line = j, i, -line
    u = normals[i]
    v = np.cross(line, u) / np.linalg.norm(np.cross(line, u))
    w = np.cross(u, v)
    return v @ normals[j], u @ line, np.arctan2(w @ normals[j], u @ normals[j])


def bins_by_hand(angles):
    """33 counts of one pair, each angle shared by a triangle one bin wide to either side."""
    histogram = np.zeros((3, 11))
    for angle, (value, low, high) in enumerate(zip(angles, (-1, -1, -np.pi), (1, 1, np.pi), strict=True)):
        width = (high - low) / 11
        centers = low + width * (np.arange(11) + 0.5)
        distance = np.abs(value - centers)
        if angle == 2:
            distance = np.minimum(distance, 2 * np.pi - distance)
        else:
            distance = np.abs(np.clip(value, centers[0], centers[-1]) - centers)
        histogram[angle] = np.maximum(0, 1 - distance / width)
    return histogram.ravel()


def fpfh_by_loop(points, normals, radius_m):
    """(P, 33) the slow way: a k-d tree and a loop over points and neighbors."""
    near = [[j for j in found if j != i] for i, found in enumerate(cKDTree(points).query_ball_point(points, radius_m))]
    simple = np.array(
        [
            np.mean([bins_by_hand(angles_by_frame(points, normals, i, j)) for j in found], axis=0)
            if found
            else np.zeros(33)
            for i, found in enumerate(near)
        ]
    )
    result = np.zeros_like(simple)
    for i, found in enumerate(near):
        weights = [1 / np.linalg.norm(points[i] - points[j]) for j in found]
        neighborhood = np.average(simple[found], axis=0, weights=weights) if found else np.zeros(33)
        result[i] = 0.5 * simple[i] + 0.5 * neighborhood
    return result


@pytest.mark.parametrize(("stride_px", "missing"), [(1, 0.3), (2, 0.08)])
def test_grid_fpfh_equals_a_loop_over_neighbors_with_missing_returns(stride_px, missing):
    cloud, mask = bumpy_cloud(height=19, width=17, missing=missing)
    surface = sample_surface(cloud, mask, 0.002, stride_px)
    tilted = surface.normals + np.random.default_rng(1).normal(0, 0.01, surface.normals.shape)  # no two are parallel
    surface = dataclasses.replace(surface, normals=tilted / np.linalg.norm(tilted, axis=1, keepdims=True))
    rows = np.arange(len(surface.points))
    found = fpfh(surface, RADII_M, rows)
    for k, radius in enumerate(RADII_M):
        expected = fpfh_by_loop(surface.points, surface.normals, radius)
        np.testing.assert_allclose(found[:, 33 * k : 33 * (k + 1)], expected, atol=1e-10)


def test_float32_clouds_give_the_same_to_single_precision():
    cloud, mask = bumpy_cloud()
    double = sample_surface(cloud, mask, 0.002, 2)
    single = dataclasses.replace(
        double, points=double.points.astype(np.float32), normals=double.normals.astype(np.float32)
    )
    rows = np.arange(0, len(double.points), 3)
    found = fpfh(single, RADII_M, rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, fpfh(double, RADII_M, rows), atol=1e-4)


def test_chosen_rows_are_those_rows_of_all():
    surface = sample_surface(*bumpy_cloud(), 0.002, 2)
    rows = np.array([7, 3, 40])
    everything = fpfh(surface, RADII_M, np.arange(len(surface.points)))
    np.testing.assert_allclose(fpfh(surface, RADII_M, rows), everything[rows], atol=1e-12)


def test_bins_of_each_angle_sum_to_one():
    surface = sample_surface(*bumpy_cloud(), 0.002, 1)
    descriptors = fpfh(surface, RADII_M, np.arange(len(surface.points)))
    np.testing.assert_allclose(descriptors.reshape(-1, 6, BINS_PER_ANGLE).sum(axis=2), 1, atol=1e-9)
    assert (descriptors >= 0).all()


def test_a_plane_puts_everything_into_the_middle_bins():
    cloud, mask, _ = plane_cloud()
    surface = sample_surface(cloud, mask, 0.002, 2)
    peak = np.zeros((3, BINS_PER_ANGLE))
    peak[:, 5] = 1  # alpha = phi = theta = 0
    descriptors = fpfh(surface, (0.003,), np.arange(len(surface.points)))
    np.testing.assert_allclose(descriptors, np.broadcast_to(peak.ravel(), descriptors.shape), atol=1e-5)


def test_pairs_on_a_sphere_have_the_angles_of_their_chord():
    radius_m = 0.03
    cloud, mask = sphere_cloud(radius_m)
    surface = sample_surface(cloud, mask, 0.002, 2)
    middle = np.array([0, 0, 0.4 + radius_m]) - surface.centroid_m
    exact = dataclasses.replace(surface, normals=(surface.points - middle) / radius_m)
    pairs = grid_pairs(exact, 0.003)
    alpha, phi, theta = pair_angles(exact.points, exact.normals, pairs)
    half_angle = np.arcsin(pairs.distance_m / (2 * radius_m))
    np.testing.assert_allclose(alpha, 0, atol=1e-9)  # both normals and the chord lie in one plane
    np.testing.assert_allclose(phi, -np.sin(half_angle), atol=1e-9)
    np.testing.assert_allclose(theta, 2 * half_angle, atol=1e-9)


def test_a_rigid_motion_of_points_and_normals_changes_nothing():
    cloud, mask = bumpy_cloud()
    surface = sample_surface(cloud, mask, 0.002, 2)
    turn, rows = rotation(), np.arange(0, len(surface.points), 2)
    moved = dataclasses.replace(
        surface, points=surface.points @ turn.T + [3.0, -2.0, 5.0], normals=surface.normals @ turn.T
    )
    np.testing.assert_allclose(fpfh(moved, RADII_M, rows), fpfh(surface, RADII_M, rows), atol=1e-4)


def test_a_cloud_metres_away_gives_the_same_descriptors():
    cloud, mask = bumpy_cloud()
    far = (cloud + np.array([0.0, 0.0, 4.0])) * mask[..., None]  # along the view, so that normals keep their sign
    near_surface, far_surface = (sample_surface(each, mask, 0.002, 2) for each in (cloud, far))
    rows = np.arange(len(near_surface.points))
    np.testing.assert_allclose(fpfh(far_surface, RADII_M, rows), fpfh(near_surface, RADII_M, rows), atol=1e-4)


def test_grid_pairs_are_all_pairs_within_the_radius_each_once():
    surface = sample_surface(*bumpy_cloud(), 0.002, 1)
    pairs = grid_pairs(surface, 0.0025)
    found = {tuple(sorted(pair)) for pair in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)}
    assert len(found) == len(pairs.first)
    assert found == cKDTree(surface.points).query_pairs(0.0025)


def test_soft_bins_share_between_neighbors_clip_at_the_ends_and_close_the_circle():
    angles = np.array([[-1.0, 0.0, 1.0], [-0.99, 2 / 11, 0.5], [-np.pi, np.pi, np.pi * 20 / 22]])
    lower, upper, share = soft_bins(angles)
    for k in range(3):
        expected = bins_by_hand(angles[:, k])
        found = np.zeros(33)
        for angle in range(3):
            found[lower[angle, k]] += 1 - share[angle, k]
            found[upper[angle, k]] += share[angle, k]
        np.testing.assert_allclose(found, expected, atol=1e-12)
    assert set(lower[2, :2].tolist()) | set(upper[2, :2].tolist()) == {22, 32}  # the first and the last theta bin


def test_a_point_without_neighbors_has_zeros():
    pairs = Pairs(np.array([0]), np.array([1]), np.array([1e-3]))
    points = np.array([[0.0, 0, 0], [1e-3, 0, 0], [1.0, 0, 0]])
    normals = np.tile([0.0, 0, -1], (3, 1))
    histograms = simplified_histograms(pair_angles(points, normals, pairs), pairs, 3)
    assert (histograms[2] == 0).all()
    np.testing.assert_allclose(histograms[:2].sum(axis=1), 3)


def test_a_line_along_the_normal_is_no_division_by_zero():
    pairs = Pairs(np.array([0]), np.array([1]), np.array([1.0]))
    points, normals = np.array([[0.0, 0, 0], [0, 0, 1]]), np.array([[0.0, 0, 1], [0, 0, 1]])
    np.testing.assert_allclose(pair_angles(points, normals, pairs)[:, 0], [0, 1, 0], atol=1e-6)


def test_points_too_far_apart_are_an_error():
    surface = sample_surface(*bumpy_cloud(), 0.002, 2)
    with pytest.raises(InputError, match="no two points lie within"):
        fpfh(surface, (1e-3 * 0.95,), np.arange(3))
