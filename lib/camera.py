"""Scans of your own camera as organised clouds: depth images, organised files, or loose points seen through a pinhole.

Letters: H, W pixels; N points. An organised cloud has a point for every pixel of its color image, in metres in the
camera's frame (x right, y down, z away from it), and (0, 0, 0) where the sensor saw nothing.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from plyfile import PlyData
from pypcd4 import PointCloud

from lib.config import check_choice
from lib.decoding import decoding
from lib.errors import InputError

KINDS = ("depth", "organised", "points")
SUFFIXES = {
    "depth": (".png", ".tiff", ".tif", ".npy"),
    "organised": (".tiff", ".tif", ".npy", ".pcd", ".ply"),
    "points": (".ply", ".pcd", ".npy"),
}
COLOR_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tiff", ".tif")


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole camera without distortion; all in pixels, pixel centers at whole numbers."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        numbers = (self.width, self.height, self.fx, self.fy, self.cx, self.cy)
        if not all(isinstance(number, int | float) and np.isfinite(number) for number in numbers):
            raise InputError(f"intrinsics {numbers}: width, height, fx, fy, cx, cy must be numbers")
        if min(self.width, self.height, self.fx, self.fy) <= 0:
            raise InputError(f"intrinsics {numbers}: width, height, fx and fy must be above 0")


def read_intrinsics(path: Path) -> Intrinsics:
    """Intrinsics of a JSON file: our own six names, or Open3D's `intrinsic_matrix`, which goes down the columns.

    Raises:
        InputError: the file is missing, is no JSON mapping, or lacks a number.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        if "intrinsic_matrix" in found:
            fx, _, _, _, fy, _, cx, cy, _ = found["intrinsic_matrix"]
            found = {**found, "fx": fx, "fy": fy, "cx": cx, "cy": cy}
        return Intrinsics(**{name: found[name] for name in ("width", "height", "fx", "fy", "cx", "cy")})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: no intrinsics ({error}); write JSON with width, height, fx, fy, cx, cy") from error


