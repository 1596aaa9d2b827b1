"""A small dataset in the raw format of Eyecandies for tests: balls on a tilted floor, seen by a pinhole camera."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIDE_PX = 60
FOCAL_PX = 711.11
DISTANCE = 12.0  # of the ball's middle, in the scene's unit
RADIUS = 0.3
FLOOR_TILT_RAD = 0.9
CAMERA_TILT_RAD = 0.4  # of the scene's coordinates against the camera's
SHIFT = np.array([0.02, -0.3, 0.7])
RAW_ITEMS = ("image_0", "image_4", "image_5", "normals")  # images beside those that are read


@dataclass(frozen=True, eq=False)
class CandyScene:
    """depth (H, W) and ball (H, W) bool as the camera sees them; pose (4, 4), scene to camera."""

    depth: np.ndarray
    ball: np.ndarray
    pose: np.ndarray
    center: np.ndarray


def turn(angle: float) -> np.ndarray:
    """(3, 3) rotation about the first axis."""
    return np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])


def make_scene(seed: int = 0, side: int = SIDE_PX) -> CandyScene:
    """A ball that lies on the floor under the middle of the picture."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    rays = np.stack([(columns - side / 2) / FOCAL_PX, (rows - side / 2) / FOCAL_PX, np.ones((side, side))], axis=-1)
    up = turn(FLOOR_TILT_RAD) @ np.array([0, -1, 0])  # of the floor, in the camera's coordinates; y points down
    middle = np.array([*generator.uniform(-0.05, 0.05, size=2), DISTANCE])
    floor = (middle - RADIUS * 0.6 * up) @ up / (rays @ up)  # the ball is sunk a little
    along, squares = rays @ middle, (rays**2).sum(axis=-1)
    inside = along**2 - squares * (middle @ middle - RADIUS**2)
    ball_depth = np.where(inside > 0, (along - np.sqrt(np.clip(inside, 0, None))) / squares, np.inf)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn(CAMERA_TILT_RAD), SHIFT
    return CandyScene(np.minimum(floor, ball_depth), ball_depth < floor, pose, middle)


def write_raw_sample(folder: Path, index: str, scene: CandyScene, seed: int, is_bad: bool) -> None:
    """Writes the items of one raw sample, and some that nobody reads."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    low, high = float(scene.depth.min()) - 0.1, float(scene.depth.max()) + 0.1
    gray = np.round((scene.depth - low) / (high - low) * 65535).astype(np.uint16)
    Image.fromarray(gray).save(folder / f"{index}_depth.png")
    color = np.where(scene.ball[..., None], (200, 60, 90), (90, 90, 90)) + generator.normal(0, 4, (*gray.shape, 3))
    mask = np.zeros(gray.shape, dtype=np.uint8)
    if is_bad:
        mask[np.hypot(*(np.mgrid[: gray.shape[0], : gray.shape[1]] - gray.shape[0] / 2)) < 4] = 255
        color[mask > 0] = (20, 200, 40)
    for item in RAW_ITEMS:
        Image.fromarray(color.clip(0, 255).astype(np.uint8)).save(folder / f"{index}_{item}.png")
    Image.fromarray(mask).save(folder / f"{index}_mask.png")
    (folder / f"{index}_info_depth.yaml").write_text(f"normalization:\n  max: {high!r}\n  min: {low!r}\n")
    (folder / f"{index}_pose.txt").write_text("\n".join(" ".join(map(repr, row)) for row in scene.pose.tolist()))


def write_raw_category(
    root: Path, category: str = "Confetto", train: int = 3, validation: int = 1, good: int = 2, bad: int = 2
) -> Path:
    """Folder of a written category; indices have three digits in train and two in test, as in the original."""
    counts = {"train": (train, 0, 3), "val": (validation, 0, 3), "test_public": (good, bad, 2)}
    for number, (split, (good_ones, bad_ones, digits)) in enumerate(counts.items()):
        for index in range(good_ones + bad_ones):
            seed = 100 * number + index
            folder = root / category / split / "data"
            write_raw_sample(folder, f"{index:0{digits}d}", make_scene(seed), seed, is_bad=index >= good_ones)
    return root / category
