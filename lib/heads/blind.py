"""The detector that sees only the outline: the level every pixel metric grants for nothing."""

from __future__ import annotations

from collections.abc import Sequence

from lib.features import Features
from lib.heads import Prediction
from lib.heads.state import State
from lib.methods import BlindConfig


class Blind:
    """Constant inside the object, zero outside, the same score for every image [ours]."""

    variants = BlindConfig.variants

    def __init__(self, config: BlindConfig, rgb_dim: int, xyz_dim: int, device: str = "cpu") -> None:
        self.config = config

    def fit(self, features: Sequence[Features], seed: int, progress: bool = False) -> dict[str, list[float]]:
        """Nothing to learn; an empty history."""
        return {}

    def predict(self, sample: Features, variants: Sequence[str] = variants) -> dict[str, Prediction]:
        """The object's outline as an anomaly map, with image score 1."""
        return {name: Prediction(sample.foreground.float(), 1.0) for name in variants}

    def state(self) -> State:
        """Nothing."""
        return {}

    def load_state(self, state: State) -> None:
        """Take over nothing."""
