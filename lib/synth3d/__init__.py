"""synth3d: the embedded procedural dataset, four object families in RGB and organized clouds.

A change of anything that draws needs a new `SYNTH3D_VERSION` and a line in CHANGELOG.
"""

from __future__ import annotations

from lib.synth3d.defects import DEFECTS
from lib.synth3d.families import CATEGORIES
from lib.synth3d.sample import IMAGE_SIZE_PX, RenderedSample, render_sample
from lib.synth3d.writer import MANIFEST_NAME, SYNTH3D_VERSION, Counts, sample_keys, write_category

__all__ = [
    "CATEGORIES", "DEFECTS", "IMAGE_SIZE_PX", "MANIFEST_NAME", "SYNTH3D_VERSION", "Counts", "RenderedSample",
    "render_sample", "sample_keys", "write_category",
]  # fmt: skip
