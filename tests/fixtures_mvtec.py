"""A small dataset in the MVTec 3D-AD layout for tests: a two-colored dome on a tilted board."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

PITCH_M = 0.001
BOARD_DISTANCE_M = 0.5
DOME_HEIGHT_M = 0.02
NOISE_M = 0.0002
DEFECTS = ("hole", "stain")


@dataclass(frozen=True, eq=False)
class Scene:
    """rgb (H, W, 3) uint8, cloud (H, W, 3) float32 metres, gt_mask and dome (H, W) bool."""

    rgb: np.ndarray
    cloud: np.ndarray
    gt_mask: np.ndarray
    dome: np.ndarray


def make_scene(seed: int = 0, defect: str = "good", height: int = 120, width: int = 100) -> Scene:
    """One dome of random radius, 1 % missing returns, a pebble in the corner, and perhaps a hole or a stain."""
    generator = np.random.default_rng([seed, height, width])
    rows, columns = np.mgrid[:height, :width]
    center = np.array([height, width]) / 2 + generator.uniform(-2, 2, size=2)
    radius = min(height, width) * generator.uniform(0.26, 0.30)
    from_center = np.hypot(rows - center[0], columns - center[1]) / radius
    dome = from_center < 1
    relief_m = DOME_HEIGHT_M * np.sqrt(np.clip(1 - from_center**2, 0, None))
    color = np.where(dome[..., None], (170, 90, 40), (205, 200, 190)).astype(float)
    color += generator.normal(0, 4, size=color.shape)
    color[dome & (columns > center[1])] += (30, 40, 60)
    relief_m[12:17, 12:17] = 0.01  # a pebble: above the plane, but not the object
    gt_mask = np.zeros((height, width), dtype=bool)
    if defect != "good":
        gt_mask = np.hypot(rows - center[0], columns - center[1] + 8) < 0.3 * radius
    if defect == "hole":
        relief_m[gt_mask] -= 0.008
    if defect == "stain":
        color[gt_mask] = (20, 60, 160)
    x, y = (columns - width / 2 + 0.5) * PITCH_M, (rows - height / 2 + 0.5) * PITCH_M
    z = BOARD_DISTANCE_M + 0.1 * x + 0.05 * y - relief_m + generator.normal(0, NOISE_M, size=(height, width))
    cloud = np.stack([x, y, z], axis=-1).astype(np.float32)
    cloud[generator.random((height, width)) < 0.01] = 0
    return Scene(color.clip(0, 255).astype(np.uint8), cloud, gt_mask, dome)


def write_sample(folder: Path, stem: str, scene: Scene, with_gt: bool) -> None:
    """Writes rgb/<stem>.png, xyz/<stem>.tiff and, if asked, gt/<stem>.png under one defect folder."""
    for kind in ("rgb", "xyz", "gt") if with_gt else ("rgb", "xyz"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.rgb).save(folder / "rgb" / f"{stem}.png")
    tifffile.imwrite(folder / "xyz" / f"{stem}.tiff", scene.cloud, photometric="rgb")
    if with_gt:
        Image.fromarray(scene.gt_mask.astype(np.uint8) * 255).save(folder / "gt" / f"{stem}.png")


def write_category(
    root: Path,
    category: str = "dome",
    train: int = 3,
    validation: int = 1,
    test_each: int = 2,
    seed: int = 0,
    height: int = 120,
    width: int = 100,
) -> Path:
    """Folder of a written category: nominal train and validation samples, `test_each` good and of each defect."""
    folder = root / category
    counts = {("train", "good"): train, ("validation", "good"): validation}
    counts |= {("test", defect): test_each for defect in ("good", *DEFECTS)}
    for index, ((split, defect), count) in enumerate(counts.items()):
        for number in range(count):
            scene = make_scene(1000 * seed + 100 * index + number, defect, height, width)
            write_sample(folder / split / defect, f"{number:03d}", scene, with_gt=split == "test")
    (folder / "calibration").mkdir()
    intrinsics = {"focal_length_px": BOARD_DISTANCE_M / PITCH_M, "image_width": width, "image_height": height}
    (folder / "calibration" / "camera_parameters.json").write_text(json.dumps(intrinsics))
    return folder
