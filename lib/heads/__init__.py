"""Heads: features in, anomaly map and image score out.

Every head is made from its settings and the numbers of channels, and has `fit(features, seed)`,
`predict(features, variants)`, `state()` and `load_state(state)`. Its settings (`lib.methods.MethodSettings`) name it,
its variants, and whether its `fit` takes the validation split too. The heads differ; the road around them
(`lib.experiment`) does not.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lib.methods import MethodSettings


@dataclass(frozen=True)
class Prediction:
    """What a head says of one sample.

    Attributes:
        anomaly_map: (H, W) float32, higher = more anomalous; AUPRO is computed from it.
        image_score: higher = more anomalous.
        pixel_scale: factor that turns `anomaly_map` into the map behind the pixel AUROC. It is 1 but for the
            released CFM code, which divides each image by a different number for each metric.
    """

    anomaly_map: Tensor
    image_score: float
    pixel_scale: float = 1.0


def build_head(config: MethodSettings, rgb_dim: int, xyz_dim: int, device: str = "cpu") -> Any:
    """Untrained head for features of C2 = `rgb_dim` and C3 = `xyz_dim` channels; the settings name its class."""
    module, name = config.head_class.split(":")
    return getattr(importlib.import_module(module), name)(config, rgb_dim, xyz_dim, device)
