"""Eyecandies into the layout of MVTec 3D-AD: organised clouds from depth, camera and pose; masks; the left-spot image.

Raw files of a sample lie in `<category>/<split>/data/` as `<index>_<item>`: we read image_4.png (the left spot alone),
depth.png (16 bits), info_depth.yaml (what its black and white mean), pose.txt (4 x 4) and mask.png.
Source: the facts of the preprocessing that M3DM and CFM share [released]. Two differences are ours: the background
becomes (0, 0, 0), where it was one constant point that "any coordinate nonzero" takes for object; and nothing is a
Python loop over pixels. Letters: H, W pixels.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lib.config import check_choice, stored_settings
from lib.decoding import MIN_VALID_POINTS, read_gray16, read_gt_mask, read_rgb
from lib.errors import InputError
from lib.preparation import PREPARATION_EYECANDIES
from lib.prepared_copy import PreparedArrays, check_apart, sheet_row, write_arrays, write_copy
from lib.runtime import file_sha256

SPLIT_FOLDERS = {"train": "train", "validation": "val", "test": "test_public"}  # test_private has no labels
ITEMS = {"rgb": "image_4.png", "depth": "depth.png", "range": "info_depth.yaml", "pose": "pose.txt", "mask": "mask.png"}
DEPTH_STEPS = 65535
GOOD, BAD = "good", "bad"


@dataclass(frozen=True)
class ConversionConfig:
    """How a cloud is made; all values are the released preprocessing's.

    Attributes:
        focal_px: of both axes at 512 pixels; the principal point is the middle of the image.
        max_height: in the scene's unit, of the rotated second axis: what is higher belongs to the support.
        max_depth: of the rotated third axis.
        max_side: largest distance from the middle to the left or right.
        scale: from the scene's unit to metres, which brings the candies near the sizes of MVTec 3D-AD.
    """

    focal_px: float = 711.11
    max_height: float = -0.02
    max_depth: float = 1.8
    max_side: float = 1.0
    scale: float = 0.1


CONVERSION = ConversionConfig()


@dataclass(frozen=True)
class RawFiles:
    """Where the items of one raw sample lie."""

    category: str
    split: str
    index: str
    items: Mapping[str, Path]


@dataclass(frozen=True)
class Job:
    """One sample to convert and where it goes; whether the contact sheet shows it."""

    files: RawFiles
    target: Path
    shown: bool = False


def world_points(depth: np.ndarray, pose: np.ndarray, focal_px: float) -> np.ndarray:
    """(H, W, 3) float64 points in the scene's unit, of a pinhole camera with its principal point in the middle.

    A pixel (u, v) of depth d shows d inverse(K pose) (u, v, 1, 1/d), with K the 4 x 4 camera matrix [released]; the
    pose takes the scene's coordinates to the camera's.

    Args:
        depth: (H, W) in the scene's unit, above 0.
        pose: (4, 4), not singular.
        focal_px: of both axes.
    """
    height, width = depth.shape
    camera = np.array([[focal_px, 0, width / 2, 0], [0, focal_px, height / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    to_world = np.linalg.inv(camera @ pose)
    v, u = np.mgrid[:height, :width].astype(np.float64)
    rays = np.stack([u * depth, v * depth, depth, np.ones_like(depth)], axis=-1)  # d (u, v, 1, 1/d)
    return (rays @ to_world.T)[..., :3]


def without_background(points: np.ndarray, config: ConversionConfig) -> tuple[np.ndarray, np.ndarray]:
    """Cloud (H, W, 3) float32 in metres, (0, 0, 0) off the object, and the (H, W) bool object mask.

    The scene is turned about its first axis until the line from the middle of the last row to the middle of the first
    lies along the third axis; then the support is what reaches above a height, and the object the rest.

    Args:
        points: (H, W, 3) from `world_points`.
        config: limits and scale.

    Raises:
        InputError: first and last row show the same place.
    """
    width = points.shape[1]
    first, last = points.reshape(-1, 3)[width // 2], points.reshape(-1, 3)[-(width // 2)]
    rise, run = first[1] - last[1], first[2] - last[2]
    length = np.hypot(rise, run)
    if length == 0:
        raise InputError("the cloud's first and last row coincide; fetch the depth image again")
    cosine, sine = run / length, rise / length
    y, z = points[..., 1] - last[1], points[..., 2] - last[2]
    height, depth = cosine * y - sine * z, sine * y + cosine * z
    mask = (height <= config.max_height) & (depth <= config.max_depth) & (np.abs(points[..., 0]) <= config.max_side)
    metres = points[..., [0, 2, 1]] * (config.scale * np.array([1, -1, 1]))
    return np.where(mask[..., None], metres, 0).astype(np.float32), mask


def find_raw(root: Path, category: str, split: str) -> list[RawFiles]:
    """Raw samples of a split, by number.

    Raises:
        InputError: a missing folder, no samples, or a sample that lacks an item.
    """
    check_choice("split", split, tuple(SPLIT_FOLDERS))
    folder = root / category / SPLIT_FOLDERS[split] / "data"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder that holds the categories as they were unpacked")
    names = {path.name for path in folder.iterdir() if path.is_file()}
    indices = sorted({match[1] for name in names if (match := re.match(r"(\d+)_", name))}, key=int)
    if not indices:
        raise InputError(f"{folder}: no samples; expected files such as 000_{ITEMS['rgb']}; fetch the data again")
    needed = ITEMS if split == "test" else {kind: item for kind, item in ITEMS.items() if kind != "mask"}
    lacking = [f"{index}_{item}" for index in indices for item in needed.values() if f"{index}_{item}" not in names]
    if lacking:
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        raise InputError(f"{folder}: lacks {', '.join(lacking[:5])}{more}; fetch the data again")
    return [
        RawFiles(category, split, index, {kind: folder / f"{index}_{item}" for kind, item in needed.items()})
        for index in indices
    ]


def read_range(path: Path) -> tuple[float, float]:
    """Depth that black and white stand for, from an info_depth.yaml."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))["normalization"]
        low, high = float(found["min"]), float(found["max"])
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        cause = " ".join(str(error).split())
        raise InputError(f"{path}: no normalization with min and max ({cause}); fetch the file again") from error
    if not (np.isfinite([low, high]).all() and 0 < low < high):
        raise InputError(f"{path}: depth from {low} to {high}; expected 0 < min < max: fetch the file again")
    return low, high


