"""Extractors by name: every name is known to the networks, and what features depend on is written down."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from lib.config import RGB_EXTRACTORS, XYZ_EXTRACTORS, ExtractorSpec, project_root
from lib.errors import InputError
from lib.extractors import HANDMADE_RGB, Extractor, extractor_settings, get_extractor, rgb_config, xyz_config
from lib.extractors.point_mae import POINT_MAE_EVAL, POINT_MAE_PRESETS, POINT_MAE_RELEASED
from lib.extractors.rgb_networks import RGB_NETWORKS
from lib.extractors.weight_registry import WEIGHTS
from tests.fixture_study import HANDCRAFTED
from tests.test_handcrafted import made_sample


def test_the_settings_know_exactly_the_networks_there_are() -> None:
    assert [name for name in RGB_EXTRACTORS if name not in HANDMADE_RGB] == list(RGB_NETWORKS)
    assert {name for name, heeded in XYZ_EXTRACTORS.items() if "mode" in heeded} == {n for n, _ in POINT_MAE_PRESETS}
    for name, heeded in RGB_EXTRACTORS.items():
        if heeded:
            assert ("num_blocks" in heeded) == (RGB_NETWORKS[name].num_blocks is not None)
    networks = {name for name, heeded in {**RGB_EXTRACTORS, **XYZ_EXTRACTORS}.items() if heeded}
    assert networks == set(WEIGHTS)


def test_modes_of_the_papers_point_network_are_its_presets() -> None:
    assert xyz_config(ExtractorSpec("handcrafted", "point_mae")) == POINT_MAE_EVAL
    assert xyz_config(ExtractorSpec("handcrafted", "point_mae", mode="released")) == POINT_MAE_RELEASED


@pytest.mark.parametrize("num_blocks", [None, 1, 4, 8])
def test_settings_tell_blocks_and_weights_of_both_networks(num_blocks: int | None) -> None:
    spec = ExtractorSpec("dino_vitb8", "point_mae", num_blocks, weights="random", draw=3)
    settings = extractor_settings(spec)
    assert [side["name"] for side in settings.values()] == ["dino_vitb8", "point_mae"]
    assert [side["num_blocks"] for side in settings.values()] == [num_blocks or 12] * 2
    assert [side["weights"] for side in settings.values()] == ["random, seed 3"] * 2


def test_settings_of_stored_weights_are_their_hashes_and_need_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANOMALY_WEIGHTS", raising=False)
    settings = extractor_settings(ExtractorSpec("wide_resnet50_2", "point_mae", 4))
    assert [side["weights"] for side in settings.values()] == [
        WEIGHTS[name].sha256 for name in ("wide_resnet50_2", "point_mae")
    ]
    assert settings["rgb"]["num_blocks"] is None and settings["xyz"]["num_blocks"] == 4
    assert "weights" not in extractor_settings(HANDCRAFTED)["rgb"]


def test_settings_tell_the_draw_of_dropped_paths() -> None:
    draws = [ExtractorSpec("handcrafted", "point_mae", mode="released", draw=draw) for draw in (0, 1)]
    assert [extractor_settings(spec)["xyz"]["draw"] for spec in draws] == [0, 1]
    assert "draw" not in extractor_settings(ExtractorSpec("handcrafted", "point_mae"))["xyz"]


@pytest.mark.parametrize("rgb", RGB_EXTRACTORS)
def test_pruned_settings_keep_the_dimensions(rgb: str) -> None:
    spec = ExtractorSpec(rgb, "point_mae", 4)
    if rgb not in HANDMADE_RGB:
        assert rgb_config(spec).dim == RGB_NETWORKS[rgb].dim
    assert (xyz_config(spec).num_blocks, xyz_config(spec).xyz_dim) == (4, 1152)


def test_a_pair_of_networks_with_random_weights_gives_the_dimensions_it_promises() -> None:
    pair = get_extractor(ExtractorSpec("embedded_vit", "embedded_point", 1, weights="random"))
    assert pair.rgb_dim == 192 and pair.xyz_dim == xyz_config(ExtractorSpec("handcrafted", "embedded_point", 1)).dim


def test_handmade_features_never_load_timm() -> None:
    script = (
        "import sys; from lib.config import ExtractorSpec;"
        "from lib.extractors import extractor_settings, get_extractor;"
        "specs = [ExtractorSpec('handcrafted', xyz) for xyz in ('handcrafted', 'fpfh')];"
        "[(get_extractor(s), extractor_settings(s)) for s in specs]; assert 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=project_root(), check=True)


def test_a_device_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device cuda: PyTorch finds no CUDA device here; choose cpu"):
        get_extractor(HANDCRAFTED, "cuda")


@pytest.mark.parametrize("line", ["cloud: too few points", "train/good/007: cloud: too few points"])
def test_an_error_names_the_sample_once(line: str) -> None:
    class Sample:
        sample_id = "train/good/007"

    def refuse(sample: Any) -> torch.Tensor:
        raise InputError(line)

    with pytest.raises(InputError, match=r"^train/good/007: cloud: too few points$") as raised:
        Extractor(refuse, refuse)(Sample())
    assert raised.value.__cause__ is not raised.value


def test_fpfh_of_every_point_is_read_as_it_is() -> None:
    features = get_extractor(ExtractorSpec("handcrafted", "fpfh"))(made_sample())
    assert len(features.centers) == len(features.pixel_index)
    assert torch.equal(features.at_pixels()[1], features.xyz_tokens)
