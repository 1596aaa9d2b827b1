"""One file to one checked array: RGB, ground-truth mask, organised cloud; InputError for whatever is wrong with it."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from lib.clouds import valid_mask
from lib.errors import InputError

MIN_VALID_POINTS = 100  # ours: fewer cannot show a plane and an object
MAX_COORDINATE_M = 10.0  # ours: a table-top sensor sees less far, so larger numbers are millimetres


@contextmanager
def decoding(path: Path, form: str) -> Iterator[io.BytesIO]:
    """Bytes of a file; whatever the decoder raises on them becomes one InputError that names the file."""
    # The broad except is meant: on damaged bytes Pillow and tifffile raise a dozen types between them. The tifffile
    # logger is silent meanwhile, because it would print the same complaint a second time.
    logger = logging.getLogger("tifffile")
    disabled, logger.disabled = logger.disabled, True
    stream = io.BytesIO()
    try:
        stream = io.BytesIO(path.read_bytes())
        yield stream
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; fetch the data again or list the samples anew") from None
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".replace(f" {stream!r}", "").split())
        remedy = "install imagecodecs" if "'imagecodecs'" in cause else "fetch the file again"  # LZW and rarer codecs
        raise InputError(f"{path}: not a readable {form} ({cause}); {remedy}") from error
    finally:
        logger.disabled = disabled


def _read_png(path: Path) -> tuple[np.ndarray, str, int]:
    """Pixels, Pillow's mode, and bits per channel from the header (Pillow makes 8 bits of 16 without a word)."""
    with decoding(path, "PNG") as stream, Image.open(stream, formats=["PNG"]) as image:
        return np.array(image), image.mode, stream.getvalue()[24]


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 image of an 8-bit RGB PNG.

    Args:
        path: the file.

    Raises:
        InputError: missing or damaged file, other channels or depth.
    """
    rgb, mode, bits = _read_png(path)
    if mode != "RGB" or bits != 8:
        raise InputError(f"{path}: mode {mode}, {bits} bits per channel; expected RGB, 8 bits: convert the image")
    return rgb


def read_gt_mask(path: Path) -> np.ndarray:
    """(H, W) bool mask of a one-channel PNG: nonzero = anomalous, as the dataset documents it.

    The released code asks for more than half of white, which is the same for masks of 0 and 255.

    Args:
        path: the file.

    Raises:
        InputError: missing or damaged file, more than one channel.
    """
    mask, mode, _ = _read_png(path)
    if mask.ndim != 2:
        raise InputError(f"{path}: mode {mode}; a mask has one channel: save it as 8-bit greyscale")
    return mask != 0


def check_cloud(cloud: np.ndarray, path: Path) -> None:
    """Raises the InputError that says what a user must know about unusable coordinates."""
    num_bad = np.count_nonzero(~np.isfinite(cloud).all(axis=2))
    if num_bad:
        raise InputError(f"{path}: {num_bad} pixels hold NaN or inf; write missing returns as (0, 0, 0)")
    num_valid = np.count_nonzero(valid_mask(cloud))
    if num_valid == 0:
        raise InputError(f"{path}: every pixel is (0, 0, 0), an empty cloud; fetch the file again")
    if num_valid < MIN_VALID_POINTS:
        raise InputError(f"{path}: {num_valid} points, at least {MIN_VALID_POINTS} are needed; leave it out")
    largest = float(np.abs(cloud).max())
    if largest > MAX_COORDINATE_M:
        raise InputError(f"{path}: coordinates up to {largest:.6g} m; if they are millimetres, divide by 1000")


def read_cloud(path: Path) -> np.ndarray:
    """(H, W, 3) float32 organised cloud in metres of a TIFF, checked.

    Args:
        path: the file.

    Raises:
        InputError: missing or damaged file, wrong shape or dtype, NaN or inf, no or too few points, millimetres.
    """
    with decoding(path, "TIFF") as stream:
        cloud = tifffile.imread(stream)
    if cloud.ndim != 3 or cloud.shape[2] != 3:
        raise InputError(f"{path}: shape {cloud.shape}; expected (H, W, 3), the x, y, z of every pixel")
    if cloud.dtype.kind != "f" or cloud.dtype.itemsize != 4:
        raise InputError(f"{path}: dtype {cloud.dtype}; expected float32 metres: convert it")
    check_cloud(cloud, path)
    return np.ascontiguousarray(cloud, dtype=np.float32)  # native byte order


def read_depth(path: Path) -> np.ndarray:
    """(H, W) float32 depth in metres of a TIFF of a prepared copy, 0 = no return, checked.

    Args:
        path: the file.

    Raises:
        InputError: missing or damaged file, wrong shape or dtype, NaN or inf, depth over 10 m.
    """
    with decoding(path, "TIFF") as stream:
        depth = tifffile.imread(stream)
    if depth.ndim != 2 or depth.dtype.kind != "f" or depth.dtype.itemsize != 4:
        raise InputError(f"{path}: shape {depth.shape}, dtype {depth.dtype}; expected (H, W) float32 metres")
    if not np.isfinite(depth).all() or np.abs(depth).max() > MAX_COORDINATE_M:
        raise InputError(f"{path}: depth is not finite or over {MAX_COORDINATE_M:g} m; make the prepared copy anew")
    return np.ascontiguousarray(depth, dtype=np.float32)


def read_gray16(path: Path) -> np.ndarray:
    """(H, W) uint16 values of a one-channel PNG of 16 bits.

    Args:
        path: the file.

    Raises:
        InputError: missing or damaged file, more than one channel, or 8 bits.
    """
    gray, mode, bits = _read_png(path)
    if gray.ndim != 2 or bits != 16:
        raise InputError(f"{path}: mode {mode}, {bits} bits per channel; expected one channel of 16 bits")
    return gray.astype(np.uint16)
