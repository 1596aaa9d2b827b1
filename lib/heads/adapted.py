"""Other heads on LSFA's adapted features, and CFM fused with memory banks: whom else does adaptation help?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lib.errors import InputError
from lib.features import Features, Standardizer
from lib.heads import Prediction, build_head
from lib.heads.adaptation import Adaptors
from lib.heads.checkpoints import Checkpoint
from lib.heads.lsfa import fit_adaptors
from lib.heads.score_fusion import Standardization, average
from lib.heads.state import State, joined, part_of
from lib.methods import FUSION_VARIANTS, AdaptedConfig, FusionConfig, MethodSettings
from lib.patches import read_patches, to_features
from lib.training import DEFAULT_SETUP, TrainingSetup


def how_to_train(
    config: MethodSettings, setup: TrainingSetup, checkpoint: Checkpoint | None, name: str
) -> dict[str, Any]:
    """What the `fit` of an inner head takes of how to train; nothing where it is not trained."""
    return {"setup": setup, "checkpoint": checkpoint and checkpoint.part(name)} if config.trains else {}


class AdaptedHead:
    """A head trained on adapted features that take the place of the frozen ones.

    Adapted features are one vector a cell; without adaptors (`config.adaptors` None) the frozen ones are read by cells
    all the same, so that the two differ in the adaptors alone.
    """

    def __init__(self, config: AdaptedConfig, rgb_dim: int, xyz_dim: int, device: str = "cpu") -> None:
        self.config = config
        self.device = device
        self.variants = config.variants
        self.dims = rgb_dim, xyz_dim
        self.adaptors: Adaptors | None = None
        self.standardizer: Standardizer | None = None
        self.head: Any = build_head(config.head, rgb_dim, xyz_dim, device)

    def fit(
        self,
        features: Sequence[Features],
        seed: int,
        progress: bool = False,
        all_categories: Mapping[str, Sequence[Features]] | None = None,
        setup: TrainingSetup = DEFAULT_SETUP,
        checkpoint: Checkpoint | None = None,
    ) -> dict[str, list[float]]:
        """Histories of the adaptors and of the head.

        Args:
            features, seed, progress, all_categories, setup, checkpoint: as for `lib.heads.lsfa.LSFA.fit`.
        """
        history: dict[str, list[float]] = {}
        if self.config.adaptors is not None:
            self.adaptors, history = fit_adaptors(
                self.config.adaptors, features, seed, self.device, progress, all_categories, setup,
                checkpoint and checkpoint.part("adaptors"),
            )  # fmt: skip
        self.standardizer = None
        read = [self.adapted(sample) for sample in features]
        self.standardizer = Standardizer.fit(read, self.config.std_floor)
        standardized = [self.standardizer.apply(sample) for sample in read]
        how = how_to_train(self.config.head, setup, checkpoint, "head")
        return history | self.head.fit(standardized, seed, progress, **how)

    def adapted(self, sample: Features) -> Features:
        """The sample with adapted features, standardized once the training set's statistics are known [ours]."""
        patch_set = read_patches(sample, self.config.grid_side)
        if self.adaptors is not None:
            patch_set = self.adaptors.adapt(patch_set)
        read = to_features(patch_set, sample)
        return read if self.standardizer is None else self.standardizer.apply(read)

    def predict(self, sample: Features, variants: Sequence[str] | None = None) -> dict[str, Prediction]:
        """Predictions of one sample by the inner head's variants."""
        return self.head.predict(self.adapted(sample), self.variants if variants is None else variants)

    def state(self) -> State:
        """Adaptors, if there are any, statistics of what they give, and the inner head."""
        adaptors = {} if self.adaptors is None else self.adaptors.state_dict()
        statistics = {} if self.standardizer is None else self.standardizer.state
        return joined({"adaptors": adaptors, "standardizer": statistics, "head": self.head.state()})

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        if self.config.adaptors is not None:
            self.adaptors = Adaptors(self.config.adaptors, *self.dims, seed=0).to(self.device).eval()
            self.adaptors.load_state_dict(part_of(state, "adaptors"))
        self.standardizer = Standardizer(**part_of(state, "standardizer"))
        self.head.load_state(part_of(state, "head"))


class FusedHead:
    """CFM's product and the average of memory banks, each standardized by validation samples, and their mean [ours]."""

    variants = FUSION_VARIANTS

    def __init__(self, config: FusionConfig, rgb_dim: int, xyz_dim: int, device: str = "cpu") -> None:
        self.config = config
        self.cfm = build_head(config.cfm, rgb_dim, xyz_dim, device)
        self.banks = build_head(config.banks, rgb_dim, xyz_dim, device)
        self._standardizations: dict[str, Standardization] = {}

    def fit(
        self,
        features: Sequence[Features],
        seed: int,
        progress: bool = False,
        validation: Sequence[Features] = (),
        setup: TrainingSetup = DEFAULT_SETUP,
        checkpoint: Checkpoint | None = None,
        **further: Any,
    ) -> dict[str, list[float]]:
        """Histories of both.

        Args:
            features, seed, progress, setup, checkpoint: as for every head that is trained.
            validation: normal samples that set the scales of the mean.
            **further: what the memory banks' `fit` takes beside these.
        """
        if not validation:
            raise InputError("fusion of CFM and memory banks: no validation samples; they set the scales of its mean")
        how = {name: how_to_train(getattr(self.config, name), setup, checkpoint, name) for name in ("banks", "cfm")}
        history = self.banks.fit(features, seed, progress, validation, **further, **how["banks"])
        history = history | self.cfm.fit(features, seed, progress, **how["cfm"])
        found = [self._parts(sample) for sample in validation]
        foregrounds = [sample.foreground for sample in validation]
        self._standardizations = {
            name: Standardization.fit([parts[name] for parts in found], foregrounds) for name in ("cfm", "banks")
        }
        return history

    def _parts(self, sample: Features) -> dict[str, Prediction]:
        product = self.cfm.predict(sample, ("product",))["product"]
        return {"cfm": product, "banks": self.banks.predict(sample, ("average",))["average"]}

    def predict(self, sample: Features, variants: Sequence[str] = FUSION_VARIANTS) -> dict[str, Prediction]:
        """Predictions of one sample by each alone and by both."""
        parts = self._parts(sample)
        parts["fusion"] = average(*(self._standardizations[name].apply(parts[name]) for name in ("cfm", "banks")))
        return {name: parts[name] for name in variants}

    def state(self) -> State:
        """Both heads and the scales of their mean."""
        parts = {f"standardization.{name}": found.state() for name, found in self._standardizations.items()}
        return joined({"cfm": self.cfm.state(), "banks": self.banks.state(), **parts})

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self.cfm.load_state(part_of(state, "cfm"))
        self.banks.load_state(part_of(state, "banks"))
        scales = {name: part_of(state, f"standardization.{name}") for name in ("cfm", "banks")}
        self._standardizations = {name: Standardization.from_state(found) for name, found in scales.items()}
