"""Two predictions of one sample made one: by the mean, after standardizing each, or by a one-class SVM.

Letters: V validation or training samples, N foreground pixels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import SGDOneClassSVM
from torch import Tensor

from lib.errors import InputError
from lib.heads import Prediction
from lib.sampling import column_statistics

MAX_FUSION_PIXELS = 200_000  # spread evenly over all [ours]; M3DM takes every pixel
SVM_SCALES = 0.1, 1.0  # of RGB and 3D before the SVM [M3DM]


@dataclass(frozen=True)
class Standardization:
    """Means and standard deviations of image scores and of map values; 1 stands in for a deviation of 0 [ours]."""

    score_mean: float
    score_std: float
    map_mean: float
    map_std: float

    @classmethod
    def fit(cls, predictions: Sequence[Prediction], foregrounds: Sequence[Tensor]) -> Standardization:
        """Statistics of the scores, and of the foreground pixels of the maps.

        Args:
            predictions: of samples that the model has not seen.
            foregrounds: (H, W) bool, one each.

        Raises:
            InputError: there are no predictions.
        """
        if not predictions:
            raise InputError("Standardization.fit: no samples given; a standardized average needs validation samples")
        scores = torch.tensor([[prediction.image_score] for prediction in predictions])
        pixels = (p.anomaly_map[inside][:, None] for p, inside in zip(predictions, foregrounds, strict=True))
        statistics = (*column_statistics([scores]), *column_statistics(pixels))
        return cls(*(float(value) for value in statistics))

    def apply(self, prediction: Prediction) -> Prediction:
        """The prediction in units of standard deviations; the background's zeros stay lowest."""
        anomaly_map = (prediction.anomaly_map - self.map_mean) / self.map_std
        return Prediction(anomaly_map, (prediction.image_score - self.score_mean) / self.score_std)


def average(first: Prediction, second: Prediction) -> Prediction:
    """Mean of the two maps and of the two scores."""
    return Prediction((first.anomaly_map + second.anomaly_map) / 2, (first.image_score + second.image_score) / 2)


@dataclass(frozen=True)
class OneClassFusion:
    """Weighted sums, which is what a linear one-class SVM's `score_samples` is: the "late fusion" of M3DM.

    Attributes:
        score_weights: of the RGB and the 3D image score, none negative.
        map_weights: of the RGB and the 3D map.
    """

    score_weights: tuple[float, float]
    map_weights: tuple[float, float]

    @classmethod
    def fit(cls, rgb: Sequence[Prediction], xyz: Sequence[Prediction], foregrounds: Sequence[Tensor]) -> OneClassFusion:
        """Weights from normal samples: one SVM on their image scores, one on the foreground pixels of their maps.

        M3DM takes the background too; where its zeros are more than the share nu of outliers, the best weights are 0.

        Args:
            rgb, xyz: predictions of the same training samples.
            foregrounds: (H, W) bool, one each.
        """
        pairs = list(zip(rgb, xyz, foregrounds, strict=True))
        scores = np.array([(first.image_score, second.image_score) for first, second, _ in pairs])
        maps = [torch.stack([p.anomaly_map[inside] for p in both], dim=1) for *both, inside in pairs]
        pixels = torch.cat(maps)[:: -(-sum(map(len, maps)) // MAX_FUSION_PIXELS)]
        return cls(one_class_weights(scores), one_class_weights(pixels.double().numpy()))

    def combine(self, rgb: Prediction, xyz: Prediction) -> Prediction:
        """Weighted sums of the two maps and of the two scores."""
        maps = [weight * p.anomaly_map for weight, p in zip(self.map_weights, (rgb, xyz), strict=True)]
        scores = [weight * p.image_score for weight, p in zip(self.score_weights, (rgb, xyz), strict=True)]
        return Prediction(sum(maps), sum(scores))


def one_class_weights(table: np.ndarray) -> tuple[float, float]:
    """Weights of RGB and 3D in `score_samples` of M3DM's one-class SVM; they grow with the values and are not negative.

    Args:
        table: (V, 2) or (N, 2) float64, RGB and 3D values of normal samples, none negative.

    Raises:
        InputError: every value is 0, as when the bank holds all that is scored against it.
    """
    if not table.any():
        raise InputError("one-class SVM: all its scores are 0, the bank holds every patch; lower coreset_fraction")
    svm = SGDOneClassSVM(nu=0.5, max_iter=1000, random_state=42).fit(table * SVM_SCALES)
    rgb, xyz = svm.coef_ * SVM_SCALES
    return float(rgb), float(xyz)
