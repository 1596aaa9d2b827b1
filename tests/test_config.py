"""Settings: the papers' values, and one clear line for every value that cannot work."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lib.config import ExtractorSpec
from lib.errors import InputError
from lib.instances import (
    CFM_DEMO,
    CFM_PAPER,
    CFM_RELEASED,
    INSTANCES,
    LSFA_DEMO,
    LSFA_PAPER,
    LSFA_RELEASED,
    PATCHCORE,
    PATCHCORE_DEMO,
    resolve,
)
from lib.methods import (
    CFM_VARIANTS,
    FUSION_VARIANTS,
    MODALITIES,
    PATCHCORE_VARIANTS,
    CFMConfig,
    LSFAConfig,
    PatchCoreConfig,
    Scoring,
)


def test_papers_and_released_settings() -> None:
    assert CFMConfig(None, 1e-3, 250, 4, None, "constant", xyz_mean_px=3) == CFM_PAPER
    assert dataclasses.replace(CFM_RELEASED, num_epochs=250) == CFM_PAPER and CFM_RELEASED.num_epochs == 50
    assert Scoring() == CFM_VARIANTS["product"] == Scoring("product", "gaussian", 4.0, "paper")


COMMON = {  # to both instances of LSFA: reference facts, section 4
    "grid_side": 56,
    "coreset_fraction": 0.1,
    "projection_eps": 0.9,
    "reweight_rows": 3,
    "image_score": "patch",
    "blur_sigma_px": 4.0,
    "num_heads": 12,
    "mlp_ratio": 4,
    "projection_dim": 512,
    "normalize": True,
    "temperature": 1.0,
    "num_clusters": 1,
    "patches_per_image": None,
    "weight_la": 1.0,
    "reduction": "mean",
    "local_bank_rows": 60_000,
    "global_bank_rows": 100,
    "weight_decay": 0.01,
    "warmup_epochs": 1,
    "batch_size": 8,
}


def test_lsfa_of_the_paper() -> None:
    own = {
        "softmax": "joint",
        "negatives": "image",
        "weight_ga": 1.0,
        "weight_lc": 1.0,
        "weight_gc": 1.0,
        "ifc_from_step": 0,
        "ifc_full_bank": False,
        "scope": "category",
        "learning_rate": 2e-3,
        "num_epochs": 20,
        "schedule_epochs": None,
    }
    assert dataclasses.asdict(LSFA_PAPER) == {**COMMON, **own}


def test_lsfa_as_its_released_code_would_run() -> None:
    own = {
        "softmax": "rows",
        "negatives": "batch",
        "weight_ga": 0.1,
        "weight_lc": 0.9,
        "weight_gc": pytest.approx(0.9 * 0.4),
        "ifc_from_step": 60,
        "ifc_full_bank": True,
        "scope": "all",
        "learning_rate": 3e-4,
        "num_epochs": 2,
        "schedule_epochs": 100,
    }
    assert dataclasses.asdict(LSFA_RELEASED) == {**COMMON, **own}


def test_patchcore_alone_is_the_patchcore_of_lsfa() -> None:
    assert PatchCoreConfig(**{f.name: getattr(LSFA_PAPER, f.name) for f in dataclasses.fields(PATCHCORE)}) == PATCHCORE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"softmax": "columns"}, "softmax 'columns' is unknown; choose one of joint, rows"),
        ({"negatives": "bank"}, "negatives 'bank' is unknown; choose one of image, batch"),
        ({"reduction": "max"}, "reduction 'max' is unknown; choose one of mean, sum"),
        ({"scope": "dataset"}, "scope 'dataset' is unknown; choose one of category, all"),
        ({"image_score": "mean"}, "image_score 'mean' is unknown; choose one of patch, map"),
        ({"num_heads": 0}, "LSFAConfig.num_heads is 0; give a whole number of at least 1"),
        ({"mlp_ratio": 2.5}, "mlp_ratio is 2.5; give a whole number"),
        ({"num_clusters": 0}, "num_clusters is 0; give a whole number"),
        ({"patches_per_image": 0}, "patches_per_image is 0; give a whole number"),
        ({"batch_size": True}, "batch_size is True; give a whole number"),
        ({"local_bank_rows": 0}, "local_bank_rows is 0; give a whole number"),
        ({"global_bank_rows": -1}, "global_bank_rows is -1; give a whole number"),
        ({"schedule_epochs": 0}, "schedule_epochs is 0; give a whole number"),
        ({"temperature": 0}, "temperature is 0; give a positive number"),
        ({"learning_rate": "1e-3"}, "learning_rate is '1e-3'; give a positive number, in YAML with a point"),
        ({"weight_la": -1.0}, "weight_la is -1.0; give a positive number"),
        ({"weight_gc": float("nan")}, "weight_gc is nan; give a positive number"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; give a positive number"),
        ({"ifc_from_step": -1}, "ifc_from_step is -1; give a whole number"),
        ({"num_epochs": 0.5}, "num_epochs is 0.5; give a whole number"),
        ({"warmup_epochs": -1}, "warmup_epochs is -1; give a whole number"),
        ({"grid_side": 0}, "grid_side is 0; give a whole number"),
        ({"reweight_rows": 1}, "reweight_rows is 1, which leaves no row but the nearest"),
        ({"coreset_fraction": 1.1}, "coreset_fraction is 1.1; give a share of at most 1"),
        ({"coreset_fraction": 0}, "coreset_fraction is 0; give a positive number"),
        ({"image_score": "map"}, "image_score 'map' is not re-weighted; give reweight_rows None"),
        ({"normalize": "no"}, "normalize 'no' is unknown"),
        ({"projection_eps": 1.0}, "projection_eps is 1.0; give a distortion below 1"),
        ({"blur_sigma_px": 0}, "blur_sigma_px is 0; give a positive number"),
    ],
)
def test_settings_of_lsfa_that_cannot_work_are_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LSFAConfig(**changes)


def test_settings_of_lsfa_that_may_be_zero_or_none() -> None:
    zeros = dict.fromkeys(("weight_la", "weight_ga", "weight_lc", "weight_gc", "weight_decay"), 0.0)
    counts = dict.fromkeys(("ifc_from_step", "num_epochs", "warmup_epochs"), 0)
    absent = dict.fromkeys(("grid_side", "projection_eps", "reweight_rows", "patches_per_image", "schedule_epochs"))
    changes = {**zeros, **counts, **absent, "coreset_fraction": 1}
    assert {name: getattr(resolve("LSFA_DEMO", changes), name) for name in changes} == changes


def test_every_instance_knows_its_variants() -> None:
    found = {name: config.variants for name, config in INSTANCES.items()}
    assert found["PATCHCORE"] == found["LSFA_DEMO"] == found["LSFA_RELEASED"] == PATCHCORE_VARIANTS
    assert found["LSFA_CFM"] == found["CELLS_CFM"] == found["CFM_DEMO"] == tuple(CFM_VARIANTS)
    assert found["LSFA_NEAREST_NEIGHBOR"] == found["NEAREST_NEIGHBOR"] == MODALITIES
    assert found["CFM_AND_LSFA"] == FUSION_VARIANTS and found["BLIND"] == ("outline",)


def test_demo_methods_and_their_comparisons_differ_in_the_adaptors_alone() -> None:
    for adapted, frozen in (("LSFA_CFM", "CELLS_CFM"), ("LSFA_NEAREST_NEIGHBOR", "CELLS_NEAREST_NEIGHBOR")):
        assert INSTANCES[adapted].adaptors == LSFA_DEMO.adaptors
        assert dataclasses.replace(INSTANCES[adapted], adaptors=None) == INSTANCES[frozen]
    adapted, frozen = INSTANCES["CFM_AND_LSFA"], INSTANCES["CFM_AND_PATCHCORE"]
    assert (adapted.banks, frozen.banks, adapted.cfm) == (LSFA_DEMO, PATCHCORE_DEMO, frozen.cfm)
    assert INSTANCES["LSFA_CFM"].head == CFM_DEMO == adapted.cfm
    assert {f.name: getattr(LSFA_DEMO, f.name) for f in dataclasses.fields(PATCHCORE_DEMO)} == vars(PATCHCORE_DEMO)


@pytest.mark.parametrize("settings", [{"aggregation": "mean"}, {"blur": "median"}, {"score_rule": "mine"}])
def test_unknown_scoring_names_the_field(settings: dict[str, str]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(InputError, match=f"{name} '{value}' is unknown; choose one of"):
        Scoring(**settings)


def test_overrides_reach_the_settings_that_settings_hold() -> None:
    found = resolve("LSFA_CFM", {"adaptors": {"num_epochs": 5}})
    assert found.adaptors == dataclasses.replace(LSFA_DEMO.adaptors, num_epochs=5) and found.head == CFM_DEMO
    assert resolve("CFM_AND_LSFA", {"cfm": {"num_epochs": 3}}).cfm.num_epochs == 3
    with pytest.raises(InputError, match=r"override of LSFA_CFM\.head is 3; write a mapping of its fields"):
        resolve("LSFA_CFM", {"head": 3})
    with pytest.raises(InputError, match=r"override of LSFA_CFM\.head 'epochs' is unknown"):
        resolve("LSFA_CFM", {"head": {"epochs": 3}})


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
        ({"rgb": None}, "RGB extractor None is unknown; choose one of handcrafted, gradients, .*embedded_vit$"),
        ({"rgb": "vit_base_patch16_224.sam_in1k"}, "sharpness-aware minimization, .* not Segment Anything"),
        ({"xyz": "pointnet"}, "3D extractor 'pointnet' is unknown; choose one of handcrafted, fpfh, depth, .*, emb"),
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
