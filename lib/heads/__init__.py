"""Heads: features in, anomaly map and image score out.

Every head has `fit(features, seed)`, `predict(features, variants)` and `variants`; CFM also `save(path)` and
`load(path)`. The heads differ; the road around them (`lib.experiment`) does not, and `lib.head_choice` knows which head
wants more than the training split.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
