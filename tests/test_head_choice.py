"""Which head settings choose, and what it gets beside the training split."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lib import head_choice
from lib.head_choice import further_training_data, head_modules, make_head, trains_on_all
from lib.instances import BLIND, CFM_DEMO, INSTANCES, LSFA_DEMO, NEAREST_NEIGHBOR, PATCHCORE_DEMO
from lib.methods import AdaptedConfig, FusionConfig
from tests.factories import make_features
from tests.fixture_study import HANDCRAFTED

SHARED = dataclasses.replace(LSFA_DEMO, scope="all")
VALIDATED = (PATCHCORE_DEMO, LSFA_DEMO, FusionConfig(CFM_DEMO, PATCHCORE_DEMO), FusionConfig(CFM_DEMO, LSFA_DEMO))
ON_ALL = (SHARED, AdaptedConfig(CFM_DEMO, SHARED.adaptors, SHARED.grid_side), FusionConfig(CFM_DEMO, SHARED))
ALONE = (CFM_DEMO, NEAREST_NEIGHBOR, BLIND, AdaptedConfig(CFM_DEMO, LSFA_DEMO.adaptors, LSFA_DEMO.grid_side))


@pytest.mark.parametrize("name", sorted(set(INSTANCES) - {"LSFA_PAPER", "LSFA_RELEASED"}))
def test_every_instance_has_its_head(name: str) -> None:
    head = make_head(INSTANCES[name], make_features(0), "cpu")
    assert f"{type(head).__module__}:{type(head).__name__}" == INSTANCES[name].head_class
    assert head.config is INSTANCES[name] and head.variants == INSTANCES[name].variants
    assert head_modules(INSTANCES[name])[0] == type(head).__module__


@pytest.mark.parametrize("config", [*VALIDATED, *ON_ALL, *ALONE])
def test_heads_get_what_they_learn_from(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def features(*given: Any) -> tuple[str, str]:
        _, category, split, extractor, progress, standardize = given
        assert (extractor, progress, standardize) == (HANDCRAFTED, False, "as the method says")
        return category, split

    monkeypatch.setattr(head_choice, "category_features", features)
    profile = type("Study", (), {"categories": ("one", "two")})()
    spec = type("Spec", (), {"config": config, "extractor": HANDCRAFTED, "standardize": "as the method says"})()
    found = further_training_data(profile, spec, "two", progress=False)
    expected = {}
    if isinstance(config, FusionConfig) or hasattr(config, "coreset_fraction"):
        expected["validation"] = ("two", "validation")
    if config in ON_ALL:
        expected["all_categories"] = {name: (name, "train") for name in ("one", "two")}
    assert found == expected and trains_on_all(config) == (config in ON_ALL)


def test_heads_within_heads_count_among_the_modules() -> None:
    assert head_modules(FusionConfig(CFM_DEMO, LSFA_DEMO)) == ("lib.heads.adapted", "lib.heads.cfm", "lib.heads.lsfa")
    assert head_modules(BLIND) == ("lib.heads.blind",)
