"""FPFH on points against Open3D's own output and against a plain loop.

`cases/open3d_fpfh.npz` was made once with Open3D 0.20.0 (its field `open3d_version`) on 697 made-up points in metres:
`numpy.random.default_rng(20261109)` scatters 689 of them over a bumpy cap with 0.2 mm of noise, three repeat two of
these, one is alone, two are alone together, and two share one place; all are shuffled. With

    cloud.estimate_normals(KDTreeSearchParamHybrid(radius=settings[0], max_nn=settings[1]))
    compute_fpfh_feature(cloud, KDTreeSearchParamHybrid(radius=settings[2], max_nn=settings[3]))

it holds `<case>_settings`, `<case>_normals` (float64) and `<case>_fpfh` (float32) of two cases: "btf", BTF's settings,
where the numbers of neighbors decide, with the normals as they come; and "radius", where the radii decide, after
`cloud.orient_normals_towards_camera_location` at the origin.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib.config import project_root
from lib.data import Sample
from lib.errors import InputError
from lib.extractors import Extractor
from lib.extractors.point_fpfh import (
    FPFHConfig,
    PointFPFHExtractor,
    estimate_normals,
    hybrid_search,
    point_fpfh,
    released_signs,
)
from tests.surfaces import bumpy_cloud, plane_cloud, rotation, sphere_cloud

CASE = project_root() / "tests" / "cases" / "open3d_fpfh.npz"
ORIENTATION = {"btf": "released", "radius": "camera"}
FLOAT32_STEP = 2e-5  # of values up to 200


@pytest.fixture(params=ORIENTATION)
def case(request):
    """Name, points, settings, normals and FPFH of one case."""
    name = request.param
    with np.load(CASE) as stored:
        assert str(stored["open3d_version"]) == "0.20.0"
        radius_m, number, fpfh_radius_m, fpfh_number = stored[f"{name}_settings"]
        settings = (radius_m, int(number)), (fpfh_radius_m, int(fpfh_number))
        return name, stored["points"], settings, stored[f"{name}_normals"], stored[f"{name}_fpfh"]


def scattered(count=61, seed=3):
    """Points (count, 3) of a rough relief some centimetres wide, and random unit normals, no two parallel."""
    generator = np.random.default_rng(seed)
    points = np.concatenate([generator.uniform(-0.02, 0.02, (count, 2)), generator.normal(0.4, 0.002, (count, 1))], 1)
    normals = generator.normal((0, 0, -1), 0.4, (count, 3))
    return points, normals / np.linalg.norm(normals, axis=1, keepdims=True)


def neighbors_by_hand(points, i, radius_m, max_neighbors):
    """Rows of the neighbors of point i, nearest first, without it, and their squared distances."""
    squared = [float(((point - points[i]) ** 2).sum()) for point in points]
    others = sorted((j for j in range(len(points)) if j != i), key=lambda j: squared[j])
    near = [j for j in others if squared[j] < radius_m**2][: max_neighbors - 1]
    return near, [squared[j] for j in near]


def bins_by_hand(point, normal, other, other_normal):
    """The three bins that one neighbor adds a count to, from the Darboux frame."""
    line = other - point
    distance = np.linalg.norm(line)
    theta = alpha = phi = 0.0
    if distance > 0:
        source, target, slant, other_slant = normal, other_normal, normal @ line, other_normal @ line
        if abs(slant) < abs(other_slant):
            source, target, line, slant = other_normal, normal, -line, -other_slant
        v = np.cross(line, source)
        if np.linalg.norm(v) > 0:
            v = v / np.linalg.norm(v)
            w = np.cross(source, v)
            theta, alpha, phi = np.arctan2(w @ target, source @ target), v @ target, slant / distance
    steps = int(11 * (theta + np.pi) / (2 * np.pi)), int(11 * (alpha + 1) / 2), int(11 * (phi + 1) / 2)
    return [11 * block + min(step, 10) for block, step in enumerate(steps)]


def fpfh_by_loop(points, normals, radius_m, max_neighbors):
    """(N, 33) the slow way: all distances, a loop over points and neighbors."""
    around = [neighbors_by_hand(points, i, radius_m, max_neighbors) for i in range(len(points))]
    simple = np.zeros((len(points), 33))
    for i, (near, _) in enumerate(around):
        for j in near:
            for k in bins_by_hand(points[i], normals[i], points[j], normals[j]):
                simple[i, k] += 100 / len(near)
    result = simple.copy()
    for i, (near, squared) in enumerate(around):
        weighted = [(1 / d, simple[j]) for j, d in zip(near, squared, strict=True) if d > 0]
        if weighted:
            result[i] += sum(w * row for w, row in weighted) / sum(w for w, _ in weighted)
    return result


def normal_by_rows(covariance):
    """The closed-form normal of one covariance as Open3D reaches it: cross products of rows, then a null vector."""

    def longest_cross(eigenvalue):
        rows = covariance - eigenvalue * np.eye(3)
        crosses = [np.cross(rows[0], rows[1]), np.cross(rows[0], rows[2]), np.cross(rows[1], rows[2])]
        longest = max(crosses, key=np.linalg.norm)
        return longest / np.linalg.norm(longest)

    low, middle, high = np.linalg.eigvalsh(covariance)
    if np.linalg.det(covariance - np.trace(covariance) / 3 * np.eye(3)) < 0:
        return longest_cross(low)
    along = longest_cross(high)
    u = np.array([-along[2], 0, along[0]]) if abs(along[0]) > abs(along[1]) else np.array([0, along[2], -along[1]])
    u = u / np.linalg.norm(u)
    v = np.cross(along, u)
    uu, uv, vv = u @ covariance @ u - middle, u @ covariance @ v, v @ covariance @ v - middle
    if abs(uu) >= abs(vv):  # the null vector of [[uu, uv], [uv, vv]] from its larger row
        across = np.array([uv / uu, -1]) if abs(uu) >= abs(uv) else np.array([1, -uu / uv])
    else:
        across = np.array([1, -uv / vv]) if abs(vv) >= abs(uv) else np.array([vv / uv, -1])
    second = across[0] * u + across[1] * v
    return np.cross(second / np.linalg.norm(second), along)


def test_normals_are_open3ds_with_their_sign(case):
    name, points, (setting, _), normals, _ = case
    found = estimate_normals(points, *setting, ORIENTATION[name])
    np.testing.assert_allclose(np.abs((found * normals).sum(axis=1)), 1, atol=1e-12)
    np.testing.assert_allclose(found, normals, atol=1e-9)


def test_fpfh_on_open3ds_normals_is_open3ds(case):
    _, points, (_, setting), normals, expected = case
    np.testing.assert_allclose(point_fpfh(points, normals, *setting), expected, rtol=0, atol=FLOAT32_STEP)


def test_the_case_holds_what_it_is_for(case):
    name, points, (_, (radius_m, number)), normals, expected = case
    counts = np.isfinite(hybrid_search(points, radius_m, number)[1]).sum(axis=1)
    sums = set(np.round(expected.reshape(-1, 11).sum(axis=1)).tolist())
    if name == "btf":
        assert (counts == number).all()
        assert 0.1 < (normals[:, 2] < 0).mean() < 0.9  # signs as they come are mixed
        assert sums == {200.0}
    else:
        assert counts.min() == 1 and counts.max() < number
        assert (np.einsum("nc,nc->n", normals, points) <= 0).all()
        assert sums == {0.0, 100.0, 200.0}  # alone; only a twin; all others


def test_fpfh_on_own_normals_differs_where_normals_are_parallel_only(case):
    """Points with the same neighbors have the same normal: rounding then decides the sign of phi, and nothing else."""
    name, points, (setting, fpfh_setting), _, expected = case
    normals = estimate_normals(points, *setting, ORIENTATION[name])
    difference = np.abs(point_fpfh(points, normals, *fpfh_setting) - expected)
    np.testing.assert_allclose(difference[:, :22], 0, atol=FLOAT32_STEP)
    assert difference.mean() < 0.1


@pytest.mark.parametrize(("radius_m", "max_neighbors"), [(0.007, 100), (1.0, 13), (0.012, 7), (1.0, 61), (1.0, 500)])
def test_fpfh_equals_a_loop_over_neighbors(radius_m, max_neighbors):
    points, normals = scattered()
    expected = fpfh_by_loop(points, normals, radius_m, max_neighbors)
    np.testing.assert_allclose(point_fpfh(points, normals, radius_m, max_neighbors), expected, atol=1e-9)


def test_points_that_coincide_count_in_the_middle_and_weigh_nothing():
    points, normals = scattered(17)
    points, normals = np.concatenate([points, points[[2, 2, 5]]]), np.concatenate([normals, -normals[[2, 3, 5]]])
    expected = fpfh_by_loop(points, normals, 0.02, 100)
    np.testing.assert_allclose(point_fpfh(points, normals, 0.02, 100), expected, atol=1e-9)


def test_points_in_one_place_only_have_their_own_histogram():
    points, normals = np.zeros((3, 3)), np.tile([0.0, 0.6, -0.8], (3, 1))
    expected = np.zeros(33)
    expected[[5, 16, 27]] = 100
    np.testing.assert_allclose(point_fpfh(points, normals, 1.0, 100), np.tile(expected, (3, 1)))
    np.testing.assert_array_equal(estimate_normals(points, 1.0, 30), np.tile([0.0, 0, 1], (3, 1)))


def test_a_line_along_the_normal_has_no_frame_and_counts_in_the_middle():
    points, normals = np.array([[0.0, 0, 0], [0, 0, 1]]), np.array([[0.0, 0, 1], [0, 0, 1]])
    found = point_fpfh(points, normals, 2.0, 100)
    assert np.argwhere(found).tolist() == [[0, 5], [0, 16], [0, 27], [1, 5], [1, 16], [1, 27]]


def test_a_neighbor_exactly_at_the_radius_is_too_far():
    points = np.array([[0.0, 0, 0], [0.5, 0, 0], [0, 0.25, 0]])
    index, squared = hybrid_search(points, 0.5, 3)
    np.testing.assert_array_equal(index[:2], [[0, 2, 0], [1, 1, 1]])  # a missing neighbor is the point itself
    np.testing.assert_array_equal(squared[:2], [[0, 0.0625, np.inf], [0, np.inf, np.inf]])


@pytest.mark.parametrize("max_neighbors", [9, 100])
def test_permuting_points_permutes_rows(max_neighbors):
    points, normals = scattered(67)
    order = np.random.default_rng(1).permutation(len(points))
    for function in (
        lambda rows: estimate_normals(points[rows], 0.1, max_neighbors),
        lambda rows: point_fpfh(points[rows], normals[rows], 0.1, max_neighbors),
    ):
        np.testing.assert_allclose(function(order), function(slice(None))[order], atol=1e-9)


def test_a_rigid_motion_of_points_and_normals_changes_nothing():
    points, normals = scattered(67)
    turn = rotation()
    moved = point_fpfh(points @ turn.T + [3.0, -2.0, 5.0], normals @ turn.T, 0.01, 20)
    np.testing.assert_allclose(moved, point_fpfh(points, normals, 0.01, 20), atol=1e-6)


def test_normals_to_the_camera_turn_with_the_cloud():
    points, _ = scattered(67)
    turn = rotation()
    normals = estimate_normals(points, 0.02, 12, "camera")
    assert (np.einsum("nc,nc->n", normals, points) <= 0).all()
    np.testing.assert_allclose(estimate_normals(points @ turn.T, 0.02, 12, "camera"), normals @ turn.T, atol=1e-9)


def test_released_signs_are_those_of_the_closed_form():
    generator = np.random.default_rng(4)
    spread = generator.normal(size=(200, 3, 3)) * generator.uniform(0.01, 1, (200, 1, 3))
    covariance = np.einsum("nik,njk->nij", spread, spread)
    eigenvalues, axes = np.linalg.eigh(covariance)
    long = eigenvalues[:, 1] < eigenvalues.mean(axis=1)
    assert 20 < long.sum() < 180
    expected = np.array([normal_by_rows(matrix) for matrix in covariance])
    np.testing.assert_allclose(axes[:, :, 0] * released_signs(eigenvalues, axes)[:, None], expected, atol=1e-5)


def test_released_signs_do_not_depend_on_those_of_the_eigenvectors():
    points, _ = scattered(40)
    offsets = points - points.mean(axis=0)
    eigenvalues, axes = np.linalg.eigh((offsets.T @ offsets)[None])
    for column in range(3):
        turned = axes.copy()
        turned[:, :, column] *= -1
        normal = turned[:, :, 0] * released_signs(eigenvalues, turned)[:, None]
        np.testing.assert_allclose(normal, axes[:, :, 0] * released_signs(eigenvalues, axes)[:, None])


def test_normals_of_a_plane_and_of_a_sphere():
    cloud, mask, normal = plane_cloud()
    np.testing.assert_allclose(estimate_normals(cloud[mask], 0.003, 30, "camera") @ normal, 1)
    radius_m = 0.03
    cap, _ = sphere_cloud(radius_m)
    outwards = (cap - [0, 0, 0.4 + radius_m]) / radius_m
    normals = estimate_normals(cap.reshape(-1, 3), 0.1, 30, "camera").reshape(cap.shape)
    inner = np.s_[5:-5, 5:-5]  # neighbors of an outer point lie on one side of it
    assert (normals * outwards)[inner].sum(axis=2).min() > np.cos(np.deg2rad(0.5))


def test_bins_of_each_angle_sum_to_two_hundred():
    points, normals = scattered(67)
    found = point_fpfh(points, normals, 1.0, 9)
    np.testing.assert_allclose(found.reshape(-1, 3, 11).sum(axis=2), 200)
    assert (found >= 0).all()


def test_chunks_change_nothing(monkeypatch):
    points, normals = scattered(67)
    whole = point_fpfh(points, normals, 0.01, 20)
    monkeypatch.setattr("lib.extractors.point_fpfh.POINTS_PER_CHUNK", 13)
    np.testing.assert_array_equal(point_fpfh(points, normals, 0.01, 20), whole)


@pytest.mark.parametrize("orientation", ["released", "camera"])
def test_extractor_describes_every_foreground_pixel_in_order(orientation):
    cloud, mask = bumpy_cloud(height=19, width=17)
    sample = sample_of(cloud, mask)
    config = FPFHConfig(orientation=orientation)
    extractor = PointFPFHExtractor(config)
    tokens, centers = extractor(sample)
    points = cloud.astype(np.float32)[mask]
    np.testing.assert_array_equal(centers.numpy(), points)
    expected = point_fpfh(points, estimate_normals(points, 0.1, 30, orientation), 0.25, 100)
    np.testing.assert_array_equal(tokens.numpy(), expected.astype(np.float32))
    assert tokens.dtype == centers.dtype == torch.float32
    assert tokens.shape == (mask.sum(), extractor.xyz_dim) and extractor.xyz_dim == 33
    assert extractor.config is config


def sample_of(cloud, mask):
    """A sample that holds nothing but its cloud."""
    tensor = torch.from_numpy(cloud.astype(np.float32)).permute(2, 0, 1).contiguous()
    inside = torch.from_numpy(mask)
    facts = ("train/good/007", "cap", "train", "good", 0)
    padded = np.zeros((*mask.shape, 3), dtype=np.uint8)
    return Sample(*facts, torch.zeros_like(tensor), tensor, inside, ~inside, tensor[2], padded)


def test_extractor_errors_name_the_sample():
    cloud, mask = bumpy_cloud(height=19, width=17)
    pair = Extractor(lambda sample: torch.zeros(1, 2, 2), PointFPFHExtractor())
    with pytest.raises(InputError, match=r"^train/good/007: cloud: no two points lie within"):
        pair(sample_of(cloud * 1000, mask))
    with pytest.raises(InputError, match=r"^train/good/007: no foreground pixel"):
        pair(sample_of(cloud, np.zeros_like(mask)))


def test_bad_input_is_an_error():
    points, normals = scattered(11)
    gap = points.copy()
    gap[3, 1] = np.nan
    for bad in (points[:, :2], points[:0], gap):
        with pytest.raises(InputError, match="points: "):
            estimate_normals(bad, 0.1, 30)
        with pytest.raises(InputError, match="points: "):
            point_fpfh(bad, normals, 0.1, 30)
    for bad in (normals[:10], 2 * normals):
        with pytest.raises(InputError, match="give one of length 1 for each of the 11 points"):
            point_fpfh(points, bad, 0.1, 30)
    with pytest.raises(InputError, match="normals: holds values that are not finite"):
        point_fpfh(points, gap, 0.1, 30)
    for radius_m, number in ((0.0, 30), (-0.1, 30), (np.nan, 30), (0.1, 1), (0.1, 0)):
        with pytest.raises(InputError, match="give at least 2, and a positive radius"):
            point_fpfh(points, normals, radius_m, number)
    with pytest.raises(InputError, match="no two points lie within 1e-06 m"):
        point_fpfh(points, normals, 1e-6, 30)
    with pytest.raises(InputError, match="no two points"):
        point_fpfh(points[:1], normals[:1], 0.1, 30)
    with pytest.raises(InputError, match="orientation 'none' is unknown"):
        estimate_normals(points, 0.1, 30, "none")


@pytest.mark.parametrize(
    "wrong", [{"radius_m": 0.0}, {"max_neighbors": 2.5}, {"normal_max_neighbors": 0}, {"orientation": "up"}]
)
def test_config_refuses_nonsense(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        FPFHConfig(**wrong)
