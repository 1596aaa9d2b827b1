"""Extractors by name: every setting is heeded or refused, and what features depend on is written down."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from lib import extractors
from lib.config import ExtractorSpec
from lib.errors import InputError
from lib.extractors import Extractor, check_spec, extractor_settings, get_extractor, xyz_config
from lib.extractors.point_mae import POINT_MAE_EVAL, POINT_MAE_RELEASED
from lib.extractors.rgb_networks import RGB_NETWORKS
from tests.fixture_study import HANDCRAFTED

SETTINGS = {"num_blocks": 4, "mode": "released", "weights": "random"}


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
    for name, value in SETTINGS.items():
        spec = ExtractorSpec(rgb, xyz, **{name: value})
        if name in heeded:
            check_spec(spec)
        else:
            with pytest.raises(InputError, match=rf"extractor {rgb} \+ {xyz}: {name}.* has no effect without"):
                check_spec(spec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rgb": "dino"}, r"RGB extractor 'dino' is unknown; choose one of handcrafted, dino_vitb8, .*embedded_vit"),
        ({"rgb": "vit_base_patch16_224.sam_in1k"}, r"sharpness-aware minimization, .* not Segment Anything; choose sam_"),
        ({"xyz": "pointnet"}, r"3D extractor 'pointnet' is unknown; choose one of handcrafted, fpfh, point_mae, emb"),
    ],
)
def test_unknown_names_list_the_known(changes: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        get_extractor(dataclasses.replace(HANDCRAFTED, **changes))


def test_modes_of_the_papers_point_network_are_its_presets() -> None:
    assert xyz_config(ExtractorSpec("handcrafted", "point_mae")) == POINT_MAE_EVAL
    assert xyz_config(ExtractorSpec("handcrafted", "point_mae", mode="released")) == POINT_MAE_RELEASED


@pytest.mark.parametrize("num_blocks", [None, 1, 4, 8])
def test_settings_tell_blocks_and_weights_of_both_networks(num_blocks: int | None) -> None:
    spec = ExtractorSpec("dino_vitb8", "point_mae", num_blocks, weights="random", init_seed=3)
    settings = extractor_settings(spec)
    assert [side["name"] for side in settings.values()] == ["dino_vitb8", "point_mae"]
    assert [side["num_blocks"] for side in settings.values()] == [num_blocks or 12] * 2
    assert [side["weights"] for side in settings.values()] == ["random, seed 3"] * 2


def test_settings_of_stored_weights_are_their_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.extractors.weights.weights_sha256", lambda name: f"hash of {name}")
    settings = extractor_settings(ExtractorSpec("wide_resnet50_2", "point_mae", 4))
    assert [side["weights"] for side in settings.values()] == ["hash of wide_resnet50_2", "hash of point_mae"]
    assert settings["rgb"]["num_blocks"] is None and settings["xyz"]["num_blocks"] == 4
    assert "weights" not in extractor_settings(HANDCRAFTED)["rgb"]


def test_every_name_is_built_with_random_weights_and_gives_the_dimensions_it_promises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Names only: the networks' own tests run them."""
    for rgb, config in RGB_NETWORKS.items():
        spec = ExtractorSpec(rgb, "embedded_point", 1, weights="random")
        side = extractors.rgb_config(spec)
        assert (side.dim, side.num_blocks) == (config.dim, None if config.family == "cnn" else 1)
    pair = get_extractor(ExtractorSpec("embedded_vit", "embedded_point", 1, weights="random"))
    assert pair.rgb_dim == 192 and pair.xyz_dim == xyz_config(spec).dim


def test_an_error_names_the_sample_once() -> None:
    class Sample:
        sample_id = "train/good/007"

    def refuse(sample: Any) -> torch.Tensor:
        raise InputError("cloud: too few points")

    with pytest.raises(InputError, match=r"^train/good/007: cloud: too few points$"):
        Extractor(refuse, refuse)(Sample())
