"""Networks in bf16: about the same tokens and maps, float32 outside, and float32 networks as they were."""

from __future__ import annotations

import pytest
import torch

from lib.config import ExtractorSpec
from lib.data import Sample
from lib.errors import InputError
from lib.extractors import get_extractor
from lib.heads.cfm import CFM
from lib.methods import CFMConfig
from lib.preparation import PREPARATION_DEFAULT, prepare_sample
from tests.factories import make_features
from tests.test_preparation import raw_scene

SPEC = ExtractorSpec("embedded_vit", "embedded_point", weights="random")


@pytest.fixture(scope="module")
def sample() -> Sample:
    return prepare_sample(raw_scene(), PREPARATION_DEFAULT, 0)


def relative(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).norm() / second.norm())


def test_tokens_in_bf16_are_float32_and_close(sample):
    full, half = get_extractor(SPEC)(sample), get_extractor(SPEC, precision="bf16")(sample)
    for name in ("rgb_tokens", "xyz_tokens"):
        exact, rounded = getattr(full, name), getattr(half, name)
        assert rounded.dtype == torch.float32
        assert 0 < relative(rounded, exact) < 0.05
    assert torch.equal(half.centers, full.centers) and torch.equal(half.neighbors, full.neighbors)


def test_maps_in_bf16_are_close_and_the_head_itself_is_left_alone():
    features = make_features(seed=1)
    head = CFM(CFMConfig(), features.rgb_tokens.shape[0], features.xyz_tokens.shape[1])
    before = head.predict(features)["product"]
    half = head.at_precision("bf16").predict(features)["product"]
    after = head.at_precision("float32").predict(features)["product"]
    assert half.anomaly_map.dtype == torch.float32
    assert 0 < relative(half.anomaly_map, before.anomaly_map) < 0.05
    assert torch.equal(after.anomaly_map, before.anomaly_map)
    assert torch.equal(head.predict(features)["product"].anomaly_map, before.anomaly_map)
    assert head.rgb_to_xyz.input.weight.dtype == torch.float32


@pytest.mark.parametrize("spec", [SPEC, ExtractorSpec("handcrafted", "handcrafted")], ids=["networks", "handcrafted"])
@pytest.mark.parametrize("precision", ["fp16", "double", ""])
def test_another_word_is_refused(spec, precision):
    with pytest.raises(InputError, match="precision of inference"):
        get_extractor(spec, precision=precision)
    with pytest.raises(InputError, match="precision of inference"):
        CFM(CFMConfig(), 3, 4).at_precision(precision)
