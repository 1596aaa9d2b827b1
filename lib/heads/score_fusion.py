"""Several predictions of one sample made one: by the mean, after standardizing each, or by a one-class SVM.

Letters: P predictions, V validation or training samples, N foreground pixels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import torch
from sklearn.linear_model import SGDOneClassSVM
from torch import Tensor

from lib.errors import InputError
from lib.heads import Prediction
from lib.heads.state import State
from lib.sampling import column_statistics

MAX_FUSION_PIXELS = 200_000  # spread evenly over all [ours]; M3DM takes every pixel
SVM_SCALES = {"rgb": 0.1, "xyz": 1.0, "fused": 1.0}  # of what each bank says, before the SVM [M3DM]


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

    def state(self) -> State:
        """The four numbers, (4,) float64."""
        return {"statistics": torch.tensor(astuple(self), dtype=torch.float64)}

    @classmethod
    def from_state(cls, state: State) -> Standardization:
        """The one whose `state` it is."""
        return cls(*state["statistics"].tolist())


def average(first: Prediction, second: Prediction) -> Prediction:
    """Mean of the two maps and of the two scores."""
    return Prediction((first.anomaly_map + second.anomaly_map) / 2, (first.image_score + second.image_score) / 2)


@dataclass(frozen=True)
class OneClassFusion:
    """Weighted sums, which is what a linear one-class SVM's `score_samples` is: the "late fusion" of M3DM.

    Attributes:
        names: of what is fused, keys of `SVM_SCALES`.
        score_weights: of each image score, none negative.
        map_weights: of each map.
    """

    names: tuple[str, ...]
    score_weights: tuple[float, ...]
    map_weights: tuple[float, ...]

    @classmethod
    def fit(
        cls,
        parts: Mapping[str, Sequence[Prediction]],
        foregrounds: Sequence[Tensor],
        score_divisor: float = 1.0,
    ) -> OneClassFusion:
        """Weights from normal samples: one SVM on their image scores, one on the pixels of their maps.

        M3DM takes the background too; where its zeros are more than the share nu of outliers, the best weights are 0.

        Args:
            parts: predictions of the same training samples, by name.
            foregrounds: (H, W) bool, one each: the pixels that count.
            score_divisor: of the image scores before the SVM and after it alike: 1000 with two banks [M3DM]; SGD is
                not indifferent to the scale.
        """
        samples = list(zip(*parts.values(), foregrounds, strict=True))
        scores = np.array([[prediction.image_score for prediction in sample] for *sample, _ in samples])
        maps = [torch.stack([p.anomaly_map[inside] for p in sample], dim=1) for *sample, inside in samples]
        pixels = torch.cat(maps)[:: -(-sum(map(len, maps)) // MAX_FUSION_PIXELS)]
        names = tuple(parts)
        score_weights = one_class_weights(scores / score_divisor, names)
        scaled = tuple(weight / score_divisor for weight in score_weights)
        return cls(names, scaled, one_class_weights(pixels.double().numpy(), names))

    def combine(self, parts: Mapping[str, Prediction]) -> Prediction:
        """Weighted sums of the maps and of the scores; every name must be there."""
        found = [parts[name] for name in self.names]
        maps = [weight * p.anomaly_map for weight, p in zip(self.map_weights, found, strict=True)]
        scores = [weight * p.image_score for weight, p in zip(self.score_weights, found, strict=True)]
        return Prediction(sum(maps), sum(scores))

    def state(self) -> State:
        """Both rows of weights, (2, number of parts) float64, under the joined names."""
        return {"+".join(self.names): torch.tensor([self.score_weights, self.map_weights], dtype=torch.float64)}

    @classmethod
    def from_state(cls, state: State) -> OneClassFusion:
        """The fusion whose `state` it is."""
        ((names, weights),) = state.items()
        return cls(tuple(names.split("+")), *(tuple(row) for row in weights.tolist()))


def one_class_weights(table: np.ndarray, names: Sequence[str]) -> tuple[float, ...]:
    """Weights in `score_samples` of M3DM's one-class SVM; they grow with the values and are not negative.

    Args:
        table: (V, P) or (N, P) float64, values of normal samples, none negative.
        names: of the P columns, keys of `SVM_SCALES`.

    Raises:
        InputError: every value is 0, as when the bank holds all that is scored against it.
    """
    if not table.any():
        raise InputError("one-class SVM: all its scores are 0, the bank holds every patch; lower coreset_fraction")
    scales = np.array([SVM_SCALES[name] for name in names])
    svm = SGDOneClassSVM(nu=0.5, max_iter=1000, random_state=42).fit(table * scales)
    return tuple((svm.coef_ * scales).tolist())