def cloud_from_depth(depth_m: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """(H, W, 3) float32 organised cloud of a depth image.

    Args:
        depth_m: (H, W) metres along the camera's axis, 0 = no return.
        intrinsics: of the image.

    Raises:
        InputError: the image has another size than the intrinsics say.
    """
    if depth_m.shape != (intrinsics.height, intrinsics.width):
        expected = (intrinsics.height, intrinsics.width)
        raise InputError(f"depth image of {depth_m.shape} pixels, the intrinsics say {expected}; use its own")
    columns = (np.arange(intrinsics.width) - intrinsics.cx) / intrinsics.fx
    rows = (np.arange(intrinsics.height) - intrinsics.cy) / intrinsics.fy
    return np.stack([depth_m * columns, depth_m * rows[:, None], depth_m], axis=-1).astype(np.float32)


def cloud_from_points(points_m: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """(H, W, 3) float32 organised cloud of loose points: each pixel takes the nearest of the points it sees.

    Args:
        points_m: (N, 3) metres in the camera's frame.
        intrinsics: of the color image.

    Raises:
        InputError: no point lies before the camera and within its picture.
    """
    before = points_m[points_m[:, 2] > 0].astype(np.float64)
    columns = np.rint(before[:, 0] / before[:, 2] * intrinsics.fx + intrinsics.cx).astype(np.int64)
    rows = np.rint(before[:, 1] / before[:, 2] * intrinsics.fy + intrinsics.cy).astype(np.int64)
    inside = (columns >= 0) & (columns < intrinsics.width) & (rows >= 0) & (rows < intrinsics.height)
    if not inside.any():
        raise InputError(
            f"none of {len(points_m)} points lies in the picture; give points in the camera's frame, in metres, z ahead"
        )
    before, pixels = before[inside], rows[inside] * intrinsics.width + columns[inside]
    order = np.lexsort((before[:, 2], pixels))  # by pixel, the nearest first
    first = np.unique(pixels[order], return_index=True)[1]
    cloud = np.zeros((intrinsics.height * intrinsics.width, 3), dtype=np.float32)
    cloud[pixels[order][first]] = before[order][first]
    return cloud.reshape(intrinsics.height, intrinsics.width, 3)


def read_color(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 color image of any format Pillow reads.

    Raises:
        InputError: missing or damaged file.
    """
    with decoding(path, "image") as stream, Image.open(stream) as image:
        return np.array(image.convert("RGB"))


def read_scan(
    path: Path, kind: str, intrinsics: Intrinsics | None, unit_m: float, shape: tuple[int, int], far_m: float
) -> np.ndarray:
    """(H, W, 3) float32 organised cloud in metres of one scan.

    Args:
        path: of the scan.
        kind: "depth" = a depth image; "organised" = a point for every pixel, as a TIFF or NPY of (H, W, 3), a PCD with
            a width and a height, or a PLY of H W vertices row by row; "points" = loose points, PLY, PCD or NPY (N, 3).
        intrinsics: of the color image; not needed for organised scans.
        unit_m: length of the file's unit in metres, 0.001 for millimetres.
        shape: (H, W) of the color image.
        far_m: what is farther than this counts as not seen.

    Raises:
        InputError: an unknown format, a damaged file, a size that is not the color image's, no intrinsics, or every
            point farther than `far_m`, as when the unit is missing.
    """
    check_choice("kind of scan", kind, KINDS)
    if path.suffix.lower() not in SUFFIXES[kind]:
        raise InputError(f"{path}: a scan of kind {kind} is one of {', '.join(SUFFIXES[kind])}; choose another kind")
    if kind != "organised" and intrinsics is None:
        raise InputError(f"{path}: a scan of kind {kind} needs the camera's intrinsics; give a JSON file with them")
    try:
        cloud = _cloud(path, kind, intrinsics, unit_m, shape)
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from error
    if cloud.shape != (*shape, 3):
        raise InputError(f"{path}: {cloud.shape[:2]} pixels, the color image has {shape}; register one to the other")
    returned = np.isfinite(cloud).all(axis=2) & cloud.any(axis=2)
    seen = returned & (cloud[..., 2] <= far_m)
    if returned.any() and not seen.any():
        nearest = f"every point lies beyond {far_m:g} m, the nearest at {cloud[returned][:, 2].min():.6g} m"
        raise InputError(f"{path}: {nearest}; give the scans' unit (--unit 0.001 for millimetres) or a larger --far")
    return np.where(seen[..., None], cloud, np.float32(0))


def _cloud(path: Path, kind: str, intrinsics: Intrinsics | None, unit_m: float, shape: tuple[int, int]) -> np.ndarray:
    if kind == "depth":
        values = _array(path, ndim=2) * unit_m
        return cloud_from_depth(np.where(np.isfinite(values), values, 0), intrinsics)
    if kind == "points":
        return cloud_from_points(_points(path) * unit_m, intrinsics)
    return (_organised(path, shape) * unit_m).astype(np.float32)


def _organised(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float64 values of an organised file."""
    suffix = path.suffix.lower()
    if suffix not in (".pcd", ".ply"):
        return _array(path, ndim=3)
    points = _points(path)
    if suffix == ".pcd":
        with decoding(path, "PCD") as stream:
            header = PointCloud.from_fileobj(stream).metadata
        shape = (header.height, header.width)
    if len(points) != shape[0] * shape[1]:
        raise InputError(f"{path}: {len(points)} points are not one for each of {shape[0]} x {shape[1]} pixels")
    return points.reshape(*shape, 3)


def _array(path: Path, ndim: int) -> np.ndarray:
    """Float64 array of a PNG, TIFF or NPY file with that many axes."""
    readers: dict[str, Callable[[io.BytesIO], Any]] = {
        ".png": lambda stream: np.array(Image.open(stream, formats=["PNG"])),
        ".npy": lambda stream: np.load(stream, allow_pickle=False),
    }
    with decoding(path, path.suffix[1:].upper()) as stream:
        values = np.asarray(readers.get(path.suffix.lower(), tifffile.imread)(stream))
    if values.ndim != ndim or values.dtype.kind not in "uif" or (ndim == 3 and values.shape[2] != 3):
        expected = "(H, W)" if ndim == 2 else "(H, W, 3)"
        raise InputError(f"{path}: shape {values.shape}, {values.dtype}; expected {expected}")
    return values.astype(np.float64)


def _points(path: Path) -> np.ndarray:
    """(N, 3) float64 points of a PLY, PCD or NPY file, in its own order; NaN where it has them."""
    suffix = path.suffix.lower()
    with decoding(path, suffix[1:].upper()) as stream:
        if suffix == ".ply":
            vertex = PlyData.read(stream)["vertex"]
            points = np.stack([np.asarray(vertex[axis], dtype=np.float64) for axis in "xyz"], axis=1)
        elif suffix == ".pcd":
            points = PointCloud.from_fileobj(stream).numpy(("x", "y", "z")).astype(np.float64)
        else:
            points = np.load(stream, allow_pickle=False).astype(np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
        raise InputError(f"{path}: shape {points.shape}; expected (N, 3) points")
    return points
