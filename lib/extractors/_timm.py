"""The one place that imports timm: `from lib.extractors._timm import timm`.

timm needs torchvision, whose wheel on the package index is a CUDA build. Beside a CPU build of torch its compiled part
does not load, and importing it stops at "operator torchvision::nms does not exist" (pytorch/vision issues 9077 and
9085). Nothing here calls these operators, so their names are declared and the import goes on. Beside a matching torch
this does nothing.
"""

from __future__ import annotations

from torch.library import Library

try:
    import torchvision  # noqa: F401
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    OPERATORS = Library("torchvision", "DEF")  # an operator lives as long as this reference
    for name in ("nms", "qnms"):
        OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import timm

__all__ = ["timm"]
