"""One rendered sample: latent, defect, photograph and scan put together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lib.errors import InputError
from lib.synth3d.canvas import canvas_of
from lib.synth3d.defects import DEFECTS, height_disagreement, spoil
from lib.synth3d.families import family_of
from lib.synth3d.layers import swap_kinds
from lib.synth3d.render import photograph, sample_light, shade
from lib.synth3d.sensor import sample_support, scan
from lib.synth3d.supports import board_albedo

IMAGE_SIZE_PX = 300


@dataclass(frozen=True)
class RenderedSample:
    """One sample of the embedded dataset.

    Attributes:
        rgb: (H, W, 3) uint8 sRGB picture.
        cloud: (H, W, 3) float32 organized cloud in metres, camera frame, (0, 0, 0) = no return.
        gt_mask: (H, W) bool, True = anomalous.
    """

    rgb: np.ndarray
    cloud: np.ndarray
    gt_mask: np.ndarray


def render_sample(
    category: str, defect: str, generator: np.random.Generator, size: int = IMAGE_SIZE_PX
) -> RenderedSample:
    """One sample: a nominal object, or the same object with one defect.

    Latent, defect, light, board, camera noise and depth noise have separate streams spawned from `generator`, so a
    defective sample and the good sample of an equal generator differ by the defect alone. For "swap" the photograph
    shows one nominal object from end to end, the scan another of the same outline: each is nominal by itself.

    Args:
        category: one of the four families.
        defect: "good" or one of `DEFECTS`.
        generator: source of all randomness; it must allow `spawn`.
        size: side of the square image in pixels; the scene keeps its size in millimetres.

    Raises:
        InputError: unknown category or defect, or a size below 64 pixels.
    """
    family = family_of(category)
    if defect != "good" and defect not in DEFECTS:
        raise InputError(f"defect {defect!r}: synth3d has no such defect; use good, {', '.join(DEFECTS)}")
    if size < 64:
        raise InputError(f"size {size}: too few pixels to draw a sample; use 64 or more")
    canvas = canvas_of(size)
    latent_stream, defect_stream, light_stream, board_stream, color_stream, depth_stream = generator.spawn(6)
    latent = family.sample(latent_stream)
    seen = measured = family.build(latent, canvas)
    mask = np.zeros((size, size), bool)
    if defect == "swap":
        other = replace(latent, parts=swap_kinds(defect_stream, latent.parts, family.num_kinds))
        measured = family.build(other, canvas)
        mask = height_disagreement(seen, measured)
    elif defect != "good":
        seen, mask = spoil(seen, defect, canvas, family, defect_stream)
        measured = seen
    board = board_albedo(board_stream, canvas, family.boards)
    rgb = photograph(shade(seen, board, canvas, sample_light(light_stream)), color_stream, canvas)
    cloud = scan(measured, canvas, sample_support(depth_stream), depth_stream)
    return RenderedSample(rgb, cloud, mask)
