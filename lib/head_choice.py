"""Which head a method's settings choose, and what that head learns from beside the category's training split."""

from __future__ import annotations

from typing import Any

from lib.feature_store import category_features
from lib.features import Features
from lib.heads.adapted import AdaptedHead, FusedHead
from lib.heads.blind import Blind
from lib.heads.cfm import CFM
from lib.heads.lsfa import LSFA
from lib.heads.memory_bank import NearestNeighbor, PatchCore
from lib.methods import (
    AdaptedConfig,
    AdaptorConfig,
    BlindConfig,
    CFMConfig,
    FusionConfig,
    LSFAConfig,
    NearestNeighborConfig,
    PatchCoreConfig,
)
from lib.profiles import MethodSpec, Profile

HEADS = {
    CFMConfig: CFM,
    NearestNeighborConfig: NearestNeighbor,
    PatchCoreConfig: PatchCore,
    LSFAConfig: LSFA,
    AdaptedConfig: AdaptedHead,
    FusionConfig: FusedHead,
    BlindConfig: Blind,
}
VALIDATED = (PatchCoreConfig, FusionConfig)  # their averages are scaled by the validation split


def make_head(config: Any, sample: Features, device: str) -> Any:
    """Untrained head for features shaped like `sample`'s; the type of the settings chooses it."""
    rgb_dim, xyz_dim = sample.rgb_tokens.shape[0], sample.xyz_tokens.shape[1]
    return HEADS[type(config)](config, rgb_dim, xyz_dim, device)


def trains_on_all(config: Any) -> bool:
    """True where LSFA's adaptors learn from every category of the profile."""
    parts = (config, getattr(config, "adaptors", None), getattr(config, "banks", None))
    return any(isinstance(part, AdaptorConfig) and part.scope == "all" for part in parts)


def further_training_data(profile: Profile, spec: MethodSpec, category: str, progress: bool) -> dict[str, Any]:
    """What a head's `fit` takes beside the category's training split, by argument name."""
    further: dict[str, Any] = {}
    if isinstance(spec.config, VALIDATED):
        further["validation"] = category_features(profile, category, "validation", spec.extractor, progress)
    if trains_on_all(spec.config):
        further["all_categories"] = {
            name: category_features(profile, name, "train", spec.extractor, progress) for name in profile.categories
        }
    return further
