"""Which head a method's settings choose, and what that head learns from beside the category's training split."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from lib.errors import InputError
from lib.feature_store import KEPT_FEATURE_BYTES, RecomputedFeatures, category_features, sample_files
from lib.features import Features, Standardizer
from lib.heads import build_head
from lib.methods import MethodSettings
from lib.profiles import MethodSpec, Profile
from lib.runtime import seeded_generator
from lib.training import TrainingSetup, device_setup


def head_modules(config: MethodSettings) -> tuple[str, ...]:
    """Dotted names of the modules that hold the head and the heads within it, which no import statement shows."""
    inner = (getattr(config, field.name) for field in dataclasses.fields(config))
    nested = (module for part in inner if isinstance(part, MethodSettings) for module in head_modules(part))
    return config.head_class.split(":")[0], *nested


def make_head(config: MethodSettings, sample: Features, device: str) -> Any:
    """Untrained head for features shaped like `sample`'s; the settings name its class."""
    return build_head(config, sample.rgb_tokens.shape[0], sample.xyz_tokens.shape[1], device)


def trains_on_all(config: Any) -> bool:
    """True where a part of the method learns from every category of the profile."""
    parts = (config, *(getattr(config, name, None) for name in ("adaptors", "banks")))
    return any(getattr(part, "scope", None) == "all" for part in parts)


def method_features(
    profile: Profile,
    spec: MethodSpec,
    category: str,
    split: str,
    progress: bool = False,
    seed: int = 0,
    kept_bytes: float = KEPT_FEATURE_BYTES,
) -> Sequence[Features]:
    """Features of a split as a method reads them: by its extractor, standardized if it says so, of the shots it has.

    Args:
        profile, category, split, progress, kept_bytes: as for `lib.feature_store.category_features`.
        spec: the method.
        seed: of the experiment, for shots drawn at random.
    """
    chosen = chosen_shots(profile, spec, category, seed)
    return category_features(
        profile, category, split, spec.extractor, progress, spec.standardize, chosen, kept_bytes, spec.std_floor
    )


def chosen_shots(profile: Profile, spec: MethodSpec, category: str, seed: int) -> list[int] | None:
    """Places in the training split of the samples that a method learns from, ascending; None = all of them.

    Raises:
        InputError: there are fewer samples than shots.
    """
    if spec.shots is None:
        return None
    number = len(sample_files(profile, category, "train"))
    if spec.shots > number:
        raise InputError(
            f"method {spec.name} takes {spec.shots} shots, and {category} has {number} training samples; "
            f"set fewer shots in profiles/{profile.name}.yaml"
        )
    order = range(number) if spec.draw == "first" else seeded_generator("shots", seed, category).permutation(number)
    return sorted(int(index) for index in order[: spec.shots])


def training_features(
    profile: Profile, spec: MethodSpec, category: str, progress: bool, seed: int
) -> Sequence[Features]:
    """What a head's `fit` learns from: stored features of the training split, or such as are recomputed each epoch."""
    if not spec.recompute:
        return method_features(profile, spec, category, "train", progress, seed)
    chosen = chosen_shots(profile, spec, category, seed)
    stored = category_features(profile, category, "train", spec.extractor, progress, False, chosen)
    standardizer = Standardizer.fit(stored, spec.std_floor) if spec.standardize else None
    return RecomputedFeatures(profile, category, spec.extractor, chosen, standardizer)


def further_training_data(
    profile: Profile, spec: MethodSpec, category: str, progress: bool, seed: int = 0
) -> dict[str, Any]:
    """What a head's `fit` takes beside the category's training split, by argument name."""
    further: dict[str, Any] = {}
    if spec.config.needs_validation:
        further["validation"] = method_features(profile, spec, category, "validation", progress, seed)
    if trains_on_all(spec.config):
        kept_bytes = KEPT_FEATURE_BYTES / len(profile.categories)
        further["all_categories"] = {
            name: method_features(profile, spec, name, "train", progress, seed, kept_bytes)
            for name in profile.categories
        }
    return further


def training_setup(profile: Profile) -> TrainingSetup:
    """How the profile's trainings are computed on this machine."""
    setup = device_setup(profile.device, profile.precision, profile.memory_gb)
    return dataclasses.replace(setup, compiled=profile.compiled)
