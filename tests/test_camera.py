"""Scans of every kind against a loop over pixels, against each other, and damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from plyfile import PlyData, PlyElement
from pypcd4 import Encoding, PointCloud

from lib.camera import Intrinsics, cloud_from_depth, cloud_from_points, read_color, read_intrinsics, read_scan
from lib.errors import InputError

CAMERA = Intrinsics(width=11, height=7, fx=20.0, fy=25.0, cx=4.7, cy=3.2)
SHAPE = (7, 11)


def depth_image(seed: int = 0) -> np.ndarray:
    """(7, 11) metres in steps of a millimetre, some without a return."""
    generator = np.random.default_rng(seed)
    depth = generator.integers(300, 900, SHAPE) / 1000
    depth[generator.random(SHAPE) < 0.2] = 0
    return depth


def write_ply(path: Path, points: np.ndarray, text: bool = False, big: bool = False) -> Path:
    rows = np.array([tuple(p) for p in points], dtype=[("x", "f4"), ("y", "f4"), ("z", "f4")])
    PlyData([PlyElement.describe(rows, "vertex")], text=text, byte_order=">" if big else "<").write(path)
    return path


def write_pcd(path: Path, cloud: np.ndarray, encoding: Encoding = Encoding.BINARY) -> Path:
    """An organised PCD: pypcd4 writes one row, so the header is turned to (H, W) here."""
    PointCloud.from_xyz_points(cloud.reshape(-1, 3).astype(np.float32)).save(path, encoding)
    content, (height, width) = path.read_bytes(), cloud.shape[:2]
    content = content.replace(f"WIDTH {height * width}".encode(), f"WIDTH {width}".encode())
    path.write_bytes(content.replace(b"HEIGHT 1", f"HEIGHT {height}".encode()))
    return path


def test_a_cloud_is_the_depth_along_each_pixels_ray() -> None:
    depth = depth_image()
    cloud = cloud_from_depth(depth, CAMERA)
    assert cloud.dtype == np.float32
    for row in range(7):
        for column in range(11):
            d = depth[row, column]
            expected = ((column - 4.7) / 20 * d, (row - 3.2) / 25 * d, d)
            np.testing.assert_allclose(cloud[row, column], expected, atol=1e-6)
    assert not cloud[depth == 0].any()


def test_loose_points_come_back_to_their_pixels_and_the_nearest_wins() -> None:
    cloud = cloud_from_depth(depth_image(), CAMERA)
    points = cloud[cloud.any(axis=2)]
    behind = points * 1.5  # on the same rays, farther away
    mixed = np.concatenate([behind, points, -points])[np.random.default_rng(1).permutation(3 * len(points))]
    np.testing.assert_array_equal(cloud_from_points(mixed, CAMERA), cloud)


def test_points_out_of_the_picture_are_told() -> None:
    with pytest.raises(InputError, match="none of 2 points lies in the picture"):
        cloud_from_points(np.array([[5.0, 0, 1], [0, 0, -1]]), CAMERA)


def test_every_format_holds_the_same_scan(tmp_path: Path) -> None:
    depth = depth_image()
    cloud = cloud_from_depth(depth, CAMERA)
    points = cloud.reshape(-1, 3)
    loose = points[points.any(axis=1)]
    Image.fromarray((depth * 1000).round().astype(np.uint16)).save(tmp_path / "d.png")
    tifffile.imwrite(tmp_path / "d.tiff", np.where(depth == 0, np.nan, depth).astype(np.float32))
    np.save(tmp_path / "d.npy", depth)
    tifffile.imwrite(tmp_path / "o.tiff", cloud, photometric="rgb")
    np.save(tmp_path / "o.npy", np.where(cloud == 0, np.nan, cloud))
    write_pcd(tmp_path / "o.pcd", cloud)
    write_ply(tmp_path / "o.ply", points)
    write_ply(tmp_path / "p.ply", loose)
    write_pcd(tmp_path / "p.pcd", loose[None])
    np.save(tmp_path / "p.npy", loose)
    kinds = {"d": "depth", "o": "organised", "p": "points"}
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 10
    for path in paths:
        unit_m = 0.001 if path.name == "d.png" else 1.0
        found = read_scan(path, kinds[path.stem], CAMERA, unit_m, SHAPE, far_m=10)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, cloud, atol=1e-6, err_msg=path.name)


@pytest.mark.parametrize("encoding", [Encoding.ASCII, Encoding.BINARY, Encoding.BINARY_COMPRESSED])
def test_every_encoding_of_pcd_is_read(tmp_path: Path, encoding: Encoding) -> None:
    cloud = cloud_from_depth(depth_image(), CAMERA)
    path = write_pcd(tmp_path / "o.pcd", cloud, encoding)
    np.testing.assert_allclose(read_scan(path, "organised", None, 1, SHAPE, 10), cloud, atol=1e-5)


@pytest.mark.parametrize(("text", "big"), [(True, False), (False, True)])
def test_every_encoding_of_ply_is_read(tmp_path: Path, text: bool, big: bool) -> None:
    cloud = cloud_from_depth(depth_image(), CAMERA)
    path = write_ply(tmp_path / "o.ply", cloud.reshape(-1, 3), text, big)
    np.testing.assert_allclose(read_scan(path, "organised", None, 1, SHAPE, 10), cloud, atol=1e-5)


def test_what_is_far_counts_as_not_seen(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", depth := depth_image())
    found = read_scan(tmp_path / "d.npy", "depth", CAMERA, 1, SHAPE, far_m=0.5)
    assert np.array_equal(found.any(axis=2), (depth > 0) & (depth <= 0.5))


def test_wrong_scans_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "small.npy", np.ones((3, 4)))
    np.save(tmp_path / "three.npy", np.ones((7, 11, 3)))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    write_ply(tmp_path / "few.ply", np.ones((5, 3)))
    (tmp_path / "broken.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 9\n")
    (tmp_path / "broken.pcd").write_bytes(b"# .PCD")
    (tmp_path / "scan.obj").write_bytes(b"v 0 0 0")
    for name, kind, intrinsics, words in (
        ("small.npy", "depth", CAMERA, "the intrinsics say"),
        ("small.npy", "depth", None, "needs the camera's intrinsics"),
        ("small.npy", "points", CAMERA, "expected .N, 3. points"),
        ("three.npy", "depth", CAMERA, "expected .H, W."),
        ("objects.npy", "points", CAMERA, "not a readable NPY"),
        ("few.ply", "organised", None, "5 points are not one for each of 7 x 11 pixels"),
        ("broken.ply", "points", CAMERA, "not a readable PLY"),
        ("broken.pcd", "points", CAMERA, "not a readable PCD"),
        ("scan.obj", "points", CAMERA, "is one of .ply, .pcd, .npy"),
        ("none.ply", "points", CAMERA, "no such file"),
        ("three.npy", "mesh", CAMERA, "kind of scan"),
    ):
        with pytest.raises(InputError, match=words):
            read_scan(tmp_path / name, kind, intrinsics, 1, SHAPE, 10)
    with pytest.raises(InputError, match="register one to the other"):
        read_scan(tmp_path / "three.npy", "organised", None, 1, (7, 12), 10)


def test_intrinsics_are_ours_or_open3ds(tmp_path: Path) -> None:
    path = tmp_path / "camera.json"
    path.write_text(json.dumps({"width": 11, "height": 7, "fx": 20, "fy": 25, "cx": 4.7, "cy": 3.2, "note": "mine"}))
    assert read_intrinsics(path) == CAMERA
    path.write_text(json.dumps({"width": 11, "height": 7, "intrinsic_matrix": [20, 0, 0, 0, 25, 0, 4.7, 3.2, 1]}))
    assert read_intrinsics(path) == CAMERA


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"width": 1}', "no intrinsics"),
        ("{", "no intrinsics"),
        ('{"width": 1, "height": 1, "intrinsic_matrix": [1]}', "no intrinsics"),
        ('{"width": 11, "height": 7, "fx": 0, "fy": 25, "cx": 4, "cy": 3}', "above 0"),
        ('{"width": 11, "height": 7, "fx": "a", "fy": 25, "cx": 4, "cy": 3}', "must be numbers"),
        (None, "no intrinsics"),
    ],
)
def test_wrong_intrinsics_are_named(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "camera.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_intrinsics(path)
    assert str(path) in str(caught.value)


def test_color_is_three_channels_of_any_image(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 4), 7, dtype=np.uint8)).save(tmp_path / "gray.jpg")
    assert read_color(tmp_path / "gray.jpg").tolist() == np.full((3, 4, 3), 7).tolist()
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match="not a readable image"):
        read_color(tmp_path / "broken.jpg")
