"""Settings: the papers' values, and one clear line for every value that cannot work."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lib.config import CFM_DEMO, CFM_PAPER, CFM_RELEASED, CFM_VARIANTS, CFMConfig, ExtractorSpec, Scoring, resolve
from lib.errors import InputError


def test_papers_and_released_settings() -> None:
    assert CFMConfig(None, 1e-3, 250, 4, None, "constant") == CFM_PAPER
    assert dataclasses.replace(CFM_RELEASED, num_epochs=250) == CFM_PAPER and CFM_RELEASED.num_epochs == 50
    assert Scoring() == CFM_VARIANTS["product"] == Scoring("product", "gaussian", 4.0, "paper")


@pytest.mark.parametrize("settings", [{"aggregation": "mean"}, {"blur": "median"}, {"score_rule": "mine"}])
def test_unknown_scoring_names_the_field(settings: dict[str, str]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(InputError, match=f"{name} '{value}' is unknown; choose one of"):
        Scoring(**settings)


def test_resolve_leaves_the_named_instance_alone() -> None:
    assert resolve("CFM_DEMO", {"num_epochs": 1}).num_epochs == 1
    assert resolve("CFM_DEMO", {}) is not None and CFM_DEMO.num_epochs == 30


@pytest.mark.parametrize(
    ("changes", "slug"),
    [
        ({}, "vit+point"),
        ({"num_blocks": 4}, "vit+point-4blocks"),
        ({"mode": "released"}, "vit+point-released"),
        ({"num_blocks": 8, "mode": "released", "weights": "random", "init_seed": 2}, "vit+point-8blocks-released-random2"),
    ],
)
def test_slug_of_an_extractor_tells_its_settings(changes: dict[str, Any], slug: str) -> None:
    assert ExtractorSpec("vit", "point", **changes).slug == slug


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rgb": None}, "rgb is None; write a name"),
        ({"num_blocks": 0}, "num_blocks is 0; give a whole number of at least 1"),
        ({"mode": "train"}, "extractor mode 'train' is unknown; choose one of eval, released"),
        ({"weights": "imagenet"}, "extractor weights 'imagenet' is unknown; choose one of registry, random"),
        ({"weights": "random", "init_seed": -1}, "init_seed is -1; give a whole number"),
        ({"init_seed": 1}, "init_seed has no effect without weights: random"),
    ],
)
def test_extractor_settings_that_cannot_work_are_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ExtractorSpec(**{"rgb": "vit", "xyz": "point", **changes})
