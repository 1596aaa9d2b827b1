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
        ({}, "dino_vitb8+point_mae"),
        ({"num_blocks": 4}, "dino_vitb8+point_mae-4blocks"),
        ({"mode": "released"}, "dino_vitb8+point_mae-released"),
        ({"mode": "released", "draw": 3}, "dino_vitb8+point_mae-released-draw3"),
        ({"num_blocks": 8, "weights": "random", "draw": 2}, "dino_vitb8+point_mae-8blocks-random-draw2"),
    ],
)
def test_slug_of_an_extractor_tells_its_settings(changes: dict[str, Any], slug: str) -> None:
    assert ExtractorSpec("dino_vitb8", "point_mae", **changes).slug == slug


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rgb": None}, "RGB extractor None is unknown; choose one of handcrafted, dino_vitb8, .*embedded_vit$"),
        ({"rgb": "vit_base_patch16_224.sam_in1k"}, "sharpness-aware minimization, .* not Segment Anything"),
        ({"xyz": "pointnet"}, "3D extractor 'pointnet' is unknown; choose one of handcrafted, fpfh, point_mae, emb"),
        ({"num_blocks": 0}, "num_blocks is 0; give a whole number of at least 1"),
        ({"mode": "train"}, "extractor mode 'train' is unknown; choose one of eval, released"),
        ({"weights": "imagenet"}, "extractor weights 'imagenet' is unknown; choose one of registry, random"),
        ({"weights": "random", "draw": -1}, "draw is -1; give a whole number"),
        ({"draw": 1}, r"extractor dino_vitb8 \+ point_mae: draw has no effect there; leave it out"),
    ],
)
def test_extractor_settings_that_cannot_work_are_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ExtractorSpec(**{"rgb": "dino_vitb8", "xyz": "point_mae", **changes})


@pytest.mark.parametrize(
    ("rgb", "xyz", "heeded"),
    [
        ("handcrafted", "handcrafted", ()),
        ("handcrafted", "fpfh", ()),
        ("wide_resnet50_2", "fpfh", ("weights",)),
        ("wide_resnet50_2", "point_mae", ("num_blocks", "mode", "weights")),
        ("dino_vitb8", "handcrafted", ("num_blocks", "weights")),
        ("embedded_vit", "embedded_point", ("num_blocks", "mode", "weights")),
    ],
)
def test_a_setting_that_neither_side_heeds_is_refused(rgb: str, xyz: str, heeded: tuple[str, ...]) -> None:
    for name, value in {"num_blocks": 4, "mode": "released", "weights": "random"}.items():
        if name in heeded:
            assert getattr(ExtractorSpec(rgb, xyz, **{name: value}), name) == value
        else:
            with pytest.raises(InputError, match=rf"extractor {rgb} \+ {xyz}: {name} has no effect there; leave"):
                ExtractorSpec(rgb, xyz, **{name: value})