def read_pose(path: Path) -> np.ndarray:
    """(4, 4) float64 pose from a pose.txt."""
    try:
        pose = np.array([float(word) for word in path.read_text(encoding="utf-8").split()])
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no numbers ({error}); fetch the file again") from error
    if pose.shape != (16,) or not np.isfinite(pose).all() or abs(np.linalg.det(pose.reshape(4, 4))) < 1e-9:
        raise InputError(f"{path}: {pose.size} numbers that are no pose; expected 4 rows of 4: fetch the file again")
    return pose.reshape(4, 4)


def convert(files: RawFiles, config: ConversionConfig = CONVERSION) -> tuple[PreparedArrays, np.ndarray]:
    """Arrays of one sample in the layout of a prepared copy, and its object mask (H, W) bool.

    Raises:
        InputError: a damaged file, sizes that differ, or hardly any point on the object.
    """
    rgb, gray = read_rgb(files.items["rgb"]), read_gray16(files.items["depth"])
    (low, high), pose = read_range(files.items["range"]), read_pose(files.items["pose"])
    gt = read_gt_mask(files.items["mask"]) if "mask" in files.items else None
    for name, array in (("depth", gray), ("mask", gt)):
        if array is not None and array.shape != rgb.shape[:2]:
            sizes = f"{array.shape} pixels, the image has {rgb.shape[:2]}"
            raise InputError(f"{files.items[name]}: {sizes}; fetch both again")
    depth = gray.astype(np.float64) / DEPTH_STEPS * (high - low) + low
    try:
        cloud, mask = without_background(world_points(depth, pose, config.focal_px), config)
    except InputError as error:
        raise InputError(f"{files.items['depth']}: {error}") from error
    if mask.sum() < MIN_VALID_POINTS:
        raise InputError(f"{files.items['depth']}: {mask.sum()} points on the object; check pose and depth")
    return PreparedArrays(rgb, cloud, (config.scale * depth).astype(np.float32), gt), mask


def convert_one(job: Job) -> dict[str, Any]:
    """Write one converted sample; its manifest entry, or the problem with it."""
    try:
        arrays, mask = convert(job.files)
    except InputError as error:
        return {"problem": str(error)}
    defect = BAD if arrays.gt is not None and arrays.gt.any() else GOOD
    if defect == GOOD:
        arrays = dataclasses.replace(arrays, gt=None)
    stem = f"{int(job.files.index):03d}"
    written = write_arrays(job.target / job.files.split / defect, stem, arrays)
    read = {kind: file_sha256(path) for kind, path in job.files.items.items()}
    entry = {"id": f"{job.files.split}/{defect}/{stem}", "read": read, "written": written}
    if job.shown:
        entry["sheet"] = sheet_row(arrays.rgb, arrays.depth, np.where(mask, arrays.depth, 0), mask)
    return entry


def convert_category(source: Path, target: Path, category: str, jobs: int = 1, progress: bool = False) -> Path:
    """Folder of a category in the layout of a prepared copy; the raw files are only read.

    Args:
        source: folder with the unpacked categories.
        target: folder for the copy.
        category: its folder's name.
        jobs: processes.
        progress: show a bar over samples.

    Raises:
        InputError: as for `lib.prepared_copy.prepare_category`.
    """
    check_apart(source, target)
    files = [entry for split in SPLIT_FOLDERS for entry in find_raw(source, category, split)]
    settings = {
        "preparation": stored_settings(PREPARATION_EYECANDIES),
        "conversion": dataclasses.asdict(CONVERSION),
    }
    return write_copy(
        target / category, settings, lambda folder: [Job(entry, folder) for entry in files], convert_one, jobs, progress
    )
