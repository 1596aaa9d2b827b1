"""Which head settings choose, and what it gets beside the training split."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lib import head_choice
from lib.errors import InputError
from lib.head_choice import chosen_shots, further_training_data, head_modules, make_head, trains_on_all
from lib.instances import BLIND, CFM_DEMO, INSTANCES, LSFA_DEMO, NEAREST_NEIGHBOR, PATCHCORE_DEMO
from lib.methods import AdaptedConfig, FusionConfig
from lib.profiles import MethodSpec
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
        _, category, split, extractor, progress, standardize, chosen, _, std_floor = given
        assert (extractor, progress, standardize, chosen) == (HANDCRAFTED, False, "as the method says", None)
        assert std_floor == 0.5
        return category, split

    monkeypatch.setattr(head_choice, "category_features", features)
    profile = type("Study", (), {"categories": ("one", "two")})()
    facts = {"config": config, "extractor": HANDCRAFTED, "standardize": "as the method says", "shots": None}
    facts["std_floor"] = 0.5
    spec = type("Spec", (), facts)()
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


def shots_of(number: int | None, draw: str, seed: int, monkeypatch: pytest.MonkeyPatch, category: str = "one") -> Any:
    monkeypatch.setattr(head_choice, "sample_files", lambda profile, category, split: range(60))
    spec = MethodSpec("few", CFM_DEMO, ("one",), (0,), ("product",), HANDCRAFTED, shots=number, draw=draw)
    return chosen_shots(type("Study", (), {"name": "test"})(), spec, category, seed)


def test_the_first_shots_are_the_first_files(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shots_of(5, "first", 3, monkeypatch) == [0, 1, 2, 3, 4] and shots_of(None, "first", 3, monkeypatch) is None


def test_random_shots_follow_seed_and_category_and_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    five, ten, whole = (shots_of(number, "random", 3, monkeypatch) for number in (5, 10, 60))
    assert len(five) == 5 and set(five) < set(ten) < set(whole) and whole == list(range(60)) and five == sorted(five)
    others = [shots_of(5, "random", 4, monkeypatch), shots_of(5, "random", 3, monkeypatch, "two"), [0, 1, 2, 3, 4]]
    assert five == shots_of(5, "random", 3, monkeypatch) and five not in others
    drawn = {index for seed in range(200) for index in shots_of(5, "random", seed, monkeypatch)}
    assert drawn == set(range(60))


def test_more_shots_than_samples_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="takes 61 shots, and one has 60 training samples"):
        shots_of(61, "first", 0, monkeypatch)
