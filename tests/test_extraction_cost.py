"""Cost of CFM behind an extractor: weights counted by hand, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lib.config import ExtractorSpec
from lib.data import Sample
from lib.errors import InputError
from lib.extraction_cost import num_parameters, pipeline_cost
from lib.extractors import get_extractor
from lib.methods import CFMConfig
from lib.preparation import PREPARATION_DEFAULT, prepare_sample
from tests.test_preparation import raw_scene


@pytest.fixture(scope="module")
def sample() -> Sample:
    return prepare_sample(raw_scene(), PREPARATION_DEFAULT, 0)


def test_pipeline_cost_counts_the_weights_that_are_there(sample):
    spec = ExtractorSpec("embedded_vit", "embedded_point", weights="random")
    whole, cut = (
        pipeline_cost(replace(spec, num_blocks=blocks), CFMConfig(hidden_dim=16), [sample]) for blocks in (None, 1)
    )
    pair = get_extractor(spec)
    rgb, xyz = pair.rgb_dim, pair.xyz_dim
    mapping = sum(a * 16 + 16 + 16 * 16 + 16 + 16 * b + b for a, b in ((rgb, xyz), (xyz, rgb)))
    assert whole.mapping_mb == pytest.approx(4 * mapping / 1e6)
    assert whole.extractor_mb == pytest.approx(4 * (num_parameters(pair.rgb) + num_parameters(pair.xyz)) / 1e6)
    assert cut.extractor_mb < whole.extractor_mb and cut.mapping_mb < whole.mapping_mb
    assert whole.frames_per_second > 0


def test_pipeline_cost_needs_a_sample():
    with pytest.raises(InputError, match="no samples"):
        pipeline_cost(ExtractorSpec("handcrafted", "handcrafted"), CFMConfig(hidden_dim=8), [])
