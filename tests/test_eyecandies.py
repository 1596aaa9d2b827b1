"""Eyecandies conversion against a loop over pixels and against the scene's own geometry; bad raw files."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.data import is_prepared, list_samples, read_sample
from lib.errors import InputError
from lib.eyecandies import (
    CONVERSION,
    ConversionConfig,
    convert,
    convert_category,
    find_raw,
    without_background,
    world_points,
)
from lib.preparation import PREPARATION_EYECANDIES, prepare_sample
from tests.fixtures_eyecandies import FOCAL_PX, RADIUS, SHIFT, SIDE_PX, make_scene, turn, write_raw_category


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_raw_category(tmp_path / "raw")
    return tmp_path / "raw"


def slow_conversion(depth: np.ndarray, pose: np.ndarray, config: ConversionConfig) -> np.ndarray:
    """The released steps as they are told, one pixel after the other; the background is zero."""
    height, width = depth.shape
    camera = np.eye(4)
    camera[0, 0] = camera[1, 1] = config.focal_px
    camera[0, 2], camera[1, 2] = width / 2, height / 2
    to_world = np.linalg.inv(camera @ pose)
    points = []
    for v in range(height):
        for u in range(width):
            d = float(depth[v, u])
            vector = d * (to_world @ np.array([u, v, 1, 1 / d]))
            points.append([float(vector[0]), float(vector[1]), float(vector[2])])
    first, last = points[width // 2], points[-(width // 2)]
    length = math.hypot(first[1] - last[1], first[2] - last[2])
    cosine, sine = (first[2] - last[2]) / length, (first[1] - last[1]) / length
    cloud = []
    for x, y, z in points:
        turned = (cosine * (y - last[1]) - sine * (z - last[2]), sine * (y - last[1]) + cosine * (z - last[2]))
        kept = turned[0] <= config.max_height and turned[1] <= config.max_depth and abs(x) <= config.max_side
        cloud.append([x * config.scale, z * -config.scale, y * config.scale] if kept else [0, 0, 0])
    return np.array(cloud, dtype=np.float32).reshape(height, width, 3)


@pytest.mark.parametrize("limits", [{}, {"max_depth": 0.35}, {"max_side": 0.2}, {"scale": 1.0}])
def test_is_the_loop_over_pixels(limits: dict[str, float]) -> None:
    config, scene = dataclasses.replace(CONVERSION, **limits), make_scene(3, side=22)
    cloud, mask = without_background(world_points(scene.depth, scene.pose, config.focal_px), config)
    np.testing.assert_allclose(cloud, slow_conversion(scene.depth, scene.pose, config), atol=1e-7)
    assert np.array_equal(mask, cloud.any(axis=2))


def test_points_are_where_the_camera_saw_them() -> None:
    scene = make_scene(1, side=21)
    points = world_points(scene.depth, scene.pose, FOCAL_PX)
    rows, columns = np.mgrid[:21, :21]
    seen = np.stack([(columns - 10.5) / FOCAL_PX, (rows - 10.5) / FOCAL_PX, np.ones((21, 21))], axis=-1)
    camera = seen * scene.depth[..., None]
    np.testing.assert_allclose(points, (camera - SHIFT) @ turn(0.4), atol=1e-12)


def test_what_is_left_is_a_ball_in_metres() -> None:
    scene = make_scene(2)
    cloud, mask = without_background(world_points(scene.depth, scene.pose, FOCAL_PX), CONVERSION)
    assert mask.sum() > 300 and not mask[~scene.ball].any()
    center = ((scene.center - SHIFT) @ turn(0.4))[[0, 2, 1]] * (0.1, -0.1, 0.1)
    distance_m = np.linalg.norm(cloud[mask] - center, axis=1)
    np.testing.assert_allclose(distance_m, RADIUS / 10, rtol=1e-3)
    assert not cloud[~mask].any()


def test_a_category_comes_out_in_the_layout(root: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    target = tmp_path / "out"
    assert convert_category(root, target, "Confetto") == target / "Confetto"
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert is_prepared(target, "Confetto")
    ids = [f.sample_id for split in ("train", "validation", "test") for f in list_samples(target, "Confetto", split)]
    assert ids == [
        "train/good/000", "train/good/001", "train/good/002", "validation/good/000",
        "test/bad/002", "test/bad/003", "test/good/000", "test/good/001",
    ]  # fmt: skip
    files = list_samples(target, "Confetto", "test")[0]
    raw = read_sample(files)
    assert np.array_equal(raw.rgb, np.asarray(Image.open(root / "Confetto/test_public/data/02_image_4.png")))
    assert raw.gt_mask.sum() == (np.asarray(Image.open(root / "Confetto/test_public/data/02_mask.png")) > 0).sum()
    assert np.array_equal(raw.depth > 0, np.ones((SIDE_PX, SIDE_PX), dtype=bool))
    sample = prepare_sample(raw, PREPARATION_EYECANDIES, seed=0)
    assert sample.foreground.sum() > 1000 and sample.gt_mask.any()


@pytest.mark.parametrize(
    ("item", "content", "words"),
    [
        ("info_depth.yaml", "normalization: {min: 2, max: 1}", "expected 0 < min < max"),
        ("info_depth.yaml", "normalization: [1, 2]", "no normalization with min and max"),
        ("info_depth.yaml", "a: {", "no normalization with min and max"),
        ("pose.txt", "1 2 3", "3 numbers that are no pose"),
        ("pose.txt", "1 0 0 0\n" * 4, "16 numbers that are no pose"),
        ("pose.txt", "one two", "no numbers"),
        ("pose.txt", "1 0 0 0\n0 1 0 9\n0 0 1 0\n0 0 0 1", None),
        ("depth.png", b"\x89PNG", "not a readable PNG"),
        ("image_4.png", b"", "not a readable PNG"),
    ],
)
def test_damaged_items_are_named(root: Path, item: str, content: str | bytes, words: str | None) -> None:
    path = root / "Confetto" / "train" / "data" / f"001_{item}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    files = find_raw(root, "Confetto", "train")[1]
    if words is None:
        convert(files)  # another pose is no damage
        return
    with pytest.raises(InputError, match=words) as caught:
        convert(files)
    assert str(path) in str(caught.value)


def test_depth_of_eight_bits_and_another_size_are_refused(root: Path) -> None:
    path = root / "Confetto" / "train" / "data" / "000_depth.png"
    Image.fromarray(np.zeros((SIDE_PX, SIDE_PX), dtype=np.uint8)).save(path)
    with pytest.raises(InputError, match="8 bits per channel; expected one channel of 16"):
        convert(find_raw(root, "Confetto", "train")[0])
    Image.fromarray(np.zeros((SIDE_PX, SIDE_PX + 1), dtype=np.uint16)).save(path)
    with pytest.raises(InputError, match="the image has"):
        convert(find_raw(root, "Confetto", "train")[0])


def test_missing_folders_and_items_are_named(root: Path) -> None:
    data = root / "Confetto" / "test_public" / "data"
    (data / "01_mask.png").unlink()
    with pytest.raises(InputError, match=r"lacks 01_mask\.png"):
        find_raw(root, "Confetto", "test")
    with pytest.raises(InputError, match="no such folder; give the folder that holds the categories as they were"):
        find_raw(root, "Lollipop", "test")
    for path in data.iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no samples; expected files such as 000_image_4"):
        find_raw(root, "Confetto", "test")


def test_one_bad_sample_leaves_nothing_behind(root: Path, tmp_path: Path) -> None:
    (root / "Confetto" / "train" / "data" / "001_pose.txt").write_text("")
    with pytest.raises(InputError, match="1 of 8 samples cannot be prepared, so nothing was written"):
        convert_category(root, tmp_path / "out", "Confetto")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".Confetto.lock"]
