"""Which head a method's settings choose, and what that head learns from beside the category's training split."""

from __future__ import annotations

import dataclasses
from typing import Any

from lib.feature_store import category_features
from lib.features import Features
from lib.heads import build_head
from lib.methods import MethodSettings
from lib.profiles import MethodSpec, Profile


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
    profile: Profile, spec: MethodSpec, category: str, split: str, progress: bool = False
) -> list[Features]:
    """Features of a split as a method reads them: by its extractor, standardized if it says so."""
    return category_features(profile, category, split, spec.extractor, progress, spec.standardize)


def further_training_data(profile: Profile, spec: MethodSpec, category: str, progress: bool) -> dict[str, Any]:
    """What a head's `fit` takes beside the category's training split, by argument name."""
    further: dict[str, Any] = {}
    if spec.config.needs_validation:
        further["validation"] = method_features(profile, spec, category, "validation", progress)
    if trains_on_all(spec.config):
        further["all_categories"] = {
            name: method_features(profile, spec, name, "train", progress) for name in profile.categories
        }
    return further
